"""One kept-alive connection to one endpoint, and what its answers mean."""

from __future__ import annotations

import os

from titan_sdk.errors import TitanError, Unauthenticated, Unavailable, Unreachable, from_problem
from titan_sdk.http1 import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from titan_sdk.discovery import Endpoint
    from titan_sdk.http1 import Answer

JSON = "application/json"
PROBLEM = "application/problem+json"
OVERLOADED = (429, 502, 503, 504)


class CannotConnect(Exception):
    """Nobody took the connection; `__cause__` says why. Never leaves the transport."""


class Reply:
    """One answer of 200 to 299: `headers` with lower-case names, `body` whole."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, answer: Answer) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = answer.read()

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
        """Connect within `connect_s` seconds. Raises CannotConnect, and at once what is no matter of patience.

        That is a certificate that is not to be trusted (Unreachable), or a TITAN_CA that cannot be used (Invalid).
        """
        self.endpoint = endpoint
        self._pid = os.getpid()
        ca = endpoint.ca if endpoint.scheme == "https" else None
        try:
            self._connection = Connection(endpoint.host, endpoint.port, endpoint.authority, connect_s, ca)
        except TitanError:
            raise
        except (OSError, UnicodeError) as error:
            if hasattr(error, "verify_message"):
                from titan_sdk.trust import not_verified

                raise not_verified(endpoint.url, error) from error
            raise CannotConnect from error

    def is_fresh(self) -> bool:
        """Whether it may carry another request, and is not the one of the process that forked this one."""
        return self._pid == os.getpid() and self._connection.is_fresh()

    def ask(
        self, method: str, target: str, headers: dict[str, str], body: bytes | Iterator[bytes] | None, answer_s: float
    ) -> Answer:
        """Send one request; return the answer's head, its body unread.

        Raises OSError when the connection fails, and the TitanError the Master answered.
        """
        if self.endpoint.token:
            headers = {**headers, "Authorization": f"Bearer {self.endpoint.token}"}
        self._connection.send(method, target, headers, body, answer_s)
        answer = self._connection.answer()
        if answer.status >= 300:
            raise self._error_of(Reply(answer))
        return answer

    def close(self) -> None:
        """Close it; closing again does nothing."""
        self._connection.close()

    def __del__(self) -> None:
        """Close it, so that a thread that ends leaves no open socket behind."""
        if hasattr(self, "_connection"):
            self._connection.close()

    def _error_of(self, reply: Reply) -> TitanError:
        kind = reply.headers.get("content-type", "").split(";")[0]
        document = reply.json() if kind == PROBLEM else None
        error: TitanError
        if isinstance(document, dict):
            error = from_problem(document)
        elif reply.status in OVERLOADED:
            error = Unavailable(f"{self.endpoint.url} answered HTTP {reply.status}")
        else:
            error = _not_a_master(f"HTTP {reply.status}, {kind or 'no content type'}")
        asked = reply.headers.get("retry-after", "")
        if error.retry_after_s is None and asked.isdecimal():
            error.retry_after_s = float(asked)
        if isinstance(error, Unauthenticated) and not self.endpoint.token:
            error.hint = (
                f"no token was found for {self.endpoint.url}: pass token=, or set TITAN_TOKEN. "
                "The home's token is sent only to this machine and to the URL recorded in the home"
            )
            if self.endpoint.by_project:
                error.hint = (
                    f"{self.endpoint.origin} alone names {self.endpoint.url}, and a project's file is shown no token: "
                    "if you trust it, give --url, set TITAN_URL, or make it a profile of your own"
                )
        return error


def _not_a_master(what: str) -> Unreachable:
    return Unreachable(f"what answered is not a Titan Master ({what})", hint="check host, port and TITAN_URL")
