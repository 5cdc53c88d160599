"""The TLS door: who speaks no TLS, an old one, or nothing at all is closed, and keeps nobody out."""

import asyncio
import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import uvloop

from titan.cli import certificates
from titan.cli.certificates import Files
from titan.master import server as module
from titan.master.server import Server, UnusableCertificate, tls_context
from titan.model.limits import DEFAULT_LIMITS
from titan_sdk.trust import context_for

ASK = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Door:
    """A server behind TLS with an application that says ok; `requests` are the heads that arrived."""

    def __init__(self, folder: Path, files: Files | None = None) -> None:
        self.files = files or certificates.own(folder, ["127.0.0.1"], dt.datetime.now(dt.UTC))
        self.requests: list[Any] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(60)

    def knock(self) -> socket.socket:
        """Connect and say nothing."""
        return socket.create_connection(("127.0.0.1", self.port), 60)

    def enter(self) -> ssl.SSLSocket:
        """Connect as a client does."""
        context = context_for(self.files.ca, "127.0.0.1", self.port, 60)
        return context.wrap_socket(self.knock(), server_hostname="127.0.0.1")

    def is_served(self) -> bool:
        with self.enter() as client:
            client.sendall(ASK)
            return client.recv(4096).startswith(b"HTTP/1.1 200 ")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            self.requests.append(scope)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})

        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            tls = tls_context(self.files.certificate, self.files.key)
            self._server = Server(application, DEFAULT_LIMITS, self._ready.set, tls)
            await self._server.serve(sockets=[listener])


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with Door(tmp_path) as open_door:
        yield open_door


def said(client: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    received = b""
    try:
        while data := client.recv(4096):
            received += data
    except ConnectionResetError:
        pass
    return received


def test_s11_plain_http_to_the_tls_port_is_closed_without_an_answer(door: Door) -> None:
    with door.knock() as client:
        client.sendall(ASK)
        assert b"HTTP/" not in said(client)
    assert door.is_served()


def test_s11_nothing_older_than_tls_1_2_is_spoken(door: Door) -> None:
    assert tls_context(door.files.certificate, door.files.key).minimum_version == ssl.TLSVersion.TLSv1_2
    with door.enter() as client:
        assert client.version() in ("TLSv1.2", "TLSv1.3")


def test_s11_a_handshake_that_does_not_end_is_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_S_MAX", 0.2)
    with Door(tmp_path) as door, door.knock() as silent, door.knock() as slow:
        slow.sendall(b"\x16\x03\x01")
        assert said(silent) == said(slow) == b""
        assert door.is_served()


def test_s11_of_too_many_handshakes_the_oldest_is_closed_and_others_are_served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "HANDSHAKES_MAX", 5)
    with Door(tmp_path) as door:
        silent = [door.knock() for _ in range(8)]
        try:
            assert [said(each) for each in silent[:3]] == [b""] * 3
            assert door.is_served()
            assert said(silent[3]) == b""  # the client's handshake took its place
            silent[7].setblocking(False)
            with pytest.raises(BlockingIOError):
                silent[7].recv(1)
        finally:
            for each in silent:
                each.close()


def test_s11_a_request_whose_head_does_not_end_is_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "HEAD_S_MAX", 0.2)
    with Door(tmp_path) as door, door.enter() as silent, door.enter() as slow, door.enter() as again:
        slow.sendall(b"GET / HTTP/1.1\r\nHost:")
        again.sendall(ASK)
        answer = b""
        while not answer.endswith(b"ok"):
            answer += again.recv(4096)
        again.sendall(ASK[:20])
        assert said(silent) == said(slow) == said(again) == b""
        assert door.is_served()


def test_a_certificate_that_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    files = certificates.own(tmp_path, ["127.0.0.1"], dt.datetime.now(dt.UTC))
    with pytest.raises(UnusableCertificate, match=r"ca\.key.*cannot be used"):
        tls_context(files.certificate, tmp_path / "tls" / "ca.key")
    with pytest.raises(UnusableCertificate, match="No such file"):
        tls_context(tmp_path / "none.pem", files.key)
