"""Run seeds: `python -m tests.simulation --seed N [--trace] [--sql]`, or a range: `FIRST LAST [--sql] [--hits]`."""

import sys
import time
from collections import Counter

from tests.simulation.simulation import Outcome, Simulation, run_seed


def tell(at_ms: int, who: str, what: str) -> None:
    """Print one line of the story."""
    print(f"{at_ms / 1000:9.3f} {who:12} {what}")


def report(outcomes: list[Outcome], took_s: float) -> None:
    """Print what came of many seeds."""
    count = len(outcomes)
    events = sorted(outcome.events for outcome in outcomes)[count // 2]
    commits = sorted(outcome.commits for outcome in outcomes)[count // 2]
    simulated_s = sum(outcome.simulated_ms for outcome in outcomes) / count / 1000
    print(f"{count} seeds, {took_s:.1f} s, {took_s / count * 1000:.1f} ms a seed, {simulated_s:.0f} s simulated each")
    print(f"median: {events} events, {commits} commits")
    broken = [outcome for outcome in outcomes if outcome.broken]
    print(len(broken), "broken", dict(Counter(outcome.broken.split(":")[0] for outcome in broken)))
    for outcome in broken[:15]:
        print(outcome.seed, outcome.broken[:200])


def main(arguments: list[str]) -> None:
    """Do as told."""
    level = 1 if "--sql" in arguments else 0
    if arguments[0] == "--seed":
        seed = int(arguments[1])
        print(Simulation(seed, tell=tell).run() if "--trace" in arguments else run_seed(seed, level))
        return
    begun = time.perf_counter()
    outcomes = [run_seed(seed, level) for seed in range(int(arguments[0]), int(arguments[1]))]
    report(outcomes, time.perf_counter() - begun)
    hits: Counter[str] = Counter()
    for outcome in outcomes:
        hits.update(outcome.hits)
    for name, times in sorted(hits.items()) if "--hits" in arguments else ():
        print(f"  {times:8} {name}")


main(sys.argv[1:])
