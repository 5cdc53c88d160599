"""The worker's side of the link as a machine: what is held, said, sent again, and let go of."""

import pytest

from tests.unit.core.links import grant, online, running
from titan.core.link import (
    RENEW_EVERY_MS,
    SILENCE_MS_MAX,
    WINDOW_BYTES_MAX,
    WINDOW_BYTES_MIN,
    WINDOW_BYTES_START,
    Abandon,
    Forget,
    Kill,
    WorkerLink,
    lease_margins_ms,
)
from titan.core.pieces import Piece
from titan.model.limits import DEFAULT_LIMITS
from titan.model.spec import JobSpec
from titan.model.wire import (
    CAUSE_CANCELLED,
    Ack,
    Ended,
    Held,
    RenewAck,
    Returned,
    Started,
    Stop,
    Welcome,
)

FULL_CHUNK = DEFAULT_LIMITS.output_bytes_max


def test_nothing_is_said_before_the_welcome() -> None:
    link = WorkerLink(1)
    link.hello(0)
    link.grant(grant(1))
    link.hand_over(1)
    link.started(1, 0)
    assert link.next_frame(0) == []
    link.welcome(Welcome(epoch=1))
    assert link.next_frame(0) == [Started(1, 0)]
    assert link.epoch == 1


def test_an_attempt_goes_from_grant_to_forgotten() -> None:
    link = online()
    running(link, 3)
    link.log_grew(3, 10)
    assert link.next_frame(0) == [Piece(3, 0, 10)]
    assert link.ended(Ended(3, 0, log_bytes=12)) == []
    assert (link.running, link.owes) == (0, True)
    assert link.next_frame(0) == [Piece(3, 10, 2), Ended(3, 0, log_bytes=12)]
    assert link.next_frame(0) == []
    assert link.ack(Ack(log_offsets={3: 12}), 0) == []
    assert link.ack(Ack(ended=(3,)), 0) == [Forget(3)]
    assert not link.owes


def test_an_answer_about_what_has_not_ended_lets_go_of_nothing() -> None:
    link = online()
    running(link, 3)
    assert link.ack(Ack(ended=(3, 99), log_offsets={99: 5}), 0) == []
    assert link.hello(0) == (Held(3, True, 0),)


def test_late_news_of_a_log_that_ended_is_nothing_new() -> None:
    link = online()
    running(link, 3)
    link.ended(Ended(3, 0, log_bytes=5))
    link.log_grew(3, 4)
    assert link.next_frame(0) == [Piece(3, 0, 5), Ended(3, 0, log_bytes=5)]
    link.log_grew(3, 5)
    link.log_grew(4, 1)
    assert link.next_frame(0) == []


def test_hello_names_all_that_is_held_and_sending_begins_where_the_master_stands() -> None:
    link = online(3)
    for fence in (1, 2):
        running(link, fence)
    link.grant(grant(3))
    link.log_grew(1, 100)
    link.log_grew(2, 50)
    link.next_frame(0)
    link.ack(Ack(log_offsets={1: 40}), 0)
    link.ended(Ended(2, 9, log_bytes=50))
    link.next_frame(0)
    assert link.hello(2_000) == (Held(1, True, 40), Held(2, True, 0), Held(3, False, 0))
    # The Master knows more of 1 than it could say, and of 2 nothing.
    assert link.welcome(Welcome(epoch=5, log_offsets={1: 60, 2: 0, 77: 5})) == []
    assert link.next_frame(0) == [Piece(1, 60, 40), Piece(2, 0, 50), Ended(2, 9, log_bytes=50)]


def test_a_master_that_claims_more_log_than_there_is_is_not_believed() -> None:
    link = online()
    running(link, 1)
    link.log_grew(1, 10)
    link.hello(0)
    link.welcome(Welcome(epoch=5, log_offsets={1: 99}))
    assert link.next_frame(0) == []
    link.log_grew(1, 11)
    assert link.next_frame(0) == [Piece(1, 10, 1)]
    link.ack(Ack(log_offsets={1: 99}), 0)
    link.log_grew(1, 12)
    assert link.next_frame(0) == [Piece(1, 11, 1)]


def test_what_the_master_does_not_want_dies_unreported() -> None:
    link = online(3)
    running(link, 1)
    running(link, 2)
    link.ended(Ended(2, 0))
    link.grant(grant(3))
    link.hello(0)
    orders = link.welcome(Welcome(epoch=6, stop=(1, 2, 3, 99)))
    assert orders == [Kill(1, CAUSE_CANCELLED, 5_000), Forget(2), Abandon(3), Forget(3)]
    link.log_grew(1, 10)
    assert link.stop(Stop(1)) == []
    assert link.next_frame(0) == []
    assert link.ended(Ended(1, 143, 15)) == [Forget(1)]
    assert not link.owes


def test_what_starts_while_the_welcome_is_on_its_way_may_be_unwanted_too() -> None:
    link = online()
    link.grant(grant(1))
    link.grant(grant(2))
    link.hello(0)
    for fence in (1, 2):
        link.hand_over(fence)
        link.started(fence, 0)
    assert link.welcome(Welcome(epoch=6, stop=(1,))) == [Kill(1, CAUSE_CANCELLED, 5_000)]
    assert link.next_frame(0) == [Started(2, 0)]


def test_what_could_not_be_started_here_goes_back_once() -> None:
    link = online()
    link.grant(grant(1))
    link.hand_over(1)
    assert link.returned(1, "no memory") == [Forget(1)]
    assert link.returned(1, "no memory") == []
    assert link.next_frame(0) == [Returned(1, "no memory")]


def test_offline_the_next_hello_gives_it_back() -> None:
    link = online()
    link.grant(grant(1))
    link.disconnected()
    link.returned(1, "no memory")
    assert link.hello(0) == ()
    link.welcome(Welcome(epoch=5))
    assert link.next_frame(0) == []


def test_an_unwanted_attempt_that_never_started_is_not_returned() -> None:
    link = online()
    link.grant(grant(1))
    link.hand_over(1)
    link.hello(0)
    link.welcome(Welcome(epoch=6, stop=(1,)))
    assert link.returned(1, "no memory") == [Forget(1)]
    assert link.next_frame(0) == []


def test_a_start_is_said_once() -> None:
    link = online()
    running(link, 1)
    link.started(1, 9)
    assert link.next_frame(0) == []
    assert link.hello(0) == (Held(1, True, 0),)


def test_renewals_count_from_their_send() -> None:
    link = online()
    assert link.answered_ms == 1_000
    first, second = link.renew(2_000), link.renew(7_000)
    assert link.renewed(RenewAck(second.seq), 7_100)
    assert link.answered_ms == 7_000
    # An answer that comes late moves nothing back, and counts once.
    assert not link.renewed(RenewAck(first.seq), 7_200)
    assert not link.renewed(RenewAck(second.seq), 7_300)
    assert link.answered_ms == 7_000
    assert not link.silent(7_200 + SILENCE_MS_MAX)
    assert link.silent(7_201 + SILENCE_MS_MAX)


def test_a_hello_is_no_answer_to_a_renewal() -> None:
    link = online()
    link.renew(2_000)
    link.hello(50_000)
    assert link.answered_ms == 1_000
    # Answers of the old connection are void, and the new one has its own time to answer in.
    assert not link.renewed(RenewAck(1), 50_001)
    assert not link.silent(50_000 + 3 * RENEW_EVERY_MS)


@pytest.mark.parametrize(
    ("spec", "margins"),
    [
        (JobSpec("j", "f"), (45_000, 50_000)),
        (JobSpec("j", "f", lease_s=30), (15_000, 20_000)),
        (JobSpec("j", "f", on_lost="fail"), (0, 0)),
    ],
)
def test_leases_end_before_the_master_grants_again(spec: JobSpec, margins: tuple[int, int]) -> None:
    assert lease_margins_ms(spec) == margins


def test_f42_a_worker_that_hears_nothing_drops_the_link_and_no_try_prolongs_its_lease() -> None:
    link = WorkerLink(1)
    link.hello(0)
    link.welcome(Welcome(epoch=1))
    assert link.renewed(RenewAck(link.renew(1_000).seq), 1_010)
    # From here on everything it says arrives, and nothing that it is told.
    for now_ms in range(6_000, 16_000, RENEW_EVERY_MS):
        link.renew(now_ms)
        assert not link.silent(now_ms)
    assert not link.silent(16_010)
    assert link.silent(16_011)
    _, kill_ms = lease_margins_ms(JobSpec("j", "f"))
    for now_ms in range(17_000, 1_000 + kill_ms, 10_000):
        link.disconnected()
        link.hello(now_ms)
        assert link.next_frame(now_ms) == []
    # What the launcher counts from: it kills at 51 s, and the Master grants again at 66 s at the earliest.
    assert link.answered_ms == 1_000


def test_logs_take_turns_within_the_window() -> None:
    link = online(3)
    for fence in (1, 2):
        running(link, fence)
    for fence in (1, 2):
        link.log_grew(fence, 10 * WINDOW_BYTES_START)
    assert link.next_frame(0) == [Piece(1, 0, WINDOW_BYTES_START)]
    running_end = Ended(3, 0)
    running(link, 3)
    link.ended(running_end)
    # A full window holds up no other end.
    assert link.next_frame(0) == [running_end]
    link.ack(Ack(log_offsets={1: WINDOW_BYTES_START}), 0)
    assert link.next_frame(0) == [Piece(2, 0, 2 * WINDOW_BYTES_START)]


def test_the_window_follows_the_pace_of_the_link() -> None:
    link = online()
    running(link, 1)
    link.log_grew(1, 1 << 40)
    sent = 0

    def exchange(answer_ms: int) -> int:
        nonlocal sent
        length = sum(item.length for item in link.next_frame(0) if isinstance(item, Piece))
        while more := sum(item.length for item in link.next_frame(0) if isinstance(item, Piece)):
            length += more
        sent += length
        link.ack(Ack(log_offsets={1: sent}), answer_ms)
        return length

    lengths = [exchange(10) for _ in range(12)]
    assert lengths[:3] == [WINDOW_BYTES_START, 2 * WINDOW_BYTES_START, 4 * WINDOW_BYTES_START]
    assert lengths[-1] == WINDOW_BYTES_MAX
    assert exchange(1_000) == WINDOW_BYTES_MAX
    lengths = [exchange(2_000) for _ in range(12)]
    assert lengths[:2] == [WINDOW_BYTES_MAX, WINDOW_BYTES_MAX // 2]
    assert lengths[-1] == WINDOW_BYTES_MIN
    link.hello(0)
    link.welcome(Welcome(epoch=5, log_offsets={1: sent}))
    assert exchange(10) == WINDOW_BYTES_START


def test_pieces_are_no_larger_than_an_output_may_be() -> None:
    link = online()
    running(link, 1)
    link.log_grew(1, 1 << 30)
    offset = 0
    for _ in range(8):
        offset += sum(item.length for item in link.next_frame(0) if isinstance(item, Piece))
        link.ack(Ack(log_offsets={1: offset}), 0)
    assert link.next_frame(0) == [Piece(1, offset, FULL_CHUNK), Piece(1, offset + FULL_CHUNK, FULL_CHUNK)]
