"""Runs: submit, list, look at, wait for, cancel, try again, extend."""

import hashlib
import re
from functools import partial
from typing import Annotated

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, FromQuery, QueryParameter

from titan.core.events import CancelRun, News
from titan.core.rows import RunRow
from titan.master import accepting
from titan.master.api.site import (
    Http,
    deadline,
    engine_of,
    idempotency_key,
    job_states,
    json_body,
    page_rows,
    principal_of,
    run_states,
    site_of,
    trail,
    trail_of,
    wait_s,
)
from titan.master.asgi import Receive, Scope, Send, answer
from titan.master.auth import FastRoute
from titan.master.bodies import JSON, content_type
from titan.master.finding import find_run, must_own, run_in, run_now
from titan.master.lending import asking
from titan.master.retrying import check_size, opened, prepared
from titan.master.show import job_view, run_view
from titan.master.submission import Receiver
from titan.master.turns import Turns
from titan.model.ids import RUN_ID_PATTERN, shown
from titan.model.requests import ExtendBody, ExtendHeader, RetryBody, SubmitBody, SubmitHeader
from titan.model.states import FINAL_RUN_STATES
from titan.model.views import JobList, RunAnswer, RunList, RunView, RunWait, ShortIds, Submitted
from titan.storage import queries
from titan.storage.queries import RunFilter
from titan_sdk.errors import Invalid

States = Annotated[str, QueryParameter(name="state")]  # `state` is a word of the framework's own
_WAIT = re.compile(r"/api/v1/runs/([^/]+)/wait")
_PLAIN_WAIT = re.compile(rb"(?:generation=(0|[1-9][0-9]{0,8})&)?timeout_s=((?:0|[1-9][0-9]{0,3})(?:\.[0-9]{1,20})?)")
_RETRY = msgspec.json.Decoder(RetryBody)


@post("/runs", name="runs.submit", opt={"body": SubmitBody, "lines": SubmitHeader, "status": (201, 200)})
async def submit(request: Http) -> Response[Submitted]:
    """Submit a run: 201, or 200 with the first answer when the same Idempotency-Key submitted it before."""
    answered, again = await _submit(request.scope, request.receive)
    return Response(answered, status_code=200 if again else 201)


@get("/runs", name="runs.list")
async def list_runs(
    request: Http,
    states: States = "",
    name: FromQuery[str] = "",
    agent_run_id: FromQuery[str] = "",
    limit: FromQuery[int] = 100,
    before: FromQuery[str | None] = None,
) -> RunList:
    """List runs, newest first; `state` takes several words with commas, `name` a part of the name."""
    engine = engine_of(request)
    which = RunFilter(run_states(states), name, agent_run_id)
    rows = page_rows(limit, engine.limits)
    try:
        page = await engine.read(lambda connection: queries.list_runs(connection, which, rows, before))
    except ValueError:
        raise Invalid(f"before {shown(before or '')} is no cursor: take it from `next` of the page before") from None
    return RunList([run_view(row) for row in page.rows], page.next)


@get("/runs/short-ids", name="runs.short_ids")
async def short_ids(request: Http, ids: FromQuery[str]) -> ShortIds:
    """Return, for full run ids separated by commas, the shortest prefixes that name them alone now."""
    engine = engine_of(request)
    asked = ids.split(",")
    page_rows(len(asked), engine.limits)
    for text in asked:
        if not RUN_ID_PATTERN.fullmatch(text):
            raise Invalid(f"{shown(text)} is not a full run id: give 32 hex digits")
    found = await engine.read(lambda connection: {text: queries.short_id(connection, text) for text in asked})
    return ShortIds(found)


@get("/runs/{run:str}", name="runs.get")
async def get_run(request: Http, run: FromPath[str]) -> RunView:
    """Return one run by its id, a prefix of 4 digits or more, @last or @last-failed."""
    return run_view(await find_run(engine_of(request), run))


@get("/runs/{run:str}/wait", name="runs.wait")
async def wait(
    request: Http, run: FromPath[str], generation: FromQuery[int | None] = None, timeout_s: FromQuery[float] = 25.0
) -> RunWait:
    """Wait until a generation of a run (default: the current one) has ended, at most 25 s: then ask again."""
    return await _wait(request.scope, request.receive, run, generation, timeout_s)


@post("/runs/{run:str}/cancel", name="runs.cancel", status_code=200)
async def cancel(request: Http, run: FromPath[str]) -> RunAnswer:
    """Cancel a run and the living runs below it. A run that has ended stays as it is."""
    engine = engine_of(request)
    row = await find_run(engine, run)
    await must_own(engine, principal_of(request), row)
    await engine.apply(CancelRun(row.run_id), (), trail(request, row.run_id))
    if run_now(engine, row.run_id).cancel_requested:
        # The core knows the living; a run below one that has ended is found by the rows.
        while below := await engine.read(lambda connection: queries.living_below(connection, row.run_id), None):
            for run_id in below:
                await engine.apply(CancelRun(run_id))
    return RunAnswer(run_view(run_now(engine, row.run_id)))


@post("/runs/{run:str}/retry", name="runs.retry", status_code=200, opt={"body": RetryBody})
async def retry(request: Http, run: FromPath[str]) -> RunAnswer:
    """Open the next generation of an ended run: FAILED, DEAD and CANCELLED jobs, or those named, and what follows."""
    engine = engine_of(request)
    body: RetryBody = await json_body(request, _RETRY, RetryBody())
    check_size(body.job_ids, body.scripts, engine.limits)
    row = await find_run(engine, run)
    mark = f"runs.retry {row.run_id} {sorted(body.job_ids)}"
    if body.scripts:
        mark += f" {sorted(body.scripts.items())}"
    key = idempotency_key(request.scope)
    async with engine.claims.claim(key, hashlib.sha256(mark.encode()).digest()) as claim:
        if claim.stored is None:
            found = await prepared(engine, row.run_id, body.job_ids, body.scripts)
            key_row = claim.row(b"{}", engine.clock().wall_ms)
            await engine.apply(found.command, (*key_row, *found.specs), trail(request, row.run_id))
    await opened(engine, row.run_id)
    return RunAnswer(run_view(run_now(engine, row.run_id)))


@post(
    "/runs/{run:str}/extend", name="runs.extend", opt={"body": ExtendBody, "lines": ExtendHeader, "status": (201, 200)}
)
async def extend(request: Http, run: FromPath[str]) -> Response[Submitted]:
    """Add jobs to a run that has not ended: 201, or 200 when the same Idempotency-Key added them before."""
    engine, turns = engine_of(request), Turns()
    key = idempotency_key(request.scope)
    row = await find_run(engine, run)
    await must_own(engine, principal_of(request), row)
    submission = await Receiver(request.scope, request.receive, engine.limits, turns).extension()
    answered, again = await accepting.extend(
        engine, principal_of(request), row, submission, key, turns, trail(request, row.run_id)
    )
    return Response(answered, status_code=200 if again else 201)


@get("/runs/{run:str}/jobs", name="runs.jobs")
async def list_jobs(
    request: Http,
    run: FromPath[str],
    states: States = "",
    limit: FromQuery[int] = 100,
    after: FromQuery[str | None] = None,
) -> JobList:
    """List a run's jobs in order of submission; `state` takes several words with commas, PENDING among them."""
    engine = engine_of(request)
    which, rows = job_states(states), page_rows(limit, engine.limits)

    try:
        page = await engine.read(
            lambda connection: queries.jobs_of_run(connection, run_in(connection, run).run_id, which, rows, after)
        )
    except ValueError:
        raise Invalid(f"after {shown(after or '')} is no cursor: take it from `next` of the page before") from None
    return JobList([job_view(row) for row in page.rows], page.next)


async def _submit(scope: Scope, receive: Receive) -> tuple[Submitted, bool]:
    engine, turns = site_of(scope).engine, Turns()
    key = idempotency_key(scope)
    submission = await Receiver(scope, receive, engine.limits, turns).run()
    principal = scope["state"]["principal"]
    return await accepting.submit(engine, principal, submission, key, turns, partial(trail_of, scope))


async def _wait(scope: Scope, receive: Receive, run: str, generation: int | None, timeout_s: float) -> RunWait:
    engine = site_of(scope).engine
    left_s = deadline(wait_s(timeout_s, engine.limits))
    row = await find_run(engine, run)
    wanted = row.generation if generation is None else generation

    def matters(news: News) -> bool:
        return news.data["state"] in FINAL_RUN_STATES or news.data["generation"] > wanted

    with engine.live.watch(("run", row.run_id), only=matters) as watch:
        async with asking(engine, scope["state"]["principal"], row, receive) as ask:
            while True:
                row = run_now(engine, row.run_id)
                over = _ended(row, wanted)
                if over or not left_s():
                    ask.final = over
                    return RunWait(over, run_view(row))
                ask.begin()
                await watch.changed(left_s())


async def _submit_fast(scope: Scope, receive: Receive, send: Send) -> None:
    answered, again = await _submit(scope, receive)
    await answer(send, answered, 200 if again else 201)


async def _wait_fast(run: str, query: re.Match[bytes], scope: Scope, receive: Receive, send: Send) -> None:
    generation = int(query[1]) if query[1] else None
    await answer(send, await _wait(scope, receive, run, generation, float(query[2])))


def _ended(row: RunRow, generation: int) -> bool:
    return row.generation > generation or (row.generation == generation and row.state in FINAL_RUN_STATES)


def fast(scope: Scope) -> FastRoute | None:
    """Return the route for what each small job costs, when it is asked as the SDK asks; the rest is not as urgent."""
    path, method = scope["path"], scope["method"]
    if method == "POST":
        return _SUBMIT_FAST if path == "/api/v1/runs" and content_type(scope) == JSON else None
    if method == "GET" and (found := _WAIT.fullmatch(path)) and (query := _PLAIN_WAIT.fullmatch(scope["query_string"])):
        return FastRoute("runs.wait", partial(_wait_fast, found[1], query), "GET")
    return None


_SUBMIT_FAST = FastRoute("runs.submit", _submit_fast)
HANDLERS = [submit, list_runs, short_ids, get_run, wait, cancel, retry, extend, list_jobs]
