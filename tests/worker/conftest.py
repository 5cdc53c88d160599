"""A Master double, and workers as the processes they are."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.double import TOKEN, MasterDouble
from tests.worker.meeting import Meeting


class WorkerProcess:
    """One `python -m titan.worker`, with its descriptors and folder."""

    def __init__(
        self,
        home: Path,
        master: MasterDouble,
        *options: str,
        environ: dict[str, str] | None = None,
        wait: bool = True,
        program: tuple[str, ...] = ("-m", "titan.worker"),
    ) -> None:
        self.home = home
        self.folder = home / "workers" / "w"
        self._said: str | None = None
        ready, ready_there = os.pipe()
        parent_there, self.parent = os.pipe()
        words = ["--home", str(home), "--name", "w", "--slots", "4"]
        words += [] if "--join" in options else ["--join", master.url]
        fds = ["--parent-fd", str(parent_there), "--ready-fd", str(ready_there)]
        self.process = subprocess.Popen(
            [sys.executable, "-P", *program, *words, *fds, *options],
            pass_fds=[parent_there, ready_there],
            env=os.environ | (environ or {}),
            stderr=subprocess.PIPE,
        )
        os.close(parent_there)
        os.close(ready_there)
        self._ready = ready
        self.ready = b""
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until it says that it is connected, or has ended."""
        with open(self._ready, "rb") as pipe:
            self.ready = pipe.read()

    @property
    def launcher_pid(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def leave_parent(self) -> None:
        """What the death of `titan up` looks like."""
        if self.parent >= 0:
            os.close(self.parent)
            self.parent = -1

    def stop(self) -> int:
        """Ask it to leave in order and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def close(self) -> str:
        """End it at once, wait until it is gone, and return what it said."""
        self.leave_parent()
        if self._said is None:
            self._said = self.process.communicate(timeout=30)[1].decode()
        return self._said


@pytest.fixture
def master() -> Iterator[MasterDouble]:
    double = MasterDouble()
    double.start()
    yield double
    double.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "token").touch(0o600)
    (home / "token").write_text(f"{TOKEN}\n")
    return home


@pytest.fixture
def meeting(master: MasterDouble, tmp_path: Path) -> Meeting:
    return Meeting(master, tmp_path / "meeting")


StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def start_worker(master: MasterDouble, home: Path) -> Iterator[StartWorker]:
    """Start workers with options of the test's choice; none may have had a fault when they are closed."""
    started: list[WorkerProcess] = []

    def start(*options: str, environ: dict[str, str] | None = None, wait: bool = True, **more: Any) -> WorkerProcess:
        started.append(WorkerProcess(home, master, *options, environ=environ, wait=wait, **more))
        return started[-1]

    yield start
    said = "".join([worker.close() for worker in started])
    assert "Traceback" not in said, said


@pytest.fixture
def worker(start_worker: StartWorker) -> WorkerProcess:
    return start_worker()
