"""The ledger: one file that every job appends to, and the judge who reads nothing else.

A line is `RUN JOB FENCE start|end`, written with O_APPEND in one write, so the order of lines is the order
of events whatever becomes of the Master. `RUN` is the submitter's own label: the ledger does not trust ids
that the Master gave.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

JOB_SCRIPT = """\
import os, sys
ledger, run, job, work_s = sys.argv[1:5]
out = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
def note(what):
    os.write(out, f"{run} {job} {os.environ['TITAN_FENCE']} {what}\\n".encode())
note("start")
if float(work_s):
    import select
    select.select([], [], [], float(work_s))
note("end")
"""


@dataclasses.dataclass(frozen=True)
class Line:
    """One entry of the ledger; `place` is its line number from 0."""

    place: int
    run: str
    job: str
    fence: int
    what: str


def read(path: Path) -> list[Line]:
    """Return the ledger's lines in order; an absent file is an empty ledger."""
    lines = path.read_text().splitlines() if path.exists() else []
    fields = (line.split(" ") for line in lines)
    return [Line(place, run, job, int(fence), what) for place, (run, job, fence, what) in enumerate(fields)]


def judge(lines: Sequence[Line], acknowledged: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """Return every broken promise as a sentence.

    `acknowledged`: run label -> job -> its parents, for each submission that was answered. Held: every job
    of it ended, no child started before its parents had ended, nothing that had ended started again.
    """
    starts: dict[tuple[str, str], list[Line]] = {}
    ends: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        (starts if line.what == "start" else ends).setdefault((line.run, line.job), []).append(line)
    broken: list[str] = []
    for run, jobs in acknowledged.items():
        for job, parents in jobs.items():
            if (run, job) not in ends:
                broken.append(f"{run}/{job}: acknowledged and never ended")
                continue
            for parent in parents:
                parent_end = ends.get((run, parent))
                if parent_end is None or starts[run, job][0].place < parent_end[0].place:
                    broken.append(f"{run}/{job}: started before its parent {parent} had ended")
    for key, ended in ends.items():
        if len(ended) > 1 or starts[key][-1].place > ended[0].place:
            fences = [line.fence for line in starts[key]]
            broken.append(f"{key[0]}/{key[1]}: had ended and ran again (fences {fences})")
    return broken
