"""The store over HTTP: exact values, one answer a call, nothing twice."""

import base64
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api.master import JSON, TOKEN, Master
from tests.api.test_runs import refused
from titan.master.api.store import FAST

TEXTS = ["", "0", "plain", "ünïcode 😀 \u202e", "line\nline\r\n\t", '"quoted" \\ | ; \'', "\x00\x01", "x" * 1_000]
BYTES = [b"", b"\x00\xff", b"plain", bytes(range(256)) * 4]


# Teach


@pytest.mark.parametrize("value", TEXTS, ids=range(len(TEXTS)))
def test_text_comes_back_exactly(master: Master, value: str) -> None:
    for key in ("teach", value or "empty", "a/../b?c#d%20"):
        assert master.store("put", key=key[:200], value=value) == {"stored": True}
        assert master.store("get", key=key[:200]) == {"value": value, "kind": "text"}


@pytest.mark.parametrize("value", BYTES, ids=range(len(BYTES)))
def test_bytes_come_back_exactly(master: Master, value: bytes) -> None:
    coded = base64.b64encode(value).decode()
    master.store("put", key="bytes", value=coded, kind="bytes")
    assert master.store("get", key="bytes") == {"value": coded, "kind": "bytes"}


def test_a_missing_key_is_null_and_not_an_error(master: Master) -> None:
    assert master.store("get", key="never put") == {"value": None, "kind": "text"}
    assert master.store("smembers", key="never put") == {"members": []}
    assert master.store("delete", key="never put") == {"deleted": False}
    assert master.store("srem", key="never put", member="x") == {"changed": False}


def test_every_word_of_the_store(master: Master) -> None:
    assert master.store("incr", key="count") == {"value": "1"}
    assert master.store("incr", key="count", by=-11) == {"value": "-10"}
    assert master.store("get", key="count") == {"value": "-10", "kind": "text"}
    assert master.store("cas", key="lock", expect=None, value={"value": "me"}) == {"swapped": True}
    assert master.store("cas", key="lock", expect=None, value={"value": "you"}) == {"swapped": False}
    assert master.store("cas", key="lock", expect={"value": "bWU=", "kind": "bytes"}, value=None) == {"swapped": False}
    assert master.store("cas", key="lock", expect={"value": "me"}, value=None) == {"swapped": True}
    assert master.store("get", key="lock")["value"] is None
    assert master.store("sadd", key="set", member="b") == {"changed": True}
    assert master.store("sadd", key="set", member="a") == {"changed": True}
    assert master.store("sadd", key="set", member="a") == {"changed": False}
    assert master.store("smembers", key="set") == {"members": ["a", "b"]}
    assert master.store("srem", key="set", member="a") == {"changed": True}
    assert master.store("delete", key="set") == {"deleted": True}


def test_keys_are_listed_page_by_page(own_master: Callable[..., Master]) -> None:
    master = own_master()
    for key in ("b", "a/1", "a/2", "a/3", "ä"):
        master.store("put", key=key, value="x")
    assert master.store("list") == {"keys": ["a/1", "a/2", "a/3", "b", "ä"], "next": None}
    page = master.store("list", prefix="a/", limit=2)
    assert page == {"keys": ["a/1", "a/2"], "next": "a/2"}
    assert master.store("list", prefix="a/", limit=2, after=page["next"]) == {"keys": ["a/3"], "next": None}


def test_a_key_ends_with_its_time(own_master: Callable[..., Master]) -> None:
    master = own_master()
    clock = master.engine.clock
    master.store("put", key="brief", value="x", ttl_s=60)
    master.store("put", key="kept", value="x")
    assert master.store("get", key="brief")["value"] == "x"
    ahead = 60_001
    master.engine.clock = lambda: clock()._replace(wall_ms=clock().wall_ms + ahead)
    assert master.store("get", key="brief")["value"] is None
    assert master.store("list") == {"keys": ["kept"], "next": None}


def test_many_at_once(master: Master) -> None:
    writes = [
        {"op": "put", "key": "m1", "value": "1"},
        {"op": "incr", "key": "m1", "by": 2},
        {"op": "sadd", "key": "m2", "member": "x"},
        {"op": "cas", "key": "m3", "expect": None, "value": {"value": "y"}},
        {"op": "delete", "key": "m4"},
        {"op": "srem", "key": "m2", "member": "z"},
    ]
    answers = [
        {"stored": True},
        {"value": "3"},
        {"changed": True},
        {"swapped": True},
        {"deleted": False},
        {"changed": False},
    ]
    assert master.store("many", operations=writes)["results"] == answers
    reads = [{"op": "get", "key": "m1"}, {"op": "smembers", "key": "m2"}, {"op": "get", "key": "m4"}]
    assert master.store("many", operations=reads)["results"] == [
        {"value": "3", "kind": "text"}, {"members": ["x"]}, {"value": None, "kind": "text"},
    ]  # fmt: skip
    assert master.store("many", operations=[]) == {"results": []}


# Prove


def test_a_resent_incr_counts_once(master: Master) -> None:
    key = {"Idempotency-Key": "incr-1"}
    for _ in range(3):
        answer = master.post("/store/incr", {"key": "once"}, headers=key)
        assert (answer.status, answer.json) == (200, {"value": "1"})
    refused(master.post("/store/incr", {"key": "once", "by": 2}, headers=key), 409, "key_reused")
    refused(master.post("/store/delete", {"key": "once"}, headers=key), 409, "key_reused")
    assert master.store("get", key="once")["value"] == "1"


def test_every_resent_write_gives_its_first_answer(master: Master) -> None:
    master.store("put", key="again-delete", value="x")
    calls: list[tuple[str, dict[str, Any]]] = [
        ("delete", {"key": "again-delete"}),
        ("cas", {"key": "again-cas", "expect": None, "value": {"value": "1"}}),
        ("sadd", {"key": "again-set", "member": "a"}),
        ("srem", {"key": "again-set", "member": "a"}),
        ("many", {"operations": [{"op": "incr", "key": "again-many"}]}),
    ]
    for word, body in calls:
        key = {"Idempotency-Key": f"again-{word}"}
        first = master.post(f"/store/{word}", body, headers=key)
        second = master.post(f"/store/{word}", body, headers=key)
        assert first.status == second.status == 200
        assert first.json == second.json, word


def test_concurrent_counting_loses_nothing(master: Master) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: master.store("incr", key="everybody"), range(80)))
    assert master.store("get", key="everybody")["value"] == "80"


def test_a_refused_operation_undoes_its_whole_batch(master: Master) -> None:
    master.store("put", key="word", value="no number")
    writes = [{"op": "put", "key": "never", "value": "x"}, {"op": "incr", "key": "word"}]
    refused(master.post("/store/many", {"operations": writes}), 422, "invalid", "word")
    assert master.store("get", key="never")["value"] is None


# Break


@pytest.mark.parametrize(
    ("word", "body", "told"),
    [
        ("get", {"key": ""}, "1 to 512"),
        ("get", {"key": "é" * 257}, "514 bytes"),
        ("get", {"key": 7}, "give text"),
        ("get", {}, "key"),
        ("get", {"key": "a", "other": 1}, "other"),
        ("smembers", {"key": ""}, "1 to 512"),
        ("put", {"key": "", "value": ""}, "1 to 512"),
        ("put", {"key": "x" * 513, "value": ""}, "513 bytes"),
        ("put", {"key": "a"}, "value"),
        ("put", {"key": "a", "value": 7}, "give text"),
        ("put", {"key": "a", "value": "x", "kind": "json"}, "json"),
        ("put", {"key": "a", "value": "not base64!", "kind": "bytes"}, "base64"),
        ("put", {"key": "a", "value": "x", "ttl_s": 0}, "ttl_s"),
        ("put", {"key": "a", "value": "x", "ttl_s": -1}, "ttl_s"),
        ("put", {"key": "a", "value": "x", "ttl_s": 1e300}, "ttl_s"),
        ("incr", {"key": "a", "by": 1.5}, "give a whole number"),
        ("incr", {"key": "a", "by": "1"}, "give a whole number"),
        ("incr", {"key": "a", "by": 10**4200}, "digits"),
        ("incr", {"key": "text"}, "decimal number"),
        ("incr", {"key": "set"}, "no whole decimal number"),
        ("get", {"key": "set"}, "set"),
        ("smembers", {"key": "text"}, "not a set"),
        ("sadd", {"key": "text", "member": "x"}, "not a set"),
        ("sadd", {"key": "set", "member": ""}, "member"),
        ("sadd", {"key": "set", "member": "x" * 513}, "member"),
        ("srem", {"key": "text", "member": "x"}, "not a set"),
        ("put", {"key": "set", "value": "x"}, "set"),
        ("cas", {"key": "a", "expect": "x", "value": None}, "expect"),
        ("cas", {"key": "a", "expect": None}, "value"),
        ("cas", {"key": "a", "expect": None, "value": {"value": "!", "kind": "bytes"}}, "base64"),
        ("list", {"limit": 0}, "1 to 1000"),
        ("list", {"limit": 1001}, "1 to 1000"),
        ("list", {"prefix": 7}, "prefix"),
        ("many", {"operations": [{"op": "flush"}]}, "flush"),
        ("many", {"operations": [{"key": "a"}]}, "op"),
        ("many", {"operations": [{"op": "list"}]}, "list"),
        ("many", {"operations": [{"op": "get", "key": "a"}, {"op": "delete", "key": "a"}]}, "mixed"),
        ("many", {"operations": [{"op": "get", "key": ""}]}, "1 to 512"),
        ("many", {}, "operations"),
    ],
)
def test_what_cannot_be_stored_says_why(master: Master, word: str, body: dict[str, Any], told: str) -> None:
    master.store("delete", key="set")
    master.store("sadd", key="set", member="x")
    master.store("put", key="text", value="word")
    refused(master.post(f"/store/{word}", body), 422, "invalid", told)


def test_one_over_the_limits(own_master: Callable[..., Master]) -> None:
    master = own_master(store_value_bytes_max=1_000, store_many_max=2, store_body_bytes_max=5_000)
    assert master.store("put", key="a", value="é" * 500) == {"stored": True}
    for value, kind in (("é" * 500 + "x", "text"), (base64.b64encode(b"x" * 1_001).decode(), "bytes")):
        refused(master.post("/store/put", {"key": "a", "value": value, "kind": kind}), 413, "too_large", "at most 1000")
    refused(
        master.post("/store/put", {"key": "a", "value": "x" * 5_000}),
        413,
        "too_large",
        "TITAN_LIMIT_STORE_BODY_BYTES_MAX",
    )
    many = {"operations": [{"op": "get", "key": "a"}] * 3}
    refused(master.post("/store/many", many), 413, "too_large", "TITAN_LIMIT_STORE_MANY_MAX")
    assert master.store("get", key="a")["value"] == "é" * 500


def test_a_value_of_one_mib_is_exact(master: Master) -> None:
    for value, kind in (("\x00" * 2**20, "text"), (base64.b64encode(b"\xff" * 2**20).decode(), "bytes")):
        master.store("put", key="large", value=value, kind=kind)
        assert master.store("get", key="large") == {"value": value, "kind": kind}
    refused(master.post("/store/put", {"key": "large", "value": "x" * (2**20 + 1)}), 413, "too_large")


@pytest.mark.parametrize("path", sorted(path.removeprefix("/api/v1") for path in FAST))
@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b"7", b'{"key": "\xff"}', b'{"key": "\\ud800"}', b"[" * 100_000, b"{}" * 2]
)
def test_garbage_is_the_caller_s_fault(master: Master, path: str, body: bytes) -> None:
    assert master.post(path, body, headers=JSON).status in (413, 422)
    assert master.post(path, body).status == 415


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
def test_only_post(master: Master, method: str) -> None:
    for path in FAST:
        assert master.request(method, path.removeprefix("/api/v1")).status == 405


def test_nothing_is_stored_that_was_not_sent_whole(master: Master) -> None:
    """A body that breaks off is no request: the key stays as it was, and the Master answers the next caller."""
    head = b"POST /api/v1/store/put HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", master.port)) as connection:
        connection.sendall(head + f"Authorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n".encode() + b'{"key":')
    assert master.store("get", key="broken off")["value"] is None


def test_a_word_that_the_store_does_not_have(master: Master) -> None:
    refused(master.post("/store/flushall", {}), 404, "not_found")
