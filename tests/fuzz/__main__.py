"""`./dev fuzz`: random requests, frames and bytes from seeds against a real Master, for so many minutes in all."""

import argparse
import os
import random
import sys
import tempfile
import time
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
            before, begun_s = target.rss_bytes(), time.monotonic()
            stop = Stop(seconds=given.minutes * 60 / len(kinds))
            found: Findings = KINDS[kind](target, seed, stop).run()
            if not target.lives:
                print(f"{kind}: {found.report()}")
            else:
                grown = (target.rss_bytes() - before) / MIB
                print(
                    f"{kind}: {found.report()}; {time.monotonic() - begun_s:.0f} s, memory {grown:+.0f} MiB", flush=True
                )
            for finding in found.findings:
                print(f"  {finding}", flush=True)
            bad += len(found.findings)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
