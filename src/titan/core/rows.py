"""The rows the core writes and is loaded from. Field names are column names; a storage test holds them equal."""

import msgspec

from titan.model.states import AttemptState, JobState, RunState


class RunRow(msgspec.Struct, gc=False):
    """One run. `cancel_requested`: all of it shall end; `cancelled_on_request`: some job of it was asked to."""

    run_id: str
    name: str
    state: RunState
    generation: int
    agent_run_id: str
    root_run_id: str
    parent_run_id: str | None
    parent_job_id: str | None
    created_ms: int
    started_ms: int | None
    ended_ms: int | None
    cancel_requested: bool
    cancelled_on_request: bool
    jobs_total: int
    jobs_completed: int
    jobs_failed: int
    jobs_cancelled: int
    jobs_dead: int


class JobRow(msgspec.Struct, gc=False):
    """One job of one run. `ordinal` is its place in the submission; `spec` never changes.

    `fence` and `attempt` are those of the newest attempt (0: none yet). `due_ms` is the wall time a
    DELAYED job waits for. `reason` says why a final or delayed job is where it is.
    """

    run_id: str
    job_id: str
    ordinal: int
    spec: bytes
    filename: str
    priority: int
    requirement: str
    state: JobState
    reason: str
    generation: int
    attempt: int
    fence: int
    worker: str
    failures: int
    losses: int
    due_ms: int | None
    cancel_requested: bool
    affinity_worker: str
    exit_code: int | None
    ready_ms: int | None
    started_ms: int | None
    ended_ms: int | None


class EdgeRow(msgspec.Struct, frozen=True, gc=False):
    """`job_id` waits for `parent_id`, both in one run."""

    run_id: str
    job_id: str
    parent_id: str


class AttemptRow(msgspec.Struct, gc=False):
    """One try at a job. `lease_until_ms` is set only by an orderly stop of the Master (wall time)."""

    fence: int
    run_id: str
    job_id: str
    generation: int
    attempt: int
    worker: str
    incarnation: str
    boot_id: str
    state: AttemptState
    lease_s: int
    lease_until_ms: int | None
    granted_ms: int
    started_ms: int | None
    ended_ms: int | None
    exit_code: int | None
    signal: int
    cause: str
    log_bytes: int


class Snapshot(msgspec.Struct):
    """What the core is rebuilt from: all that is not over.

    `runs`: not final and not STAGED. `jobs`: theirs, not final. `edges`: open ones only, that is the job is
    in `jobs` and the parent is not COMPLETED. `attempts`: ASSIGNED or RUNNING.
    """

    runs: list[RunRow]
    jobs: list[JobRow]
    edges: list[EdgeRow]
    attempts: list[AttemptRow]
