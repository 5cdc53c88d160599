"""Names, numbers, queries and texts that mean harm are refused or kept as they are: S25, S31, S33, S35."""

import ast
import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from websockets.exceptions import ConnectionClosed

from tests.api.master import JSON, NDJSON, TOKEN, Answer, Master, Worker, job
from tests.api.test_gate import served
from tests.security.walk import ask, rows
from tests.unit.sources import read_tree
from titan.model.wire import CLOSE_BAD_FRAME

# Names


NO_NAMES = [
    "", ".", "..", "../x", "/etc/passwd", "a/../b", "C:\\x", "a\\..\\b", "a\0b", "%2e%2e", "a%00", "x" * 10_000,
    "🙂", "a\u202eb",
    "a\u200bb", "ａ", "é", "a b", "a\nb", "a\r\nX: 1", "a\tb", "-a", "_a", ".hidden", "a;b", "$(id)", "`id`",
    "a'b", 'a"b', "<b>", "a&b", "a?b", "a#b", "a:b", "a*", "~root", "\x7f", "x" * 129, "\u2028", "%",
]  # fmt: skip
# One component that is no id cannot be in a path whole.
NAMED = {"{run}": "run", "{job}": "job", "{name}": "name", "{sha256}": "sha256", "{token_id}": "token_id"}


def shown(text: str) -> str:
    return ascii(text[:20])


@pytest.mark.parametrize("name", NO_NAMES, ids=shown)
def test_s25_a_name_that_is_none_is_taken_nowhere(master: Master, name: str) -> None:
    bodies: list[tuple[str, Any]] = [
        ("/runs", {"name": "n", "jobs": [job({"job_id": name})]}),
        ("/runs", {"name": "n", "jobs": [job({"job_id": "a", "requirement": [name]})]}),
        ("/runs", {"name": "n", "jobs": [job({"job_id": "a", "parents": [name]})]}),
        ("/runs", {"name": "n", "jobs": [job({"job_id": "a", "script": name or "x"})]}),
        ("/tokens", {"name": "t", "role": "worker", "worker": name}),
        ("/workers/enrol", {"name": name, "sha256": "0" * 64}),
    ]
    for path, body in bodies:
        answer = master.post(path, body)
        assert (answer.status, answer.code) == (422, "invalid"), (path, body)
        assert "\n" not in answer.json["detail"], path
    whole = quote(name, safe="")
    for path in (f"/registry/{whole}", f"/blobs/{whole}"):
        assert master.put(path, b"#").status in (404, 405, 422), path
    worker = Worker(master.port)
    object.__setattr__(worker, "_hello", type(worker._hello)(name, *list(_fields(worker._hello))[1:]))
    with worker._connecting as worker.link:
        worker.say(worker._hello)
        with pytest.raises(ConnectionClosed) as end:
            worker.hear()
    assert end.value.rcvd is not None
    assert end.value.rcvd.code == CLOSE_BAD_FRAME


def _fields(struct: Any) -> Iterator[Any]:
    for name in struct.__struct_fields__:
        yield getattr(struct, name)


def test_s25_every_route_that_takes_a_name_finds_nothing_by_one_that_is_none(master: Master) -> None:
    before = sorted(str(path) for path in master.home.parent.rglob("*"))
    known = rows(master)
    asked = 0
    for method, path, name in sorted(served(master)):
        if "{" not in path:
            continue
        for bad in NO_NAMES[1:]:
            filled = re.sub(r"\{\w+\}", lambda _, bad=bad: quote(bad, safe=""), path)
            answer = ask(master, method, filled, TOKEN, "Content-Type: application/json")
            assert answer.status in (400, 404, 405, 414, 415, 422, 431), (method, name, bad, answer.body)
            asked += 1
    assert asked > 500
    assert rows(master) == known
    new = {path for path in map(str, master.home.parent.rglob("*")) if path not in before}
    assert not [path for path in new if "incoming" not in path and "-wal" not in path and "-shm" not in path]


# Payloads


def payloads(mark: Path) -> list[str]:
    """Return texts that leave a mark when somebody runs or loads them."""
    touch = f"touch {mark}"
    return [
        f"cposix\nsystem\n(S'{touch}'\ntR.",  # pickle, protocol 0
        f"!!python/object/apply:os.system ['{touch}']",
        f"__import__('os').system('{touch}')",
        f"{{{{ cycler.__init__.__globals__.os.popen('{touch}') }}}}",
        f"${{jndi:{touch}}}",
        f"$({touch})",
        f"`{touch}`",
        f"; {touch} #",
        f"| {touch}",
        f"@{mark}",
        f"%{{{touch}}}",
    ]


def test_s31_what_would_run_elsewhere_stays_text_in_every_field(master: Master, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for text in payloads(mark):
        packed = base64.b64encode(text.encode()).decode()
        bodies: list[tuple[str, Any]] = [
            (f"/store/{word}", {"key": text, **more})
            for word, more in {
                "put": {"value": text}, "get": {}, "incr": {}, "sadd": {"member": text}, "delete": {},
                "cas": {"expect": None, "value": {"value": packed, "kind": "bytes"}},
            }.items()
        ]  # fmt: skip
        fields = ("job_id", "filename", "script", "job_type", "source_path", "on_lost", "priority", "timeout_s")
        bodies += [("/runs", {"name": "n", "jobs": [job({"job_id": "a", field: text})]}) for field in fields]
        bodies += [
            ("/runs", {"name": text[:90], "agent_run_id": text[:90], "jobs": [job({"job_id": "a", "args": [text]})]}),
            ("/runs", {"name": "n", "jobs": [job({"job_id": "a", "env": {"A": text}, "requirement": ["NOWHERE"]})]}),
            ("/runs", {"name": "n", "jobs": [job("a")], "blobs": {text: packed}}),
            ("/tokens", {"name": text[:90], "role": text}),
            ("/workers/enrol", {"name": text, "sha256": "0" * 64}),
        ]
        for path, body in bodies:
            assert master.post(path, body).status < 500, (path, body)
        for path in ("/runs", "/store/put", "/tokens"):
            for kind in (JSON, NDJSON, {"Content-Type": "application/x-pickle"}, {"Content-Type": "application/yaml"}):
                assert 400 <= master.post(path, text.encode(), headers=kind).status < 500
        assert master.put("/registry/payload", text.encode()).status == 200
        assert master.get(f"/runs?name={quote(text)}").status < 500
        key = {"Idempotency-Key": text.replace("\n", " ")}
        assert master.post("/store/put", {"key": "k", "value": text}, headers=key).status == 200
        assert master.store("get", key="k")["value"] == text
        with Worker(master.port) as worker:
            worker.link.send(text.encode())
            with pytest.raises(ConnectionClosed):
                worker.hear()
        assert not mark.exists(), text


# Queries


INJECTIONS = [
    "' OR 1=1 --", "' OR '1'='1", '" OR ""="', "1; DROP TABLE runs", "') UNION SELECT token FROM tokens --", "%", "_",
    "%%", "__", "\\", "\\%", "a%", "*", "?", "[a-z]", "\0", "a\0b", "NULL", "''", "\ufffd", "1e309", "x" * 5_000,
    "%' ESCAPE '", "--", "/*", "#", "state; --", "created_at DESC, (SELECT 1)",
]  # fmt: skip


def test_s33_what_is_asked_for_is_a_value_and_never_part_of_the_question(own_master: Callable[..., Master]) -> None:
    master = own_master()
    master.submit({"job_id": "a", "requirement": ["NOWHERE"]}, name="plain")
    master.store("put", key="plain", value="1")
    before = rows(master)
    for text in INJECTIONS:
        asked = quote(text)
        for name in ("name", "agent_run_id"):
            found = master.get(f"/runs?{name}={asked}")
            assert (found.status, found.json["runs"]) == (200, []), (name, text)
        for query in (
            f"/runs?state={asked}", f"/runs?before={asked}", f"/runs?limit={asked}", f"/runs/@last/jobs?after={asked}",
            f"/runs/@last/jobs?state={asked}", f"/jobs/lookup?id={asked}",
            f"/runs/short-ids?ids={asked}",
        ):  # fmt: skip
            assert 400 <= master.get(query).status < 500, query
        for query in (f"/artifacts?prefix={asked}", f"/artifacts?after={asked}", f"/jobs/lookup?id=a&run={asked}"):
            assert master.get(query).status < 500, query
        listed = master.post("/store/list", {"prefix": text}).json
        assert listed["keys"] == [], text
        got = master.post("/store/get", {"key": text})
        assert (got.status, got.json.get("value")) in ((200, None), (422, None)), text
        sorted_ = master.get(f"/runs?sort={asked}&order_by={asked}")
        assert sorted_.status == 200, "no column is named by who asks"
    assert rows(master) == before


def test_s33_signs_of_a_pattern_stand_for_themselves(master: Master) -> None:
    names = ["100%", "a_b", "axb", "back\\slash", "it's"]
    for name in names:
        master.submit({"job_id": "a", "requirement": ["NOWHERE"]}, name=name, agent_run_id="signs")
    for part, whole in (("0%", "100%"), ("a_", "a_b"), ("k\\s", "back\\slash"), ("t's", "it's"), ("%", "100%")):
        found = master.get(f"/runs?agent_run_id=signs&name={quote(part)}").json["runs"]
        assert [run["name"] for run in found] == [whole], part


@pytest.mark.parametrize("text", [b'"\\ud800"', b'"\xed\xa0\x80"', b'"\xff"', b'"\\udc80x"'])
def test_s33_half_a_character_is_no_text(master: Master, text: bytes) -> None:
    for path, body in (
        ("/store/get", b'{"key": %b}'),
        ("/store/put", b'{"key": "a", "value": %b}'), ("/store/list", b'{"prefix": %b}'),
        ("/runs", b'{"name": %b, "jobs": []}'), ("/tokens", b'{"name": %b, "role": "viewer"}'),
    ):  # fmt: skip
        answer = master.post(path, body % text, headers=JSON)
        assert (answer.status, answer.code) == (422, "invalid"), path


# A word of our own, and the settings of a connection: neither comes from outside.
CONSTANT = [
    "titan.storage.database: f'PRAGMA cache_size = -{sqlite.READER_CACHE_KIB}'",
    "titan.storage.queries: f\"'{RunState.STAGED}'\"",
    "titan.storage.sqlite: f'PRAGMA {pragma}'",
]


def formatted_statements() -> list[str]:
    """Return where a statement is put together from text: nothing but the names of columns and numbers may be."""
    found = []
    for source in read_tree("src"):
        if not source.module.startswith(("titan.storage", "titan.master")) or ".migrations." in source.module:
            continue
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in ("text", "execute", "executemany", "run", "literal_column", "text_") and node.args:
                made = node.args[0]
                if isinstance(made, (ast.JoinedStr, ast.BinOp)) or (
                    isinstance(made, ast.Call) and ast.unparse(made.func).endswith((".format", ".join"))
                ):
                    found.append(f"{source.module}: {ast.unparse(made)}")
    return found


def test_s33_no_statement_is_put_together_from_text() -> None:
    assert formatted_statements() == CONSTANT


# Numbers


NUMBERS = [
    "NaN", "Infinity", "-Infinity", "1e309", "-1e309", "-1", "-0.1", "9223372036854775808", "-9223372036854775809",
    "18446744073709551616", "1" + "0" * 400, "1e400", "0x10", "1_000", "", "١", "10000-01-01", "true", "null", '"1"',
    "[]",
    "99999999999s", "1,5", "+5",
]  # fmt: skip
FIELDS = ("priority", "delay_ms", "retries", "retry_backoff_s", "timeout_s", "lease_s", "affinity_wait_s")
# What is well formed there: text is told from a number, nothing from a value that may be missing.
FINE = {("timeout_s", "null"), ("expires_s", "null"), ("ttl_s", "null")}


@pytest.mark.parametrize("number", NUMBERS, ids=shown)
def test_s35_a_number_that_is_none_or_out_of_range_is_refused_at_once(master: Master, number: str) -> None:
    for field in FIELDS:
        text = f'{{"name":"n","jobs":[{{"job_id":"a","filename":"job.py","{field}":{number}}}]}}'
        refused(master.post("/runs", text.encode(), headers=JSON), field, number)
    refused(master.post("/tokens", f'{{"name":"n","role":"viewer","expires_s":{number}}}'.encode(), headers=JSON),
            "expires_s", number)  # fmt: skip
    refused(master.post("/workers/join-tokens", f'{{"expires_s":{number}}}'.encode(), headers=JSON), "join", number)
    refused(master.post("/store/put", f'{{"key":"n","value":"1","ttl_s":{number}}}'.encode(), headers=JSON),
            "ttl_s", number)  # fmt: skip
    refused(master.post("/store/list", f'{{"limit":{number}}}'.encode(), headers=JSON), "limit", number)
    asked = quote(number)
    for path in ("/runs?limit=", "/runs/@last/jobs?limit=", "/tokens?limit=", "/artifacts?limit="):
        if number != "+5":  # a plus in a query is a space to some
            assert 400 <= master.get(path + asked).status < 500, path
    master.submit({"job_id": "a", "requirement": ["NOWHERE"]})
    for path in (
        "/runs/@last/wait?timeout_s=", "/runs/@last/jobs/a/wait?timeout_s=", "/runs/@last/jobs/a/log?follow_s=",
        "/runs/@last/jobs/a/log?offset=", "/runs/@last/jobs/a/log?limit=", "/runs/@last/jobs/a/log?attempt=",
        "/runs/@last/wait?timeout_s=0&generation=",
    ):  # fmt: skip
        if number not in ("Infinity", "1e309", "1e400", "1" + "0" * 400, "9223372036854775808", "18446744073709551616"):
            assert master.get(path + asked).status < 500, path


def refused(answer: Answer, field: str, number: str) -> None:
    if (field, number) in FINE:
        assert answer.status < 300, (field, number)
        return
    assert answer.status in (413, 422), (field, number, answer.body)
    assert answer.code in ("invalid", "too_large")
    assert len(json.dumps(answer.json)) < 3_000


@pytest.mark.parametrize("number", ["Infinity", "1e309", "1e400", "1e30"])
def test_s35_a_wait_without_an_end_has_one(master: Master, number: str) -> None:
    run = master.submit({"job_id": "a", "requirement": ["NOWHERE"]})["id"]
    assert master.post(f"/runs/{run}/cancel").status == 200
    for path in (f"/runs/{run}/wait?timeout_s={number}", f"/runs/{run}/jobs/a/log?follow_s={number}"):
        assert master.get(path).status in (200, 422)


def test_s35_a_time_beyond_all_calendars_is_shown_or_refused(master: Master) -> None:
    for expires_s in (253_402_300_800, 1e17, 2**63):
        answer = master.post("/tokens", {"name": "n", "role": "viewer", "expires_s": expires_s})
        assert (answer.status, answer.code) == (422, "invalid")
    put = master.post("/store/put", {"key": "year 10000", "value": "1", "ttl_s": 253_402_300_800})
    assert put.status in (200, 422)
    assert master.store("get", key="year 10000")["value"] in ("1", None)
