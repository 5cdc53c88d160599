"""The names of the states; which moves exist between them is decided in `titan.core.states` alone."""

import enum


class JobState(enum.StrEnum):
    """Where a job is in its life. The last four are final for the attempt's generation."""

    BLOCKED = "BLOCKED"
    DELAYED = "DELAYED"
    QUEUED = "QUEUED"
    ASSIGNED = "ASSIGNED"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    DEAD = "DEAD"


class RunState(enum.StrEnum):
    """Where a run is. STAGED runs are still being received: not listed, not found, not matched."""

    STAGED = "STAGED"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class AttemptState(enum.StrEnum):
    """Where one attempt is: living (ASSIGNED, RUNNING) or how it left."""

    ASSIGNED = "ASSIGNED"
    RUNNING = "RUNNING"
    ENDED = "ENDED"
    RETURNED = "RETURNED"
    LOST = "LOST"


FINAL_JOB_STATES = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.DEAD})
FINAL_RUN_STATES = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED})
LIVING_ATTEMPT_STATES = frozenset({AttemptState.ASSIGNED, AttemptState.RUNNING})

# PENDING is a word for filters, never a state.
PENDING = frozenset({JobState.BLOCKED, JobState.DELAYED, JobState.QUEUED, JobState.ASSIGNED, JobState.WAITING})
