"""Everything that is SQLite's alone: how a file is opened and locked, and what its error codes mean.

The driver's own transaction control is switched off (it would not begin before a SELECT, a SAVEPOINT or DDL);
every transaction is begun by hand, for writing with BEGIN IMMEDIATE, so that two writers never meet half way.
"""

import errno
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from titan.model.states import AttemptState, JobState, RunState
from titan.storage.errors import (
    AssertionFailed,
    CommitFailed,
    DatabaseCorrupt,
    DatabaseInUse,
    ReadTimedOut,
    StorageError,
    StorageFull,
    StorageUnusable,
)
from titan.storage.files import sync_folder

BEGIN_WRITE = "BEGIN IMMEDIATE"
BEGIN_READ = "BEGIN"
VERSION_MIN = (3, 37, 0)  # STRICT tables
BUSY_S = 2.0  # an outside shell that holds the lock is waited for this long, then the batch fails and is asked again
WAL_BYTES_MAX = 64 * 1024 * 1024
# Pages kept in memory, a connection. There is one writer and a handful of readers, each with a cache of its own that is
# never given back; what a reader lacks comes from the cache of the system. Together they stay under 30 MiB.
WRITER_CACHE_KIB = 16 * 1024
READER_CACHE_KIB = 2 * 1024

# Without an adapter the driver searches for one at every value that is not exactly str or int: 2 us each.
for _kind in (JobState, RunState, AttemptState):
    sqlite3.register_adapter(_kind, str.__str__)
sqlite3.register_adapter(bool, int)


def open_engine(path: Path) -> Engine:
    """Return an engine for the file, created with mode 0600 if missing. Raises StorageUnusable."""
    if sqlite3.sqlite_version_info < VERSION_MIN:
        raise StorageUnusable(
            f"SQLite {sqlite3.sqlite_version} is too old: Titan needs 3.37 or newer; use a newer Python or system"
        )
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        sync_folder(path.parent)
    except OSError as error:
        raise unusable(path, error) from error
    engine = create_engine(
        f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": BUSY_S, "check_same_thread": False}
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def lock(path: Path) -> int:
    """Return a descriptor whose flock says that this process writes the database. Raises DatabaseInUse."""
    beside = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(beside, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        by = f" (process {holder})" if holder else ""
        raise DatabaseInUse(
            f"{path} is open in another Titan Master{by}: two writers would undo each other's work;"
            " stop that one (titan down), or use another home (TITAN_HOME)"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def check(engine: Engine, path: Path) -> None:
    """Read the whole file for damage. Raises DatabaseCorrupt."""
    try:
        with engine.connect() as connection:
            report = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA quick_check(3)")]
    except Exception as error:
        raise translate(_driver_error(error), path) from error
    if report != ["ok"]:
        raise corrupt(path, "; ".join(report))


def corrupt(path: Path | None, found: str) -> DatabaseCorrupt:
    """Return the error for a damaged file."""
    where = str(path) if path else "the database"
    return DatabaseCorrupt(
        f"{where} is damaged or no SQLite database ({found}): nothing was changed;"
        " put a backup in its place, or move it away to begin with nothing"
        f" (rows may be saved with: sqlite3 {where} .recover)"
    )


def unusable(path: Path, error: Exception) -> StorageUnusable:
    """Return the error for a home that cannot be written."""
    return StorageUnusable(
        f"{path} cannot be written: {error}; make its folder writable for this user,"
        " free some space, or choose another home (TITAN_HOME)"
    )


def translate(error: BaseException, path: Path | None = None) -> StorageError:
    """Return what an error of the driver or the disk means for a transaction that did not reach COMMIT."""
    if isinstance(error, StorageError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"the disk is full ({error}): free some space, writing then goes on by itself")
    primary = code_of(error) & 0xFF
    if primary == sqlite3.SQLITE_FULL:
        return StorageFull(f"the database has no room ({error}): free some space, writing then goes on by itself")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return corrupt(path, str(error))
    if primary == sqlite3.SQLITE_INTERRUPT:
        return ReadTimedOut("this read took longer than a read may: ask for less at once")
    if primary == sqlite3.SQLITE_CONSTRAINT:
        return AssertionFailed(str(error))
    if path is not None and primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR):
        return unusable(path, error if isinstance(error, Exception) else RuntimeError(error))
    return CommitFailed(f"{type(error).__name__}: {error}")


def code_of(error: BaseException) -> int:
    """Return SQLite's extended code of `error`, 0 when it has none."""
    code = getattr(error, "sqlite_errorcode", None)
    return code if isinstance(code, int) else 0


def _driver_error(error: Exception) -> BaseException:
    original = getattr(error, "orig", None)
    return original if isinstance(original, BaseException) else error


def _prepare(driver: Any, _record: object) -> None:
    driver.isolation_level = None
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = OFF",
        "temp_store = MEMORY",
        f"cache_size = -{WRITER_CACHE_KIB}",
        f"journal_size_limit = {WAL_BYTES_MAX}",
    ):
        driver.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(BEGIN_WRITE)
