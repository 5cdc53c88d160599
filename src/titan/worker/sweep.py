"""The end of every process that a killed worker's jobs left, before its successor says a word.

A live launcher kills its jobs itself and needs nobody. This is for the case that it was killed as well: its
jobs' main processes die with it, and what they had started belongs to whoever adopts orphans. What is left
is looked for in all of /proc and killed, again and again until nothing is found. Surely ours is a process

- whose environment bears the mark of one of our attempts: TITAN_WORKDIR is that attempt's folder below this
  worker's own, and TITAN_FENCE its number;
- in the session of a job's main process, if it began while the record still proves the predecessor alive, or
  shares that session with one that did: a number in use is given to nobody else. A session whose leader began
  after the job's start is another one of that number;
- whose parent is surely ours.

Nothing is signalled by its number. A candidate is pinned by a pidfd first and looked at afterwards; while it
lives, what was seen is true of it, and a signal through the pidfd cannot reach another. A process that fits
none of the three (its environment wiped, a session of its own, its parents dead) may be a stranger and is
left alone; under `titan up`, which adopts such orphans, that one kills them.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

LAUNCHER_LEAVES_S = 2.0
# What the kernel cannot end (a hanging disk) holds up the worker no longer than this.
PATIENCE_S = 30.0
# In one look; who forks faster than that is looked for again. Strangers that do must not hold up the worker.
LISTINGS_MAX = 50
EMPTY_LOOKS_MAX = 5
CHASE_S = 0.2
CHASED = 4
_MS_PER_TICK = 1000 / os.sysconf("SC_CLK_TCK")


class Process:
    """One process as /proc showed it once; `start` is in clock ticks since boot."""

    __slots__ = ("parent", "pid", "session", "start")

    def __init__(self, pid: int, parent: int, session: int, start: int) -> None:
        self.pid = pid
        self.parent = parent
        self.session = session
        self.start = start


def look(pid: int) -> Process | None:
    """Return what /proc says about `pid`; None when there is no such process, or only its remains."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(4096).rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else Process(pid, int(fields[1]), int(fields[3]), int(fields[19]))


class Pinned:
    """A process held by a pidfd, so that its number cannot mean another one while it lives."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._pidfd)

    def dead(self, timeout_s: float = 0.0) -> bool:
        """Say whether it has ended, within `timeout_s`."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def kill(self) -> None:
        """KILL it; one that is gone, or not ours to kill, is no error."""
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def pin(pid: int) -> Pinned | None:
    """Return a hold on `pid`; None when it is gone."""
    try:
        return Pinned(pid)
    except OSError:
        return None


def end_launcher(pid: int, start: int, leaves_s: float = LAUNCHER_LEAVES_S) -> None:
    """Wait until a predecessor's launcher has killed its jobs and left; KILL it when that takes too long."""
    pinned = pin(pid)
    if pinned is None:
        return
    try:
        seen = look(pid)
        if seen is None or seen.start != start or pinned.dead(leaves_s):
            return
        pinned.kill()
        pinned.dead(PATIENCE_S)
    finally:
        pinned.close()


class Sweep:
    """Finds what is left of the jobs of the worker in `folder`.

    `sessions` are the session ids of its jobs' main processes with the boot times (ms) by which those ran;
    at `alive_ms` all of them still did.
    """

    def __init__(self, folder: Path, sessions: Mapping[int, int] | None = None, alive_ms: int = 0) -> None:
        self._mark = os.fsencode(f"TITAN_WORKDIR={folder}/jobs/")
        self._sessions = sessions or {}
        self._alive_ms = alive_ms

    def run(self, patience_s: float = PATIENCE_S) -> tuple[int, int]:
        """Kill until nothing is left; return how many were killed, and how many of them would not die in time."""
        deadline_s = time.monotonic() + patience_s
        killed: set[tuple[int, int]] = set()
        chased = 0
        empty = 0
        while True:
            found, complete = self._find()
            caught = 0 if complete else self._chase()
            chased += caught
            empty = 0 if found or caught else empty + 1
            if not found and (complete or empty >= EMPTY_LOOKS_MAX):
                return len(killed) + chased, 0
            try:
                for _, pinned in found:
                    pinned.kill()
                killed |= {(seen.pid, seen.start) for seen, _ in found}
                left = sum(not pinned.dead(max(0.0, deadline_s - time.monotonic())) for _, pinned in found)
            finally:
                for _, pinned in found:
                    pinned.close()
            if left or time.monotonic() >= deadline_s:
                return len(killed) + chased, max(left, 1)

    def _find(self) -> tuple[list[tuple[Process, Pinned]], bool]:
        """Return all processes that are surely ours, pinned, and whether every process was looked at.

        A chain of forks, each parent gone before it is looked at, shows as numbers that were not listed before. So
        it is listed again until no number is new: what lives then was looked at while it lived.
        """
        mine = set(_line_of_descent())
        listed: set[int] = set()
        others: dict[int, Process] = {}
        ours: dict[int, tuple[Process, Pinned]] = {}
        for _ in range(LISTINGS_MAX):
            fresh = set(_pids()) - listed
            if not fresh:
                break
            listed |= fresh
            for seen in map(look, fresh - mine):
                if seen is None:
                    continue
                others[seen.pid] = seen
                if self._marked(seen.pid) or self._of_session(seen):
                    self._take(seen.pid, ours, lambda now: self._marked(now.pid) or self._of_session(now))
        # Whoever descends from these, or shares a job's session with them, is ours as long as they live.
        known = 0
        while known != len(ours):
            known = len(ours)
            held = {seen.session for seen, _ in ours.values()} & self._sessions.keys()
            for seen in others.values():
                if seen.pid not in ours and (seen.parent in ours or seen.session in held):
                    self._take(seen.pid, ours, lambda now: self._related(now, ours))
        return list(ours.values()), not fresh

    def _chase(self) -> int:
        """Kill what forks and leaves faster than /proc can be listed; return how many were caught.

        The kernel tells the newest number in no time, and whoever has it, or one just before, still lives.
        """
        mine = set(_line_of_descent())
        caught = 0
        end_s = time.monotonic() + CHASE_S
        with open("/proc/loadavg", "rb", buffering=0) as file:
            while time.monotonic() < end_s:
                file.seek(0)
                newest = int(file.read(256).split()[-1])
                for pid in range(newest, max(1, newest - CHASED), -1):
                    pinned = pin(pid) if pid not in mine and self._marked(pid) else None
                    if pinned is None:
                        continue
                    if self._marked(pid) and not pinned.dead():
                        pinned.kill()
                        caught += 1
                    pinned.close()
        return caught

    def _take(self, pid: int, ours: dict[int, tuple[Process, Pinned]], proves: Callable[[Process], bool]) -> None:
        """Pin `pid`, look again, and keep it if that still proves it ours and it lived all the while."""
        pinned = pin(pid)
        if pinned is None:
            return
        now = look(pid)
        if now is not None and proves(now) and not pinned.dead():
            ours[pid] = (now, pinned)
        else:
            pinned.close()

    def _related(self, seen: Process, ours: dict[int, tuple[Process, Pinned]]) -> bool:
        parent = ours.get(seen.parent)
        if parent is not None and not parent[1].dead():
            return True
        return seen.session in self._sessions and any(
            other.session == seen.session and not pinned.dead() for other, pinned in ours.values()
        )

    def _of_session(self, seen: Process) -> bool:
        started_ms = self._sessions.get(seen.session)
        if started_ms is None or (seen.start + 1) * _MS_PER_TICK > self._alive_ms:
            return False
        leader = look(seen.session)
        return leader is None or leader.start * _MS_PER_TICK <= started_ms

    def _marked(self, pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
                entries = (file.readall() or b"").split(b"\0")
        except OSError:
            return False
        return any(
            entry.startswith(self._mark) and b"TITAN_FENCE=" + entry[len(self._mark) :] in entries for entry in entries
        )


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _line_of_descent() -> Iterator[int]:
    """This process and those it descends from."""
    pid = os.getpid()
    while pid:
        yield pid
        seen = look(pid)
        pid = seen.parent if seen is not None else 0
