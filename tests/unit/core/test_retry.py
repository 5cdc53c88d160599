"""Generations: what opens again, what stays, who is refused, and why nothing of the old one counts any more."""

import pytest

from tests.unit.core.harness import Harness, job
from titan.core import reasons
from titan.core.changes import Update, fold
from titan.core.events import AttemptEnded, AttemptReturned, AttemptStarted, CancelJob, CancelRun
from titan.model.states import JobState, RunState
from titan.model.wire import Ended


@pytest.fixture
def h() -> Harness:
    """A harness with a worker of eight slots."""
    harness = Harness()
    harness.worker(slots=8)
    return harness


def half_failed(h: Harness) -> str:
    """ok -> child; bad -> below -> lowest: one branch completed, the other failed at its top."""
    run_id = h.submit(job("ok"), job("child", "ok"), job("bad"), job("below", "bad"), job("lowest", "below", "child"))
    for name in ("ok", "child"):
        h.end(run_id, name)
    h.end(run_id, "bad", 1)
    assert h.run(run_id)["state"] == RunState.FAILED
    return run_id


def test_what_failed_or_was_cancelled_opens_again_and_what_completed_stays(h: Harness) -> None:
    run_id = half_failed(h)
    kept = dict(h.job(run_id, "ok"))
    h.wait(1_000)
    answer = h.accept(h.retry(run_id)).answer
    assert answer == {"run_id": run_id, "generation": 2, "jobs": 3}
    assert h.states(run_id) == {
        "ok": JobState.COMPLETED, "child": JobState.COMPLETED, "bad": JobState.ASSIGNED,
        "below": JobState.BLOCKED, "lowest": JobState.BLOCKED,
    }  # fmt: skip
    assert h.job(run_id, "ok") == kept
    run = h.run(run_id)
    assert (run["state"], run["generation"], run["ended_ms"], run["started_ms"]) == (RunState.QUEUED, 2, None, None)
    assert (run["jobs_completed"], run["jobs_failed"], run["jobs_cancelled"]) == (2, 0, 0)
    for name in ("bad", "below", "lowest"):
        assert h.job(run_id, name)["generation"] == 2
        h.end(run_id, name)
    run = h.run(run_id)
    assert (run["state"], run["jobs_completed"], run["jobs_total"]) == (RunState.COMPLETED, 5, 5)


def test_a_job_starts_its_generation_with_a_clean_slate_and_goes_on_counting_attempts(h: Harness) -> None:
    run_id = h.submit(job("j", retries=1))
    h.end(run_id, "j", 1)
    h.wait(1_000)
    h.start(run_id, "j")
    h.end(run_id, "j", 2)
    h.accept(h.retry(run_id))
    row = h.job(run_id, "j")
    assert (row["attempt"], row["failures"], row["losses"], row["exit_code"]) == (3, 0, 0, None)
    assert (row["started_ms"], row["ended_ms"], row["reason"]) == (None, None, "")
    assert h.attempt(run_id, "j")["generation"] == 2
    h.end(run_id, "j", 1, jitter=0.5)
    assert h.state(run_id, "j") == JobState.DELAYED


def test_a_delay_is_waited_for_again_in_a_new_generation(h: Harness) -> None:
    run_id = h.submit(job("j", delay_ms=500))
    h.wait(500)
    h.end(run_id, "j", 1)
    h.accept(h.retry(run_id))
    assert h.state(run_id, "j") == JobState.DELAYED
    h.wait(500)
    assert h.state(run_id, "j") == JobState.ASSIGNED


def test_named_jobs_run_again_with_all_that_follows_them(h: Harness) -> None:
    run_id = h.submit(job("a"), job("b", "a"), job("c", "b"), job("x"))
    for name in "abcx":
        h.end(run_id, name)
    assert h.accept(h.retry(run_id, "b")).answer["jobs"] == 2
    assert h.states(run_id) == {
        "a": JobState.COMPLETED, "b": JobState.ASSIGNED, "c": JobState.BLOCKED, "x": JobState.COMPLETED
    }  # fmt: skip
    assert h.run(run_id)["jobs_completed"] == 2


def test_dead_and_cancelled_jobs_open_again(h: Harness) -> None:
    run_id = h.submit(job("a"), job("b"))
    h.accept(CancelJob(run_id, "a"))
    h.give_back(run_id, "a")
    for _ in range(3):
        h.start(run_id, "b")
        _, incarnation, _ = h.holder(run_id, "b")
        h.worker(slots=8, incarnation=f"{incarnation}+", predecessor=incarnation)
    assert h.states(run_id) == {"a": JobState.CANCELLED, "b": JobState.DEAD}
    h.accept(h.retry(run_id))
    assert set(h.states(run_id).values()) == {JobState.ASSIGNED}
    assert h.run(run_id)["jobs_dead"] == h.run(run_id)["jobs_cancelled"] == 0


def test_a_generation_after_a_generation(h: Harness) -> None:
    run_id = h.submit(job("j"))
    for generation in range(2, 6):
        h.end(run_id, "j", 1)
        assert h.accept(h.retry(run_id)).answer["generation"] == generation
    h.end(run_id, "j")
    assert h.run(run_id)["generation"] == 5


def test_the_pin_of_a_job_whose_parents_stay_is_that_of_the_last_of_them(h: Harness) -> None:
    h.worker("far", 1, ("FAR",))
    jobs = [job("p"), job("q", requirement=("FAR",)), job("j", "q", "p", affinity=True)]
    run_id = h.submit(*jobs)
    h.end(run_id, "q")
    h.wait(5)
    h.end(run_id, "p")
    h.end(run_id, "j", 1)
    h.accept(h.retry(run_id))
    assert h.job(run_id, "j")["affinity_worker"] == "w"


def test_a_run_that_lives_is_not_retried(h: Harness) -> None:
    run_id = h.submit(job("a"), job("b"))
    h.end(run_id, "a", 1)
    refusal = h.refused(h.retry(run_id))
    assert (refusal.code, run_id in refusal.message) == ("conflict", True)


def test_a_retry_read_before_the_end_was_committed_is_refused_and_breaks_nothing(h: Harness) -> None:
    # The caller saw the run RUNNING; by now it has ended here, and its rows say otherwise.
    run_id = h.submit(job("j"))
    h.start(run_id, "j")
    early = h.retry(run_id, "j")
    h.end(run_id, "j", 1)
    assert h.refused(early).code == "conflict"
    assert h.accept(h.retry(run_id)).answer["generation"] == 2


def test_a_run_that_completed_needs_names(h: Harness) -> None:
    run_id = h.submit(job("j"))
    h.end(run_id, "j")
    refusal = h.refused(h.retry(run_id))
    assert (refusal.code, "name the jobs" in refusal.message) == ("conflict", True)


def test_an_unknown_name_is_refused_by_name(h: Harness) -> None:
    run_id = h.submit(job("j"))
    h.end(run_id, "j", 1)
    refusal = h.refused(h.retry(run_id, "j", "ghost"))
    assert (refusal.code, "ghost" in refusal.message) == ("not_found", True)


def test_a_job_behind_one_that_stays_failed_is_refused(h: Harness) -> None:
    run_id = half_failed(h)
    refusal = h.refused(h.retry(run_id, "below"))
    assert refusal.code == "conflict"
    assert "below waits for bad, which is FAILED" in refusal.message
    assert h.run(run_id)["generation"] == 1


def test_nothing_is_opened_below_a_run_that_is_being_cancelled(h: Harness) -> None:
    root = h.submit(job("r"))
    child = h.submit(job("c"), parent=(root, "r"))
    h.end(child, "c", 1)
    h.accept(CancelRun(root))
    refusal = h.refused(h.retry(child))
    assert (refusal.code, root in refusal.message) == ("conflict", True)


def test_every_guard_names_the_generation_it_believes_in(h: Harness) -> None:
    run_id = half_failed(h)
    opened = h.accept(h.retry(run_id))
    later = h.end(run_id, "bad")
    believed = [
        {
            change.expect["generation"]
            for change in decision.changes
            if isinstance(change, Update) and change.table != "attempts"
        }
        for decision in (opened, later)
    ]
    assert believed == [{1, 2}, {2}]  # what opens it finds the old one, what follows the new


def test_of_two_retries_at_once_the_second_finds_the_run_living(h: Harness) -> None:
    run_id = half_failed(h)
    first, second = h.retry(run_id), h.retry(run_id)
    h.accept(first)
    assert h.refused(second).code == "conflict"
    assert h.run(run_id)["generation"] == 2


def test_two_retries_of_the_same_rows_cannot_both_be_kept(h: Harness) -> None:
    run_id = half_failed(h)
    stale = h.retry(run_id)
    h.accept(h.retry(run_id))
    for name in ("bad", "below", "lowest"):
        h.end(run_id, name)
    with pytest.raises(AssertionError, match="is COMPLETED, not FAILED"):
        h.tell(stale)


def test_stragglers_of_the_old_generation_change_nothing(h: Harness) -> None:
    run_id = h.submit(job("j"), job("k"))
    stale = h.holder(run_id, "j")
    h.start(run_id, "j")
    h.worker(slots=8, incarnation="2", predecessor="1")  # the old process died with both
    h.accept(CancelRun(run_id))
    for name in "jk":
        h.give_back(run_id, name)
    h.accept(h.retry(run_id))
    before = dict(h.job(run_id, "j"))
    name, incarnation, fence = stale
    for event in (
        AttemptStarted(name, incarnation, fence),
        AttemptReturned(name, incarnation, fence, ""),
        AttemptEnded(name, incarnation, Ended(fence, 0), 0.0),
    ):
        assert not h.tell(event).changes
    assert h.job(run_id, "j") == before


def test_a_new_generation_survives_a_crash(h: Harness) -> None:
    run_id = half_failed(h)
    h.accept(h.retry(run_id))
    h.crash()
    assert h.run(run_id)["generation"] == 2
    assert h.reason(run_id, "lowest") == reasons.WAIT_PARENTS
    h.worker(slots=8, incarnation="2")
    for name in ("bad", "below", "lowest"):
        h.end(run_id, name)
    assert h.run(run_id)["state"] == RunState.COMPLETED


def test_slices_left_over_from_the_old_generation_touch_nothing_of_the_new(h: Harness) -> None:
    # The last parent fails, its children are cancelled in slices; a retry comes right behind them.
    children = [job(f"c{number}", "p") for number in range(900)]
    run_id = h.submit(job("p"), *children)
    name, incarnation, fence = h.holder(run_id, "p")
    h.tell(AttemptEnded(name, incarnation, Ended(fence, 1), 0.0), settle=False)
    early = h.tell(h.retry(run_id), settle=False).refusal
    assert early is not None
    assert early.code == "conflict"
    h.settle()
    h.accept(h.retry(run_id))
    states = h.states(run_id)
    assert states.pop("p") == JobState.ASSIGNED
    assert set(states.values()) == {JobState.BLOCKED}


def test_a_retry_read_before_the_last_one_is_noticed_in_the_batch_of_a_cancel_too(h: Harness) -> None:
    run_id = h.submit(job("j", delay_ms=60_000))
    h.accept(CancelRun(run_id))
    late = h.retry(run_id)
    h.accept(h.retry(run_id))
    cancel = h.scheduler.handle(CancelRun(run_id), h.now)
    again = h.scheduler.handle(late, h.now)
    with pytest.raises(ValueError, match="generation is 2 by now, not 1"):
        fold([*cancel.changes, *again.changes])
