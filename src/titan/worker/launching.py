"""The worker's handle on its launcher: starts it, gives it orders, hears its reports.

If the launcher dies, its jobs' main processes die with it and their orphans fall to the worker, which is a
child subreaper for that one case.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from titan.worker.launcher.frames import Order, Report, encode_order, take_reports

_SOURCE = str(Path(__file__).resolve().parents[2])
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from titan.worker.launcher.main import main; main({}, {})"
_RECEIVE_BYTES = 65536


class LauncherProcess:
    """One launcher. `on_report` gets each report, `on_gone` is called once at its end of file.

    `recording` is the descriptor it writes its reports into before it tells them, -1 for none.
    """

    def __init__(self, on_report: Callable[[Report], None], on_gone: Callable[[], None], recording: int = -1) -> None:
        self._on_report = on_report
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._reports = bytearray()
        self._outgoing: deque[tuple[bytes, int | None]] = deque()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            # A session of its own: a signal for the worker's whole group must leave one process to clean up.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM.format(theirs.fileno(), recording), _SOURCE],
                stdin=subprocess.DEVNULL,
                pass_fds=[descriptor for descriptor in (theirs.fileno(), recording) if descriptor >= 0],
                start_new_session=True,
                # Its jobs can read it in /proc.
                env={},
            )
        self._socket = ours
        self._loop.add_reader(ours, self._receive)

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
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for _, descriptor in self._outgoing:
            if descriptor is not None:
                os.close(descriptor)
        self._outgoing.clear()

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
