"""Every limit, at which it passes and one over which it is refused: drawn from the fields, so none is without a test.

A refusal has a stable code, names the limit, and says how it is changed. S28.
"""

import ast
import base64
import dataclasses
import hashlib
import http.client
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.api.master import JSON, NDJSON, ROOMY, TOKEN, Answer, Master, Worker, job, lines
from tests.unit.sources import ROOT
from titan.model.limits import BODY_LIMITS, JSON_LIMIT, Limits, body_limit, change
from titan.model.wire import CLOSE_BAD_FRAME, CLOSE_BUSY, Output, Renew, RenewAck, Returned, encode_frame

SMALL = dataclasses.replace(
    ROOMY,
    dag_jobs_max=4, dag_edges_max=4, dag_name_chars_max=10, job_parents_max=2, requirement_tags_max=2,
    artifact_bytes_max=300, artifact_key_chars_max=12, artifacts_max=4,
    args_bytes_max=20, env_bytes_max=20, submit_body_bytes_max=3_000, submit_jobs_inline_max=3, blob_bytes_max=2_000,
    blob_inline_bytes_max=100, head_bytes_max=2_000, frame_bytes_max=2_000, output_bytes_max=300, json_depth_max=10,
    json_bytes_max=2_500, store_body_bytes_max=2_600, store_key_bytes_max=20, store_value_bytes_max=1_000,
    store_many_max=3, log_fetch_bytes_max=50, waits_max=3, workers_max=3, tokens_max=4, page_rows_max=5, priority_max=7,
    retries_max=6, retry_backoff_s_max=5.0, delay_ms_max=1_000, timeout_s_max=100.0, lease_s_min=40, lease_s_max=70,
)  # fmt: skip
Ask = Callable[[Master, int], Answer]
# A job whose content is too large to ride along has none: that is told beside it, and names the answer.
CODES = {"too_large", "invalid", "unavailable", "conflict", "file_not_found"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    with Master(tmp_path_factory.mktemp("home"), SMALL) as running:
        running.script()
        yield running


def one(field: str, value: Callable[[int], Any]) -> Ask:
    """Submit a job with a field made for the size."""
    document = {"job_id": "a", "filename": "job.py", "requirement": ["NOWHERE"]}
    return lambda master, size: master.post("/runs", {"name": "run", "jobs": [{**document, field: value(size)}]})


def rows(*parents: list[str]) -> bytes:
    """Return a submission of many jobs, named a, b, c and so on, each with its parents."""
    jobs = [job({"job_id": "abcdefgh"[at], "parents": each}) for at, each in enumerate(parents)]
    return lines({"name": "run", "jobs": len(jobs)}, *jobs)


def edges(count: int) -> bytes:
    pairs = [(1, "a"), (2, "a"), (2, "b"), (3, "a"), (3, "b")][:count]
    return rows(*[[parent for at, parent in pairs if at == place] for place in range(4)])


def submitted(body: Callable[[int], bytes]) -> Ask:
    return lambda master, size: master.post("/runs", body(size), headers=NDJSON)


def inline(master: Master, size: int) -> Answer:
    content = b"#" * size
    digest = hashlib.sha256(content).hexdigest()
    blobs = {digest: base64.b64encode(content).decode()}
    return master.post("/runs", {"name": "r", "jobs": [job({"job_id": "a", "script": digest})], "blobs": blobs})


def head(master: Master, size: int) -> Answer:
    """Ask with a head of exactly so many bytes of path, names and values."""
    connection = http.client.HTTPConnection("127.0.0.1", master.port, timeout=60)
    sent = {"Host": "localhost", "Authorization": f"Bearer {TOKEN}", "X": ""}
    path = "/api/v1/stats"
    left = size - len(path) - sum(len(name) + len(value) for name, value in sent.items())
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    for name, value in {**sent, "X": "x" * left}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    found = Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    connection.close()
    return found


def padded(path: str, **document: Any) -> Ask:
    return lambda master, size: master.post(path, json.dumps(document).ljust(size), headers=JSON)


def log(master: Master, size: int) -> Answer:
    run = master.submit(waiting("a"))["id"]
    return master.get(f"/runs/{run}/jobs/a/log?limit={size}")


def waiting(job_id: str) -> dict[str, Any]:
    return {"job_id": job_id, "filename": "job.py", "requirement": ["NOWHERE"]}


def waits(master: Master, size: int) -> Answer:
    run = master.submit(waiting("a"))["id"]
    with ExitStack() as open_:
        for _ in range(size - 1):
            open_.enter_context(master.events())
        return master.get(f"/runs/{run}/wait?timeout_s=0")


def tokens(master: Master, size: int) -> Answer:
    while len(master.engine.book) < size - 1:
        assert master.post("/tokens", {"name": "one of many", "role": "viewer"}).status == 201
    return master.post("/tokens", {"name": "the last", "role": "viewer"})


def published(master: Master, key: str, content: bytes = b"") -> Answer:
    return master.put(f"/artifacts?key={key}&name=x", content)


def artifacts(master: Master, size: int) -> Answer:
    while len(master.get("/artifacts?limit=5").json["artifacts"]) < size - 1:
        assert published(master, f"one-{len(master.get('/artifacts?limit=5').json['artifacts'])}").status == 200
    return published(master, "last-of-all"[: 12 - size] + str(size))


CASES: dict[str, Ask] = {
    "dag_jobs_max": submitted(lambda size: rows(*[[]] * size)),
    "dag_edges_max": submitted(edges),
    "dag_name_chars_max": lambda master, size: master.post("/runs", {"name": "n" * size, "jobs": [job("a")]}),
    "job_parents_max": submitted(lambda size: rows([], [], [], ["a", "b", "c"][:size])),
    "requirement_tags_max": one("requirement", lambda size: [f"T{number}" for number in range(size)]),
    "args_bytes_max": one("args", lambda size: ["é" * 3, "x" * (size - 8)]),
    "env_bytes_max": one("env", lambda size: {"é": "x" * (size - 4)}),
    "submit_body_bytes_max": submitted(lambda size: rows([]) + b"\n" * (size - len(rows([])))),
    "submit_jobs_inline_max": lambda master, size: master.post(
        "/runs", {"name": "run", "jobs": [job(f"j{number}") for number in range(size)]}
    ),
    "artifact_bytes_max": lambda master, size: published(master, "big", b"#" * size),
    "artifact_key_chars_max": lambda master, size: published(master, "k" * size),
    "artifacts_max": artifacts,
    "blob_bytes_max": lambda master, size: master.put("/registry/big.py", b"#" * size),
    "blob_inline_bytes_max": inline,
    "head_bytes_max": head,
    "json_bytes_max": padded("/store/get", key="a"),
    "store_body_bytes_max": padded("/store/put", key="a", value="1"),
    "store_key_bytes_max": lambda master, size: master.post("/store/put", {"key": "é" + "k" * (size - 2), "value": ""}),
    "store_value_bytes_max": lambda master, size: master.post(
        "/store/put", {"key": "v", "value": "é" + "v" * (size - 2)}
    ),
    "store_many_max": lambda master, size: master.post(
        "/store/many", {"operations": [{"op": "get", "key": "a"}] * size}
    ),
    "log_fetch_bytes_max": log,
    "waits_max": waits,
    "tokens_max": tokens,
    "page_rows_max": lambda master, size: master.get(f"/runs?limit={size}"),
    "priority_max": one("priority", int),
    "retries_max": one("retries", int),
    "retry_backoff_s_max": one("retry_backoff_s", float),
    "delay_ms_max": one("delay_ms", int),
    "timeout_s_max": one("timeout_s", float),
    "lease_s_min": one("lease_s", int),
    "lease_s_max": one("lease_s", int),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_s28_exactly_at_a_limit_it_passes_and_one_over_is_refused_with_the_way_to_change_it(
    small: Master, name: str
) -> None:
    limit = int(getattr(SMALL, name))
    at = CASES[name](small, limit)
    assert at.status < 300, (at.status, at.body)
    over = CASES[name](small, limit - 1 if name.endswith("_min") else limit + 1)
    assert 400 <= over.status < 504
    assert over.code in CODES
    said = json.dumps(over.json)
    assert str(limit) in said, said
    assert f"TITAN_LIMIT_{name.upper()} at the Master changes the limit" in said, said


def test_s28_every_body_of_a_route_has_a_bound_for_every_caller(own_master: Callable[..., Master]) -> None:
    bounds = {name: getattr(SMALL, name) for name in (JSON_LIMIT, *BODY_LIMITS.values())}
    small = own_master(**bounds)
    small.submit(waiting("a"))
    invited = small.post("/workers/join-tokens", {}).json["token"]
    operations = [
        (method.upper(), path.removeprefix("/api/v1"), operation)
        for path, methods in small.get("/openapi.json").json["paths"].items()
        for method, operation in methods.items()
        if "requestBody" in operation
    ]
    assert {operation["operationId"] for *_, operation in operations} >= BODY_LIMITS.keys()
    with Worker(small.port) as worker:
        small.submit(worker.job("a"))
        job_token = worker.start().token
        for method, path, operation in operations:
            name = operation["operationId"]
            limit = getattr(SMALL, body_limit(name))
            assert operation["requestBody"]["x-limit"] == body_limit(name)
            assert operation["requestBody"]["x-bytes-max"] == limit
            types = operation["requestBody"]["content"]
            query = "?key=k&name=n" if name == "artifacts.put" else ""
            tokens = [invited if name == "workers.enrol" else TOKEN]
            tokens += [job_token] if "job" in operation["x-roles"] and name != "runs.extend" else []
            for token, kind in itertools.product(tokens, types):
                place = path.format(run="@last", name="x", sha256="0" * 64) + query
                over = small.request(method, place, b" " * (limit + 1), token=token, headers={"Content-Type": kind})
                said = (over.status, over.code, change(body_limit(name)) in json.dumps(over.json))
                assert said == (413, "too_large", True), (name, over.body)


# Limits of a worker's link: a number of bytes, messages or links, and with what the link is closed over it.


def frame(worker: Worker, size: int) -> None:
    """Say something in a frame of exactly so many bytes."""
    empty = len(encode_frame([Returned(1, "x" * 1_000)]))
    worker.link.send(encode_frame([Returned(1, "x" * (1_000 + size - empty))]))


def output(worker: Worker, size: int) -> None:
    worker.say(Output(worker.start().fence, 0, b"x" * size))


def is_answered(worker: Worker) -> bool:
    """Say whether the link still is one: a renewal is answered."""
    try:
        worker.say(Renew(77))
        while not any(ack.seq == 77 for ack in worker.heard(RenewAck)):
            worker.hear()
    except ConnectionClosed:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "say", "code"), [("frame_bytes_max", frame, 1009), ("output_bytes_max", output, CLOSE_BAD_FRAME)]
)
def test_s28_one_byte_over_in_what_a_worker_says_ends_its_link(
    small: Master, name: str, say: Callable[[Worker, int], None], code: int
) -> None:
    for over in (0, 1):
        with Worker(small.port) as worker:
            small.submit(worker.job("a"))
            say(worker, getattr(SMALL, name) + over)
            if not over:
                assert is_answered(worker)
            else:
                closed, reason = worker.closed()
                assert closed == code
                assert code == 1009 or f"TITAN_LIMIT_{name.upper()}" in reason


def test_s28_one_worker_over_the_limit_is_sent_away(small: Master) -> None:
    with ExitStack() as linked:
        workers = [linked.enter_context(Worker(small.port)) for _ in range(SMALL.workers_max)]
        assert all(map(is_answered, workers))
        more = Worker(small.port)
        with more._connecting as more.link:
            more.say(more._hello)
            code, reason = more.closed()
        assert (code, "TITAN_LIMIT_WORKERS_MAX" in reason) == (CLOSE_BUSY, True)
    with Worker(small.port) as worker:
        assert is_answered(worker)


def test_s28_json_nests_as_deep_as_the_limit_and_no_deeper(small: Master) -> None:
    def nested(depth: int) -> bytes:
        return b'{"key":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    limit = SMALL.json_depth_max
    for path in ("/store/get", "/runs", "/tokens", "/workers/enrol"):
        at, over = (small.post(path, nested(limit + more), headers=JSON) for more in (0, 1))
        assert (at.status, "TITAN_LIMIT" in at.body.decode()) == (422, False), path
        assert (over.status, over.code) == (413, "too_large"), path
        assert "TITAN_LIMIT_JSON_DEPTH_MAX" in over.body.decode()


# What is no refusal when it is reached, or is counted on a clock: where it is tested.
ELSEWHERE = {
    "log_job_bytes_max": ("tests/worker/test_logs.py", "test_f33_a_flood_is_capped_and_memory_stays"),
    "refusals_max": ("tests/security/test_tokens.py", "test_s20_each_address_has_its_limit_and_all_together_have_one"),
    "address_refusals_max": (
        "tests/security/test_tokens.py", "test_s20_each_address_has_its_limit_and_all_together_have_one",
    ),
    "link_messages_per_s_max": (
        "tests/security/test_rates.py", "test_s53_a_worker_that_says_too_much_is_cut_off_and_no_other_is",
    ),
    **dict.fromkeys(
        ["submits_per_s_max", "store_writes_per_s_max", "store_reads_per_s_max", "log_reads_per_s_max",
         "requests_per_s_max"],
        ("tests/security/test_rates.py",
         "test_s53_every_kind_of_request_has_its_rate_for_each_token_and_no_other_pays_for_it"),
    ),
    "artifact_versions_max": (
        "tests/api/test_artifacts.py", "test_one_over_the_limit_of_versions_and_of_artifacts",
    ),
    "artifacts_total_bytes_max": (
        "tests/api/test_artifacts.py", "test_one_byte_over_all_artifacts_is_refused_before_it_is_stored",
    ),
    "audit_rows_max": (
        "tests/storage/test_audit.py",
        "test_s52_beyond_the_limit_of_rows_the_oldest_go_and_the_chain_is_whole_from_there",
    ),
    "audit_days_max": (
        "tests/storage/test_audit.py", "test_s52_a_row_is_kept_for_so_many_days_and_the_newest_for_ever",
    ),
    "transfers_max": ("tests/api/test_artifacts.py", "test_one_over_the_limit_of_transfers"),
    "wait_s_max": ("tests/api/test_runs.py", "test_a_wait_that_is_over_its_time_says_so"),
    "events_ring_max": ("tests/api/test_feeds.py", "test_events_older_than_the_ring_lead_to_a_resync"),
}  # fmt: skip
HERE = {"frame_bytes_max", "output_bytes_max", "workers_max", "json_depth_max"}


def test_s28_no_limit_is_without_a_test() -> None:
    fields = {field.name for field in dataclasses.fields(Limits)}
    assert CASES.keys() | ELSEWHERE.keys() | HERE == fields
    assert len(CASES) + len(ELSEWHERE) + len(HERE) == len(fields)
    for path, name in ELSEWHERE.values():
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (path, name)
