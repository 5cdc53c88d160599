"""The life of a job and of a run.

Every state, every event that can move it, and nothing else. A pair that is not in the tables is illegal,
and the next state is decided nowhere else: the guarded updates, the schema's CHECKs, the API's enum and
docs/states.md are made from or tested against these tables.

No event of an attempt moves a final job. Only REOPEN does, and it opens a new generation: every guarded
update names the generation it believes in, so a straggler of the old one finds nothing to change.
"""

import enum
from collections.abc import Mapping

from titan.model.states import JobState, RunState

S = JobState
R = RunState


class JobEvent(enum.StrEnum):
    """What can happen to a job."""

    READY = "READY"
    DELAY = "DELAY"
    ASSIGN = "ASSIGN"
    START = "START"
    RETURN = "RETURN"
    POSTPONE = "POSTPONE"
    SUCCEED = "SUCCEED"
    FAIL = "FAIL"
    RETRY = "RETRY"
    LOSE = "LOSE"
    QUARANTINE = "QUARANTINE"
    CANCEL = "CANCEL"
    REOPEN = "REOPEN"


class RunEvent(enum.StrEnum):
    """What can happen to a run."""

    FLIP = "FLIP"
    START = "START"
    COMPLETE = "COMPLETE"
    FAIL = "FAIL"
    CANCEL = "CANCEL"
    REOPEN = "REOPEN"


E = JobEvent
JOB_TRANSITIONS: Mapping[JobState, Mapping[JobEvent, JobState]] = {
    S.BLOCKED: {E.READY: S.QUEUED, E.DELAY: S.DELAYED, E.CANCEL: S.CANCELLED},
    S.DELAYED: {E.READY: S.QUEUED, E.CANCEL: S.CANCELLED},
    S.QUEUED: {E.ASSIGN: S.ASSIGNED, E.CANCEL: S.CANCELLED},
    S.ASSIGNED: {
        E.START: S.RUNNING,
        E.RETURN: S.QUEUED,
        E.POSTPONE: S.DELAYED,  # the machine could not start it: elsewhere or later, no fault of the job
        E.LOSE: S.QUEUED,
        E.FAIL: S.FAILED,  # lost unstarted as far as we know, and on_lost="fail" forbids a guess
        E.CANCEL: S.CANCELLED,
    },
    S.RUNNING: {
        E.SUCCEED: S.COMPLETED,
        E.FAIL: S.FAILED,
        E.RETRY: S.DELAYED,
        E.LOSE: S.QUEUED,  # the lease ran out or the worker came back without it
        E.QUARANTINE: S.DEAD,
        E.CANCEL: S.CANCELLED,
    },
    S.WAITING: {E.CANCEL: S.CANCELLED},
    S.COMPLETED: {E.REOPEN: S.BLOCKED},
    S.FAILED: {E.REOPEN: S.BLOCKED},
    S.CANCELLED: {E.REOPEN: S.BLOCKED},
    S.DEAD: {E.REOPEN: S.BLOCKED},
}

RUN_TRANSITIONS: Mapping[RunState, Mapping[RunEvent, RunState]] = {
    R.STAGED: {RunEvent.FLIP: R.QUEUED},
    R.QUEUED: {
        RunEvent.START: R.RUNNING,
        RunEvent.FAIL: R.FAILED,
        RunEvent.CANCEL: R.CANCELLED,
    },
    R.RUNNING: {
        RunEvent.COMPLETE: R.COMPLETED,
        RunEvent.FAIL: R.FAILED,
        RunEvent.CANCEL: R.CANCELLED,
    },
    R.COMPLETED: {RunEvent.REOPEN: R.QUEUED},
    R.FAILED: {RunEvent.REOPEN: R.QUEUED},
    R.CANCELLED: {RunEvent.REOPEN: R.QUEUED},
}


class IllegalMoveError(Exception):
    """An event met a state that does not know it: a defect of ours, never of a caller."""


def next_job_state(state: JobState, event: JobEvent) -> JobState:
    """Return where `event` moves a job in `state`. Raises IllegalMoveError for a pair not in the table."""
    try:
        return JOB_TRANSITIONS[state][event]
    except KeyError:
        raise IllegalMoveError(f"a job in {state} has no event {event}") from None


def next_run_state(state: RunState, event: RunEvent) -> RunState:
    """Return where `event` moves a run in `state`. Raises IllegalMoveError for a pair not in the table."""
    try:
        return RUN_TRANSITIONS[state][event]
    except KeyError:
        raise IllegalMoveError(f"a run in {state} has no event {event}") from None


def run_outcome(failed: int, dead: int, cancelled_on_request: bool) -> RunEvent:
    """Return how a run whose jobs are all final ends: failure first, then a wish to cancel, else success."""
    if failed or dead:
        return RunEvent.FAIL
    return RunEvent.CANCEL if cancelled_on_request else RunEvent.COMPLETE
