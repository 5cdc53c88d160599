"""Answers in every shape HTTP/1.1 allows, whole and broken."""

import pytest

from tests.sdk.double import Double, Last, raw
from titan_sdk.http1 import HEAD_BYTES_MAX, Broken, Connection


def connection_to(master: Double) -> Connection:
    return Connection("127.0.0.1", master.port, f"127.0.0.1:{master.port}", 5)


def read(data: bytes, *, fresh: bool | None = None) -> tuple[int, bytes]:
    """Return status and body of the answer `data`; check whether the connection may be used again."""
    with Double(data) as master:
        connection = connection_to(master)
        try:
            connection.send("GET", "/", {}, None, 5)
            answer = connection.answer()
            body = answer.read()
            if fresh is not None:
                assert connection.is_fresh() is fresh
            return answer.status, body
        finally:
            connection.close()


def chunked(*chunks: bytes, trailer: bytes = b"", extension: bytes = b"") -> bytes:
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in (*chunks, b"") if chunk)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n" + body + b"0\r\n" + trailer + b"\r\n"


@pytest.mark.parametrize(
    ("data", "status", "body", "fresh"),
    [
        (raw(b"hello"), 200, b"hello", True),
        (raw(b""), 200, b"", True),
        (raw(b"x" * 1_000_000), 200, b"x" * 1_000_000, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 200\r\nCONTENT-LENGTH:  2 \r\n\r\nok", 200, b"ok", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + raw(b"late"), 200, b"late", True),
        (raw(b"bye", connection="Close"), 200, b"bye", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, b"ok", False),
        (chunked(b"one", b"two" * 100_000), 200, b"one" + b"two" * 100_000, True),
        (chunked(), 200, b"", True),
        (chunked(b"x", trailer=b"a: b\r\nc: d\r\n"), 200, b"x", True),
        (chunked(b"x", extension=b";name=value"), 200, b"x", True),
        (raw(b"hello") + b"unasked", 200, b"hello", False),
    ],
)
def test_whole_answers(data: bytes, status: int, body: bytes, fresh: bool) -> None:
    assert read(data, fresh=fresh) == (status, body)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1" * 3000,
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (HEAD_BYTES_MAX + 300_000),
    ],
)
def test_broken_answers(data: bytes) -> None:
    with pytest.raises(Broken):
        read(Last(data))


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    data = b"HTTP/1.1 200 OK\r\n\r\nall there is"
    assert read(Last(data), fresh=False) == (200, b"all there is")


def test_lines_arrive_whole_however_they_were_cut() -> None:
    with Double(chunked(b"a: 1\nb", b": 2\n", b"\n", b"rest without an end")) as master:
        connection = connection_to(master)
        connection.send("GET", "/", {}, None, 5)
        assert list(connection.answer().lines()) == [b"a: 1\n", b"b: 2\n", b"\n"]
        connection.close()


def test_what_is_sent() -> None:
    with Double() as master:
        connection = connection_to(master)
        for body in (None, b"", b"four", iter([b"one", b"", b"two"])):
            connection.send("PUT", "/x?y=1", {"A": "b"}, body, 5)
            connection.answer().read()
        connection.close()
    assert [request.body for request in master.requests] == [b"", b"", b"four", b"onetwo"]
    lengths = [request.headers.get("content-length") for request in master.requests]
    assert lengths == [None, "0", "4", None]
    assert master.requests[3].headers["transfer-encoding"] == "chunked"
    assert {request.target for request in master.requests} == {"/x?y=1"}
    assert {request.headers["host"] for request in master.requests} == {f"127.0.0.1:{master.port}"}
    assert {request.headers["a"] for request in master.requests} == {"b"}
