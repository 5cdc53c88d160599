"""`./dev fuzz`: random requests, frames and bytes from seeds against a real Master, for so many minutes in all."""

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

from tests.fuzz.documents import DocumentFuzzer
from tests.fuzz.frames import FrameFuzzer
from tests.fuzz.raw import RawFuzzer
from tests.fuzz.target import Findings, Fuzzer, Stop, Target

KINDS: dict[str, type[Fuzzer]] = {"documents": DocumentFuzzer, "frames": FrameFuzzer, "raw": RawFuzzer}
MIB = 1024 * 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="in all; 10 unless said")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed sends the same; random unless said")
    parser.add_argument(
        "--only", choices=KINDS, help="one kind: documents (OpenAPI), frames (a worker's link), raw (HTTP)"
    )
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("TITAN_")]:
        del os.environ[name]
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    kinds = [given.only] if given.only else list(KINDS)
    print(f"seed {seed}, {given.minutes:g} minutes", flush=True)
    bad = 0
    with tempfile.TemporaryDirectory() as folder, Target(Path(folder)) as target:
        for kind in kinds:
            found = _run(kind, target, seed, given.minutes * 60 / len(kinds))
            for finding in found.findings:
                print(f"  {finding}", flush=True)
            bad += len(found.findings)
    return 1 if bad else 0


def _run(kind: str, target: Target, seed: int, seconds: float) -> Findings:
    """Run one kind and print what came of it, and how the Master's memory went.

    What has a bound fills early (the ring of events, SQLite's pages): so the second half tells of a leak.
    """
    rss_bytes, begun_s = [target.rss_bytes()], time.monotonic()
    half = threading.Timer(seconds / 2, lambda: target.lives and rss_bytes.append(target.rss_bytes()))
    half.start()
    found = KINDS[kind](target, seed, Stop(seconds=seconds)).run()
    half.cancel()
    half.join()
    memory = "the Master is gone"
    if target.lives:
        rss_bytes.append(target.rss_bytes())
        halves = (f"{(after - before) / MIB:+.1f}" for before, after in pairwise(rss_bytes))
        memory = f"memory {' and '.join(halves)} MiB in its halves"
    print(f"{kind}: {found.report()}; {time.monotonic() - begun_s:.0f} s, {memory}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
