"""The judge: what the ledger says against what was promised. It reads the ledger and nothing else.

Held under every fault: what was acknowledged ends, no child starts before its parents ended, no two attempts of
a job live at once, and a job starts again only when the worker that ran it was killed, stopped or cut off in
between. So under kills of the Master alone, or cuts shorter than a lease, every job starts exactly once.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence

from tests.kill.ledger import Key, Line

# Between the last line of a job and the worker's record of its end lie the exit of the process and what it leaves;
# between the campaign's line and the last start of a killed worker lie the kill and the last order on its way.
UNRECORDED_MS = 1_000
LOSSES_MAX = 3
# What the campaign does to a worker that costs the attempts on it.
COSTS = ("killed", "silenced")

Shape = Mapping[str, Sequence[str]]


def judge(
    lines: Sequence[Line],
    acknowledged: Mapping[str, Shape],
    dead: Collection[Key] = (),
    cancelled: Collection[Key] = (),
) -> list[str]:
    """Return every broken promise as a sentence.

    `acknowledged`: run label -> job -> its parents, for each submission that was answered. `dead`: jobs that the
    Master gave up after three losses; `cancelled`: those below them.
    """
    starts: dict[Key, list[Line]] = {}
    last: dict[tuple[Key, int], Line] = {}
    ends: dict[Key, list[Line]] = {}
    costs: dict[str, list[Line]] = {}
    for line in lines:
        if line.what in COSTS:
            costs.setdefault(line.worker, []).append(line)
        elif line.run != "-":
            last[line.key, line.fence] = line
            if line.what == "start":
                starts.setdefault(line.key, []).append(line)
            elif line.what == "end":
                ends.setdefault(line.key, []).append(line)
    broken = [*_unfinished(acknowledged, starts, ends, {*dead, *cancelled})]
    for key, begun in starts.items():
        for earlier, later in itertools.pairwise(begun):
            broken += _again(key, earlier, later, last[key, earlier.fence], costs.get(earlier.worker, []))
        if len(begun) > LOSSES_MAX:
            broken.append(f"{_name(key)}: started {len(begun)} times; it is DEAD after {LOSSES_MAX} losses")
    for key in dead:
        if _possible_losses(starts.get(key, []), costs) < LOSSES_MAX:
            broken.append(f"{_name(key)}: DEAD, and its workers were not lost {LOSSES_MAX} times")
    return broken


def _unfinished(
    acknowledged: Mapping[str, Shape],
    starts: Mapping[Key, list[Line]],
    ends: Mapping[Key, list[Line]],
    excused: Collection[Key],
) -> list[str]:
    broken = []
    for run, jobs in acknowledged.items():
        for job, parents in jobs.items():
            if (run, job) not in ends:
                if (run, job) not in excused:
                    broken.append(f"{run}/{job}: acknowledged and never ended")
                continue
            for parent in parents:
                parent_end = ends.get((run, parent))
                if parent_end is None or starts[run, job][0].place < parent_end[0].place:
                    broken.append(f"{run}/{job}: started before its parent {parent} had ended")
    return broken


def _again(key: Key, earlier: Line, later: Line, last: Line, costs: Sequence[Line]) -> list[str]:
    """Judge a second start of one job: why, and whether the first was over."""
    fences = f"fences {earlier.fence} and {later.fence}"
    between = [cost for cost in costs if cost.place < later.place and cost.ms > earlier.ms - UNRECORDED_MS]
    broken = []
    if last.place > later.place:
        broken.append(f"{_name(key)}: two attempts lived at once ({fences})")
    if not between:
        broken.append(f"{_name(key)}: ran again and nothing had happened to {earlier.worker} ({fences})")
    elif last.what == "end" and not any(abs(cost.ms - last.ms) < UNRECORDED_MS for cost in between):
        broken.append(f"{_name(key)}: had ended and ran again ({fences})")
    if later.fence <= earlier.fence:
        broken.append(f"{_name(key)}: its fence did not rise ({fences})")
    return broken


def _possible_losses(begun: Sequence[Line], costs: Mapping[str, Sequence[Line]]) -> int:
    """Return how many losses the ledger allows: an attempt may be lost before its first line."""
    if not begun:
        return sum(map(len, costs.values()))
    return sum(cost.place > begun[0].place for marks in costs.values() for cost in marks)


def repeats(lines: Sequence[Line]) -> tuple[int, int]:
    """Return how many jobs started more than once, and how many of those had written their end before."""
    begun: dict[Key, int] = {}
    over: set[Key] = set()
    again = 0
    for line in lines:
        if line.what == "start":
            begun[line.key] = begun.get(line.key, 0) + 1
            again += line.key in over
        elif line.what == "end":
            over.add(line.key)
    return sum(count > 1 for count in begun.values()), again


def overstayed(watched: Sequence[tuple[Line, int]], starts: Mapping[Key, Sequence[Line]]) -> list[str]:
    """Return a sentence for each attempt that had a process when the next attempt of its job started.

    `watched`: an attempt's start, and when its last process was gone (0: it still is there).
    """
    broken = []
    for attempt, gone_ms in watched:
        later = [start for start in starts.get(attempt.key, ()) if start.place > attempt.place]
        if later and not 0 < gone_ms <= later[0].ms:
            broken.append(f"{_name(attempt.key)}: a process of fence {attempt.fence} lived when {later[0].fence} began")
    return broken


def _name(key: Key) -> str:
    return f"{key[0]}/{key[1]}"
