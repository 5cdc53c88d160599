"""A Master that says what the test tells it to: raw HTTP on a socket, so that it can also break off.

It proves only how the client treats a connection; what a Master really answers is proved against a real one.
"""

import dataclasses
import json
import socket
import threading
from collections.abc import Callable
from typing import Any, Self

from titan_sdk.errors import TitanError, to_problem
from titan_sdk.transport import Clock


@dataclasses.dataclass(frozen=True)
class Request:
    """What arrived. `connection` counts the accepted connections from 0."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return self.target.removeprefix("/api/v1/").split("?")[0]

    @property
    def key(self) -> str:
        return self.headers.get("idempotency-key", "")

    def json(self) -> Any:
        return json.loads(self.body)


Reply = bytes | None | Callable[[Request], "bytes | None"]
CUT = None  # close without an answer


class Last(bytes):
    """What is sent before the connection is closed."""


def answer(document: Any = None, status: int = 200, *, close: bool = False, **headers: str) -> bytes:
    """Return a whole answer with a JSON body."""
    return raw(
        json.dumps({} if document is None else document).encode(), status, "application/json", close=close, **headers
    )


def raw(body: bytes, status: int = 200, kind: str = "text/plain", *, close: bool = False, **headers: str) -> bytes:
    named = {"content-type": kind, "content-length": str(len(body))}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    if close:
        named["connection"] = "close"
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body


def refusal(error: TitanError, **headers: str) -> bytes:
    """Return the answer a Master gives for `error`."""
    return raw(json.dumps(to_problem(error)).encode(), error.status, "application/problem+json", close=False, **headers)


class Double:
    """Answers each request with the next of its replies, and for ever with the last one."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies) or [answer()]
        self.requests: list[Request] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def hang_up(self) -> None:
        """Close every open connection from this side."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for one in sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                number, self.connections = self.connections, self.connections + 1
                self._sockets.append(connected)
            thread = threading.Thread(target=self._serve, args=(connected, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connected: socket.socket, number: int) -> None:
        with connected, connected.makefile("rb") as stream:
            try:
                while request := _read(stream, number):
                    with self._lock:
                        self.requests.append(request)
                        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                    data = reply(request) if callable(reply) else reply
                    if data is None:
                        connected.shutdown(socket.SHUT_RDWR)
                        return
                    connected.sendall(data)
                    if isinstance(data, Last) or b"\r\nconnection: close\r\n" in data:
                        connected.shutdown(socket.SHUT_RDWR)
                        return
            except (OSError, ValueError):
                return


def _read(stream: Any, number: int) -> Request | None:
    first = stream.readline().decode("latin-1").split()
    if not first:
        return None
    headers = {}
    while line := stream.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(stream.readline(), 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    else:
        body = stream.read(int(headers.get("content-length", 0)))
    return Request(first[0], first[1], headers, body, number)


class FakeClock(Clock):
    """Time that passes only when the client pauses; no jitter."""

    def __init__(self) -> None:
        self.time_s = 1000.0
        self.pauses: list[float] = []

    def now(self) -> float:
        return self.time_s

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time_s += seconds

    def jitter(self) -> float:
        return 1.0


def closed_port() -> int:
    """Return a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
