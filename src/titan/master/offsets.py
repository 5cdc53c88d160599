"""How far each attempt's log has come: received, and durable. The worker sends again whatever is in doubt.

An `Output` says where its bytes belong, a `Dropped` which bytes there are none of. What was received before is
trimmed, a gap is an error of the worker, and only what is durable is acknowledged: bytes, and that some are missing.
This outlives a link: bytes of the old link may be on their way to the disk while the new one says hello.

A worker caps its logs by itself. Where this Master's limit is lower, what is over it becomes a hole as well: closing
the link would only have it all sent again. Holes that touch and have one reason are one, which grows, so that a log
without end is one row.
"""

from collections.abc import Callable, Iterable

import msgspec

from titan.core.commit import LogChunk
from titan.model.wire import Dropped, Output

WHY_CHARS_MAX = 256
NOBODY = ""


class Gap(Exception):
    """Bytes are missing before those that came."""


class Offset(msgspec.Struct):
    """One attempt's log, in bytes from its start. `kept` bytes are on the disk or on their way.

    What was received last was a hole from `hole` on, for the reason `why`; -1: it was bytes.
    """

    worker: str
    received: int
    durable: int
    kept: int
    hole: int = -1
    why: str = ""


class Offsets:
    """The logs that are being received, by fence."""

    def __init__(self, log_bytes_max: int) -> None:
        self._log_bytes_max = log_bytes_max
        self._by_fence: dict[int, Offset] = {}

    def unknown(self, fences: Iterable[int]) -> list[int]:
        """Return those of `fences` whose durable length has to be read from the database."""
        return [fence for fence in fences if fence not in self._by_fence]

    def begin(self, worker: str, fence: int, durable: int = 0, kept: int = 0) -> None:
        """An attempt of `worker` has a log of `durable` bytes, `kept` of them; a known one stays as it is.

        NOBODY has those that are over.
        """
        if fence not in self._by_fence:
            self._by_fence[fence] = Offset(worker, durable, durable, kept)

    def end(self, worker: str, fence: int) -> None:
        """The attempt is over, says its `worker`: nothing more will come that is wanted."""
        offset = self._by_fence.get(fence)
        if offset is not None and offset.worker in (worker, NOBODY):
            del self._by_fence[fence]

    def end_all(self) -> None:
        """Forget everything; each worker says anew what it holds."""
        self._by_fence.clear()

    def keep_only(self, lives: Callable[[int], bool]) -> None:
        """Forget attempts that live no more."""
        self._by_fence = {fence: offset for fence, offset in self._by_fence.items() if lives(fence)}

    def count(self) -> int:
        """Return how many logs are known."""
        return len(self._by_fence)

    def receive(self, worker: str, said: Output | Dropped) -> list[LogChunk]:
        """Return what is new in `said`: bytes to keep, and what is missing.

        An unknown fence is nobody's log any more. Raises Gap when something is missing before it, or when the log is
        another worker's.
        """
        offset = self._by_fence.get(said.fence)
        if offset is None or offset.worker == NOBODY:
            return []
        if offset.worker != worker:
            raise Gap(f"the log of {said.fence} is not that of {worker}")
        received = offset.received
        if not 0 <= said.offset <= received:
            raise Gap(f"the log of {said.fence} has {received} bytes, more came for {said.offset}")
        if isinstance(said, Dropped):
            new = said.offset + said.length - received
            return [_missing(said.fence, offset, new, said.why[:WHY_CHARS_MAX])] if new > 0 else []
        data = said.data[received - said.offset :]
        kept = data[: max(0, self._log_bytes_max - offset.kept)]
        chunks = []
        if kept:
            chunks.append(LogChunk(said.fence, received, kept))
            offset.received += len(kept)
            offset.kept += len(kept)
            offset.hole = -1
        if len(kept) < len(data):
            why = f"the Master keeps at most {self._log_bytes_max} bytes of a log"
            chunks.append(_missing(said.fence, offset, len(data) - len(kept), why))
        return chunks

    def keep(self, chunk: LogChunk) -> None:
        """What `chunk` says is durable."""
        offset = self._by_fence.get(chunk.fence)
        if offset is not None:
            offset.durable = chunk.end

    def durable(self, fence: int) -> int | None:
        """Return up to where the worker may forget the log; None for one that is not known."""
        offset = self._by_fence.get(fence)
        return None if offset is None else offset.durable


def _missing(fence: int, offset: Offset, length: int, why: str) -> LogChunk:
    """Note that `length` bytes are missing from where the log has come to; the hole they end is one with theirs."""
    if offset.hole < 0 or offset.why != why:
        offset.hole, offset.why = offset.received, why
    offset.received += length
    return LogChunk(fence, offset.hole, b"", offset.received - offset.hole, why)
