"""Many seeds and all mutants, on every core: what is run, what came of it, and whether that is good enough.

The work is cut into tasks, which worker processes take one after the other. A task knows nothing of the others and
results are put together in the order of the tasks, so the report is the same however many processes there are.
"""

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from tests.simulation import coverage
from tests.simulation.mutants import MUTANTS, applied
from tests.simulation.simulation import Outcome, run_seed

SEEDS_FILE = Path(__file__).parent.parent / "seeds.txt"
CHUNKS = (50, 10)
# Other seeds than on dicts: the same ones would go nearly the same way.
FIRST = (1, 1_000_001)
MUTANT_SEEDS_MAX = 2_000
EVENTS_MIN, COMMITS_MIN, HITS_MIN = 1_000, 30, 1_000
SEED_S_MAX = 300
PROGRESS_S = 30.0
YEAR_MS = 365.25 * 86_400_000
SHOWN_MAX = 20


class Task(msgspec.Struct, frozen=True):
    """Seeds to run at a level. With a mutant in the product the task ends at the first that is broken."""

    level: int
    seeds: tuple[int, ...]
    mutant: str = ""


class Broken(msgspec.Struct, frozen=True):
    """A seed in which a promise was not kept."""

    level: int
    seed: int
    text: str

    @property
    def command(self) -> str:
        """What tells its story."""
        return f"./dev sim --seed {self.seed}{' --sql' if self.level else ''} --trace"

    @property
    def line(self) -> str:
        """What tests/seeds.txt says of it."""
        return f"{self.level} {self.seed}  # {self.text}"


class Done(msgspec.Struct):
    """What came of a task, or of several."""

    seeds: int = 0
    events: list[int] = []
    commits: list[int] = []
    simulated_ms: int = 0
    hits: dict[str, int] = {}
    moves: dict[tuple[str, str], int] = {}
    broken: list[Broken] = []

    def take(self, other: "Done") -> None:
        """Add what came of another task."""
        self.seeds += other.seeds
        self.events += other.events
        self.commits += other.commits
        self.simulated_ms += other.simulated_ms
        self.broken += other.broken
        _add(self.hits, other.hits)
        _add(self.moves, other.moves)


class Wish(msgspec.Struct, frozen=True):
    """A campaign. `whole`: every move and fault kind has to be reached often, and medians have to be high enough."""

    tasks: tuple[Task, ...]
    whole: bool = False


# What worker processes do


def _begin() -> None:
    """Get a worker process ready. Ctrl+C is for the one that leads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, _takes_too_long)
    coverage.count_moves()
    gc.freeze()


def _takes_too_long(_number: int, _frame: object) -> None:
    raise TimeoutError(f"more than {SEED_S_MAX} s of real time")


def carry_out(task: Task) -> Done:
    """Run the seeds of a task, and collect what garbage they have left."""
    coverage.MOVES.clear()
    done = Done()
    if task.mutant:
        look_for(task, done)
    else:
        for seed in task.seeds:
            take(run_guarded(seed, task.level), task.level, done)
    done.moves = dict(coverage.MOVES)
    gc.collect()
    return done


def look_for(task: Task, done: Done) -> None:
    """Run seeds with a mutant in the product until one is broken which is not so without it."""
    for seed in task.seeds:
        with applied(MUTANTS[task.mutant]):
            outcome = run_guarded(seed, task.level)
        if outcome.broken and is_verdict(outcome.broken) and run_guarded(seed, task.level).broken:
            outcome.broken = "raised: it is broken without the mutant as well"
        take(outcome, task.level, done)
        if is_caught(done):
            return


def run_guarded(seed: int, level: int) -> Outcome:
    """Run one seed, or give it up when it does not end."""
    signal.alarm(SEED_S_MAX)
    try:
        return run_seed(seed, level)
    finally:
        signal.alarm(0)


def take(outcome: Outcome, level: int, done: Done) -> None:
    """Note what came of a seed."""
    done.seeds += 1
    done.events.append(outcome.events)
    done.commits.append(outcome.commits)
    done.simulated_ms += outcome.simulated_ms
    _add(done.hits, outcome.hits)
    if outcome.broken:
        done.broken.append(Broken(level, outcome.seed, outcome.broken))


def is_verdict(text: str) -> bool:
    """Say whether the judge found a promise broken. An exception is none: a mutant's own patch may have raised it."""
    return not text.startswith("raised")


def is_caught(done: Done) -> bool:
    """Say whether a mutant was noticed."""
    return any(is_verdict(broken.text) for broken in done.broken)


def _add(to: dict[Any, int], more: Mapping[Any, int]) -> None:
    for name, count in more.items():
        to[name] = to.get(name, 0) + count


# What is to be done


def seeds_of(level: int, seeds: range) -> Iterator[Task]:
    """Return the tasks that run these seeds."""
    step = CHUNKS[level]
    for first in range(seeds.start, seeds.stop, step):
        yield Task(level, tuple(range(first, min(first + step, seeds.stop))))


def kept() -> Iterator[Task]:
    """Return the tasks that run the seeds of tests/seeds.txt: they found something once."""
    for line in SEEDS_FILE.read_text().splitlines():
        text = line.partition("#")[0].split()
        if text:
            yield Task(int(text[0]), (int(text[1]),))


def of_mutants(names: Iterable[str]) -> Iterator[Task]:
    """Return the tasks that look for mutants."""
    for name in names:
        level = MUTANTS[name].level
        yield Task(level, tuple(range(1, MUTANT_SEEDS_MAX + 1)), name)


def full(on_dicts: int, on_storage: int, mutants: bool = True) -> Wish:
    """Return a campaign of so many seeds a level, and the mutants."""
    counts = (on_dicts, on_storage)
    tasks = [*kept(), *(of_mutants(MUTANTS) if mutants else ())]
    for level in (1, 0):
        tasks += seeds_of(level, range(FIRST[level], FIRST[level] + counts[level]))
    return Wish(tuple(tasks), whole=mutants)


# The campaign


def run(wish: Wish, say: Callable[[str], Any] = print, processes: int = 0) -> bool:
    """Carry it out, report, and return whether all is well."""
    begun_s = told_s = time.monotonic()
    total, passed, failed = Done(), 0, 0
    count = processes or len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(count, len(wish.tasks)), context, initializer=_begin) as pool:
        for task, done in zip(wish.tasks, pool.map(carry_out, wish.tasks), strict=True):
            if task.mutant:
                caught = is_caught(done)
                say(_of_mutant(task, done))
                passed, failed = passed + caught, failed + (not caught)
                continue
            for broken in done.broken[: max(0, SHOWN_MAX - len(total.broken))]:
                say(f"broken: {broken.text}\n        {broken.command}")
            passed += done.seeds - len(done.broken)
            failed += len(done.broken)
            total.take(done)
            if time.monotonic() - told_s > PROGRESS_S:
                told_s = time.monotonic()
                say(f"{total.seeds} seeds after {told_s - begun_s:.0f} s, {len(total.broken)} broken")
    took_s = time.monotonic() - begun_s
    if total.seeds:
        failed += report(total, took_s, wish.whole, say)
    verdict = "passed" if not failed else "FAILED"
    say(f"the simulation has {verdict}, after {took_s:.0f} s")
    say(f"{passed} passed, {failed} failed")
    return not failed


def _of_mutant(task: Task, done: Done) -> str:
    mutant = MUTANTS[task.mutant]
    if not is_caught(done):
        raised = f", {len(done.broken)} of them raised, such as {done.broken[0].text}" if done.broken else ""
        return f"mutant {mutant.name} SURVIVED {done.seeds} seeds{raised}: {mutant.broken}"
    last = done.broken[-1]
    return f"mutant {mutant.name} is caught by seed {last.seed}: {last.text[:100]}"


def report(total: Done, took_s: float, whole: bool, say: Callable[[str], Any] = print) -> int:
    """Print what the seeds reached; return how many things of that are not as they have to be."""
    wrong: list[str] = []
    if whole:
        say("moves of jobs and runs (WAITING belongs to gates, which nothing reaches yet):")
        for name in coverage.moves_of_the_tables():
            wrong += _told(f"{name[0]} {name[1]}", total.moves.get(name, 0), say)
        say("faults:")
        for kind in coverage.FAULTS:
            wrong += _told(kind, total.hits.get(kind, 0), say)
    events, commits = median(total.events), median(total.commits)
    if whole and (events < EVENTS_MIN or commits < COMMITS_MIN):
        wrong.append(f"a seed has {EVENTS_MIN} events and {COMMITS_MIN} commits at least, in the median")
    say(f"{total.seeds} seeds, {total.seeds / took_s:.1f} a second, {total.simulated_ms / YEAR_MS:.2f} years simulated")
    say(f"a seed in the median: {events:.0f} events, {commits:.0f} commits; renewals and acknowledgements not counted")
    for text in wrong:
        say(f"wrong: {text}")
    if total.broken:
        say(f"{len(total.broken)} seeds are broken; tests/seeds.txt keeps them as")
        for broken in total.broken[:SHOWN_MAX]:
            say(broken.line)
    return len(wrong)


def _told(name: str, count: int, say: Callable[[str], Any]) -> list[str]:
    say(f"  {count:10} {name}")
    return [] if count >= HITS_MIN else [f"{name} was reached {count} times, {HITS_MIN} are wanted"]
