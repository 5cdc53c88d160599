"""A Master double, and workers as the processes they are."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.double import TOKEN, MasterDouble


class WorkerProcess:
    """One `python -m titan.worker`, with its descriptors and folder."""

    def __init__(self, home: Path, master: MasterDouble, *options: str, environ: dict[str, str] | None = None) -> None:
        self.home = home
        self.folder = home / "workers" / "w"
        ready, ready_there = os.pipe()
        parent_there, self.parent = os.pipe()
        words = ["--home", str(home), "--join", master.url, "--name", "w", "--slots", "4"]
        fds = ["--parent-fd", str(parent_there), "--ready-fd", str(ready_there)]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "titan.worker", *words, *fds, *options],
            pass_fds=[parent_there, ready_there],
            env=os.environ | (environ or {}),
            stderr=subprocess.PIPE,
        )
        os.close(parent_there)
        os.close(ready_there)
        with open(ready, "rb") as pipe:
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

    def close(self) -> str:
        """End it at once, wait until it is gone, and return what it said."""
        self.leave_parent()
        _, said = self.process.communicate(timeout=30)
        return said.decode()


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
    (home / "token").write_text(f"{TOKEN}\n")
    return home


@pytest.fixture
def worker(master: MasterDouble, home: Path) -> Iterator[WorkerProcess]:
    process = WorkerProcess(home, master)
    yield process
    said = process.close()
    assert "Traceback" not in said, said
