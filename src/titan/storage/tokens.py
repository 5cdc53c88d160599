"""Stored tokens: kept, revoked, listed. What a token is good for is decided elsewhere, from memory."""

from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update

from titan.model.roles import Role
from titan.model.store import KeepToken, RevokeToken
from titan.model.tokens import TokenRow
from titan.storage.connection import Connection, Statement
from titan.storage.queries import Page
from titan.storage.tables import tokens

ENDED_KEPT_MS = 30 * 86_400_000  # a token that ended is listed for as long
_COLUMNS = TokenRow.__struct_fields__
_KEEP = Statement(insert(tokens).values({name: bindparam(name) for name in _COLUMNS}), *_COLUMNS)
_REVOKE = Statement(
    update(tokens)
    .where(tokens.c.token_id == bindparam("key"), tokens.c.revoked_ms.is_(None))
    .values(revoked_ms=bindparam("now")),
    "now",
    "key",
)
_LIST = Statement(
    select(*(tokens.c[name] for name in _COLUMNS))
    .where(tokens.c.token_id > bindparam("after"))
    .order_by(tokens.c.token_id)
    .limit(bindparam("rows")),
    "after",
    "rows",
)


def _ended(column: str) -> Statement:
    at: Any = tokens.c[column]
    chosen = select(tokens.c.token_id).where(at <= bindparam("before")).order_by(at).limit(bindparam("rows"))
    return Statement(delete(tokens).where(tokens.c.token_id.in_(chosen)), "before", "rows")


_ONE = Statement(select(*(tokens.c[name] for name in _COLUMNS)).where(tokens.c.token_id == bindparam("key")), "key")
_PRUNE_REVOKED = _ended("revoked_ms")
_PRUNE_EXPIRED = _ended("expires_ms")


def keep(connection: Connection, operation: KeepToken) -> None:
    """Add a token."""
    row = operation.row
    values = [getattr(row, name) for name in _COLUMNS]
    values[_COLUMNS.index("role")] = str(row.role)
    connection.change(_KEEP, *values)


def revoke(connection: Connection, operation: RevokeToken) -> bool:
    """Revoke a token; say whether it was there and not revoked before."""
    return connection.change(_REVOKE, operation.now_ms, operation.token_id) == 1


def prune(connection: Connection, now_ms: int, rows_max: int) -> int:
    """Drop tokens that ended long ago; return how many."""
    before_ms = now_ms - ENDED_KEPT_MS
    return sum(connection.change(statement, before_ms, rows_max) for statement in (_PRUNE_REVOKED, _PRUNE_EXPIRED))


def one(connection: Connection, token_id: str) -> TokenRow | None:
    """Return a token by its id."""
    row = connection.row(_ONE, token_id)
    return None if row is None else _row(row)


def page(connection: Connection, after: str, rows_max: int) -> Page[TokenRow]:
    """Return tokens, living and ended, by their ids."""
    found = [_row(row) for row in connection.rows(_LIST, after, rows_max + 1)]
    more = len(found) > rows_max
    return Page(found[:rows_max], found[rows_max - 1].token_id if more else None)


def living(connection: Connection, now_ms: int) -> list[TokenRow]:
    """Return all tokens that count."""
    rows = map(_row, connection.stream(_LIST, "", -1))
    return [row for row in rows if not row.ended(now_ms)]


def _row(values: tuple[Any, ...]) -> TokenRow:
    token_id, name, role, *rest = values
    return TokenRow(token_id, name, Role(role), *rest)
