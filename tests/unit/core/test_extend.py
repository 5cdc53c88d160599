"""Invariant 15: jobs are added to a live run, all or none, and an ended run never grows."""

import pytest

from tests.unit.core.harness import Harness, job
from titan.core import reasons
from titan.core.changes import Insert
from titan.core.events import (
    AttemptEnded,
    CancelJob,
    CancelRun,
    ExtendRun,
    FlipRun,
    NewRun,
    StageJobs,
    StageRun,
    SubmitRun,
)
from titan.core.rows import JobRow
from titan.core.scheduler import STEPS_AN_EVENT
from titan.model.states import JobState, RunState
from titan.model.wire import Ended


@pytest.fixture
def h() -> Harness:
    """A harness with a worker of eight slots."""
    harness = Harness()
    harness.worker(slots=8)
    return harness


def test_jobs_join_a_live_run_behind_its_living_jobs(h: Harness) -> None:
    run_id = h.submit(job("a"))
    answer = h.accept(h.extend(run_id, job("c", "b", "a"), job("b", "a"), job("free"))).answer
    assert answer == {"run_id": run_id}
    assert h.run(run_id)["jobs_total"] == 4
    assert [h.job(run_id, name)["ordinal"] for name in ("a", "c", "b", "free")] == [0, 1, 2, 3]
    assert h.states(run_id) == {
        "a": JobState.ASSIGNED, "c": JobState.BLOCKED, "b": JobState.BLOCKED, "free": JobState.ASSIGNED
    }  # fmt: skip
    for name in ("a", "free", "b", "c"):
        h.end(run_id, name)
    assert (h.run(run_id)["state"], h.run(run_id)["jobs_completed"]) == (RunState.COMPLETED, 4)


def test_finished_parents_are_parents_too(h: Harness) -> None:
    run_id = h.submit(job("done"), job("going"))
    h.end(run_id, "done")
    h.accept(h.extend(run_id, job("x", "done"), job("y", "done", "going"), job("z", "done", delay_ms=500)))
    assert (h.state(run_id, "x"), h.state(run_id, "y")) == (JobState.ASSIGNED, JobState.BLOCKED)
    assert (h.state(run_id, "z"), h.job(run_id, "z")["due_ms"]) == (JobState.DELAYED, h.now.wall_ms + 500)
    h.end(run_id, "going")
    assert h.state(run_id, "y") == JobState.ASSIGNED


def test_behind_a_failed_parent_a_job_is_cancelled_with_all_behind_it(h: Harness) -> None:
    run_id = h.submit(job("bad"), job("cut", "bad"), job("going"))
    h.end(run_id, "bad", 1)
    h.accept(h.extend(run_id, job("y", "x"), job("x", "going", "bad"), job("z", "cut"), job("ok", "going")))
    assert h.states(run_id) == {
        "bad": JobState.FAILED, "cut": JobState.CANCELLED, "going": JobState.ASSIGNED,
        "x": JobState.CANCELLED, "y": JobState.CANCELLED, "z": JobState.CANCELLED, "ok": JobState.BLOCKED,
    }  # fmt: skip
    assert {h.job(run_id, name)["reason"] for name in "xyz"} == {reasons.END_PARENT_FAILED}
    h.end(run_id, "going")
    h.end(run_id, "ok")
    run = h.run(run_id)
    assert (run["state"], run["jobs_total"], run["jobs_cancelled"]) == (RunState.FAILED, 7, 4)


def test_behind_a_cancelled_parent_the_reason_is_the_cancel(h: Harness) -> None:
    run_id = h.submit(job("a"), job("going"))
    h.accept(CancelJob(run_id, "a"))
    h.give_back(run_id, "a")
    h.accept(h.extend(run_id, job("x", "a"), job("y", "x")))
    assert {h.job(run_id, name)["reason"] for name in "xy"} == {reasons.END_PARENT_CANCELLED}


def test_a_pin_goes_to_the_worker_of_the_parent_that_finished_last(h: Harness) -> None:
    h.worker("far", 1, ("FAR",))
    run_id = h.submit(job("early", requirement=("FAR",)), job("late"), job("going"))
    h.end(run_id, "early")
    h.wait(5)
    h.end(run_id, "late")
    h.accept(h.extend(run_id, job("x", "late", "early", affinity=True), job("y", "late", "early")))
    assert (h.job(run_id, "x")["affinity_worker"], h.job(run_id, "y")["affinity_worker"]) == ("w", "")


def test_an_ended_run_takes_no_more(h: Harness) -> None:
    run_id = h.submit(job("a"))
    late = h.extend(run_id, job("x", "a"))
    h.end(run_id, "a")
    for event in (late, h.extend(run_id, job("x", "a")), h.extend("e" * 32, job("x"))):
        assert h.refused(event).code == "conflict"
    assert h.run(run_id)["jobs_total"] == 1


def test_a_run_that_is_being_cancelled_takes_no_more(h: Harness) -> None:
    run_id = h.submit(job("a"))
    h.start(run_id, "a")
    h.accept(CancelRun(run_id))
    assert h.refused(h.extend(run_id, job("x"))).code == "conflict"


def test_a_taken_id_is_refused_and_named_and_nothing_is_added(h: Harness) -> None:
    run_id = h.submit(job("a"), job("done"))
    h.end(run_id, "done")
    for taken in ("a", "done"):
        refusal = h.refused(h.extend(run_id, job("fresh"), job(taken)))
        assert (refusal.code, f"job id {taken} is taken" in refusal.message) == ("conflict", True)
    assert set(h.states(run_id)) == {"a", "done"}


def test_a_parent_that_ended_meanwhile_is_asked_for_again(h: Harness) -> None:
    run_id = h.submit(job("a"), job("b"))
    early = h.extend(run_id, job("x", "a"))
    h.end(run_id, "a")
    refusal = h.refused(early)
    assert (refusal.code, "parent a has just ended" in refusal.message) == ("unavailable", True)
    h.accept(h.extend(run_id, job("x", "a")))
    assert h.state(run_id, "x") == JobState.ASSIGNED


def test_the_last_end_and_an_extension_cannot_both_win(h: Harness) -> None:
    for extend_first in (True, False):
        run_id = h.submit(job("a"))
        extension = ExtendRun(run_id, (job("x"),), {})
        if extend_first:
            h.accept(extension)
        h.end(run_id, "a")
        if not extend_first:
            h.refused(extension)
        assert h.run(run_id)["state"] == (RunState.RUNNING if extend_first else RunState.COMPLETED)


def test_an_extension_is_linked_to_jobs_that_a_slice_has_not_reached(h: Harness) -> None:
    children = [job(f"c{number}", "p") for number in range(2 * STEPS_AN_EVENT)]
    run_id = h.submit(job("p"), *children)
    last = children[-1].job_id
    name, incarnation, fence = h.holder(run_id, "p")
    h.tell(AttemptEnded(name, incarnation, Ended(fence, 1), 0.0), settle=False)
    assert h.state(run_id, last) == JobState.BLOCKED
    finished = {"p": JobRow(**h.job(run_id, "p"))}
    h.accept(ExtendRun(run_id, (job("x", last), job("y", "p")), finished))
    assert (h.state(run_id, "x"), h.state(run_id, "y")) == (JobState.CANCELLED, JobState.CANCELLED)
    assert h.run(run_id)["state"] == RunState.FAILED


def test_a_run_can_be_extended_from_within_and_below(h: Harness) -> None:
    run_id = h.submit(job("a"))
    child = h.submit(job("c"), parent=(run_id, "a"))
    h.accept(h.extend(child, job("d", "c")))
    h.accept(h.extend(run_id, job("b", "a")))
    assert (h.run(child)["jobs_total"], h.run(run_id)["jobs_total"]) == (2, 2)


def test_what_comes_with_a_command_is_committed_with_it_and_not_without(h: Harness) -> None:
    def key(name: str) -> tuple[Insert]:
        return (
            Insert("idempotency", {"key": name, "body_hash": b"", "answer": b"", "created_ms": 1, "expires_ms": 2}),
        )

    def new(digit: str) -> NewRun:
        return NewRun(digit * 32, "r", digit * 32, digit * 32)

    blob = Insert("blobs", {"sha256": "0" * 64, "size": 1, "data": b"x", "created_ms": 1})
    h.accept(SubmitRun(new("a"), (job("a"),), (*key("submit"), blob, blob)))
    h.accept(ExtendRun("a" * 32, (job("b"),), {}, key("extend")))
    h.accept(StageRun(new("b"), 1, key("stage")))
    h.accept(StageJobs("b" * 32, (job("a"),), key("jobs")))
    h.accept(FlipRun("b" * 32, key("flip")))
    h.refused(ExtendRun("a" * 32, (job("b"),), {}, key("refused")))
    assert len(h.store.tables["blobs"]) == 1
    assert [row["key"] for row in h.store.tables["idempotency"].values()] == [
        "submit", "extend", "stage", "jobs", "flip"
    ]  # fmt: skip
