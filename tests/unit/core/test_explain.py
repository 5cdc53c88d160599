"""Every reason that `explain` can give: brought about, its remedy applied, and the job goes on.

A case is a generator: it brings the reason about, yields the harness and the job, and after the yield applies
what the remedy says. The test then wants to see the job with a worker, or over.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.unit.core.harness import Harness, job
from titan.core import reasons
from titan.core.dispatch import GRANTS_A_SLICE
from titan.core.events import (
    AttemptEnded,
    CancelJob,
    CancelRun,
    Continue,
    EndLend,
    FlipRun,
    LendSlot,
    NewRun,
    StageJobs,
    StageRun,
    WorkerConnected,
    WorkerDisconnected,
    WorkerDraining,
)
from titan.core.explain import NAMES_MAX, Explanation
from titan.core.lending import BEYOND_MAX
from titan.core.scheduler import STEPS_AN_EVENT
from titan.model.states import FINAL_JOB_STATES, JobState
from titan.model.wire import Ended

Scene = Iterator[tuple[Harness, str, str]]
GONE_ON = FINAL_JOB_STATES | {JobState.ASSIGNED, JobState.RUNNING}


def parents_unfinished() -> Scene:
    h = Harness()
    h.worker()
    run_id = h.submit(job("a"), job("b"), job("j", "a", "b"))
    h.end(run_id, "a")
    yield h, run_id, "j"
    h.end(run_id, "b")


def delay() -> Scene:
    h = Harness()
    h.worker()
    run_id = h.submit(job("j", delay_ms=1_500))
    yield h, run_id, "j"
    h.wait(1_500)


def backoff() -> Scene:
    h = Harness()
    h.worker()
    run_id = h.submit(job("j", retries=1, retry_backoff_s=10))
    h.end(run_id, "j", 3, jitter=0.5)
    yield h, run_id, "j"
    h.wait(5_000)


def postponed() -> Scene:
    h = Harness()
    h.worker()
    run_id = h.submit(job("j"))
    h.give_back(run_id, "j", "no space left on device")
    yield h, run_id, "j"
    h.wait(1_000)


def entering() -> Scene:
    h = Harness()
    h.worker()
    run_id = "e" * 32
    h.accept(StageRun(NewRun(run_id, "large", run_id, run_id), 2 * STEPS_AN_EVENT))
    h.accept(StageJobs(run_id, tuple(job(f"j{number}") for number in range(2 * STEPS_AN_EVENT))))
    h.tell(FlipRun(run_id), settle=False)
    last = f"j{2 * STEPS_AN_EVENT - 1}"
    yield h, run_id, last
    h.settle()
    h.worker("large", slots=2 * STEPS_AN_EVENT)


def no_worker() -> Scene:
    h = Harness()
    run_id = h.submit(job("j"))
    yield h, run_id, "j"
    h.worker()


def capability() -> Scene:
    h = Harness()
    h.worker("plain", 4)
    run_id = h.submit(job("j", requirement=("GPU", "HIGH_MEM")))
    yield h, run_id, "j"
    h.worker("strong", 1, ("GPU", "HIGH_MEM"))


def slots() -> Scene:
    h = Harness()
    h.worker()
    run_id = h.submit(job("first"), job("j"))
    yield h, run_id, "j"
    h.worker("another")


def draining() -> Scene:
    h = Harness()
    h.worker("leaving", 1, ("GENERAL", "GPU"))
    h.worker("plain", 1)
    h.tell(WorkerDraining("leaving", "1"))
    run_id = h.submit(job("j", requirement=("GPU",)))
    yield h, run_id, "j"
    h.worker("leaving", 1, ("GENERAL", "GPU"), incarnation="2")


def devices() -> Scene:
    h = Harness()
    h.worker(slots=4, tags=("GPU",), devices=("0",))
    run_id = h.submit(job("first", requirement=("GPU",)), job("j", requirement=("GPU",)))
    yield h, run_id, "j"
    h.end(run_id, "first")


def pinned_busy() -> Scene:
    h = Harness()
    h.worker("home")
    run_id = h.submit(job("p"), job("j", "p", affinity=True))
    other = h.submit(job("other", priority=9))
    h.end(run_id, "p")
    h.worker("idle", 4)
    yield h, run_id, "j"
    h.end(other, "other")


def pinned_away() -> Scene:
    h = Harness()
    h.worker("home")
    run_id = h.submit(job("p"), job("j", "p", affinity=True))
    h.start(run_id, "p")
    h.tell(WorkerDisconnected("home", "1"))
    h.end(run_id, "p")
    h.worker("other", 4)
    yield h, run_id, "j"
    h.worker("home")


def starting() -> Scene:
    h = Harness()
    h.worker()
    run_id = h.submit(job("j"))
    yield h, run_id, "j"
    h.start(run_id, "j")


def ahead() -> Scene:
    h = Harness()
    h.worker()
    run_id = h.submit(job("quick"), job("runs"), job("j"))
    h.start(run_id, "quick")
    h.end(run_id, "quick")
    yield h, run_id, "j"
    h.end(run_id, "runs")
    h.start(run_id, "j")


def silent() -> Scene:
    h = Harness()
    h.worker()
    run_id = h.submit(job("j"))
    h.start(run_id, "j")
    h.tell(WorkerDisconnected("w", "1"))
    h.worker("other")
    yield h, run_id, "j"
    h.wait(65_000)


def cancelling() -> Scene:
    h = Harness()
    h.worker()
    run_id = h.submit(job("j"))
    h.start(run_id, "j")
    h.accept(CancelJob(run_id, "j"))
    yield h, run_id, "j"
    h.end(run_id, "j", 143, "cancelled", 15)


def running() -> Scene:
    h = Harness()
    h.worker()
    run_id = h.submit(job("j"))
    h.start(run_id, "j")
    yield h, run_id, "j"
    h.end(run_id, "j")


def waiting_below() -> Scene:
    h = Harness()
    h.worker()
    run_id = h.submit(job("j"))
    h.start(run_id, "j")
    below = h.submit(job("c"), parent=(run_id, "j"))
    h.tell(LendSlot(h.holder(run_id, "j")[2], below))
    yield h, run_id, "j"
    h.end(below, "c")
    h.tell(EndLend(h.holder(run_id, "j")[2], below, final=True))


def slots_lent() -> Scene:
    h = Harness()
    h.worker()
    for _ in range(BEYOND_MAX[0] + 1):
        parent = h.submit(job("p"))
        h.start(parent, "p")
        below = h.submit(job("c", requirement=("NOWHERE",)), parent=(parent, "p"))
        h.tell(LendSlot(h.holder(parent, "p")[2], below))
    run_id = h.submit(job("j"))
    yield h, run_id, "j"
    h.end(parent, "p")


SCENES: dict[str, Callable[[], Scene]] = {
    reasons.WAIT_PARENTS: parents_unfinished,
    reasons.WAIT_DELAY: delay,
    reasons.WAIT_BACKOFF: backoff,
    reasons.WAIT_POSTPONED: postponed,
    reasons.WAIT_ENTERING: entering,
    reasons.WAIT_NO_WORKER: no_worker,
    reasons.WAIT_CAPABILITY: capability,
    reasons.WAIT_SLOTS: slots,
    reasons.WAIT_DRAINING: draining,
    reasons.WAIT_DEVICE: devices,
    reasons.WAIT_AFFINITY: pinned_busy,
    reasons.WAIT_PINNED_AWAY: pinned_away,
    reasons.WAIT_START: starting,
    reasons.WAIT_AHEAD: ahead,
    reasons.WAIT_LEASE: silent,
    reasons.CANCELLING: cancelling,
    reasons.RUNNING: running,
    reasons.WAITS_BELOW: waiting_below,
    reasons.WAIT_ROOM: slots_lent,
}


def told(h: Harness, run_id: str, job_id: str) -> Explanation:
    explanation = h.scheduler.explain(run_id, job_id, h.now)
    assert explanation is not None
    return explanation


@pytest.mark.parametrize(("reason", "scene"), SCENES.items())
def test_each_reason_has_a_remedy_that_helps(reason: str, scene: Callable[[], Scene]) -> None:
    acting = scene()
    h, run_id, job_id = next(acting)
    explanation = told(h, run_id, job_id)
    assert explanation.reason == reason
    assert explanation.remedy == reasons.REMEDIES[reason]
    assert (explanation.run_id, explanation.job_id, explanation.state) == (run_id, job_id, h.state(run_id, job_id))
    assert explanation.message
    next(acting, None)
    assert h.state(run_id, job_id) in GONE_ON
    assert reason not in (h.reason(run_id, job_id) if h.state(run_id, job_id) not in FINAL_JOB_STATES else "")


def test_there_is_a_scene_for_every_reason() -> None:
    # What is over is not in memory: the API answers ENDED from its row.
    assert set(SCENES) | {reasons.ENDED} == set(reasons.REMEDIES)
    waits = {value for name, value in vars(reasons).items() if name.startswith("WAIT_")}
    others = {reasons.CANCELLING, reasons.RUNNING, reasons.WAITS_BELOW, reasons.ENDED}
    assert waits | others == set(reasons.REMEDIES)


def test_what_is_over_or_unknown_is_not_explained_from_memory() -> None:
    h = Harness()
    h.worker()
    run_id = h.submit(job("a"), job("b"))
    h.end(run_id, "a")
    assert h.scheduler.explain(run_id, "a", h.now) is None
    assert h.scheduler.explain(run_id, "ghost", h.now) is None
    assert h.scheduler.explain("f" * 32, "a", h.now) is None


def test_parents_are_named_with_their_states_ten_at_most() -> None:
    h = Harness()
    h.worker()
    names = [f"p{number}" for number in range(NAMES_MAX + 2)]
    run_id = h.submit(*map(job, names), job("j", *names))
    h.start(run_id, "p0")
    details = told(h, run_id, "j").details
    assert details["waiting_for"] == NAMES_MAX + 2
    assert details["parents"][:2] == [{"job_id": "p0", "state": "RUNNING"}, {"job_id": "p1", "state": "QUEUED"}]
    assert len(details["parents"]) == NAMES_MAX


def test_times_and_exit_codes_are_told() -> None:
    h = Harness()
    h.worker(slots=2)
    run_id = h.submit(job("j", retries=2, retry_backoff_s=8), job("d", delay_ms=4_000))
    h.end(run_id, "j", 3, jitter=0.5)
    h.wait(1_000)
    assert "failed with exit code 3; tried again in 3.0 s" in told(h, run_id, "j").message
    assert told(h, run_id, "d").details["left_s"] == 3
    h.wait(3_000)
    h.give_back(run_id, "j", "fork: out of memory")
    assert "(fork: out of memory)" in told(h, run_id, "j").message
    h.crash()
    assert "could not start it; tried again" in told(h, run_id, "j").message


def test_refusing_workers_are_named_by_reason_and_jobs_ahead_are_counted() -> None:
    h = Harness()
    h.worker("plain", 1)
    h.worker("gpu", 1, ("GPU",))
    h.worker("gone", 1, ("GPU",))
    run_id = h.submit(job("g", requirement=("GPU",)), job("h", requirement=("GPU",)), job("p"))
    h.tell(WorkerDisconnected("gone", "1"))
    waiting = h.submit(*(job(f"u{number}", requirement=("GPU",), priority=4) for number in range(3)))
    assert h.state(waiting, "u0") == JobState.QUEUED
    low = h.submit(job("j", requirement=("GPU",)))
    explanation = told(h, low, "j")
    assert explanation.reason == reasons.WAIT_SLOTS
    assert explanation.details["workers"] == {
        "LACKS_CAPABILITY": ["plain"], "IS_FULL": ["gpu"], "IS_AWAY": ["gone"]
    }  # fmt: skip
    assert explanation.details["ahead"] == 3
    assert "3 jobs of higher priority go first" in explanation.message
    assert h.reason(run_id, "g") == reasons.WAIT_LEASE


def test_several_workers_of_one_refusal_all_refuse() -> None:
    h = Harness()
    run_id = h.submit(job("j"), job("k"), job("waits"))
    for name in ("a", "b"):
        h.worker(name)
    assert told(h, run_id, "waits").reason == reasons.WAIT_SLOTS
    assert "all slots of the 2 workers" in told(h, run_id, "waits").message


def test_a_pinned_job_without_a_device_is_told_so() -> None:
    h = Harness()
    h.worker("home", 4, ("GENERAL", "GPU"), devices=("0",))
    run_id = h.submit(job("p"), job("j", "p", requirement=("GPU",), affinity=True))
    h.submit(job("other", requirement=("GPU",)))
    h.end(run_id, "p")
    explanation = told(h, run_id, "j")
    assert explanation.reason == reasons.WAIT_AFFINITY
    assert "whose devices are all busy" in explanation.message


def test_a_capability_that_only_a_worker_away_offers_is_missing() -> None:
    h = Harness()
    h.worker("plain")
    h.worker("gpu", 1, ("GPU",))
    h.tell(WorkerDisconnected("gpu", "1"))
    run_id = h.submit(job("j", requirement=("GPU",)))
    assert told(h, run_id, "j").reason == reasons.WAIT_CAPABILITY
    assert "GPU" in told(h, run_id, "j").message


def test_between_two_slices_of_grants_its_turn_comes_next() -> None:
    h = Harness()
    jobs = tuple(job(f"j{number}") for number in range(GRANTS_A_SLICE + 2))
    run_id = h.submit(*jobs)
    h.tell(WorkerConnected("w", "1", "boot", ("GENERAL",), 1_000, ()), settle=False)
    last = jobs[-1].job_id
    assert told(h, run_id, last).reason == reasons.WAIT_ENTERING
    h.settle()
    assert h.state(run_id, last) == JobState.ASSIGNED


def test_between_two_slices_of_a_release_no_parent_is_blamed() -> None:
    h = Harness()
    h.worker()
    children = [job(f"c{number}", "p") for number in range(STEPS_AN_EVENT + 100)]
    run_id = h.submit(job("p"), *children)
    name, incarnation, fence = h.holder(run_id, "p")
    h.tell(AttemptEnded(name, incarnation, Ended(fence, 0), 0.0), settle=False)
    last = children[-1].job_id
    assert h.state(run_id, last) == JobState.BLOCKED
    assert h.reason(run_id, last) == reasons.WAIT_ENTERING
    h.settle()
    assert h.reason(run_id, last) == reasons.WAIT_SLOTS


def test_a_run_that_is_being_cancelled_says_so_for_what_its_slices_have_not_reached() -> None:
    h = Harness()
    jobs = [job(f"j{number}") for number in range(STEPS_AN_EVENT + 100)]
    run_id = h.submit(*jobs)
    h.tell(CancelRun(run_id), settle=False)
    assert h.reason(run_id, jobs[-1].job_id) == reasons.CANCELLING
    h.tell(Continue())
    assert h.state(run_id, jobs[-1].job_id) == JobState.CANCELLED


def test_a_released_pin_is_told() -> None:
    h = Harness()
    h.worker("home")
    run_id = h.submit(job("p"), job("j", "p", affinity=True, affinity_wait_s=5))
    blocker = h.submit(job("b", priority=9))
    h.end(run_id, "p")
    assert h.state(blocker, "b") == JobState.ASSIGNED
    assert told(h, run_id, "j").details["pinned_to"] == "home"
    h.wait(5_000)
    explanation = told(h, run_id, "j")
    assert explanation.reason == reasons.WAIT_SLOTS
    assert explanation.details["affinity"] == reasons.AFFINITY_RELEASED


def test_after_a_start_a_pinned_worker_not_seen_yet_is_away_and_not_busy() -> None:
    h = Harness()
    h.worker("home")
    run_id = h.submit(job("p"), job("j", "p", affinity=True), job("k", "p", affinity=True))
    h.end(run_id, "p")
    h.crash()
    assert h.reason(run_id, "k") == reasons.WAIT_PINNED_AWAY
    assert h.reason(run_id, "j") == reasons.WAIT_LEASE


def test_asking_changes_nothing() -> None:
    for scene in SCENES.values():
        h, run_id, job_id = next(scene())
        before = repr(h.scheduler.memory.runs), h.scheduler.stats()
        told(h, run_id, job_id)
        assert before == (repr(h.scheduler.memory.runs), h.scheduler.stats())
