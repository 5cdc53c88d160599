"""From an order to a running program: fork, a session of its own, exec; no shell anywhere.

The child tells failures through a pipe that closes itself at exec: end of file means the program runs. A warm one
executes nothing: it leaves by raising `Become`, which closes the pipe on its way.
"""

import _signal  # type: ignore[import-not-found]
import ctypes
import os
import struct

from titan.worker.launcher import shim
from titan.worker.launcher.become import Become, reset_signals, signals_to_reset
from titan.worker.launcher.frames import STAGE_EXEC, STAGE_FOLDER, Given, Launch
from titan.worker.launcher.server import Server

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_FAILURE = struct.Struct("<ii")
_EVERY_SIGNAL = _signal.valid_signals()

_prctl = ctypes.CDLL(None, use_errno=True).prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def become_subreaper() -> None:
    """Make orphans below this process fall to it. Raises OSError where the kernel refuses."""
    if _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


class Spawner:
    """Forks jobs. Made once, when no signal handler but our own is set. Without `server` all are executed."""

    def __init__(self, server: Server | None = None) -> None:
        self._server = server
        # exec keeps "ignored", so a job would inherit Python's SIGPIPE or a shell's nohup.
        self._ignored = [n for n in _EVERY_SIGNAL if _signal.getsignal(n) == _signal.SIG_IGN]
        self._empty = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._handlers = signals_to_reset()
        self._pid = os.getpid()

    def spawn(self, order: Launch, output: int) -> tuple[int, int, int]:
        """Fork `order` with stdout and stderr on `output`.

        Return the pids of its main process and of its shim (0: none), and the read end of its failure pipe.

        Raises OSError when the machine has no process or descriptor left.
        """
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        told = telling = -1
        # A signal for the group that comes before the child's exec must wait until it can kill.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _EVERY_SIGNAL)
        try:
            if order.reap:
                told, telling = os.pipe2(os.O_CLOEXEC)
            pid = os.fork()
            if pid == 0:
                given = self._become(order, output, writing, telling)
                telling = -1  # closed there
                raise Become(given)
            if order.reap:
                os.close(telling)
                telling = -1
                return shim.read_main(told), pid, reading
        except OSError:
            os.close(reading)
            raise
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            for descriptor in (writing, told, telling):
                if descriptor >= 0:
                    os.close(descriptor)
        return pid, 0, reading

    def _become(self, order: Launch, output: int, writing: int, telling: int) -> Given:
        stage = STAGE_FOLDER
        warm = False
        try:
            _die_with(self._pid)
            _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            if order.reap:
                above = os.getpid()
                shim.split(telling)
                os.close(telling)
                _die_with(above)
            os.setsid()
            os.dup2(self._empty, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            given = order.given()
            os.chdir(given.cwd())
            given.add(b"TITAN_MAIN_PID=%d" % os.getpid())  # children cannot take themselves for the main process
            stage = STAGE_EXEC
            if order.warm and self._server is not None:
                self._server.place.show(given)
                reset_signals(self._handlers)
                warm = True
            else:
                for number in self._ignored:
                    _signal.signal(number, _signal.SIG_DFL)
                _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
                words = given.argv()
                os.execve(words[0], words, given.env())  # noqa: S606 - running programs is what it is for
        except OSError as error:
            os.write(writing, _FAILURE.pack(error.errno or 0, stage))
        finally:
            if not warm:
                os._exit(127)
        return given


def _die_with(parent: int) -> None:
    _prctl(PR_SET_PDEATHSIG, _signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(127)  # it was gone before


def read_failure(reading: int) -> tuple[int, int] | None:
    """Return (errno, stage) from a failure pipe at its end, None when the program runs.

    Raises BlockingIOError while neither is known.
    """
    data = os.read(reading, _FAILURE.size)
    if not data:
        return None
    code, stage = _FAILURE.unpack(data)
    return code, stage
