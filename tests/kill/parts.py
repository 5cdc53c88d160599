"""A cluster in parts: a Master and workers started as `titan up` starts them, each killed and kept away at will.

`titan up` would start a killed part again at once; here the campaign decides when. All parts hold the read end of
one pipe, so they leave when the campaign does.
"""

import dataclasses
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from titan.cli import home as homes
from titan.cli.supervise import clean_environment
from titan_sdk import TitanClient

READY_S = 60.0
STOP_S = 40.0


@dataclasses.dataclass
class Part:
    """One program and the process it is now; `at` is what it is joined to or listens on."""

    name: str
    arguments: Sequence[str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} is not running"
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and wait until the process is gone."""
        assert self.process is not None, f"{self.name} is not running"
        self.process.kill()
        self.process.wait()
        self.process = None


class Parts:
    """A Master and some workers on one home. `joins`: worker -> the URL it is told, unless the Master's own."""

    def __init__(self, home: Path, workers: Sequence[str], slots: int, output: Path) -> None:
        self.home = home
        homes.prepare(home)
        homes.ensure_token(home)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.master = Part(
            "master", ("-m", "titan.master", "--home", str(home), "--listen", "127.0.0.1", "--port", str(self.port))
        )
        self.slots = slots
        self.workers = {name: Part(name, self._worker(name, self.url)) for name in workers}
        self._output = output.open("ab")
        self._reading, self._writing = os.pipe()

    def join(self, worker: str, url: str) -> None:
        """Have `worker` look for its Master at `url` from its next start on."""
        self.workers[worker].arguments = self._worker(worker, url)

    def _worker(self, name: str, url: str) -> tuple[str, ...]:
        slots = str(self.slots)
        return ("-m", "titan.worker", "--home", str(self.home), "--join", url, "--name", name, "--slots", slots)

    def start(self, part: Part, *, wait: bool = True) -> int:
        """Start `part`; with `wait` return once it is ready: a Master listens, a worker is connected."""
        reading, writing = os.pipe()
        command = [
            sys.executable, "-P", *part.arguments, "--parent-fd", str(self._reading), "--ready-fd", str(writing),
        ]  # fmt: skip
        part.process = subprocess.Popen(
            command,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            pass_fds=(self._reading, writing),
        )
        os.close(writing)
        with open(reading, "rb") as ready:
            if wait and not (select.select([ready], [], [], READY_S)[0] and ready.readline()):
                raise AssertionError(f"{part.name} did not get ready; {self._output.name} says why")
        return part.pid

    def restart(self, part: Part) -> None:
        """Stop `part` in order and start it again."""
        assert part.process is not None, f"{part.name} is not running"
        part.process.terminate()
        part.process.wait(STOP_S)
        self.start(part)

    def start_all(self) -> "Parts":
        """Start the Master and all workers, and return when they are ready."""
        self.start(self.master)
        for worker in self.workers.values():
            self.start(worker)
        return self

    def launcher_pid(self, worker: str) -> int:
        """Return the process id of a worker's launcher."""
        pid = self.workers[worker].pid
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            if b"titan.worker.launcher.main" in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
        raise AssertionError(f"worker {worker} has no launcher")

    def client(self) -> TitanClient:
        """Return a client of this Master."""
        return TitanClient(url=self.url, token=(self.home / "token").read_text().strip())

    def stop(self) -> None:
        """Stop the workers, then the Master, and wait for them."""
        for parts in (list(self.workers.values()), [self.master]):
            living = [part.process for part in parts if part.process is not None]
            for process in living:
                process.send_signal(signal.SIGCONT)
                process.terminate()
            for process in living:
                try:
                    process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        for part in (self.master, *self.workers.values()):
            part.process = None
        sweep(self.home)
        self._output.close()
        os.close(self._reading)
        os.close(self._writing)


def sweep(home: Path) -> None:
    """Kill what a broken promise left of this home's jobs, so that a failed campaign leaves the machine as it was."""
    mark = f"TITAN_WORKDIR={home}/".encode()
    left = True
    while left:
        left = False
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
                    left = left or b"\nState:\tZ" not in (entry / "status").read_bytes()
            except OSError:
                continue


def free_port() -> int:
    """Return a port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
