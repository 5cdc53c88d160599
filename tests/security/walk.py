"""Every route there is, drawn from the routes themselves, and requests made by hand to walk them."""

import http.client
import socket
from collections.abc import Iterator
from typing import Any

import msgspec

from tests.api import master as api
from tests.api.master import TOKEN, Answer, Master, Worker
from tests.api.test_gate import served
from tests.api.test_runs import waiting
from titan.model.roles import STORED_ROLES, Role
from titan.storage.tables import METADATA

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "GETT")
# Known methods that no route has; the rest of METHODS is refused whatever the route.
STRANGE = {"OPTIONS", "TRACE", "CONNECT", "PROPFIND", "GETT"}
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
LINK = "/api/v1/worker"
SHA = "0" * 64
FORMS = (
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "Text/Plain;charset=utf-8",
)


class Ids(msgspec.Struct, frozen=True):
    """What stands for the names in braces."""

    run: str = "f" * 32
    job: str = "made-up"
    name: str = "made-up"
    sha256: str = SHA
    token_id: str = "f" * 12

    def fill(self, path: str) -> str:
        for field in self.__struct_fields__:
            path = path.replace(f"{{{field}}}", getattr(self, field))
        return path


def routes(master: Master, ids: Ids | None = None) -> list[tuple[str, str, str]]:
    """Return (method, path, name) of all routes over HTTP, sorted."""
    return sorted((method, (ids or Ids()).fill(path), name) for method, path, name in served(master))


def paths(master: Master, ids: Ids | None = None) -> list[str]:
    """Return every path there is, that of the WebSocket too, and some that are not."""
    known = {path for _, path, _ in routes(master, ids)}
    return sorted(known | {LINK, "/", "/api/v1", "/api/v1/nothing", "/api/v1//healthz", "/api/v1/healthz/", "/metrics"})


def send(master: Master, *lines: str, body: bytes = b"") -> Answer:
    """Send a request head line by line, as it is, and return what comes back."""
    request = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body
    with socket.create_connection(("127.0.0.1", master.port), timeout=api.WAIT_S) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection, method=lines[0].partition(" ")[0])
        answer.begin()
        headers: dict[str, str] = {}
        for name, value in answer.getheaders():
            headers[name.lower()] = f"{headers[name.lower()]} AND {value}" if name.lower() in headers else value
        endless = headers.get("content-type", "").startswith("text/event-stream") or answer.status == 101
        return Answer(answer.status, headers, b"" if endless else answer.read())


def ask(master: Master, method: str, path: str, token: str | None = TOKEN, *more: str, body: bytes = b"") -> Answer:
    """Send a request with a good Host; `more` are further header lines."""
    head = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if token is not None:
        head.append(f"Authorization: Bearer {token}")
    if body:
        head.append(f"Content-Length: {len(body)}")
    return send(master, *head, *more, body=body)


def upgrade(master: Master, path: str, token: str | None, *more: str) -> int:
    """Ask for a WebSocket and return the status: 101 when it opens."""
    return ask(master, "GET", path, token, *UPGRADE, *more).status


def token_of(master: Master, role: Role, **more: Any) -> str:
    """Return a fresh stored token of a role; a worker's speaks for box-1."""
    worker = {"worker": "box-1"} if role is Role.WORKER else {}
    answer = master.post("/tokens", {"name": "a walk", "role": role, **worker, **more})
    assert answer.status == 201, answer.body
    return str(answer.json["token"])


def a_token_of_each_role(master: Master, worker: Worker) -> dict[Role, str]:
    """Return a token of each role; the job's lives as long as nobody ends what `worker` starts."""
    found = {role: token_of(master, role) for role in STORED_ROLES}
    master.submit(worker.job("walks"))
    return {**found, Role.JOB: worker.start().token}


def real_ids(master: Master) -> Ids:
    """Return ids that are there, for each route that takes one."""
    run = master.submit(waiting("a"))["id"]
    digest = master.put("/registry/walked.py", b"print()").json["sha256"]
    token_id = token_of(master, Role.VIEWER).split(".")[1]
    return Ids(run, "a", "walked.py", digest, token_id)


def rows(master: Master) -> dict[str, list[Any]]:
    """Return all rows there are, but for what moves by itself."""
    names = METADATA.tables.keys() - {"leader"}
    return master.on_loop(
        lambda: master.engine.look(
            lambda connection: {name: sorted(connection.run(f"SELECT * FROM {name}"), key=repr) for name in names}
        )
    )


def told(master: Master, token: str | None, method: str, ids: Ids) -> Iterator[tuple[str, int, Any]]:
    """Yield (route, status, answer without its request id) of each route that takes an id and refuses the token."""
    for route, path, name in sorted(served(master)):
        if route == method and "{" in path and name != "blobs.get":
            answer = ask(master, method, ids.fill(path), token)
            problem = answer.headers["content-type"] == "application/problem+json"
            yield name, answer.status, {**answer.json, "request_id": ""} if problem else answer.body
