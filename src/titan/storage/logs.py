"""Job output: appended to shared segment files, one fdatasync a batch, found again by an index in the database."""

from pathlib import Path

import msgspec
from sqlalchemy import Connection


class LogRange(msgspec.Struct, frozen=True):
    """Bytes of a log from `offset` on; the log reaches to `total` so far. Shorter than asked: ask again."""

    offset: int
    data: bytes
    total: int


class LogFiles:
    """The folder of segments: `<folder>/00000001.seg` and so on."""

    def __init__(self, folder: Path, segment_bytes_max: int = 64 * 1024 * 1024) -> None:
        raise NotImplementedError

    def read(self, connection: Connection, fence: int, offset: int, length: int) -> LogRange:
        """Return what the attempt `fence` wrote from `offset` on, `length` bytes at most."""
        raise NotImplementedError(connection, fence, offset, length)


def log_totals(connection: Connection, fences: list[int]) -> dict[int, int]:
    """Return how many log bytes of each attempt are durable: the offset to go on from. 0 for unknown ones."""
    raise NotImplementedError(connection, fences)
