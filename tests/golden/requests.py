"""Bad requests: (method, path, body, part that the answer names). A body that is no bytes is sent as JSON."""

import base64
import hashlib
import http.client
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.golden.process import RealMaster
from tests.golden.table import Entry, entry
from titan_sdk.errors import from_problem

JSON = {"Content-Type": "application/json"}
SHA = hashlib.sha256(b"a").hexdigest()


class Request(NamedTuple):
    method: str
    path: str
    body: Any = None
    names: str = ""
    headers: dict[str, str] = {}
    token: str | None = ""  # "": the admin's


def post(path: str, body: Any, names: str, **headers: str) -> Request:
    return Request("POST", path, body, names, {name.replace("_", "-"): value for name, value in headers.items()})


def get(path: str, names: str) -> Request:
    return Request("GET", path, None, names)


def job(**fields: Any) -> dict[str, Any]:
    return {"job_id": "a", "filename": "job.py"} | fields


def dag(*jobs: Any, **more: Any) -> dict[str, Any]:
    return {"name": "golden", "jobs": list(jobs)} | more


def submitted(names: str, *jobs: Any, **more: Any) -> Request:
    return post("/runs", dag(*jobs, **more), names)


def with_field(names: str, **fields: Any) -> Request:
    return submitted(names, job(**fields))


SUBMISSIONS = [
    post("/runs", b"", "empty"),
    post("/runs", b"   ", "empty"),
    post("/runs", b"{", "ends too early"),
    post("/runs", b'{"name": "x",}', "trailing comma"),
    post("/runs", b"\xff\xfe", "cannot be read"),
    post("/runs", b'{"name": "\xff", "jobs": []}', "UTF-8"),
    post("/runs", b"null", "null"),
    post("/runs", [], "a list"),
    post("/runs", {"name": "x"}, "jobs"),
    post("/runs", {"jobs": []}, "name"),
    post("/runs", {"name": 7, "jobs": []}, "name"),
    post("/runs", {"name": "x", "jobs": {}}, "jobs"),
    post("/runs", dag(surprise=1), "surprise"),
    post("/runs", dag(blobs=[]), "blobs"),
    post("/runs", dag(job(), blobs={"x": ""}), "'x'"),
    post("/runs", dag(job(), blobs={SHA: "?"}), SHA[:12]),
    post("/runs", dag(job(), blobs={SHA: base64.b64encode(b"b").decode()}), SHA[:12]),
    post("/runs", dag(job(), blobs={SHA: "A" * 90_000}), SHA[:12]),
    post("/runs", b"[" * 40 + b"]" * 40, "32"),
    post("/runs", dag(job(args=[[[[[[["x"]]]]]]])), "args"),
    post("/runs", b"name=x", "form", Content_Type="application/x-www-form-urlencoded"),
    post("/runs", b"{}", "application/xml", Content_Type="application/xml"),
    post("/runs", dag(job()), "Idempotency-Key", Idempotency_Key="k" * 300),
    post("/runs", dag(job(priority=2)), "used for another request", Idempotency_Key="golden-key"),
    post("/runs", dag(*[job(job_id=f"j{number}") for number in range(1_001)]), "1001"),
    post("/runs", b'{"name": "x", "jobs": 2}\n', "0 jobs", Content_Type="application/x-ndjson"),
    post("/runs", b'{"name": "x", "jobs": -1}\n', "-1", Content_Type="application/x-ndjson"),
    post("/runs", b'{"name": "x", "jobs": 0}\n{}\n', "0 jobs", Content_Type="application/x-ndjson"),
    post("/runs", b'{"name": "x", "jobs": 1}\n{"job_id"\n', "line 2", Content_Type="application/x-ndjson"),
    post("/runs", b'{"name": "x", "jobs": 1}\n7\n', "line 2", Content_Type="application/x-ndjson"),
    post("/runs", b'{"name": "x", "jobs": 200000}\n', "200000", Content_Type="application/x-ndjson"),
    submitted("at least one", *[]),
    submitted("0 characters", job(), name=""),
    submitted("201 characters", job(), name="x" * 201),
    submitted("\\x1b", job(), name="a\x1b[2J"),
    submitted("\\u202e", job(), name="a\u202eb"),
    submitted("agent_run_id", job(), agent_run_id=""),
    submitted("agent_run_id", job(), agent_run_id=5),
    submitted("job 1", 7),
    submitted("job 1", None),
    submitted("job_id", {}),
    submitted("'a'", job(), job()),
    submitted("'b'", job(parents=["b"])),
    submitted("'a'", job(parents=["a"])),
    submitted("twice", job(parents=["b", "b"]), job(job_id="b")),
    submitted("b -> a -> b", job(parents=["b"]), job(job_id="b", parents=["a"])),
    submitted("c -> a -> c", job(parents=["c"]), job(job_id="b", priority=-1), job(job_id="c", parents=["a", "d"])),
    submitted("'nobody'", job(parents=["nobody"], priority="high", colour="red"), job(job_id="a b"), name=""),
    with_field("empty", job_id=""),
    with_field("'../a'", job_id="../a"),
    with_field("'-a'", job_id="-a"),
    with_field("129", job_id="a" * 129),
    with_field("\\x00", job_id="a\x00"),
    with_field("7", job_id=7),
    with_field("null", job_id=None),
    with_field("''", filename=""),
    with_field("'..'", filename=".."),
    with_field("xxx...", filename="x" * 300),
    with_field("5", filename=5),
    with_field("'nowhere.py'", filename="nowhere.py"),
    with_field("'AB'", script="AB"),
    with_field(SHA, script=SHA),
    with_field("'SERVICE'", job_type="SERVICE"),
    with_field("hitl_message", hitl_message="ok?"),
    with_field("port", port=80),
    with_field("secrets", secrets=["x"]),
    with_field("'colour'", colour="red"),
    with_field("'x y'", args="x y"),
    with_field("args[0]", args=[5]),
    with_field("NUL", args=["\x00"]),
    with_field("131073", args=["x" * 131_072]),
    with_field("'b'", parents="b"),
    with_field("parents[0]", parents=[None]),
    with_field("10001", parents=[f"p{number}" for number in range(10_001)]),
    with_field("'GPU'", requirement="GPU"),
    with_field("empty", requirement=[]),
    with_field("'G P U'", requirement=["G P U"]),
    with_field("17", requirement=[f"T{number}" for number in range(17)]),
    with_field("'high'", priority="high"),
    with_field("1001", priority=1_001),
    with_field("1.5", priority=1.5),
    with_field("true", priority=True),
    with_field("-1", delay_ms=-1),
    with_field("'soon'", delay_ms="soon"),
    with_field("'yes'", affinity="yes"),
    with_field("-1", affinity_wait_s=-1),
    with_field("-1", retries=-1),
    with_field("301", retry_backoff_s=301),
    with_field("000...", retries=10**400),
    with_field("0.0", timeout_s=0),
    with_field("'1h'", timeout_s="1h"),
    with_field("29", lease_s=29),
    with_field("60.5", lease_s=60.5),
    with_field("'ignore'", on_lost="ignore"),
    with_field("TITAN_TOKEN", env={"TITAN_TOKEN": "x"}),
    with_field("'A=B'", env={"A=B": "x"}),
    with_field("env", env={"A": 5}),
    with_field("32771", env={"A": "x" * 32_768}),
    with_field("'x'", reap="x"),
    with_field("source_path", source_path="/a\x00"),
]

IDS = [
    get("/nothing", "/api/v1/nothing"),
    get("/runs/nope", "'nope'"),
    get("/runs/abc", "'abc'"),
    get("/runs/" + "f" * 32, "{run}"),
    get("/runs/a%2Fb", "a%2Fb"),
    get("/runs/%00", "\\x00"),
    get("/runs/@yesterday", "'@yesterday'"),
    get("/runs/@last-failed", "'@last-failed'"),
    get("/runs/@last/jobs/nope", "'nope'"),
    get("/runs/@last/jobs/firts", "first"),
    get("/runs/@last/jobs/first/log?attempt=9", "attempt 9"),
    get("/runs/@last/jobs/first/log?limit=-1", "-1"),
    get("/runs/@last/jobs/first/log?limit=x", "'x'"),
    get("/runs/@last/jobs?state=RUNNIN", "'RUNNIN'"),
    get("/runs/@last/jobs?after=x", "'x'"),
    get("/runs/@last/jobs?limit=0", "0"),
    get("/runs/@last/wait?timeout_s=-1", "-1"),
    get("/runs/@last/wait?timeout_s=nan", "nan"),
    get("/runs/@last/wait?timeout_s=soon", "'soon'"),
    get("/runs/@last/wait?generation=x", "'x'"),
    get("/runs?limit=1001", "1001"),
    get("/runs?limit=x", "'x'"),
    get("/runs?before=x", "'x'"),
    get("/runs?state=LOST", "'LOST'"),
    get("/runs/short-ids", "ids"),
    get("/runs/short-ids?ids=abc", "'abc'"),
    get("/jobs/lookup", "id"),
    get("/jobs/lookup?id=", "''"),
    get("/jobs/lookup?id=nope", "'nope'"),
    get("/jobs/lookup?id=nope/a", "'nope'"),
    get("/jobs/lookup?id=@last/nope", "'nope'"),
    get("/blobs/" + SHA, SHA),
    get("/blobs/xyz", "'xyz'"),
    Request("PUT", "/blobs/" + SHA, b"b", SHA[:12]),
    Request("PUT", "/registry/a%20b", b"x", "'a b'"),
    Request("PUT", "/registry/a%2Fb", b"x", "a%2Fb"),
    Request("PUT", "/registry/x.py?sha256=xyz", b"", "'xyz'"),
    Request("PUT", "/registry/x.py?sha256=" + SHA, b"", SHA[:12]),
    get("/registry/nope", "'nope'"),
    Request("DELETE", "/runs", None, "GET"),
    Request("TRACE", "/runs", None, "'TRACE'"),
    post("/runs/@last/retry", {}, "has not ended"),
    post("/runs/@last/retry", {"job_ids": [5]}, "job_ids[0]"),
    post("/runs/@last/retry", {"jobs": []}, "'jobs'"),
    post("/runs/nope/cancel", {}, "'nope'"),
    post("/runs/@last/jobs/nope/cancel", {}, "'nope'"),
    post("/runs/@last/extend", {"jobs": []}, "at least one"),
    post("/runs/@last/extend", {"jobs": [job(job_id="first")]}, "'first'"),
    post("/runs/@last/extend", {"jobs": [job(parents=["nobody"])]}, "'nobody'"),
    post("/runs/@last/extend", {"jobs": 5}, "jobs"),
    post("/workers/nope/drain", {}, "nope"),
    post("/workers/nope/remove", {}, "'nope'"),
    post("/workers/join-tokens", {"expires_s": -1}, "-1"),
    post("/workers/join-tokens", {"expires_s": "1h"}, "expires_s"),
    post("/workers/enrol", {"name": "box-1", "sha256": "0" * 64}, "admin"),
    post("/workers/enrol", {"name": "a b", "sha256": "0" * 64}, "'a b'"),
    post("/workers/enrol", {"name": "box-1", "sha256": "abc"}, "'abc'"),
    post("/tokens", {"name": "n", "role": "root"}, "'root'"),
    post("/tokens", {"name": "", "role": "viewer"}, "0 characters"),
    post("/tokens", {"name": "n", "role": "worker"}, "'worker'"),
    post("/tokens", {"name": "n", "role": "viewer", "worker": "box-1"}, "'box-1'"),
    post("/tokens", {"name": "n", "role": "viewer", "expires_s": -1}, "-1"),
    post("/tokens", {"name": "n", "role": "viewer", "expires_s": "1d"}, "expires_s"),
    post("/tokens/nope/revoke", {}, "'nope'"),
    Request("GET", "/runs", None, "token", token=None),
    Request("GET", "/runs", None, "token", token="nobody-made-this-token"),
    Request("GET", "/runs", None, "host name", {"Host": "evil.example"}),
    Request("GET", "/runs", None, "another site", {"Origin": "http://evil.example"}),
    Request("POST", "/runs/@last/cancel", b"x=1", "form", {"Content-Type": "text/plain"}),
]

BYTES = {"Content-Type": "application/octet-stream"}


def put(query: str, names: str) -> Request:
    return Request("PUT", f"/artifacts{query}", b"a", names, BYTES)


ARTIFACTS = [
    put("?key=k", "name"),
    put("?key=&name=n", "0 characters"),
    put("?key=" + "k" * 513 + "&name=n", "513"),
    put("?key=a%00b&name=n", "\\x00"),
    put("?key=%E2%80%AEk&name=n", "\\u202e"),
    put("?key=k&name=", "0 characters"),
    put("?key=k&name=..", "'..'"),
    put("?key=k&name=a%2Fb", "'a/b'"),
    put("?key=k&name=n&sha256=abc", "'abc'"),
    put("?key=k&name=n&sha256=" + "0" * 64, "0" * 64),
    get("/artifacts?limit=0", "0"),
    get("/artifacts/versions", "key"),
    get("/artifacts/versions?key=nope", "'nope'"),
    get("/artifacts/content", "key="),
    get("/artifacts/content?key=a&name=b", "name="),
    get("/artifacts/content?key=nope", "'nope'"),
    get("/artifacts/content?name=nope", "'nope'"),
    get("/artifacts/content?key=nope&version=x", "'x'"),
    get("/artifacts/content?key=nope&version=-1", "-1"),
    get("/artifacts/content?key=nope&version=9", "version 9"),
    Request("DELETE", "/artifacts?key=nope", None, "'nope'"),
    Request("DELETE", "/artifacts?key=nope&version=2", None, "version 2"),
    Request("POST", "/artifacts?key=nope", b"", "PUT"),
]

STORE = [
    post("/store/get", b"", "empty"),
    post("/store/get", {}, "'key'"),
    post("/store/get", {"key": 5}, "key"),
    post("/store/get", {"key": ""}, "''"),
    post("/store/get", {"key": "k" * 513}, "513"),
    post("/store/get", {"key": "set"}, "'set'"),
    post("/store/get", {"key": "k", "kay": 1}, "'kay'"),
    Request("GET", "/store/get", None, "GET"),
    post("/store/get", b'{"key": "k"}', "text/plain", Content_Type="text/plain"),
    post("/store/get", b'{"key": "\\ud800"}', "surrogate"),
    post("/store/put", {"key": "k"}, "'value'"),
    post("/store/put", {"key": "k", "value": 5}, "value"),
    post("/store/put", {"key": "k", "value": "?", "kind": "bytes"}, "'?'"),
    post("/store/put", {"key": "k", "value": "x", "kind": "int"}, "'int'"),
    post("/store/put", {"key": "k", "value": "x" * (2**20 + 1)}, "1048577"),
    post("/store/put", {"key": "k", "value": "x", "ttl_s": -1}, "-1"),
    post("/store/put", {"key": "k", "value": "x", "ttl_s": "1h"}, "ttl_s"),
    post("/store/put", {"key": "set", "value": "x"}, "'set'"),
    post("/store/put", b'{"op": "get", "key": "k", "value": "x"}', "'get'"),
    post("/store/incr", {"key": "text"}, "'text'"),
    post("/store/incr", {"key": "k", "by": 1.5}, "by"),
    post("/store/incr", {"key": "k", "by": "1"}, "by"),
    post("/store/incr", b'{"key": "k", "by": 1e400}', "by"),
    post("/store/incr", b'{"key": "k", "by": ' + b"9" * 4_400 + b"}", "by"),
    post("/store/cas", {"key": "k", "expect": 5, "value": None}, "expect"),
    post("/store/cas", {"key": "k", "expect": None}, "'value'"),
    post("/store/sadd", {"key": "text", "member": "m"}, "'text'"),
    post("/store/sadd", {"key": "set", "member": ""}, "''"),
    post("/store/sadd", {"key": "set", "member": "m" * 513}, "513"),
    post("/store/srem", {"key": "text", "member": "m"}, "'text'"),
    post("/store/smembers", {"key": "text"}, "'text'"),
    post("/store/list", {"limit": 0}, "0"),
    post("/store/list", {"prefix": 5}, "prefix"),
    post("/store/many", {"operations": [{"op": "zip"}]}, "'zip'"),
    post("/store/many", {"operations": [{"key": "k"}]}, "'op'"),
    post("/store/many", {"operations": [{"op": "get", "key": "k"}, {"op": "put", "key": "k", "value": "x"}]}, "mixed"),
    post("/store/many", {"operations": [{"op": "get", "key": "k"}] * 1_001}, "1001"),
    post("/store/many", {"operations": [{"op": "incr", "key": "text"}]}, "'text'"),
    post("/store/nothing", {}, "/api/v1/store/nothing"),
]


def prepare(master: RealMaster) -> None:
    """Put there what the requests speak of: a script, a run that nobody runs, a text, a set, a used key."""
    for request in (
        Request("PUT", "/registry/job.py", b"print('ok')"),
        post("/store/put", {"key": "text", "value": "no number"}, ""),
        post("/store/sadd", {"key": "set", "member": "m"}, ""),
        post("/runs", dag(job()), "", Idempotency_Key="golden-key"),
        submitted("", job(job_id="first")),
    ):
        status, body = send(master, request)
        assert status in (200, 201), body


def send(master: RealMaster, request: Request) -> tuple[int, bytes]:
    """Send one request and return status and body."""
    body = request.body
    headers: dict[str, str] = {}
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body)
    if request.method == "POST":
        headers |= JSON
    if request.token is not None:
        headers["Authorization"] = f"Bearer {request.token or master.token}"
    connection = http.client.HTTPConnection("127.0.0.1", master.port, timeout=60)
    try:
        connection.request(request.method, f"/api/v1{request.path}", body, headers | request.headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def shown(request: Request) -> str:
    """Return a request as a line."""
    body = request.body
    text = "" if body is None else f" {body.decode('latin-1') if isinstance(body, bytes) else json.dumps(body)}"
    extra = [f"{name}: {value}" for name, value in request.headers.items()]
    extra += ["no token"] if request.token is None else [f"token {request.token}"] if request.token else []
    return f"{request.method} {request.path}{' (' + '; '.join(extra) + ')' if extra else ''}{text}"


def entries(master: RealMaster, requests: list[Request]) -> Iterator[Entry]:
    """Send each and yield what came back."""
    for request in requests:
        status, body = send(master, request)
        assert status < 500, (request, body)
        error = from_problem(json.loads(body))
        yield entry(shown(request), request.names, f"{status} {error.code}\n{error}")
