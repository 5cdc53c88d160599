"""A connection, and statements that are compiled once.

Statements are built with SQLAlchemy Core, so that one text serves every database, but run by the driver itself:
on SQLite a guarded update then costs 2 us instead of the 23 us of `Connection.execute`, and a batch is many of
them. Parameters are positional, in the order the compiled text wants them; `Statement` knows that order.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, cast

from sqlalchemy import Dialect, Engine
from sqlalchemy.sql import ClauseElement

from titan.storage.errors import ReadTimedOut

Row = tuple[Any, ...]
_FETCH_ROWS = 2_000


class Statement:
    """One Core statement. `names` are its parameters in the order in which values are given for them."""

    def __init__(self, clause: ClauseElement, *names: str) -> None:
        self.clause = clause
        self.names = names
        self._compiled: dict[str, _Compiled] = {}

    def compiled(self, dialect: Dialect) -> "_Compiled":
        """Return the text for `dialect`; it is made at the first call."""
        found = self._compiled.get(dialect.name)
        if found is None:
            found = self._compiled[dialect.name] = _Compiled(self.clause, self.names, dialect)
        return found


class _Compiled:
    """`text` for one dialect; `arrange` brings values into the order of its places, None when they are in it."""

    def __init__(self, clause: ClauseElement, names: tuple[str, ...], dialect: Dialect) -> None:
        compiled = clause.compile(dialect=dialect)
        places = tuple(compiled.positiontup or ())  # type: ignore[attr-defined]
        constants = {name: value for name, value in compiled.params.items() if name not in names}
        if set(places) != {*names, *constants}:
            raise ValueError(f"{compiled} has the parameters {places}, not {names}")
        self.text = str(compiled)
        self._constants = tuple(constants.values())
        everything = [*names, *constants]
        self._order = [everything.index(place) for place in places]
        self.plain = places == names

    def arrange(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return `values`, with the constants of the statement, in the order of its places."""
        if self.plain:
            return values
        everything = (*values, *self._constants)
        return [everything[place] for place in self._order]


class Connection:
    """A database connection of one thread. Every method that reads returns plain tuples, read to the end."""

    def __init__(self, engine: Engine, begin: str) -> None:
        self._pooled = engine.raw_connection()
        self.raw = cast(Any, self._pooled.dbapi_connection)
        self.dialect = engine.dialect
        self.deadline_s: float | None = None
        self._begin = begin
        self._cursor: Any = self.raw.cursor()

    def begin(self) -> None:
        """Begin a transaction."""
        self._cursor.execute(self._begin)

    def commit(self) -> None:
        """Commit it."""
        self.raw.commit()

    def rollback(self) -> None:
        """Undo it; does nothing when there is none."""
        self.raw.rollback()

    def rows(self, statement: Statement, *values: Any) -> list[Row]:
        """Return all rows."""
        self._run(statement, values)
        found: list[Row] = self._cursor.fetchall()
        return found

    def row(self, statement: Statement, *values: Any) -> Row | None:
        """Return the first row, None when there is none. Meant for statements that find one at most."""
        found = self.rows(statement, *values)
        return found[0] if found else None

    def stream(self, statement: Statement, *values: Any) -> Iterator[Row]:
        """Yield rows as they are read; other statements may run in between."""
        compiled = statement.compiled(self.dialect)
        cursor = self.raw.cursor()
        cursor.execute(compiled.text, compiled.arrange(values))
        while found := cursor.fetchmany(_FETCH_ROWS):
            yield from found

    def change(self, statement: Statement, *values: Any) -> int:
        """Run a write and return how many rows it touched."""
        self._run(statement, values)
        count: int = self._cursor.rowcount
        return count

    def change_many(self, statement: Statement, rows: Sequence[Sequence[Any]]) -> int:
        """Run a write once for each of `rows` and return how many rows were touched in all."""
        compiled = statement.compiled(self.dialect)
        self._cursor.executemany(compiled.text, rows if compiled.plain else [compiled.arrange(row) for row in rows])
        count: int = self._cursor.rowcount
        return count

    def run(self, sql: str) -> list[Row]:
        """Run a statement of the database's own (a pragma, a savepoint) and return its rows."""
        self._cursor.execute(sql)
        found: list[Row] = self._cursor.fetchall()
        return found

    def close(self) -> None:
        """Close it; what was not committed is lost.

        First by hand: SQLite keeps a closed connection, and its lock, while anything still refers to a
        statement of it, as the traceback of the error that broke it does.
        """
        for end in (self.raw.rollback, self._cursor.close):
            with suppress(Exception):  # it may be broken: then there is nothing to undo
                end()
        self._pooled.invalidate()

    def expired(self) -> bool:
        """Say whether a read on this connection has taken longer than it may."""
        return self.deadline_s is not None and time.monotonic() > self.deadline_s

    def _run(self, statement: Statement, values: Sequence[Any]) -> None:
        if self.deadline_s is not None and self.expired():
            raise ReadTimedOut("this read took longer than a read may: ask for less at once")
        compiled = statement.compiled(self.dialect)
        self._cursor.execute(compiled.text, compiled.arrange(values))
