"""`./dev logs`: logs at their full size, on a real cluster; what was measured is printed, what is broken raises."""

import argparse
import tempfile
from pathlib import Path

from tests.logs.proofs import flood, many

MIB = 1024 * 1024


def main() -> None:
    """Run the proofs one after the other."""
    parser = argparse.ArgumentParser(prog="./dev logs", description=__doc__)
    parser.add_argument("--flood", type=int, default=1024, metavar="MIB", help="one line of a job (default 1024)")
    parser.add_argument("--cap", type=int, default=64, metavar="MIB", help="of its log (default 64)")
    parser.add_argument("--jobs", type=int, default=64, metavar="N", help="that print at once (default 64)")
    parser.add_argument("--rate", type=float, default=1.0, metavar="MIB", help="a second each (default 1)")
    parser.add_argument("--seconds", type=float, default=25.0, metavar="S", help="for so long (default 25)")
    wish = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if wish.flood:
            print(f"{wish.flood} MiB in one line, {wish.cap} MiB kept:", flush=True)
            print(flood(Path(folder) / "flood", wish.flood * MIB, wish.cap * MIB), flush=True)
        if wish.jobs:
            print(f"{wish.jobs} jobs, {wish.rate} MiB/s each for {wish.seconds} s:", flush=True)
            print(many(Path(folder) / "many", wish.jobs, int(wish.rate * MIB), wish.seconds), flush=True)


if __name__ == "__main__":
    main()
