"""`./dev kill [--kills 20] [--seed 1] [--submitters 3]`: exit code 1 and a list when a promise was broken."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.kill.campaign import run_campaign


def main() -> int:
    """Run one campaign and print what it saw."""
    parser = argparse.ArgumentParser(prog="./dev kill", description="kill -9 the Master under a submit load")
    parser.add_argument("--kills", type=int, default=20, help="how often (default 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the shapes, pauses and moments (default 1)")
    parser.add_argument("--submitters", type=int, default=3, help="clients submitting side by side (default 3)")
    wish = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="titan-kill-") as folder:
        outcome = run_campaign(
            Path(folder), wish.kills, wish.seed, wish.submitters, lambda text: print(text, flush=True)
        )
    print(
        f"{outcome.kills} kills, seed {wish.seed}: {outcome.acknowledged} submissions acknowledged with "
        f"{outcome.jobs} jobs, {outcome.refused} refused, {len(outcome.broken)} promises broken"
    )
    for sentence in outcome.broken:
        print(f"  {sentence}")
    return 1 if outcome.broken else 0


if __name__ == "__main__":
    sys.exit(main())
