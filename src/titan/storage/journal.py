"""Batches become durable here, each in one transaction that says what it believes.

The order inside `commit` is the argument. Files come first: log segments and large blobs are fsynced before a
transaction exists, because a row may never name what a power loss can take away, while bytes that no row names
are nothing. Then the leader row: one guarded update that proves nobody else leads, that no batch was skipped
and that none is applied twice. Then the asserted changes, whose touched rows are counted; the conditional
operations, whose zero rows are answers; the index of the logs; and COMMIT.

Whatever fails before COMMIT is undone whole, and the connection is thrown away with it: a fresh one costs a
millisecond and has no state to reason about. When COMMIT itself fails nobody knows, with one exception: a full
disk, which SQLite reports before the frame that would make the transaction count is written.
"""

import secrets
from collections.abc import Callable
from typing import Any

from sqlalchemy import bindparam, select, text, update

from titan.core.changes import Change, Insert
from titan.core.commit import Batch
from titan.model.limits import DEFAULT_LIMITS, Limits
from titan.storage import operations, writes
from titan.storage.blobs import BlobFiles
from titan.storage.connection import Connection, Statement
from titan.storage.database import Database
from titan.storage.errors import AssertionFailed, CommitUnknown, Deposed, StorageFull
from titan.storage.logs import LogFiles
from titan.storage.queries import TOKEN_KEY
from titan.storage.tables import leader

EPOCH_BEGIN_S = 1_577_836_800  # 2020-01-01 UTC: seconds since then fit 32 bits for a century

_TOKEN_KEY_BYTES = 32

_READ = Statement(select(leader.c.epoch, leader.c.batch))
_CLAIM = Statement(
    update(leader)
    .where(leader.c.epoch == bindparam("mine"), leader.c.batch == bindparam("before"))
    .values(batch=bindparam("number")),
    "number",
    "mine",
    "before",
)
_TAKE_OVER = Statement(
    update(leader).where(leader.c.epoch == bindparam("stored")).values(epoch=bindparam("mine"), batch=0),
    "mine",
    "stored",
)
_KEEP_SECRET = Statement(
    text("INSERT INTO meta (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING"), "name", "value"
)


class Journal:
    """The writer of one database; every method is for the writer thread.

    `before_commit` and `after_commit` are called around each COMMIT and may raise: the tests' way to bring
    about a failed and an unknown outcome.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobFiles,
        logs: LogFiles,
        limits: Limits = DEFAULT_LIMITS,
        before_commit: Callable[[Batch], None] | None = None,
        after_commit: Callable[[Batch], None] | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._logs = logs
        self._limits = limits
        self._before_commit = before_commit
        self._after_commit = after_commit

    def take_over(self, now_wall_ms: int) -> int:
        """Begin a new epoch and return it: at least one more than any before, at least the seconds since 2020.

        The second keeps fences rising when a backup older than the workers' memory was put back. Also makes the
        key of job tokens at the first call. Raises as `commit` does.
        """
        try:
            connection = self._database.writer()
            connection.begin()
            stored, _ = self._leader_row(connection)
            epoch = max(stored + 1, now_wall_ms // 1000 - EPOCH_BEGIN_S)
            if connection.change(_TAKE_OVER, epoch, stored) != 1:
                raise Deposed(f"epoch {stored} ended while this process took over")
            connection.change(_KEEP_SECRET, TOKEN_KEY, secrets.token_bytes(_TOKEN_KEY_BYTES))
        except Exception as error:
            raise self._undone(error) from error
        self._commit(connection, [])
        return epoch

    def leader(self) -> tuple[int, int]:
        """Return (epoch, batch) of the leader row as it is now. Raises CommitFailed when it cannot be read."""
        try:
            return self._leader_row(self._database.writer())
        except Exception as error:
            raise self._undone(error) from error

    def commit(self, batch: Batch) -> list[Any]:
        """Make `batch` durable and return the results of its operations, in order.

        Raises CommitFailed (AssertionFailed, StorageFull), CommitUnknown, Deposed or DatabaseCorrupt.
        """
        try:
            index = self._logs.append(batch.chunks) if batch.chunks else []
            groups = writes.grouped(self._placed(batch.changes))
            connection = self._database.writer()
            connection.begin()
            self._claim(connection, batch)
            writes.apply(connection, groups)
            results = operations.execute(connection, batch.operations, self._limits) if batch.operations else []
            if index:
                self._logs.index(connection, index)
            if self._before_commit is not None:
                self._before_commit(batch)
        except Exception as error:
            raise self._undone(error) from error
        self._commit(connection, results)
        if self._after_commit is not None:
            try:
                self._after_commit(batch)
            except Exception as error:
                raise CommitUnknown(f"no answer to the commit of batch {batch.number}: {error}", results) from error
        return results

    def close(self) -> None:
        """Close the log segment being written."""
        self._logs.close()

    def _claim(self, connection: Connection, batch: Batch) -> None:
        if connection.change(_CLAIM, batch.number, batch.epoch, batch.number - 1) == 1:
            return
        epoch, number = self._leader_row(connection)
        raise Deposed(
            f"the leader row shows batch {number} of epoch {epoch}:"
            f" batch {batch.number} of epoch {batch.epoch} does not follow it"
        )

    def _leader_row(self, connection: Connection) -> tuple[int, int]:
        row = connection.row(_READ)
        if row is None:
            raise AssertionFailed("the leader row is gone")
        return row[0], row[1]

    def _placed(self, changes: list[Change]) -> list[Change]:
        """Return `changes` with large blobs in files instead of their rows."""
        return [self._place(change) if change.table == "blobs" else change for change in changes]

    def _place(self, change: Change) -> Change:
        data = change.values.get("data")
        if not isinstance(change, Insert) or data is None or len(data) <= self._blobs.inline_bytes_max:
            return change
        self._blobs.save([data], change.values["created_ms"], change.values["sha256"])
        return Insert(change.table, {**change.values, "data": None})

    def _commit(self, connection: Connection, results: list[Any]) -> None:
        try:
            connection.commit()
        except Exception as error:
            failure = self._undone(error)
            if isinstance(failure, StorageFull):
                raise failure from error
            raise CommitUnknown(f"no answer to COMMIT: {error}", results) from error

    def _undone(self, error: Exception) -> Exception:
        """Roll back whatever was begun and return what `error` means."""
        self._database.drop_writer()
        if isinstance(error, writes.Mismatch):
            return self._database.read(error.explained)
        return self._database.failure(error)
