"""Which attempts begin at a worker, which wait, and which go back: recall, lending, draining."""

import msgspec
import pytest

from tests.unit.core.links import grant, online, running
from titan.core.link import (
    GONE_MAX,
    LENT_MAX,
    WAITING_BYTES_MAX,
    WAITING_MAX,
    Abandon,
    Forget,
    Kill,
    Prepare,
    WorkerLink,
)
from titan.model.wire import (
    CAUSE_CANCELLED,
    CAUSE_WORKER_STOP,
    Ack,
    Draining,
    Ended,
    Held,
    Lend,
    Recall,
    Returned,
    Started,
    Stop,
    Welcome,
)


def test_grants_beyond_the_slots_wait_and_begin_when_one_is_free() -> None:
    link = online(1)
    running(link, 1)
    assert link.grant(grant(2)) == []
    assert link.grant(grant(3)) == []
    assert link.grant(grant(2)) == []
    assert (link.running, link.waiting) == (1, 2)
    assert link.next_frame(0) == []
    assert link.hello(0) == (Held(1, True, 0), Held(2, False, 0), Held(3, False, 0))
    assert link.ended(Ended(1, 0)) == [Prepare(grant(2))]
    assert link.hand_over(2)
    # One that could not be started leaves its slot to the next, too.
    assert link.returned(2, "no memory") == [Forget(2), Prepare(grant(3))]


def test_what_waits_begins_by_priority_and_then_by_age() -> None:
    link = online(1)
    running(link, 1)
    # A spec that cannot be read stands where most jobs do.
    for fence, priority in ((2, 1), (3, 5), (4, None), (5, 5), (6, 0)):
        assert link.grant(grant(fence, priority)) == []
    begun = []
    last = 1
    for _ in range(5):
        (order,) = link.ended(Ended(last, 0))
        assert isinstance(order, Prepare)
        last = order.grant.fence
        begun.append(last)
        link.hand_over(last)
    assert begun == [3, 5, 2, 4, 6]


def test_too_many_that_wait_go_back() -> None:
    link = online(2)
    for fence in range(1, 2 + 2 + WAITING_MAX + 1):
        link.grant(grant(fence))
    assert (link.running, link.waiting) == (2, 2 + WAITING_MAX)
    assert link.next_frame(0) == []
    assert link.grant(grant(999)) == []
    assert link.next_frame(0) == [Returned(999, "66 attempts wait at the worker already")]


def test_a_recall_and_the_start_race_once() -> None:
    link = online(1)
    link.grant(grant(1))
    link.grant(grant(2))
    link.grant(grant(3))
    # Recalled while its folder is made: the next takes the slot.
    assert link.recall(Recall(1)) == [Abandon(1), Forget(1), Prepare(grant(2))]
    assert not link.hand_over(1)
    assert link.recall(Recall(3)) == [Abandon(3), Forget(3)]
    assert link.next_frame(0) == [Returned(1), Returned(3)]
    assert link.hand_over(2)
    assert link.recall(Recall(2)) == []
    link.started(2, 7)
    assert link.next_frame(0) == [Started(2, 7)]
    link.ended(Ended(2, 0))
    assert link.recall(Recall(2)) == []
    assert link.recall(Recall(99)) == []
    assert link.next_frame(0) == [Ended(2, 0)]


def test_a_grant_that_comes_again_after_its_end_runs_nothing() -> None:
    link = online(1)
    running(link, 1)
    link.ended(Ended(1, 0))
    link.next_frame(0)
    assert link.grant(grant(1)) == []
    link.ack(Ack(ended=(1,)), 0)
    link.grant(grant(2))
    link.recall(Recall(2))
    assert link.next_frame(0) == [Returned(2)]
    for life in (5, 5):
        for fence in (1, 2):
            assert link.grant(grant(fence)) == []
        reason = "the worker was granted this attempt before"
        assert link.next_frame(0) == [Returned(1, reason), Returned(2, reason)]
        assert link.hello(0) == ()
        link.welcome(Welcome(epoch=life))
    # Another Master is right about its own numbers.
    link.welcome(Welcome(epoch=6))
    assert link.grant(grant(1)) == [Prepare(grant(1))]


def test_only_so_many_old_grants_are_remembered() -> None:
    link = online(1)
    for fence in range(1, GONE_MAX + 2):
        link.grant(grant(fence))
        link.returned(fence, "")
    assert link.grant(grant(2)) == []
    assert link.grant(grant(1)) == [Prepare(grant(1))]


def test_a_lent_slot_serves_another_job_until_its_owner_goes_on() -> None:
    link = online(1)
    running(link, 1)
    link.grant(grant(2))
    assert link.lend(Lend(1, on=True)) == [Prepare(grant(2))]
    assert link.lend(Lend(1, on=True)) == []
    link.hand_over(2)
    link.started(2, 0)
    assert link.grant(grant(3)) == []
    # 1 goes on beside 2: nothing is stopped, and 3 waits until both have left.
    assert link.lend(Lend(1, on=False)) == []
    assert link.ended(Ended(2, 0)) == []
    assert link.ended(Ended(1, 0)) == [Prepare(grant(3))]


def test_an_end_while_lent_frees_no_second_slot() -> None:
    link = online(1)
    running(link, 1)
    link.grant(grant(2))
    link.grant(grant(3))
    assert link.lend(Lend(1, on=True)) == [Prepare(grant(2))]
    assert link.ended(Ended(1, 0)) == []
    assert link.lend(Lend(1, on=True)) == []
    assert link.returned(2, "no memory") == [Forget(2), Prepare(grant(3))]


def test_only_what_runs_here_and_is_wanted_can_lend() -> None:
    link = online(1)
    link.grant(grant(1))
    link.grant(grant(2))
    for fence in (1, 2, 99):
        assert link.lend(Lend(fence, on=True)) == []
    link.hand_over(1)
    link.hello(0)
    link.welcome(Welcome(epoch=5, stop=(1,)))
    assert link.lend(Lend(1, on=True)) == []


def test_no_more_than_so_many_lend() -> None:
    link = online(LENT_MAX + 1)
    for fence in range(1, LENT_MAX + 2):
        running(link, fence)
    waiting = 1_000
    link.grant(grant(waiting))
    assert link.lend(Lend(1, on=True)) == [Prepare(grant(waiting))]
    for fence in range(2, LENT_MAX + 2):
        link.lend(Lend(fence, on=True))
    for fence in range(waiting + 1, waiting + LENT_MAX):
        assert link.grant(grant(fence)) == [Prepare(grant(fence))]
    assert link.grant(grant(2_000)) == []
    # An end makes room for one more.
    link.ended(Ended(1, 0))
    assert link.lend(Lend(LENT_MAX + 1, on=True)) == [Prepare(grant(2_000))]


def test_s47_a_worker_that_lends_none_runs_no_more_than_its_slots() -> None:
    link = WorkerLink(1, lent_max=0)
    link.hello(0)
    link.welcome(Welcome(epoch=1))
    running(link, 1)
    assert link.grant(grant(2)) == []
    assert link.lend(Lend(1, on=True)) == []


def test_s47_ends_that_are_never_acknowledged_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("titan.core.link.HELD_MAX", 3)
    link = online(1)
    for fence in range(1, 5):
        running(link, fence)
        link.ended(Ended(fence, 0))
    link.next_frame(0)
    assert link.grant(grant(5)) == []
    assert link.next_frame(0) == [Returned(5, "4 attempts are held at the worker already")]
    link.ack(Ack(ended=(1,)), 0)
    assert link.grant(grant(6)) == [Prepare(grant(6))]


def test_s47_large_descriptions_that_wait_fill_no_memory() -> None:
    link = online(1)
    running(link, 1)
    large = msgspec.structs.replace(grant(2), spec=bytes(WAITING_BYTES_MAX))
    assert link.grant(large) == []
    assert link.grant(grant(3, 1)) == []
    returned = [Returned(3, f"{WAITING_BYTES_MAX} bytes of attempts wait at the worker already")]
    assert link.unsaid == 1
    assert link.next_frame(0) == returned
    link.recall(Recall(2))
    assert link.grant(grant(4, 1)) == []
    assert link.next_frame(0) == [Returned(2)]
    # One that begins waits no more either.
    assert link.ended(Ended(1, 0)) == [Prepare(grant(4, 1))]
    assert link.grant(msgspec.structs.replace(grant(5), spec=bytes(WAITING_BYTES_MAX))) == []
    assert link.waiting == 1


def test_a_welcome_ends_all_lending_until_it_is_said_anew() -> None:
    link = online(1)
    running(link, 1)
    link.lend(Lend(1, on=True))
    running(link, 2)
    link.hello(0)
    link.welcome(Welcome(epoch=5))
    assert link.grant(grant(3)) == []
    link.ended(Ended(2, 0))
    assert link.waiting == 1
    assert link.lend(Lend(1, on=True)) == [Prepare(grant(3))]


def test_a_grant_waits_for_the_end_of_what_is_not_wanted() -> None:
    link = online(1)
    running(link, 1)
    link.hello(0)
    link.welcome(Welcome(epoch=6, stop=(1,)))
    assert link.grant(grant(2)) == []
    assert link.ended(Ended(1, 143, 15)) == [Forget(1), Prepare(grant(2))]
    assert link.hand_over(2)


def test_what_was_not_begun_and_is_not_wanted_leaves_its_slot_to_what_waits() -> None:
    link = online(1)
    link.grant(grant(1))
    link.grant(grant(2))
    link.hello(0)
    assert link.welcome(Welcome(epoch=6, stop=(1,))) == [Abandon(1), Forget(1), Prepare(grant(2))]


def test_a_waiting_grant_can_be_stopped() -> None:
    link = online(1)
    running(link, 1)
    link.hello(0)
    link.welcome(Welcome(epoch=6, stop=(1,)))
    link.grant(grant(2))
    assert link.stop(Stop(2)) == [Abandon(2), Forget(2)]
    assert link.next_frame(0) == [Returned(2, "stopped before its start")]
    assert link.ended(Ended(1, 143, 15)) == [Forget(1)]


def test_a_stop_and_the_start_race_once() -> None:
    link = online()
    link.grant(grant(1))
    assert link.stop(Stop(1)) == [Abandon(1), Forget(1)]
    assert not link.hand_over(1)
    assert link.next_frame(0) == [Returned(1, "stopped before its start")]
    link.grant(grant(2))
    assert link.hand_over(2)
    assert link.stop(Stop(2)) == [Kill(2, CAUSE_CANCELLED, 10_000)]
    link.started(2, 0)
    link.ended(Ended(2, 143, 15, CAUSE_CANCELLED))
    assert link.stop(Stop(2)) == []
    assert link.stop(Stop(99)) == []


def test_leaving_is_said_first_then_all_goes_back_or_ends() -> None:
    link = online(3)
    running(link, 1)
    running(link, 2)
    link.ended(Ended(2, 0))
    link.next_frame(0)
    for fence in (3, 4, 5):
        link.grant(grant(fence))
    orders = link.leave()
    gone = [order for fence in (3, 4, 5) for order in (Abandon(fence), Forget(fence))]
    assert orders == [*gone, Kill(1, CAUSE_WORKER_STOP, 10_000)]
    assert not link.hand_over(3)
    assert link.grant(grant(6)) == []
    assert link.owes
    assert link.next_frame(0) == [Draining(), *(Returned(fence) for fence in (3, 4, 5, 6))]
    assert link.ended(Ended(1, 143, 15)) == []


def test_leaving_is_said_though_the_welcome_disowns_what_would_have_been_said() -> None:
    link = online(1)
    link.grant(grant(1))
    link.hello(0)
    link.hand_over(1)
    link.started(1, 0)
    link.leave()
    link.welcome(Welcome(epoch=6, stop=(1,)))
    assert link.next_frame(0) == [Draining()]


def test_draining_starts_nothing_and_ends_nothing() -> None:
    link = online(1)
    running(link, 1)
    link.grant(grant(2))
    assert link.drain() == [Abandon(2), Forget(2)]
    assert link.draining
    assert link.drain() == []
    assert link.grant(grant(3)) == []
    assert link.next_frame(0) == [Returned(2), Returned(3)]
    assert link.ended(Ended(1, 0)) == []
    assert link.next_frame(0) == [Ended(1, 0)]


def test_draining_offline_gives_back_by_not_naming() -> None:
    link = online(1)
    running(link, 1)
    link.grant(grant(2))
    link.disconnected()
    link.leave()
    assert link.hello(0) == (Held(1, True, 0),)
    link.welcome(Welcome(epoch=5))
    assert link.next_frame(0) == []
