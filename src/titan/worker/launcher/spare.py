"""A fork of the launcher on its way to be a job: one that has its order, and one that was made ahead and waits for it.

With a spare a job does not wait for the fork, nor for what a fork does that is the same for all: it leaves the
launcher's loop, lets go of what was the launcher's, and rehearses. Its order comes over a socket that is its own, so it
never has anybody else's.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import errno
import os
import struct
import time
from typing import Any

from titan.worker.launcher import failure, shim, tree
from titan.worker.launcher.frames import STAGE_EXEC, STAGE_FOLDER, STAGE_FORK, Given, Launch
from titan.worker.launcher.place import Place

EVERY_SIGNAL = _signal.valid_signals()
# An order longer than what the socket takes at once waits for its reader: not for ever, were that one stopped.
_READ_S = 5.0
_ROOM_BYTES = 1 << 16
_LENGTH = struct.Struct("<I")
_RECEIVE_BYTES = 1 << 18
_DESCRIPTOR_BYTES = 4


class Spare:
    """The launcher's side of one that waits: its `pid`, and `reading`, the end of its failure pipe."""

    __slots__ = ("_line", "pid", "reading")

    def __init__(self, line: _socket.socket, pid: int, reading: int) -> None:
        self._line = line
        self.pid = pid
        self.reading = reading

    def give(self, order: Launch, output: int) -> bool:
        """Let it become `order`, with stdout and stderr on `output`; False if it cannot any more, and is killed."""
        packed = output.to_bytes(_DESCRIPTOR_BYTES, "little")
        size = _LENGTH.size + len(order.body)
        until_s = time.monotonic() + _READ_S
        # It would never read, nor would the job's timeout run, if somebody had stopped it.
        tree.signal_process(self.pid, _signal.SIGCONT)
        try:
            self._line.settimeout(_READ_S)
            head = _LENGTH.pack(len(order.body))
            sent = self._line.sendmsg([head, order.body], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])
            while sent < size:
                self._line.settimeout(max(0.001, until_s - time.monotonic()))
                sent += self._line.send(order.body[sent - _LENGTH.size :])
        except OSError:
            tree.signal_process(self.pid, tree.SIGKILL)
            os.close(self.reading)
            return False
        finally:
            self._line.close()
        return True

    def close(self) -> None:
        """Let go of one that died."""
        self._line.close()
        os.close(self.reading)


class AtHand:
    """An order that was there before the fork."""

    def __init__(self, order: Launch, descriptors: list[int]) -> None:
        # What it lies in is overwritten, and they are closed, on the way out of the launcher's loop.
        order.body = memoryview(bytes(order.body))
        self._order = order
        self._descriptors = [os.dup(number) for number in descriptors]

    def receive(self) -> tuple[Launch, list[int]]:
        """Return it, and the descriptors of the job's output and of where a shim tells."""
        return self._order, self._descriptors


class Line:
    """A spare's side of its socket."""

    def __init__(self, line: _socket.socket) -> None:
        self._line = line

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._line.fileno()

    def receive(self) -> tuple[Launch, list[int]]:
        """Wait for the order; return it and the descriptor of the job's output.

        Ends this process if there comes none. Raises OSError when it did not arrive whole.
        """
        data, ancillary, _, _ = self._line.recvmsg(
            _RECEIVE_BYTES, _socket.CMSG_SPACE(_DESCRIPTOR_BYTES), _socket.MSG_CMSG_CLOEXEC
        )
        descriptors = [int.from_bytes(packed, "little") for _, _, packed in ancillary]
        while data and len(data) < _LENGTH.size + _LENGTH.unpack_from(data)[0]:
            more = self._line.recv(_RECEIVE_BYTES)
            data = data + more if more else b""
        if not descriptors:
            if not data:
                os._exit(0)
            raise OSError(errno.EMFILE, "no descriptor is left for the output")
        if not data:
            raise OSError(errno.ECONNRESET, "the order did not come whole")
        self._line.close()
        return Launch(memoryview(data)[_LENGTH.size :]), descriptors


Source = AtHand | Line


class Fork:
    """The fork's side of either. Made in it with every signal blocked; `writing` is its end of the failure pipe.

    `handlers` are those that a job does not have as this process has them.
    """

    def __init__(self, source: Source, writing: int, empty: int, parent: int, handlers: list[tuple[int, Any]]) -> None:
        self._source = source
        self._writing = writing
        self._handlers = handlers
        tree.die_with(parent)
        tree.become_subreaper()
        os.dup2(empty, 0)
        # Until it is a job, all that a signal can ask of it is to end.
        _signal.set_wakeup_fd(-1)
        for number, _ in handlers:
            _set(number, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())

    @property
    def ahead(self) -> bool:
        """Whether there is time until it has its order."""
        return isinstance(self._source, Line)

    def descriptors(self) -> list[int]:
        """Return what one that was made ahead needs to have open, in order."""
        return sorted([self._writing, self._source.fileno()]) if isinstance(self._source, Line) else [self._writing]

    def become(self, place: Place) -> Given:
        """Become what the order says, but for the interpreter; return what is given to the program.

        Ends this process when there is no order, or when it cannot be obeyed, which the launcher is told.
        """
        stage = STAGE_FORK
        try:
            order, descriptors = self._source.receive()
            stage = STAGE_FOLDER
            if order.reap:
                _signal.pthread_sigmask(_signal.SIG_BLOCK, EVERY_SIGNAL)
                shim.split(descriptors[1])
            os.setsid()
            os.dup2(descriptors[0], 1)
            os.dup2(descriptors[0], 2)
            given = order.given()
            os.chdir(given.cwd())
            given.add(b"TITAN_MAIN_PID=%d" % os.getpid())  # children cannot take themselves for the main process
            stage = STAGE_EXEC
            place.show(given)
        except OSError as error:
            failure.tell(self._writing, error, stage)
            os._exit(127)
        for number, wanted in self._handlers:
            if wanted != _signal.SIG_DFL:
                _set(number, wanted)
        if order.reap:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        return given


def _set(number: int, handler: Any) -> None:
    try:
        _signal.signal(number, handler)
    except (OSError, ValueError):
        return  # KILL, STOP, and what the C library keeps for itself
