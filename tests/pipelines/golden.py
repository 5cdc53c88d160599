"""Broken pipeline files and what is said about each: `broken/NAME.yaml` and `broken/NAME.txt`.

.venv/bin/python -m tests.pipelines.golden writes the texts anew; read the difference before you commit it.
"""

import contextlib
from pathlib import Path

from titan_sdk import Invalid
from titan_sdk.pipeline import read_pipeline

FOLDER = Path(__file__).parent / "broken"
FILES = sorted(FOLDER.glob("*.yaml"))


def told(file: Path) -> str:
    """Return what is said about a broken file. Raises AssertionError when nothing is wrong with it."""
    with contextlib.chdir(file.parent):
        try:
            read_pipeline(file.name, scripts_are_here=True)
        except Invalid as error:
            return f"{error}\n"
    raise AssertionError(f"nothing is wrong with {file.name}")


def main() -> None:
    """Write every text that differs, and drop those without a file."""
    for text in FOLDER.glob("*.txt"):
        if not text.with_suffix(".yaml").exists():
            text.unlink()
    for file in FILES:
        file.with_suffix(".txt").write_text(told(file), encoding="utf-8")


if __name__ == "__main__":
    main()
