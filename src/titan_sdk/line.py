"""One HTTP connection to one endpoint, and what its answers mean."""

from __future__ import annotations

import os

from titan_sdk.errors import TitanError, Unauthenticated, Unavailable, Unreachable, from_problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    import http.client
    from collections.abc import Iterator, Mapping
    from typing import Any

    from titan_sdk.discovery import Endpoint

JSON = "application/json"
PROBLEM = "application/problem+json"
OVERLOADED = (429, 502, 503, 504)


class CannotConnect(Exception):
    """Nobody took the connection; `__cause__` is the OSError. Never leaves the transport."""


class Answer:
    """One answer of 200 to 299: `headers` with lower-case names, `body` whole."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """Return the body decoded. Raises Unreachable when it is not JSON: then no Master answered."""
        import json

        try:
            return json.loads(self.body)
        except ValueError:
            raise _not_a_master(f"HTTP {self.status} without JSON") from None


class Line:
    """A connection, for one thread of one process. Closed when it is dropped."""

    def __init__(self, endpoint: Endpoint, connect_s: float) -> None:
        """Connect within `connect_s` seconds. Raises CannotConnect."""
        import http.client

        self.endpoint = endpoint
        self.used = False
        self._pid = os.getpid()
        self._http: http.client.HTTPConnection
        if endpoint.scheme == "https":
            import ssl

            context = ssl.create_default_context(cafile=os.environ.get("TITAN_CA") or None)
            self._http = http.client.HTTPSConnection(endpoint.host, endpoint.port, timeout=connect_s, context=context)
        else:
            self._http = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=connect_s)
        try:
            self._http.connect()
        except (OSError, UnicodeError) as error:
            raise CannotConnect from error

    def is_fresh(self) -> bool:
        """Whether it may carry another request: ours, open, and nothing has arrived that nobody asked for."""
        sock = self._http.sock
        if sock is None or self._pid != os.getpid():
            return False
        import select

        if not hasattr(select, "poll"):  # Windows
            return not select.select([sock], [], [], 0)[0]
        watch = select.poll()
        watch.register(sock, select.POLLIN)
        return not watch.poll(0)

    def ask(
        self, method: str, target: str, body: bytes | Iterator[bytes] | None, headers: dict[str, str], answer_s: float
    ) -> http.client.HTTPResponse:
        """Send one request; return the answer's head, its body unread.

        Raises OSError or HTTPException when the connection fails, and the TitanError the Master answered.
        """
        if self._http.sock is not None:
            self._http.sock.settimeout(answer_s)
        self.used = True
        if self.endpoint.token:
            headers = {**headers, "Authorization": f"Bearer {self.endpoint.token}"}
        chunked = body is not None and not isinstance(body, bytes)
        if chunked:
            headers = {**headers, "Transfer-Encoding": "chunked"}
        try:
            self._http.request(method, target, body, headers, encode_chunked=chunked)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of the body was sent: the answer may be here already
        response = self._http.getresponse()
        if response.status >= 300:
            raise self._error_of(read(response))
        return response

    def close(self) -> None:
        """Close it; closing again does nothing."""
        self._http.close()

    def __del__(self) -> None:
        """Close it, so that a thread that ends leaves no open socket behind."""
        if hasattr(self, "_http"):
            self._http.close()

    def _error_of(self, answer: Answer) -> TitanError:
        kind = answer.headers.get("content-type", "").split(";")[0]
        document = answer.json() if kind == PROBLEM else None
        error: TitanError
        if isinstance(document, dict):
            error = from_problem(document)
        elif answer.status in OVERLOADED:
            error = Unavailable(f"{self.endpoint.url} answered HTTP {answer.status}")
        else:
            error = _not_a_master(f"HTTP {answer.status}, {kind or 'no content type'}")
        asked = answer.headers.get("retry-after", "")
        if error.retry_after_s is None and asked.isdecimal():
            error.retry_after_s = float(asked)
        if isinstance(error, Unauthenticated) and not self.endpoint.token:
            error.hint = (
                f"no token was found for {self.endpoint.url}: pass token=, or set TITAN_TOKEN. "
                "The home's token is sent only to this machine and to the URL recorded in the home"
            )
        return error


def read(response: http.client.HTTPResponse) -> Answer:
    """Return the answer with its whole body. Raises OSError or HTTPException when it breaks off."""
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


def _not_a_master(what: str) -> Unreachable:
    return Unreachable(f"what answered is not a Titan Master ({what})", hint="check host, port and TITAN_URL")
