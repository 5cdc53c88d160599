"""`./dev kill`: campaigns of faults, judged from a ledger; exit code 1 and a list when a promise was broken."""

import argparse
import functools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.kill import faults
from tests.kill.campaign import Outcome, Say

Run = Callable[[Path, int, Say], Outcome]
EXAMPLES = """\
./dev kill                                   20 kills of the Master, away for up to 2 s
./dev kill --master 50 --away 1-30 --slots 24
./dev kill --master 5 --away 40-90 --lease 180
./dev kill --worker 50 --launcher 50 --both 20
./dev kill --cut 10 --cuts 10                shorter than a lease: nothing runs again
./dev kill --cut 45 --cuts 3                 longer than the lease of 30 s: the jobs concerned run again
./dev kill --stop 3                          SIGSTOP of a worker beyond that lease
./dev kill --mixed 50                        all but the long ones, on one cluster
./dev kill --all                             all of these, about an hour
"""


def main() -> int:
    """Run the campaigns that are asked for, one after the other, and print what they saw."""
    parser = argparse.ArgumentParser(
        prog="./dev kill", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1, help="of shapes, pauses, moments and victims (default 1)")
    parser.add_argument("--all", action="store_true", help="everything below with the numbers of the examples")
    parser.add_argument("--master", type=int, default=0, metavar="N", help="kill the Master N times")
    parser.add_argument("--away", type=_span, default=(0.0, 2.0), metavar="A-B", help="and keep it away for A to B s")
    parser.add_argument("--lease", type=int, default=60, metavar="S", help="lease of the long jobs then (default 60)")
    parser.add_argument("--slots", type=int, default=24, metavar="N", help="slots of the worker then (default 24)")
    parser.add_argument("--submitters", type=int, default=3, metavar="N", help="clients that submit (default 3)")
    parser.add_argument("--worker", type=int, default=0, metavar="N", help="kill a worker N times")
    parser.add_argument("--launcher", type=int, default=0, metavar="N", help="kill a launcher N times")
    parser.add_argument("--both", type=int, default=0, metavar="N", help="kill a worker with its launcher N times")
    parser.add_argument("--cut", type=float, default=0, metavar="S", help="cut a worker from its Master for S seconds")
    parser.add_argument("--cuts", type=int, default=3, metavar="N", help="that often (default 3)")
    parser.add_argument("--stop", type=int, default=0, metavar="N", help="SIGSTOP a worker beyond a lease, N times")
    parser.add_argument("--mixed", type=int, default=0, metavar="N", help="N faults of all kinds on one cluster")
    wish = parser.parse_args()
    campaigns = list(_all() if wish.all else _asked(wish))
    print(f"seed {wish.seed}, about {max(1, round(sum(about_s for _, about_s, _ in campaigns) / 60))} min", flush=True)
    return max(_run(title, run, wish.seed) for title, _, run in campaigns)


def _span(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    return float(low), float(high or low)


def _all() -> Iterator[tuple[str, float, Run]]:
    yield _master(50, (1, 30), 24, 60, 3)
    yield _master(5, (40, 90), 24, 180, 3)
    yield _workers(50, 50, 20)
    yield _cut(10, 10)
    yield _cut(45, 3)
    yield _stop(3)
    yield _mixed(50)


def _asked(wish: argparse.Namespace) -> Iterator[tuple[str, float, Run]]:
    killed = wish.worker or wish.launcher or wish.both
    if wish.master or not (killed or wish.cut or wish.stop or wish.mixed):
        yield _master(wish.master or 20, wish.away, wish.slots, wish.lease, wish.submitters)
    if killed:
        yield _workers(wish.worker, wish.launcher, wish.both)
    if wish.cut:
        yield _cut(wish.cut, wish.cuts)
    if wish.stop:
        yield _stop(wish.stop)
    if wish.mixed:
        yield _mixed(wish.mixed)


def _master(
    kills: int, away_s: tuple[float, float], slots: int, lease_s: int, submitters: int
) -> tuple[str, float, Run]:
    run = functools.partial(
        faults.kill_master, kills=kills, away_s=away_s, slots=slots, lease_s=lease_s, submitters=submitters
    )
    title = f"Master killed {kills} times, away {away_s[0]:g} to {away_s[1]:g} s, lease {lease_s} s"
    return title, 30 + kills * (sum(away_s) / 2 + 5), run


def _workers(workers: int, launchers: int, both: int) -> tuple[str, float, Run]:
    run = functools.partial(faults.kill_workers, workers=workers, launchers=launchers, both=both)
    title = f"{workers} workers, {launchers} launchers and {both} times both killed"
    return title, 30 + 7 * (workers + launchers + both), run


def _cut(cut_s: float, cuts: int) -> tuple[str, float, Run]:
    if cut_s < faults.SHORT_LEASE_S:
        run: Run = functools.partial(faults.cut_short, cuts=cuts, cut_s=cut_s)
        return f"{cuts} cuts of {cut_s:g} s, lease 60 s", 30 + cuts * (cut_s + 4), run
    run = functools.partial(faults.cut_long, cuts=cuts, cut_s=cut_s)
    return f"{cuts} cuts of {cut_s:g} s, lease {faults.SHORT_LEASE_S} s", 30 + cuts * (cut_s + 40), run


def _stop(stops: int) -> tuple[str, float, Run]:
    title = f"worker stopped {stops} times beyond a lease of {faults.SHORT_LEASE_S} s"
    return title, 30 + stops * 90, functools.partial(faults.stop_worker, stops=stops)


def _mixed(turns: int) -> tuple[str, float, Run]:
    kinds = ["master", "worker", "launcher", "both", "cut"]
    run = functools.partial(faults.mixed, turns=(kinds * turns)[:turns], submitters=2)
    return f"{turns} faults of all kinds", 30 + 6 * turns, run


def _run(title: str, run: Run, seed: int) -> int:
    print(f"== {title}", flush=True)
    begun_s = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="titan-kill-"))
    outcome = run(folder / "place", seed, lambda text: print(f"{time.strftime('%T')} {text}", flush=True))
    print(
        f"{outcome.faults} faults in {time.monotonic() - begun_s:.0f} s: {outcome.acknowledged} submissions "
        f"acknowledged with {outcome.jobs} jobs, {outcome.refused} refused, {len(outcome.broken)} promises broken"
    )
    for figure in outcome.figures:
        print(f"  {figure}")
    for sentence in outcome.broken:
        print(f"  BROKEN {sentence}")
    if outcome.broken:
        print(f"  ledger, output and home are kept in {folder}", flush=True)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
