"""The rows the core writes and is loaded from. Field names are column names; a storage test holds them equal."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import msgspec

from titan.model.states import AttemptState, JobState, RunState


class RunRow(msgspec.Struct, gc=False):
    """One run. `cancel_requested`: all of it shall end; `cancelled_on_request`: some job of it was asked to.

    `parent_fence`: the attempt of its parent job that was running when it ended (0: none was).
    `opening`: a bit for each job by `ordinal`, set for those that start again in this generation; None once
    the rows of all of them say so. See `starts_again`.
    """

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
    parent_fence: int
    opening: bytes | None


class JobRow(msgspec.Struct, gc=False):
    """One job of one run. `ordinal` is its place in the submission; `spec` changes with a retry at most.

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
    """One try at a job. `lease_until_ms` is set only by an orderly stop of the Master (wall time).

    `start`: how it began, in the worker's words, "" until it has.
    """

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
    start: str


class Snapshot(msgspec.Struct):
    """What the core is rebuilt from: all that is not over.

    `runs`: not final and not STAGED. `jobs`: theirs, not final or about to start again. `edges`: open ones
    only, that is the job is in `jobs`, and so is the parent or it is not COMPLETED. `attempts`: ASSIGNED or RUNNING.
    """

    runs: list[RunRow]
    jobs: list[JobRow]
    edges: list[EdgeRow]
    attempts: list[AttemptRow]


class Columns:
    """Some columns of rows, read in one call each row: a load and every batch read very many of them."""

    __slots__ = ("_read", "names")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._read = attrgetter(*names)

    def of(self, row: msgspec.Struct) -> dict[str, Any]:
        """Return the values that `row` has in these columns, by name."""
        return dict(zip(self.names, self._read(row), strict=True))


def opening_of(ordinals: Iterable[int], jobs_total: int) -> bytes:
    """Return `RunRow.opening` for the jobs with these ordinals, each below `jobs_total`."""
    bits = bytearray((jobs_total + 7) // 8)
    for ordinal in ordinals:
        bits[ordinal >> 3] |= 1 << (ordinal & 7)
    return bytes(bits)


def starts_again(run: RunRow, job: JobRow) -> bool:
    """Say whether `job` starts again in the generation being opened, though its row is still of an older one."""
    if run.opening is None or job.generation == run.generation:
        return False
    place = job.ordinal >> 3
    return place < len(run.opening) and bool(run.opening[place] >> (job.ordinal & 7) & 1)
