"""One storage under test: opened, written to by numbered batches, killed and opened again.

The suite speaks to a database only through this class and `titan.storage`, so that a second database is a second
value in `BACKENDS`.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from titan.core.changes import Change
from titan.core.commit import Batch, LogChunk
from titan.model.limits import DEFAULT_LIMITS, Limits
from titan.model.store import Operation
from titan.storage.blobs import BlobFiles
from titan.storage.database import Database
from titan.storage.journal import Journal
from titan.storage.logs import LogFiles
from titan.storage.tables import METADATA

BACKENDS = ("sqlite",)
NOW_MS = 1_800_000_000_000


@cache
def migrated() -> bytes:
    """Return the file of a fresh database: migrating one for each of hundreds of tests costs most of their time."""
    with tempfile.TemporaryDirectory() as folder:
        Database.open(Storage.url(Path(folder)), Path(folder)).close()
        return (Path(folder) / "titan.db").read_bytes()


class Storage:
    """A home with everything in it. `commit` numbers batches as the engine does."""

    def __init__(self, home: Path, limits: Limits = DEFAULT_LIMITS, segment_bytes_max: int = 64 * 1024 * 1024) -> None:
        self.home = home
        self.limits = limits
        self.segment_bytes_max = segment_bytes_max
        self.before_commit: Callable[[Batch], None] | None = None
        self.after_commit: Callable[[Batch], None] | None = None
        if not home.exists():
            home.mkdir(mode=0o700)
            (home / "titan.db").write_bytes(migrated())
        self.open()

    def open(self) -> None:
        self.database = Database.open(self.url(self.home), self.home)
        self.blobs = BlobFiles(self.home / "blobs")
        self.logs = LogFiles(self.home / "logs", self.segment_bytes_max)
        self.journal = Journal(
            self.database,
            self.blobs,
            self.logs,
            self.limits,
            before_commit=lambda batch: self.before_commit and self.before_commit(batch),
            after_commit=lambda batch: self.after_commit and self.after_commit(batch),
        )
        self.take_over()

    def take_over(self) -> None:
        self.epoch = self.journal.take_over(NOW_MS)
        self.number = 0

    @staticmethod
    def url(home: Path) -> str:
        return f"sqlite:///{home}/titan.db"

    def batch(
        self, changes: Sequence[Change] = (), operations: Sequence[Operation] = (), chunks: Sequence[LogChunk] = ()
    ) -> Batch:
        return Batch(self.epoch, self.number + 1, list(changes), list(operations), list(chunks))

    def commit(self, *changes: Change, chunks: Sequence[LogChunk] = ()) -> None:
        self.send(self.batch(changes, (), chunks))

    def do(self, *operations: Operation) -> list[Any]:
        return self.send(self.batch((), operations))

    def one(self, operation: Operation) -> Any:
        return self.do(operation)[0]

    def send(self, batch: Batch) -> list[Any]:
        results = self.journal.commit(batch)
        self.number = batch.number
        return results

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        return sorted(self.database.read(lambda connection: connection.run(f"SELECT * FROM {table}")), key=repr)

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return the whole content but the leader row."""
        return {name: self.rows(name) for name in METADATA.tables if name != "leader"}

    def after_a_kill(self, home: Path) -> "Storage":
        """Return what a start finds when this process is killed now: the files as they lie, nothing closed."""
        shutil.copytree(self.home, home)
        return Storage(home, self.limits, self.segment_bytes_max)

    def close(self) -> None:
        self.journal.close()
        self.database.close()

    def reopen(self) -> None:
        self.close()
        self.open()
