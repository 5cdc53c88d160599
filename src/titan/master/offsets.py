"""How far each attempt's log has come: received, and durable. The worker sends again whatever is in doubt.

An `Output` says where its bytes belong. What was received before is trimmed, a gap is an error of the
worker, and only durable bytes are acknowledged. This outlives a link: bytes of the old link may be on
their way to the disk while the new one says hello.

A worker caps its logs by itself. Where this Master's limit is lower, what is over it is acknowledged and
not kept: closing the link would only have it all sent again.
"""

from collections.abc import Callable, Iterable

import msgspec

from titan.core.commit import LogChunk
from titan.model.wire import Output


class Gap(Exception):
    """Bytes are missing before those that came."""


class Offset(msgspec.Struct):
    """One attempt's log, in bytes from its start."""

    worker: str
    received: int
    durable: int


class Offsets:
    """The logs that are being received, by fence."""

    def __init__(self, log_bytes_max: int) -> None:
        self._log_bytes_max = log_bytes_max
        self._by_fence: dict[int, Offset] = {}

    def unknown(self, fences: Iterable[int]) -> list[int]:
        """Return those of `fences` whose durable length has to be read from the database."""
        return [fence for fence in fences if fence not in self._by_fence]

    def begin(self, worker: str, fence: int, durable: int = 0) -> None:
        """An attempt of `worker` has `durable` bytes of log; a known one stays as it is."""
        if fence not in self._by_fence:
            self._by_fence[fence] = Offset(worker, durable, durable)

    def end(self, worker: str, fence: int) -> None:
        """The attempt is over, says its `worker`: nothing more will come that is wanted."""
        offset = self._by_fence.get(fence)
        if offset is not None and offset.worker == worker:
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

    def receive(self, worker: str, output: Output) -> LogChunk | None:
        """Return what is new in `output` and is to be kept; None when nothing is.

        An unknown fence is nobody's log any more. Raises Gap when bytes are missing before it, or when the log
        is another worker's.
        """
        offset = self._by_fence.get(output.fence)
        if offset is None:
            return None
        if offset.worker != worker:
            raise Gap(f"the log of {output.fence} is not that of {worker}")
        received = offset.received
        if output.offset < 0 or output.offset > received < self._log_bytes_max:
            raise Gap(f"the log of {output.fence} has {received} bytes, more came for {output.offset}")
        offset.received = max(received, output.offset + len(output.data))
        new = output.data[received - output.offset : self._log_bytes_max - output.offset]
        return LogChunk(output.fence, received, new) if new and received < self._log_bytes_max else None

    def keep(self, chunk: LogChunk) -> None:
        """The bytes of `chunk` are durable."""
        offset = self._by_fence.get(chunk.fence)
        if offset is not None:
            offset.durable = chunk.offset + len(chunk.data)

    def durable(self, fence: int) -> int | None:
        """Return up to where the worker may forget the log; None for one that is not known."""
        offset = self._by_fence.get(fence)
        if offset is None:
            return None
        return offset.durable if offset.durable < self._log_bytes_max else offset.received
