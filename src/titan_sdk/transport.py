"""Requests with patience, which makes a restart of the Master invisible.

Every request may be sent again: reads change nothing, and every change carries an idempotency key that is the same
on each resend. So a cut connection, a refused one, a 503, a 429 `rate_limited` or a 409 `in_progress` is not the
caller's business until patience ends: 3 s for a client that no Master ever answered (nobody is there), 30 s for one
that was answered before (it is restarting), 120 s inside a job (whose work would be lost). Patience counts from the
first failure of a call, since a call may wait on the server for long. A pause the Master asks for is kept.

Connections are kept alive, one a thread. What they need is imported by the first call, not with the SDK.
"""

from __future__ import annotations

import os

from titan_sdk.errors import Invalid, TitanError, Unreachable
from titan_sdk.line import JSON, CannotConnect, Line, Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, Self, TypeVar

    from titan_sdk.discovery import Finder
    from titan_sdk.http1 import Answer

    Body = bytes | Callable[[], bytes | Iterator[bytes]]
    T = TypeVar("T")

NEVER_REACHED_S = 3.0
REACHED_S = 30.0
IN_JOB_S = 120.0
ANSWER_S = 40.0
PAUSE_FIRST_S = 0.05
PAUSE_MAX_S = 2.0
API = "/api/v1/"
# What OpenSSL calls an answer without TLS.
NO_TLS_THERE = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")
PASSING = ("unavailable", "in_progress", "rate_limited")
UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Clock:
    """Time and chance as the transport sees them; tests bring their own."""

    def now(self) -> float:
        """Return monotonic seconds."""
        from time import monotonic

        return monotonic()

    def pause(self, seconds: float) -> None:
        """Wait before the next attempt."""
        from time import sleep

        sleep(seconds)

    def jitter(self) -> float:
        """Return a factor between 0.5 and 1, which spreads clients that failed together."""
        return 0.5 + os.urandom(1)[0] / 512


class Transport:
    """Sends requests to the Master that `finder` finds; for any number of threads.

    `timeout_s`, if given, replaces all patience and the 40 s that one answer may take.
    """

    def __init__(
        self, finder: Finder, *, timeout_s: float | None = None, in_job: bool = False, clock: Clock | None = None
    ) -> None:
        from _thread import _local  # threading.local, without the 4 ms that importing threading takes

        self.clock = clock or Clock()
        self._finder = finder
        self._timeout_s = timeout_s
        self._in_job = in_job
        self._reached = False
        self._turn = 0
        self._endpoints = 1
        self._closings = 0
        self._own = _local()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Body | None = None,
        content_type: str = JSON,
        key: str = "",
        size: int | None = None,
        wait_s: float = 0.0,
    ) -> Reply:
        """Send a request until it is answered or patience ends; return the answer.

        `body`: bytes, or a function that gives it (bytes or pieces) from its beginning at each attempt; `size`: how
        many bytes the pieces are in all, if that is known. `key`: the idempotency key. `wait_s`: seconds the server
        may take by agreement. Raises the TitanError the Master answered, Unavailable when it kept asking for
        patience, Unreachable when nobody answered.
        """
        target = _target(path, query)
        headers = {"Accept": JSON}
        if body is not None:
            headers["Content-Type"] = content_type
        if size is not None:
            headers["Content-Length"] = str(size)
        if key:
            headers["Idempotency-Key"] = key

        def once() -> Reply:
            line = self._take()
            try:
                now = body() if callable(body) else body
                reply = Reply(line.ask(method, target, headers, now, self._answer_s(wait_s)))
            except TitanError:
                if callable(body):
                    line.close()  # the rest of the body may be unsent
                self._give(line)
                raise
            except BaseException:
                line.close()
                raise
            self._give(line)
            return reply

        return self._patiently(once)

    def feed(self, path: str, query: Mapping[str, Any]) -> Feed:
        """Open an endless answer (server-sent events) on a connection of its own. Raises as `call` does."""
        return self._opened(path, query, "text/event-stream")

    def download(self, path: str, query: Mapping[str, Any]) -> Feed:
        """Open an answer of any size, to be read in pieces. Raises as `call` does."""
        return self._opened(path, query, "*/*")

    def _opened(self, path: str, query: Mapping[str, Any], accept: str) -> Feed:
        target = _target(path, query)

        def once() -> Feed:
            line = self._connect()
            try:
                return Feed(line, line.ask("GET", target, {"Accept": accept}, None, self._answer_s(0)))
            except BaseException:
                line.close()
                raise

        return self._patiently(once)

    def base_url(self) -> str:
        """Return the URL of the Master in use, for example ``http://127.0.0.1:9090``."""
        endpoints = self._finder.endpoints()
        return endpoints[self._turn % len(endpoints)].url

    def close(self) -> None:
        """Close this thread's connection; other threads' close with their next call or their end, whichever is first.

        A later call connects anew.
        """
        self._closings += 1
        line: Line | None = self._own.__dict__.pop("line", None)
        if line is not None:
            line.close()

    def _patiently(self, once: Callable[[], T]) -> T:
        began = self.clock.now()
        give_up_at: float | None = None
        pause_s = PAUSE_FIRST_S
        while True:
            failed_at: float | None = None
            asked_s = 0.0
            try:
                answer = once()
            except TitanError as error:
                self._reached = self._reached or not isinstance(error, Unreachable)
                if error.code not in PASSING:
                    raise
                failure = error
                asked_s = error.retry_after_s or 0.0
            except CannotConnect as error:
                failure = self._unreachable(error.__cause__)
                failed_at = began
            except OSError as error:
                failure = self._unreachable(error)
            else:
                self._reached = True
                return answer
            self._turn += 1
            now = self.clock.now()
            if give_up_at is None:
                give_up_at = (now if failed_at is None else failed_at) + self._patience_s()
            wait_s = max(asked_s, pause_s * self.clock.jitter())
            if now + wait_s > give_up_at:
                raise failure
            self.clock.pause(wait_s)
            pause_s = min(pause_s * 2, PAUSE_MAX_S)

    def _take(self) -> Line:
        """Return this thread's connection, a new one when it has none that is fresh.

        It is nobody's until given back, so a signal handler that makes a call in the middle of one gets its own.
        """
        line: Line | None = self._own.__dict__.pop("line", None)
        if line is not None:
            moved = self._endpoints > 1 and self._own.turn != self._turn
            if not moved and self._own.closings == self._closings and line.is_fresh():
                return line
            line.close()
        return self._connect()

    def _give(self, line: Line) -> None:
        own = self._own
        own.line, own.turn, own.closings = line, self._turn, self._closings

    def _connect(self) -> Line:
        endpoints = self._finder.endpoints()
        self._endpoints = len(endpoints)
        connect_s = self._timeout_s or (ANSWER_S if self._reached else NEVER_REACHED_S)
        return Line(endpoints[self._turn % len(endpoints)], connect_s / len(endpoints))

    def _answer_s(self, wait_s: float) -> float:
        return wait_s + (self._timeout_s or ANSWER_S)

    def _patience_s(self) -> float:
        if self._timeout_s is not None:
            return self._timeout_s
        if self._in_job:
            return IN_JOB_S
        return REACHED_S if self._reached else NEVER_REACHED_S

    def _unreachable(self, error: BaseException | None) -> Unreachable:
        endpoints = self._finder.endpoints()
        where = " or ".join(f"{endpoint.url} (from {endpoint.origin})" for endpoint in endpoints)
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if self._reached:
            hint = "is `titan up` still running there? `titan status` tells"
        else:
            hint = "start one with `titan up`, or say where it is: TITAN_URL=http://HOST:9090"
        if getattr(error, "reason", "") in NO_TLS_THERE:
            why, hint = "what listens there does not speak TLS", "give its address with http://"
        return Unreachable(f"no Titan Master answered at {where}: {why}", hint=hint)


class Feed:
    """An open answer that is read as it comes; `headers` with lower-case names. Leave its `with` block to close it."""

    def __init__(self, line: Line, answer: Answer) -> None:
        self._line = line
        self._answer = answer
        self.headers = answer.headers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it arrives. Raises OSError when it breaks off."""
        return self._answer.pieces()

    def lines(self) -> Iterator[bytes]:
        """Yield lines as they arrive; ends when the server ends the feed or the connection breaks."""
        try:
            yield from self._answer.lines()
        except OSError:
            return


def _target(path: str, query: Mapping[str, Any] | None) -> str:
    pairs = [f"{name}={quoted(str(value))}" for name, value in (query or {}).items() if value is not None]
    return f"{API}{path}{'?' if pairs else ''}{'&'.join(pairs)}"


def quoted(text: str) -> str:
    """Return `text` as it may stand in one segment of a path or one value of a query. Raises Invalid."""
    if text.isascii() and not set(text) - UNRESERVED:
        return text
    try:
        return "".join(chr(byte) if chr(byte) in UNRESERVED else f"%{byte:02X}" for byte in text.encode())
    except UnicodeEncodeError:
        raise Invalid(f"{text!a} holds a lone surrogate, which is not text: leave it out") from None
