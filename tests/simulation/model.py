"""A second, naive model of a job: what its row may say, from its spec, its attempts and its parents alone.

Nothing is remembered between looks, nothing moves: the rows of the attempts are read from the first to the last,
and what follows from them is what the job must be. Where the scheduler may be between two slices, `quiet` False
allows what has not been passed on yet.
"""

from tests.simulation.books import JobBook
from titan.model.states import FINAL_JOB_STATES, AttemptState, JobState, RunState
from titan.model.wire import CAUSE_LOST

S = JobState
LOSSES_MAX = 3
States = frozenset[JobState]
BLOCKED, QUEUED, COMPLETED = frozenset({S.BLOCKED}), frozenset({S.QUEUED}), frozenset({S.COMPLETED})
FAILED, CANCELLED, DEAD = frozenset({S.FAILED}), frozenset({S.CANCELLED}), frozenset({S.DEAD})
READY = frozenset({S.QUEUED, S.DELAYED})
LIVING = {AttemptState.ASSIGNED: frozenset({S.ASSIGNED}), AttemptState.RUNNING: frozenset({S.RUNNING})}


def wrong(job: JobBook, quiet: bool) -> tuple[str, str] | None:
    """Return the invariant that the row of `job` breaks and how, or None."""
    row, run = job.row, job.run.row
    if run["state"] == RunState.STAGED or (run["opening"] is not None and job.starts_again):
        return None
    state = row["state"]
    if row["generation"] != run["generation"]:
        # What stays as it ended in an older generation was judged in that.
        return None if state in FINAL_JOB_STATES else ("i12", f"{state} in an older generation")
    failures, losses = counts(job) if job.history else (0, 0)
    if failures > job.spec.retries + 1:
        return "i20", f"{failures} attempts failed, {job.spec.retries} retries"
    is_due = losses == LOSSES_MAX and state not in (S.CANCELLED, S.FAILED)
    if losses > LOSSES_MAX or (state == S.DEAD) != is_due:
        return "i20", f"{state} after {losses} losses"
    may = allowed(job, failures, losses, quiet)
    asked = row["cancel_requested"] or run["cancelled_on_request"]
    if state == S.CANCELLED and S.CANCELLED not in may and not asked:
        return "i12", f"{state}, and nobody asked for it"
    if state not in may and state != S.CANCELLED:
        return "i12", f"{state} {row['reason']}, may be {'/'.join(sorted(may))}"
    if row["cancel_requested"] and state in FINAL_JOB_STATES and state != S.CANCELLED:
        return "i17", f"{state} after its cancel"
    if quiet and run["cancel_requested"] and state not in FINAL_JOB_STATES and not job.living:
        return "i17", f"{state} in a run that is cancelled"
    if state not in FINAL_JOB_STATES and (row["failures"], row["losses"]) != (failures, losses):
        return "i20", f"its row counts {row['failures']} failures, {row['losses']} losses; it had {failures}, {losses}"
    return None


def counts(job: JobBook) -> tuple[int, int]:
    """Return how many attempts of this generation failed by themselves, and how many were lost while they ran."""
    failures = losses = 0
    for attempt in job.history:
        if attempt["state"] == AttemptState.ENDED:
            failures += bool(attempt["exit_code"] or attempt["cause"])
        elif attempt["state"] == AttemptState.LOST and attempt["started_ms"] is not None:
            losses += attempt["cause"] == CAUSE_LOST
    return failures, losses


def allowed(job: JobBook, failures: int, losses: int, quiet: bool) -> States:
    """Return the states that follow from the last attempt, or from the parents when there was none."""
    if not job.history:
        return before_the_first(job, quiet)
    last = job.history[-1]
    state = last["state"]
    if state in LIVING:
        return LIVING[state]
    if state == AttemptState.RETURNED:
        return READY
    if state == AttemptState.LOST:
        if job.spec.on_lost == "fail":
            return FAILED
        return DEAD if losses >= LOSSES_MAX else QUEUED
    if not last["exit_code"] and not last["cause"]:
        return COMPLETED
    return FAILED if failures > job.spec.retries else READY


def before_the_first(job: JobBook, quiet: bool) -> States:
    """Return the states of a job that had no attempt in this generation."""
    if job.parents and job.bad_parents():
        return CANCELLED if quiet else CANCELLED | BLOCKED
    if job.parents and job.open_parents():
        return BLOCKED
    ready = READY if job.spec.delay_ms else QUEUED
    return ready if quiet else ready | BLOCKED
