"""A second, naive model of a job: what its row may say, from its spec, its attempts and its parents alone.

Nothing is remembered between looks, nothing moves: the rows of the attempts are read from the first to the last,
and what follows from them is what the job must be. Where the scheduler may be between two slices, `quiet` False
allows what has not been passed on yet.
"""

from tests.simulation.books import JobBook
from titan.model.states import FINAL_JOB_STATES, LIVING_ATTEMPT_STATES, AttemptState, JobState, RunState
from titan.model.wire import CAUSE_LOST

S = JobState
LOSSES_MAX = 3


def wrong(job: JobBook, quiet: bool) -> tuple[str, str] | None:
    """Return the invariant that the row of `job` breaks and how, or None."""
    row, run = job.row, job.run.row
    if run["state"] == RunState.STAGED or job.starts_again:
        return None
    if row["generation"] != run["generation"]:
        # What stays as it ended in an older generation was judged in that.
        return None if row["state"] in FINAL_JOB_STATES else ("i12", f"{row['state']} in an older generation")
    failures, losses = counts(job)
    if failures > job.spec.retries + 1:
        return "i20", f"{failures} attempts failed, {job.spec.retries} retries"
    state = row["state"]
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


def allowed(job: JobBook, failures: int, losses: int, quiet: bool) -> set[JobState]:
    """Return the states that follow from the last attempt, or from the parents when there was none."""
    if not job.history:
        return before_the_first(job, quiet)
    last = job.history[-1]
    if last["state"] in LIVING_ATTEMPT_STATES:
        return {JobState(last["state"].value)}
    if last["state"] == AttemptState.RETURNED:
        return {S.QUEUED, S.DELAYED}
    if last["state"] == AttemptState.LOST:
        if job.spec.on_lost == "fail":
            return {S.FAILED}
        return {S.DEAD} if losses >= LOSSES_MAX else {S.QUEUED}
    if not last["exit_code"] and not last["cause"]:
        return {S.COMPLETED}
    return {S.FAILED} if failures > job.spec.retries else {S.DELAYED, S.QUEUED}


def before_the_first(job: JobBook, quiet: bool) -> set[JobState]:
    """Return the states of a job that had no attempt in this generation."""
    if job.bad_parents():
        return {S.CANCELLED} if quiet else {S.CANCELLED, S.BLOCKED}
    if job.open_parents():
        return {S.BLOCKED}
    ready = {S.QUEUED, S.DELAYED} if job.spec.delay_ms else {S.QUEUED}
    return ready if quiet else ready | {S.BLOCKED}
