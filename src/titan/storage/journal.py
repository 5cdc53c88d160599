"""Batches become durable here, each in one transaction that says what it believes."""

from collections.abc import Callable
from typing import Any

from titan.core.commit import Batch
from titan.model.limits import DEFAULT_LIMITS, Limits
from titan.storage.blobs import BlobFiles
from titan.storage.database import Database
from titan.storage.logs import LogFiles


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
        raise NotImplementedError

    def take_over(self, now_wall_ms: int) -> int:
        """Begin a new epoch and return it: at least one more than any before, at least the seconds since 2020."""
        raise NotImplementedError(now_wall_ms)

    def leader(self) -> tuple[int, int]:
        """Return (epoch, batch) of the leader row as it is now."""
        raise NotImplementedError

    def commit(self, batch: Batch) -> list[Any]:
        """Make `batch` durable and return the results of its operations, in order.

        Raises CommitFailed (AssertionFailed, StorageFull), CommitUnknown or Deposed.
        """
        raise NotImplementedError(batch)
