"""What can go wrong with the storage, for the few callers that must tell one from another.

StorageError
├── RefusedStart            the process must not begin; the message says what, why and what to do
│   ├── DatabaseCorrupt
│   ├── SchemaNewer
│   ├── DatabaseInUse
│   └── StorageUnusable     the home cannot be written, SQLite is too old, not an address of a database
├── CommitFailed            certainly rolled back
│   ├── AssertionFailed     the database holds something else than memory believed
│   └── StorageFull
├── CommitUnknown           COMMIT was sent and not answered: the leader row tells
├── Deposed                 another epoch leads
├── ContentMissing           a file that a row names is gone or cut short
└── ReadTimedOut            a reader was cut, so that it does not keep the write-ahead log from being emptied
"""

from typing import Any


class StorageError(Exception):
    """Base of all the above."""


class RefusedStart(StorageError):
    """The storage cannot be opened as it is."""


class DatabaseCorrupt(RefusedStart):
    """The file is damaged or no database. Also raised by reads and commits that meet the damage later."""


class SchemaNewer(RefusedStart):
    """The database was written by a newer Titan, which may keep in it what this one would destroy."""


class DatabaseInUse(RefusedStart):
    """Another process has this database open for writing."""


class StorageUnusable(RefusedStart):
    """The home cannot be written, or what is needed to write it is missing."""


class CommitFailed(StorageError):
    """Nothing of the batch was kept."""


class AssertionFailed(CommitFailed):
    """A write did not find the row it believed in."""


class StorageFull(CommitFailed):
    """No room on the disk. Committing works again as soon as there is some."""


class CommitUnknown(StorageError):
    """The batch may have been kept or not. `results` are those of its operations if it was."""

    def __init__(self, message: str, results: list[Any]) -> None:
        super().__init__(message)
        self.results = results


class Deposed(StorageError):
    """The leader row shows another epoch: this process may write no more."""


class ContentMissing(StorageError):
    """A blob or log file was removed or damaged from outside."""


class ReadTimedOut(StorageError):
    """A read took longer than it may. Ask for less at once."""
