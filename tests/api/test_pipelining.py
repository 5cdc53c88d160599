"""Requests sent before the one ahead is answered, and callers that leave in the middle: no word of it in the log."""

import socket

import pytest

from tests.api.master import TOKEN, Master, job

WAIT = "/runs/@last/wait?timeout_s="
ASK = f"GET /api/v1{WAIT}0.1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
ROUNDS = 20


@pytest.fixture(autouse=True)
def living(master: Master) -> None:
    """A run to wait for, whose end nobody sees."""
    master.submit(job({"job_id": "a", "requirement": ["NOBODY"]}))


def settle(master: Master) -> None:
    """Return when the waits that were begun before are over."""
    assert master.get(f"{WAIT}0.5").status == 200


@pytest.mark.parametrize("after", [b"\x00 is no request\r\n\r\n", ASK + b"\x00\r\n\r\n", ASK * 50 + b"\xff"])
def test_what_is_no_request_behind_one_that_is_leaves_no_error(
    master: Master, caplog: pytest.LogCaptureFixture, after: bytes
) -> None:
    """The connection ends while the first is being answered."""
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", master.port), timeout=60) as connection:
            connection.sendall(ASK + after)
            while connection.recv(65_536):
                pass
    settle(master)
    assert [record.getMessage() for record in caplog.records] == []


def test_who_leaves_with_requests_in_line_leaves_no_error(master: Master, caplog: pytest.LogCaptureFixture) -> None:
    for count in range(1, ROUNDS):
        with socket.create_connection(("127.0.0.1", master.port), timeout=60) as connection:
            connection.sendall(ASK * count)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    settle(master)
    assert [record.getMessage() for record in caplog.records] == []


def test_requests_in_line_are_all_answered(master: Master) -> None:
    with socket.create_connection(("127.0.0.1", master.port), timeout=60) as connection:
        connection.sendall(ASK * 5)
        came = bytearray()
        while came.count(b"HTTP/1.1 200") < 5:
            part = connection.recv(65_536)
            assert part, came
            came += part
