"""The supervisor behind `titan up`: starts the Master and its workers side by side, and keeps them.

It is one thread around one selector: signals and ended children come through a wake-up pipe, readiness
through one pipe a child. It opens no database and no socket of its own, so there is nothing it could
break by dying. Its children hold the read end of a pipe whose only write end is here: when this process
is gone, however it went, they read end of file and leave. What falls to it from a killed worker (orphans.py)
is ended before a worker is started again.

A child that ends is started again after 0.2 s, doubling to 10 s, and from 0.2 s again once it has been up
for a minute. Only before Titan was ready for the first time does an end mean giving up: at once when the
child refused to start (it has said why), after `START_ENDS_MAX` ends of any other kind.
"""

import dataclasses
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from titan.cli.exits import Exit
from titan.cli.orphans import Orphans

BACKOFF_S_MIN = 0.2
BACKOFF_S_MAX = 10.0
STABLE_S = 60.0
START_ENDS_MAX = 5
# A worker gives its jobs TERM, 10 s, KILL, and reports; the Master then closes its database.
WORKER_GRACE_S = 15.0
MASTER_GRACE_S = 10.0
# A killed worker's launcher ends its jobs and leaves by itself.
ORPHANS_LEAVE_S = 0.5
# What `titan down` sends, so that the other terminal can say who stopped it.
DOWN_SIGNAL = signal.SIGUSR1
STOPPED_BY = {
    signal.SIGINT: "stopping; Ctrl+C again",
    signal.SIGTERM: "stopping, after SIGTERM; Ctrl+C",
    signal.SIGHUP: "stopping, for its terminal is gone; Ctrl+C",
    DOWN_SIGNAL: "stopping, as titan down asked; Ctrl+C",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """One child: its name for people, the arguments of its interpreter, and how long its end may take.

    `environment` is `clean_environment()` unless said.
    """

    name: str
    arguments: tuple[str, ...]
    grace_s: float
    environment: Mapping[str, str] | None = None


class Child:
    """One program and the process it is at the moment, if it is one."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self.ready_pipe: int | None = None
        self.ready = False
        self.backoff_s = BACKOFF_S_MIN
        self.started_s = 0.0
        self.due_s: float | None = 0.0

    def ended(self, now_s: float) -> None:
        """Note that the process is gone and when the next one is due."""
        if now_s - self.started_s >= STABLE_S:
            self.backoff_s = BACKOFF_S_MIN
        self.process = None
        self.due_s = now_s + self.backoff_s
        self.backoff_s = min(self.backoff_s * 2, BACKOFF_S_MAX)


class Supervisor:
    """Runs `master` and `workers` until a signal.

    `on_ready` is called once, when all of them have said so; `on_start` gets the pids of all that live whenever one
    was started; `say` gets one line for each thing a person should know.
    """

    def __init__(
        self,
        master: Program,
        workers: Sequence[Program],
        on_ready: Callable[[], None],
        on_start: Callable[[tuple[int, ...]], None],
        say: Callable[[str], None],
        orphans: Orphans | None = None,
    ) -> None:
        self._orphans = orphans or Orphans()
        self._orphans_due_s: float | None = None
        self._master = Child(master)
        self._workers = [Child(worker) for worker in workers]
        self._children = [self._master, *self._workers]
        self._on_ready = on_ready
        self._on_start = on_start
        self._say = say
        self._announced = False
        self._start_ends = 0
        self._stopping: signal.Signals | None = None
        self._hurry = False
        self._gave_up: Exit | None = None
        self._parent_pipe, self._parent_end = os.pipe()
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Start everything, keep it up, stop it on a signal. Returns 0, or 6 when Titan could not start."""
        with self._signals():
            while self._stopping is None and self._gave_up is None:
                self._start_due()
                self._wait(self._next_due_s())
                self._reap()
                self._end_orphans(time.monotonic())
                self._announce()
            if self._stopping:
                self._say(f"{STOPPED_BY[self._stopping]}: without waiting for the jobs")
            self._stop(self._workers)
            self._orphans.end(self._own())
            self._stop([self._master])
        for descriptor in (self._parent_end, self._parent_pipe):
            os.close(descriptor)
        self._selector.close()
        return self._gave_up or Exit.OK

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Have SIGCHLD and the stop signals wake the selector, and put everything back afterwards."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        self._selector.register(reading, selectors.EVENT_READ, None)
        before = {number: signal.getsignal(number) for number in (signal.SIGCHLD, *STOPPED_BY)}
        wakeup_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for number in STOPPED_BY:
            if before[number] != signal.SIG_IGN or number == DOWN_SIGNAL:  # nohup means it
                signal.signal(number, self._asked_to_stop)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.unregister(reading)
            os.close(reading)
            os.close(writing)

    def _asked_to_stop(self, number: int, _frame: FrameType | None) -> None:
        self._hurry = self._stopping is not None and number == signal.SIGINT
        self._stopping = self._stopping or signal.Signals(number)

    def _start_due(self) -> None:
        now_s = time.monotonic()
        for child in self._children:
            if child is not self._master and self._orphans_due_s is not None:
                continue
            if child.process is None and child.due_s is not None and child.due_s <= now_s:
                self._start(child, now_s)
                self._on_start(tuple(each.process.pid for each in self._children if each.process is not None))

    def _start(self, child: Child, now_s: float) -> None:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        command = [
            sys.executable, "-P", *child.program.arguments,
            "--parent-fd", str(self._parent_pipe), "--ready-fd", str(writing),
        ]  # fmt: skip
        child.process = subprocess.Popen(
            command,
            env=clean_environment() if child.program.environment is None else child.program.environment,
            stdin=subprocess.DEVNULL,
            stdout=2,
            pass_fds=(self._parent_pipe, writing),
            # Ctrl+C reaches the whole group; in which order it stops is decided here. One thread, so this is safe.
            preexec_fn=_ignore_ctrl_c,  # noqa: PLW1509
        )
        os.close(writing)
        child.started_s, child.due_s, child.ready, child.ready_pipe = now_s, None, False, reading
        self._selector.register(reading, selectors.EVENT_READ, child)

    def _next_due_s(self) -> float | None:
        due = [child.due_s for child in self._children if child.process is None and child.due_s is not None]
        if self._orphans_due_s is not None:
            # No worker is started before.
            due = [min([self._orphans_due_s, *([self._master.due_s] if self._master.due_s is not None else [])])]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _wait(self, timeout_s: float | None) -> None:
        for key, _events in self._selector.select(timeout_s):
            data = os.read(key.fd, 4096)
            child: Child | None = key.data
            if child is not None:
                child.ready = child.ready or bool(data)
                self._close_ready_pipe(child)

    def _close_ready_pipe(self, child: Child) -> None:
        if child.ready_pipe is not None:
            self._selector.unregister(child.ready_pipe)
            os.close(child.ready_pipe)
            child.ready_pipe = None

    def _reap(self) -> None:
        for child in self._children:
            code = child.process.poll() if child.process else None
            if code is None:
                continue
            self._close_ready_pipe(child)
            child.ended(time.monotonic())
            if child is not self._master:
                self._orphans_due_s = time.monotonic() + ORPHANS_LEAVE_S
            if self._stopping:
                continue
            if not self._announced and self._gives_up(code):
                self._say(f"{child.program.name} {_how(code)} before Titan was ready: stopping")
                self._gave_up = Exit.INVALID
                return
            wait_s = (child.due_s or 0.0) - time.monotonic()
            self._say(f"{child.program.name} {_how(code)}; starting it again in {max(wait_s, 0):.1f} s")

    def _end_orphans(self, now_s: float) -> None:
        """End what a worker that died has left to us, once it had its time to leave; a worker may start then."""
        # That nothing is left before then proves nothing: its launcher's children fall to us when that dies.
        if self._orphans_due_s is not None and now_s >= self._orphans_due_s:
            if left := self._orphans.end(self._own()):
                self._say(f"{left} processes that a killed worker's jobs left cannot be killed")
            self._orphans_due_s = None

    def _own(self) -> list[int]:
        return [child.process.pid for child in self._children if child.process is not None]

    def _gives_up(self, code: int) -> bool:
        self._start_ends += 1
        return code == Exit.INVALID or self._start_ends >= START_ENDS_MAX

    def _announce(self) -> None:
        if not self._announced and all(child.ready for child in self._children):
            self._announced = True
            self._on_ready()

    def _stop(self, children: Sequence[Child]) -> None:
        """TERM `children`, wait, KILL those that are left; a second Ctrl+C means KILL now."""
        living = [child for child in children if child.process is not None]
        deadline_s = time.monotonic() + max((child.program.grace_s for child in living), default=0.0)
        for child in living:
            _signal(child, signal.SIGTERM)
        killed = False
        while any(child.process is not None for child in living):
            left_s = deadline_s - time.monotonic()
            if not killed and (left_s <= 0 or self._hurry):
                killed = True
                for child in living:
                    _signal(child, signal.SIGKILL)
            self._wait(None if killed else left_s)
            for child in living:
                if child.process is not None and child.process.poll() is not None:
                    self._close_ready_pipe(child)
                    child.process = None


def clean_environment() -> dict[str, str]:
    """Return our environment without what would bend a child: PYTHON*, and TITAN_* but for limits and home.

    A `titan up` started inside a job, or in a shell that points at another Master, must not lead its own
    worker there; and a PYTHONPATH or PYTHONSTARTUP of the caller is not the runtime's.
    """
    kept = ("TITAN_LIMIT_", "TITAN_HOME")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "TITAN_")) or name.startswith(kept)
    }


def _ignore_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _signal(child: Child, number: signal.Signals) -> None:
    if child.process is not None:
        child.process.send_signal(number)


def _how(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
