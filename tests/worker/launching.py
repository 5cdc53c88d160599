"""One launcher and the worker's end of it, without a worker."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from titan.worker.launcher import frames
from titan.worker.launcher.frames import Renewed, Report, Start, boot_ms

SOURCE = str(Path(frames.__file__).resolve().parents[3])
PROGRAM = "import sys; sys.path.insert(0, {!r}); from titan.worker.launcher.main import main; main({})"


class Launcher:
    """The worker's end of one launcher."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(30)
        with theirs:
            program = PROGRAM.format(SOURCE, theirs.fileno())
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", program], pass_fds=[theirs.fileno()], start_new_session=True
            )
        self._buffer = bytearray()
        self._reports: list[Report] = []
        self.order(Renewed(boot_ms()))

    def order(self, order: frames.Order, descriptor: int | None = None) -> None:
        data = frames.encode_order(order)
        sent = socket.send_fds(self.socket, [data], [] if descriptor is None else [descriptor])
        self.socket.sendall(data[sent:])

    def start(self, fence: int, script: str, **margins: int) -> int:
        """Start a Python script and return the read end of its pipe."""
        reading, writing = os.pipe()
        argv = [os.fsencode(sys.executable), b"-S", b"-c", script.encode()]
        self.order(Start(fence, b"/", argv, [f"TITAN_FENCE={fence}".encode()], **margins), writing)
        os.close(writing)
        return reading

    def report(self) -> Report:
        while not self._reports:
            data = self.socket.recv(4096)
            assert data, "the launcher is gone"
            self._buffer += data
            self._reports += frames.take_reports(self._buffer)
        return self._reports.pop(0)

    def close(self) -> None:
        self.socket.close()
        self.process.wait(30)


def read_all(reading: int) -> str:
    with open(reading, encoding="utf-8") as pipe:
        return pipe.read()


def line_of(reading: int) -> str:
    """Return what comes first, at least a line."""
    text = b""
    while not text.endswith(b"\n"):
        data = os.read(reading, 4096)
        assert data, f"ended after {text!r}"
        text += data
    return text.decode()


def ended(launcher: Launcher) -> tuple[int, int]:
    """Pass over the start and return (wait status, cause)."""
    report = launcher.report()
    while report.kind == frames.STARTED:
        report = launcher.report()
    assert report.kind == frames.ENDED
    return report.a, report.b
