"""Sending ahead to slots that are soon free, and asking back what is better off elsewhere."""

import pytest

from tests.unit.core.harness import Harness, job
from titan.core import ahead, memory
from titan.core.ahead import AHEAD_MS_MAX, AHEAD_WAIT_MS
from titan.core.events import WorkerDisconnected, WorkerRenewed
from titan.core.workers import FORGET_WORKER_MS
from titan.model.states import JobState
from titan.model.wire import Held, Recall


def quick(name: str = "w", slots: int = 1, took_ms: int = 10, h: Harness | None = None, **fields: object) -> Harness:
    """A harness with a worker whose only attempt so far took so long."""
    h = h or Harness()
    h.worker(name, slots, **fields)  # type: ignore[arg-type]
    run_id = h.submit(job("first", requirement=tuple(fields.get("tags", ("GENERAL",)))[-1:]))  # type: ignore[call-overload]
    h.start(run_id, "first")
    h.wait(took_ms)
    h.end(run_id, "first")
    h.sent.clear()
    h.grants.clear()
    return h


def count(h: Harness) -> int:
    return len(h.grants)


def names(number: int) -> tuple[str, ...]:
    return tuple(f"j{each}" for each in range(number))


def recalled(h: Harness, name: str = "w") -> list[int]:
    return [message.fence for message in h.messages(Recall, name)]


def fence(h: Harness, run_id: str, job_id: str) -> int:
    return int(h.job(run_id, job_id)["fence"])


def test_a_quick_worker_holds_one_more_for_each_slot_and_starts_it_by_itself() -> None:
    h = quick(slots=2)
    run_id = h.submit(*map(job, names(7)))
    assert count(h) == 4
    [listed] = h.scheduler.worker_list()
    assert (listed["running"], listed["ahead"]) == (2, 2)
    h.start(run_id, "j0")
    h.end(run_id, "j0")
    assert count(h) == 5
    h.start(run_id, "j2")
    assert h.scheduler.worker_list()[0]["ahead"] == 2
    assert h.state(run_id, "j2") == JobState.RUNNING


def test_how_many_is_bounded() -> None:
    h = quick(slots=100)
    h.submit(*map(job, names(300)))
    assert count(h) == 100 + memory.AHEAD_MAX


@pytest.mark.parametrize("took_ms", [AHEAD_MS_MAX, 5_000])
def test_nothing_is_sent_ahead_of_long_jobs(took_ms: int) -> None:
    h = quick(took_ms=took_ms)
    run_id = h.submit(*map(job, names(3)))
    assert count(h) == 1
    for name in names(3):
        h.start(run_id, name)
        h.end(run_id, name)
    for _ in range(8):  # the average follows
        run_id = h.submit(job("short"))
        h.start(run_id, "short")
        h.end(run_id, "short")
    h.grants.clear()
    h.submit(*map(job, names(3)))
    assert count(h) == 2


def test_nothing_is_sent_ahead_where_the_pace_is_not_known() -> None:
    h = Harness()
    h.worker()
    run_id = h.submit(*map(job, names(3)))
    h.end(run_id, "j0")  # its start was not told: nobody knows how long it took
    assert count(h) == 2


def test_nothing_is_sent_ahead_to_gpus_or_beside_a_pinned_job() -> None:
    for fields in ({"tags": ("GENERAL", "GPU")}, {"devices": ("0",)}):
        h = quick(**fields)  # type: ignore[arg-type]
        h.submit(*map(job, names(3)))
        assert count(h) == 1
    h = quick()
    run_id = h.submit(job("p"), job("j", "p", affinity=True))
    h.submit(job("busy", priority=5))
    h.end(run_id, "p")
    h.grants.clear()
    h.submit(*map(job, names(3)))
    assert (count(h), h.state(run_id, "j")) == (0, JobState.QUEUED)


def test_free_slots_are_served_first() -> None:
    h = quick()
    h.worker("other", 3)
    run_id = h.submit(*map(job, names(4)))
    assert sorted(h.job(run_id, name)["worker"] for name in names(4)) == ["other", "other", "other", "w"]
    assert h.scheduler.worker_list()[1]["ahead"] == 0


# Recall


def test_an_idle_slot_asks_for_one_and_gets_it_when_it_is_given_back() -> None:
    h = quick(slots=2)
    run_id = h.submit(*map(job, names(4)))
    h.start(run_id, "j0")
    h.start(run_id, "j1")
    h.worker("idle", 1)
    assert recalled(h) == [fence(h, run_id, "j3")]
    h.submit(job("elsewhere", requirement=("X",)))
    assert (len(recalled(h)), h.state(run_id, "j3")) == (1, JobState.ASSIGNED)
    h.give_back(run_id, "j3")
    assert h.holder(run_id, "j3")[0] == "idle"
    assert h.job(run_id, "j3")["attempt"] == 1
    h.end(run_id, "j3")
    assert recalled(h)[1:] == [fence(h, run_id, "j2")]


def test_of_many_idle_slots_each_asks_for_one() -> None:
    h = quick(slots=3)
    run_id = h.submit(*map(job, names(6)))
    for name in names(3):
        h.start(run_id, name)
    h.worker("idle", 2)
    assert recalled(h) == [fence(h, run_id, name) for name in ("j5", "j4")]
    h.worker("more", 2)
    assert recalled(h)[2:] == [fence(h, run_id, "j3")]


def test_a_recall_that_came_too_late_changes_nothing_and_the_next_may_be_asked_for() -> None:
    h = quick(slots=2)
    run_id = h.submit(*map(job, names(4)))
    h.start(run_id, "j0")
    h.start(run_id, "j1")
    h.worker("idle", 1)
    h.end(run_id, "j0")
    h.start(run_id, "j3")  # begun, while the question was on its way
    assert (h.state(run_id, "j3"), h.holder(run_id, "j3")[0]) == (JobState.RUNNING, "w")
    assert recalled(h)[1:] == [fence(h, run_id, "j2")]
    h.end(run_id, "j3")
    h.end(run_id, "j1")
    assert set(h.states(run_id).values()) == {JobState.COMPLETED, JobState.ASSIGNED}
    assert len(h.grants) == 4


def test_what_is_about_to_start_is_not_asked_back_nor_what_the_idle_one_cannot_do() -> None:
    h = quick(tags=("X",))
    run_id = h.submit(job("a", requirement=("X",)), job("b", requirement=("X",)))
    h.worker("idle", 4)
    assert recalled(h) == []
    h.end(run_id, "a")
    h.worker("able", 4, ("X",))
    assert recalled(h) == []


def test_a_silent_worker_is_not_asked() -> None:
    h = quick()
    run_id = h.submit(*map(job, names(2)))
    h.tell(WorkerDisconnected("w", "1"))
    h.worker("idle", 2)
    h.wait(AHEAD_WAIT_MS)
    assert recalled(h) == []
    assert h.holder(run_id, "j1")[0] == "w"


def test_a_job_of_higher_priority_takes_the_place_of_the_least_important_one() -> None:
    h = quick(slots=2)
    run_id = h.submit(*map(job, names(5)), job("better", priority=2))
    assert {h.state(run_id, name) for name in ("better", *names(3))} == {JobState.ASSIGNED}
    urgent = h.submit(job("u", priority=9), job("v", priority=9))
    assert recalled(h) == [fence(h, run_id, "j2")]
    h.tell(WorkerRenewed("w", "1"))
    assert len(recalled(h)) == 1  # one at a time
    h.give_back(run_id, "j2")
    assert h.state(urgent, "u") == JobState.ASSIGNED
    assert len(recalled(h)) == 2


def test_a_pinned_job_asks_back_only_at_its_worker_and_only_the_less_important() -> None:
    h = quick("home", 2)
    quick("other", 1, h=h)
    run_id = h.submit(job("p", priority=9), job("j", "p", affinity=True, priority=3))
    held = h.submit(*map(job, names(8)), *(job(f"k{n}", priority=3) for n in range(1)))
    place = h.holder(run_id, "p")[0]
    h.end(run_id, "p")
    asked = [name for name, message in h.sent if isinstance(message, Recall)]
    assert set(asked) <= {place}
    assert h.state(held, "k0") == JobState.ASSIGNED


def test_what_is_more_important_is_not_asked_back_where_the_rest_is_of_no_use() -> None:
    h = quick()
    quick("x", h=h, tags=("X",))
    h.submit(job("a"), job("b", requirement=("X",)))
    run_id = h.submit(job("low"), job("high", requirement=("X",), priority=9))
    assert set(h.states(run_id).values()) == {JobState.ASSIGNED}
    h.submit(job("between", requirement=("X",), priority=5))
    assert recalled(h) == recalled(h, "x") == []
    h.submit(job("above", requirement=("X",), priority=10))
    assert recalled(h, "x") == [fence(h, run_id, "high")]


def test_a_queue_of_other_tags_looks_no_further_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    h = quick(slots=4)
    h.worker("x", 1, ("X",))
    run_id = h.submit(*map(job, names(8)))
    h.submit(job("x1", requirement=("X",), priority=5), job("x2", requirement=("X",), priority=5))
    assert recalled(h) == []
    monkeypatch.setattr(ahead, "LOOKS_A_RECALL", 2)
    h.submit(job("x3", requirement=("X",), priority=5), job("y", requirement=("Y",), priority=5))
    assert recalled(h) == []
    assert h.state(run_id, "j7") == JobState.ASSIGNED


def test_what_waits_too_long_comes_back_and_nothing_more_is_sent_ahead_there() -> None:
    h = quick()
    run_id = h.submit(*map(job, names(3)))
    h.start(run_id, "j0")
    h.wait(AHEAD_WAIT_MS - 1)
    assert recalled(h) == []
    h.wait(1)
    assert recalled(h) == [fence(h, run_id, "j1")]
    h.give_back(run_id, "j1")
    assert [h.state(run_id, name) for name in names(3)] == [JobState.RUNNING, JobState.QUEUED, JobState.QUEUED]


def test_what_is_asked_back_already_is_not_asked_for_again_in_time() -> None:
    h = quick()
    run_id = h.submit(*map(job, names(2)))
    h.start(run_id, "j0")
    h.worker("idle", 1)
    h.wait(AHEAD_WAIT_MS)
    assert recalled(h) == [fence(h, run_id, "j1")]


# Over reconnects and starts


def test_a_hello_names_what_still_waits_and_recalls_on_the_way_are_forgotten() -> None:
    h = quick()
    run_id = h.submit(*map(job, names(2)))
    h.start(run_id, "j0")
    h.worker("idle", 1)
    assert recalled(h) == [fence(h, run_id, "j1")]
    held = [Held(fence(h, run_id, "j0"), True), Held(fence(h, run_id, "j1"), False)]
    h.worker(held=held)
    assert len(recalled(h)) == 2  # it did not hear the first one, or its answer was lost
    h.crash()
    h.worker(held=held)
    assert [worker["ahead"] for worker in h.scheduler.worker_list() if worker["name"] == "w"] == [1]
    h.worker("idle", 1)
    assert len(recalled(h)) == 3
    h.worker(held=held[:1])  # it had given it back, and the answer was lost
    assert h.holder(run_id, "j1")[0] == "idle"


def test_a_load_of_another_process_s_attempts_is_not_asked_back() -> None:
    h = quick()
    run_id = h.submit(*map(job, names(2)))
    h.start(run_id, "j0")
    h.worker(incarnation="2", boot_id="other")
    h.worker("idle", 4)
    h.wait(AHEAD_WAIT_MS)
    assert recalled(h) == []
    assert h.state(run_id, "j1") == JobState.ASSIGNED


def test_what_was_sent_ahead_outlives_the_memory_of_its_worker_and_leaves_no_trace() -> None:
    h = quick()
    run_id = h.submit(*(job(name, lease_s=600) for name in names(2)))
    h.worker(slots=0, incarnation="other home")
    h.tell(WorkerDisconnected("w", "other home"))
    h.wait(FORGET_WORKER_MS)
    assert h.scheduler.worker_list() == []
    assert h.state(run_id, "j1") == JobState.ASSIGNED
    h.wait(605_000 - FORGET_WORKER_MS)
    assert set(h.states(run_id).values()) == {JobState.QUEUED}
    core = h.scheduler.memory
    assert not core.ahead
    assert not core.recalled


def test_a_lost_attempt_leaves_no_trace() -> None:
    h = quick()
    h.submit(*map(job, names(2)))
    h.tell(WorkerDisconnected("w", "1"))
    h.wait(200_000)
    core = h.scheduler.memory
    assert not core.ahead
    assert not core.recalled
    assert not core.workers
