"""The server in front of the application: uvicorn without its own idea of signals and logs, and its door.

A connection costs its caller little and could cost us much, so what has shown no good will yet is bounded. Behind TLS
we accept by ourselves: a handshake has 10 s, and when 200 are under way the oldest is closed for the next, so that
whoever only holds connections open keeps nobody out. What is no TLS is closed. A request's head has 10 s as well.
"""

import asyncio
import contextlib
import errno
import functools
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from titan.master.asgi import SECURITY_HEADERS
from titan.master.problems import MEDIA_TYPE, HttpError, encode, new_request_id
from titan.model.limits import Limits, change

KEEP_ALIVE_S = 75
GRACE_S = 2
HANDSHAKE_S_MAX = 10.0
HANDSHAKES_MAX = 200
HEAD_S_MAX = 10.0
MESSAGE_TOO_BIG = 1009  # of RFC 6455
# Out of descriptors: some are freed while this passes.
ACCEPT_AGAIN_S = 0.1
LOG = logging.getLogger("titan.master")
QUIET = logging.getLogger("titan.master.http")
QUIET.setLevel(logging.ERROR)  # a line for all that is no HTTP would let anybody fill the disk
Factory = Callable[[], asyncio.Protocol]


class UnusableCertificate(Exception):
    """The certificate or its key cannot be used; the message says why."""


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the context of the server: TLS 1.2 or newer. Raises UnusableCertificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        if isinstance(error, ssl.SSLError):  # its own words name lines of OpenSSL's source
            why = "it is not PEM, or the key is not its own"
        raise UnusableCertificate(f"{certificate} with the key {key} cannot be used: {why}") from None
    return context


class Server(uvicorn.Server):
    """One listening server; `listening` is called once it accepts."""

    def __init__(
        self,
        app: "uvicorn._types.ASGIApplication",
        limits: Limits,
        listening: Callable[[], None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._made = cast("Any", functools.partial(PatientProtocol, head_bytes_max=limits.head_bytes_max))
        config = uvicorn.Config(
            app,
            loop="none",
            http=self._made,
            ws=WebSocketProtocol,
            ws_max_size=limits.frame_bytes_max,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            log_level="error",  # a warning for every request that is none would let anybody fill the disk
            access_log=False,
            server_header=False,
            headers=[(name.decode(), value.decode()) for name, value in SECURITY_HEADERS],
            proxy_headers=False,  # whoever asks from loopback could otherwise name any address as its own
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
        super().__init__(config)
        self._listening = listening
        self._tls = tls
        self._doors: list[TlsDoor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, and say so."""
        await super().startup(sockets if self._tls is None else [])
        if self._tls is not None:
            self._doors = [TlsDoor(listener, self._protocol, self._tls) for listener in sockets or ()]
        self._listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, and let what is open end."""
        for door in self._doors:
            await door.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process."""
        yield

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self._made(config=self.config, server_state=self.server_state, app_state={})
        return made


class PatientProtocol(HttpToolsProtocol):
    """HTTP, where the head of a request has HEAD_S_MAX to arrive; the body's pace is its reader's business.

    A head has `head_bytes_max` bytes at most, and what is no HTTP is refused in the words of every other refusal.
    """

    _due: asyncio.TimerHandle | None = None
    _served: Any = None

    def __init__(self, *arguments: Any, head_bytes_max: int, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._head_bytes_max = head_bytes_max
        self.logger = QUIET
        self._arrived = 0  # bytes that came while a head was awaited
        self._too_large = False

    def data_received(self, data: bytes) -> None:
        """Some bytes."""
        self._arrived += len(data)
        super().data_received(data)
        if self._due is None:
            self._arrived = 0
        elif self._arrived > self._head_bytes_max and not self.transport.is_closing():
            self._too_large = True
            self.send_400_response("")

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - its words are those of a parser
        """Refuse what cannot be read as a request, and what it would have been followed by."""
        self._let_go()
        error = HttpError(400, "what came is no HTTP request", hint="speak HTTP/1.1, without two lengths of one body")
        if self._too_large:
            text = f"the head of the request is over the limit of {self._head_bytes_max} bytes"
            error = HttpError(431, text, code="too_large", hint=change("head_bytes_max"))
        error.request_id = new_request_id()
        status, headers, body = encode(error)
        headers |= {"content-type": MEDIA_TYPE, "content-length": str(len(body)), "connection": "close"}
        lines = [b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode())]
        lines += [b"%b: %b" % pair for pair in self.server_state.default_headers]
        lines += [f"{name}: {value}".encode("latin-1") for name, value in headers.items()]
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection whose first request has to come."""
        super().connection_made(transport)
        self._await_head()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        if self._due is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        """Its head is whole."""
        self._forget_head()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self._head_bytes_max:
            self._too_large = True
            raise ValueError("the head is too large")
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """It is a WebSocket from here on."""
        self._forget_head()
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing comes any more."""
        self._forget_head()
        self._let_go()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def _let_go(self) -> None:
        """Nobody hears the answer that is being made; the library knows that of the last request that came alone."""
        self.pipeline.clear()
        if self._served is not None and not self._served.response_complete:
            self._served.disconnected = True
            self._served.message_event.set()

    def _drop(self) -> None:
        self._let_go()
        self.transport.close()

    def _await_head(self) -> None:
        self._due = self.loop.call_later(HEAD_S_MAX, self._drop)

    def _forget_head(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket. What the library itself refuses, as a handshake that is none, has the security headers too."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        reject = self.conn.reject

        def guarded(status: Any, text: str) -> Any:
            response = reject(status, text)
            response.headers.update([(name.decode(), value.decode()) for name, value in SECURITY_HEADERS])
            return response

        self.conn.reject = guarded  # type: ignore[method-assign]
        fail = self.conn.fail

        def told(code: int, reason: str = "") -> None:
            fail(code, f"{reason}: send less at once" if code == MESSAGE_TOO_BIG else reason)

        self.conn.fail = told  # type: ignore[method-assign]

    def send_receive_event_to_app(self) -> None:
        """Hand on a whole message. Reading stops when a second one waits: the library would stop and go at each."""
        alone = self.queue.empty() and not self.read_paused
        self.read_paused = self.read_paused or alone
        super().send_receive_event_to_app()
        self.read_paused = self.read_paused and not alone

    async def send(self, message: Any) -> None:
        """Send; a refusal in words is the end of the handshake, or an error would be logged for each."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True


class TlsDoor:
    """Accepts from `listener`, and hands on what has shown that it speaks TLS."""

    def __init__(self, listener: socket.socket, factory: Factory, context: ssl.SSLContext) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._factory = factory
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._pending: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._loop.add_reader(listener, self._accept)
        self._again: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        """Accept nothing more, and drop the handshakes that are under way."""
        self._loop.remove_reader(self._listener)
        if self._again is not None:
            self._again.cancel()
        pending = list(self._pending)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(HANDSHAKES_MAX):
            try:
                connected, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    LOG.error("no connection can be accepted for a moment: %s", error.strerror)
                    self._loop.remove_reader(self._listener)
                    self._again = self._loop.call_later(ACCEPT_AGAIN_S, self._resume)
                    return
                continue  # it was gone again before we took it
            connected.setblocking(False)
            self._begin(connected)

    def _resume(self) -> None:
        self._again = None
        self._loop.add_reader(self._listener, self._accept)

    def _begin(self, connected: socket.socket) -> None:
        while len(self._pending) >= HANDSHAKES_MAX:
            oldest = next(iter(self._pending))
            del self._pending[oldest]
            oldest.cancel()
        task = self._loop.create_task(self._shake(connected))
        self._pending[task] = None
        task.add_done_callback(lambda done: self._pending.pop(done, None))

    async def _shake(self, connected: socket.socket) -> None:
        protocol: Any = None

        def made() -> asyncio.Protocol:
            nonlocal protocol
            protocol = self._factory()
            return protocol  # type: ignore[no-any-return]

        try:
            await self._loop.connect_accepted_socket(
                made, connected, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S_MAX
            )
        except (OSError, ConnectionError) as error:
            LOG.debug("a connection did not begin with TLS: %s", error)
        finally:
            if protocol is None or protocol.transport is None:
                connected.close()
