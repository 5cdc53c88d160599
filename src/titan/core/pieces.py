"""A log on its way from a worker: pieces of it, and what is missing between them."""

from collections.abc import Sequence

import msgspec

from titan.model.limits import DEFAULT_LIMITS
from titan.model.wire import Dropped


class Piece(msgspec.Struct, frozen=True, gc=False):
    """Log bytes to send as `Output`: `length` bytes of the attempt's log from `offset` on."""

    fence: int
    offset: int
    length: int


def bytes_between(holes: Sequence[Dropped], begin: int, end: int) -> int:
    """Return how many bytes there are between two offsets: what is missing is no load for anybody."""
    missing = 0
    for hole in holes:
        missing += max(0, min(end, hole.offset + hole.length) - max(begin, hole.offset))
    return end - begin - missing


def next_piece(fence: int, holes: Sequence[Dropped], begin: int, end: int, limit: int) -> Piece | Dropped:
    """Return what comes next of a log that is to be sent from `begin` to `end`: `limit` bytes at most, or a hole."""
    for hole in holes:
        hole_end = hole.offset + hole.length
        if hole_end <= begin:
            continue
        if hole.offset <= begin:
            return Dropped(fence, begin, hole_end - begin, hole.why)
        end = hole.offset
        break
    return Piece(fence, begin, min(end - begin, DEFAULT_LIMITS.output_bytes_max, limit))
