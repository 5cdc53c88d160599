"""One attempt's log on the worker's disk: the beginning of what the job printed, and its newest bytes.

A job may print without end and never waits for us, so a spool has a cap. Its first half, the head, keeps the
beginning and is shipped as it comes. Its second half is a ring of the newest bytes, shipped when the job is over.
Offsets are positions in all that the job printed; what is in neither half, or could not be written, is a hole
with its reason. Lines of ours follow the job's bytes, and are kept in memory: they are short, and are there on a
full disk too.

The file is a page for the header, the head, the ring. As long as nothing is missing the header is empty, and the
file's size says how long the log is. Then the header says it, and is written in an order that leaves it true
whenever this process is killed: a hole before the bytes behind it, room in the ring before the bytes in it are
overwritten, the length after what was written. One that does not fit its checksum says nothing: the log is gone.
"""

import contextlib
import os
import zlib
from pathlib import Path

import msgspec

HEADER_BYTES = 4096
# The header has room for so many. Where more would be needed, the last one does not end.
HOLES_MAX = 32
HEAD_HOLES_MAX = 16
WHY_CHARS_MAX = 64
# The ring is claimed ahead by this much, so that the header is written once for each piece and not twice.
CLAIM_BYTES = 1024 * 1024
_CHECKED_BYTES = 6


class Hole(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`length` bytes from `offset` on were not kept."""

    offset: int
    length: int
    why: str

    @property
    def end(self) -> int:
        """The first offset behind it."""
        return self.offset + self.length


class _Header(msgspec.Struct, array_like=True):
    head: int
    ring: int
    total: int
    claimed: int
    ends_line: bool
    holes: list[Hole]


class Spool:
    """One attempt's log, of which at most `cap_bytes` (2 or more) are kept. The job has printed `total` bytes.

    `append` and `add_line` are for one thread, `read` for another, once it has been told what there is.
    """

    __slots__ = (
        "_cap",
        "_claimed",
        "_ends_line",
        "_file",
        "_head",
        "_holes",
        "_lines",
        "_ring",
        "_stated",
        "path",
        "total",
    )

    def __init__(self, path: Path, cap_bytes: int) -> None:
        self.path = path
        self.total = 0
        self._head = cap_bytes // 2
        self._ring = cap_bytes - self._head
        self._cap = self._claimed = cap_bytes
        self._file = -1
        self._holes: list[Hole] = []
        self._lines = b""
        self._ends_line = True
        self._stated = False

    @property
    def length(self) -> int:
        """The length of the whole log: what the job printed, and our lines."""
        return self.total + len(self._lines)

    def append(self, data: memoryview) -> None:
        """Keep what the job printed next, or note why not."""
        while data:
            if self.total < self._head:
                room = self._head - self.total
            else:
                room = self._ring - (self.total - self._head) % self._ring
            self._keep(data[:room])
            data = data[room:]

    def add_line(self, line: str) -> None:
        """Add a line of ours behind what the job printed, which prints no more."""
        start = "" if self._ends_line or self._lines else "\n"
        self._lines += f"{start}[titan] {line}\n".encode("utf-8", "backslashreplace")

    def live(self) -> tuple[int, list[Hole]]:
        """Return up to where the log can be shipped while the job still prints, and the holes before that."""
        ended = [hole for hole in self._holes if hole.end < self.total and hole.end <= self._head]
        end = min(self.total, self._head)
        if len(ended) < len(self._holes):
            end = min(end, self._holes[len(ended)].offset)
        return end, ended

    def holes(self) -> list[Hole]:
        """Return all that is missing, in order, of a job that prints no more."""
        kept_from = max(self._head, self._claimed - self._ring)
        found = [_clipped(hole, 0, self._head) for hole in self._holes]
        if kept_from > self._head:
            why = f"a log keeps its first {self._head} and its last {self._ring} bytes"
            found.append(Hole(self._head, min(kept_from, self.total) - self._head, why))
        found += [_clipped(hole, kept_from, self.total) for hole in self._holes]
        joined: list[Hole] = []
        for hole in found:
            if hole.length <= 0:
                continue
            if joined and joined[-1].end == hole.offset and joined[-1].why == hole.why:
                hole = Hole(joined[-1].offset, joined.pop().length + hole.length, hole.why)  # noqa: PLW2901
            joined.append(hole)
        return joined

    def end(self) -> None:
        """The job prints no more: the ring holds its newest bytes, and nothing will be overwritten."""
        if self._claimed > self._cap:
            self._claimed = min(self._claimed, max(self.total, self._cap))
            self._try_to_state()

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, none of them in a hole. Those that cannot be read are NUL."""
        parts = []
        end = offset + length
        while offset < min(end, self.total):
            position, room = offset, self._head - offset
            if offset >= self._head:
                at = (offset - self._head) % self._ring
                position, room = self._head + at, self._ring - at
            size = min(room, end - offset, self.total - offset)
            try:
                data = os.pread(self._file, size, HEADER_BYTES + position)
            except OSError:
                data = b""
            parts.append(data.ljust(size, b"\0"))
            offset += size
        if offset < end:
            parts.append(self._lines[offset - self.total : end - self.total])
        return b"".join(parts)

    def close(self) -> None:
        """Close the file and leave it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        """Close the file and remove it; one that cannot be removed is left for the worker's next start."""
        if self._file >= 0:
            self.close()
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _keep(self, data: memoryview) -> None:
        """Write `data`, which has one place in the file."""
        while data:
            written = 0
            try:
                if self._may_write():
                    if self._file < 0:
                        self._file = _new_file(self.path)
                    self._prepare(len(data))
                    written = os.pwrite(self._file, data, HEADER_BYTES + self._position())
            except OSError as error:
                reason = error.strerror or type(error).__name__
                self._drop(len(data), f"the worker's disk: {reason}"[:WHY_CHARS_MAX])
                written = len(data)
            else:
                if not written:
                    self._drop(len(data), self._holes[-1].why)
                    written = len(data)
                else:
                    self.total += written
            self._ends_line = data[written - 1] == 10
            data = data[written:]
        if self._stated:
            self._try_to_state()

    def _position(self) -> int:
        if self.total < self._head:
            return self.total
        return self._head + (self.total - self._head) % self._ring

    def _may_write(self) -> bool:
        """Say whether there is room for one more hole, should it come to that, or the last one need not end."""
        most = HEAD_HOLES_MAX if self.total < self._head else HOLES_MAX
        if len(self._holes) < most or self._holes[-1].end < self.total:
            return True
        kept_from = self.total - self._ring
        self._holes = [hole for hole in self._holes if hole.offset < self._head or hole.end > kept_from]
        return len(self._holes) < most

    def _prepare(self, size: int) -> None:
        """Say in the header what has to stand there before the next `size` bytes are written."""
        behind_hole = bool(self._holes) and self._holes[-1].end == self.total
        if self.total + size > self._claimed:
            before, self._claimed = self._claimed, self.total + size + min(CLAIM_BYTES, self._ring // 8)
            try:
                self._state()
            except OSError:
                self._claimed = before
                raise
        elif behind_hole:
            self._state()

    def _drop(self, size: int, why: str) -> None:
        last = self._holes[-1] if self._holes else None
        if last is not None and last.end == self.total and (last.why == why or len(self._holes) >= HEAD_HOLES_MAX):
            self._holes[-1] = Hole(last.offset, last.length + size, last.why)
        else:
            self._holes.append(Hole(self.total, size, why))
        self.total += size

    def _state(self) -> None:
        header = _Header(self._head, self._ring, self.total, self._claimed, self._ends_line, self._holes)
        data = msgspec.msgpack.encode(header)
        os.pwrite(self._file, _check(data) + data, 0)
        self._stated = True

    def _try_to_state(self) -> None:
        try:
            self._state()
        except OSError:
            pass  # what it said before is true, and says less

    def _recover(self) -> None:
        self._file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        first = os.pread(self._file, HEADER_BYTES, 0)
        if not first.strip(b"\0"):
            self.total = self._head = max(0, os.fstat(self._file).st_size - HEADER_BYTES)
            self._ring, self._claimed = 1, self.total + 1
            self._ends_line = not self.total or self.read(self.total - 1, 1) == b"\n"
            return
        header = _decoded(first)
        self.total, self._head, self._ring = header.total, header.head, header.ring
        self._claimed, self._holes, self._ends_line = header.claimed, header.holes, header.ends_line
        self._cap, self._stated = header.head + header.ring, True


def recover(path: Path) -> Spool:
    """Return what a process that was killed has kept of a log in the file `path`, to be read and added to by lines.

    `length` and `holes()` say what there is; without a readable file it is empty. What had been taken from the
    job's pipe and was not yet written is not in it.
    """
    spool = Spool(path, 2)
    try:
        spool._recover()
    except (OSError, msgspec.MsgspecError):
        spool.close()
        return Spool(path, 2)
    return spool


def _new_file(path: Path) -> int:
    # What is there under that name is not ours, and may be a link to what we must not write.
    path.unlink(missing_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _clipped(hole: Hole, begin: int, end: int) -> Hole:
    begin = max(begin, hole.offset)
    return Hole(begin, min(end, hole.end) - begin, hole.why)


def _check(data: bytes) -> bytes:
    return len(data).to_bytes(2, "little") + zlib.crc32(data).to_bytes(4, "little")


def _decoded(page: bytes) -> _Header:
    data = page[_CHECKED_BYTES:][: int.from_bytes(page[:2], "little")]
    if page[:_CHECKED_BYTES] != _check(data):
        raise msgspec.DecodeError("the header of a spool is damaged")
    header = msgspec.msgpack.decode(data, type=_Header)
    if header.ring < 1 or header.head < 0:
        raise msgspec.ValidationError("the header of a spool is out of range")
    return header
