"""Judges what watchers are told (36): every state of a run or job, in the order of commits, without a gap in an epoch.

A batch is told once it is durable: for each job the way from the state before it to the one its row shows after it,
and for each run the same figures as its row. A new epoch is a new beginning: who watches is told to load anew.
"""

from typing import TYPE_CHECKING, Any

from tests.simulation.world import Broken
from titan.core.changes import Insert
from titan.core.commit import Batch
from titan.core.events import News
from titan.core.states import JOB_TRANSITIONS
from titan.model.states import JobState, RunState

if TYPE_CHECKING:
    from tests.simulation.ground import Ground

BEGINNINGS = frozenset({JobState.BLOCKED, JobState.DELAYED, JobState.QUEUED})
FIGURES = {
    "state": "state", "generation": "generation", "total": "jobs_total", "completed": "jobs_completed",
    "failed": "jobs_failed", "cancelled": "jobs_cancelled", "dead": "jobs_dead",
}  # fmt: skip
JobKey = tuple[str, str]


class Untold:
    """What one batch has changed: of each job the state before and after, and the figures of each run."""

    def __init__(self) -> None:
        self.jobs: dict[JobKey, tuple[Any, Any, int]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.told_jobs: dict[JobKey, dict[str, Any]] = {}
        self.told_runs: dict[str, dict[str, Any]] = {}


class Watchers:
    """`states`: of each job, as it was before the batch that is told next. `untold`: by epoch and number."""

    def __init__(self, ground: "Ground") -> None:
        self.ground = ground
        self.tables = ground.mirror.rows
        self.states: dict[JobKey, Any] = {}
        self.untold: dict[tuple[int, int], Untold] = {}

    def committed(self, batch: Batch) -> None:
        """A batch is in the database."""
        untold = self.untold[batch.epoch, batch.number] = Untold()
        for change in batch.changes:
            if change.table == "jobs" and "state" in change.values:
                self._job_changed(untold, change)
            elif change.table == "runs":
                run_id = change.values["run_id"] if isinstance(change, Insert) else change.key[0]
                row = self.tables["runs"][run_id,]
                if row["state"] != RunState.STAGED:
                    untold.runs[run_id] = {name: row[column] for name, column in FIGURES.items()}

    def _job_changed(self, untold: Untold, change: Any) -> None:
        values = change.values
        key = (values["run_id"], values["job_id"]) if isinstance(change, Insert) else change.key
        row = self.tables["jobs"][key]
        before = self.states.get(key)
        self.states[key] = row["state"]
        if before is not None or row["state"] not in BEGINNINGS:
            untold.jobs[key] = (before, row["state"], row["attempt"])

    def told(self, epoch: int, number: int, news: list[News]) -> None:
        """They are told, as part of that batch."""
        untold = self.untold.get((epoch, number))
        for each in news:
            if each.kind == "job":
                self._told_job(untold, each)
            elif each.kind == "run":
                if untold is None or each.run_id not in untold.runs:
                    raise Broken("i36", f"news of run {each.run_id} in batch {number}, which did not change it")
                untold.told_runs[each.run_id] = each.data

    def _told_job(self, untold: Untold | None, news: News) -> None:
        key = (news.run_id, news.job_id)
        state = news.data["state"]
        if untold is None or (key not in untold.jobs and self.states.get(key) not in BEGINNINGS):
            raise Broken("i36", f"{key} is told to be {state} by a batch that did not move it")
        last = untold.told_jobs.get(key)
        before = last["state"] if last else untold.jobs[key][0] if key in untold.jobs else None
        befores = BEGINNINGS if before is None else (before,)
        if not any(state in JOB_TRANSITIONS[each].values() for each in befores):
            raise Broken("i36", f"{key} is told to be {state} after {before}: something is left out")
        untold.told_jobs[key] = news.data

    def all_told(self, epoch: int, number: int) -> None:
        """That was all of the batch."""
        untold = self.untold.pop((epoch, number), None)
        if untold is None:
            return
        for key, (_, state, attempt) in untold.jobs.items():
            last = untold.told_jobs.get(key)
            if last is None or (last["state"], last["attempt"]) != (state, attempt):
                raise Broken("i36", f"{key} is {state}, attempt {attempt}; told was {last}")
        for run_id, figures in untold.runs.items():
            if untold.told_runs.get(run_id) != figures:
                raise Broken("i36", f"run {run_id} is {figures}; told was {untold.told_runs.get(run_id)}")
