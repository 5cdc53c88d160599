"""Job output: appended to shared segment files, one fdatasync a batch, found again by an index in the database.

A file and an fsync for each job would cost more than running many of them. So all output of a batch goes to the
end of one segment, and a row for each attempt says where: the row is part of the batch's transaction, and bytes
without a row do not exist. A crash or a failed batch leaves such bytes behind; nobody reads them, and a start
or a failure begins a new segment, so that nothing is ever written behind a tail of unknown state.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import msgspec
from sqlalchemy import bindparam, func, select

from titan.core.commit import LogChunk
from titan.storage.connection import Connection, Statement
from titan.storage.errors import ContentMissing
from titan.storage.files import make_folder, sync_folder, write_all
from titan.storage.tables import log_index

SEGMENT_BYTES_MAX = 64 * 1024 * 1024
_NAME = re.compile(r"([0-9]{8})\.seg")

IndexRow = tuple[int, int, int, int, int]
_c = log_index.c
_INSERT = Statement(log_index.insert(), "fence", "offset", "length", "segment", "position")
_AT = (
    select(func.max(_c.offset)).where(_c.fence == bindparam("fence"), _c.offset <= bindparam("begin")).scalar_subquery()
)
_RANGE = Statement(
    select(_c.offset, _c.length, _c.segment, _c.position)
    .where(_c.fence == bindparam("fence"), _c.offset >= func.coalesce(_AT, 0), _c.offset < bindparam("end"))
    .order_by(_c.offset),
    "fence",
    "begin",
    "end",
)
_NEXT = Statement(
    select(_c.offset)
    .where(_c.fence == bindparam("fence"), _c.offset > bindparam("begin"))
    .order_by(_c.offset)
    .limit(1),
    "fence",
    "begin",
)
_TOTAL = Statement(
    select(_c.offset + _c.length).where(_c.fence == bindparam("fence")).order_by(_c.offset.desc()).limit(1), "fence"
)


class LogRange(msgspec.Struct, frozen=True):
    """Bytes of a log from `offset` on, which is later than asked where bytes were dropped.

    The log reaches to `total` so far. Fewer bytes than asked for, and not at its end: ask again.
    """

    offset: int
    data: bytes
    total: int


class LogFiles:
    """The folder of segments: `<folder>/00000001.seg` and so on. One writer, any number of readers."""

    def __init__(self, folder: Path, segment_bytes_max: int = SEGMENT_BYTES_MAX) -> None:
        make_folder(folder)
        self._folder = folder
        self._segment_bytes_max = segment_bytes_max
        names = [_NAME.fullmatch(file.name) for file in folder.iterdir()]
        self._segment = max((int(name.group(1)) for name in names if name), default=0)
        self._descriptor: int | None = None
        self._position = 0

    def append(self, chunks: Iterable[LogChunk]) -> list[IndexRow]:
        """Write `chunks` durably and return the index rows that make them known. For the writer thread.

        Raises OSError when the disk refuses; what was written of them is then taken back.
        """
        joined = _joined(chunks)
        if not joined:
            return []
        rows: list[IndexRow] = []
        pieces: list[bytes] = []
        try:
            descriptor = self._writable()
            end = self._position
            for fence, offset, parts in joined:
                length = sum(map(len, parts))
                rows.append((fence, offset, length, self._segment, end))
                pieces.extend(parts)
                end += length
            write_all(descriptor, b"".join(pieces))
            os.fdatasync(descriptor)
        except OSError:
            self._abandon_segment()
            raise
        self._position = end
        return rows

    def index(self, connection: Connection, rows: list[IndexRow]) -> None:
        """Insert `rows` of `append`. A range that is there already is an error of the driver."""
        connection.change_many(_INSERT, rows)

    def read(self, connection: Connection, fence: int, offset: int, length: int) -> LogRange:
        """Return what the attempt `fence` wrote from `offset` on, `length` bytes at most, up to the next dropped range.

        Raises ContentMissing when a segment is gone or too short.
        """
        total = connection.row(_TOTAL, fence)
        if total is None:
            return LogRange(0, b"", 0)
        start, data = self._read(connection, fence, offset, length)
        if not data and length > 0:
            following = connection.row(_NEXT, fence, offset)
            if following is not None:
                start, data = self._read(connection, fence, following[0], length)
        return LogRange(start, data, total[0])

    def close(self) -> None:
        """Close the segment being written."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _read(self, connection: Connection, fence: int, offset: int, length: int) -> tuple[int, bytes]:
        found: list[bytes] = []
        start = at = offset
        end = offset + length
        with _Segments(self._folder) as segments:
            for row_offset, row_length, segment, position in connection.rows(_RANGE, fence, offset, end):
                if row_offset + row_length <= at:
                    continue
                if row_offset > at:
                    if found:
                        break
                    start = at = row_offset
                skip = at - row_offset
                data = segments.read(segment, position + skip, min(row_length - skip, end - at))
                found.append(data)
                at += len(data)
        return start, b"".join(found)

    def _writable(self) -> int:
        if self._descriptor is None or self._position >= self._segment_bytes_max:
            self.close()
            path = self._path(self._segment + 1)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._segment += 1
            self._position = 0
            sync_folder(self._folder)
        return self._descriptor

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:08d}.seg"

    def _abandon_segment(self) -> None:
        if self._descriptor is not None:
            try:
                os.ftruncate(self._descriptor, self._position)
                if self._position == 0:
                    self._path(self._segment).unlink()
                    self._segment -= 1
            except OSError:
                pass  # the tail stays, without a row
            self.close()


class _Segments:
    """Segments opened for one read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptors: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    def read(self, segment: int, position: int, length: int) -> bytes:
        path = self._folder / f"{segment:08d}.seg"
        try:
            if segment not in self._descriptors:
                self._descriptors[segment] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            data = os.pread(self._descriptors[segment], length, position)
        except FileNotFoundError as error:
            raise _missing(path, "it is not there") from error
        if len(data) < length:
            raise _missing(path, f"it ends before byte {position + length}")
        return data


def log_totals(connection: Connection, fences: Iterable[int]) -> dict[int, int]:
    """Return how many log bytes of each attempt are durable: the offset to go on from. 0 for unknown ones."""
    totals = {}
    for fence in fences:
        row = connection.row(_TOTAL, fence)
        totals[fence] = row[0] if row else 0
    return totals


def _joined(chunks: Iterable[LogChunk]) -> list[tuple[int, int, list[bytes]]]:
    """Return (fence, offset, pieces), neighbours of one attempt joined, so that a batch has few index rows."""
    joined: list[tuple[int, int, list[bytes]]] = []
    ends: dict[int, tuple[int, list[bytes]]] = {}
    for chunk in chunks:
        if not chunk.data:
            continue
        end, parts = ends.get(chunk.fence, (-1, []))
        if end != chunk.offset:
            parts = []
            joined.append((chunk.fence, chunk.offset, parts))
        parts.append(chunk.data)
        ends[chunk.fence] = (chunk.offset + len(chunk.data), parts)
    return joined


def _missing(path: Path, what: str) -> ContentMissing:
    return ContentMissing(f"the log segment {path} cannot be read: {what}; put it back from a backup of the home")
