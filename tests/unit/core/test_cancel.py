"""Invariant 17: a cancel is final once it is acknowledged, however large the run and whatever races with it."""

from collections.abc import Iterator

from tests.unit.core.harness import HELD, Harness, job
from titan.core import reasons
from titan.core.changes import Update
from titan.core.dispatch import GRANTS_A_SLICE
from titan.core.events import (
    AttemptEnded,
    AttemptReturned,
    CancelJob,
    CancelRun,
    Continue,
    Decision,
    FlipRun,
    NewRun,
    StageJobs,
    StageRun,
    SubmitRun,
    WorkerDisconnected,
)
from titan.core.scheduler import STEPS_AN_EVENT, TIMERS_AN_EVENT
from titan.model.states import FINAL_JOB_STATES, JobState, RunState
from titan.model.wire import CAUSE_CANCELLED, CAUSE_WORKER_STOP, Ended, Held, Stop

# Of one decision: what it cancels, releases or grants, with a few rows each.
CHANGES_MAX = 3 * (STEPS_AN_EVENT + TIMERS_AN_EVENT + GRANTS_A_SLICE)


def large(h: Harness, count: int, chunk: int = 500) -> str:
    """A run of `count` jobs, received in chunks and shown but not yet settled."""
    run_id = "f" * 32
    h.accept(StageRun(NewRun(run_id, "large", run_id, run_id), count))
    for first in range(0, count, chunk):
        h.accept(StageJobs(run_id, tuple(job(f"j{number}") for number in range(first, first + chunk))))
    decision = h.tell(FlipRun(run_id), settle=False)
    assert decision.refusal is None
    return run_id


def test_a_run_without_living_attempts_is_over_at_once() -> None:
    h = Harness()
    run_id = h.submit(job("a"), job("b", "a"), job("c", delay_ms=1_000))
    assert h.accept(CancelRun(run_id)).answer == {"cancelled": True}
    assert set(h.states(run_id).values()) == {JobState.CANCELLED}
    assert {h.job(run_id, name)["reason"] for name in "abc"} <= {
        reasons.END_CANCELLED, reasons.END_PARENT_CANCELLED
    }  # fmt: skip
    run = h.run(run_id)
    assert (run["state"], run["cancel_requested"], run["jobs_cancelled"]) == (RunState.CANCELLED, True, 3)
    h.worker(slots=9)
    h.wait(10_000)
    assert not h.grants


def test_what_runs_is_stopped_and_cancelled_whatever_it_answers() -> None:
    for exit_code, cause in ((0, ""), (1, ""), (143, CAUSE_CANCELLED), (143, CAUSE_WORKER_STOP)):
        h = Harness()
        h.worker()
        run_id = h.submit(job("j", retries=5, on_lost="fail"), job("c", "j"))
        h.start(run_id, "j")
        h.accept(CancelRun(run_id))
        assert h.messages(Stop) == [Stop(h.job(run_id, "j")["fence"])]
        assert (h.state(run_id, "j"), h.job(run_id, "j")["cancel_requested"]) == (JobState.RUNNING, True)
        assert (h.reason(run_id, "j"), h.run(run_id)["state"]) == (reasons.CANCELLING, RunState.RUNNING)
        h.end(run_id, "j", exit_code, cause)
        row = h.job(run_id, "j")
        assert (row["state"], row["reason"], row["exit_code"]) == (
            JobState.CANCELLED, reasons.END_CANCELLED, exit_code
        )  # fmt: skip
        assert h.run(run_id)["state"] == RunState.CANCELLED
        assert h.attempt(run_id, "j")["state"] == "ENDED"


def test_what_was_sent_and_not_started_is_taken_back() -> None:
    h = Harness()
    h.worker()
    run_id = h.submit(job("j"))
    h.accept(CancelRun(run_id))
    assert h.state(run_id, "j") == JobState.ASSIGNED
    h.give_back(run_id, "j")
    assert (h.state(run_id, "j"), h.job(run_id, "j")["attempt"]) == (JobState.CANCELLED, 0)
    assert h.run(run_id)["state"] == RunState.CANCELLED


def test_a_start_that_wins_the_race_is_stopped_all_the_same() -> None:
    h = Harness()
    h.worker()
    run_id = h.submit(job("j"))
    h.accept(CancelRun(run_id))
    h.start(run_id, "j")
    assert (h.state(run_id, "j"), h.job(run_id, "j")["cancel_requested"]) == (JobState.RUNNING, True)
    h.end(run_id, "j")
    assert h.state(run_id, "j") == JobState.CANCELLED


def test_the_end_of_the_lease_ends_a_cancelled_job_too() -> None:
    for started in (True, False):
        h = Harness()
        h.worker()
        run_id = h.submit(job("j", on_lost="fail"))
        if started:
            h.start(run_id, "j")
        h.accept(CancelRun(run_id))
        h.tell(WorkerDisconnected("w", "1"))
        h.wait(65_000)
        assert (h.state(run_id, "j"), h.job(run_id, "j")["reason"]) == (JobState.CANCELLED, reasons.END_CANCELLED)


def test_a_worker_that_was_away_hears_of_the_cancel_when_it_is_back() -> None:
    h = Harness()
    h.worker(slots=2)
    run_id = h.submit(job("j"), job("k"))
    h.tell(WorkerDisconnected("w", "1"))
    h.accept(CancelRun(run_id))
    h.sent.clear()
    fences = [h.job(run_id, name)["fence"] for name in "jk"]
    h.worker(slots=2, held=[Held(fences[0], True), Held(fences[1], False)])
    assert h.messages(Stop) == [Stop(fence) for fence in fences]
    assert h.state(run_id, "j") == JobState.RUNNING


def test_a_cancel_asked_twice_stops_once() -> None:
    h = Harness()
    h.worker()
    run_id = h.submit(job("j"))
    h.accept(CancelRun(run_id))
    assert h.accept(CancelRun(run_id)).answer == {"cancelled": True}
    h.accept(CancelJob(run_id, "j"))
    assert len(h.messages(Stop)) == 1


def test_what_has_ended_is_left_alone() -> None:
    h = Harness()
    h.worker()
    run_id = h.submit(job("j"))
    h.end(run_id, "j")
    for command in (CancelRun(run_id), CancelJob(run_id, "j"), CancelRun("e" * 32), CancelJob("e" * 32, "j")):
        decision = h.accept(command)
        assert (decision.answer, decision.changes) == ({"cancelled": False}, [])
    other = h.submit(job("j"))
    assert h.accept(CancelJob(other, "ghost")).answer == {"cancelled": False}
    assert not h.run(other)["cancelled_on_request"]


def test_one_job_is_cancelled_with_its_descendants_and_its_run_says_so() -> None:
    h = Harness()
    h.worker(slots=2)
    run_id = h.submit(job("a"), job("b", "a"), job("c", "b"), job("x"), job("y", "x"))
    h.accept(CancelJob(run_id, "b"))
    assert h.states(run_id) == {
        "a": JobState.ASSIGNED, "b": JobState.CANCELLED, "c": JobState.CANCELLED,
        "x": JobState.ASSIGNED, "y": JobState.BLOCKED,
    }  # fmt: skip
    assert h.job(run_id, "b")["reason"] == reasons.END_CANCELLED
    assert h.job(run_id, "c")["reason"] == reasons.END_PARENT_CANCELLED
    for name in "axy":
        h.end(run_id, name)
    assert h.run(run_id)["state"] == RunState.CANCELLED


def test_a_running_job_is_cancelled_with_its_descendants_when_it_has_ended() -> None:
    h = Harness()
    h.worker()
    run_id = h.submit(job("a"), job("b", "a"))
    h.start(run_id, "a")
    h.accept(CancelJob(run_id, "a"))
    assert (h.reason(run_id, "a"), h.state(run_id, "b")) == (reasons.CANCELLING, JobState.BLOCKED)
    h.end(run_id, "a", 0)
    assert set(h.states(run_id).values()) == {JobState.CANCELLED}
    assert h.run(run_id)["state"] == RunState.CANCELLED


def test_a_failure_says_more_of_a_run_than_a_cancel() -> None:
    h = Harness()
    h.worker()
    run_id = h.submit(job("a"), job("b"))
    h.end(run_id, "a", 1)
    h.accept(CancelRun(run_id))
    h.give_back(run_id, "b")
    assert h.run(run_id)["state"] == RunState.FAILED


def test_child_runs_are_cancelled_with_it_however_deep_and_nobody_else_is() -> None:
    h = Harness()
    h.worker(slots=9)
    root = h.submit(job("r"))
    child = h.submit(job("c"), parent=(root, "r"))
    deep = h.submit(job("d"), parent=(child, "c"))
    ended = h.submit(job("e"), parent=(root, "r"))
    h.end(ended, "e")
    stranger = h.submit(job("s"))
    h.accept(CancelRun(child))
    assert [h.run(run_id)["cancel_requested"] for run_id in (root, child, deep, ended, stranger)] == [
        False, True, True, False, False,
    ]  # fmt: skip
    h.accept(CancelRun(root))
    assert h.run(root)["cancel_requested"]
    assert not h.run(ended)["cancel_requested"]
    assert not h.run(stranger)["cancel_requested"]
    assert len(h.messages(Stop)) == 3


def test_a_child_that_was_opened_anew_is_cancelled_with_its_parent() -> None:
    h = Harness()
    h.worker(slots=9)
    root = h.submit(job("r"))
    child = h.submit(job("c"), parent=(root, "r"))
    h.end(child, "c", 1)
    h.accept(h.retry(child))
    h.accept(CancelRun(root))
    assert h.run(child)["cancel_requested"]


def test_a_cancelled_generation_does_not_cancel_the_next() -> None:
    h = Harness()
    run_id = h.submit(job("j"))
    h.accept(CancelRun(run_id))
    h.accept(h.retry(run_id))
    run = h.run(run_id)
    assert (run["cancel_requested"], run["cancelled_on_request"]) == (False, False)
    h.worker()
    h.end(run_id, "j")
    assert h.run(run_id)["state"] == RunState.COMPLETED


def slices(h: Harness) -> Iterator[Decision]:
    while h.decision.more:
        yield h.tell(Continue(), settle=False)


def test_100000_jobs_are_cancelled_in_slices_and_others_are_answered_in_between() -> None:
    h = Harness()
    run_id = large(h, 100_000, 10_000)
    h.settle()
    h.worker("other", 1, ("OTHER",))
    answer = h.tell(CancelRun(run_id), settle=False)
    assert answer.answer == {"cancelled": True}
    assert h.run(run_id)["cancel_requested"]
    assert len(answer.changes) <= CHANGES_MAX
    count = 0
    for decision in slices(h):
        assert len(decision.changes) <= CHANGES_MAX
        count += 1
        if count == 10:
            quick = NewRun("a" * 32, "quick", "a" * 32, "a" * 32)
            h.tell(SubmitRun(quick, (job("q", requirement=("OTHER",)),)), settle=False)
            assert h.state(quick.run_id, "q") == JobState.ASSIGNED
            assert h.decision.more
    assert count >= 100_000 // STEPS_AN_EVENT - 1
    run = h.run(run_id)
    assert (run["state"], run["jobs_cancelled"]) == (RunState.CANCELLED, 100_000)


def test_a_fan_out_is_cancelled_in_slices_too() -> None:
    h = Harness()
    h.worker()
    children = [job(f"c{number}", "p") for number in range(5 * STEPS_AN_EVENT)]
    run_id = h.submit(job("p"), *children, job("last", *(child.job_id for child in children)))
    name, incarnation, fence = h.holder(run_id, "p")
    first = h.tell(AttemptEnded(name, incarnation, Ended(fence, 1), 0.0), settle=False)
    assert first.more
    sizes = [len(first.changes), *(len(decision.changes) for decision in slices(h))]
    assert max(sizes) <= CHANGES_MAX
    assert len(sizes) >= 5
    assert h.run(run_id)["jobs_cancelled"] == 5 * STEPS_AN_EVENT + 1


def test_after_the_answer_nothing_of_the_run_is_granted_while_its_slices_go_on() -> None:
    h = Harness()
    h.worker("w", 2)
    busy = h.submit(job("a"), job("b"))
    run_id = large(h, 5_000)
    h.settle()
    other = h.submit(job("other"))
    h.tell(CancelRun(run_id), settle=False)
    granted = len(h.grants)
    for name in "ab":  # slots become free while thousands of its jobs still stand in the queue
        worker, incarnation, fence = h.holder(busy, name)
        h.tell(AttemptEnded(worker, incarnation, Ended(fence, 0), 0.0), settle=False)
    assert h.decision.more
    h.settle()
    assert [(grant.run_id, grant.job_id) for grant in h.grants[granted:]] == [(other, "other")]
    assert set(h.states(run_id).values()) == {JobState.CANCELLED}


def test_thousands_that_run_are_stopped_in_slices_and_cancelled_whatever_comes_first() -> None:
    count = 3 * STEPS_AN_EVENT
    h = Harness()
    h.worker("w", count)
    run_id = h.submit(*(job(f"j{number}", retries=5, on_lost="fail") for number in range(count)))
    decision = h.tell(CancelRun(run_id), settle=False)
    assert len(decision.changes) <= CHANGES_MAX
    assert len(h.messages(Stop)) == STEPS_AN_EVENT
    said = {"ended": f"j{count - 1}", "stopped": f"j{count - 2}", "back": f"j{count - 3}"}
    assert h.reason(run_id, said["ended"]) == reasons.CANCELLING
    for what, name in said.items():  # before a slice has come to them
        worker, incarnation, fence = h.holder(run_id, name)
        cause = CAUSE_WORKER_STOP if what == "stopped" else ""
        if what == "back":
            h.tell(AttemptReturned(worker, incarnation, fence, "no memory"), settle=False)
        else:
            h.tell(AttemptEnded(worker, incarnation, Ended(fence, 1, cause=cause), 0.5), settle=False)
        assert h.state(run_id, name) == JobState.CANCELLED
    h.settle()
    assert len(h.messages(Stop)) >= count - 3
    h.wait(65_000)
    assert (h.run(run_id)["state"], len(h.grants)) == (RunState.CANCELLED, count)


def test_a_run_cancelled_while_it_enters_grants_nothing_more_and_ends() -> None:
    h = Harness()
    h.worker("w", 3)
    run_id = large(h, 3_000)
    h.tell(CancelRun(run_id), settle=False)
    granted = len(h.grants)
    for fence in [row["fence"] for row in h.store.tables["attempts"].values()]:
        h.tell(AttemptReturned("w", "1", fence, ""), settle=False)
    h.settle()
    assert len(h.grants) == granted
    assert set(h.states(run_id).values()) == {JobState.CANCELLED}
    assert h.run(run_id)["state"] == RunState.CANCELLED
    assert not h.scheduler.memory.runs


def test_f2_a_master_killed_between_the_slices_of_a_cancel_goes_on_with_it() -> None:
    h = Harness()
    h.worker("w", 2)
    run_id = large(h, 3_000)
    h.settle()
    h.tell(CancelRun(run_id), settle=False)
    assert set(h.states(run_id).values()) >= {JobState.QUEUED, JobState.CANCELLED}
    h.crash(settle=False)
    granted = len(h.grants)
    h.worker("new", 5)
    assert len(h.grants) == granted
    assert set(h.states(run_id).values()) == {JobState.CANCELLED, JobState.ASSIGNED}
    h.wait(65_000)
    assert set(h.states(run_id).values()) == {JobState.CANCELLED}


def test_every_update_of_a_cancel_says_what_it_believes() -> None:
    h = Harness()
    h.worker()
    run_id = h.submit(job("a"), job("b", "a"))
    decision = h.tell(CancelRun(run_id))
    updates = [change for change in decision.changes if isinstance(change, Update)]
    assert {tuple(sorted(change.expect)) for change in updates if change.table == "jobs"} == {
        ("fence", "generation", "state")
    }
    assert all(change.expect["state"] not in FINAL_JOB_STATES for change in updates if change.table == "jobs")
    assert h.state(run_id, "a") in HELD
