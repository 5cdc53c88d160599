"""What a retry starts again, worked out from the rows of an ended run before the scheduler hears of it.

All that grows with the run is done here, off the event loop: choosing, checking, making and linking the jobs.
The rows of an ended run change by nothing but a retry, so what was read stays true until the event, or the
guards of the event find that it does not.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from titan.core.events import Refusal, RetryRun
from titan.core.lifecycle import last_worker, reopened
from titan.core.memory import Job
from titan.core.rows import EdgeRow, JobRow, RunRow, opening_of
from titan.model.states import FINAL_RUN_STATES, JobState

Links = dict[str, list[str]]


def prepare_retry(
    run: RunRow, jobs: Sequence[JobRow], edges: Iterable[EdgeRow], job_ids: Sequence[str] = ()
) -> RetryRun:
    """Return the command that opens the next generation of `run`, given whole as one moment showed it.

    Starts again: `job_ids`, or FAILED, DEAD and CANCELLED jobs when there are none, with all their descendants.
    """
    if run.state not in FINAL_RUN_STATES:
        return RetryRun(run, {}, {}, b"")
    rows = {row.job_id: row for row in jobs}
    children: Links = {}
    parents: Links = {}
    for edge in edges:
        children.setdefault(edge.parent_id, []).append(edge.job_id)
        parents.setdefault(edge.job_id, []).append(edge.parent_id)
    chosen = job_ids or [row.job_id for row in jobs if row.state != JobState.COMPLETED]
    again = _closure(chosen, children)
    refused = _refuse(run, rows, parents, again, job_ids)
    if refused is not None:
        return RetryRun(run, {}, {}, b"", refused)
    opened = {row.job_id: _opened(run, row, rows, parents, again) for row in jobs if row.job_id in again}
    for job_id, job in opened.items():
        job.children = [opened[child] for child in children.get(job_id, ())] or None
    opening = opening_of((job.ordinal for job in opened.values()), run.jobs_total)
    return RetryRun(run, opened, Counter(rows[job_id].state for job_id in opened), opening)


def _opened(run: RunRow, row: JobRow, rows: dict[str, JobRow], parents: Links, again: set[str]) -> Job:
    over = parents.get(row.job_id, ())
    done = [rows[parent] for parent in over if parent not in again]
    job = reopened(row, run.generation + 1, last_worker(done))
    job.waiting_for = len(over) - len(done)
    return job


def _closure(chosen: Iterable[str], children: Links) -> set[str]:
    again: set[str] = set()
    stack = list(chosen)
    while stack:
        job_id = stack.pop()
        if job_id not in again:
            again.add(job_id)
            stack.extend(children.get(job_id, ()))
    return again


def _refuse(
    run: RunRow, rows: dict[str, JobRow], parents: Links, again: set[str], named: Sequence[str]
) -> Refusal | None:
    if not again:
        return Refusal("conflict", "every job has completed: name the jobs to run again")
    for job_id in named:
        if job_id not in rows:
            return Refusal("not_found", f"run {run.run_id} has no job {job_id}")
    for job_id in (job_id for job_id in rows if job_id in again):
        for parent in parents.get(job_id, ()):
            if parent not in again and rows[parent].state != JobState.COMPLETED:
                message = f"{job_id} waits for {parent}, which is {rows[parent].state}: retry that one as well"
                return Refusal("conflict", message)
    return None
