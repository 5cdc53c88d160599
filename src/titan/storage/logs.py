"""Job output: appended to shared segment files, one fdatasync a batch, found again by an index in the database.

A file that grows has its length written into the file system's own journal at each sync, which takes several times
as long as the bytes. So a small batch that needs room makes room for many: zeros, which the next ones write over.

A file and an fsync for each job would cost more than running many of them. So all output of a batch goes to the
end of one segment, and a row for each attempt says where: the row is part of the batch's transaction, and bytes
without a row do not exist. A crash or a failed batch leaves such bytes behind; nobody reads them, and a start
or a failure begins a new segment, so that nothing is ever written behind a tail of unknown state. Bytes that were
dropped have a row too, which says why, and no place in a segment: whoever reads a log is told of them.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec
from sqlalchemy import bindparam, func, select, text

from titan.core.commit import LogChunk
from titan.storage.connection import Connection, Statement
from titan.storage.errors import ContentMissing
from titan.storage.files import make_folder, sync_folder, write_all
from titan.storage.tables import log_index

SEGMENT_BYTES_MAX = 64 * 1024 * 1024
ROOM_BYTES = 256 * 1024
SMALL_BYTES = 16 * 1024  # larger batches are rare, or so many that zeros before each would cost more than they save
_NAME = re.compile(r"([0-9]{8})\.seg")

NO_REASON = "nobody knows why"

# Bytes: (fence, offset, length, segment, position). A hole: (fence, offset, length, why).
IndexRow = tuple[int, int, int, int, int] | tuple[int, int, int, str]
_c = log_index.c
_INSERT = Statement(log_index.insert(), "fence", "offset", "length", "segment", "position")
# A hole that grows comes again. The table refuses to make one of bytes.
_INSERT_HOLE = Statement(
    text(
        'INSERT INTO log_index (fence, "offset", length, segment, position, dropped)'
        " VALUES (:fence, :offset, :length, 0, 0, :dropped)"
        ' ON CONFLICT (fence, "offset") DO UPDATE SET length = excluded.length, dropped = excluded.dropped'
    ),
    "fence",
    "offset",
    "length",
    "dropped",
)
_AT = (
    select(func.max(_c.offset)).where(_c.fence == bindparam("fence"), _c.offset <= bindparam("begin")).scalar_subquery()
)
_RANGE = Statement(
    select(_c.offset, _c.length, _c.segment, _c.position, _c.dropped)
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
_HOLES = Statement(
    select(_c.offset, _c.length)
    .where(_c.fence == bindparam("fence"), _c.dropped.is_not(None))
    .order_by(_c.offset.desc()),
    "fence",
)


class LogRange(msgspec.Struct, frozen=True):
    """Bytes of a log from `offset` on, behind which `dropped` bytes are missing for the reason `why`.

    The log reaches to `total` so far, missing bytes included. What is not reached yet is to be asked for again.
    """

    offset: int
    data: bytes
    total: int
    dropped: int = 0
    why: str = ""

    @property
    def end(self) -> int:
        """Where to go on."""
        return self.offset + len(self.data) + self.dropped


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
        self._room_end = 0  # up to here the segment is written, with zeros behind `_position`

    def append(self, chunks: Iterable[LogChunk]) -> list[IndexRow]:
        """Write `chunks` durably and return the index rows that make them known. For the writer thread.

        Raises OSError when the disk refuses; what was written of them is then taken back.
        """
        rows: list[IndexRow] = [(each.fence, each.offset, each.dropped, each.why) for each in chunks if each.dropped]
        joined = _joined(chunks)
        if not joined:
            return rows
        pieces: list[bytes] = []
        try:
            descriptor = self._writable()
            end = self._position
            for fence, offset, parts in joined:
                length = sum(map(len, parts))
                rows.append((fence, offset, length, self._segment, end))
                pieces.extend(parts)
                end += length
            self._write(descriptor, b"".join(pieces))
            os.fdatasync(descriptor)
        except OSError:
            self._abandon_segment()
            raise
        self._position = end
        return rows

    def index(self, connection: Connection, rows: list[IndexRow]) -> None:
        """Insert `rows` of `append`. A range that is there already is an error of the driver."""
        holes = [row for row in rows if len(row) == 4]
        if holes:
            connection.change_many(_INSERT_HOLE, holes)
        if len(holes) < len(rows):
            connection.change_many(_INSERT, [row for row in rows if len(row) == 5])

    def read(self, connection: Connection, fence: int, offset: int, length: int) -> LogRange:
        """Return what the attempt `fence` wrote from `offset` on, `length` bytes at most, up to what is missing.

        Raises ContentMissing when a segment is gone or too short.
        """
        found = connection.row(_TOTAL, fence)
        total: int = found[0] if found else 0
        data, dropped, why = b"", 0, ""
        if length > 0 and offset < total:
            data, dropped, why = self._read(connection, fence, offset, length)
        if length > 0 and not data and not dropped and offset < total:
            following = connection.row(_NEXT, fence, offset)
            dropped, why = (following[0] if following else total) - offset, NO_REASON
        return LogRange(offset, data, total, dropped, why)

    def tail(self, connection: Connection, fence: int, length: int) -> int:
        """Return the offset behind which `length` bytes are kept; 0 when there are not so many."""
        found = connection.row(_TOTAL, fence)
        begin: int = (found[0] if found else 0) - length
        for hole, missing in connection.rows(_HOLES, fence):
            if hole + missing <= begin:
                break
            begin -= missing
        return max(0, begin)

    def close(self) -> None:
        """Close the segment being written, and give back the room behind it."""
        if self._descriptor is not None:
            with suppress(OSError):  # zeros that stay are in nobody's way
                os.ftruncate(self._descriptor, self._position)
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, descriptor: int, data: bytes) -> None:
        """Write `data` behind what is there, and room for more of its kind when it has none."""
        end = self._position + len(data)
        _write_at(descriptor, data, self._position)
        if end <= self._room_end:
            return
        self._room_end = end
        room = min(end + ROOM_BYTES, self._segment_bytes_max)
        if len(data) <= SMALL_BYTES and room > end:
            try:
                _write_at(descriptor, bytes(room - end), end)
                self._room_end = room
            except OSError:
                os.ftruncate(descriptor, end)  # a full disk has none to spare, but it has the data

    def _read(self, connection: Connection, fence: int, offset: int, length: int) -> tuple[bytes, int, str]:
        """Return the bytes up to the first that is missing, and how many are missing behind them, and why."""
        found: list[bytes] = []
        at = offset
        end = offset + length
        with _Segments(self._folder) as segments:
            for row_offset, row_length, segment, position, dropped in connection.rows(_RANGE, fence, offset, end):
                row_end = row_offset + row_length
                if row_end <= at:
                    continue
                if row_offset > at:
                    return b"".join(found), row_offset - at, NO_REASON
                if dropped is not None:
                    return b"".join(found), row_end - at, dropped
                skip = at - row_offset
                data = segments.read(segment, position + skip, min(row_length - skip, end - at))
                found.append(data)
                at += len(data)
        return b"".join(found), 0, ""

    def _writable(self) -> int:
        if self._descriptor is None or self._position >= self._segment_bytes_max:
            self.close()
            path = self._path(self._segment + 1)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._segment += 1
            self._position = self._room_end = 0
            sync_folder(self._folder)
        return self._descriptor

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:08d}.seg"

    def _abandon_segment(self) -> None:
        if self._descriptor is not None:
            self.close()
            if self._position == 0:
                with suppress(OSError):  # it stays, without a row
                    self._path(self._segment).unlink()
                    self._segment -= 1


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


def log_totals(connection: Connection, fences: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Return how long each attempt's durable log is, where it goes on, and how many bytes of that are kept."""
    totals = {}
    for fence in fences:
        row = connection.row(_TOTAL, fence)
        total: int = row[0] if row else 0
        missing: int = sum(length for _, length in connection.rows(_HOLES, fence))
        totals[fence] = total, total - missing
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


def _write_at(descriptor: int, data: bytes, position: int) -> None:
    os.lseek(descriptor, position, os.SEEK_SET)
    write_all(descriptor, data)


def _missing(path: Path, what: str) -> ContentMissing:
    return ContentMissing(f"the log segment {path} cannot be read: {what}; put it back from a backup of the home")
