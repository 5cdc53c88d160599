"""What a restarted worker owes of its predecessor goes to the Master like its own."""

from tests.unit.core.links import online
from titan.core.link import Forget, Piece, WorkerLink
from titan.model.wire import CAUSE_LOST, EPOCH_SHIFT, Ack, Ended, Held, Welcome


def test_i29_a_predecessors_ends_are_held_reported_and_let_go_of() -> None:
    link = WorkerLink(1)
    kept, lost = Ended(3, 7, log_bytes=10), Ended(4, 137, 9, CAUSE_LOST)
    for ended in (kept, lost):
        link.restore(ended.fence)
        assert link.ended(ended) == []
    # They hold no slot.
    assert (link.running, link.owes) == (0, True)
    assert link.hello(0) == (Held(3, True), Held(4, True))
    assert link.welcome(Welcome(epoch=1, log_offsets={3: 4})) == []
    assert sorted(map(str, link.next_frame(0))) == sorted(map(str, [Piece(3, 4, 6), kept, lost]))
    assert link.ack(Ack(ended=(3, 4)), 0) == [Forget(3), Forget(4)]
    assert not link.owes


def test_one_that_the_master_does_not_want_is_forgotten_at_once() -> None:
    link = WorkerLink(1)
    link.restore(3)
    link.ended(Ended(3, 7))
    link.hello(0)
    assert link.welcome(Welcome(epoch=1, stop=(3,))) == [Forget(3)]


def test_the_latest_epoch_known_of_is_that_of_the_welcome_or_of_what_is_held() -> None:
    link = online()
    assert link.epoch_seen == 5
    link.restore(7 << EPOCH_SHIFT | 1)
    assert link.epoch_seen == 7
