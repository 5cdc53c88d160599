"""Workers that leave in order: by themselves or because a person wants it, over reconnects, until started anew."""

import pytest

from tests.unit.core.harness import Harness, job
from titan.core import matching, reasons
from titan.core.events import DrainWorker, WorkerDisconnected, WorkerDraining
from titan.core.workers import FORGET_WORKER_MS
from titan.model.states import JobState
from titan.model.wire import Drain, Held, Welcome


@pytest.fixture
def h() -> Harness:
    """A harness with one worker of two slots."""
    harness = Harness()
    harness.worker(slots=2)
    return harness


def draining(h: Harness, name: str = "w") -> bool:
    [worker] = [worker for worker in h.scheduler.worker_list() if worker["name"] == name]
    return bool(worker["draining"])


@pytest.mark.parametrize("event", [WorkerDraining("w", "1"), DrainWorker("w")])
def test_a_worker_that_leaves_gets_nothing_more_and_its_jobs_go_on(
    h: Harness, event: WorkerDraining | DrainWorker
) -> None:
    run_id = h.submit(job("runs"), job("sent"), job("next"))
    h.start(run_id, "runs")
    decision = h.tell(event)
    assert [news.data["draining"] for news in decision.news] == [True]
    h.give_back(run_id, "sent")
    assert draining(h)
    assert h.scheduler.stats()["slots_free"] == 0
    assert h.reason(run_id, "next") == reasons.WAIT_DRAINING
    assert h.scheduler.explain(run_id, "next", h.now).details["workers"] == {  # type: ignore[union-attr]
        matching.IS_DRAINING: ["w"]
    }
    h.end(run_id, "runs")
    assert h.states(run_id) == {
        "runs": JobState.COMPLETED, "sent": JobState.QUEUED, "next": JobState.QUEUED
    }  # fmt: skip
    h.worker("other", 2)
    assert {h.job(run_id, name)["worker"] for name in ("sent", "next")} == {"other"}


def test_a_person_s_wish_is_sent_once_and_again_with_every_link_of_that_process(h: Harness) -> None:
    answer = h.accept(DrainWorker("w")).answer
    assert (answer["name"], answer["draining"], answer["running"]) == ("w", True, 0)
    h.accept(DrainWorker("w"))
    assert h.messages(Drain) == [Drain()]
    h.tell(WorkerDisconnected("w", "1"))
    h.sent.clear()
    h.worker(slots=2)
    assert [type(message) for _, message in h.sent] == [Welcome, Drain]
    assert draining(h)


def test_a_worker_that_is_away_is_told_when_it_is_back(h: Harness) -> None:
    h.tell(WorkerDisconnected("w", "1"))
    h.accept(DrainWorker("w"))
    h.sent.clear()
    h.worker()
    assert h.messages(Drain) == [Drain()]


@pytest.mark.parametrize("event", [WorkerDraining("w", "1"), DrainWorker("w")])
def test_started_anew_it_is_as_new(h: Harness, event: WorkerDraining | DrainWorker) -> None:
    h.tell(event)
    h.sent.clear()
    h.worker(slots=2, incarnation="2")
    assert (draining(h), h.messages(Drain)) == (False, [])
    run_id = h.submit(job("j"))
    assert h.state(run_id, "j") == JobState.ASSIGNED


def test_what_it_says_of_itself_counts_at_each_hello_and_needs_no_answer(h: Harness) -> None:
    run_id = h.submit(job("j"))
    h.start(run_id, "j")
    h.tell(WorkerDraining("w", "1"))
    held = [Held(h.job(run_id, "j")["fence"], True)]
    h.crash()
    h.worker(slots=2, held=held, draining=True)
    assert (draining(h), h.messages(Drain)) == (True, [])
    h.worker(slots=2, held=held)
    assert not draining(h)


def test_words_of_another_process_and_a_second_time_are_nothing(h: Harness) -> None:
    for event in (WorkerDraining("w", "0"), WorkerDraining("x", "1")):
        assert not h.tell(event).news
    assert not draining(h)
    assert h.tell(WorkerDraining("w", "1")).news
    assert not h.tell(WorkerDraining("w", "1")).news


def test_a_worker_nobody_knows_cannot_be_drained(h: Harness) -> None:
    refusal = h.refused(DrainWorker("x"))
    assert (refusal.code, "no worker x" in refusal.message) == ("not_found", True)
    h.tell(WorkerDisconnected("w", "1"))
    h.wait(FORGET_WORKER_MS)
    assert h.refused(DrainWorker("w")).code == "not_found"


# Jobs pinned to it


@pytest.mark.parametrize("event", [WorkerDraining("w", "1"), DrainWorker("w")])
def test_what_is_pinned_to_it_is_released(h: Harness, event: WorkerDraining | DrainWorker) -> None:
    h.worker()
    run_id = h.submit(job("p"), job("j", "p", affinity=True, affinity_wait_s=86_400))
    blocker = h.submit(job("busy", priority=9))
    h.end(run_id, "p")
    h.worker("idle", 4)
    assert h.reason(run_id, "j") == reasons.WAIT_AFFINITY
    h.tell(event)
    assert h.job(run_id, "j")["worker"] == "idle"
    assert h.state(blocker, "busy") == JobState.ASSIGNED


def test_between_the_slices_of_that_release_its_turn_comes_next(h: Harness) -> None:
    run_id = h.submit(job("p"), job("q"), *(job(f"j{n}", "p", affinity=True) for n in range(900)))
    h.start(run_id, "q")
    h.end(run_id, "p")
    h.tell(WorkerDraining("w", "1"), settle=False)
    assert h.decision.more
    assert h.reason(run_id, "j899") == reasons.WAIT_ENTERING
    h.settle()
    assert h.reason(run_id, "j899") == reasons.WAIT_DRAINING


def test_nothing_is_pinned_to_it_any_more(h: Harness) -> None:
    run_id = h.submit(job("p"), job("j", "p", affinity=True, affinity_wait_s=86_400))
    h.start(run_id, "p")
    h.tell(WorkerDraining("w", "1"))
    h.worker("idle")
    h.end(run_id, "p")
    assert h.job(run_id, "j")["worker"] == "idle"


def test_a_worker_that_comes_back_to_leave_releases_what_waits_for_it(h: Harness) -> None:
    h.worker()
    run_id = h.submit(job("p"), job("j", "p", affinity=True, affinity_wait_s=86_400))
    h.submit(job("busy", priority=9))
    h.end(run_id, "p")
    h.tell(WorkerDisconnected("w", "1"))
    h.worker("idle", 4)
    assert h.reason(run_id, "j") == reasons.WAIT_PINNED_AWAY
    h.worker(draining=True)
    assert h.job(run_id, "j")["worker"] == "idle"
