"""Figures, and the table they are printed as."""

import dataclasses
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence

import titan


@dataclasses.dataclass(frozen=True)
class Figure:
    """One line of the report. `ratio` is Titan's figure over the yardstick's; `goal` is docs/performance.md's."""

    name: str
    titan: str
    yardstick: str
    ratio: str
    goal: str
    leaves_out: str = ""


def median_and_spread(values: Sequence[float]) -> tuple[float, str]:
    """Return the median and "least..most" of repeated measurements."""
    return statistics.median(values), f"{min(values):.3g}..{max(values):.3g}"


def header() -> str:
    """Return what the figures depend on: machine, interpreter, versions, commit, load."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return (
        f"Titan {titan.__version__} at {commit.stdout.strip() or 'no commit'}, Python {platform.python_version()} "
        f"({sys.executable}), {len(os.sched_getaffinity(0))} cores, {platform.platform()}, "
        f"load {os.getloadavg()[0]:.1f} at the start"
    )


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a Markdown table."""
    rows = [("figure", "Titan", "yardstick, same run", "ratio", "goal", "leaves out")]
    rows += [(each.name, each.titan, each.yardstick, each.ratio, each.goal, each.leaves_out) for each in figures]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * 6)
    return "\n".join(lines)
