"""What every handler needs: the parts of this Master, who asks, and the bounds that all routes share."""

import math
import time
from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import State

from titan.master.artifacts import Artifacts
from titan.master.asgi import Scope
from titan.master.auth import Principal
from titan.master.bodies import decode, read_body, require_type
from titan.master.engine import Engine
from titan.master.rates import Rates
from titan.master.sessions import Sessions
from titan.model.ids import shown
from titan.model.limits import Limits, change
from titan.model.roles import Role
from titan.model.states import PENDING, JobState, RunState
from titan.model.store import AppendAudit
from titan.storage.blobs import BlobFiles
from titan.storage.logs import LogFiles
from titan_sdk.errors import Invalid

Http = Request[Any, Any, State]
KEY_CHARS_MAX = 200


class Place(msgspec.Struct, frozen=True):
    """Where other machines find this Master, and the fingerprint of its own authority ("" without one)."""

    url: str = ""
    fingerprint: str = ""


class Site(msgspec.Struct, frozen=True):
    """One Master as its handlers see it. `started_ms`: wall time of the process."""

    engine: Engine
    blobs: BlobFiles
    logs: LogFiles
    artifacts: Artifacts
    version: str
    started_ms: int
    sessions: Sessions
    rates: Rates
    place: Place = Place()


def site_of(scope: Scope) -> Site:
    """Return the site that this request came to."""
    site: Site = scope["state"]["site"]
    return site


def engine_of(request: Http) -> Engine:
    """Return the engine behind this request."""
    return site_of(request.scope).engine


def principal_of(request: Http) -> Principal:
    """Return who asks; the gate has made sure that somebody does."""
    principal: Principal = request.scope["state"]["principal"]
    return principal


def caller_run(request: Http) -> str | None:
    """Return the run whose job asks; None for people."""
    principal = principal_of(request)
    return principal.run_id if principal.role is Role.JOB else None


def audited(request: Http, what: str, *, if_done: bool = False) -> AppendAudit:
    """Return the row of the audit that tells of this request; commit it with what is done to `what`."""
    return _audited(request.scope, what, if_done)


def trail(request: Http, what: str, *, if_done: bool = False) -> tuple[AppendAudit, ...]:
    """Return what the audit gets with a change of `what`: nothing for a job, whose runs tell of it themselves.

    With `if_done`: nothing either when the operation before it is refused or a resend.
    """
    return trail_of(request.scope, what, if_done=if_done)


def trail_of(scope: Scope, what: str, *, if_done: bool = False) -> tuple[AppendAudit, ...]:
    """The same for a request that the framework does not know."""
    return () if scope["state"]["principal"].role is Role.JOB else (_audited(scope, what, if_done),)


def _audited(scope: Scope, what: str, if_done: bool) -> AppendAudit:
    state = scope["state"]
    who: Principal = state["principal"]
    now_ms = site_of(scope).engine.clock().wall_ms
    return AppendAudit(now_ms, who.actor, who.role, state["route"], what, who.address, if_done)


def idempotency_key(scope: Scope) -> str | None:
    """Return the request's Idempotency-Key; None without one. Raises Invalid for more than one, or a bad one."""
    values = [value for name, value in scope["headers"] if name == b"idempotency-key"]
    if not values:
        return None
    text: str = values[0].decode("latin-1")
    if len(values) > 1 or not 1 <= len(text) <= KEY_CHARS_MAX or not (text.isascii() and text.isprintable()):
        raise Invalid(
            f"Idempotency-Key {shown(text)} is no key: send one of 1 to {KEY_CHARS_MAX} printable ASCII characters"
        )
    return text


async def json_body(request: Http, decoder: msgspec.json.Decoder[Any], empty: Any = None) -> Any:
    """Return the body decoded; `empty` (when given) stands for a request without one. Raises Invalid, 413 or 415."""
    limits = engine_of(request).limits
    body = await read_body(request.scope, request.receive, limits, request.route_handler.name or "")
    if not body and empty is not None:
        return empty
    require_type(request.scope, "application/json")
    return decode(decoder, body, limits)


def page_rows(limit: int, limits: Limits) -> int:
    """Return `limit` if a page may have that many rows. Raises Invalid."""
    if not 1 <= limit <= limits.page_rows_max:
        hint = change("page_rows_max") if limit > 0 else ""
        raise Invalid(f"limit is {limit}: give 1 to {limits.page_rows_max}", hint=hint)
    return limit


def wait_s(timeout_s: float, limits: Limits) -> float:
    """Return how long to wait, in seconds: never longer than a server-side wait lasts. Raises Invalid."""
    if math.isnan(timeout_s) or timeout_s < 0:
        raise Invalid(f"timeout_s is {timeout_s}: give 0 or more; more than {limits.wait_s_max:g} waits that long")
    return min(timeout_s, limits.wait_s_max)


def deadline(timeout_s: float) -> Callable[[], float]:
    """Return a function that says how many seconds are left of `timeout_s` from now on, 0 at least."""
    end_s = time.monotonic() + timeout_s
    return lambda: max(0.0, end_s - time.monotonic())


def run_states(words: str) -> frozenset[RunState]:
    """Return the states a filter names, separated by commas. Raises Invalid for any other word."""
    named = {word for word in words.upper().split(",") if word}
    unknown = named - (RunState.__members__.keys() - {RunState.STAGED})
    if unknown:
        allowed = ", ".join(word for word in RunState if word != RunState.STAGED)
        raise Invalid(f"{min(unknown)[:40]!a} is no state of a run: use {allowed}")
    return frozenset(RunState[word] for word in named)


def job_states(words: str) -> frozenset[JobState]:
    """The same for jobs; PENDING stands for all that have not started."""
    named = {word for word in words.upper().split(",") if word}
    unknown = named - JobState.__members__.keys() - {"PENDING"}
    if unknown:
        raise Invalid(f"{min(unknown)[:40]!a} is no state of a job: use {', '.join(JobState)}, PENDING")
    pending = PENDING if "PENDING" in named else frozenset()
    return pending | {JobState[word] for word in named - {"PENDING"}}
