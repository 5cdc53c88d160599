"""Who is next among the jobs that are ready.

One queue for each requirement (and pinned worker). In a queue the highest priority goes first, and inside
a priority runs take turns, so a run of 100,000 jobs cannot starve a small one. Every 16th dispatch of a
queue takes its oldest ready job whatever its priority, so nothing waits for ever: with n jobs older than
itself a job is dispatched within 16 * (n + 1) dispatches of its queue.

Removal is lazy: a job carries the number of its place (`queue_seq`), and a place whose number no longer
matches is skipped. Stale places are swept once they outnumber the living ones.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from titan.core.memory import Job

AGEING_PERIOD = 16
_STALE_MIN = 1_000

Place = tuple[int, Job]


class QueueKey(NamedTuple):
    """What the jobs of one queue have in common: the tags they need, the worker they are pinned to ("")."""

    tags: frozenset[str]
    pinned_to: str


class Lengths:
    """The queues by how many jobs they have, so that the longest are found without a look at all others."""

    __slots__ = ("_keys", "_lengths")

    def __init__(self) -> None:
        self._keys: dict[int, dict[QueueKey, None]] = {}
        self._lengths: list[int] = []  # those that some queue has, rising

    def change(self, key: QueueKey, before: int, now: int) -> None:
        """Note that a queue had `before` jobs and has `now`; 0: it is not there."""
        if before:
            keys = self._keys[before]
            del keys[key]
            if not keys:
                del self._keys[before]
                del self._lengths[bisect_left(self._lengths, before)]
        if now:
            if now not in self._keys:
                self._keys[now] = {}
                insort(self._lengths, now)
            self._keys[now][key] = None

    def longest(self, most: int) -> list[QueueKey]:
        """Return up to `most` keys, the longest queue first."""
        return list(islice(self._by_length(), most))

    def _by_length(self) -> Iterator[QueueKey]:
        for length in reversed(self._lengths):
            yield from self._keys[length]


class ReadyQueue:
    """Ready jobs with one requirement. Every step is O(log n) amortised. `lengths` hears of each change."""

    __slots__ = ("_key", "_lengths", "_levels", "_oldest", "_priorities", "_stale", "count", "taken")

    def __init__(self, key: QueueKey, lengths: Lengths) -> None:
        self._key = key
        self._lengths = lengths
        self.count = 0
        self.taken = 0
        self._levels: dict[int, _Level] = {}
        self._priorities: list[int] = []
        self._oldest: deque[Place] = deque()
        self._stale = 0

    def add(self, job: Job, seq: int) -> None:
        """Put `job` last of its run and priority. `seq` is a number never used before."""
        job.queue_seq = seq
        level = self._levels.get(job.priority)
        if level is None:
            level = self._levels[job.priority] = _Level()
            insort(self._priorities, job.priority)
        level.add((seq, job))
        self._oldest.append((seq, job))
        self.count += 1
        self._lengths.change(self._key, self.count - 1, self.count)

    def remove(self, job: Job) -> None:
        """Take `job` out wherever it stands."""
        self._stale += 1
        self._leave(job)

    def take(self) -> Job:
        """Remove and return the next job. Raises IndexError when the queue is empty."""
        self.taken += 1
        if self.taken % AGEING_PERIOD == 0:
            job = self.oldest()
            self.remove(job)
        else:
            job = self._foremost_level()[1].take_turn()
            self._leave(job)
        return job

    def take_of(self, run_id: str) -> Job | None:
        """Remove and return the foremost job of one run, out of its turn; None when none of it stands here."""
        for priority in reversed(self._priorities):
            job = self._levels[priority].take_of(run_id)
            if job is not None:
                self._leave(job)
                return job
        return None

    def head_priority(self) -> int:
        """Return the priority of the job that goes next by priority. Raises IndexError when empty."""
        return self._foremost_level()[0]

    def oldest(self) -> Job:
        """Return the job that has been ready longest. Raises IndexError when empty."""
        return self._oldest[0][1]

    def ahead_of(self, job: Job) -> int:
        """Return how many jobs of a higher priority wait in this queue."""
        return sum(level.living() for priority, level in self._levels.items() if priority > job.priority)

    def _leave(self, job: Job) -> None:
        job.queue_seq = 0
        self.count -= 1
        self._lengths.change(self._key, self.count + 1, self.count)
        while self._oldest and self._oldest[0][1].queue_seq != self._oldest[0][0]:
            self._oldest.popleft()
        # Places are stale in the levels after a removal, among the oldest after a turn as well.
        if max(self._stale, len(self._oldest) - self.count) > 2 * self.count + _STALE_MIN:
            self._sweep()

    def _foremost_level(self) -> tuple[int, "_Level"]:
        while True:
            priority = self._priorities[-1]
            level = self._levels[priority]
            if level.settle():
                return priority, level
            del self._levels[priority]
            self._priorities.pop()

    def _sweep(self) -> None:
        """Drop every stale place, and the turns of runs that have none left."""
        self._oldest = deque(place for place in self._oldest if place[1].queue_seq == place[0])
        former, self._levels, self._stale = self._levels, {}, 0
        for place in self._oldest:
            level = self._levels.setdefault(place[1].priority, _Level())
            level.add(place)
        for priority, level in self._levels.items():
            level.turns = deque(run_id for run_id in former[priority].turns if run_id in level.by_run)
        self._priorities = sorted(self._levels)


class _Level:
    """One priority: the runs in their order of turns, each with its jobs in order of readiness."""

    __slots__ = ("by_run", "turns")

    def __init__(self) -> None:
        self.turns: deque[str] = deque()
        self.by_run: dict[str, deque[Place]] = {}

    def add(self, place: Place) -> None:
        run_id = place[1].run_id
        places = self.by_run.get(run_id)
        if places is None:
            places = self.by_run[run_id] = deque()
            self.turns.append(run_id)
        places.append(place)

    def settle(self) -> bool:
        """Drop what is stale in front; say whether anything is left."""
        while self.turns:
            places = self.by_run[self.turns[0]]
            while places and places[0][1].queue_seq != places[0][0]:
                places.popleft()
            if places:
                return True
            del self.by_run[self.turns.popleft()]
        return False

    def take_turn(self) -> Job:
        """Return the job whose turn it is (its place turns stale when removed) and pass the turn on."""
        run_id = self.turns[0]
        job = self.by_run[run_id].popleft()[1]
        self.turns.rotate(-1)
        return job

    def take_of(self, run_id: str) -> Job | None:
        """Return the foremost job of one run; its place turns stale when removed."""
        places = self.by_run.get(run_id)
        while places:
            seq, job = places.popleft()
            if job.queue_seq == seq:
                return job
        return None

    def living(self) -> int:
        return sum(1 for places in self.by_run.values() for seq, job in places if job.queue_seq == seq)
