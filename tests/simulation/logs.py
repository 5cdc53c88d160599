"""Judges logs (31): what a job printed is in the database complete, in order and once, as soon as its end is.

The model is one number an attempt: how far its log goes. Every chunk begins there and holds the bytes that the pattern
has at that offset. A range may only be missing where the disk of the host was lost.
"""

from typing import TYPE_CHECKING

from tests.simulation.world import Broken
from titan.core.commit import LogChunk

if TYPE_CHECKING:
    from tests.simulation.ground import Ground

PERIOD = 251


class Logs:
    """`length`: how far each attempt's log goes in the database; `missing` how many bytes of that are holes."""

    def __init__(self, ground: "Ground", pattern: bytes) -> None:
        self.ground = ground
        self.pattern = pattern
        self.length: dict[int, int] = {}
        self.missing: dict[int, int] = {}
        self.disks_lost = 0

    def took(self, chunk: LogChunk) -> None:
        """A chunk is in the database."""
        fence, offset = chunk.fence, chunk.offset
        length = self.length.get(fence, 0)
        if offset != length:
            raise Broken("i31", f"the log of {fence} has {length} bytes, the next chunk begins at {offset}")
        if chunk.dropped:
            if not self.disks_lost:
                raise Broken("i31", f"{chunk.dropped} bytes of {fence} are missing from {offset} on: {chunk.why}")
            self.missing[fence] = self.missing.get(fence, 0) + chunk.dropped
        elif not chunk.data or not self.pattern.startswith(chunk.data, offset % PERIOD):
            raise Broken("i31", f"{len(chunk.data)} bytes of {fence} at {offset} are not those it printed there")
        self.length[fence] = chunk.end

    def ended(self, fence: int, printed: int, told: int) -> None:
        """The end of an attempt is in the database, which `told` how long its log is."""
        length = self.length.get(fence, 0)
        if not printed == told == length:
            raise Broken("i31", f"{fence} printed {printed} bytes, its end says {told}, {length} are kept")

    def finish(self) -> None:
        """Ask the database itself."""
        fences = list(self.length)
        for fence, (total, kept) in self.ground.store.log_totals(fences).items():
            length, missing = self.length[fence], self.missing.get(fence, 0)
            if (total, kept) != (length, length - missing):
                raise Broken("i31", f"the database has {kept} of {total} bytes of {fence}, not {length - missing}")
