"""From an order to a running program: fork, a session of its own, exec; no shell anywhere.

The child tells failures through a pipe that closes itself at exec: end of file means the program runs. A warm one
executes nothing: it is a `Spare`, made ahead when there is time, which closes the pipe when it has become the job.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import os
from collections.abc import Callable
from typing import NoReturn

from titan.worker.launcher import failure, shim, tree
from titan.worker.launcher.become import Become, signals_to_reset
from titan.worker.launcher.frames import STAGE_EXEC, STAGE_FOLDER, STAGE_FORK, Launch
from titan.worker.launcher.server import Server
from titan.worker.launcher.spare import EVERY_SIGNAL, AtHand, Fork, Line, Source, Spare


class Spawner:
    """Forks jobs. Made once, when no signal handler but our own is set. Without `server` all are executed.

    `spares` are the pids of forks that have become no job, dead ones included until they are reaped.
    """

    def __init__(self, server: Server | None = None) -> None:
        self._server = server
        # exec keeps "ignored", so a job would inherit Python's SIGPIPE or a shell's nohup.
        self._ignored = [n for n in EVERY_SIGNAL if _signal.getsignal(n) == _signal.SIG_IGN]
        self._empty = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._handlers = signals_to_reset()
        self._pid = os.getpid()
        self._spare: Spare | None = None
        self._wanted = server is not None
        self.spares: set[int] = set()

    @property
    def wants_spare(self) -> bool:
        """Whether the next warm start would have to fork, and a fork ahead may help it."""
        return self._wanted and self._spare is None

    def make_spare(self) -> None:
        """Fork ahead for the next warm start. One that fails, now or as it waits, is not made again before that."""
        try:
            line, theirs = _socket.socketpair()
        except OSError:
            self._wanted = False
            return
        try:
            pid, reading = self._fork(lambda writing: self._warm(Line(theirs), writing))
        except OSError:
            self._wanted = False
            line.close()
            theirs.close()
            return
        theirs.close()
        self.spares.add(pid)
        self._spare = Spare(line, pid, reading)

    def reaped(self, pid: int) -> None:
        """Forget `pid` if it was a spare: it is dead and reaped."""
        self.spares.discard(pid)
        if self._spare is not None and self._spare.pid == pid:
            self._spare.close()
            self._spare = None
            self._wanted = False

    def spawn(self, order: Launch, output: int) -> tuple[int, int, int]:
        """Start `order` with stdout and stderr on `output`.

        Return the pids of its main process and of its shim (0: none), and the read end of its failure pipe.

        Raises OSError when the machine has no process or descriptor left.
        """
        if not order.reap:
            pid, reading = self._begin(order, [output])
            return pid, 0, reading
        told, telling = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                pid, reading = self._begin(order, [output, telling])
            finally:
                os.close(telling)
            try:
                return shim.read_main(told), pid, reading
            except OSError:
                os.close(reading)
                raise
        finally:
            os.close(told)

    def _begin(self, order: Launch, descriptors: list[int]) -> tuple[int, int]:
        if not order.warm or self._server is None:
            return self._fork(lambda writing: self._execute(order, descriptors, writing))
        self._wanted = True
        spare = self._spare
        # A shim is waited for, and a spare may have been stopped.
        if spare is not None and not order.reap:
            self._spare = None
            if spare.give(order, descriptors[0]):
                self.spares.discard(spare.pid)
                return spare.pid, spare.reading
        return self._fork(lambda writing: self._warm(AtHand(order, descriptors), writing))

    def _fork(self, become: Callable[[int], NoReturn]) -> tuple[int, int]:
        """Fork a process that is to `become`, given the end of its failure pipe; return its pid and the other end."""
        reading, writing = failure.pipe()
        # A signal that comes before the child has its own handlers, or executes, has to wait.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, EVERY_SIGNAL)
        pid = -1
        try:
            pid = os.fork()
        except OSError:
            os.close(reading)
            raise
        finally:
            if pid:  # not in the fork
                _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
                os.close(writing)
        if pid == 0:
            # Nothing but `Become` may go on in the launcher's frames: it would be a second launcher.
            try:
                become(writing)
            except OSError as error:
                failure.tell(writing, error, STAGE_FORK)
                os._exit(127)
            except Exception:  # noqa: BLE001
                os._exit(127)
        return pid, reading

    def _warm(self, source: Source, writing: int) -> NoReturn:
        raise Become(Fork(source, writing, self._empty, self._pid, self._handlers))

    def _execute(self, order: Launch, descriptors: list[int], writing: int) -> NoReturn:
        stage = STAGE_FOLDER
        try:
            tree.die_with(self._pid)
            tree.become_subreaper()
            if order.reap:
                shim.split(descriptors[1])
            os.setsid()
            os.dup2(self._empty, 0)
            os.dup2(descriptors[0], 1)
            os.dup2(descriptors[0], 2)
            given = order.given()
            os.chdir(given.cwd())
            given.add(b"TITAN_MAIN_PID=%d" % os.getpid())  # children cannot take themselves for the main process
            stage = STAGE_EXEC
            for number in self._ignored:
                _signal.signal(number, _signal.SIG_DFL)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            words = given.argv()
            os.execve(words[0], words, given.env())  # noqa: S606 - running programs is what it is for
        except OSError as error:
            failure.tell(writing, error, stage)
        finally:
            os._exit(127)
