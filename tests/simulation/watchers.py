"""Judges what watchers are told (36): every state of a run or job, in the order of commits, without a gap in an epoch.

A batch is told once it is durable: for each job the way from the state before it to the one its row shows after it,
and for each run the same figures as its row. A new epoch is a new beginning: who watches is told to load anew.
"""

from operator import itemgetter
from typing import TYPE_CHECKING, Any

from tests.simulation.world import Broken
from titan.core.commit import Release
from titan.core.events import News
from titan.core.states import JOB_TRANSITIONS
from titan.model.states import JobState

if TYPE_CHECKING:
    from tests.simulation.ground import Ground

BEGINNINGS = frozenset({JobState.BLOCKED, JobState.DELAYED, JobState.QUEUED})
FOLLOWS = {state: frozenset(moves.values()) for state, moves in JOB_TRANSITIONS.items()}
FROM_BEGINNING = frozenset[JobState]().union(*[FOLLOWS[state] for state in BEGINNINGS])
FIGURES_IN_ROW = itemgetter(
    "state", "generation", "jobs_total", "jobs_completed", "jobs_failed", "jobs_cancelled", "jobs_dead"
)
FIGURES_TOLD = itemgetter("state", "generation", "total", "completed", "failed", "cancelled", "dead")
JobKey = tuple[str, str]


class Untold:
    """What one batch has changed: of each job the state before and after and its attempt; the figures of each run.

    A job that is new and waits is not there: it is told with its run.
    """

    __slots__ = ("jobs", "runs")

    def __init__(self) -> None:
        self.jobs: dict[JobKey, tuple[Any, Any, int]] = {}
        self.runs: dict[str, tuple[Any, ...]] = {}


class Watchers:
    """`untold`: by epoch and number, what a batch has changed and nobody was told."""

    def __init__(self, ground: "Ground") -> None:
        self.tables = ground.mirror.rows
        self.untold: dict[tuple[int, int], Untold] = {}

    def released(self, epoch: int, order: Release) -> None:
        """All that follows from a batch is told: it must be what that batch changed, the whole way."""
        untold = self.untold.pop((epoch, order.number), None)
        jobs: dict[JobKey, dict[str, Any]] = {}
        runs: dict[str, dict[str, Any]] = {}
        for entry, _ in order.entries:
            decision = entry.ticket.decision
            for news in decision.news if decision is not None else ():
                if news.kind == "job":
                    self._told_job(untold, jobs, news)
                elif news.kind == "run":
                    if untold is None or news.run_id not in untold.runs:
                        raise Broken(
                            "i36", f"news of run {news.run_id} in batch {order.number}, which did not change it"
                        )
                    runs[news.run_id] = news.data
        if untold is not None:
            self._all_told(untold, jobs, runs)

    def _told_job(self, untold: Untold | None, jobs: dict[JobKey, dict[str, Any]], news: News) -> None:
        key = (news.run_id, news.job_id)
        state = news.data["state"]
        moved = untold.jobs.get(key) if untold is not None else None
        if moved is None and (untold is None or not self._waits(key)):
            raise Broken("i36", f"{key} is told to be {state} by a batch that did not move it")
        last = jobs.get(key)
        before = last["state"] if last is not None else moved[0] if moved is not None else None
        if state not in (FOLLOWS[before] if before is not None else FROM_BEGINNING):
            raise Broken("i36", f"{key} is told to be {state} after {before}: something is left out")
        jobs[key] = news.data

    def _waits(self, key: JobKey) -> bool:
        row = self.tables["jobs"].get(key)
        return row is not None and row["state"] in BEGINNINGS

    def _all_told(self, untold: Untold, jobs: dict[JobKey, dict[str, Any]], runs: dict[str, dict[str, Any]]) -> None:
        for key, (_, state, attempt) in untold.jobs.items():
            last = jobs.get(key)
            if last is None or last["state"] != state or last["attempt"] != attempt:
                raise Broken("i36", f"{key} is {state}, attempt {attempt}; told was {last}")
        for run_id, figures in untold.runs.items():
            told = runs.get(run_id)
            if told is None or FIGURES_TOLD(told) != figures:
                raise Broken("i36", f"run {run_id} is {figures}; told was {told}")
