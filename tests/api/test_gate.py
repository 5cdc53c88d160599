"""The gate: nobody passes without a token, and nobody does more than their role."""

import socket

import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute, WebSocketRoute
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.api.master import TOKEN, Master, Worker
from titan.master.api.store import FAST
from titan.master.auth import Principal
from titan.master.roles import ALLOWED, PUBLIC_PATH, allows
from titan.model.roles import Role

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND")


def served(master: Master) -> set[tuple[str, str, str]]:
    """Return (method, path, name) of every route over HTTP."""
    app = master.gate.app
    assert isinstance(app, Litestar)
    found = {(route.method, path, route.name) for path, route in FAST.items()}
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                if handler.name:
                    found |= {(str(method), route.path_format, handler.name) for method in handler.http_methods}
    return found


def every_route(master: Master) -> set[tuple[str, str]]:
    """Return (name, path) of everything that is served."""
    app = master.gate.app
    assert isinstance(app, Litestar)
    found = {(name, path.replace("{", "").replace("}", "")) for _, path, name in served(master)}
    for route in app.routes:
        if isinstance(route, WebSocketRoute):
            found.add((str(route.route_handler.name), route.path))
    return found


def test_every_route_has_a_row_in_the_table_and_every_row_a_route(master: Master) -> None:
    assert {name for name, _ in every_route(master)} == set(ALLOWED)


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", "tj.a.b.1.1.00", "tj.", "tj.1", "tj.é"])
@pytest.mark.parametrize("method", METHODS)
def test_s3_without_a_good_token_every_route_and_method_is_refused(
    master: Master, method: str, token: str | None
) -> None:
    for path in {path for _, path in every_route(master)} | {"/", "/api/v1", "/api/v1/nothing", "/api/v1//healthz"}:
        if path == PUBLIC_PATH and method == "GET":
            continue
        status, headers = raw(master, method, path, token)
        assert status == 401, (method, path)
        assert headers["www-authenticate"] == "Bearer"


def raw(master: Master, method: str, path: str, token: str | None, *more: str) -> tuple[int, dict[str, str]]:
    """Send a request head as it is; return the status and headers of the answer."""
    head = [f"{method} {path} HTTP/1.1"]
    if not any(line.lower().startswith("host:") for line in more):
        head.append("Host: localhost")
    if token is not None:
        head.append(f"Authorization: Bearer {token}")
    request = "\r\n".join([*head, *more, "", ""]).encode("latin-1", "replace")
    with socket.create_connection(("127.0.0.1", master.port), timeout=30) as connection:
        connection.sendall(request)
        answer = connection.makefile("rb")
        status = int(answer.readline().split()[1])
        headers = {}
        while line := answer.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return status, headers


def test_health_is_the_one_public_route_and_tells_nothing(master: Master) -> None:
    answer = master.get("/healthz", token=None)
    assert (answer.status, answer.json) == (200, {"status": "ok"})
    assert raw(master, "GET", "/api/v1/healthz/", None)[0] == 401
    assert raw(master, "POST", "/api/v1/healthz", None)[0] == 401


def test_the_admin_token_passes_and_two_of_them_do_not(master: Master) -> None:
    assert raw(master, "GET", "/api/v1/runs", TOKEN)[0] == 200
    assert raw(master, "GET", "/api/v1/runs", TOKEN, f"Authorization: Bearer {TOKEN}")[0] == 401
    assert raw(master, "GET", "/api/v1/runs", None, f"Authorization: Basic {TOKEN}")[0] == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.com", "localhost.", "", "localhost:90x", "[::1", "1.2.3", "a:1:2", "::1"]
)
def test_s5_a_host_name_that_is_not_ours_is_refused(master: Master, host: str) -> None:
    assert raw(master, "GET", "/api/v1/runs", TOKEN, f"Host: {host}")[0] == 421
    assert raw(master, "GET", "/api/v1/healthz", None, f"Host: {host}")[0] == 421


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9090", "127.0.0.1", "10.0.0.7:1", "[::1]", "[::1]:9090", "titan.test"]
)
def test_our_names_and_addresses_are_known(master: Master, host: str) -> None:
    assert raw(master, "GET", "/api/v1/runs", TOKEN, f"Host: {host}")[0] == 200


def test_two_hosts_are_refused(master: Master) -> None:
    assert raw(master, "GET", "/api/v1/runs", TOKEN, "Host: localhost", "Host: localhost")[0] in (400, 421)


@pytest.mark.parametrize("path", ["/runs", "/healthz", "/nothing", "/openapi.json", "/store/get"])
def test_s12_every_answer_has_the_security_headers(master: Master, path: str) -> None:
    for token in (TOKEN, None):
        headers = master.get(path, token=token).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["x-frame-options"] == "DENY"


def test_s4_a_large_body_without_a_token_is_refused_after_the_headers(master: Master) -> None:
    status, headers = raw(master, "POST", "/api/v1/runs", None, "Content-Length: 50000000", "Expect: 100-continue")
    assert status == 401
    assert headers["connection"] == "close"


def test_a_method_that_a_route_lacks_says_which_it_has(master: Master) -> None:
    answer = master.request("DELETE", "/runs")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")
    assert answer.code == "invalid"
    assert master.get("/store/get").status == 405
    assert raw(master, "OPTIONS", "/api/v1/runs", TOKEN)[0] == 405


def test_an_unknown_route_says_where_all_of_them_are_listed(master: Master) -> None:
    answer = master.get("/nothing")
    assert (answer.status, answer.code) == (404, "not_found")
    assert "openapi.json" in answer.json["hint"]


def refusal(master: Master, path: str, token: str | None) -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(f"ws://127.0.0.1:{master.port}{path}", additional_headers=headers, compression=None),
    ):
        pass
    return refused.value.response.status_code


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_websocket_without_a_good_token_is_refused_before_it_opens(master: Master, token: str | None) -> None:
    for path in ("/api/v1/worker", PUBLIC_PATH, "/api/v1/runs", "/nothing"):
        assert refusal(master, path, token) == 401


def test_a_websocket_where_there_is_none_is_refused(master: Master) -> None:
    for path in ("/api/v1/runs", "/api/v1/store/get", "/nothing"):
        assert refusal(master, path, TOKEN) == 403


def test_the_table_says_what_a_job_may(master: Master) -> None:
    may = {name for name in ALLOWED if allows(Role.JOB, name)}
    assert set(ALLOWED) - may == {
        "artifacts.delete", "runs.retry", "registry.put", "workers.drain", "worker.link", "tokens.create",
        "tokens.list", "tokens.revoke", "workers.invite", "workers.enrol", "workers.remove", "audit.list",
        "audit.verify",
    }  # fmt: skip
    assert not allows(Role.JOB, "a route that nobody wrote down")
    assert not allows(Role.ADMIN, "")


@pytest.mark.parametrize("role", Role)
def test_s13_each_role_has_its_routes_and_no_other(master: Master, monkeypatch: pytest.MonkeyPatch, role: Role) -> None:
    monkeypatch.setattr(
        master.gate.keys, "principal", lambda *_: (Principal(role, worker="box-1" if role is Role.WORKER else ""), None)
    )
    methods = {name: method for method, _, name in served(master)}
    for name, path in every_route(master):
        if name == "worker.link":
            assert allows(role, name) or refusal(master, path, TOKEN) == 403
        else:
            status = raw(master, methods[name], path, TOKEN)[0]
            assert (status == 403) == (not allows(role, name)), (name, status)


def test_a_job_s_token_is_good_while_its_attempt_lives(master: Master) -> None:
    with Worker(master.port) as worker:
        run = master.submit(worker.job("speaks"))
        grant = worker.start()
        token = grant.token
        assert master.get(f"/runs/{run['id']}", token=token).status == 200
        assert master.get(f"/runs/{run['id']}", token=token[:-1] + ("0" if token[-1] != "0" else "1")).status == 401
        assert master.get(f"/runs/{run['id']}", token=token.replace("speaks", "speakz")).status == 401
        worker.end(grant)
        assert master.get(f"/runs/{run['id']}/wait").json["done"]
        assert master.get(f"/runs/{run['id']}", token=token).status == 401


def test_s14_a_job_acts_on_its_own_run_and_those_below(master: Master) -> None:
    with Worker(master.port) as worker:
        other = master.submit({"job_id": "stranger", "requirement": ["NOWHERE"]})
        own = master.submit(worker.job("parent"), {"job_id": "sibling", "requirement": ["NOWHERE"]})
        token = worker.start().token
        child = master.submit({"job_id": "child", "requirement": ["NOWHERE"]}, token=token)
        assert (child["parent_run_id"], child["parent_job_id"]) == (own["id"], "parent")
        assert child["root_run_id"] == child["agent_run_id"] == own["id"]

        more = {"jobs": [{"job_id": "more", "filename": "job.py", "requirement": ["NOWHERE"]}]}
        for path, body in (("cancel", None), ("jobs/stranger/cancel", None), ("extend", more)):
            refused = master.post(f"/runs/{other['id']}/{path}", body, token=token)
            assert (refused.status, refused.code) == (403, "denied"), path
        for run in (own, child):
            assert master.post(f"/runs/{run['id']}/extend", more, token=token).status == 201
        assert master.post(f"/runs/{own['id']}/jobs/sibling/cancel", token=token).status == 200
        assert master.post(f"/runs/{child['id']}/cancel", token=token).json["run"]["state"] == "CANCELLED"

        assert master.get(f"/runs/{other['id']}", token=token).status == 200
        for path in ("/runs", "/stats", "/workers", "/openapi.json", "/registry/job.py"):
            assert master.get(path, token=token).status == 200, path
        assert master.post("/store/put", {"key": "from-a-job", "value": "1"}, token=token).status == 200

        for method, path in (("POST", f"/runs/{child['id']}/retry"), ("PUT", "/registry/job.py")):
            refused = master.request(method, path, b"", token=token)
            assert (refused.status, refused.code) == (403, "denied"), path
        assert refusal(master, "/api/v1/worker", token) == 403
        assert master.post(f"/runs/{own['id']}/cancel", token=token).status == 200
