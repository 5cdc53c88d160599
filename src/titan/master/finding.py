"""From what a person types to a run or a job, and whether the caller may touch it.

Ids are looked up as `docs/reference/http-api.md` says. What is not found is named in the error, with the nearest
thing that is there, because the next question is always "what did I mistype?".
"""

import difflib
from collections.abc import Callable

from titan.core.rows import JobRow, RunRow
from titan.master.auth import Principal
from titan.master.engine import Engine
from titan.model.ids import LEGACY_PREFIX, RUN_ID_PATTERN, shown
from titan.model.roles import Role
from titan.storage import queries
from titan.storage.connection import Connection
from titan.storage.queries import Ambiguous, Found
from titan_sdk.errors import Conflict, Denied, NotFound, TitanError

NEAR_IDS_MAX = 500
# Pairs of characters that are compared to name the nearest id: some 0.4 µs each for the worst of texts.
NEAR_PAIRS_MAX = 500_000
LISTED_MAX = 5


async def find(engine: Engine, text: str, caller_run: str | None) -> Found:
    """Return the run or job that `text` names. Raises NotFound, or Conflict when a prefix fits several runs."""
    return await engine.read(lambda connection: _find(connection, text, caller_run))


async def find_run(engine: Engine, text: str) -> RunRow:
    """Return the run that `text` names: an id, a prefix, `@last` or `@last-failed`. Raises as `find` does."""
    if RUN_ID_PATTERN.fullmatch(text):
        return engine.look(lambda connection: run_in(connection, text))
    return await engine.read(lambda connection: run_in(connection, text))


def run_now(engine: Engine, run_id: str) -> RunRow:
    """Return a run by its full id, as it is now. Raises NotFound."""
    return engine.look(lambda connection: run_in(connection, run_id))


def job_now(engine: Engine, job: JobRow) -> JobRow:
    """Return a job as it is now. Raises NotFound."""
    return engine.look(lambda connection: job_in(connection, job.run_id, job.job_id))[1]


async def find_job(engine: Engine, run: str, job: str) -> tuple[RunRow, JobRow]:
    """Return a job by its run and its id, with its run. Raises as `find` does."""
    if RUN_ID_PATTERN.fullmatch(run):
        found = engine.look(lambda connection: _by_key(connection, run, job))
        if found is not None:
            return found
    # To say what is nearest to one that is not there takes long.
    return await engine.read(lambda connection: job_in(connection, run, job))


def run_in(connection: Connection, text: str) -> RunRow:
    """Return the run that `text` names, on a reader connection."""
    found = queries.lookup_run(connection, text)
    return _unique(found, text, lambda: _no_run(connection, text)).run


def job_in(connection: Connection, run: str, job: str) -> tuple[RunRow, JobRow]:
    """Return a job and its run, on a reader connection."""
    row = run_in(connection, run)
    for job_id in dict.fromkeys((job, job.removeprefix(LEGACY_PREFIX))):
        found = queries.job(connection, row.run_id, job_id)
        if found is not None:
            return row, found
    raise _no_job(connection, job, row)


async def must_own(engine: Engine, principal: Principal, run: RunRow) -> None:
    """Let a job act on its own run and those below it only. Raises Denied."""
    if principal.role is not Role.JOB:
        return
    if not await engine.read(lambda connection: _is_below(connection, run, principal.run_id)):
        raise Denied(
            f"a job's token may act on its own run and those below it: run {run.run_id} is neither",
            hint="use a person's token for other runs",
        )


def _by_key(connection: Connection, run_id: str, job_id: str) -> tuple[RunRow, JobRow] | None:
    run, job = queries.run(connection, run_id), queries.job(connection, run_id, job_id)
    return (run, job) if run is not None and job is not None else None


def _find(connection: Connection, text: str, caller_run: str | None) -> Found:
    found = queries.lookup(connection, text, caller_run)
    return _unique(found, text, lambda: _nothing(connection, text))


def _unique(found: Found | Ambiguous | None, text: str, missing: Callable[[], TitanError]) -> Found:
    if found is None:
        raise missing()
    if isinstance(found, Ambiguous):
        listed = ", ".join(f"{run.run_id} ({run.name[:40]!a})" for run in found.runs[:LISTED_MAX])
        raise Conflict(f"{shown(text)} fits several runs, the newest: {listed}", hint="give more digits")
    return found


def _is_below(connection: Connection, run: RunRow, ancestor: str) -> bool:
    at: RunRow | None = run
    while at is not None:
        if at.run_id == ancestor:
            return True
        at = queries.run(connection, at.parent_run_id) if at.parent_run_id else None
    return False


def _no_run(connection: Connection, text: str) -> TitanError:
    if text.startswith("@") and text not in ("@last", "@last-failed"):
        return NotFound(
            f"{shown(text)} means nothing", hint="@last is the newest run, @last-failed the newest failed one"
        )
    if text.startswith("@"):
        if text == "@last-failed":
            return NotFound(f"no run has failed yet, so {shown(text)} is none", hint="titan ps lists the runs")
        return NotFound(f"there is no run for {shown(text)} yet", hint="titan run hello.py makes one")
    if isinstance(queries.lookup_job(connection, text), Found):
        return NotFound(
            f"there is no run {shown(text)}: that is the id of a job",
            hint=f"name its run; titan explain {text} and titan logs {text} take the id of a job",
        )
    return NotFound(f"there is no run {shown(text)}", hint="titan ps lists the runs; 4 digits of an id are enough")


def _no_job(connection: Connection, text: str, run: RunRow) -> TitanError:
    near = _nearest(connection, text, run)
    hint = f"did you mean {near}?" if near else f"titan ps {run.run_id[:8]} lists its jobs"
    return NotFound(f"run {run.run_id} has no job {shown(text)}", hint=hint)


def _nothing(connection: Connection, text: str) -> TitanError:
    run_text, slash, job_text = text.rpartition("/")
    if slash:
        found = queries.lookup_run(connection, run_text)
        return _no_job(connection, job_text, found.run) if isinstance(found, Found) else _no_run(connection, run_text)
    if text.startswith("@"):
        return _no_run(connection, text)
    last = queries.lookup_run(connection, "@last")
    near = _nearest(connection, text, last.run) if isinstance(last, Found) else ""
    hint = (
        f"did you mean {near}, of the newest run?"
        if near
        else "titan ps lists the runs, titan ps --name TEXT those with TEXT in the name"
    )
    return NotFound(f"there is no run and no job {shown(text)}", hint=hint)


def _nearest(connection: Connection, text: str, run: RunRow) -> str:
    """Return the job id of `run` most like `text`; "" for many or long ones, where looking would take long."""
    if run.jobs_total > NEAR_IDS_MAX:
        return ""
    ids = queries.job_ids(connection, run.run_id)
    if len(text) * sum(map(len, ids)) > NEAR_PAIRS_MAX:
        return ""
    near = difflib.get_close_matches(text, ids, 1)
    return near[0] if near else ""
