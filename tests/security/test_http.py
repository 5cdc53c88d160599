"""What is not quite HTTP, too large, or packed, and what our own faults tell: S28, S29, S36, S54."""

import gzip
import hashlib
import json
import socket
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.api import master as api
from tests.api.master import JSON, TOKEN, Answer, Master
from tests.api.test_gate import served
from tests.security.walk import LINK, UPGRADE, Ids, ask
from titan import __version__
from titan.master.api import artifacts, audit, blobs, feeds, jobs, joining, link, registry, runs, store, tokens, watch
from titan.model.limits import Limits

WHO = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
GET = "GET /api/v1/stats HTTP/1.1\r\n"
POST = f"POST /api/v1/store/get HTTP/1.1\r\n{WHO}Content-Type: application/json\r\n"
CHUNKED = f"{POST}Transfer-Encoding: chunked\r\n\r\n"
BODY = '{"key":"a"}'
NEXT = f"{GET}{WHO}\r\n"
NO_HTTP = {
    "two lengths": f"{POST}Content-Length: 11\r\nContent-Length: 12\r\n\r\n{BODY}",
    "one length twice": f"{POST}Content-Length: 11\r\nContent-Length: 11\r\n\r\n{BODY}",
    "a list of lengths": f"{POST}Content-Length: 11, 11\r\n\r\n{BODY}",
    "a length and chunks": f"{POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{NEXT}",
    "chunks and a length": f"{POST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{NEXT}",
    "an unknown coding": f"{POST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{NEXT}",
    "chunked and not last": f"{POST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{NEXT}",
    "chunked twice": f"{POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{NEXT}",
    "identity": f"{POST}Transfer-Encoding: identity\r\nContent-Length: 11\r\n\r\n{BODY}",
    "a space before the colon": f"{POST}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{NEXT}",
    "a tabulator of lines": f"{POST}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{NEXT}",
    "a folded header": f"{GET}{WHO}X: a\r\n b\r\n\r\n",
    "a folded length": f"{POST}Content-Length:\r\n 11\r\n\r\n{BODY}",
    "bare line feeds": NEXT.replace("\r\n", "\n"),
    "one bare line feed": f"{GET}X: 1\n{WHO}\r\n",
    "a bare return": f"{GET}X: a\rY: b\r\n{WHO}\r\n",
    "a NUL": f"{GET}X: a\0b\r\n{WHO}\r\n",
    "a length below zero": f"{POST}Content-Length: -11\r\n\r\n{BODY}",
    "a length with a sign": f"{POST}Content-Length: +11\r\n\r\n{BODY}",
    "a length in hex": f"{POST}Content-Length: 0xb\r\n\r\n{BODY}",
    "a length over 64 bits": f"{POST}Content-Length: 18446744073709551627\r\n\r\n{BODY}",
    "an empty length": f"{POST}Content-Length: \r\n\r\n{BODY}",
    "a length in two": f"{POST}Content-Length: 1 1\r\n\r\n{BODY}",
    "a chunk below zero": f"{CHUNKED}-b\r\n{BODY}\r\n0\r\n\r\n",
    "a chunk with a prefix": f"{CHUNKED}0xb\r\n{BODY}\r\n0\r\n\r\n",
    "a chunk over 64 bits": f"{CHUNKED}1000000000000000b\r\n{BODY}\r\n0\r\n\r\n",
    "chunks by line feeds": f"{CHUNKED}b\n{BODY}\n0\n\n",
    "a chunk without its end": f"{CHUNKED}b\r\n{BODY}XX0\r\n\r\n",
    "a name with a space": f"{GET}X Y: 1\r\n{WHO}\r\n",
    "no name": f"{GET}: 1\r\n{WHO}\r\n",
    "no colon": f"{GET}nothing\r\n{WHO}\r\n",
    "a header that begins with a space": f"{GET} X: 1\r\n{WHO}\r\n",
    "version 9.9": f"GET /api/v1/stats HTTP/9.9\r\n{WHO}\r\n",
    "tabulators": f"GET\t/api/v1/stats\tHTTP/1.1\r\n{WHO}\r\n",
    "another protocol": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


def exchanged(master: Master, sent: bytes) -> bytes:
    """Send bytes and return all that comes back until the Master closes."""
    got = bytearray()
    with socket.create_connection(("127.0.0.1", master.port), timeout=api.WAIT_S) as connection:
        try:
            connection.sendall(sent)
            while part := connection.recv(65_536):
                got += part
        except ConnectionError:
            pass  # it closed while we were still sending
    return bytes(got)


@pytest.mark.parametrize("name", NO_HTTP)
def test_s36_what_two_programs_could_read_in_two_ways_is_read_in_none(master: Master, name: str) -> None:
    got = exchanged(master, NO_HTTP[name].encode("latin-1"))
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 "), got
    assert got.count(b"HTTP/1.1 ") == 1, "what follows was answered too"
    assert b"connection: close" in head.lower()
    assert b"x-content-type-options: nosniff" in head.lower()
    assert json.loads(body)["code"] == "invalid"
    assert json.loads(body)["request_id"]


def test_s36_the_body_of_a_get_is_no_second_request(master: Master) -> None:
    sent = f"{GET}{WHO}Content-Length: {len(NEXT)}\r\n\r\n{NEXT}{GET}{WHO}Connection: close\r\n\r\n"
    assert exchanged(master, sent.encode()).count(b"HTTP/1.1 200") == 2


def test_s28_a_head_without_an_end_is_cut(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = HttpToolsProtocol.data_received

    def counted(self: Any, data: bytes) -> None:
        read.append(len(data))
        original(self, data)

    monkeypatch.setattr(HttpToolsProtocol, "data_received", counted)
    for begin in (GET + "X: ", f"{GET}{WHO}X: ", "GET /", f"{GET}" + "X: 1\r\n" * 50_000):
        read.clear()
        got = exchanged(master, begin.encode() + b"x" * 5_000_000)
        assert sum(read) <= Limits().head_bytes_max + 2 * 256_000, begin[:20]
        if got:  # a reset may overtake it while we are still sending
            assert got.startswith(b"HTTP/1.1 431 ")
            assert b"TITAN_LIMIT_HEAD_BYTES_MAX" in got


# Packed bodies


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-gzip"])
def test_s29_no_body_is_unpacked(master: Master, coding: str) -> None:
    document = json.dumps({"key": "packed", "value": "1" * 500_000}).encode()
    packed = zlib.compress(document) if coding == "deflate" else gzip.compress(document)
    for path, kind in (
        ("/store/put", "application/json"), ("/runs", "application/json"), ("/runs", "application/x-ndjson"),
        ("/tokens", "application/json"),
    ):  # fmt: skip
        answer = master.post(path, packed, headers={"Content-Type": kind, "Content-Encoding": coding})
        assert answer.status in (413, 415, 422), path
    assert master.store("get", key="packed")["value"] is None
    kept = master.put("/registry/packed.gz", packed, headers={"Content-Encoding": coding}).json
    assert kept["sha256"] == hashlib.sha256(packed).hexdigest(), "a file is kept as it came"


def test_s29_no_answer_and_no_websocket_is_packed(master: Master) -> None:
    assert "content-encoding" not in ask(master, "GET", "/api/v1/openapi.json", TOKEN, "Accept-Encoding: gzip").headers
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    answer = ask(master, "GET", LINK, TOKEN, *UPGRADE, offer)
    assert (answer.status, answer.headers.get("sec-websocket-extensions")) == (101, None)


def test_s29_a_packed_frame_is_refused_and_not_unpacked(master: Master) -> None:
    """The bit that says so was not agreed on: 1002, whatever the megabytes it would have become."""
    packed = zlib.compressobj(wbits=-15)
    bomb = (packed.compress(bytes(1_000_000)) + packed.flush(zlib.Z_SYNC_FLUSH))[:-4]
    frame = bytes([0xC2, 0x80 | 126]) + len(bomb).to_bytes(2, "big") + bytes(4) + bomb
    said = first_said(master, frame)
    assert (said[0], int.from_bytes(said[2:4], "big")) == (0x88, 1002), said


def first_said(master: Master, frame: bytes = b"") -> bytes:
    """Open a worker's WebSocket, send a frame and return the first short one that comes back."""
    with socket.create_connection(("127.0.0.1", master.port), timeout=api.WAIT_S) as connection:
        head = [f"GET {LINK} HTTP/1.1", WHO + UPGRADE[0], *UPGRADE[1:], "", ""]
        connection.sendall("\r\n".join(head).encode())
        answer = connection.makefile("rb")
        assert answer.readline().startswith(b"HTTP/1.1 101")
        while answer.readline() != b"\r\n":
            pass
        connection.sendall(frame)
        begin = answer.read(2)
        return begin + answer.read(begin[1])


# Faults of ours


class Canary(Exception):
    """A fault whose words must stay with us."""


CANARY = "SELECT token FROM secrets WHERE path='/root/titan.db'"
QUERY = "?id=x&ids=x&key=k&name=n&limit=1"


def failing(*_: object) -> Any:
    raise Canary(CANARY)


def every_handler_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (artifacts, audit, blobs, feeds, jobs, joining, link, registry, runs, store, tokens, watch):
        for name in ("site_of", "engine_of"):
            monkeypatch.setattr(module, name, failing, raising=False)


def test_s54_a_fault_in_any_handler_tells_a_code_and_an_id_and_nothing_else(
    master: Master, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    every_handler_fails(monkeypatch)
    failed = 0
    for method, path, name in sorted(served(master)):
        if name in ("health", "openapi"):
            continue
        query = QUERY.replace("&name=n", "") if name == "artifacts.get" else QUERY  # one or the other
        answer = ask(master, method, Ids().fill(path) + query, TOKEN, "Content-Type: application/json", body=b"{}")
        assert (answer.status, answer.code) == (500, "internal"), (name, answer.body)
        check(answer)
        assert answer.json["request_id"] in caplog.text, "our own log has it"
        failed += 1
    assert failed >= 40
    assert CANARY in caplog.text
    assert caplog.text.count("Traceback") >= failed
    said = first_said(master)
    assert said[0] == 0x88
    assert CANARY.encode() not in said
    assert b".py" not in said


def check(answer: Answer) -> None:
    """Nothing of ours is in it but the code and the id."""
    said = answer.body.decode() + json.dumps(answer.headers)
    for word in (
        "SELECT",
        "secrets",
        "/root",
        "Traceback",
        "Canary",
        ".py",
        "titan.db",
        __version__,
        "uvicorn",
        "sqlite",
    ):
        assert word.lower() not in said.lower(), word
    assert set(answer.json) == {"code", "title", "status", "detail", "hint", "problems", "request_id"}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda it: it.get("/runs/nothing"),
        lambda it: it.get("/nothing"),
        lambda it: it.post("/runs", b"{", headers=JSON),
        lambda it: it.post("/store/put", {"key": ""}),
        lambda it: it.get("/runs", token="wrong"),
        lambda it: it.request("PATCH", "/runs"),
        lambda it: it.get("/runs?limit=x"),
    ],
)
def test_s54_what_is_refused_tells_nothing_of_ours_either(master: Master, wrong: Callable[[Master], Answer]) -> None:
    answer = wrong(master)
    assert 400 <= answer.status < 500
    check(answer)
