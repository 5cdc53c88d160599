"""A pin to the parent's worker: made, waited for, and released with a reason."""

import pytest

from tests.unit.core.harness import Harness, job
from titan.core import reasons
from titan.core.events import Tick, WorkerConnected, WorkerDisconnected
from titan.core.scheduler import STEPS_AN_EVENT
from titan.core.workers import FORGET_WORKER_MS
from titan.model.spec import JobSpec
from titan.model.states import JobState


def pinned(job_id: str = "j", *parents: str, wait_s: float = 60.0, **fields: object) -> JobSpec:
    return job(job_id, *(parents or ("p",)), affinity=True, affinity_wait_s=wait_s, **fields)


@pytest.fixture
def h() -> Harness:
    """A harness whose worker `home` has one slot, and gets every parent."""
    harness = Harness()
    harness.worker("home")
    return harness


def held_up(h: Harness, *children: JobSpec) -> str:
    """A run whose parent is done on `home`, which is busy with another job now; `idle` has slots."""
    run_id = h.submit(job("p"), *children)
    h.submit(job("busy", priority=9))
    h.end(run_id, "p")
    h.worker("idle", 4)
    return run_id


def test_it_goes_to_its_parents_worker_though_another_is_idle(h: Harness) -> None:
    run_id = h.submit(job("p"), pinned(), job("free", "p"))
    h.worker("idle", 9)
    h.end(run_id, "p")
    assert h.job(run_id, "j")["worker"] == "home"
    assert h.job(run_id, "j")["affinity_worker"] == "home"
    assert h.job(run_id, "free")["worker"] == "idle"


def test_of_several_parents_it_is_the_last_to_finish(h: Harness) -> None:
    run_id = h.submit(job("p"), job("q", requirement=("FAR",)), pinned("j", "p", "q"))
    h.worker("far", 2, ("GENERAL", "FAR"))
    h.end(run_id, "q")
    h.end(run_id, "p")
    assert h.job(run_id, "j")["affinity_worker"] == "home"


def test_a_root_has_nobody_to_be_pinned_to(h: Harness) -> None:
    run_id = h.submit(job("j", affinity=True))
    assert h.state(run_id, "j") == JobState.ASSIGNED


def test_it_waits_for_its_worker_and_no_longer_than_it_said(h: Harness) -> None:
    run_id = held_up(h, pinned(wait_s=20), pinned("long", wait_s=600))
    h.wait(19_999)
    assert h.state(run_id, "j") == JobState.QUEUED
    assert h.reason(run_id, "j") == reasons.WAIT_AFFINITY
    h.wait(1)
    assert h.job(run_id, "j")["worker"] == "idle"
    assert h.state(run_id, "long") == JobState.QUEUED


def test_a_wait_of_nothing_is_a_wish_only(h: Harness) -> None:
    run_id = held_up(h, pinned(wait_s=0))
    assert h.job(run_id, "j")["worker"] == "idle"


def test_it_is_released_when_its_worker_is_gone(h: Harness) -> None:
    run_id = held_up(h, pinned(wait_s=86_400))
    h.tell(WorkerDisconnected("home", "1"))
    assert h.reason(run_id, "j") == reasons.WAIT_PINNED_AWAY
    h.wait(FORGET_WORKER_MS - 1)
    assert h.state(run_id, "j") == JobState.QUEUED
    h.wait(1)
    assert h.job(run_id, "j")["worker"] == "idle"


def test_it_is_not_pinned_to_a_worker_that_is_forgotten_already(h: Harness) -> None:
    run_id = h.submit(job("p"), pinned(wait_s=86_400, delay_ms=2 * FORGET_WORKER_MS))
    h.end(run_id, "p")
    h.tell(WorkerDisconnected("home", "1"))
    h.worker("idle", 4)
    h.wait(2 * FORGET_WORKER_MS)
    assert h.job(run_id, "j")["worker"] == "idle"


def test_it_is_released_when_its_worker_comes_back_without_the_capability(h: Harness) -> None:
    run_id = held_up(h, pinned(wait_s=86_400))
    h.worker("home", 4, ("OTHER",), incarnation="2")
    assert h.job(run_id, "j")["worker"] == "idle"


def test_it_stays_pinned_when_its_worker_comes_back_with_it(h: Harness) -> None:
    run_id = held_up(h, pinned(wait_s=86_400))
    h.tell(WorkerDisconnected("home", "1"))
    h.worker("home", 1, ("GENERAL", "MORE"), incarnation="2")
    assert h.job(run_id, "j")["worker"] == "home"


def test_it_is_not_pinned_where_it_could_never_run(h: Harness) -> None:
    h.worker("gpu", 1, ("GPU",))
    run_id = h.submit(job("p"), pinned(requirement=("GPU",), wait_s=86_400))
    h.end(run_id, "p")
    assert h.job(run_id, "j")["worker"] == "gpu"


def test_a_machine_that_cannot_start_it_is_not_waited_for_again(h: Harness) -> None:
    run_id = h.submit(job("p"), pinned(wait_s=86_400))
    h.end(run_id, "p")
    assert h.job(run_id, "j")["worker"] == "home"
    h.give_back(run_id, "j", "no space left on device")
    h.submit(job("busy", priority=9))
    h.worker("idle", 4)
    h.wait(1_000)
    assert (h.job(run_id, "j")["worker"], h.job(run_id, "j")["affinity_worker"]) == ("idle", "")


def test_given_back_unstarted_it_is_pinned_again(h: Harness) -> None:
    run_id = h.submit(job("p"), pinned())
    h.end(run_id, "p")
    h.worker("idle", 4)
    h.give_back(run_id, "j")
    assert h.holder(run_id, "j")[0] == "home"


def test_once_released_it_is_pinned_no_more(h: Harness) -> None:
    run_id = held_up(h, pinned(wait_s=20), pinned("other", wait_s=86_400))
    h.wait(20_000)
    assert h.holder(run_id, "j")[0] == "idle"
    assert h.job(run_id, "j")["affinity_worker"] == ""
    h.submit(*(job(f"full{number}", priority=9) for number in range(4)))
    h.give_back(run_id, "j")
    assert h.reason(run_id, "j") == reasons.WAIT_SLOTS
    h.crash()
    assert h.job(run_id, "other")["affinity_worker"] == "home"
    h.worker("third")
    assert h.holder(run_id, "j")[0] == "third"


def test_a_child_added_late_whose_wait_is_nothing_is_released_in_the_same_decision(h: Harness) -> None:
    run_id = h.submit(job("p"), job("q"))
    h.end(run_id, "p")
    h.worker("idle", 4)
    h.accept(h.extend(run_id, pinned(wait_s=0)))
    assert (h.job(run_id, "j")["worker"], h.job(run_id, "j")["affinity_worker"]) == ("idle", "")


def test_many_pins_are_released_in_slices(h: Harness) -> None:
    run_id = held_up(h, *(pinned(f"j{number}", wait_s=86_400) for number in range(2 * STEPS_AN_EVENT)))
    h.worker("idle", 3 * STEPS_AN_EVENT)
    h.tell(WorkerConnected("home", "2", "boot", ("OTHER",), 1, ()), settle=False)
    assert h.decision.more
    assert h.state(run_id, f"j{2 * STEPS_AN_EVENT - 1}") == JobState.QUEUED
    h.settle()
    assert {h.job(run_id, f"j{number}")["worker"] for number in range(2 * STEPS_AN_EVENT)} == {"idle"}


def test_between_those_slices_its_worker_is_told_as_away(h: Harness) -> None:
    run_id = held_up(h, *(pinned(f"j{number}", wait_s=86_400) for number in range(2 * STEPS_AN_EVENT)))
    h.tell(WorkerDisconnected("home", "1"))
    last = f"j{2 * STEPS_AN_EVENT - 1}"
    h.wait(FORGET_WORKER_MS - 1)
    h.now = h.now._replace(mono_ms=h.now.mono_ms + 1)
    h.tell(Tick(), settle=False)
    assert [worker["name"] for worker in h.scheduler.worker_list()] == ["idle"]
    assert h.reason(run_id, last) == reasons.WAIT_PINNED_AWAY
    h.settle()
    assert h.reason(run_id, last) == reasons.WAIT_SLOTS


# Over a start of the Master


def test_after_a_start_the_pinned_worker_is_waited_for_as_if_it_had_just_left(h: Harness) -> None:
    run_id = held_up(h, pinned(wait_s=86_400))
    h.wait(30_000)
    h.crash()
    h.worker("idle", 4)
    h.wait(FORGET_WORKER_MS - 1)
    assert h.reason(run_id, "j") == reasons.WAIT_PINNED_AWAY
    h.wait(1)
    assert h.job(run_id, "j")["worker"] == "idle"


def test_after_a_start_a_pin_to_a_worker_that_holds_nothing_is_kept_as_long() -> None:
    for comes_back in (True, False):
        h = Harness()
        h.worker("home")
        run_id = h.submit(job("p"), pinned(wait_s=86_400, delay_ms=1_000))
        h.end(run_id, "p")
        h.tell(WorkerDisconnected("home", "1"))
        h.wait(1_000)
        h.crash()
        h.worker("idle", 4)
        h.wait(FORGET_WORKER_MS - 1)
        assert h.reason(run_id, "j") == reasons.WAIT_PINNED_AWAY
        if comes_back:
            h.worker("home", incarnation="2")
        else:
            h.wait(1)
        assert h.job(run_id, "j")["worker"] == ("home" if comes_back else "idle")
