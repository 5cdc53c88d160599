"""What workers say: hello and its difference, stale words, leases to the millisecond, silence, and forgetting."""

import pytest

from tests.unit.core.harness import Harness, job
from titan.core import reasons
from titan.core.events import (
    AttemptEnded,
    AttemptReturned,
    AttemptStarted,
    CancelRun,
    PrepareStop,
    WorkerConnected,
    WorkerDisconnected,
    WorkerDraining,
    WorkerRenewed,
)
from titan.core.workers import FORGET_WORKER_MS
from titan.model.states import JobState
from titan.model.wire import Ack, Ended, Grant, Held, Stop, Welcome

LEASE_MS = 60_000
GRACE_MS = 5_000


@pytest.fixture
def h() -> Harness:
    """A harness with one worker of two slots."""
    harness = Harness()
    harness.worker(slots=2)
    return harness


def test_what_a_leaving_worker_gives_back_is_anothers_at_once() -> None:
    h = Harness()
    h.worker("leaver", slots=1)
    h.submit(job("a"))
    (grant,) = h.grants
    h.worker("other", slots=1)
    h.tell(WorkerDraining("leaver", "1"))
    h.tell(AttemptReturned("leaver", "1", grant.fence, ""))
    (again,) = h.messages(Grant, "other")
    assert (again.job_id, again.attempt, again.fence > grant.fence) == ("a", 1, True)


def test_f42_a_worker_that_only_says_hello_keeps_its_job_for_one_lease(h: Harness) -> None:
    run_id = h.submit(job("a"))
    (grant,) = h.grants
    h.start(run_id, "a")
    h.tell(WorkerRenewed("w", "1"))
    # It is heard and does not hear: no renewal follows its hellos, which name what it killed long ago.
    held = [Held(grant.fence, True, 0)]
    h.wait(20_000)
    h.worker(slots=2, held=held)
    for _ in range(6):
        h.wait(10_000)
        h.worker(slots=2, held=held)
    assert h.holder(run_id, "a") == ("w", "1", grant.fence)
    h.wait(LEASE_MS + GRACE_MS - 60_000 - 1)
    assert h.job(run_id, "a")["state"] == "RUNNING"
    h.wait(1)
    assert h.job(run_id, "a")["state"] != "RUNNING"
    h.worker(slots=2, held=held)
    assert welcome(h).stop == (grant.fence,)


def test_each_renewal_lets_one_hello_prolong_the_lease(h: Harness) -> None:
    run_id = h.submit(job("a"))
    (grant,) = h.grants
    h.start(run_id, "a")
    for _ in range(5):
        h.tell(WorkerRenewed("w", "1"))
        h.wait(LEASE_MS)
        h.worker(slots=2, held=[Held(grant.fence, True, 0)])
    assert h.holder(run_id, "a") == ("w", "1", grant.fence)


def welcome(h: Harness) -> Welcome:
    return h.messages(Welcome)[-1]


# Hello


def test_a_new_worker_is_welcomed_and_gets_work_after_the_welcome() -> None:
    h = Harness()
    h.submit(job("j"))
    h.worker()
    assert [type(message) for _, message in h.sent] == [Welcome, Grant]
    assert welcome(h) == Welcome(epoch=1)


def test_a_reconnect_settles_the_difference_attempt_by_attempt(h: Harness) -> None:
    h.worker(slots=6)
    run_id = h.submit(*(job(name) for name in ("held", "begun", "lost", "never")))
    for name in ("lost", "held"):
        h.start(run_id, name)
    fences = {name: h.job(run_id, name)["fence"] for name in ("held", "begun", "lost", "never")}
    h.tell(WorkerDisconnected("w", "1"))
    h.sent.clear()
    stranger = 99
    h.worker(slots=2, held=[Held(fences["held"], True), Held(fences["begun"], True), Held(stranger, True)])
    assert welcome(h).stop == (stranger,)
    assert h.states(run_id) == {
        "held": JobState.RUNNING, "begun": JobState.RUNNING, "lost": JobState.QUEUED, "never": JobState.QUEUED
    }  # fmt: skip
    assert (h.job(run_id, "lost")["losses"], h.job(run_id, "never")["losses"]) == (1, 0)
    assert (h.job(run_id, "lost")["attempt"], h.job(run_id, "never")["attempt"]) == (1, 0)
    assert h.job(run_id, "lost")["reason"] == reasons.END_LOST


def test_a_second_hello_of_the_same_process_replaces_the_first(h: Harness) -> None:
    run_id = h.submit(job("j"))
    fence = h.job(run_id, "j")["fence"]
    h.worker(slots=5, held=[Held(fence, False)], tags=("GENERAL", "GPU"))
    assert h.scheduler.stats()["slots_free"] == 4
    assert h.scheduler.offered() == {"GENERAL", "GPU"}
    assert h.state(run_id, "j") == JobState.ASSIGNED


# Words about attempts


def reports(name: str, incarnation: str, fence: int) -> list[AttemptStarted | AttemptReturned | AttemptEnded]:
    return [
        AttemptStarted(name, incarnation, fence),
        AttemptReturned(name, incarnation, fence, ""),
        AttemptEnded(name, incarnation, Ended(fence, 0), 0.0),
    ]


@pytest.mark.parametrize(
    ("name", "incarnation"), [("other", "1"), ("w", "2"), ("ghost", "1")], ids=["worker", "process", "nobody"]
)
def test_a_process_speaks_only_of_what_was_granted_to_it(h: Harness, name: str, incarnation: str) -> None:
    h.worker("other")
    run_id = h.submit(job("j"))
    assert h.holder(run_id, "j")[:2] == ("other", "1")
    fence = h.job(run_id, "j")["fence"]
    if name == "other":
        name = "w"
    for event in reports(name, incarnation, fence):
        decision = h.tell(event)
        assert not decision.changes
        told = [send.message for send in decision.sends]
        assert told == ([Ack(ended=(fence,))] if isinstance(event, AttemptEnded) else [])
    assert h.state(run_id, "j") == JobState.ASSIGNED


def test_a_stale_fence_is_acknowledged_and_changes_nothing(h: Harness) -> None:
    run_id = h.submit(job("j"))
    stale = h.job(run_id, "j")["fence"]
    h.start(run_id, "j")
    h.tell(WorkerDisconnected("w", "1"))
    h.wait(LEASE_MS + GRACE_MS)
    h.worker("other")
    assert h.holder(run_id, "j")[0] == "other"
    for event in reports("w", "1", stale):
        assert not h.tell(event).changes
    assert h.messages(Ack) == [Ack(ended=(stale,))]
    assert h.state(run_id, "j") == JobState.ASSIGNED


def test_a_fence_never_granted_is_acknowledged_too(h: Harness) -> None:
    assert not h.tell(AttemptEnded("w", "1", Ended(7, 0), 0.0)).changes
    assert h.messages(Ack) == [Ack(ended=(7,))]


def test_farewells_and_renewals_of_another_process_are_nobody(h: Harness) -> None:
    for event in (WorkerDisconnected("w", "0"), WorkerRenewed("w", "0"), WorkerRenewed("x", "1"),
                  WorkerDisconnected("x", "1")):  # fmt: skip
        decision = h.tell(event)
        assert (decision.changes, decision.news) == ([], [])
    assert h.scheduler.stats()["workers"] == 1


# Leases


@pytest.mark.parametrize("lease_s", [30, 60, 600])
def test_a_lease_ends_five_seconds_after_it_and_not_a_millisecond_earlier(h: Harness, lease_s: int) -> None:
    run_id = h.submit(job("j", lease_s=lease_s, on_lost="fail"))
    h.tell(WorkerDisconnected("w", "1"))
    h.wait((lease_s + 5) * 1_000 - 1)
    assert h.state(run_id, "j") == JobState.ASSIGNED
    h.wait(1)
    assert h.state(run_id, "j") == JobState.FAILED


def test_a_renewal_begins_every_lease_of_the_process_anew(h: Harness) -> None:
    run_id = h.submit(job("a"), job("b", lease_s=30))
    for _ in range(20):
        h.wait(30_000)
        h.tell(WorkerRenewed("w", "1"))
    assert set(h.states(run_id).values()) == {JobState.ASSIGNED}
    h.wait(35_000 - 1)
    assert len(h.grants) == 2
    h.wait(1)
    assert h.state(run_id, "b") == JobState.QUEUED
    h.wait(30_000)
    assert h.state(run_id, "a") == JobState.QUEUED
    assert h.job(run_id, "a")["losses"] == 0


def test_only_its_own_process_renews_a_lease(h: Harness) -> None:
    run_id = h.submit(job("j"))
    for _ in range(13):
        h.wait(4_999)
        h.tell(WorkerRenewed("w", "0"))
        h.tell(WorkerRenewed("other", "1"))
    assert h.state(run_id, "j") == JobState.ASSIGNED
    h.wait(13)
    assert h.state(run_id, "j") == JobState.QUEUED


def test_a_grant_begins_a_lease_of_its_own(h: Harness) -> None:
    h.wait(50_000)
    run_id = h.submit(job("j"))
    h.wait(LEASE_MS + GRACE_MS - 1)
    assert h.state(run_id, "j") == JobState.ASSIGNED
    h.wait(1)
    assert h.state(run_id, "j") == JobState.QUEUED


def test_a_silent_worker_takes_nothing_until_it_renews(h: Harness) -> None:
    run_id = h.submit(job("j"))
    h.start(run_id, "j")
    h.wait(LEASE_MS + GRACE_MS)  # its link is open, and it says nothing
    assert (h.state(run_id, "j"), h.job(run_id, "j")["losses"]) == (JobState.QUEUED, 1)
    assert h.reason(run_id, "j") == reasons.WAIT_NO_WORKER
    decision = h.tell(WorkerRenewed("w", "1"))
    assert h.state(run_id, "j") == JobState.ASSIGNED
    assert [news.data["connected"] for news in decision.news if news.kind == "worker"] == [True]


def test_a_silent_worker_is_told_to_stop_what_is_given_up(h: Harness) -> None:
    # It may hear, though it is not heard.
    run_id = h.submit(job("short", lease_s=30, on_lost="fail"), job("long"))
    h.start(run_id, "short")
    fences = [h.job(run_id, name)["fence"] for name in ("short", "long")]
    h.wait(30_000 + GRACE_MS)
    assert h.messages(Stop) == [Stop(fences[0])]
    h.wait(LEASE_MS - 30_000)
    assert h.messages(Stop) == [Stop(fence) for fence in fences]
    assert not h.tell(AttemptEnded("w", "1", Ended(fences[0], 143, signal=15), 0.0)).changes
    assert h.state(run_id, "short") == JobState.FAILED


def test_only_the_attempt_whose_lease_ran_out_is_lost(h: Harness) -> None:
    run_id = h.submit(job("short", lease_s=30), job("long", lease_s=600))
    h.wait(35_000)
    assert h.states(run_id) == {"short": JobState.QUEUED, "long": JobState.ASSIGNED}


def test_f41_a_link_cut_for_less_than_the_lease_costs_nothing(h: Harness) -> None:
    run_id = h.submit(job("j"))
    h.start(run_id, "j")
    h.tell(WorkerRenewed("w", "1"))
    h.tell(WorkerDisconnected("w", "1"))
    h.wait(LEASE_MS)
    h.worker(slots=2, held=[Held(h.job(run_id, "j")["fence"], True)])
    h.wait(LEASE_MS + GRACE_MS - 1)
    h.end(run_id, "j")
    assert (h.state(run_id, "j"), len(h.grants)) == (JobState.COMPLETED, 1)


def test_a_load_gives_everybody_a_full_fresh_lease(h: Harness) -> None:
    run_id = h.submit(job("j"))
    h.start(run_id, "j")
    h.wait(LEASE_MS)
    h.crash()
    h.wait(LEASE_MS + GRACE_MS - 1)
    assert h.state(run_id, "j") == JobState.RUNNING
    h.wait(1)
    assert (h.state(run_id, "j"), h.job(run_id, "j")["losses"]) == (JobState.QUEUED, 1)


def test_an_orderly_stop_of_the_master_is_waited_for_over_the_start(h: Harness) -> None:
    run_id = h.submit(job("j"))
    h.start(run_id, "j")
    decision = h.tell(PrepareStop(900_000))
    assert h.attempt(run_id, "j")["lease_until_ms"] == h.now.wall_ms + 900_000
    assert len(decision.changes) == 1
    h.wait(100_000 - LEASE_MS)
    h.crash()
    h.wait(860_000 + GRACE_MS - 1)
    assert h.state(run_id, "j") == JobState.RUNNING
    h.wait(1)
    assert h.state(run_id, "j") == JobState.QUEUED


def test_an_extension_ends_when_the_worker_is_back(h: Harness) -> None:
    run_id = h.submit(job("j"), job("k"))
    h.tell(PrepareStop(900_000))
    h.crash()
    h.worker(slots=2, held=[Held(h.job(run_id, name)["fence"], False) for name in "jk"])
    assert h.attempt(run_id, "j")["lease_until_ms"] is None
    h.tell(WorkerDisconnected("w", "1"))
    h.wait(LEASE_MS + GRACE_MS - 1)
    assert h.state(run_id, "j") == JobState.ASSIGNED
    h.wait(1)
    assert h.state(run_id, "j") == JobState.QUEUED


def test_a_wall_clock_set_back_or_forth_moves_no_lease_and_no_delay(h: Harness) -> None:
    run_id = h.submit(job("j"), job("d", delay_ms=1_000))
    for jump_ms in (-3_600_000, 7_200_000):
        h.now = h.now._replace(wall_ms=h.now.wall_ms + jump_ms)
        h.tell(WorkerRenewed("w", "1"))
    h.wait(999)
    assert h.states(run_id) == {"j": JobState.ASSIGNED, "d": JobState.DELAYED}
    h.wait(1)
    assert h.state(run_id, "d") == JobState.ASSIGNED


# Being forgotten


def test_a_worker_that_is_gone_is_forgotten_once_it_holds_nothing(h: Harness) -> None:
    run_id = h.submit(job("j", lease_s=600))
    h.tell(WorkerDisconnected("w", "1"))
    h.wait(FORGET_WORKER_MS)
    [listed] = h.scheduler.worker_list()
    assert (listed["name"], listed["connected"], listed["running"]) == ("w", False, 1)
    wakes = 0
    while h.state(run_id, "j") == JobState.ASSIGNED:
        assert h.decision.wake_ms is not None
        h.wait(h.decision.wake_ms - h.now.mono_ms)
        wakes += 1
    assert wakes <= 3  # it is waited for, not asked after
    h.wait(FORGET_WORKER_MS)
    assert h.scheduler.worker_list() == []


def test_f47_a_worker_that_flaps_is_forgotten_once_and_leaves_nothing(h: Harness) -> None:
    for _ in range(100):
        h.tell(WorkerDisconnected("w", "1"))
        h.wait(1_000)
        h.worker(slots=2)
    assert h.scheduler.stats()["workers"] == 1
    h.tell(WorkerDisconnected("w", "1"))
    h.wait(FORGET_WORKER_MS + 1_000)
    assert h.scheduler.worker_list() == []
    assert not h.scheduler.memory.timers


def test_a_lease_outlives_the_memory_of_its_worker(h: Harness) -> None:
    # Of that name another machine came and went meanwhile.
    run_id = h.submit(job("j", lease_s=600))
    h.worker(slots=0, incarnation="2", boot_id="other")
    h.tell(WorkerDisconnected("w", "2"))
    h.wait(FORGET_WORKER_MS)
    assert h.scheduler.worker_list() == []
    assert h.state(run_id, "j") == JobState.ASSIGNED
    assert h.reason(run_id, "j") == reasons.WAIT_LEASE
    h.wait(605_000 - FORGET_WORKER_MS)
    assert h.state(run_id, "j") == JobState.QUEUED


def test_a_worker_that_came_back_is_not_forgotten(h: Harness) -> None:
    h.tell(WorkerDisconnected("w", "1"))
    h.wait(FORGET_WORKER_MS - 1)
    h.worker(slots=2)
    h.wait(FORGET_WORKER_MS)
    assert h.scheduler.stats()["workers"] == 1


def test_what_becomes_of_workers_is_news(h: Harness) -> None:
    away = h.tell(WorkerDisconnected("w", "1"))
    assert [news.data for news in away.news] == [
        {"name": "w", "connected": False, "draining": False, "forgotten": False}
    ]
    h.wait(FORGET_WORKER_MS)
    assert [news.data for news in h.decision.news] == [{"name": "w", "connected": False, "forgotten": True}]
    back = h.tell(WorkerConnected("w", "1", "boot", ("GENERAL",), 1, (), "host", 42, "1.0"))
    assert [news.data["connected"] for news in back.news] == [True]
    [listed] = h.scheduler.worker_list()
    assert (listed["host"], listed["pid"], listed["version"], listed["incarnation"]) == ("host", 42, "1.0", "1")


def test_a_cancelled_job_not_held_any_more_is_over(h: Harness) -> None:
    run_id = h.submit(job("sent"), job("run"))
    h.start(run_id, "run")
    h.accept(CancelRun(run_id))
    assert len(h.messages(Stop)) == 2
    h.worker(slots=2)
    assert set(h.states(run_id).values()) == {JobState.CANCELLED}


def test_f47_a_worker_that_is_mostly_away_keeps_one_timer_to_be_forgotten_by(h: Harness) -> None:
    for _ in range(100):
        h.tell(WorkerDisconnected("w", "1"))
        h.wait(FORGET_WORKER_MS // 4)
        h.worker(slots=2)
    h.tell(WorkerDisconnected("w", "1"))
    # Those set before the last are void, and gone when their first time comes.
    assert len(h.scheduler.memory.timers) <= 5
    assert sum(map(h.scheduler.memory.matters, h.scheduler.memory.timers)) == 1
    h.wait(FORGET_WORKER_MS)
    assert h.scheduler.worker_list() == []
