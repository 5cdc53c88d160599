"""The stored tokens that count, in memory: read at a load, changed when a change of them is durable.

A token is `tt.<id>.<secret>`: the id finds its row, and the hash of the whole is compared with the row's in constant
time, for an id that nobody has too. What is revoked or has expired is nobody's, and what it had opened is cut.
"""

import hashlib
import hmac
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from titan.master.sessions import Sessions
from titan.model.limits import change
from titan.model.store import KeepToken, Operation, RevokeToken, UseEnrolment
from titan.model.tokens import ID_BYTES, PREFIX, TokenRow
from titan_sdk.errors import Conflict

_NOBODY = bytes(32)


class Book:
    """All tokens that count. Everything here runs on the event loop."""

    def __init__(self, sessions: Sessions, wall_ms: Callable[[], int]) -> None:
        self._sessions = sessions
        self._wall_ms = wall_ms
        self._rows: dict[str, TokenRow] = {}
        self._enrolling: set[str] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, token: bytes) -> TokenRow | None:
        """Return whose `token` is; None when it is nobody's, or counts no more."""
        token_id = token[len(PREFIX) : len(PREFIX) + 2 * ID_BYTES].decode("latin-1")
        row = self._rows.get(token_id)
        is_its = hmac.compare_digest(hashlib.sha256(token).digest(), _NOBODY if row is None else row.hash)
        return row if is_its and row is not None and not row.ended(self._wall_ms()) else None

    def of_worker(self, name: str) -> list[TokenRow]:
        """Return the tokens that speak for the worker `name`."""
        return [row for row in self._rows.values() if row.worker == name]

    @contextmanager
    def enrolling(self, name: str) -> Iterator[bool]:
        """Keep `name` for one who enrols under it, and say whether it is free: nobody has it or is about to."""
        if name in self._enrolling or self.of_worker(name):
            yield False
            return
        self._enrolling.add(name)
        try:
            yield True
        finally:
            self._enrolling.discard(name)

    def left_s(self, row: TokenRow) -> float | None:
        """Return the seconds until it expires; None for one that does not."""
        return None if row.expires_ms is None else max(0, row.expires_ms - self._wall_ms()) / 1000

    def load(self, rows: Collection[TokenRow]) -> None:
        """Take the tokens as the database has them, and cut what those that are not among them had opened."""
        gone = self._rows.keys() - {row.token_id for row in rows}
        self._rows = {row.token_id: row for row in rows}
        for token_id in gone:
            self._sessions.cut(token_id)

    def committed(self, operation: Operation, result: Any) -> None:
        """Take an operation that is durable."""
        if isinstance(operation, KeepToken):
            self._rows[operation.row.token_id] = operation.row
        elif isinstance(operation, RevokeToken) and result:
            self._end(operation.token_id)
        elif isinstance(operation, UseEnrolment) and result:
            self._end(operation.token_id)
            self._rows[operation.row.token_id] = operation.row

    def _end(self, token_id: str) -> None:
        self._rows.pop(token_id, None)
        self._sessions.cut(token_id)

    def require_room(self, tokens_max: int) -> None:
        """Raise Conflict when there are as many tokens that count as there may be."""
        if len(self._rows) < tokens_max:
            return
        now_ms = self._wall_ms()
        self._rows = {token_id: row for token_id, row in self._rows.items() if not row.ended(now_ms)}
        if len(self._rows) >= tokens_max:
            raise Conflict(
                f"there are {len(self._rows)} living tokens, and at most {tokens_max} are kept",
                hint=f"revoke some: titan token ls; {change('tokens_max')}",
            )
