"""What was not kept of a log is said where its bytes would be, and holds nothing else up."""

from titan.core.link import WINDOW_BYTES_START, WorkerLink
from titan.core.pieces import Piece
from titan.model.limits import DEFAULT_LIMITS
from titan.model.wire import Ack, Dropped, Ended, Grant, Started, Welcome


def running(slots: int = 2) -> WorkerLink:
    link = WorkerLink(slots)
    link.hello(0)
    link.welcome(Welcome(epoch=1))
    link.grant(Grant(1, "r", "j", 1, 1, b"", "t", "k", "a"))
    link.hand_over(1)
    link.started(1, 0)
    assert link.next_frame(0) == [Started(1, 0)]
    return link


def test_i32_a_hole_is_said_between_the_bytes_around_it() -> None:
    link = running()
    link.log_grew(1, 10)
    link.log_skipped(1, 10, 90, "full")
    assert link.next_frame(0) == [Piece(1, 0, 10)]
    end = Ended(1, 0, log_bytes=104)
    link.ended(end)
    assert link.next_frame(0) == [Dropped(1, 10, 90, "full"), Piece(1, 100, 4), end]


def test_a_hole_of_terabytes_fits_the_window() -> None:
    link = running()
    link.log_skipped(1, 0, 10**13, "full")
    link.log_grew(1, 10**13 + 5)
    assert link.next_frame(0) == [Dropped(1, 0, 10**13, "full"), Piece(1, 10**13, 5)]
    link.ack(Ack(log_offsets={1: 10**13 + 5}), 0)
    link.log_grew(1, 10**13 + 5 + 10 * WINDOW_BYTES_START)
    sent = 0
    for piece in link.next_frame(0):
        assert isinstance(piece, Piece)
        sent += piece.length
    assert sent == 2 * WINDOW_BYTES_START
    # What was on its way counts as not sent, and only what it weighed.
    link.ended(Ended(1, 0, log_bytes=10**13 + 5 + 10 * WINDOW_BYTES_START))
    link.hello(0)
    link.welcome(Welcome(epoch=1, log_offsets={1: 10**13 - 1}))
    assert link.next_frame(0)[:2] == [Dropped(1, 10**13 - 1, 1, "full"), Piece(1, 10**13, WINDOW_BYTES_START)]


def test_a_piece_ends_where_something_is_missing_and_a_hole_waits_for_its_turn() -> None:
    link = running()
    link.log_skipped(1, 3, 2, "a")
    link.log_skipped(1, 5, 2, "b")
    link.log_skipped(1, 9, 1, "a")
    link.log_grew(1, 10 + DEFAULT_LIMITS.output_bytes_max)
    frame = link.next_frame(0)
    assert frame[:5] == [
        Piece(1, 0, 3),
        Dropped(1, 3, 2, "a"),
        Dropped(1, 5, 2, "b"),
        Piece(1, 7, 2),
        Dropped(1, 9, 1, "a"),
    ]
    assert frame[5:] == [Piece(1, 10, WINDOW_BYTES_START - 5)]
    link.ack(Ack(log_offsets={1: 6}), 0)
    assert link.next_frame(0) == [Piece(1, 10 + WINDOW_BYTES_START - 5, WINDOW_BYTES_START + 3)]


def test_holes_of_what_is_not_held_are_nothing() -> None:
    link = running()
    link.log_skipped(2, 0, 5, "full")
    link.log_grew(2, 5)
    assert link.next_frame(0) == []
