"""Everything that is read of runs and jobs. A STAGED run is in none of it, except for `staged_runs`."""

import re
from collections.abc import Callable, Collection
from functools import cache
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import Text, and_, bindparam, exists, func, literal_column, select, text, tuple_

from titan.core.rows import AttemptRow, EdgeRow, JobRow, RunRow, Snapshot, starts_again
from titan.model.ids import LEGACY_PREFIX, RUN_ID_PATTERN, RUN_PREFIX_DIGITS_MIN, RUN_PREFIX_PATTERN
from titan.model.states import FINAL_JOB_STATES, JobState, RunState
from titan.storage import tables
from titan.storage.connection import Connection, Statement
from titan.storage.errors import DatabaseCorrupt
from titan.storage.rows import ATTEMPT, EDGE, JOB, RUN, attempt_row, edge_row, job_row, run_row
from titan.storage.tables import edges, jobs, runs

Row = TypeVar("Row")
TOKEN_KEY = "job_token_key"  # noqa: S105 - the name of a row
AMBIGUOUS_SHOWN = 10
DEPTH_MAX = 10_000  # runs above a run that are looked through
_FEW_RUNS = 256
_RUN_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})")
_JOB_CURSOR = re.compile(r"[0-9]{1,18}")


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


SHOWN = runs.c.state != literal_column(f"'{RunState.STAGED}'")
_run_id = runs.c.run_id == bindparam("run_id")
_jobs_of = jobs.c.run_id == bindparam("run_id")
_OPEN_RUNS = Statement(select(*RUN).where(text(tables.RUN_OPEN), SHOWN).order_by(runs.c.seq))
_EPOCH = Statement(select(tables.leader.c.epoch).where(tables.leader.c.id == 1))
_STAGED = Statement(select(runs.c.run_id).where(text(tables.RUN_OPEN), runs.c.state == RunState.STAGED.value))
_RUN = Statement(select(*RUN).where(_run_id, SHOWN), "run_id")
_JOB = Statement(
    select(*JOB)
    .join(runs, and_(runs.c.run_id == jobs.c.run_id, SHOWN))
    .where(_jobs_of, jobs.c.job_id == bindparam("job_id")),
    "run_id",
    "job_id",
)
_BELOW = Statement(
    select(runs.c.run_id, runs.c.state, runs.c.cancel_requested).where(runs.c.parent_run_id == bindparam("run_id")),
    "run_id",
)
_JOBS = Statement(select(*JOB).where(_jobs_of).order_by(jobs.c.ordinal), "run_id")
_OPEN_JOBS = Statement(
    select(*JOB).where(_jobs_of, text(tables.JOB_OPEN)).order_by(jobs.c.ordinal),
    "run_id",
)
_JOB_IDS = Statement(select(jobs.c.job_id).where(_jobs_of), "run_id")
_COMPLETED = Statement(select(jobs.c.job_id).where(_jobs_of, jobs.c.state == JobState.COMPLETED.value), "run_id")
_EDGES = Statement(select(*EDGE).where(edges.c.run_id == bindparam("run_id")), "run_id")
_LIVING = Statement(select(*ATTEMPT).where(text(tables.LIVING)).order_by(tables.attempts.c.fence))
_ATTEMPT = Statement(select(*ATTEMPT).where(tables.attempts.c.fence == bindparam("fence")), "fence")
_ATTEMPTS = Statement(
    select(*ATTEMPT)
    .where(tables.attempts.c.run_id == bindparam("run_id"), tables.attempts.c.job_id == bindparam("job_id"))
    .order_by(tables.attempts.c.fence),
    "run_id",
    "job_id",
)
_REMEMBERED = Statement(
    select(tables.idempotency.c.body_hash, tables.idempotency.c.answer).where(
        tables.idempotency.c.key == bindparam("k"), tables.idempotency.c.expires_ms > bindparam("now")
    ),
    "k",
    "now",
)
_REGISTERED = Statement(
    select(
        tables.registry.c.name, tables.registry.c.sha256, tables.registry.c.size, tables.registry.c.updated_ms
    ).where(tables.registry.c.name == bindparam("n")),
    "n",
)
_BLOB = Statement(select(tables.blobs.c.size).where(tables.blobs.c.sha256 == bindparam("sha256")), "sha256")
_META = Statement(select(tables.meta.c.value).where(tables.meta.c.name == bindparam("n")), "n")
_newest_first = (runs.c.created_ms.desc(), runs.c.seq.desc())
_LAST = Statement(select(*RUN).where(SHOWN).order_by(*_newest_first).limit(1))
_NAMED = Statement(
    select(*RUN).where(runs.c.name == bindparam("name"), SHOWN).order_by(*_newest_first).limit(1), "name"
)
_LAST_FAILED = Statement(select(*RUN).where(runs.c.state == RunState.FAILED.value).order_by(*_newest_first).limit(1))
_PREFIX = Statement(
    select(*RUN)
    .where(runs.c.run_id >= bindparam("low"), runs.c.run_id < bindparam("high"), SHOWN)
    .order_by(*_newest_first)
    .limit(bindparam("limit")),
    "low",
    "high",
    "limit",
)
_BEFORE = Statement(
    select(runs.c.run_id).where(runs.c.run_id < bindparam("run_id"), SHOWN).order_by(runs.c.run_id.desc()).limit(1),
    "run_id",
)
_BEHIND = Statement(
    select(runs.c.run_id).where(runs.c.run_id > bindparam("run_id"), SHOWN).order_by(runs.c.run_id).limit(1), "run_id"
)
_up = select(bindparam("caller", type_=Text).label("run_id"), literal_column("0").label("depth")).cte(
    "up", recursive=True
)
_up = _up.union_all(
    select(runs.c.parent_run_id, _up.c.depth + 1)
    .join(_up, runs.c.run_id == _up.c.run_id)
    .where(runs.c.parent_run_id.is_not(None), _up.c.depth < literal_column(str(DEPTH_MAX)))
)
_AMONG_ANCESTORS = Statement(
    select(_up.c.run_id)
    .join(jobs, and_(jobs.c.run_id == _up.c.run_id, jobs.c.job_id == bindparam("job_id")))
    .join(runs, and_(runs.c.run_id == _up.c.run_id, SHOWN))
    .order_by(_up.c.depth)
    .limit(1),
    "caller",
    "job_id",
)
_with_job = jobs.c.job_id == bindparam("job_id")
_SOME_RUNS = Statement(
    select(literal_column("1")).select_from(jobs).where(_with_job).limit(bindparam("n")), "job_id", "n"
)
_NEWEST_OF_FEW = Statement(
    select(runs.c.run_id)
    .join(jobs, jobs.c.run_id == runs.c.run_id)
    .where(_with_job, SHOWN)
    .order_by(*_newest_first)
    .limit(1),
    "job_id",
)
_NEWEST_OF_MANY = Statement(
    select(runs.c.run_id)
    .where(SHOWN, exists().where(jobs.c.run_id == runs.c.run_id, _with_job))
    .order_by(*_newest_first)
    .limit(1),
    "job_id",
)


def snapshot(connection: Connection) -> Snapshot:
    """Return what the core is loaded from, runs and their jobs in order of submission. Ask with no timeout."""
    open_runs = [run_row(row) for row in connection.rows(_OPEN_RUNS)]
    open_jobs: list[JobRow] = []
    open_edges: list[EdgeRow] = []
    for each in open_runs:
        of_run = _open_jobs(connection, each)
        open_jobs.extend(of_run)
        open_edges.extend(_open_edges(connection, each.run_id, of_run))
    living = [attempt_row(row) for row in connection.rows(_LIVING)]
    return Snapshot(open_runs, open_jobs, open_edges, living)


def lookup(connection: Connection, text: str, caller_run: str | None = None) -> Found | Ambiguous | None:
    """Return what a person means by `text` where a run or a job is asked for.

    `@last`, `@last-failed`, `run/job`, a full run id, an exact job id (as `lookup_job` finds it), a run's prefix,
    the name of a run (the newest one's); else a leading `DAG-` is dropped and the same tried.
    """
    return _dropping(
        text,
        lambda it: (
            _in_run(connection, it)
            if "/" in it
            else _last(connection, it)
            or _by_id(connection, it)
            or _by_job_id(connection, it, caller_run)
            or _by_prefix(connection, it)
            or _by_name(connection, it)
        ),
    )


def lookup_job(connection: Connection, text: str, caller_run: str | None = None) -> Found | Ambiguous | None:
    """Return what `text` names where only a job makes sense: `run/job` or an exact job id.

    A bare id is looked for in the caller's own run, then in its ancestors', then in the newest run that has it;
    else a leading `DAG-` is dropped and the same tried.
    """
    return _dropping(text, lambda it: _in_run(connection, it) if "/" in it else _by_job_id(connection, it, caller_run))


def lookup_run(connection: Connection, text: str) -> Found | Ambiguous | None:
    """Return the run that `text` names: `@last`, `@last-failed`, an id, a prefix of 4 digits or more, or a name."""
    return (
        _last(connection, text)
        or _by_id(connection, text)
        or _by_prefix(connection, text)
        or _by_name(connection, text)
    )


def run(connection: Connection, run_id: str) -> RunRow | None:
    """Return one run by its full id."""
    row = connection.row(_RUN, run_id)
    return None if row is None else run_row(row)


def short_id(connection: Connection, run_id: str) -> str:
    """Return the shortest prefix of a run's id, of 4 digits or more, with which no other run's id begins now."""
    neighbours = [row[0] for row in (connection.row(_BEFORE, run_id), connection.row(_BEHIND, run_id)) if row]
    digits = RUN_PREFIX_DIGITS_MIN
    while any(other.startswith(run_id[:digits]) for other in neighbours):
        digits += 1
    return run_id[:digits]


def list_runs(connection: Connection, which: RunFilter, limit: int, before: str | None = None) -> Page[RunRow]:
    """Return runs, newest first. Raises ValueError when `before` is no cursor of an earlier page."""
    states = sorted(which.states - {RunState.STAGED})
    values: list[Any] = [state.value for state in states]
    if "\0" in which.name:  # no name has one, and LIKE would read no further
        return Page([], None)
    if which.name:
        values.append("%" + re.sub(r"([%_\\])", r"\\\1", which.name) + "%")
    if which.agent_run_id:
        values.append(which.agent_run_id)
    if before is not None:
        cursor = _RUN_CURSOR.fullmatch(before)
        if cursor is None:
            raise ValueError("this is no cursor of a list of runs: give what `next` said")
        values.extend(map(int, cursor.groups()))
    statement = _run_list(len(states), bool(which.name), bool(which.agent_run_id), before is not None)
    rows = connection.rows(statement, *values, limit + 1) if states or not which.states else []
    cursor_of = f"{rows[limit - 1][-2]}.{rows[limit - 1][-1]}" if len(rows) > limit else None
    return Page([run_row(row[:-2]) for row in rows[:limit]], cursor_of)


def job(connection: Connection, run_id: str, job_id: str) -> JobRow | None:
    """Return one job by its full ids."""
    row = connection.row(_JOB, run_id, job_id)
    return None if row is None else job_row(row)


def jobs_by_id(connection: Connection, run_id: str, job_ids: Collection[str]) -> dict[str, JobRow]:
    """Return those of `job_ids` that the run has."""
    found = {}
    for job_id in job_ids:
        row = job(connection, run_id, job_id)
        if row is not None:
            found[job_id] = row
    return found


def job_ids(connection: Connection, run_id: str) -> set[str]:
    """Return the ids of all jobs of the run."""
    return set() if run(connection, run_id) is None else {row[0] for row in connection.rows(_JOB_IDS, run_id)}


def jobs_of_run(
    connection: Connection, run_id: str, states: frozenset[JobState], limit: int, after: str | None = None
) -> Page[JobRow]:
    """Return jobs in order of submission; `states` empty: all. Raises ValueError when `after` is no cursor."""
    if after is not None and _JOB_CURSOR.fullmatch(after) is None:
        raise ValueError("this is no cursor of a list of jobs: give what `next` said")
    if run(connection, run_id) is None:
        return Page([], None)
    words = sorted(state.value for state in states)
    begin = -1 if after is None else int(after)
    rows = [job_row(row) for row in connection.rows(_job_list(len(words)), run_id, begin, *words, limit + 1)]
    return Page(rows[:limit], str(rows[limit - 1].ordinal) if len(rows) > limit else None)


def attempts(connection: Connection, run_id: str, job_id: str) -> list[AttemptRow]:
    """Return the attempts of a job, oldest first."""
    return [attempt_row(row) for row in connection.rows(_ATTEMPTS, run_id, job_id)]


def attempt(connection: Connection, fence: int) -> AttemptRow | None:
    """Return one attempt."""
    row = connection.row(_ATTEMPT, fence)
    return None if row is None else attempt_row(row)


def whole_run(connection: Connection, run_id: str) -> tuple[RunRow, list[JobRow], list[EdgeRow]] | None:
    """Return a run with everything in it, jobs in order of submission."""
    found = run(connection, run_id)
    if found is None:
        return None
    all_jobs = [job_row(row) for row in connection.stream(_JOBS, run_id)]
    return found, all_jobs, [edge_row(row) for row in connection.stream(_EDGES, run_id)]


def living_below(connection: Connection, run_id: str) -> list[str]:
    """Return the living runs below a run whose end nobody has asked for, whatever became of those in between."""
    found: list[str] = []
    left = [run_id]
    while left:
        for below, state, cancelled in connection.rows(_BELOW, left.pop()):
            left.append(below)
            if state in (RunState.QUEUED, RunState.RUNNING) and not cancelled:
                found.append(below)
    return found


def remembered(connection: Connection, key: str, now_ms: int) -> Remembered | None:
    """Return what an idempotency key was used for; None when it was not, or has expired."""
    row = connection.row(_REMEMBERED, key, now_ms)
    return None if row is None else Remembered(*row)


def registered(connection: Connection, name: str) -> Registered | None:
    """Return the registry's entry for `name`."""
    row = connection.row(_REGISTERED, name)
    return None if row is None else Registered(*row)


def blobs_present(connection: Connection, hashes: Collection[str]) -> set[str]:
    """Return those of `hashes` (SHA-256, hex) that are stored."""
    return {sha256 for sha256 in hashes if connection.row(_BLOB, sha256) is not None}


def token_key(connection: Connection) -> bytes:
    """Return the 32 random bytes that sign job tokens, made by the first `Journal.take_over`."""
    row = connection.row(_META, TOKEN_KEY)
    if row is None:
        raise DatabaseCorrupt("the key of job tokens is missing: no Master has taken over this database yet")
    return bytes(row[0])


def epoch_led(connection: Connection) -> int:
    """Return the epoch of the Master that leads."""
    [(epoch,)] = connection.rows(_EPOCH)
    return int(epoch)


def staged_runs(connection: Connection) -> list[str]:
    """Return the ids of STAGED runs: left over, when the core has just been loaded. `SweepStage` removes them."""
    return [row[0] for row in connection.rows(_STAGED)]


def _dropping(text: str, find: Callable[[str], Found | Ambiguous | None]) -> Found | Ambiguous | None:
    found = find(text)
    return find(text.removeprefix(LEGACY_PREFIX)) if found is None and text.startswith(LEGACY_PREFIX) else found


def _last(connection: Connection, text: str) -> Found | None:
    statement = {"@last": _LAST, "@last-failed": _LAST_FAILED}.get(text)
    row = None if statement is None else connection.row(statement)
    return None if row is None else Found(run_row(row), None)


def _by_id(connection: Connection, text: str) -> Found | None:
    found = run(connection, text) if RUN_ID_PATTERN.fullmatch(text) else None
    return None if found is None else Found(found, None)


def _by_prefix(connection: Connection, text: str) -> Found | Ambiguous | None:
    if not RUN_PREFIX_PATTERN.fullmatch(text):
        return None
    found = [run_row(row) for row in connection.rows(_PREFIX, text, text + "g", AMBIGUOUS_SHOWN)]
    if len(found) > 1:
        return Ambiguous(found)
    return Found(found[0], None) if found else None


def _by_name(connection: Connection, text: str) -> Found | None:
    row = connection.row(_NAMED, text)
    return None if row is None else Found(run_row(row), None)


def _in_run(connection: Connection, text: str) -> Found | Ambiguous | None:
    of_run, _, job_id = text.partition("/")
    found = lookup_run(connection, of_run)
    if not isinstance(found, Found):
        return found
    row = job(connection, found.run.run_id, job_id)
    if row is None and job_id.startswith(LEGACY_PREFIX):
        row = job(connection, found.run.run_id, job_id.removeprefix(LEGACY_PREFIX))
    return None if row is None else Found(found.run, row)


def _by_job_id(connection: Connection, job_id: str, caller_run: str | None) -> Found | None:
    row = connection.row(_AMONG_ANCESTORS, caller_run, job_id) if caller_run else None
    if row is None:
        # An id of few runs is sorted by their age; one that many have is met soon on the way back from the newest.
        few = len(connection.rows(_SOME_RUNS, job_id, _FEW_RUNS)) < _FEW_RUNS
        row = connection.row(_NEWEST_OF_FEW if few else _NEWEST_OF_MANY, job_id)
    if row is None:
        return None
    of_run, found = run(connection, row[0]), job(connection, row[0], job_id)
    return None if of_run is None or found is None else Found(of_run, found)


def _open_jobs(connection: Connection, of_run: RunRow) -> list[JobRow]:
    if of_run.opening is None:
        return [job_row(row) for row in connection.stream(_OPEN_JOBS, of_run.run_id)]
    all_jobs = (job_row(row) for row in connection.stream(_JOBS, of_run.run_id))
    return [row for row in all_jobs if row.state not in FINAL_JOB_STATES or starts_again(of_run, row)]


def _open_edges(connection: Connection, run_id: str, of_run: list[JobRow]) -> list[EdgeRow]:
    waiting: dict[str, str] = {row.job_id: row.job_id for row in of_run}
    done = {row[0] for row in connection.stream(_COMPLETED, run_id)}
    return [
        EdgeRow(run_id, waiting[job_id], waiting.get(parent_id) or parent_id)
        for _, job_id, parent_id in connection.stream(_EDGES, run_id)
        if job_id in waiting and (parent_id in waiting or parent_id not in done)
    ]


@cache
def _run_list(states: int, by_name: bool, by_agent_run: bool, before: bool) -> Statement:
    query = select(*RUN, runs.c.created_ms, runs.c.seq).where(SHOWN)
    names = [f"state{number}" for number in range(states)]
    if states:
        query = query.where(runs.c.state.in_([bindparam(name) for name in names]))
    if by_name:
        names.append("name")
        query = query.where(func.lower(runs.c.name).like(func.lower(bindparam("name")), escape="\\"))
    if by_agent_run:
        names.append("agent_run_id")
        query = query.where(runs.c.agent_run_id == bindparam("agent_run_id"))
    if before:
        names += ["created_ms", "seq"]
        behind = tuple_(bindparam("created_ms"), bindparam("seq"))
        query = query.where(tuple_(runs.c.created_ms, runs.c.seq) < behind)
    query = query.order_by(*_newest_first).limit(bindparam("limit"))
    return Statement(query, *names, "limit")


@cache
def _job_list(states: int) -> Statement:
    names = [f"state{number}" for number in range(states)]
    query = select(*JOB).where(_jobs_of, jobs.c.ordinal > bindparam("after"))
    if states:
        query = query.where(jobs.c.state.in_([bindparam(name) for name in names]))
    return Statement(query.order_by(jobs.c.ordinal).limit(bindparam("limit")), "run_id", "after", *names, "limit")
