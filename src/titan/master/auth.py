"""The gate in front of every route: who asks, and may they. Denied is the default, before any body is read.

`Gate` is the outermost ASGI application. It refuses unknown host names (a page in a browser may reach
loopback under a name of its own), knows the caller by the token, and adds the security headers. Only
`healthz` is public. Routes asked thousands of times a second are served from here, without the framework;
all others pass `RoleCheck` once the router has named them.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec

from titan.master.asgi import Application, Message, Receive, Scope, Send
from titan.master.problems import HttpError, request_id_of, send_problem, translate
from titan.master.roles import PUBLIC_PATH, allows
from titan.model.roles import Role
from titan.model.wire import CLOSE_DENIED
from titan_sdk.errors import Denied, TitanError, Unauthenticated

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"})
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"x-frame-options", b"DENY"),
]
SCHEME = b"Bearer "
TOKEN_BYTES_MAX = 1024
JOB_TOKEN_PREFIX = b"tj."
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
    def actor(self) -> str:
        """Who this is in the audit: a token's id, "admin", or "job RUN/JOB FENCE"."""
        if self.role is Role.JOB:
            return f"job {self.run_id}/{self.job_id} {self.fence}"
        return self.token_id or str(self.role)


class KnowsJobs(Protocol):
    """Whoever can tell a job's token: its principal while that attempt lives, else None."""

    def __call__(self, token: str) -> Principal | None:
        """Return whom the token was made for."""


ADMIN = Principal(Role.ADMIN)
FastRoute = tuple[str, Application]


class Keys:
    """Turns a token into a principal. Only the hash of the admin token is kept."""

    def __init__(self, admin_token: str, job_principal: KnowsJobs) -> None:
        self._admin = hashlib.sha256(admin_token.encode()).digest()
        self._job_principal = job_principal

    def principal(self, token: bytes) -> Principal | None:
        """Return whom `token` belongs to; None when it is nobody's."""
        if not token or len(token) > TOKEN_BYTES_MAX:
            return None
        if token.startswith(JOB_TOKEN_PREFIX):
            return self._job_principal(token.decode("ascii", "replace"))
        return ADMIN if hmac.compare_digest(hashlib.sha256(token).digest(), self._admin) else None


class Hosts:
    """The names this Master answers to: localhost, any address literal, and those it was given."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = {"localhost", *(name.lower() for name in names)}
        self._known: set[bytes] = set()

    def knows(self, host: bytes) -> bool:
        """Say whether a Host header is one of ours, whatever its port."""
        if host in self._known:
            return True
        if not self._judge(host):
            return False
        if len(self._known) < 1000:
            self._known.add(host)
        return True

    def _judge(self, host: bytes) -> bool:
        text = host.decode("latin-1").lower()
        name, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
        if not colon:
            name = text
        elif not (port.isascii() and port.isdigit()):
            return False
        if name in self._names:
            return True
        try:
            if name.startswith("["):
                return name.endswith("]") and bool(ipaddress.IPv6Address(name[1:-1]))
            return bool(ipaddress.IPv4Address(name))
        except ValueError:
            return False


class Gate:
    """The outermost application. `fast`: path -> (route name, plain ASGI application), each for POST alone.

    `site` is what handlers find in the scope's state.
    """

    def __init__(self, app: Application, keys: Keys, hosts: Hosts, fast: Mapping[str, FastRoute], site: object) -> None:
        self.app = app
        self.site = site
        self.keys = keys
        self.hosts = hosts
        self.fast = fast

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection: a request or a WebSocket; the server is run without a lifespan."""
        kind = scope["type"]
        scope["state"] = {}

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *SECURITY_HEADERS]
            await send(message)

        try:
            principal = self._judge(scope)
        except TitanError as refusal:
            await _refuse(scope, guarded, refusal)
            return
        scope["state"] = {"principal": principal, "site": self.site}
        route = self.fast.get(scope["path"]) if kind == "http" else None
        if route is None:
            await self.app(scope, receive, guarded)
        else:
            await _serve_fast(route, principal, scope, receive, guarded)

    def _judge(self, scope: Scope) -> Principal | None:
        host, authorization = b"", b""
        hosts = tokens = 0
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization, tokens = value, tokens + 1
            elif name == b"host":
                host, hosts = value, hosts + 1
        if hosts != 1 or not self.hosts.knows(host):
            raise HttpError(421, "this Master does not answer to that host name", code="denied", hint=_HOST_HINT)
        if scope["type"] == "http" and scope["path"] == PUBLIC_PATH and scope["method"] == "GET":
            return None
        if tokens != 1 or not authorization.startswith(SCHEME):
            raise Unauthenticated(_NO_TOKEN, hint=_TOKEN_HINT)
        principal = self.keys.principal(authorization[len(SCHEME) :])
        if principal is None:
            raise Unauthenticated(_BAD_TOKEN, hint=_TOKEN_HINT)
        if scope["type"] == "http" and scope["method"] not in METHODS:
            raise HttpError(405, f"the method {str(scope['method'])[:20]!a} is not used here")
        return principal


_HOST_HINT = "use localhost, an address, or the name given to titan up --listen"


class RoleCheck:
    """Stands between router and handler: lets through who may use the route that was found."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through or refuse it."""
        principal = scope["state"]["principal"]
        name = scope["route_handler"].name or ""
        if (principal is None and scope["path"] == PUBLIC_PATH) or (principal and allows(principal.role, name)):
            await self.app(scope, receive, send)
            return
        await _refuse(scope, send, denied(principal, name))


def denied(principal: Principal | None, route: str) -> TitanError:
    """Return the refusal for a principal without the right to `route`."""
    if principal is None:
        return Unauthenticated(_NO_TOKEN, hint=_TOKEN_HINT)
    who = "a job's token" if principal.role is Role.JOB else f"a token of role {principal.role}"
    return Denied(
        f"{who} may not use {route or 'this route'}",
        hint="docs/reference/http-api.md says which role may",
    )


async def _serve_fast(
    route: FastRoute, principal: Principal | None, scope: Scope, receive: Receive, send: Send
) -> None:
    name, app = route
    started = False

    async def watched(message: Message) -> None:
        nonlocal started
        started = True
        await send(message)

    try:
        if principal is None or not allows(principal.role, name):
            raise denied(principal, name)
        if scope["method"] != "POST":
            raise HttpError(405, "this route has only POST")
        await app(scope, receive, watched)
    except Exception as error:  # noqa: BLE001
        if not started:
            await send_problem(send, translate(error, request_id_of(scope)))


async def _refuse(scope: Scope, send: Send, error: TitanError) -> None:
    """Answer before a body is read; a body still on its way ends with the connection."""
    error.request_id = request_id_of(scope)
    if scope["type"] == "websocket":
        await send(
            {"type": "websocket.close", "code": CLOSE_DENIED, "reason": error.code}
        )  # an HTTP 403 before it opens
        return
    await send_problem(send, error, {"connection": "close"} if _has_body(scope) else None)


def _has_body(scope: Scope) -> bool:
    names = {name: value for name, value in scope["headers"] if name in (b"content-length", b"transfer-encoding")}
    return b"transfer-encoding" in names or names.get(b"content-length", b"0") != b"0"
