"""`./dev sim`: clusters simulated from seeds, each with faults of its own; exit code 1 when a promise was broken."""

import argparse
import sys
from contextlib import ExitStack

from tests.simulation.campaign import Wish, full, of_mutants, run, seeds_of
from tests.simulation.mutants import MUTANTS, applied
from tests.simulation.simulation import Simulation
from tests.simulation.sql_store import SqlStore

EXAMPLES = """\
./dev sim                            2,000 seeds on dicts, 100 on the real storage
./dev sim --ci                       50,000 and 2,000, and every mutant
./dev sim --long                     100,000 and 5,000, and every mutant
./dev sim --seeds 1-5000 [--sql]     these seeds
./dev sim --mutants [NAME]           every mutant, or one
./dev sim --seed 7 --trace [--sql]   the story of one seed; with --mutants NAME that of a mutant
"""


def main() -> int:
    """Do as asked."""
    parser = argparse.ArgumentParser(
        prog="./dev sim", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--ci", action="store_true", help="what has to be green before a commit")
    what.add_argument("--long", action="store_true", help="more of the same")
    what.add_argument("--seed", type=int, metavar="N", help="one seed")
    what.add_argument("--seeds", type=_span, metavar="FIRST-LAST", help="these seeds")
    parser.add_argument("--mutants", nargs="?", const="all", choices=["all", *MUTANTS], metavar="NAME", help="break it")
    parser.add_argument("--sql", action="store_true", help="on the real storage instead of dicts")
    parser.add_argument("--trace", action="store_true", help="tell what happens")
    parser.add_argument("--processes", type=int, default=0, metavar="N", help="instead of one a core")
    wish = parser.parse_args()
    if wish.seed is not None:
        return one(wish.seed, wish.sql, wish.trace, wish.mutants)
    return 0 if run(_asked(wish), _say, wish.processes) else 1


def one(seed: int, sql: bool, trace: bool, mutant: str | None) -> int:
    """Run one seed, and say what came of it."""
    with ExitStack() as stack:
        if mutant:
            stack.enter_context(applied(MUTANTS[mutant]))
        store = SqlStore() if sql else None
        if store is not None:
            stack.callback(store.close)
        outcome = Simulation(seed, store, _tell if trace else None).run()
    _say(f"{outcome.simulated_ms / 1000:.0f} s simulated, {outcome.events} events, {outcome.commits} commits")
    _say(f"seed {seed} is broken: {outcome.broken}" if outcome.broken else f"seed {seed}: every promise was kept")
    return 1 if outcome.broken else 0


def _asked(wish: argparse.Namespace) -> Wish:
    if wish.ci or wish.long:
        return full(50_000, 2_000) if wish.ci else full(100_000, 5_000)
    if wish.seeds:
        return Wish(tuple(seeds_of(int(wish.sql), wish.seeds)))
    if wish.mutants:
        return Wish(tuple(of_mutants(MUTANTS if wish.mutants == "all" else [wish.mutants])))
    return full(2_000, 100, mutants=False)


def _span(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _say(text: str) -> None:
    print(text, flush=True)


def _tell(at_ms: int, who: str, what: str) -> None:
    print(f"{at_ms / 1000:9.3f} {who:12} {what}")


if __name__ == "__main__":
    sys.exit(main())
