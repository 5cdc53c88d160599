"""A large run is received in chunks that nobody sees, and shown by one flip; what broke off leaves nothing."""

from tests.unit.core.harness import Harness, job
from titan.core.changes import Insert, Update
from titan.core.events import (
    CancelJob,
    CancelRun,
    Decision,
    DropStage,
    FlipRun,
    NewRun,
    StageJobs,
    StageRun,
)
from titan.core.scheduler import STEPS_AN_EVENT
from titan.model.spec import JobSpec
from titan.model.states import JobState, RunState

RUN = "5" * 32
NEW = NewRun(RUN, "large", RUN, RUN)


def staged(h: Harness, *chunks: tuple[JobSpec, ...], new: NewRun = NEW, total: int | None = None) -> None:
    h.accept(StageRun(new, sum(map(len, chunks)) if total is None else total))
    for chunk in chunks:
        h.accept(StageJobs(new.run_id, chunk))


def diamond() -> tuple[tuple[JobSpec, ...], ...]:
    """Children before their parents, over three chunks."""
    return (job("d", "b", "c"), job("b", "a")), (job("c", "a"),), (job("a"), job("free", delay_ms=50))


def test_nobody_sees_a_staged_run() -> None:
    h = Harness()
    h.worker(slots=9)
    staged(h, *diamond())
    assert h.run(RUN)["state"] == RunState.STAGED
    h.wait(1_000)
    assert not h.grants
    assert h.scheduler.stats()["jobs"] == {}
    assert h.scheduler.stats()["runs_living"] == 0
    assert h.scheduler.explain(RUN, "a", h.now) is None
    assert h.accept(CancelRun(RUN)).answer == h.accept(CancelJob(RUN, "a")).answer == {"cancelled": False}
    assert h.refused(h.extend(RUN, job("x"))).code == "conflict"
    assert h.refused(h.retry(RUN)).code == "conflict"


def test_no_news_speaks_of_it_before_the_flip() -> None:
    h = Harness()
    decisions: list[Decision] = [h.accept(StageRun(NEW, 5))]
    decisions += [h.accept(StageJobs(RUN, chunk)) for chunk in diamond()]
    assert not any(decision.news for decision in decisions)
    assert {news.run_id for news in h.accept(FlipRun(RUN)).news} == {RUN}


def test_one_row_shows_it_and_its_jobs_run_in_their_order() -> None:
    h = Harness()
    h.worker(slots=9)
    staged(h, *diamond())
    flip = h.tell(FlipRun(RUN), settle=False)
    assert flip.answer == {"run_id": RUN}
    [shown] = [change for change in flip.changes if isinstance(change, Update) and change.table == "runs"]
    assert (shown.expect["state"], shown.values["state"]) == (RunState.STAGED, RunState.QUEUED)
    assert not [change for change in flip.changes if isinstance(change, Insert) and change.table == "jobs"]
    h.settle()
    assert (h.state(RUN, "a"), h.state(RUN, "d")) == (JobState.ASSIGNED, JobState.BLOCKED)
    h.wait(50)
    for name in ("a", "free", "b", "c", "d"):
        h.end(RUN, name)
    assert h.run(RUN)["state"] == RunState.COMPLETED


def test_a_wrong_count_is_refused_with_both_numbers() -> None:
    for total in (4, 6):
        h = Harness()
        staged(h, *diamond(), total=total)
        refusal = h.refused(FlipRun(RUN))
        assert (refusal.code, f"5 jobs arrived of the {total} announced" in refusal.message) == ("invalid", True)
        assert h.run(RUN)["state"] == RunState.STAGED


def test_a_dropped_run_is_forgotten_and_takes_nothing_more() -> None:
    h = Harness()
    staged(h, *diamond())
    assert h.accept(DropStage(RUN)).changes == []
    for event in (StageJobs(RUN, (job("x"),)), FlipRun(RUN)):
        assert h.refused(event).code == "unavailable"
    h.accept(DropStage(RUN))
    assert not h.scheduler.memory.staged


def test_a_load_forgets_what_was_being_received() -> None:
    h = Harness()
    h.worker()
    staged(h, *diamond())
    h.crash()
    assert h.refused(FlipRun(RUN)).code == "unavailable"
    assert (RUN,) not in h.store.tables["runs"]


def test_a_flip_while_others_are_received_touches_only_its_own() -> None:
    h = Harness()
    h.worker(slots=9)
    other = NewRun("6" * 32, "other", "6" * 32, "6" * 32)
    staged(h, *diamond())
    staged(h, (job("a"),), new=other)
    h.accept(FlipRun(other.run_id))
    assert h.run(RUN)["state"] == RunState.STAGED
    h.end(other.run_id, "a")
    assert h.run(other.run_id)["state"] == RunState.COMPLETED


def many(count: int) -> tuple[JobSpec, ...]:
    return tuple(job(f"j{number}") for number in range(count))


def test_ready_jobs_enter_in_slices_and_run_meanwhile() -> None:
    h = Harness()
    h.worker(slots=2)
    staged(h, many(3 * STEPS_AN_EVENT))
    flip = h.tell(FlipRun(RUN), settle=False)
    assert flip.more
    assert h.scheduler.stats()["queues"]["GENERAL"] == STEPS_AN_EVENT - 2
    assert len(h.grants) == 2


def test_a_run_does_not_end_before_it_has_entered() -> None:
    # What is being worked off is over before the cursor comes to its end.
    h = Harness()
    staged(h, many(STEPS_AN_EVENT + 1))
    h.tell(FlipRun(RUN), settle=False)
    h.tell(CancelRun(RUN), settle=False)
    h.settle()
    assert (h.run(RUN)["state"], h.run(RUN)["jobs_cancelled"]) == (RunState.CANCELLED, STEPS_AN_EVENT + 1)


def test_a_job_cancelled_while_the_run_enters_does_not_enter() -> None:
    h = Harness()
    staged(h, many(2 * STEPS_AN_EVENT))
    h.tell(FlipRun(RUN), settle=False)
    last = f"j{2 * STEPS_AN_EVENT - 1}"
    h.tell(CancelJob(RUN, last), settle=False)
    h.settle()
    assert h.state(RUN, last) == JobState.CANCELLED
    assert h.scheduler.stats()["queues"]["GENERAL"] == 2 * STEPS_AN_EVENT - 1


def test_a_crash_while_it_enters_loses_no_job() -> None:
    h = Harness()
    staged(h, many(2 * STEPS_AN_EVENT))
    h.tell(FlipRun(RUN), settle=False)
    h.crash()
    assert h.scheduler.stats()["queues"]["GENERAL"] == 2 * STEPS_AN_EVENT


def test_nothing_is_staged_or_shown_below_what_is_being_cancelled() -> None:
    h = Harness()
    h.worker(slots=9)
    parent = h.submit(job("p"), job("q"))
    below = NewRun(RUN, "child", parent, parent, parent, "p")
    staged(h, *diamond(), new=below)
    h.accept(CancelJob(parent, "p"))
    assert h.refused(FlipRun(RUN)).code == "conflict"
    assert h.refused(StageRun(NewRun("7" * 32, "late", parent, parent, parent, "p"), 1)).code == "conflict"
    h.accept(CancelRun(parent))
    refusal = h.refused(FlipRun(RUN))
    assert (refusal.code, parent in refusal.message) == ("conflict", True)
