"""The gate in front of every route: who asks, and may they. Denied is the default, before any body is read.

`Gate` is the outermost ASGI application. It refuses foreign host names and pages (`titan.master.origins`) and knows
the caller by the token. Only `healthz` is public. Routes asked thousands of times a second are served from here,
without the framework; all others pass `RoleCheck` once the router has named them.

Who keeps coming without a good token is told to wait. That is judged after the token: a caller with a good one is
never counted, whatever others do from the same address.
"""

import hashlib
import hmac
import logging
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from titan.master import tokens
from titan.master.asgi import SECURITY_HEADERS, Application, Message, Receive, Scope, Send
from titan.master.book import Book
from titan.master.buckets import Buckets
from titan.master.origins import Origins
from titan.master.problems import HttpError, request_id_of, send_problem, translate
from titan.master.rates import street
from titan.master.roles import ENROLMENTS, PUBLIC_PATH, allows
from titan.master.sessions import Session, Sessions
from titan.model.limits import Limits
from titan.model.roles import STORED_ROLES, Role
from titan.model.tokens import PREFIX as STORED_PREFIX
from titan_sdk.errors import Denied, TitanError, Unauthenticated

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"})
# What a page of any site may send without asking first; nothing of ours is sent that way.
FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
SCHEME = b"Bearer "
TOKEN_BYTES_MAX = 1024
SAY_EVERY_S = 60.0
LOG = logging.getLogger("titan.master")
REFILL_S = 20  # an empty bucket of refusals is full again after as long
_JOB_PREFIX = tokens.PREFIX.encode()
_STORED_PREFIX = STORED_PREFIX.encode()
_NO_TOKEN = "a token is needed: send it as 'Authorization: Bearer TOKEN'"  # noqa: S105
_BAD_TOKEN = "this Master does not know the token, or its attempt is over"  # noqa: S105
_TOKEN_HINT = "titan up keeps its token in the file 'token' of its home; TITAN_TOKEN overrides it"  # noqa: S105


class Principal(msgspec.Struct, frozen=True, gc=False):
    """Who asks, and from which address. A job's token names the attempt it was made for.

    `token_id` and `name` are those of a stored token, "" for the home's own; `worker` is the one worker it speaks
    for, "" for any.
    """

    role: Role
    run_id: str = ""
    job_id: str = ""
    attempt: int = 0
    fence: int = 0
    token_id: str = ""
    name: str = ""
    worker: str = ""
    address: str = ""

    @property
    def is_enrolment(self) -> bool:
        """Whether this is a machine that has yet to be given a credential."""
        return self.role is Role.WORKER and not self.worker

    def may(self, route: str) -> bool:
        """Say whether this one may use the route of that name."""
        return allows(self.role, route) and (not self.is_enrolment or route in ENROLMENTS)

    @property
    def caller(self) -> str | int:
        """Whose requests are counted together."""
        return self.token_id or self.fence

    @property
    def actor(self) -> str:
        """Who this is in the audit: a token's id, "admin", or "job RUN/JOB FENCE"."""
        if self.role is Role.JOB:
            return f"job {self.run_id}/{self.job_id} {self.fence}"
        return self.token_id or str(self.role)


class KnowsAttempts(Protocol):
    """What the gate asks of the engine."""

    @property
    def token_key(self) -> bytes:
        """The key that signs job tokens."""

    def holds(self, fence: int) -> bool:
        """Say whether the attempt with this fence lives."""


class FastRoute(msgspec.Struct, frozen=True):
    """A route that is served without the framework: its name, and a plain ASGI application for one method."""

    name: str
    app: Application
    method: str = "POST"


class Keys:
    """Turns a token into a principal. Only the hash of the home's own token is kept."""

    def __init__(self, home_token: str, stored: Book, attempts: KnowsAttempts) -> None:
        self._home = hashlib.sha256(home_token.encode()).digest()
        self._stored = stored
        self._attempts = attempts

    def principal(self, token: bytes, address: str) -> tuple[Principal, float | None] | None:
        """Return whom `token` belongs to, with the seconds until it expires; None when it is nobody's."""
        if not token or len(token) > TOKEN_BYTES_MAX:
            return None
        if token.startswith(_JOB_PREFIX):
            return self._job(token, address)
        if token.startswith(_STORED_PREFIX):
            row = self._stored.find(token)
            if row is None:
                return None
            known = Principal(row.role, token_id=row.token_id, name=row.name, worker=row.worker, address=address)
            return known, self._stored.left_s(row)
        if hmac.compare_digest(hashlib.sha256(token).digest(), self._home):
            return Principal(Role.ADMIN, address=address), None
        return None

    def _job(self, token: bytes, address: str) -> tuple[Principal, None] | None:
        who = tokens.check(self._attempts.token_key, token.decode("ascii", "replace"))
        if who is None or not self._attempts.holds(who.fence):
            return None
        return Principal(Role.JOB, who.run_id, who.job_id, who.attempt, who.fence, address=address), None


class Knocks:
    """Counts who comes without a good token, by address and in all.

    That somebody had to be told to wait is said in the log, once a minute at most: nobody with good intentions is.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turned_away = 0
        self._say_at_s = 0.0
        self._all = Buckets(limits.refusals_max, limits.refusals_max / REFILL_S)
        self._by_address = Buckets(limits.address_refusals_max, limits.address_refusals_max / REFILL_S)

    def refusal(self, message: str, address: str) -> TitanError:
        """Return what to refuse a caller with: 401, or 429 when that was said too often."""
        wait_s = self._by_address.take(street(address)) or self._all.take("")
        if not wait_s:
            return Unauthenticated(message, hint=_TOKEN_HINT)
        self._turn_away(address)
        text = "too many requests without a good token came in a short time"
        return HttpError(429, text, code="unauthenticated", hint=_TOKEN_HINT, retry_after_s=wait_s)

    def _turn_away(self, address: str) -> None:
        self._turned_away += 1
        now_s = self._clock()
        if now_s >= self._say_at_s:
            LOG.warning("too many requests without a good token: %d refused, last from %s", self._turned_away, address)
            self._turned_away, self._say_at_s = 0, now_s + SAY_EVERY_S


class Gate:
    """The outermost application. `fast` says which route serves a request without the framework, if one does.

    `site` is what handlers find in the scope's state, and `wire`, the connection below all that is wrapped around it:
    for what is said so often that the wrapping counts, and ends nothing.
    """

    def __init__(
        self,
        app: Application,
        keys: Keys,
        origins: Origins,
        sessions: Sessions,
        fast: Callable[[Scope], FastRoute | None],
        site: object,
        limits: Limits,
    ) -> None:
        self.app = app
        self.site = site
        self.keys = keys
        self.origins = origins
        self.sessions = sessions
        self.fast = fast
        self.knocks = Knocks(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection: a request or a WebSocket; the server is run without a lifespan."""
        scope["state"] = {}
        wire = receive, send
        if scope["type"] == "websocket":
            send = _Upgrade(send)
        try:
            principal, left_s = self._judge(scope)
        except TitanError as refusal:
            await _refuse(scope, send, refusal)
            return
        scope["state"] = {"principal": principal, "site": self.site, "wire": wire}
        if principal is None or not (principal.token_id or principal.fence):
            await self._serve(scope, receive, send)
            return
        session = Session(principal.token_id or (principal.run_id, principal.job_id), principal.fence)
        await self.sessions.serve(self._serve, scope, receive, send, session, left_s)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self.fast(scope) if scope["type"] == "http" else None
        if route is None:
            await self.app(scope, receive, send)
        else:
            await _serve_fast(route, scope["state"]["principal"], scope, receive, send)

    def _judge(self, scope: Scope) -> tuple[Principal | None, float | None]:
        authorization = self.origins.judge(scope["headers"])
        if scope["type"] == "http" and scope["path"] == PUBLIC_PATH and scope["method"] == "GET":
            return None, None
        address = scope["client"][0] if scope["client"] else ""
        if not authorization.startswith(SCHEME):
            raise self.knocks.refusal(_NO_TOKEN, address)
        known = self.keys.principal(authorization[len(SCHEME) :], address)
        if known is None:
            raise self.knocks.refusal(_BAD_TOKEN, address)
        if scope["type"] == "http" and scope["method"] not in METHODS:
            raise HttpError(405, f"the method {str(scope['method'])[:20]!a} is not used here: use GET, POST or PUT")
        return known


class RoleCheck:
    """Stands between router and handler: lets through who may use the route that was found."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through or refuse it."""
        principal = scope["state"]["principal"]
        name = scope["route_handler"].name or ""
        if (principal is None and scope["path"] == PUBLIC_PATH) or (principal and principal.may(name)):
            if scope["type"] == "http" and scope["method"] == "POST" and _is_form(scope):
                hint = "send Content-Type: application/json, or no body"
                await _refuse(scope, send, HttpError(415, "no route takes a form or plain text", hint=hint))
                return
            try:
                _count(scope, principal, name)
            except TitanError as refusal:
                await _refuse(scope, send, refusal)
                return
            await self.app(scope, receive, send)
            return
        await _refuse(scope, send, denied(principal, name))


def _count(scope: Scope, principal: Principal | None, route: str) -> None:
    scope["state"]["route"] = route
    if principal is not None:
        scope["state"]["site"].rates.judge(principal.caller, principal.address, route)


def denied(principal: Principal | None, route: str) -> TitanError:
    """Return the refusal for a principal without the right to `route`."""
    if principal is None:
        return Unauthenticated(_NO_TOKEN, hint=_TOKEN_HINT)
    if principal.is_enrolment:
        hint = "titan worker --join makes a worker's own token of it"
        return Denied(f"an enrolment may not use {route or 'this route'}", hint=hint)
    who = "a job's token" if principal.role is Role.JOB else f"a token of role {principal.role}"
    roles = [role for role in Role if role in STORED_ROLES and allows(role, route)]
    hint = f"roles that may: {', '.join(roles)}; an admin makes such a token: titan token create NAME --role ROLE"
    return Denied(
        f"{who} may not use {route or 'this route'}",
        hint=hint if roles else "docs/reference/roles.md says which role may",
    )


async def _serve_fast(
    route: FastRoute, principal: Principal | None, scope: Scope, receive: Receive, send: Send
) -> None:
    started = False

    async def watched(message: Message) -> None:
        nonlocal started
        started = True
        await send(message)

    try:
        if principal is None or not principal.may(route.name):
            raise denied(principal, route.name)
        if scope["method"] != route.method:
            raise HttpError(405, f"this route does not have the method {scope['method']}: use {route.method}")
        _count(scope, principal, route.name)
    except TitanError as refusal:
        await _refuse(scope, send, refusal)
        return
    try:
        await route.app(scope, receive, watched)
    except Exception as error:  # noqa: BLE001
        if not started:
            await send_problem(send, translate(error, request_id_of(scope)))


class _Upgrade:
    """The way out of a WebSocket. One that is refused before it opens is answered as any request is."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._opened = False

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self._opened = True
        elif kind == "websocket.close" and not self._opened:
            await send_problem(self, Denied("no WebSocket opens here", hint="workers open one at /api/v1/worker"))
            return
        elif kind == "http.response.start":
            message = {**message, "headers": [*message["headers"], *SECURITY_HEADERS]}
        await self._send({**message, "type": f"websocket.{kind}"} if kind.startswith("http.") else message)


async def _refuse(scope: Scope, send: Send, error: TitanError) -> None:
    """Answer before a body is read; a body still on its way ends with the connection."""
    error.request_id = request_id_of(scope)
    close = (error.status, error.code) == (429, Unauthenticated.code) or _has_body(scope)
    await send_problem(send, error, {"connection": "close"} if close else None)


def _has_body(scope: Scope) -> bool:
    names = {name: value for name, value in scope["headers"] if name in (b"content-length", b"transfer-encoding")}
    return b"transfer-encoding" in names or names.get(b"content-length", b"0") != b"0"


def _is_form(scope: Scope) -> bool:
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    return any(text.decode("latin-1").partition(";")[0].strip().lower() in FORM_TYPES for text in types)
