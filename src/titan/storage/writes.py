"""The asserted writes of a batch: grouped, so that rows of one shape cost one statement, and counted.

A batch touches a row once (`titan.core.changes.fold`), so the order between groups does not matter.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

import msgspec
from sqlalchemy import BindParameter, Table, bindparam, insert, select, text, update

from titan.core.changes import CONTENT_ADDRESSED, PRIMARY_KEYS, Change, Insert, Update
from titan.storage.connection import Connection, Statement
from titan.storage.errors import AssertionFailed
from titan.storage.tables import METADATA

Values = dict[str, Any]
# A blob is its content: writing it again changes nothing and is no surprise.
_BLOB = Statement(
    text(
        "INSERT INTO blobs (sha256, size, data, created_ms) VALUES (:sha256, :size, :data, :created_ms)"
        " ON CONFLICT (sha256) DO NOTHING"
    ),
    "sha256",
    "size",
    "data",
    "created_ms",
)
# A key that has expired may be used anew, also before it is pruned.
_IDEMPOTENCY = Statement(
    text(
        "INSERT INTO idempotency (key, body_hash, answer, created_ms, expires_ms)"
        " VALUES (:key, :body_hash, :answer, :created_ms, :expires_ms)"
        " ON CONFLICT (key) DO UPDATE SET body_hash = excluded.body_hash, answer = excluded.answer,"
        " created_ms = excluded.created_ms, expires_ms = excluded.expires_ms"
        " WHERE idempotency.expires_ms <= excluded.created_ms"
    ),
    "key",
    "body_hash",
    "answer",
    "created_ms",
    "expires_ms",
)
_SPECIAL = {"blobs": _BLOB, "idempotency": _IDEMPOTENCY}


class Shape(msgspec.Struct, frozen=True):
    """A statement, and how a change becomes its parameters."""

    statement: Statement
    row: Callable[[Any], Sequence[Any]]


class Group(msgspec.Struct):
    """Changes of one shape."""

    table: str
    shape: Shape
    changes: list[Change]


def grouped(changes: Iterable[Change]) -> list[Group]:
    """Return `changes` by table, kind and columns, in the order of first touch."""
    groups: dict[tuple[Any, ...], Group] = {}
    for change in changes:
        expected = None if isinstance(change, Insert) else tuple(change.expect)
        identity = (change.table, tuple(change.values), expected)
        group = groups.get(identity)
        if group is None:
            group = groups[identity] = Group(change.table, _shape(*identity), [])
        group.changes.append(change)
    return list(groups.values())


def apply(connection: Connection, groups: Iterable[Group]) -> None:
    """Write `groups`. Raises AssertionFailed when fewer rows were touched than sent."""
    for group in groups:
        shape = group.shape
        touched = connection.change_many(shape.statement, list(map(shape.row, group.changes)))
        if touched != len(group.changes) and group.table not in CONTENT_ADDRESSED:
            raise Mismatch(group, touched)


def remember(connection: Connection, rows: Sequence[Sequence[Any]]) -> int:
    """Write idempotency rows (key, body_hash, answer, created_ms, expires_ms); return how many were free to write."""
    return connection.change_many(_IDEMPOTENCY, rows)


def keep_blob(connection: Connection, sha256: str, size: int, data: bytes | None, now_ms: int) -> None:
    """Write the row of a blob unless it is there."""
    connection.change(_BLOB, sha256, size, data, now_ms)


class Mismatch(AssertionFailed):
    """Fewer rows were touched than sent."""

    def __init__(self, group: Group, touched: int) -> None:
        super().__init__(f"{group.table}: {touched} of {len(group.changes)} rows were as expected")
        self.group = group

    def explained(self, connection: Connection) -> AssertionFailed:
        """Return the error with the first row that is not as expected. Ask after the transaction was undone."""
        for change in self.group.changes:
            if isinstance(change, Update):
                row = _row_of(connection, change)
                unmet = [column for column, value in change.expect.items() if row is None or row[column] != value]
                if unmet:
                    found = {column: row[column] for column in unmet} if row else "no such row"
                    return AssertionFailed(f"{self}; {change.key} expected {change.expect}, found {found}")
        return AssertionFailed(str(self))


def _row_of(connection: Connection, change: Update) -> Values | None:
    table = METADATA.tables[change.table]
    key = PRIMARY_KEYS[change.table]
    where = [table.c[column] == bindparam(column) for column in key]
    row = connection.row(Statement(select(table).where(*where), *key), *change.key)
    return None if row is None else dict(zip(table.c.keys(), row, strict=True))


@cache
def _shape(name: str, given: tuple[str, ...], expected: tuple[str, ...] | None) -> Shape:
    unknown = {*given, *(expected or ())} - {*METADATA.tables[name].c.keys()}
    if unknown:
        raise ValueError(f"{name} has no column {', '.join(sorted(unknown))}")
    return _insert(name, given) if expected is None else _update(name, given, expected)


def _insert(name: str, given: tuple[str, ...]) -> Shape:
    table = METADATA.tables[name]
    special = _SPECIAL.get(name)
    columns = special.names if special else _in_order(table, given)
    statement = special or Statement(insert(table).values({column: bindparam(column) for column in columns}), *columns)
    values = _getter(columns)

    def row(change: Insert) -> Sequence[Any]:
        return values(change.values)

    return Shape(statement, row)


def _update(name: str, given: tuple[str, ...], expected: tuple[str, ...]) -> Shape:
    table = METADATA.tables[name]
    key = PRIMARY_KEYS[name]
    columns = _in_order(table, given)
    where = [table.c[column] == bindparam(f"key_{column}") for column in key]
    for column in expected:
        believed: BindParameter[Any] = bindparam(f"is_{column}")
        # NULL is a belief too.
        of = table.c[column]
        where.append(of.is_not_distinct_from(believed) if of.nullable else of == believed)
    statement = Statement(
        update(table).where(*where).values({column: bindparam(f"new_{column}") for column in columns}),
        *(f"new_{column}" for column in columns),
        *(f"key_{column}" for column in key),
        *(f"is_{column}" for column in expected),
    )
    values = _getter(columns)
    beliefs = _getter(expected)

    def row(change: Update) -> Sequence[Any]:
        return (*values(change.values), *change.key, *beliefs(change.expect))

    return Shape(statement, row)


def _in_order(table: Table, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return `columns` in the table's order, which is the order of places in the compiled text."""
    return tuple(column for column in table.c.keys() if column in columns)  # noqa: SIM118


def _getter(columns: Sequence[str]) -> Callable[[Values], tuple[Any, ...]]:
    if len(columns) > 1:
        return itemgetter(*columns)
    return lambda values: tuple(values[column] for column in columns)
