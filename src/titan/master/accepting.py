"""From a received submission to a run: who submits, which files are meant, what is committed with it.

A file without content is looked for under the name of the submitting job's own script, then in the registry.
All problems are told at once, and nothing is written before there are none. The idempotency key is claimed for
as long as this takes, and its row is committed with the run: the same key later gets the same run.
"""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from titan.core.changes import Change
from titan.core.events import ExtendRun, NewRun, SubmitRun
from titan.core.rows import JobRow, RunRow, starts_again
from titan.master.auth import Principal
from titan.master.engine import Engine
from titan.master.finding import run_now
from titan.master.retrying import opened, prepared
from titan.master.show import run_view
from titan.master.submission import Submission, check_as_graph
from titan.master.turns import Turns
from titan.model.ids import shown
from titan.model.limits import Limits, change
from titan.model.roles import Role
from titan.model.spec import GENERAL, JobSpec, Problem, decode_spec
from titan.model.states import FINAL_JOB_STATES, FINAL_RUN_STATES, RunState
from titan.model.store import Operation, UploadBlob
from titan.model.views import Resolution, Submitted
from titan.storage import queries
from titan.storage.connection import Connection
from titan_sdk.errors import Conflict, Invalid, Unavailable

NAMES_AT_ONCE = 1_000
LOOKED_UP_MAX = 16
EXTEND_TRIES = 3
ROWS_A_JOB = 3  # a submission with more parents than that a job comes in slices, however few its jobs are
T = TypeVar("T")


class Accepted(msgspec.Struct, frozen=True):
    """What is remembered of a submission under its idempotency key."""

    run_id: str
    warnings: tuple[str, ...] = ()
    resolved: dict[str, Resolution] = {}


class Parent(msgspec.Struct, frozen=True):
    """The job that submits, with its run and the attempt that is speaking (its fence)."""

    run: RunRow
    job: JobRow
    fence: int


class Files(msgspec.Struct, frozen=True):
    """Contents the Master has: `named` for files sent by name only, with where that was found; `present` by hash."""

    named: dict[str, tuple[str, Resolution]]
    present: set[str]


_REMEMBERED = msgspec.json.Decoder(Accepted)


async def submit(
    engine: Engine,
    principal: Principal,
    submission: Submission,
    key: str | None,
    turns: Turns,
    trail: Callable[[str], Sequence[Operation]],
) -> tuple[Submitted, bool]:
    """Make a run of `submission`; return the answer, and whether it was given before under the same key.

    `trail` returns what is committed for the audit with a run of that id.
    Raises Invalid with every problem, Conflict for a key in use, and whatever the scheduler refuses with.
    """
    async with engine.claims.claim(key, _hash("runs.submit", submission)) as claim:
        parent = await _parent(engine, principal)
        if claim.stored is not None:
            return await _answer_again(engine, _REMEMBERED.decode(claim.stored), parent), True
        await check_as_graph(submission, set(), engine.limits, turns)
        files = await _find_files(engine, submission, parent, turns)
        resolved = await _resolve(submission, files, turns)
        submission.refuse()
        accepted = Accepted(secrets.token_hex(16), await _warnings(engine, submission.jobs), resolved)
        run = _new_run(submission, accepted.run_id, parent)
        row = claim.row(msgspec.json.encode(accepted), engine.clock().wall_ms)
        uploads = _uploads(engine, submission, files)
        if _fits_one_event(submission, engine.limits):
            await engine.apply(SubmitRun(run, tuple(submission.jobs)), row, [*uploads, *trail(run.run_id)])
        else:
            await engine.submit_staged(run, submission.jobs, row, uploads, trail(run.run_id))
            await submission.forget(turns)
        return _answer(engine, accepted), False


async def extend(
    engine: Engine,
    principal: Principal,
    run: RunRow,
    submission: Submission,
    key: str | None,
    turns: Turns,
    trail: Sequence[Operation],
) -> tuple[Submitted, bool]:
    """Add the jobs of `submission` to `run`; answers and raises as `submit` does."""
    async with engine.claims.claim(key, _hash(f"runs.extend {run.run_id}", submission)) as claim:
        if claim.stored is not None:
            return _answer(engine, _REMEMBERED.decode(claim.stored)), True
        known, finished = await _known_jobs(engine, run, submission)
        await check_as_graph(submission, known, engine.limits, turns)
        _check_size(run, submission, engine.limits)
        files = await _find_files(engine, submission, await _parent(engine, principal), turns)
        resolved = await _resolve(submission, files, turns)
        submission.refuse()
        accepted = Accepted(run.run_id, await _warnings(engine, submission.jobs), resolved)
        row = claim.row(msgspec.json.encode(accepted), engine.clock().wall_ms)
        await _extend(engine, run, submission, finished, row, [*_uploads(engine, submission, files), *trail])
        return _answer(engine, accepted), False


async def _extend(
    engine: Engine,
    run: RunRow,
    submission: Submission,
    finished: dict[str, JobRow],
    row: tuple[Change, ...],
    operations: Sequence[Operation],
) -> None:
    """Feed the extension; a parent that ended after it was read leaves the core's memory, so look again then."""
    for left in reversed(range(EXTEND_TRIES)):
        try:
            await engine.apply(ExtendRun(run.run_id, tuple(submission.jobs), finished), row, operations)
        except Unavailable:
            if not left:
                raise
            _, finished = await _known_jobs(engine, run, submission)
        else:
            return


def _answer(engine: Engine, accepted: Accepted) -> Submitted:
    return Submitted(run_view(run_now(engine, accepted.run_id)), accepted.warnings, accepted.resolved)


async def _answer_again(engine: Engine, accepted: Accepted, parent: Parent | None) -> Submitted:
    """Answer a resend, or a later attempt of the submitting job, which gets the same child run.

    One that had ended badly before that attempt began is opened again: otherwise the attempt could never do
    better than the one before. Its row says which attempt ran when it ended, so no clock is asked.
    """
    answer = _answer(engine, accepted)
    if parent is None or answer.run.state not in (RunState.FAILED, RunState.CANCELLED):
        return answer
    command = (await prepared(engine, accepted.run_id)).command
    if command.run.state not in FINAL_RUN_STATES or command.run.parent_fence == parent.fence:
        return _answer(engine, accepted)
    try:
        await engine.apply(command)
    except Conflict:  # somebody else opened it meanwhile
        pass
    await opened(engine, accepted.run_id)
    return _answer(engine, accepted)


async def _parent(engine: Engine, principal: Principal) -> Parent | None:
    if principal.role is not Role.JOB:
        return None

    def read(connection: Connection) -> Parent | None:
        run = queries.run(connection, principal.run_id)
        job = queries.job(connection, principal.run_id, principal.job_id)
        return Parent(run, job, principal.fence) if run and job else None

    parent = engine.look(read)
    if parent is None:
        raise Conflict(f"job {principal.run_id}/{principal.job_id}, whose token this is, is not known any more")
    return parent


async def _known_jobs(engine: Engine, run: RunRow, submission: Submission) -> tuple[set[str], dict[str, JobRow]]:
    """Return which jobs of `run` the submission names as parents or would take the ids of, and those that are over."""
    jobs = [*submission.jobs, *submission.refused]
    named = {job.job_id for job in jobs}.union(*(job.parents for job in jobs))

    def read(connection: Connection) -> tuple[set[str], dict[str, JobRow]]:
        now = queries.run(connection, run.run_id) or run
        known = queries.jobs_by_id(connection, run.run_id, named)
        over = {job_id: job for job_id, job in known.items() if job.state in FINAL_JOB_STATES}
        return set(known), {job_id: job for job_id, job in over.items() if not starts_again(now, job)}

    return await engine.read(read)


async def _find_files(engine: Engine, submission: Submission, parent: Parent | None, turns: Turns) -> Files:
    named: dict[str, tuple[str, Resolution]] = {}
    present: set[str] = set()
    wanted = {job.filename for job in submission.jobs if not job.script}
    wanted |= {job.filename for job in submission.refused} - {""}
    if parent is not None and wanted:
        own = decode_spec(parent.job.spec)
        named |= dict.fromkeys(wanted & {own.filename, base_name(own.filename)}, (own.script, "own script"))
    unsolved = sorted({base_name(name) for name in wanted - named.keys()})
    registered: dict[str, str] = {}
    for begin in range(0, len(unsolved), NAMES_AT_ONCE):
        names = unsolved[begin : begin + NAMES_AT_ONCE]
        registered |= await _read(engine, partial(_registered, names=names), len(names))
        await turns.give()
    for name in wanted - named.keys():
        if base_name(name) in registered:
            named[name] = (registered[base_name(name)], "registry")
    await turns.give()
    hashes = sorted({job.script for job in submission.jobs if job.script} | submission.blobs.keys())
    for begin in range(0, len(hashes), NAMES_AT_ONCE):
        part = hashes[begin : begin + NAMES_AT_ONCE]
        present |= await _read(engine, partial(queries.blobs_present, hashes=part), len(part))
        await turns.give()
    return Files(named, present)


async def _read(engine: Engine, query: Callable[[Connection], T], rows: int) -> T:
    """Run a query for this many rows where it costs least: a few on the loop, many on a reader's thread."""
    return engine.look(query) if rows <= LOOKED_UP_MAX else await engine.read(query)


def _registered(connection: Connection, names: list[str]) -> dict[str, str]:
    entries = [queries.registered(connection, name) for name in names]
    return {entry.name: entry.sha256 for entry in entries if entry is not None}


async def _resolve(submission: Submission, files: Files, turns: Turns) -> dict[str, Resolution]:
    """Put a hash into every job; add a problem for every file that is nowhere. Return the names found here."""
    for place, job in enumerate(submission.jobs):
        if job.script:
            if job.script not in submission.blobs and job.script not in files.present:
                message = (
                    f"the content of {shown(job.filename)} (SHA-256 {job.script}) was not sent and is not here: "
                    f"PUT it to /api/v1/blobs/{job.script} first"
                )
                submission.add(Problem("file_not_found", message, job.job_id, "script"))
        elif job.filename in files.named:
            submission.jobs[place] = msgspec.structs.replace(job, script=files.named[job.filename][0])
        else:
            submission.add(_missing(job.filename, job.job_id))
        await turns.give()
    for job in submission.refused:
        if job.filename and job.filename not in files.named:
            submission.add(_missing(job.filename, job.job_id))
    return {name: where for name, (_, where) in files.named.items()}


def _missing(filename: str, job_id: str) -> Problem:
    name = shown(base_name(filename))
    message = (
        f"file {shown(filename)} came without content and the Master's registry has no {name}: send it, or put it there"
    )
    return Problem("file_not_found", message, job_id, "filename")


def _uploads(engine: Engine, submission: Submission, files: Files) -> list[UploadBlob]:
    """Return the operations that keep the contents which are new here; they are committed with the run."""
    used = {job.script for job in submission.jobs} - files.present
    now_ms = engine.clock().wall_ms
    new = [(sha256, data) for sha256, data in submission.blobs.items() if sha256 in used]
    return [UploadBlob(sha256, len(data), data, now_ms) for sha256, data in new]


def _new_run(submission: Submission, run_id: str, parent: Parent | None) -> NewRun:
    if parent is None:
        return NewRun(run_id, submission.name, submission.agent_run_id or run_id, run_id)
    agent_run_id = submission.agent_run_id or parent.run.agent_run_id
    return NewRun(run_id, submission.name, agent_run_id, parent.run.root_run_id, parent.run.run_id, parent.job.job_id)


async def _warnings(engine: Engine, jobs: list[JobSpec]) -> tuple[str, ...]:
    """Say which capabilities nobody offers now, and how many jobs wait for each."""
    waiting: dict[str, int] = {}
    for job in jobs:
        if job.requirement != (GENERAL,):
            for tag in job.requirement:
                waiting[tag] = waiting.get(tag, 0) + 1
    if not waiting:
        return ()
    offered = await engine.ask(lambda scheduler, _: scheduler.offered())
    return tuple(
        f"no connected worker offers {tag}: {count} {'job waits' if count == 1 else 'jobs wait'} until one does"
        for tag, count in sorted(waiting.items())
        if tag not in offered
    )


def _fits_one_event(submission: Submission, limits: Limits) -> bool:
    jobs = submission.jobs
    rows = sum(1 + len(job.parents) for job in jobs)
    return len(jobs) <= limits.submit_jobs_inline_max and rows <= ROWS_A_JOB * limits.submit_jobs_inline_max


def _check_size(run: RunRow, submission: Submission, limits: Limits) -> None:
    count, limit = len(submission.jobs), limits.submit_jobs_inline_max
    if count > limit:
        hint = f"send them in parts; {change('submit_jobs_inline_max')}"
        raise Invalid(f"{count} jobs in one extension: at most {limit}", code="too_large", hint=hint)
    if run.jobs_total + count > limits.dag_jobs_max:
        message = f"run {run.run_id} would have {run.jobs_total + count} jobs: at most {limits.dag_jobs_max}"
        raise Invalid(message, code="too_large", hint=change("dag_jobs_max"))


def _hash(what: str, submission: Submission) -> bytes:
    return hashlib.sha256(what.encode() + b"\0" + submission.body_hash).digest()


def base_name(filename: str) -> str:
    """Return the last part of a path, whichever slashes it was written with."""
    return filename.replace("\\", "/").rsplit("/", 1)[-1]
