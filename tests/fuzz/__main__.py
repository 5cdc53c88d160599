"""`./dev fuzz`: random input from seeds against a real Master, and a worker, for so many minutes in all."""

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.fuzz.documents import DocumentFuzzer
from tests.fuzz.frames import FrameFuzzer
from tests.fuzz.hostile import WorkerTarget
from tests.fuzz.master_frames import MasterFrameFuzzer
from tests.fuzz.raw import RawFuzzer
from tests.fuzz.target import Findings, Stop, Target

# Each with what it is sent to.
KINDS: dict[str, tuple[type[Target] | type[WorkerTarget], Any]] = {
    "documents": (Target, DocumentFuzzer),
    "frames": (Target, FrameFuzzer),
    "raw": (Target, RawFuzzer),
    "master-frames": (WorkerTarget, MasterFrameFuzzer),
}
MIB = 1024 * 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="in all; 10 unless said")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed sends the same; random unless said")
    parser.add_argument(
        "--only",
        choices=KINDS,
        help="one kind: documents (OpenAPI), frames (of a worker), raw (HTTP), master-frames (of a Master to a worker)",
    )
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("TITAN_")]:
        del os.environ[name]
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    kinds = [given.only] if given.only else list(KINDS)
    print(f"seed {seed}, {given.minutes:g} minutes", flush=True)
    bad = 0
    for made in dict.fromkeys(KINDS[kind][0] for kind in kinds):
        with tempfile.TemporaryDirectory() as folder, made(Path(folder)) as target:
            for kind in [kind for kind in kinds if KINDS[kind][0] is made]:
                found = _run(kind, target, seed, given.minutes * 60 / len(kinds))
                for finding in found.findings:
                    print(f"  {finding}", flush=True)
                bad += len(found.findings)
    return 1 if bad else 0


def _run(kind: str, target: Target | WorkerTarget, seed: int, seconds: float) -> Findings:
    """Run one kind and print what came of it, and how the memory of its target went.

    What has a bound fills early (the ring of events, SQLite's pages): so the second half tells of a leak.
    """
    rss_bytes, begun_s = [target.rss_bytes()], time.monotonic()
    half = threading.Timer(seconds / 2, lambda: target.lives and rss_bytes.append(target.rss_bytes()))
    half.start()
    found: Findings = KINDS[kind][1](target, seed, Stop(seconds=seconds)).run()
    half.cancel()
    half.join()
    memory = "the process is gone"
    if target.lives:
        rss_bytes.append(target.rss_bytes())
        halves = (f"{(after - before) / MIB:+.1f}" for before, after in pairwise(rss_bytes))
        memory = f"memory {' and '.join(halves)} MiB in its halves"
    print(f"{kind}: {found.report()}; {time.monotonic() - begun_s:.0f} s, {memory}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
