"""Runs below runs: who submitted them, who lives on, and what a parent's end means for them."""

import pytest

from tests.unit.core.harness import Harness, job
from titan.core.events import CancelJob, CancelRun, NewRun, Now, SubmitRun
from titan.model.states import JobState, RunState


def working() -> Harness:
    h = Harness()
    h.worker(slots=9)
    return h


def test_a_child_run_knows_its_parent_its_root_and_its_agent_run() -> None:
    h = working()
    root = h.submit(job("r"))
    new = NewRun("c" * 32, "child", "my agent", root, root, "r")
    h.accept(SubmitRun(new, (job("c"),)))
    row = h.run("c" * 32)
    assert (row["root_run_id"], row["parent_run_id"], row["parent_job_id"]) == (root, root, "r")
    assert row["agent_run_id"] == "my agent"
    assert h.grants[-1].agent_run_id == "my agent"


def test_nobody_waits_for_a_child_unless_asked() -> None:
    h = working()
    root = h.submit(job("r"))
    child = h.submit(job("c"), parent=(root, "r"))
    h.end(root, "r")
    assert h.run(root)["state"] == RunState.COMPLETED
    assert h.state(child, "c") == JobState.ASSIGNED
    h.end(child, "c")
    assert h.run(child)["state"] == RunState.COMPLETED


def test_a_failed_child_does_not_fail_its_parent() -> None:
    h = working()
    root = h.submit(job("r"))
    child = h.submit(job("c"), parent=(root, "r"))
    h.end(child, "c", 1)
    h.end(root, "r")
    assert (h.run(child)["state"], h.run(root)["state"]) == (RunState.FAILED, RunState.COMPLETED)


def test_a_child_of_an_ended_run_is_accepted() -> None:
    # The submission was on its way when the job ended.
    h = working()
    root = h.submit(job("r"))
    h.end(root, "r")
    child = h.submit(job("c"), parent=(root, "r"))
    assert h.state(child, "c") == JobState.ASSIGNED


def test_a_job_that_is_being_cancelled_starts_nothing_new_and_its_siblings_do() -> None:
    h = working()
    root = h.submit(job("r"), job("s"))
    h.start(root, "r")
    h.accept(CancelJob(root, "r"))
    late = NewRun("c" * 32, "late", root, root, root, "r")
    assert h.refused(SubmitRun(late, (job("c"),))).code == "conflict"
    assert h.submit(job("c"), parent=(root, "s"))
    h.accept(CancelRun(root))
    sibling = NewRun("d" * 32, "late", root, root, root, "s")
    refusal = h.refused(SubmitRun(sibling, (job("c"),)))
    assert (refusal.code, root in refusal.message) == ("conflict", True)


def test_a_cancelled_job_leaves_its_child_runs_alone() -> None:
    # Only the cancel of a run reaches below it.
    h = working()
    root = h.submit(job("r"))
    child = h.submit(job("c"), parent=(root, "r"))
    h.accept(CancelJob(root, "r"))
    assert not h.run(child)["cancel_requested"]


def test_children_of_a_former_generation_are_left_alone_until_somebody_cancels() -> None:
    h = working()
    root = h.submit(job("r"))
    old = h.submit(job("c"), parent=(root, "r"))
    h.end(root, "r", 1)
    h.accept(h.retry(root))
    assert not h.run(old)["cancel_requested"]
    new = h.submit(job("c"), parent=(root, "r"))
    h.accept(CancelRun(root))
    assert [h.run(run_id)["cancel_requested"] for run_id in (root, old, new)] == [True, True, True]


def test_a_load_knows_the_lineage_again() -> None:
    h = working()
    root = h.submit(job("r"))
    child = h.submit(job("c"), parent=(root, "r"))
    deep = h.submit(job("d"), parent=(child, "c"))
    before = {run_id: dict(below) for run_id, below in h.scheduler.memory.child_runs.items()}
    h.crash()
    assert h.scheduler.memory.child_runs == before
    h.accept(CancelRun(root))
    assert h.run(deep)["cancel_requested"]


def test_nothing_is_kept_of_runs_that_are_over() -> None:
    h = working()
    root = h.submit(job("r"))
    children = [h.submit(job("c"), parent=(root, "r")) for _ in range(3)]
    h.end(root, "r")
    for child in children:
        h.end(child, "c")
    memory = h.scheduler.memory
    for held in (memory.runs, memory.child_runs, memory.attempts, memory.fences_of, memory.slices):
        assert not held


@pytest.mark.parametrize("parent_runs", [True, False])
def test_a_run_that_ends_keeps_which_attempt_of_its_parent_ran_then_whatever_the_clocks_say(parent_runs: bool) -> None:
    h = working()
    root = h.submit(job("r", retries=1))
    if parent_runs:
        h.start(root, "r")
    child = h.submit(job("c"), parent=(root, "r"))
    h.now = Now(h.now.mono_ms, 1)
    h.end(child, "c", 1)
    fence = h.holder(root, "r")[2]
    assert h.run(child)["parent_fence"] == (fence if parent_runs else 0)
    h.accept(h.retry(child))
    assert h.run(child)["parent_fence"] == 0
    h.end(root, "r", 1)  # it waits for its second attempt, or has one that has not started
    h.end(child, "c", 1)
    assert h.run(child)["parent_fence"] == 0
    h.start(root, "r")
    h.accept(h.retry(child))
    h.end(child, "c", 1)
    assert h.run(child)["parent_fence"] == h.holder(root, "r")[2] > fence


def test_the_end_of_a_run_without_a_parent_or_after_it_names_no_attempt() -> None:
    h = working()
    root = h.submit(job("r"))
    child = h.submit(job("c"), parent=(root, "r"))
    h.end(root, "r")
    h.end(child, "c")
    assert [h.run(each)["parent_fence"] for each in (root, child)] == [0, 0]
