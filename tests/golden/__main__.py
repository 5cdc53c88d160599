"""`python -m tests.golden --write` writes the texts anew; `git diff` then shows what people will read instead."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.golden.process import RealMaster
from tests.golden.sections import sections
from tests.golden.table import TEXTS, written


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("--write", action="store_true", required=True, help="write tests/golden/texts anew")
    parser.parse_args()
    for name in [name for name in os.environ if name.startswith("TITAN_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as folder, RealMaster(Path(folder)) as master:
        for section in sections(master, Path(folder)):
            found = list(section.entries())
            (TEXTS / f"{section.name}.txt").write_text(written(found), encoding="utf-8")
            print(f"{section.name}: {len(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
