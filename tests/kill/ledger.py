"""The ledger: one file that every job appends to, as does the campaign for each fault it makes.

A line is `MS RUN JOB FENCE PID WORKER WHAT`, written with O_APPEND in one write, so the order of lines is the
order of events whatever becomes of anybody. `MS` is the boot-time clock, which is the same in all processes.
`RUN` is the submitter's own label: the ledger does not trust ids that the Master gave. A job says start, tick and
end; the campaign says what it did to the part named WORKER.

Each attempt also holds a lock on a file of its own, ALIVE/RUN@JOB@FENCE. The lock is shared by every process it
forks, so it is free exactly when the last of them is gone; nothing has to be searched for.
"""

import dataclasses
import fcntl
import os
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

JOB_SCRIPT = """\
import fcntl, os, select, signal, sys, time
ledger, alive, run, job, kind, work_s, tick_s, enough = sys.argv[1:9]
fence = os.environ["TITAN_FENCE"]
worker = os.environ["TITAN_WORKDIR"].rpartition("/workers/")[2].partition("/")[0]
out = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

def note(what):
    now_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    os.write(out, f"{now_ms} {run} {job} {fence} {os.getpid()} {worker} {what}\\n".encode())

def nap(seconds):
    select.select([], [], [], seconds)

def alone():
    os.setsid()
    os.closerange(0, 3)

def forker():
    # A new process every 50 ms, and at once when it is told to go; each parent leaves.
    alone()
    signal.signal(signal.SIGTERM, lambda number, frame: os.fork() and None)
    while True:
        if os.fork():
            os._exit(0)
        nap(0.05)

def stay():
    while True:
        nap(60)

def daemon():
    alone()
    if os.fork():
        os._exit(0)
    stay()

def session():
    alone()
    stay()

def deaf():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP, signal.SIGINT})
    stay()

if kind != "quick":
    lock = os.open(os.path.join(alive, f"{run}@{job}@{fence}"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
if kind == "deaf":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP, signal.SIGINT})
note("start")
child = {"session": session, "daemon": daemon, "forker": forker, "deaf": deaf}.get(kind)
if child is not None and os.fork() == 0:
    try:
        child()
    finally:
        os._exit(1)
until = time.monotonic() + float(work_s)
while (left := until - time.monotonic()) > 0 and not (kind != "quick" and os.path.exists(enough)):
    nap(min(left, float(tick_s)))
    if float(work_s) >= 1:
        note("tick")
note("end")
os._exit(0)
"""
HOSTILE = ("session", "daemon", "deaf", "forker")
Key = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Line:
    """One entry of the ledger; `place` is its line number from 0."""

    place: int
    ms: int
    run: str
    job: str
    fence: int
    pid: int
    worker: str
    what: str

    @property
    def key(self) -> Key:
        return self.run, self.job


def parse(place: int, text: str) -> Line:
    """Return the entry of one line."""
    ms, run, job, fence, pid, worker, what = text.split(" ")
    return Line(place, int(ms), run, job, int(fence), int(pid), worker, what)


def boot_ms() -> int:
    """Return milliseconds of the clock that the ledger's lines carry."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Ledger:
    """The file as the campaign sees it: what was added since the last look, and who lives by it now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[Line] = []
        self.running: dict[Key, Line] = {}
        self.starts: dict[Key, list[Line]] = {}
        self.ended: dict[Key, Line] = {}
        self._lock = threading.Lock()
        self._rest = b""
        # Two descriptors: a write would move the place where the other reads.
        self._writing = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._reading = os.open(path, os.O_RDONLY)

    def note(self, part: str, what: str) -> None:
        """Add a line of the campaign's own: `what` was done to `part`."""
        os.write(self._writing, f"{boot_ms()} - - 0 0 {part} {what}\n".encode())

    def look(self) -> "Ledger":
        """Take in what was added, and return this ledger."""
        with self._lock:
            while data := os.read(self._reading, 1 << 16):
                *whole, self._rest = (self._rest + data).split(b"\n")
                for text in whole:
                    self._add(parse(len(self.lines), text.decode()))
        return self

    def _add(self, line: Line) -> None:
        self.lines.append(line)
        if line.what == "start":
            self.starts.setdefault(line.key, []).append(line)
            self.running[line.key] = line
        elif line.what == "end":
            self.ended.setdefault(line.key, line)
            at = self.running.get(line.key)
            if at is not None and at.fence == line.fence:
                del self.running[line.key]

    def living(self) -> dict[Key, Line]:
        """Return the starts of the attempts that have not written an end, newest of each job."""
        self.look()
        with self._lock:
            return dict(self.running)

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)


class Watch(threading.Thread):
    """Waits until the last process of one attempt is gone; `gone_ms` is when, 0 while one is left.

    An attempt that had no time to take its lock has none to wait for.
    """

    def __init__(self, alive: Path, start: Line) -> None:
        super().__init__(daemon=True, name=f"watch-{start.fence}")
        self.attempt = start
        self.gone_ms = 0
        self._path = alive / f"{start.run}@{start.job}@{start.fence}"

    def run(self) -> None:
        with self._path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.gone_ms = boot_ms()


def watch(alive: Path, attempts: Iterable[Line]) -> list[Watch]:
    """Watch the ends of `attempts`, but those of scripts too quick to hold a lock."""
    watches = [Watch(alive, start) for start in attempts if (alive / f"{start.run}@{start.job}@{start.fence}").exists()]
    for each in watches:
        each.start()
    return watches


def read(path: Path) -> Sequence[Line]:
    """Return the ledger's lines in order; an absent file is an empty ledger."""
    ledger = Ledger(path)
    try:
        return ledger.look().lines
    finally:
        ledger.close()
