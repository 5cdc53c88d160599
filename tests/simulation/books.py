"""What the judge of the database keeps of each run and job, beside the rows themselves."""

from typing import Any

from titan.model.spec import JobSpec
from titan.model.states import FINAL_JOB_STATES, JobState, RunState

Row = dict[str, Any]
COMPLETED = JobState.COMPLETED
BAD = frozenset({JobState.FAILED, JobState.CANCELLED, JobState.DEAD})


class JobBook:
    """One job: its row, which the database changes in place, and what was true of it before this batch.

    `history` are the rows of the attempts of its present generation; `numbered` counts all that were not given
    back, in all generations. `counted`: as what its run has it among the final ones (None: it is not over).
    """

    __slots__ = (
        "cancelled", "children", "counted", "fence", "generation", "history", "key", "living", "numbered", "parents",
        "row", "run", "spec", "state",
    )  # fmt: skip

    def __init__(self, run: "RunBook", key: tuple[str, str], row: Row, spec: JobSpec) -> None:
        self.run = run
        self.key = key
        self.row = row
        self.spec = spec
        self.state: JobState | None = None
        self.generation = self.fence = self.living = self.numbered = 0
        self.cancelled = False
        self.counted: JobState | None = None
        self.history: list[Row] = []
        self.parents: list[JobBook] = []
        self.children: list[JobBook] = []

    @property
    def starts_again(self) -> bool:
        """Whether its run has opened a generation in which it starts again, though its row is of an older one."""
        opening = self.run.row["opening"]
        if opening is None or self.row["generation"] == self.run.row["generation"]:
            return False
        place = self.row["ordinal"]
        return place // 8 < len(opening) and bool(opening[place // 8] & 1 << place % 8)

    def open_parents(self) -> int:
        """Count the parents that have not completed."""
        count = 0
        for parent in self.parents:
            if parent.row["state"] != COMPLETED or (self.run.row["opening"] is not None and parent.starts_again):
                count += 1
        return count

    def bad_parents(self) -> bool:
        """Say whether a parent is over without success."""
        for parent in self.parents:
            if parent.row["state"] in BAD and (self.run.row["opening"] is None or not parent.starts_again):
                return True
        return False


class RunBook:
    """One run: its row, its jobs, how many of them ended how, and what was true of it before this batch."""

    __slots__ = (
        "cancelled", "children", "edges", "edges_due", "ends", "generation", "jobs", "on_request", "row", "run_id",
        "state",
    )  # fmt: skip

    def __init__(self, run_id: str, row: Row) -> None:
        self.run_id = run_id
        self.row = row
        self.state: RunState | None = None
        self.generation = 0
        self.cancelled = self.on_request = False
        self.jobs: dict[str, JobBook] = {}
        self.ends: dict[JobState, int] = dict.fromkeys(sorted(FINAL_JOB_STATES), 0)
        self.edges = self.edges_due = 0
        self.children: list[RunBook] = []

    def count(self, job: JobBook, state: JobState | None) -> None:
        """Have `job` counted as over in `state`, or as not over."""
        if job.counted is not None:
            self.ends[job.counted] -= 1
        job.counted = state
        if state is not None:
            self.ends[state] += 1


def has_cycle(jobs: list[JobBook]) -> bool:
    """Say whether some of `jobs` wait for one another in a circle."""
    waits = {job.key: sum(1 for _ in job.parents) for job in jobs}
    free = [job for job in jobs if not job.parents]
    seen = 0
    while free:
        job = free.pop()
        seen += 1
        for child in job.children:
            if child.key in waits:
                waits[child.key] -= 1
                if not waits[child.key]:
                    free.append(child)
    return seen < len(jobs)
