"""One database: how it is opened, checked and locked, and who may use which connection.

One thread writes, through `writer`; any thread reads, through `read`, on a connection of its own that cannot
write. With SQLite's write-ahead log neither waits for the other.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

T = TypeVar("T")


class Database:
    """An open database. Made by `open`; `close` gives up its lock."""

    @classmethod
    def open(cls, url: str, home: Path) -> "Database":
        """Open `url` (`sqlite:///PATH`), creating or migrating it as needed. `home` holds blobs and logs.

        Raises a RefusedStart: DatabaseInUse, DatabaseCorrupt, SchemaNewer or StorageUnusable.
        """
        raise NotImplementedError(url, home)

    def writer(self) -> Connection:
        """Return the one connection that may write; for the writer thread alone."""
        raise NotImplementedError

    def read(self, query: Callable[[Connection], T], timeout_s: float | None = 5.0) -> T:
        """Run `query` on this thread's reader connection, in one transaction, and return what it returns.

        It sees everything committed before it began. Raises ReadTimedOut after `timeout_s` (None: no limit).
        """
        raise NotImplementedError(query, timeout_s)

    def close(self) -> None:
        """Close every connection and unlock. Call it when no thread uses the database any more."""
        raise NotImplementedError
