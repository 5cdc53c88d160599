"""One HTTP/1.1 connection as a client: small requests in one packet, answers parsed in one pass.

The standard library's http.client does this as well, at a price that every job pays which talks to its Master:
importing it takes some 20 ms more (it brings email and ssl), and each call sends head and body apart and parses
headers as a mail, which makes a store read half as slow again (docs/decisions/sdk-http.md). What is left out here is
what a Master never sends: redirects, compression, trailers with a meaning, pipelining.

Anything unexpected is Broken, an OSError like all other trouble with a connection; the connection is then of no use.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping

HEAD_BYTES_MAX = 64 * 1024
RECEIVE_BYTES = 256 * 1024
CHUNK_LINE_BYTES_MAX = 1024
NO_BODY = (204, 304)
HEX_DIGITS = b"0123456789abcdefABCDEF"


class Broken(ConnectionError):
    """What arrived is not the answer of an HTTP server, or not all of it."""


class Connection:
    """An open socket to `host`, with what was received and not yet read.

    `authority` is the Host header. `ca` is None for no TLS, else whom to trust, see `titan_sdk.trust`.
    Raises OSError, also UnicodeError for a host that can be no name, and what `trust.context_for` raises.
    """

    def __init__(self, host: str, port: int, authority: str, connect_s: float, ca: str | None = None) -> None:
        import socket

        self._authority = authority
        self._received = bytearray()
        self._open = True
        context = None
        if ca is not None:
            from titan_sdk.trust import context_for

            context = context_for(ca, host, port, connect_s)
        self._sock: socket.socket = socket.create_connection((host, port), connect_s)
        try:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                self._sock = context.wrap_socket(self._sock, server_hostname=host)
        except BaseException:
            self._sock.close()
            raise

    def is_fresh(self) -> bool:
        """Whether it may carry another request: still open, and nothing has arrived that nobody asked for."""
        if not self._open or self._received:
            return False
        import select

        if not hasattr(select, "poll"):  # Windows
            return not select.select([self._sock], [], [], 0)[0]
        watch = select.poll()
        watch.register(self._sock, select.POLLIN)
        return not watch.poll(0)

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Iterator[bytes] | None,
        answer_s: float,
    ) -> None:
        """Send a request; pieces travel chunked unless `headers` say how long they are.

        From here on each wait for the other side lasts `answer_s` at most. A server may refuse before it has read
        everything, and close: then its answer is there to be read, so a connection that takes no more is not an error
        yet. Raises OSError otherwise.
        """
        self._sock.settimeout(answer_s)
        is_sized = "Content-Length" in headers
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if isinstance(body, bytes):
            lines.append(f"Content-Length: {len(body)}")
        elif body is not None and not is_sized:
            lines.append("Transfer-Encoding: chunked")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        try:
            if body is None:
                self._sock.sendall(head)
            elif isinstance(body, bytes):
                self._sock.sendall(head + body)
            else:
                self._sock.sendall(head)
                for piece in filter(None, body):
                    self._sock.sendall(piece if is_sized else b"%x\r\n%b\r\n" % (len(piece), piece))
                if not is_sized:
                    self._sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self._open = False

    def answer(self) -> Answer:
        """Return the head of the next answer; its body is read from it. Raises OSError."""
        while True:
            status, headers = self._head()
            if status >= 200:
                break
        if "close" in headers.get("connection", "").lower():
            self._open = False
        return Answer(self, status, headers)

    def close(self) -> None:
        """Close it; closing again does nothing."""
        self._open = False
        self._sock.close()

    def _head(self) -> tuple[int, dict[str, str]]:
        lines = self.until(b"\r\n\r\n", HEAD_BYTES_MAX).decode("latin-1").split("\r\n")
        protocol, _, rest = lines[0].partition(" ")
        if protocol not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdecimal():
            raise Broken("what answered does not speak HTTP/1.1")
        if protocol == "HTTP/1.0":
            self._open = False
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return int(rest[:3]), headers

    def until(self, end: bytes, bytes_max: int) -> bytes:
        """Return what comes before `end`, and drop `end`. Raises Broken when it does not come in `bytes_max`."""
        seen = 0
        while (at := self._received.find(end, seen)) < 0:
            seen = max(0, len(self._received) - len(end) + 1)
            if len(self._received) > bytes_max or not self.receive():
                raise Broken("the connection was closed in the middle of an answer")
        found = bytes(self._received[:at])
        del self._received[: at + len(end)]
        return found

    def some(self, count: int) -> bytes:
        """Return what has come, at least 1 byte and at most `count`. Raises Broken when nothing comes."""
        if not self._received and not self.receive():
            raise Broken("the connection was closed in the middle of an answer")
        if len(self._received) <= count:
            taken, self._received = self._received, bytearray()
            return bytes(taken)
        return self.take(count)

    def take(self, count: int) -> bytes:
        """Return exactly `count` bytes. Raises Broken when they do not come."""
        received = self._received
        while len(received) < count:
            if not self.receive():
                raise Broken("the connection was closed in the middle of an answer")
        if len(received) == count:
            self._received = bytearray()
            return bytes(received)
        taken = bytes(received[:count])
        del received[:count]
        return taken

    def rest(self) -> Iterator[bytes]:
        """Yield all that comes until the other side closes."""
        self._open = False
        while self._received or self.receive():
            piece, self._received = bytes(self._received), bytearray()
            yield piece

    def receive(self) -> bool:
        """Wait for more bytes; False when the other side has closed."""
        data = self._sock.recv(RECEIVE_BYTES)
        self._received += data
        return bool(data)


class Answer:
    """An answer: `status`, `headers` with lower-case names, and the body, which has to be read."""

    __slots__ = ("_connection", "headers", "status")

    def __init__(self, connection: Connection, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection

    def read(self) -> bytes:
        """Return the whole body. Raises OSError when it breaks off."""
        length = self.headers.get("content-length", "")
        if length.isdecimal() and self.status not in NO_BODY and "transfer-encoding" not in self.headers:
            return self._connection.take(int(length))
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it arrives. Raises OSError when it breaks off."""
        length = self.headers.get("content-length")
        if self.status in NO_BODY:
            return
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
        elif length is None:
            yield from self._connection.rest()
        elif length.isdecimal():
            left = int(length)
            while left:
                piece = self._connection.some(left)
                left -= len(piece)
                yield piece
        else:
            raise Broken("the connection lost its place in an answer")

    def lines(self) -> Iterator[bytes]:
        """Yield the body in lines, each as soon as it is whole. Raises OSError when it breaks off."""
        pending = b""
        for piece in self.pieces():
            *whole, pending = (pending + piece).split(b"\n")
            for line in whole:
                yield line + b"\n"

    def _chunks(self) -> Iterator[bytes]:
        connection = self._connection
        while True:
            size = connection.until(b"\r\n", CHUNK_LINE_BYTES_MAX).split(b";")[0].strip()
            if not size or size.strip(HEX_DIGITS):
                raise Broken("the connection lost its place in an answer")
            count = int(size, 16)
            if count == 0:
                break
            yield connection.take(count)
            connection.take(2)
        while connection.until(b"\r\n", HEAD_BYTES_MAX):
            pass
