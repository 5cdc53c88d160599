"""The storage of a simulated Master: the production code on a database in memory.

`Journal` and `queries` run unchanged, on connections of their own for the writer and the reader. What is not
production's is how the database comes about. SQLite's `memdb` file system keeps one under a name for as long as a
connection is open, here the one called anchor, and a new store is a copy of a migrated one. A shared cache would be
in memory as well, but its connections share their pages and lock tables instead of files, which no Master does.
Three things differ from a file: there is no write-ahead log, a commit is not synced, and a lock is not waited for,
because nobody else could let go of it. Log segments and large blobs are files, in the system's memory if it offers
that.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, select
from sqlalchemy.pool import NullPool

from titan.core.changes import PRIMARY_KEYS
from titan.core.commit import Batch
from titan.core.rows import EdgeRow, JobRow, RunRow, Snapshot, starts_again
from titan.model.states import FINAL_JOB_STATES
from titan.model.store import StoreRefused
from titan.storage import kv, queries
from titan.storage.blobs import BlobFiles
from titan.storage.connection import Connection, Statement
from titan.storage.database import Database
from titan.storage.journal import Journal
from titan.storage.logs import LogFiles, log_totals
from titan.storage.migrate import migrate
from titan.storage.tables import METADATA

T = TypeVar("T")

_MEMORY = Path("/dev/shm")
_NUMBERS = count()
# `seq` only tells runs of one millisecond apart: the core does not know it.
_COMPARED = {
    name: [column for column in METADATA.tables[name].c if column.name != "seq"]
    for name in ("runs", "jobs", "edges", "attempts", "idempotency")
}
_ALL_ROWS = {
    name: Statement(select(*columns).order_by(*(METADATA.tables[name].c[key] for key in PRIMARY_KEYS[name])))
    for name, columns in _COMPARED.items()
}


class SqlStore:
    """A database of its own, empty but for the schema. `close` it: it holds open files and a folder.

    `before_commit` is called in the transaction of each batch and may raise: an `OSError` of ENOSPC makes the batch
    a StorageFull, anything else a CommitFailed.
    """

    def __init__(self) -> None:
        address = _address()
        self._anchor = _connect(address)
        _template().backup(self._anchor)
        self._home = Path(tempfile.mkdtemp(prefix="titan-simulation-", dir=_MEMORY if _MEMORY.is_dir() else None))
        self._database = Database(_engine(address), self._home / "titan.db", os.open(os.devnull, os.O_RDONLY))
        self.before_commit: Callable[[Batch], None] | None = None
        self._journal = Journal(
            self._database,
            BlobFiles(self._home / "blobs"),
            LogFiles(self._home / "logs"),
            before_commit=lambda batch: self.before_commit and self.before_commit(batch),
        )

    def take_over(self, wall_ms: int) -> int:
        """Begin a new epoch and return it."""
        return self._journal.take_over(wall_ms)

    def leader(self) -> tuple[int, int]:
        """Return (epoch, batch) of the leader row."""
        return self._journal.leader()

    def commit(self, batch: Batch) -> list[Any]:
        """Commit `batch` and return the results of its operations; raises what `Journal.commit` raises."""
        return self._journal.commit(batch)

    def leave_unanswered(self, arrives: bool) -> None:
        """Let the next COMMIT end in an error of the disk, after it was done (`arrives`) or before."""
        connection = self._database.writer()
        connection.raw = _Unanswered(connection.raw, arrives)

    def snapshot(self) -> Snapshot:
        """Return what a core is loaded from."""
        return self._read(queries.snapshot)

    def staged_runs(self) -> list[str]:
        """Return the ids of runs that are still being staged."""
        return self._read(queries.staged_runs)

    def run(self, run_id: str) -> RunRow | None:
        """Return one run."""
        return self._read(lambda c: queries.run(c, run_id))

    def whole_run(self, run_id: str) -> tuple[RunRow, list[JobRow], list[EdgeRow]] | None:
        """Return a run with all its jobs and edges."""
        return self._read(lambda c: queries.whole_run(c, run_id))

    def finished_parents(self, run_id: str, job_ids: Sequence[str]) -> dict[str, JobRow]:
        """Return those of `job_ids` that the run has and that are over, as the Master looks for an extension."""

        def query(connection: Connection) -> dict[str, JobRow]:
            of_run = queries.run(connection, run_id)
            known = queries.jobs_by_id(connection, run_id, job_ids) if of_run else {}
            return {
                job_id: job
                for job_id, job in known.items()
                if of_run and job.state in FINAL_JOB_STATES and not starts_again(of_run, job)
            }

        return self._read(query)

    def remembered(self, key: str, now_wall_ms: int) -> bytes | None:
        """Return what was answered under an idempotency key."""
        found = self._read(lambda c: queries.remembered(c, key, now_wall_ms))
        return None if found is None else found.answer

    def value(self, key: str, now_wall_ms: int) -> str | bytes | None:
        """Return a value of the store. Raises ValueError when `key` holds a set."""
        found = self._read(lambda c: kv.get(c, key, now_wall_ms))
        if isinstance(found, StoreRefused):
            raise ValueError(found.message)
        return found

    def tables(self) -> dict[str, dict[tuple[Any, ...], dict[str, Any]]]:
        """Return the rows of runs, jobs, edges, attempts and idempotency, by primary key and in its order."""
        return self._read(lambda c: {name: _rows(c, name) for name in _COMPARED})

    def log_totals(self, fences: Iterable[int]) -> dict[int, tuple[int, int]]:
        """Return how long each attempt's durable log is, and how many bytes of it are kept."""
        return self._read(lambda c: log_totals(c, fences))

    def close(self) -> None:
        """Forget everything."""
        self._journal.close()
        self._database.close()
        self._anchor.close()
        shutil.rmtree(self._home)

    def _read(self, query: Callable[[Connection], T]) -> T:
        return self._database.read(query, None)  # no limit: a slow machine must not change what a seed does


class _Unanswered:
    """A driver connection whose COMMIT fails, after it was done (`arrives`) or before."""

    def __init__(self, raw: Any, arrives: bool) -> None:
        self._raw = raw
        self._arrives = arrives

    def commit(self) -> None:
        if self._arrives:
            self._raw.commit()
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def _rows(connection: Connection, name: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    names = [column.name for column in _COMPARED[name]]
    rows = [dict(zip(names, row, strict=True)) for row in connection.rows(_ALL_ROWS[name])]
    return {tuple(row[column] for column in PRIMARY_KEYS[name]): row for row in rows}


@cache
def _template() -> sqlite3.Connection:
    """Return a connection to an empty, migrated database."""
    address = _address()
    template = _connect(address)
    engine = _engine(address)
    migrate(engine, Path(address))
    engine.dispose()
    return template


def _address() -> str:
    return f"file:/titan-{next(_NUMBERS)}?vfs=memdb"


def _engine(address: str) -> Engine:
    return create_engine("sqlite://", creator=lambda: _connect(address), poolclass=NullPool)


def _connect(address: str) -> sqlite3.Connection:
    return sqlite3.connect(address, timeout=0, isolation_level=None, check_same_thread=False, uri=True)
