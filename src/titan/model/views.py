"""The JSON every answer of the HTTP API is made of: one struct a shape, field names as they travel.

Times are ISO-8601 text in UTC with milliseconds (`2026-01-31T12:00:00.000Z`) or null. Whole numbers that
may pass 2**53 (fences) travel as text. Fields are only ever added.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

import msgspec

from titan.model.spec import Problem

Kind = Literal["text", "bytes"]
Resolution = Literal["registry", "own script"]
TokenState = Literal["living", "expired", "revoked"]


def iso_time(wall_ms: int | None) -> str | None:
    """Return milliseconds since the epoch as ISO-8601 UTC text; None stays None."""
    if wall_ms is None:
        return None
    whole_s, rest_ms = divmod(wall_ms, 1000)
    return f"{_iso_second(whole_s)}.{rest_ms:03d}Z"


@lru_cache(1024)
def _iso_second(wall_s: int) -> str:
    return f"{datetime.fromtimestamp(wall_s, UTC):%Y-%m-%dT%H:%M:%S}"


class JobCounts(msgspec.Struct, frozen=True, gc=False):
    """How many jobs a run has, and how many of them ended how. `total` minus the rest is still to come."""

    total: int
    completed: int
    failed: int
    cancelled: int
    dead: int


class RunView(msgspec.Struct, frozen=True):
    """One run. `generation` rises with each retry; `parent_*` name the job that submitted it, if one did."""

    id: str
    name: str
    state: str
    generation: int
    agent_run_id: str
    root_run_id: str
    parent_run_id: str | None
    parent_job_id: str | None
    created_at: str | None
    started_at: str | None
    ended_at: str | None
    jobs: JobCounts
    cancelling: bool


class JobView(msgspec.Struct, frozen=True):
    """One job. `attempt` 0: never tried. `reason` says why a final, delayed or waiting job is where it is.

    Of `env` only the names are shown: values may be secrets.
    """

    id: str
    run_id: str
    state: str
    reason: str
    generation: int
    attempt: int
    fence: str
    worker: str
    filename: str
    script: str
    source_path: str
    job_type: str
    args: tuple[str, ...]
    parents: tuple[str, ...]
    requirement: tuple[str, ...]
    priority: int
    delay_ms: int
    affinity: bool
    retries: int
    retry_backoff_s: float
    timeout_s: float | None
    lease_s: int
    on_lost: str
    reap: bool
    warm: bool
    env_names: tuple[str, ...]
    failures: int
    losses: int
    exit_code: int | None
    cancelling: bool
    due_at: str | None
    ready_at: str | None
    started_at: str | None
    ended_at: str | None


class AttemptView(msgspec.Struct, frozen=True):
    """One try at a job. `granted_at`: given to its worker; `cause` says why the system ended it, if it did.

    `start`: "warm", or "exec: " and why it was not started warm.
    """

    attempt: int
    generation: int
    fence: str
    state: str
    worker: str
    granted_at: str | None
    started_at: str | None
    ended_at: str | None
    exit_code: int | None
    signal: int
    cause: str
    log_bytes: int
    start: str


class AttemptList(msgspec.Struct, frozen=True):
    """All tries at a job, the oldest first."""

    attempts: list[AttemptView]


class Explanation(msgspec.Struct, frozen=True):
    """Why a job is where it is. `reason` is a constant; `remedy` what would unblock it ("" when nothing need)."""

    run_id: str
    job_id: str
    state: str
    reason: str
    message: str
    remedy: str = ""
    details: dict[str, Any] = {}


class Submitted(msgspec.Struct, frozen=True):
    """Answer of submit and extend. `resolved` says for each file name sent without content where it was found."""

    run: RunView
    warnings: tuple[str, ...] = ()
    resolved: dict[str, Resolution] = {}


class RunAnswer(msgspec.Struct, frozen=True):
    """Answer of cancel and retry: the run as it is now."""

    run: RunView


class JobAnswer(msgspec.Struct, frozen=True):
    """Answer of cancelling one job: the job as it is now."""

    job: JobView


class RunList(msgspec.Struct, frozen=True):
    """One page of runs, newest first. `next` goes into `before=` for the page after; null: this is the last."""

    runs: list[RunView]
    next: str | None = None


class JobList(msgspec.Struct, frozen=True):
    """One page of a run's jobs in order of submission. `next` goes into `after=`; null: this is the last."""

    jobs: list[JobView]
    next: str | None = None


class ShortIds(msgspec.Struct, frozen=True):
    """For each run asked for, the shortest prefix of its id (4 digits or more) that no other run has now."""

    short_ids: dict[str, str]


class RunWait(msgspec.Struct, frozen=True):
    """Answer of a wait for a run. `done`: the generation asked for has ended. Not done: ask again."""

    done: bool
    run: RunView


class JobWait(msgspec.Struct, frozen=True):
    """Answer of a wait for a job. `done`: its state is final. Not done: ask again."""

    done: bool
    job: JobView


class Lookup(msgspec.Struct, frozen=True):
    """What a text typed by a person names. `job_id` and `job` are null when it named a whole run."""

    run_id: str
    job_id: str | None
    run: RunView
    job: JobView | None = None


class StoreValue(msgspec.Struct, frozen=True, gc=False):
    """A value of the store; bytes travel as base64. `value` null: the key is missing or expired."""

    value: str | None
    kind: Kind = "text"


class StorePutAnswer(msgspec.Struct, frozen=True, gc=False):
    """Answer of put: durable."""

    stored: bool = True


class StoreDeleteAnswer(msgspec.Struct, frozen=True, gc=False):
    """Answer of delete: whether there was something to delete."""

    deleted: bool


class StoreIncrAnswer(msgspec.Struct, frozen=True, gc=False):
    """Answer of incr: the new number, as decimal text."""

    value: str


class StoreCasAnswer(msgspec.Struct, frozen=True, gc=False):
    """Answer of cas: whether the key was as expected and now has the new value."""

    swapped: bool


class StoreSetAnswer(msgspec.Struct, frozen=True, gc=False):
    """Answer of sadd and srem: whether the set changed."""

    changed: bool


class StoreMembers(msgspec.Struct, frozen=True):
    """Answer of smembers: the members, sorted; empty for a missing key."""

    members: list[str]


class StoreKeys(msgspec.Struct, frozen=True):
    """One page of keys, sorted by their UTF-8 bytes. `next` goes into `after`; null: this is the last."""

    keys: list[str]
    next: str | None = None


class StoreManyAnswer(msgspec.Struct, frozen=True):
    """Answer of many: one answer an operation, in order, each of the shape its single call gives."""

    results: list[Any]


class RegistryEntry(msgspec.Struct, frozen=True, gc=False):
    """A file of the registry: base name, content hash, bytes."""

    name: str
    sha256: str
    size: int
    updated_at: str | None = None


class ArtifactView(msgspec.Struct, frozen=True, gc=False):
    """One version of an artifact. `name` is that of the file it was; the job that published it is null for people."""

    key: str
    version: int
    name: str
    sha256: str
    size: int
    created_at: str | None
    created_by: str
    run_id: str | None
    job_id: str | None
    attempt: int | None


class ArtifactList(msgspec.Struct, frozen=True):
    """Artifacts; `next` is to be given as `after` for the next page, null at the end."""

    artifacts: list[ArtifactView]
    next: str | None


class ArtifactsDeleted(msgspec.Struct, frozen=True, gc=False):
    """How many versions went."""

    deleted: int


class WorkerView(msgspec.Struct, frozen=True):
    """One worker. `connected` false: its link is gone and its leases run on.

    `running`: attempts that hold a slot; `ahead`: those that wait there for one.

    `devices`: GPUs it hands out, one a job. `draining`: it finishes what runs and takes nothing more.
    """

    name: str
    connected: bool
    capabilities: list[str]
    slots: int
    running: int
    ahead: int
    devices: int
    draining: bool
    host: str
    pid: int
    version: str
    connected_at: str | None


class WorkerList(msgspec.Struct, frozen=True):
    """All workers the Master knows now."""

    workers: list[WorkerView]


class TokenView(msgspec.Struct, frozen=True):
    """One token, without the token. `state`: living, expired or revoked; `worker`: the one it speaks for, or "".

    `created_by`: the id of the token that made it, "admin" for the home's own.
    """

    id: str
    name: str
    role: str
    worker: str
    state: TokenState
    created_at: str | None
    created_by: str
    expires_at: str | None
    revoked_at: str | None


class TokenMade(msgspec.Struct, frozen=True):
    """A fresh token: `token` is sent as `Authorization: Bearer TOKEN` and is shown this once."""

    token: str
    about: TokenView


class TokenList(msgspec.Struct, frozen=True):
    """One page of tokens by their ids. `next` goes into `after`; null: this is the last."""

    tokens: list[TokenView]
    next: str | None = None


class AuditEntry(msgspec.Struct, frozen=True):
    """One row of the audit. `actor`: a token's id, "admin" for the home's own token; `action`: the route's name."""

    seq: int
    at: str | None
    actor: str
    role: str
    action: str
    object: str
    address: str
    hash: str


class AuditList(msgspec.Struct, frozen=True):
    """Rows of the audit, newest first. `next` goes into `before`; null: this is the last."""

    audit: list[AuditEntry]
    next: str | None = None


class AuditCheck(msgspec.Struct, frozen=True):
    """How far the chain is whole: up to row `seq` with `hash`. `fault`: what is wrong behind it, "" for nothing.

    `more`: rows follow; ask again with `after` and `hash`. `let_go`: rows up to this one are no longer kept.
    """

    seq: int
    hash: str
    fault: str
    more: bool
    let_go: int


class Invitation(msgspec.Struct, frozen=True):
    """What another machine needs to join once: the enrolment `token`, where to, and which certificate to expect.

    `fingerprint`: of the Master's own authority, "" without one.
    """

    token: str
    expires_at: str | None
    url: str
    fingerprint: str


class Enrolled(msgspec.Struct, frozen=True):
    """A worker that may link from now on, with the credential of that id."""

    worker: str
    token_id: str


class WorkerRemoved(msgspec.Struct, frozen=True):
    """A worker that is let in no more, and the ids of the tokens that were revoked for it."""

    name: str
    revoked: list[str]


class Stats(msgspec.Struct, frozen=True):
    """What lives at the Master now: runs, jobs by state, workers and slots, ready jobs by requirement.

    `queues`: the longest 1,000; jobs that are pinned to a worker stand in a queue of their own and are added here.
    `came`: how often a job has come into each state since this process began, to make rates of.
    """

    version: str
    epoch: int
    started_at: str | None
    runs_living: int
    jobs: dict[str, int]
    workers: int
    slots: int
    slots_free: int
    queues: dict[str, int]
    came: dict[str, int] = {}


class WaitingQueue(msgspec.Struct, frozen=True):
    """Jobs that are ready and need the same: how many, and why the one waits that has been ready longest.

    `pinned_to`: the worker they are bound to by affinity, "" for none.
    """

    requirement: list[str]
    pinned_to: str
    jobs: int
    run_id: str
    job_id: str
    ready_at: str | None
    reason: str
    message: str
    remedy: str


class RunningJob(msgspec.Struct, frozen=True):
    """One attempt that runs now."""

    run_id: str
    run_name: str
    job_id: str
    attempt: int
    worker: str
    started_at: str | None


class Overview(msgspec.Struct, frozen=True):
    """What a person looks at first.

    `waiting`: the longest queues, 50 at most; `running`: at most 50 jobs, those granted first.
    """

    now: str | None
    stats: Stats
    workers: list[WorkerView]
    waiting: list[WaitingQueue]
    running: list[RunningJob]


class Health(msgspec.Struct, frozen=True):
    """The one public answer: this is a Titan Master and it answers."""

    status: Literal["ok"] = "ok"


class ProblemDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """Every error, as application/problem+json. `code` is stable; `detail` says what and why, `hint` what next."""

    code: str
    title: str
    status: int
    detail: str
    request_id: str
    hint: str = ""
    problems: list[Problem] = []
