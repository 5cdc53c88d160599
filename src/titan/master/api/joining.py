"""Machines that join and leave: an enrolment is shown once and used once, and becomes the credential of one worker.

Both are stored tokens of role worker. An enrolment names no worker and lasts minutes; it is used up for a credential
that names one, lasts until it is revoked, and speaks for that name alone. The worker makes the credential and says its
hash, so that no answer that gets lost could leave a name to nobody. A name that somebody has is given to nobody
else, or a machine could take another's place.
"""

import math

import msgspec
from litestar import post
from litestar.params import FromPath

from titan.core.events import DrainWorker
from titan.core.scheduler import Scheduler
from titan.master.api.site import Http, audited, engine_of, json_body, principal_of, site_of
from titan.model.ids import SHA256_PATTERN, job_id_problem, shown
from titan.model.requests import EnrolBody, InviteBody
from titan.model.roles import Role
from titan.model.store import KeepToken, RevokeToken, UseEnrolment
from titan.model.tokens import FRESH_LINE, NAME_TAKEN, TokenRow, credential_id, make
from titan.model.views import Enrolled, Invitation, WorkerRemoved, iso_time
from titan_sdk.errors import Conflict, Invalid, NotFound, TitanError, Unauthenticated

EXPIRES_S_MAX = 7 * 86_400.0
_INVITE = msgspec.json.Decoder(InviteBody)
_ENROL = msgspec.json.Decoder(EnrolBody)


@post("/workers/join-tokens", name="workers.invite", opt={"body": InviteBody})
async def invite(request: Http) -> Invitation:
    """Make an enrolment, with which one worker may join once, and say where this Master is for other machines."""
    site = site_of(request.scope)
    engine = site.engine
    body: InviteBody = await json_body(request, _INVITE, InviteBody())
    if not 0 < body.expires_s <= EXPIRES_S_MAX:
        given = "not a number" if math.isnan(body.expires_s) else f"{body.expires_s:g}"
        raise Invalid(f"expires_s is {given}: give more than 0 and at most {EXPIRES_S_MAX:.0f}")
    engine.book.require_room(engine.limits.tokens_max)
    now_ms = engine.clock().wall_ms
    expires_ms = now_ms + max(1, int(body.expires_s * 1000))
    made = make()
    entry = audited(request, made.token_id)
    row = TokenRow(made.token_id, "enrolment", Role.WORKER, "", made.hash, now_ms, entry.actor, expires_ms)
    await engine.mutate(KeepToken(row), entry)
    return Invitation(made.text, iso_time(expires_ms), site.place.url, site.place.fingerprint)


@post("/workers/enrol", name="workers.enrol", opt={"body": EnrolBody})
async def enrol(request: Http) -> Enrolled:
    """Use an enrolment up: a credential that the worker `name` made for itself counts from now on.

    The Master gets and keeps its SHA-256 alone. A worker that does not hear the answer has its credential all the same.
    """
    engine, who = engine_of(request), principal_of(request)
    body: EnrolBody = await json_body(request, _ENROL)
    problem = job_id_problem(body.name, "worker name")
    if problem:
        raise Invalid(problem)
    if not SHA256_PATTERN.fullmatch(body.sha256):
        raise Invalid(f"{shown(body.sha256, 80)} is not the SHA-256 of a credential: give 64 hex digits in lower case")
    if not who.is_enrolment or not who.token_id:
        raise Conflict(f"this token is no enrolment: it is {who.worker or who.actor}'s own", hint=FRESH_LINE)
    engine.book.require_room(engine.limits.tokens_max)
    with engine.book.enrolling(body.name) as is_free:
        if not is_free or body.name in await engine.ask(lambda scheduler, _: _connected(scheduler)):
            raise _taken(body.name)
        # What ends with the enrolment is not the answer to its own use.
        site_of(request.scope).sessions.leave(request.scope["state"]["session"])
        now_ms = engine.clock().wall_ms
        token_id, digest = credential_id(who.token_id), bytes.fromhex(body.sha256)
        row = TokenRow(token_id, f"worker {body.name}", Role.WORKER, body.name, digest, now_ms, who.token_id)
        if not await engine.mutate(UseEnrolment(who.token_id, row, audited(request, body.name), now_ms)):
            raise Unauthenticated("the enrolment was used a moment ago", hint=FRESH_LINE)
    return Enrolled(body.name, token_id)


@post("/workers/{name:str}/remove", name="workers.remove", status_code=200)
async def remove(request: Http, name: FromPath[str]) -> WorkerRemoved:
    """Let a worker in no more: its credential is revoked, its link closed. After a lease its jobs go on elsewhere."""
    engine = engine_of(request)
    rows = engine.book.of_worker(name)
    known = await engine.ask(lambda scheduler, _: any(each["name"] == name for each in scheduler.worker_list()))
    if not rows and known:
        raise Conflict(
            f"worker {shown(name)} has no credential of its own: it was let in with the home's token",
            hint="titan worker drain NAME, then stop it where it runs",
        )
    if not rows:
        raise NotFound(f"there is no worker {shown(name)}", hint="titan worker ls lists them")
    if known:
        await engine.apply(DrainWorker(name))
    now_ms = engine.clock().wall_ms
    revoked = [RevokeToken(row.token_id, now_ms) for row in rows]
    await engine.mutate(*revoked, audited(request, name))
    return WorkerRemoved(name, [row.token_id for row in rows])


def _connected(scheduler: Scheduler) -> set[object]:
    return {worker["name"] for worker in scheduler.worker_list() if worker["connected"]}


def _taken(name: str) -> TitanError:
    return Conflict(
        f"a worker named {shown(name)} is here already, or was let in under that name",
        code=NAME_TAKEN,
        hint="choose another --name; or, if that machine is gone: titan worker remove NAME at the Master, "
        "then a fresh line: titan worker join-token",
    )


HANDLERS = [invite, enrol, remove]
