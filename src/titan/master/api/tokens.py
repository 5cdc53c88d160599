"""Tokens of people, programs and workers: made, listed, revoked. A token is shown once, in the answer that makes it."""

import math

import msgspec
from litestar import get, post
from litestar.params import FromPath, FromQuery

from titan.master.api.site import Http, audited, engine_of, json_body, page_rows, site_of
from titan.model.ids import job_id_problem, name_problem, shown
from titan.model.requests import TokenBody
from titan.model.roles import STORED_ROLES, Role
from titan.model.store import KeepToken, RevokeToken
from titan.model.tokens import TokenRow, make
from titan.model.views import TokenList, TokenMade, TokenState, TokenView, iso_time
from titan.storage import tokens
from titan_sdk.errors import Invalid, NotFound

NAME_CHARS_MAX = 100
EXPIRES_S_MAX = 10 * 366 * 86_400.0
_BODY = msgspec.json.Decoder(TokenBody)


@post("/tokens", name="tokens.create", opt={"body": TokenBody})
async def create(request: Http) -> TokenMade:
    """Make a token. The answer shows it, and nothing ever shows it again: the Master keeps its SHA-256."""
    engine = engine_of(request)
    body: TokenBody = await json_body(request, _BODY)
    role = _role(body)
    now_ms = engine.clock().wall_ms
    engine.book.require_room(engine.limits.tokens_max)
    made = make()
    expires_ms = None if body.expires_s is None else now_ms + max(1, int(body.expires_s * 1000))
    entry = audited(request, f"{made.token_id} {role} {body.worker}".rstrip())
    row = TokenRow(made.token_id, body.name, role, body.worker, made.hash, now_ms, entry.actor, expires_ms)
    await engine.mutate(KeepToken(row), entry)
    return TokenMade(made.text, _view(row, now_ms))


@get("/tokens", name="tokens.list")
async def list_tokens(request: Http, limit: FromQuery[int] = 100, after: FromQuery[str] = "") -> TokenList:
    """List tokens by their ids, also those that ended in the last 30 days. None of it lets anybody in."""
    engine = engine_of(request)
    rows = page_rows(limit, engine.limits)
    page = await engine.read(lambda connection: tokens.page(connection, after, rows))
    now_ms = engine.clock().wall_ms
    return TokenList([_view(row, now_ms) for row in page.rows], page.next)


@post("/tokens/{token_id:str}/revoke", name="tokens.revoke", status_code=200)
async def revoke(request: Http, token_id: FromPath[str]) -> TokenView:
    """Let a token count no more; what it holds open is cut at once. One that is revoked already stays as it is."""
    engine = engine_of(request)
    # Whoever revokes the token this came with is still answered.
    session = request.scope["state"].get("session")
    if session is not None:
        site_of(request.scope).sessions.leave(session)
    before = await engine.read(lambda connection: tokens.one(connection, token_id))
    if before is None:
        raise NotFound(f"there is no token {shown(token_id)}", hint="titan token ls lists their ids")
    if before.revoked_ms is None:
        await engine.mutate(RevokeToken(token_id, engine.clock().wall_ms), audited(request, token_id))
    found = await engine.read(lambda connection: tokens.one(connection, token_id))
    return _view(found or before, engine.clock().wall_ms)


def _role(body: TokenBody) -> Role:
    problem = name_problem(body.name, NAME_CHARS_MAX, "name of the token")
    if problem:
        raise Invalid(problem)
    if body.role not in STORED_ROLES:
        roles = ", ".join(role for role in Role if role in STORED_ROLES)
        raise Invalid(f"{shown(body.role)} is no role of a token: use {roles}")
    if body.worker and (problem := job_id_problem(body.worker, "worker name")):
        raise Invalid(problem)
    if (body.role == Role.WORKER) != bool(body.worker):
        raise Invalid(
            f"role {body.role!r} with worker {shown(body.worker)}: name a worker with role worker, and with no other"
        )
    if body.expires_s is not None and not 0 < body.expires_s <= EXPIRES_S_MAX:
        given = "not a number" if math.isnan(body.expires_s) else f"{body.expires_s:g}"
        raise Invalid(f"expires_s is {given}: give more than 0 and at most {EXPIRES_S_MAX:.0f}, or null for never")
    return Role(body.role)


def _view(row: TokenRow, now_ms: int) -> TokenView:
    state: TokenState = "revoked" if row.revoked_ms is not None else "expired" if row.ended(now_ms) else "living"
    return TokenView(
        id=row.token_id,
        name=row.name,
        role=row.role,
        worker=row.worker,
        state=state,
        created_at=iso_time(row.created_ms),
        created_by=row.created_by,
        expires_at=iso_time(row.expires_ms),
        revoked_at=iso_time(row.revoked_ms),
    )


HANDLERS = [create, list_tokens, revoke]
