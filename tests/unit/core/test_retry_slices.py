"""A retry of a large run in slices: one row decides, the jobs follow, and a crash anywhere in between is nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.core.harness import Harness, job
from titan.core import reasons, scheduler
from titan.core.changes import Update
from titan.core.events import AttemptEnded, CancelJob, CancelRun, Continue, ExtendRun, RetryRun
from titan.core.rows import JobRow, RunRow, opening_of, starts_again
from titan.model.states import FINAL_JOB_STATES, FINAL_RUN_STATES, JobState, RunState
from titan.model.wire import Ended

EVENTS_MAX = 40
Judge = Callable[[], None]


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps an event, so that a dozen jobs are many slices."""
    monkeypatch.setattr(scheduler, "STEPS_AN_EVENT", 2)


@pytest.fixture
def h() -> Harness:
    harness = Harness()
    harness.worker(slots=20)
    return harness


def ended(h: Harness) -> str:
    """Two trees: kept -> top -> (left, right) -> low, of which top failed; and a -> b -> c -> d, e -> d, completed."""
    run_id = h.submit(
        job("kept"), job("top", "kept"), job("a"), job("b", "a"), job("c", "b"), job("e"), job("d", "c", "e"),
        job("x"), job("left", "top", affinity=True), job("right", "top"), job("low", "left", "right"),
    )  # fmt: skip
    for name in ("kept", "a", "b", "c", "e", "d"):
        h.end(run_id, name)
    h.end(run_id, "top", 1)
    h.end(run_id, "x", 1)
    assert h.run(run_id)["state"] == RunState.FAILED
    return run_id


def waits_for_its_slice(h: Harness, run_id: str, name: str) -> bool:
    return starts_again(RunRow(**h.run(run_id)), JobRow(**h.job(run_id, name)))


def ends(h: Harness, run_id: str, name: str, exit_code: int = 0) -> AttemptEnded:
    worker, incarnation, fence = h.holder(run_id, name)
    return AttemptEnded(worker, incarnation, Ended(fence, exit_code), 0.0)


NAMES = {"failed": (), "named": ("top", "b", "x"), "all": ("kept", "a", "e", "x")}
AGAIN = {
    "failed": {"top", "left", "right", "low", "x"},
    "named": {"top", "left", "right", "low", "b", "c", "d", "x"},
    "all": {"kept", "top", "left", "right", "low", "a", "b", "c", "d", "e", "x"},
}


def judge(h: Harness, run_id: str) -> Judge:
    """Return a check to be called after every event: nobody is granted early, the run is never forgotten."""
    seen = set(h.store.tables["attempts"])

    def check() -> None:
        run = RunRow(**h.run(run_id))
        rows = {name: JobRow(**h.job(run_id, name)) for name in h.states(run_id)}
        for fence, attempt in h.store.tables["attempts"].items():
            if fence not in seen:
                seen.add(fence)
                for _, child, parent in h.store.tables["edges"]:
                    if child == attempt["job_id"]:
                        assert rows[parent].state == JobState.COMPLETED
                        assert not starts_again(run, rows[parent]), f"{child} was granted before {parent} ran again"
        if run.state in FINAL_RUN_STATES:
            assert all(row.state in FINAL_JOB_STATES for row in rows.values())
        else:
            assert run_id in h.scheduler.memory.runs

    return check


def play(h: Harness, run_id: str, check: Judge) -> None:
    """Let everything granted end well, one job at a time, until the run is over."""
    h.worker(slots=20, incarnation=f"after {h.epoch}")
    for _ in range(EVENTS_MAX):
        check()
        if h.run(run_id)["state"] in FINAL_RUN_STATES:
            return
        held = [name for name, state in sorted(h.states(run_id).items()) if state == JobState.ASSIGNED]
        if held:
            h.end(run_id, held[0])
    raise AssertionError("the run does not end")


def slices(h: Harness, count: int, check: Judge) -> None:
    check()
    for _ in range(count):
        h.tell(Continue(), settle=False)
        check()


def generations(h: Harness, run_id: str) -> dict[str, int]:
    return {name: h.job(run_id, name)["generation"] for name in h.states(run_id)}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("crashes", [1, 2])
@pytest.mark.parametrize("count", range(7))
def test_f3_a_crash_after_any_slice_goes_on_with_the_same_jobs(names: str, crashes: int, count: int) -> None:
    h = Harness()
    h.worker(slots=20)
    run_id = ended(h)
    check = judge(h, run_id)
    answer = h.tell(h.retry(run_id, *NAMES[names]), settle=False).answer
    assert answer == {"run_id": run_id, "generation": 2, "jobs": len(AGAIN[names])}
    assert h.run(run_id)["generation"] == 2
    slices(h, count, check)
    for _ in range(crashes):
        h.crash(settle=False)
        slices(h, 1, check)
    h.settle()
    check()
    assert h.run(run_id)["opening"] is None
    assert {name for name, generation in generations(h, run_id).items() if generation == 2} == AGAIN[names]
    play(h, run_id, check)
    run = h.run(run_id)
    assert (run["state"], run["generation"], run["jobs_completed"]) == (RunState.COMPLETED, 2, 11)


@pytest.mark.parametrize("count", range(6))
@pytest.mark.parametrize("crash", [False, True])
def test_a_parent_that_fails_again_dooms_jobs_whose_rows_do_not_show_the_generation_yet(
    h: Harness, count: int, crash: bool
) -> None:
    run_id = ended(h)
    check = judge(h, run_id)
    h.tell(h.retry(run_id, *NAMES["named"]), settle=False)
    h.tell(ends(h, run_id, "top", 1), settle=False)
    assert waits_for_its_slice(h, run_id, "left")
    slices(h, count, check)
    if crash:
        h.crash()
    play(h, run_id, check)
    states = h.states(run_id)
    assert {states[name] for name in ("left", "right", "low")} == {JobState.CANCELLED}
    assert {h.job(run_id, name)["reason"] for name in ("left", "right", "low")} == {reasons.END_PARENT_FAILED}
    assert {generations(h, run_id)[name] for name in ("left", "right", "low")} == {2}
    assert {states[name] for name in "abcdex"} == {JobState.COMPLETED}
    assert h.run(run_id)["state"] == RunState.FAILED


@pytest.mark.parametrize("count", range(6))
@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("slots", [1, 20])
def test_a_parent_that_completes_early_frees_children_before_their_slice(
    h: Harness, count: int, crash: bool, slots: int
) -> None:
    run_id = ended(h)
    h.worker(slots=slots)
    check = judge(h, run_id)
    h.tell(h.retry(run_id, *NAMES["named"]), settle=False)
    h.tell(ends(h, run_id, "top"), settle=False)
    assert waits_for_its_slice(h, run_id, "left")
    slices(h, count, check)
    if crash:
        h.crash()
    else:
        h.settle()
        assert h.scheduler.stats()["queues"].get("GENERAL", 0) == (3 if slots == 1 else 0)
    play(h, run_id, check)
    assert (h.run(run_id)["state"], h.run(run_id)["jobs_completed"]) == (RunState.COMPLETED, 11)


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("count", range(7))
def test_a_run_that_is_cancelled_while_it_opens_ends_cancelled_as_a_whole(count: int, crash: bool) -> None:
    h = Harness()
    h.worker(slots=20)
    run_id = ended(h)
    check = judge(h, run_id)
    h.tell(h.retry(run_id, *NAMES["all"]), settle=False)
    slices(h, count, check)
    granted = len(h.grants)
    assert h.tell(CancelRun(run_id), settle=False).answer == {"cancelled": True}
    if crash:
        h.crash()
    h.settle()
    assert len(h.grants) == granted
    for name, state in h.states(run_id).items():
        if state == JobState.ASSIGNED:
            h.give_back(run_id, name)
    check()
    assert set(h.states(run_id).values()) == {JobState.CANCELLED}
    assert set(generations(h, run_id).values()) == {2}
    run = h.run(run_id)
    assert (run["state"], run["opening"], run["jobs_cancelled"]) == (RunState.CANCELLED, None, 11)


def test_what_is_left_of_a_generation_that_is_over_touches_nothing_of_the_next(h: Harness) -> None:
    run_id = h.submit(job("j"), job("k", "j"))
    h.end(run_id, "j", 1)
    far = [job(f"j{number}", requirement=("FAR",)) for number in range(99)]
    for other in [h.submit(*far) for _ in range(4)]:  # long work of others, which takes turns with ours
        h.tell(CancelRun(other), settle=False)
    h.tell(h.retry(run_id), settle=False)
    assert waits_for_its_slice(h, run_id, "j")
    h.tell(CancelJob(run_id, "j"), settle=False)
    h.tell(CancelJob(run_id, "k"), settle=False)
    run = h.run(run_id)
    assert (run["state"], run["generation"], run["opening"]) == (RunState.CANCELLED, 2, None)
    assert h.tell(h.retry(run_id), settle=False).answer["generation"] == 3
    play(h, run_id, judge(h, run_id))
    assert generations(h, run_id) == {"j": 3, "k": 3}


def test_one_job_is_cancelled_before_its_slice_and_its_children_with_it(h: Harness) -> None:
    run_id = ended(h)
    h.tell(h.retry(run_id, *NAMES["named"]), settle=False)
    assert waits_for_its_slice(h, run_id, "left")
    assert h.tell(CancelJob(run_id, "left"), settle=False).answer == {"cancelled": True}
    assert (h.state(run_id, "left"), generations(h, run_id)["left"]) == (JobState.CANCELLED, 2)
    h.crash()
    play(h, run_id, judge(h, run_id))
    states = h.states(run_id)
    assert (states["low"], states["right"]) == (JobState.CANCELLED, JobState.COMPLETED)
    assert h.job(run_id, "low")["reason"] == reasons.END_PARENT_CANCELLED


def test_an_extension_meets_jobs_that_start_again_as_living(h: Harness) -> None:
    run_id = ended(h)
    seen: dict[str, Any] = {name: JobRow(**h.job(run_id, name)) for name in h.states(run_id)}
    h.tell(h.retry(run_id, "c"), settle=False)
    decision = h.tell(ExtendRun(run_id, (job("new", "d", "kept"),), seen), settle=False)
    assert decision.refusal is None
    assert h.state(run_id, "new") == JobState.BLOCKED
    h.crash()
    play(h, run_id, judge(h, run_id))
    assert h.state(run_id, "new") == JobState.COMPLETED
    assert (h.run(run_id)["jobs_total"], generations(h, run_id)["new"]) == (12, 2)


def test_a_run_that_is_still_opening_is_not_retried(h: Harness) -> None:
    run_id = ended(h)
    h.tell(h.retry(run_id), settle=False)
    for _ in range(2):
        refusal = h.tell(h.retry(run_id), settle=False).refusal
        assert refusal is not None
        assert (refusal.code, "has not ended" in refusal.message) == ("conflict", True)
        h.crash(settle=False)


def test_jobs_whose_slice_is_to_come_are_explained_and_counted_as_they_will_be(h: Harness) -> None:
    run_id = ended(h)
    h.tell(h.retry(run_id), settle=False)
    assert h.state(run_id, "low") == JobState.CANCELLED
    assert h.reason(run_id, "low") == reasons.WAIT_PARENTS
    counted = h.scheduler.stats()["jobs"]
    h.settle()
    assert sum(counted.values()) == 5 == sum(h.scheduler.stats()["jobs"].values())


def test_the_pin_that_finished_parents_gave_survives_a_crash_in_the_middle(h: Harness) -> None:
    h.worker("far", 1, ("FAR",))
    run_id = h.submit(
        job("p", requirement=("FAR",)), *(job(f"f{number}") for number in range(6)),
        job("j", "p", affinity=True, requirement=("FAR",)),
    )  # fmt: skip
    h.end(run_id, "p")
    for number in range(6):
        h.end(run_id, f"f{number}", 1)
    h.end(run_id, "j", 1)
    h.tell(h.retry(run_id), settle=False)
    assert h.state(run_id, "j") == JobState.FAILED
    h.crash()
    assert h.job(run_id, "j")["affinity_worker"] == "far"


def test_the_first_write_of_each_job_believes_in_the_generation_before(h: Harness) -> None:
    run_id = ended(h)
    decisions = [h.tell(h.retry(run_id, *NAMES["all"]), settle=False)]
    while h.decision.more:
        decisions.append(h.tell(Continue(), settle=False))
    believed: dict[Any, list[int]] = {}
    for decision in decisions:
        for change in decision.changes:
            if isinstance(change, Update) and change.table in ("jobs", "runs"):
                believed.setdefault(change.key, []).append(change.expect["generation"])
    assert len(believed) == 12
    assert all(first == 1 and set(rest) <= {2} for first, *rest in believed.values())


def test_no_event_of_a_large_retry_writes_more_than_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    h = Harness()
    h.worker()
    run_id = h.submit(job("p"), *(job(f"c{number}", "p") for number in range(2_999)))
    h.end(run_id, "p", 1)
    command = h.retry(run_id)
    sizes = [len(h.tell(command, settle=False).changes)]
    while h.decision.more:
        sizes.append(len(h.tell(Continue(), settle=False).changes))
    assert len(sizes) > 3_000 // scheduler.STEPS_AN_EVENT
    assert max(sizes) < 2 * scheduler.STEPS_AN_EVENT
    assert h.run(run_id)["opening"] is None


def test_a_small_retry_is_one_event_and_never_seen_half_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    h = Harness()
    run_id = h.submit(*(job(f"j{number}") for number in range(100)))
    h.tell(CancelRun(run_id))
    decision = h.tell(h.retry(run_id), settle=False)
    assert not decision.more
    assert set(h.states(run_id).values()) == {JobState.QUEUED}
    assert not any("opening" in change.values for change in decision.changes if change.table == "runs")


def test_which_jobs_start_again_is_a_bit_each() -> None:
    h = Harness()
    h.worker(slots=20)
    run_id = ended(h)
    assert isinstance(h.retry(run_id), RetryRun)
    rows = [JobRow(**h.job(run_id, name)) for name in h.states(run_id)]
    for ordinals in ([], [0], [7], [8], [0, 3, 8, 10], list(range(11))):
        run = RunRow(**h.run(run_id) | {"generation": 2, "opening": opening_of(ordinals, 11)})
        assert [row.ordinal for row in rows if starts_again(run, row)] == ordinals
        later = JobRow(**h.job(run_id, "x") | {"ordinal": 4_000})
        assert not starts_again(run, later), "added after the retry"
