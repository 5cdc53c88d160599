"""The worker's handle on its launcher: starts it, gives it orders, hears its reports.

If the launcher dies, its jobs' main processes die with it and their orphans fall to the worker, which is a
child subreaper for that one case.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from titan.worker.launcher.frames import Order, Report, encode_order, take_reports
from titan.worker.launcher.server import PREPARE_S

_SOURCE = str(Path(__file__).resolve().parents[2])
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from titan.worker.launcher.main import main; main({}, {})"
# A warm one is started as jobs are, and what of ours it has imported must not stay in its search path.
WARM_PROGRAM = (
    "import sys; del sys.path[0]; sys.path.append(sys.argv[1]); from titan.worker.launcher.main import main; "
    "sys.path.pop(); job = main({}, {}, {}, sys.argv[2:]); job and job()"
)
_RECEIVE_BYTES = 65536
# It ends itself before; but what it imports may have taken its timer from it.
READY_S_MAX = PREPARE_S + 10.0


class Warming:
    """How a warm launcher is started, and `done(names, problem)`, which is called once when it is or cannot be."""

    def __init__(
        self, environ: dict[str, str], preload: tuple[str, ...], done: Callable[[list[str], str], None]
    ) -> None:
        self.environ = environ
        self.preload = preload
        self.done = done


class LauncherProcess:
    """One launcher. `on_report` gets each report, `on_gone` is called once at its end of file.

    `recording` is the descriptor it writes its reports into before it tells them, -1 for none. With `warming` it is a
    warm one: it takes orders once that was told the modules it has, or is of no use and gone if it was told a problem.
    """

    def __init__(
        self,
        on_report: Callable[[Report], None],
        on_gone: Callable[[], None],
        recording: int = -1,
        warming: Warming | None = None,
    ) -> None:
        self._on_report = on_report
        self._on_gone = on_gone
        self._recording = recording
        self._told = b""
        self._telling = -1
        self._loop = asyncio.get_running_loop()
        self._reports = bytearray()
        self._outgoing: deque[tuple[bytes, int | None]] = deque()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            if warming is None:
                self._process = self._run(["-I", "-S", "-c", _PROGRAM.format(theirs.fileno(), recording)], theirs, {})
            else:
                self._telling, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
                program = WARM_PROGRAM.format(theirs.fileno(), recording, writing)
                try:
                    self._process = self._run(["-c", program], theirs, warming.environ, writing, *warming.preload)
                finally:
                    os.close(writing)
        self._socket = ours
        if warming is None:
            self._loop.add_reader(ours, self._receive)
        else:
            self._loop.add_reader(self._telling, self._hear, warming)
            self._watch = self._loop.call_later(READY_S_MAX, self._too_late, warming)

    def _run(
        self, words: list[str], theirs: socket.socket, environ: dict[str, str], telling: int = -1, *preload: str
    ) -> subprocess.Popen[bytes]:
        # A session of its own: a signal for the worker's whole group must leave one process to clean up.
        return subprocess.Popen(
            [sys.executable, *words, _SOURCE, *preload],
            stdin=subprocess.DEVNULL,
            pass_fds=[descriptor for descriptor in (theirs.fileno(), self._recording, telling) if descriptor >= 0],
            start_new_session=True,
            # Its jobs can read it in /proc.
            env=environ,
        )

    def _hear(self, warming: Warming) -> None:
        try:
            data = os.read(self._telling, _RECEIVE_BYTES)
        except BlockingIOError:
            return
        self._told += data
        if data:
            return
        self._stop_hearing()
        importing, lines = _heard(self._told)
        if lines and not lines[0].startswith("!"):
            self._loop.add_reader(self._socket, self._receive)
            warming.done(lines, "")
            return
        self._socket.close()
        code = self._process.wait()
        warming.done([], lines[0][1:] if lines else _why(importing, code))

    def _too_late(self, warming: Warming) -> None:
        self._stop_hearing()
        self._socket.close()
        self._process.kill()
        self._process.wait()
        warming.done([], _why(_heard(self._told)[0], -signal.SIGALRM))

    def _stop_hearing(self) -> None:
        self._watch.cancel()
        self._loop.remove_reader(self._telling)
        os.close(self._telling)
        self._telling = -1

    @property
    def pid(self) -> int:
        """The launcher's process id."""
        return self._process.pid

    def send(self, order: Order, descriptor: int | None = None) -> None:
        """Give an order; `descriptor` goes with it and is closed here. One that is gone takes no orders."""
        if self._socket.fileno() < 0:
            if descriptor is not None:
                os.close(descriptor)
            return
        self._outgoing.append((encode_order(order), descriptor))
        if len(self._outgoing) == 1:
            self._send_waiting()

    def close(self) -> None:
        """Let go of it: it kills every job at once and leaves. Nothing to do when it is gone."""
        if self._socket.fileno() < 0:
            return
        if self._telling >= 0:
            # It has no job yet, and may be long in an import.
            self._stop_hearing()
            self._process.kill()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for _, descriptor in self._outgoing:
            if descriptor is not None:
                os.close(descriptor)
        self._outgoing.clear()

    def kill(self) -> None:
        """End one that answers no more; the rest is as with any that dies."""
        self._process.kill()

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is gone, and with it every process of its jobs; False after `timeout_s`. Blocks."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _send_waiting(self) -> None:
        while self._outgoing:
            data, descriptor = self._outgoing[0]
            try:
                if descriptor is None:
                    sent = self._socket.send(data)
                else:
                    sent = socket.send_fds(self._socket, [data], [descriptor])
                    os.close(descriptor)
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._send_waiting)
                return
            except OSError:
                return  # its end of file is on the way
            if sent < len(data):
                self._outgoing[0] = (data[sent:], None)
            else:
                self._outgoing.popleft()
        self._loop.remove_writer(self._socket)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.close()
            self._on_gone()
            return
        self._reports += data
        for report in take_reports(self._reports):
            self._on_report(report)


def _heard(told: bytes) -> tuple[str, list[str]]:
    """Return the module whose import a launcher was at when it said no more, "" for none, and its last word if any."""
    lines = told.decode("utf-8", "replace").splitlines()
    importing = [line[1:] for line in lines if line.startswith("?")]
    return importing[-1] if importing else "", [line for line in lines if not line.startswith("?")]


def _why(importing: str, code: int) -> str:
    """Say what became of a launcher that never said a last word; its exit code as `Popen` has it."""
    if code == -signal.SIGALRM:
        return f"import {importing} goes on after {PREPARE_S} s" if importing else f"not ready after {PREPARE_S} s"
    end = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"import {importing} ends the interpreter, with {end}" if importing else f"its interpreter ended with {end}"
