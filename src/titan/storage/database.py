"""One database: how it is opened, checked and locked, and who may use which connection.

One thread writes, through `writer`; any thread reads, through `read`, on a connection of its own that cannot
write. With SQLite's write-ahead log neither waits for the other. A read may take five seconds: a longer one
would keep that log from being emptied.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Engine, make_url
from sqlalchemy.exc import ArgumentError

from titan.storage import sqlite
from titan.storage.connection import Connection
from titan.storage.errors import CommitFailed, StorageError, StorageUnusable
from titan.storage.migrate import migrate

T = TypeVar("T")

READ_S_MAX = 5.0
_STEPS_BETWEEN_LOOKS = 100_000  # of SQLite's machine: some milliseconds


class Database:
    """An open database. Made by `open`; `close` gives up its lock."""

    def __init__(self, engine: Engine, path: Path, lock: int) -> None:
        self.path = path
        self._engine = engine
        self._lock = lock
        self._writer: Connection | None = None
        self._own = threading.local()
        self._readers: list[Connection] = []
        self._readers_lock = threading.Lock()

    @classmethod
    def open(cls, url: str, home: Path) -> "Database":
        """Open `url` (`sqlite:///PATH`), creating or migrating it as needed; `home` is made with mode 0700.

        Raises a RefusedStart: DatabaseInUse, DatabaseCorrupt, SchemaNewer or StorageUnusable.
        """
        path = _file_of(url)
        for folder in (home, path.parent):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise sqlite.unusable(folder, error) from error
        lock = sqlite.lock(path)
        try:
            engine = sqlite.open_engine(path)
            sqlite.check(engine, path)
            migrate(engine, path)
        except BaseException:
            os.close(lock)
            raise
        return cls(engine, path, lock)

    def writer(self) -> Connection:
        """Return the one connection that may write; for the writer thread alone."""
        if self._writer is None:
            self._writer = Connection(self._engine, sqlite.BEGIN_WRITE)
        return self._writer

    def drop_writer(self) -> None:
        """Close the writer's connection after an error; what it had not committed is gone. `writer` opens a new one."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def read(self, query: Callable[[Connection], T], timeout_s: float | None = READ_S_MAX) -> T:
        """Run `query` on this thread's reader connection, in one transaction, and return what it returns.

        It sees everything committed before it began. Raises ReadTimedOut after `timeout_s` (None: no limit),
        DatabaseCorrupt or another StorageError; what `query` itself raises comes through.
        """
        connection = self._reader()
        connection.deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            connection.begin()
            return query(connection)
        except Exception as error:
            if not sqlite.code_of(error):
                raise
            failure = sqlite.translate(error, self.path)
            raise StorageError(str(failure)) if isinstance(failure, CommitFailed) else failure from error
        finally:
            connection.rollback()

    def failure(self, error: Exception) -> StorageError:
        """Return what an error of a transaction that did not reach COMMIT means."""
        return sqlite.translate(error)

    def close(self) -> None:
        """Close every connection and unlock. Call it when no thread uses the database any more."""
        with self._readers_lock:
            for reader in self._readers:
                reader.close()
            self._readers.clear()
        self.drop_writer()
        self._engine.dispose()
        os.close(self._lock)

    def _reader(self) -> Connection:
        connection: Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = Connection(self._engine, sqlite.BEGIN_READ)
            connection.run("PRAGMA query_only = ON")
            connection.run(f"PRAGMA cache_size = -{sqlite.READER_CACHE_KIB}")
            connection.raw.set_progress_handler(connection.expired, _STEPS_BETWEEN_LOOKS)
            self._own.connection = connection
            with self._readers_lock:
                self._readers.append(connection)
        return connection


def _file_of(url: str) -> Path:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StorageUnusable(f"{url!r} is no database address: give sqlite:///PATH") from error
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise StorageUnusable(f"{parsed.render_as_string()} is not available as a database: give sqlite:///PATH")
    return Path(parsed.database).absolute()
