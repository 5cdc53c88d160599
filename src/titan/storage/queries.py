"""Everything that is read of runs and jobs. A STAGED run is in none of it, except for `staged_runs`."""

from collections.abc import Collection
from typing import Generic, TypeVar

import msgspec
from sqlalchemy import Connection

from titan.core.rows import AttemptRow, EdgeRow, JobRow, RunRow, Snapshot
from titan.model.states import JobState, RunState

Row = TypeVar("Row")


class Page(msgspec.Struct, Generic[Row], frozen=True):
    """Some rows and the cursor for those after them; `next` None: these were the last."""

    rows: list[Row]
    next: str | None


class Found(msgspec.Struct, frozen=True):
    """What a text names: a run, or one job of it."""

    run: RunRow
    job: JobRow | None


class Ambiguous(msgspec.Struct, frozen=True):
    """The run prefix fits several runs: the newest of them, newest first."""

    runs: list[RunRow]


class RunFilter(msgspec.Struct, frozen=True):
    """Which runs to list. `name` is a part of the name, upper and lower case alike; empty fields let all through."""

    states: frozenset[RunState] = frozenset()
    name: str = ""
    agent_run_id: str = ""


class Remembered(msgspec.Struct, frozen=True):
    """A stored idempotency key: what it was used for and what was answered."""

    body_hash: bytes
    answer: bytes


class Registered(msgspec.Struct, frozen=True):
    """A name of the registry and the blob it means."""

    name: str
    sha256: str
    size: int
    updated_ms: int


def snapshot(connection: Connection) -> Snapshot:
    """Return what the core is loaded from. Ask with no timeout."""
    raise NotImplementedError(connection)


def lookup(connection: Connection, text: str, caller_run: str | None = None) -> Found | Ambiguous | None:
    """Return what a person means by `text` where a run or a job is asked for (docs: ids and names)."""
    raise NotImplementedError(connection, text, caller_run)


def lookup_job(connection: Connection, text: str, caller_run: str | None = None) -> Found | Ambiguous | None:
    """Return what `text` names where only a job makes sense: `run/job` or a job id."""
    raise NotImplementedError(connection, text, caller_run)


def lookup_run(connection: Connection, text: str) -> Found | Ambiguous | None:
    """Return the run that `text` names: `@last`, `@last-failed`, its id, or a prefix of 4 digits or more."""
    raise NotImplementedError(connection, text)


def run(connection: Connection, run_id: str) -> RunRow | None:
    """Return one run by its full id."""
    raise NotImplementedError(connection, run_id)


def list_runs(connection: Connection, which: RunFilter, limit: int, before: str | None = None) -> Page[RunRow]:
    """Return runs, newest first. Raises ValueError when `before` is no cursor of an earlier page."""
    raise NotImplementedError(connection, which, limit, before)


def job(connection: Connection, run_id: str, job_id: str) -> JobRow | None:
    """Return one job by its full ids."""
    raise NotImplementedError(connection, run_id, job_id)


def jobs_by_id(connection: Connection, run_id: str, job_ids: Collection[str]) -> dict[str, JobRow]:
    """Return those of `job_ids` that the run has."""
    raise NotImplementedError(connection, run_id, job_ids)


def job_ids(connection: Connection, run_id: str) -> set[str]:
    """Return the ids of all jobs of the run."""
    raise NotImplementedError(connection, run_id)


def jobs_of_run(
    connection: Connection, run_id: str, states: frozenset[JobState], limit: int, after: str | None = None
) -> Page[JobRow]:
    """Return jobs in order of submission; `states` empty: all. Raises ValueError when `after` is no cursor."""
    raise NotImplementedError(connection, run_id, states, limit, after)


def attempts(connection: Connection, run_id: str, job_id: str) -> list[AttemptRow]:
    """Return the attempts of a job, oldest first."""
    raise NotImplementedError(connection, run_id, job_id)


def attempt(connection: Connection, fence: int) -> AttemptRow | None:
    """Return one attempt."""
    raise NotImplementedError(connection, fence)


def whole_run(connection: Connection, run_id: str) -> tuple[RunRow, list[JobRow], list[EdgeRow]] | None:
    """Return a run with everything in it, jobs in order of submission."""
    raise NotImplementedError(connection, run_id)


def remembered(connection: Connection, key: str, now_ms: int) -> Remembered | None:
    """Return what an idempotency key was used for; None when it was not, or has expired."""
    raise NotImplementedError(connection, key, now_ms)


def registered(connection: Connection, name: str) -> Registered | None:
    """Return the registry's entry for `name`."""
    raise NotImplementedError(connection, name)


def blobs_present(connection: Connection, hashes: Collection[str]) -> set[str]:
    """Return those of `hashes` (SHA-256, hex) that are stored."""
    raise NotImplementedError(connection, hashes)


def token_key(connection: Connection) -> bytes:
    """Return the 32 random bytes that sign job tokens, made by the first `take_over`."""
    raise NotImplementedError(connection)


def staged_runs(connection: Connection) -> list[str]:
    """Return the ids of STAGED runs: left over, when the core has just been loaded. `SweepStage` removes them."""
    raise NotImplementedError(connection)
