"""Idempotency keys of submissions and other commands: the same request twice is done once.

A key is claimed before anything is done and let go when the outcome is known to the database. In between
the same key is refused as `in_progress`, so that two copies of a request never race. Afterwards the row
tells: the same body gets the first answer again, another body is refused as `key_reused`. The row is
committed with what it guards.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

from titan.core.changes import Change, Insert
from titan.core.events import Now
from titan.storage import queries
from titan.storage.connection import Connection
from titan_sdk.errors import error_of

KEEP_MS = 7 * 86_400_000
RETRY_AFTER_S = 0.2


class Claim:
    """One key while its request is worked on. `stored` is the first answer when the request was done before."""

    def __init__(self, key: str | None, body_hash: bytes, stored: bytes | None) -> None:
        self.stored = stored
        self._key = key
        self._body_hash = body_hash

    def row(self, answer: bytes, now_wall_ms: int) -> tuple[Change, ...]:
        """Return the change that remembers `answer` under the key: commit it with what was done. () without a key."""
        if self._key is None:
            return ()
        values = {
            "key": self._key,
            "body_hash": self._body_hash,
            "answer": answer,
            "created_ms": now_wall_ms,
            "expires_ms": now_wall_ms + KEEP_MS,
        }
        return (Insert("idempotency", values),)


class Commits(Protocol):
    """What claims need of the engine."""

    @property
    def clock(self) -> Callable[[], Now]:
        """Reads both clocks."""

    def look(self, query: Callable[[Connection], queries.Remembered | None]) -> queries.Remembered | None:
        """Run a query that finds a row by its key."""

    def when_settled(self, call: Callable[[], None]) -> None:
        """Call `call` when everything decided so far is committed or refused."""


class Claims:
    """The keys being worked on."""

    def __init__(self, engine: Commits) -> None:
        self._engine = engine
        self._working: set[str] = set()

    @asynccontextmanager
    async def claim(self, key: str | None, body_hash: bytes) -> AsyncIterator[Claim]:
        """Hold `key` (None: the caller sent none) while its request is worked on.

        Raises Conflict `in_progress` while another request holds it, `key_reused` when it was used for another body.
        """
        if key is None:
            yield Claim(None, body_hash, None)
            return
        if key in self._working:
            message = "a request with this idempotency key is being worked on"
            raise error_of("in_progress", message, hint="ask again", retry_after_s=RETRY_AFTER_S)
        self._working.add(key)
        try:
            now_wall_ms = self._engine.clock().wall_ms
            found = self._engine.look(lambda connection: queries.remembered(connection, key, now_wall_ms))
            if found is not None and found.body_hash != body_hash:
                raise error_of(
                    "key_reused",
                    "this idempotency key was used for another request",
                    hint="use a fresh one for each request",
                )
            yield Claim(key, body_hash, found.answer if found else None)
        finally:
            # The caller may have gone while its batch is on its way: the key stays until that is settled.
            self._engine.when_settled(partial(self._working.discard, key))
