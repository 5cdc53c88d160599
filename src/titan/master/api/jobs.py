"""Jobs: find, look at, explain, read the log of, wait for, cancel."""

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, FromQuery

from titan.core import reasons
from titan.core.events import CancelJob, News
from titan.core.rows import AttemptRow, JobRow
from titan.master.api.site import Http, Site, caller_run, deadline, engine_of, principal_of, site_of, trail, wait_s
from titan.master.finding import find, find_job, job_now, must_own
from titan.master.lending import asking
from titan.master.show import attempt_view, job_view, run_view
from titan.model.limits import change
from titan.model.states import FINAL_JOB_STATES, LIVING_ATTEMPT_STATES, AttemptState
from titan.model.views import AttemptList, Explanation, JobAnswer, JobView, JobWait, Lookup
from titan.model.wire import CAUSE_LOST
from titan.storage import queries
from titan.storage.connection import Connection
from titan_sdk.errors import Invalid, NotFound

LOG_BYTES = 1024 * 1024
OFFSET_MAX = 2**62


@get("/jobs/lookup", name="jobs.lookup")
async def lookup(request: Http, id: FromQuery[str], run: FromQuery[str | None] = None) -> Lookup:  # noqa: A002
    """Find what a person means: @last, @last-failed, run/job, a run's id, a job's id, a run's prefix or name.

    A bare job id is looked for in the run `run` (a job's own, by default) and those above it, then in the newest
    run that has it.
    """
    found = await find(engine_of(request), id, run or caller_run(request))
    job = found.job
    return Lookup(found.run.run_id, job.job_id if job else None, run_view(found.run), job_view(job) if job else None)


@get("/runs/{run:str}/jobs/{job:str}", name="jobs.get")
async def get_job(request: Http, run: FromPath[str], job: FromPath[str]) -> JobView:
    """Return one job."""
    return job_view((await find_job(engine_of(request), run, job))[1])


@get("/runs/{run:str}/jobs/{job:str}/explain", name="jobs.explain")
async def explain(request: Http, run: FromPath[str], job: FromPath[str]) -> Explanation:
    """Say why a job is where it is, and what would unblock it."""
    engine = engine_of(request)
    _, row = await find_job(engine, run, job)
    living = await engine.ask(lambda scheduler, now: scheduler.explain(row.run_id, row.job_id, now))
    if living is not None:
        return msgspec.convert(living, Explanation, from_attributes=True)
    _, row = await find_job(engine, row.run_id, row.job_id)  # it may have ended since
    reason = row.reason or reasons.ENDED
    details = {"exit_code": row.exit_code, "attempt": row.attempt, "worker": row.worker}
    return Explanation(row.run_id, row.job_id, row.state, reason, _ended(row), reasons.after(row.reason), details)


def _ended(row: JobRow) -> str:
    meaning = reasons.ENDS.get(row.reason)
    if meaning is None:
        return f"it is {row.state}" + (f" ({row.reason})" if row.reason else "")
    code = "" if row.exit_code is None else f"exit {row.exit_code}"
    parts = [code, f"attempt {row.attempt}" if row.attempt else "", f"worker {row.worker}" if row.worker else ""]
    told = ", ".join(part for part in parts if part)
    return f"{meaning} ({told})" if told else meaning


@get("/runs/{run:str}/jobs/{job:str}/wait", name="jobs.wait")
async def wait(request: Http, run: FromPath[str], job: FromPath[str], timeout_s: FromQuery[float] = 25.0) -> JobWait:
    """Wait until a job's state is final, at most 25 s: then ask again."""
    engine = engine_of(request)
    left_s = deadline(wait_s(timeout_s, engine.limits))
    run_row, row = await find_job(engine, run, job)
    with engine.live.watch(("job", row.run_id, row.job_id), only=_is_over) as watch:
        async with asking(engine, principal_of(request), run_row, request.receive, row.job_id) as ask:
            while True:
                row = job_now(engine, row)
                over = row.state in FINAL_JOB_STATES
                if over or not left_s():
                    ask.final = over
                    return JobWait(over, job_view(row))
                ask.begin()
                await watch.changed(left_s())


@post("/runs/{run:str}/jobs/{job:str}/cancel", name="jobs.cancel", status_code=200)
async def cancel(request: Http, run: FromPath[str], job: FromPath[str]) -> JobAnswer:
    """Cancel a job; what waits for it is cancelled too. A job that is over stays as it is."""
    engine = engine_of(request)
    run_row, row = await find_job(engine, run, job)
    await must_own(engine, principal_of(request), run_row)
    await engine.apply(CancelJob(row.run_id, row.job_id), (), trail(request, f"{row.run_id}/{row.job_id}"))
    return JobAnswer(job_view(job_now(engine, row)))


@get("/runs/{run:str}/jobs/{job:str}/attempts", name="jobs.attempts")
async def attempts(request: Http, run: FromPath[str], job: FromPath[str]) -> AttemptList:
    """List all tries at a job, the oldest first. One that its worker gave back unstarted was none."""
    engine = engine_of(request)
    _, row = await find_job(engine, run, job)
    tried = await engine.read(lambda connection: queries.attempts(connection, row.run_id, row.job_id))
    return AttemptList([attempt_view(each) for each in tried if each.state != AttemptState.RETURNED])


@get("/runs/{run:str}/jobs/{job:str}/log", name="jobs.log")
async def log(
    request: Http,
    run: FromPath[str],
    job: FromPath[str],
    offset: FromQuery[int] = 0,
    limit: FromQuery[int] = LOG_BYTES,
    attempt: FromQuery[int | None] = None,
    follow_s: FromQuery[float] = 0.0,
) -> Response[bytes]:
    """Return raw bytes of a job's log, of its last attempt or the one asked for, from `offset` on.

    Offsets are positions in all that was printed. Where bytes were dropped, the answer ends, and Titan-Log-Dropped
    says how many are missing behind it, Titan-Log-Dropped-Why the reason; it may be empty but for that. Go on at
    Titan-Log-Next, until that is Titan-Log-Total and Titan-Log-Complete is true. A negative offset counts bytes that
    are kept, from the end. `follow_s` waits until there is something beyond `offset`, or the log is complete; with it
    the attempt may be one to come, whose log is empty, and complete when the job has ended without it. Other headers:
    Titan-Log-Offset (of the first byte sent), Titan-Log-Attempt.
    """
    site = site_of(request.scope)
    engine = site.engine
    if not 0 <= limit <= engine.limits.log_fetch_bytes_max:
        text = f"limit is {limit}: give 0 to {engine.limits.log_fetch_bytes_max} bytes, and ask again for more"
        raise Invalid(text, hint=change("log_fetch_bytes_max") if limit > 0 else "")
    left_s = deadline(wait_s(follow_s, engine.limits))
    _, row = await find_job(engine, run, job)
    while True:
        found = await engine.read(
            lambda connection: _read_log(connection, site, row, attempt, offset, limit, follow_s > 0)
        )
        if found.says or not limit or not left_s():
            return _log_answer(found)
        with engine.live.watch(("log", found.fence), ("job", row.run_id, row.job_id)) as watch:
            found = await engine.read(
                lambda connection: _read_log(connection, site, row, attempt, offset, limit, follow_s > 0)
            )
            if not found.says:
                await watch.changed(left_s())


class FoundLog(msgspec.Struct, frozen=True):
    """A piece of one attempt's log, and how much is missing behind it. `complete`: `total` will not grow."""

    fence: int
    attempt: int
    offset: int
    data: bytes
    total: int
    complete: bool
    dropped: int = 0
    why: str = ""

    @property
    def says(self) -> bool:
        """Whether there is anything that is worth an answer."""
        return bool(self.data or self.dropped or self.complete)


def _read_log(
    connection: Connection, site: Site, job: JobRow, attempt: int | None, offset: int, limit: int, following: bool
) -> FoundLog:
    now = queries.job(connection, job.run_id, job.job_id)
    if now is None:
        raise NotFound(f"job {job.run_id}/{job.job_id} is no longer kept")
    fence, number, complete = now.fence, now.attempt, now.state in FINAL_JOB_STATES
    if attempt is not None and attempt > number and following:
        return FoundLog(0, attempt, 0, b"", 0, complete)
    if attempt is not None:
        chosen = _attempt(connection, now, attempt)
        fence, number, complete = chosen.fence, chosen.attempt, chosen.state not in LIVING_ATTEMPT_STATES
    if not fence:
        return FoundLog(0, 0, 0, b"", 0, complete)
    total = site.logs.read(connection, fence, 0, 0).total
    last_line = _last_line(connection, site, fence, total)
    if offset < 0:
        kept = -offset - len(last_line)
        offset = site.logs.tail(connection, fence, kept) if kept > 0 else total - kept
    piece = site.logs.read(connection, fence, min(offset, OFFSET_MAX), limit)
    data = piece.data
    if last_line and not piece.dropped and piece.end >= total:
        # Only what the worker wrote is kept; this line follows from the attempt's row.
        skip = max(0, piece.offset - total)
        data += last_line[skip : skip + limit - len(data)]
    whole = total + len(last_line)
    return FoundLog(fence, number, piece.offset, data, whole, complete, piece.dropped, piece.why)


def _last_line(connection: Connection, site: Site, fence: int, total: int) -> bytes:
    """Return what we have to say at the end of the log of an attempt that was lost with its worker."""
    row = queries.attempt(connection, fence)
    if row is None or row.state != AttemptState.LOST or row.cause != CAUSE_LOST:
        return b""
    whole = not total or site.logs.read(connection, fence, total - 1, 1).data == b"\n"
    return (b"" if whole else b"\n") + f"[titan] lost with worker {row.worker}\n".encode()


def _attempt(connection: Connection, job: JobRow, number: int) -> AttemptRow:
    tried = queries.attempts(connection, job.run_id, job.job_id)
    for row in reversed(tried):
        if row.attempt == number:
            return row
    numbers = ", ".join(str(row.attempt) for row in tried[-20:]) or "none yet"
    raise NotFound(f"job {job.run_id}/{job.job_id} has no attempt {number}", hint=f"its attempts: {numbers}")


def _log_answer(found: FoundLog) -> Response[bytes]:
    headers = {
        "titan-log-offset": str(found.offset),
        "titan-log-total": str(found.total),
        "titan-log-complete": "true" if found.complete else "false",
        "titan-log-attempt": str(found.attempt),
        "titan-log-next": str(found.offset + len(found.data) + found.dropped),
    }
    if found.dropped:
        headers["titan-log-dropped"] = str(found.dropped)
        headers["titan-log-dropped-why"] = ascii(found.why)[1:-1]
    return Response(found.data, headers=headers, media_type="application/octet-stream")


def _is_over(news: News) -> bool:
    return news.data["state"] in FINAL_JOB_STATES


HANDLERS = [lookup, get_job, explain, wait, cancel, attempts, log]
