"""A walk of every route, every method and every role, drawn from the routes: S3, S7, S8, S9, S12 and S13."""

import ast
import re
import socket

import pytest

from tests.api.master import TOKEN, Master, Worker
from tests.security.walk import (
    FORMS,
    LINK,
    METHODS,
    STRANGE,
    UPGRADE,
    a_token_of_each_role,
    ask,
    paths,
    real_ids,
    routes,
    rows,
    token_of,
    upgrade,
)
from tests.unit.sources import SRC
from titan.master.api import store
from titan.master.roles import ALLOWED, PUBLIC_PATH
from titan.model.roles import Role

READS = {"store.get", "store.smembers", "store.list"}  # by POST, since a key does not fit into a path
AGENTS = ["", "curl/8.5.0", "Mozilla/5.0", "kube-probe/1.29", "Titan/0.1.0", "sqlmap/1.8", "Googlebot/2.1", "x" * 4000]
HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


@pytest.mark.parametrize("method", METHODS)
def test_s3_no_route_answers_without_a_token_but_the_public_one(master: Master, method: str) -> None:
    for path in paths(master):
        answer = ask(master, method, path, None)
        if (method, path) == ("GET", PUBLIC_PATH):
            assert (answer.status, answer.json) == (200, {"status": "ok"})
        elif method == "HEAD":
            assert answer.status == 401, path
        else:
            # uvicorn's parser knows no method GETT, and ends the connection with 400 before there is a request.
            assert answer.status in ((400,) if method == "GETT" else (401,)), (path, answer.status)
            assert b"run" not in answer.body


@pytest.mark.parametrize("token", [None, "", "wrong", f"{TOKEN}x", "tt.0123456789ab." + "x" * 43, "tj.a.b.1.1.00"])
def test_s3_no_websocket_opens_without_a_good_token(master: Master, token: str | None) -> None:
    for path in paths(master):
        assert upgrade(master, path, token) == 401, path


@pytest.mark.parametrize("role", Role)
def test_s13_each_role_may_use_its_routes_and_no_other_by_any_method(master: Master, role: Role) -> None:
    with Worker(master.port) as worker:
        token = a_token_of_each_role(master, worker)[role]
        known = {(method, path): name for method, path, name in routes(master)}
        for path in paths(master):
            for method in METHODS:
                if method == "GETT":
                    continue
                status = ask(master, method, path, token).status
                name = known.get((method, re.sub("//+", "/", path).rstrip("/")))  # one slash is as good as two
                if method in STRANGE:
                    assert status == 405, (method, path)
                elif name is None:
                    assert status in (403, 404, 405), (method, path)
                else:
                    assert (status == 403) == (role not in ALLOWED[name]), (method, path, status)
                    assert status != 401, (method, path)
            opened = upgrade(master, path, token)
            assert opened == (101 if path == LINK and role in ALLOWED["worker.link"] else 403), path


def test_s13_what_the_table_may_never_say() -> None:
    for name, roles in ALLOWED.items():
        assert Role.ADMIN in roles, name
        assert (Role.VIEWER in roles) == (Role.APPROVER in roles), name
        if name.startswith(("tokens.", "audit.")):
            assert roles == {Role.ADMIN}, name
        if name.startswith("workers.") and name != "workers.list":
            assert roles <= {Role.ADMIN, Role.OPERATOR, Role.WORKER}, name
    assert {name for name, roles in ALLOWED.items() if Role.WORKER in roles} - {"workers.enrol"} == {
        "health", "blobs.get", "worker.link",
    }  # fmt: skip


def test_s13_a_viewer_changes_nothing_by_whatever_it_may_use(master: Master) -> None:
    ids = real_ids(master)
    token = token_of(master, Role.VIEWER)
    master.store("put", key="seen", value="1")
    before = rows(master)
    for method, path, name in routes(master, ids):
        if Role.VIEWER in ALLOWED[name]:
            assert method == "GET" or name in READS, name
            body = (
                b'{"key": "seen", "prefix": ""}'[: 15 if name != "store.list" else 0] + b"}"
                if method == "POST"
                else b""
            )
            assert ask(master, method, f"{path}?timeout_s=0", token, body=body).status < 500
        elif method in ("POST", "PUT"):
            assert ask(master, method, path, token, "Content-Type: application/json", body=b"{}").status == 403
    assert rows(master) == before


def test_s7_nothing_changes_by_get_or_head(master: Master) -> None:
    ids = real_ids(master)
    known = {(method, path) for method, path, _ in routes(master, ids)}
    before = rows(master)
    for path in paths(master, ids):
        for method in ("GET", "HEAD"):
            answer = ask(master, method, f"{path}?timeout_s=0&id=@last&ids={ids.run}")
            if (method, re.sub("//+", "/", path).rstrip("/")) not in known:
                assert answer.status in (404, 405), (method, path, answer.status)
    assert rows(master) == before


@pytest.mark.parametrize("content_type", FORMS)
def test_s7_no_route_takes_what_any_page_may_send(master: Master, content_type: str) -> None:
    ids = real_ids(master)
    before = rows(master)
    for method, path, name in routes(master, ids):
        if method == "POST":
            for body in (b"", b"{}", b'{"key":"k","value":"v"}'):
                answer = ask(master, "POST", path, TOKEN, f"Content-Type: {content_type}", body=body)
                assert (answer.status, answer.code) == (415, "invalid"), (name, answer.status)
    assert rows(master) == before


@pytest.mark.parametrize("header", ["X-Nothing: 1", "Content-Type: application/jsonx", "Content-Type: text/json"])
def test_s7_a_route_that_reads_json_reads_nothing_else(master: Master, header: str) -> None:
    read_json = {path for path, _ in store.FAST.items()} | {"/api/v1/runs", "/api/v1/tokens"}
    for path in sorted(read_json):
        answer = ask(master, "POST", path, TOKEN, header, body=b"{}")
        assert (answer.status, answer.code) == (415, "invalid"), path


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent[:12])
def test_s8_every_program_needs_a_token_and_none_is_kept_out_with_one(master: Master, agent: str) -> None:
    line = f"User-Agent: {agent}"
    assert ask(master, "GET", "/api/v1/runs", None, line).status == 401
    assert ask(master, "POST", "/api/v1/runs", None, line, body=b"{}").status == 401
    assert ask(master, "GET", "/api/v1/runs", TOKEN, line).status == 200
    assert upgrade(master, LINK, None, line) == 401


def test_a_websocket_that_is_refused_leaves_no_line_in_the_log(
    master: Master, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever knocks could fill the disk with them."""
    for path in (LINK, "/nothing", "/api/v1/runs"):
        for token in (None, "wrong", token_of(master, Role.VIEWER)):
            assert upgrade(master, path, token) in (401, 403)
    assert caplog.records == []


def test_s8_nothing_looks_at_the_name_of_a_program() -> None:
    for file in (SRC / "titan" / "master").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
                text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
                assert "user-agent" not in text.lower(), file


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:3000", "null", "https://titan.test"])
def test_s9_no_page_of_another_origin_is_let_read(master: Master, origin: str) -> None:
    wanted = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization,content-type")
    for path in paths(master):
        for method, token in (("OPTIONS", None), ("OPTIONS", TOKEN), ("GET", None), ("GET", TOKEN)):
            answer = ask(master, method, path, token, f"Origin: {origin}", *wanted)
            assert not [name for name in answer.headers if name.startswith("access-control-")], (method, path)
            assert answer.status >= 400, (method, path)


def test_s9_our_own_page_needs_no_such_header_either(master: Master) -> None:
    answer = ask(master, "GET", "/api/v1/runs", TOKEN, "Origin: http://localhost")
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_s12_the_security_headers_are_on_every_answer(master: Master) -> None:
    ids = real_ids(master)
    asked = [(method, path) for path in paths(master, ids) for method in ("GET", "POST", "DELETE", "OPTIONS")]
    for method, path in asked:
        for token in (TOKEN, None):
            headers = ask(master, method, f"{path}?timeout_s=0", token, "Content-Type: text/plain").headers
            assert headers.items() >= HEADERS.items(), (method, path, headers)
    not_one = UPGRADE[:2]
    for more in (("Origin: null",), UPGRADE, not_one):
        assert ask(master, "GET", "/api/v1/runs", TOKEN, *more).headers.items() >= HEADERS.items()


@pytest.mark.parametrize("head", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"])
def test_s12_also_on_the_answer_to_what_is_no_http(master: Master, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", master.port), timeout=30) as connection:
        connection.sendall(head)
        answer = connection.makefile("rb").read().decode("latin-1").lower()
    assert answer.startswith("http/1.1 400")
    for name, value in HEADERS.items():
        assert f"{name}: {value.lower()}\r\n" in answer
