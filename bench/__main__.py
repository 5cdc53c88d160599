"""Print the figures: `./dev bench [--quick] [NAME ...]`."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import measures, warm
from bench.report import Figure, header, table

Measure = Callable[[Path], list[Figure]]
FULL: dict[str, Measure] = {
    "footprint": measures.footprint,
    "fanout": lambda folder: measures.fan_out(folder, 1_000),
    "warm": lambda folder: warm.warm_starts(folder, 400),
    "chain": lambda folder: measures.chain_and_single(folder, 50),
    "store": lambda folder: measures.store(folder, 3_000),
    "start": measures.client_start,
    "artifact": lambda folder: measures.artifact(folder, 1_024),
    "large": lambda folder: measures.large_dag(folder, 100_000),
}
QUICK: dict[str, Measure] = {
    "footprint": measures.footprint,
    "fanout": lambda folder: measures.fan_out(folder, 100),
    "warm": lambda folder: warm.warm_starts(folder, 100),
    "chain": lambda folder: measures.chain_and_single(folder, 10),
    "store": lambda folder: measures.store(folder, 300),
    "start": measures.client_start,
    "artifact": lambda folder: measures.artifact(folder, 100),
    "large": lambda folder: measures.large_dag(folder, 5_000),
}


def main() -> int:
    """Run the measurements named (all without a name) and print one table."""
    parser = argparse.ArgumentParser(prog="./dev bench", description="Titan's figures as ratios in one run")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(FULL)}")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: for a look, not for figures")
    wish = parser.parse_args()
    unknown = [name for name in wish.names if name not in FULL]
    if unknown:
        parser.error(f"{unknown[0]!r} is not a measurement; there are: {', '.join(FULL)}")
    chosen = QUICK if wish.quick else FULL
    figures: list[Figure] = []
    print(header(), flush=True)
    with tempfile.TemporaryDirectory(prefix="titan-bench-") as folder:
        for name in wish.names or FULL:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            figures += chosen[name](Path(folder))
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
