"""A crash at every point: what is loaded is what was there, and the story goes on as if nothing had happened."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.core.harness import Harness, job
from titan.core import reasons
from titan.core.events import (
    AttemptEnded,
    CancelJob,
    CancelRun,
    Continue,
    ExtendRun,
    FlipRun,
    NewRun,
    PrepareStop,
    StageJobs,
    StageRun,
    WorkerConnected,
    WorkerRenewed,
)
from titan.core.memory import ATTEMPT_COLUMNS, JOB_COLUMNS, RUN_COLUMNS
from titan.core.scheduler import EXTEND_MS_MAX, Scheduler
from titan.model.states import FINAL_JOB_STATES, JobState, RunState
from titan.model.wire import Ended, Held

WORKERS = {"home": ("GENERAL",), "gpu": ("GENERAL", "GPU")}
MAIN, CHILD, OTHER = "1".zfill(32), "2".zfill(32), "3".zfill(32)


def connect(h: Harness) -> None:
    """Have both workers say hello with all that they hold."""
    for name, tags in WORKERS.items():
        held = [
            Held(row["fence"], row["state"] == "RUNNING")
            for row in h.store.tables["attempts"].values()
            if row["worker"] == name and row["ended_ms"] is None
        ]
        h.worker(name, 20, tags, held)


Step = Callable[[Harness], Any]
STORY: list[Step] = [
    connect,
    lambda h: h.submit(
        job("a"), job("b", "a", delay_ms=300), job("c", "a", affinity=True), job("d", "b", "c"),
        job("late", delay_ms=900), job("rare", requirement=("RARE",)), job("risky", retries=2, retry_backoff_s=4),
        job("gpu", requirement=("GPU",), on_lost="fail"), job("behind", "gpu"), job("odd"),
    ),
    lambda h: h.start(MAIN, "a"),
    lambda h: h.submit(job("x"), job("y", "x"), parent=(MAIN, "a")),
    lambda h: h.end(MAIN, "a"),
    lambda h: h.end(MAIN, "risky", 3, jitter=0.5),
    lambda h: h.give_back(MAIN, "odd", "no memory"),
    lambda h: h.wait(300),
    lambda h: h.start(MAIN, "c"),
    lambda h: h.accept(CancelJob(MAIN, "c")),
    lambda h: h.accept(h.extend(MAIN, job("more", "a", "late"), job("least", "more"))),
    lambda h: h.wait(600),
    lambda h: h.end(MAIN, "late"),
    lambda h: h.end(MAIN, "c", 143, "cancelled", 15),
    lambda h: h.start(CHILD, "x"),
    lambda h: h.end(CHILD, "x", 1),
    lambda h: h.accept(h.retry(CHILD)),
    lambda h: h.wait(1_100),
    lambda h: h.start(MAIN, "risky"),
    lambda h: h.end(MAIN, "gpu"),
    lambda h: h.submit(job("p"), job("q", "p"), job("r", delay_ms=60_000)),
    lambda h: h.accept(CancelRun(OTHER)),
    lambda h: h.end(OTHER, "p"),
    lambda h: h.end(CHILD, "x"),
    lambda h: h.end(CHILD, "y"),
    lambda h: [h.end(MAIN, name) for name in ("b", "more", "least", "risky", "behind", "odd")],
    lambda h: h.worker("rare", 1, ("RARE",)),
    lambda h: h.end(MAIN, "rare"),
]  # fmt: skip


def persisted(scheduler: Scheduler) -> dict[str, Any]:
    """What memory holds, without what only this process knows (clocks, order of turns, notes)."""
    memory = scheduler.memory
    runs = {
        run.run_id: (
            RUN_COLUMNS.of(run),
            run.saved_state, run.saved_generation, sorted(run.living),
            {state: count for state, count in run.states.items() if count and state not in FINAL_JOB_STATES},
        )
        for run in memory.runs.values()
    }  # fmt: skip
    jobs = {
        (run.run_id, each.job_id): (
            JOB_COLUMNS.of(each),
            each.waiting_for, bool(each.queue_seq), each.tags, each.retries, each.delay_ms, each.lease_s, each.on_lost,
            sorted(child.job_id for child in each.children or () if child.state not in FINAL_JOB_STATES),
        )
        for run in memory.runs.values() for each in run.jobs.values()
    }  # fmt: skip
    attempts = {fence: ATTEMPT_COLUMNS.of(attempt) for fence, attempt in memory.attempts.items()}
    return {
        "runs": runs, "jobs": jobs, "attempts": attempts, "lineage": memory.child_runs, "held": memory.fences_of,
        "queues": scheduler.stats()["queues"],
    }  # fmt: skip


def outcome(h: Harness) -> dict[str, Any]:
    """How everything ended, without the numbers that tell one life of the Master from the next."""
    tables = h.store.tables
    return {
        "runs": {key: {**row, "ended_ms": 0} for key, row in tables["runs"].items()},
        "jobs": {
            key: {column: row[column] for column in ("state", "reason", "attempt", "failures", "losses", "generation",
                                                      "exit_code", "started_ms", "ended_ms", "affinity_worker")}
            for key, row in tables["jobs"].items()
        },
        "attempts": [(row["job_id"], row["state"], row["worker"], row["cause"]) for row in tables["attempts"].values()],
    }  # fmt: skip


def told(until: int, crash_after: int) -> Harness:
    h = Harness()
    for number, step in enumerate(STORY[:until]):
        step(h)
        if number == crash_after:
            before, stats = persisted(h.scheduler), h.scheduler.stats()
            h.crash()
            assert persisted(h.scheduler) == before
            connect(h)
            assert persisted(h.scheduler) == before
            after = h.scheduler.stats()
            if number < len(STORY) - 2:  # the worker that comes last does not come back in this story
                assert after == stats
    return h


def test_the_story_is_about_every_state() -> None:
    seen: set[str] = set()
    for until in range(len(STORY) + 1):
        seen |= {row["state"] for row in told(until, -1).store.tables["jobs"].values()}
    assert seen == set(JobState) - {JobState.WAITING, JobState.DEAD}


@pytest.mark.parametrize("crash_after", range(len(STORY)))
def test_f1_a_crash_after_any_step_changes_nothing_that_follows(crash_after: int) -> None:
    h, undisturbed = told(len(STORY), crash_after), told(len(STORY), -1)
    assert outcome(h) == outcome(undisturbed)
    assert {row["state"] for row in h.store.tables["runs"].values()} <= {"COMPLETED", "CANCELLED"}
    assert not h.scheduler.memory.runs


def test_crash_upon_crash_upon_crash() -> None:
    h = Harness()
    for number, step in enumerate(STORY):
        step(h)
        h.crash()
        h.crash()
        if number < len(STORY) - 2:
            connect(h)
        else:
            h.worker("rare", 1, ("RARE",), [Held(row["fence"], False) for row in h.store.tables["attempts"].values()
                                            if row["worker"] == "rare" and row["ended_ms"] is None])  # fmt: skip
    assert outcome(h) == outcome(told(len(STORY), -1))


def test_fences_rise_over_every_start() -> None:
    h = Harness()
    connect(h)
    fences = []
    for _ in range(4):
        run_id = h.submit(job("j"))
        fences.append(h.job(run_id, "j")["fence"])
        h.crash()
        connect(h)
    assert fences == sorted(set(fences))
    assert [fence >> 32 for fence in fences] == [1, 2, 3, 4]


# In the middle of slices


def large_flip(h: Harness) -> None:
    h.accept(StageRun(NewRun(MAIN, "large", MAIN, MAIN), 1_200))
    h.accept(StageJobs(MAIN, tuple(job(f"j{number}") for number in range(1_200))))
    h.tell(FlipRun(MAIN), settle=False)


def fan_out(exit_code: int) -> Step:
    def end(h: Harness) -> None:
        h.worker()
        h.submit(job("p"), *(job(f"c{number}", "p") for number in range(999)), run_id=MAIN)
        name, incarnation, fence = h.holder(MAIN, "p")
        h.tell(AttemptEnded(name, incarnation, Ended(fence, exit_code), 0.0), settle=False)

    return end


def large_cancel(h: Harness) -> None:
    h.submit(*(job(f"j{number}") for number in range(1_000)), run_id=MAIN)
    h.tell(CancelRun(MAIN), settle=False)


@pytest.mark.parametrize(
    ("scene", "ends"),
    [
        (large_flip, {"QUEUED": 1_200}),
        (fan_out(0), {"COMPLETED": 1, "QUEUED": 999}),
        (fan_out(1), {"FAILED": 1, "CANCELLED": 999}),
        (large_cancel, {"CANCELLED": 1_000}),
    ],
    ids=["flip", "release", "cascade", "cancel"],
)
@pytest.mark.parametrize("slices", range(4))
@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_f3_a_crash_between_slices_loses_no_job_and_starts_none_early(
    scene: Step, ends: dict[str, int], slices: int, again: bool
) -> None:
    h = Harness()
    scene(h)
    for _ in range(slices):
        h.tell(Continue(), settle=False)
    h.worker("w", 0)
    h.crash(settle=False)
    if again:
        h.tell(Continue(), settle=False)
        h.crash(settle=False)
    h.settle()
    states = list(h.states(MAIN).values())
    held = sum(1 for state in states if state == JobState.ASSIGNED)
    counts = {state: states.count(JobState(state)) for state in ends}
    assert counts | {"QUEUED": counts.get("QUEUED", 0) + held} == {"QUEUED": 0} | ends
    assert not h.scheduler.memory.slices


def test_events_between_the_slices_of_a_load_find_a_whole_world() -> None:
    h = Harness()
    h.worker("w", 3)
    h.submit(*(job(f"j{number}") for number in range(900)), job("last", "j0"), run_id=MAIN)
    held = [Held(row["fence"], True) for row in h.store.tables["attempts"].values()]
    h.crash(settle=False)
    assert h.decision.more
    h.tell(AttemptEnded("w", "1", Ended(held[0].fence, 0), 0.0), settle=False)
    h.tell(CancelJob(MAIN, "j899"), settle=False)
    h.tell(ExtendRun(MAIN, (job("new", "j898"),), {}), settle=False)
    h.worker("w", 3, held=held)
    assert (h.state(MAIN, "j899"), h.state(MAIN, "j0")) == (JobState.CANCELLED, JobState.COMPLETED)
    assert h.state(MAIN, "last") in (JobState.QUEUED, JobState.ASSIGNED)
    assert h.scheduler.stats()["queues"]["GENERAL"] + 3 == 899


def test_what_stands_behind_a_failure_is_not_started_by_its_other_parents_while_a_load_goes_on() -> None:
    h = Harness()
    h.worker("w", 9)
    children = [job(f"c{number}", "bad") for number in range(2_000)]
    h.submit(job("bad"), job("good"), *children, job("both", "bad", "good"), run_id=MAIN)
    name, incarnation, fence = h.holder(MAIN, "bad")
    h.tell(AttemptEnded(name, incarnation, Ended(fence, 1), 0.0), settle=False)
    h.crash(settle=False)
    h.tell(
        WorkerConnected("w", "1", "boot", ("GENERAL",), 9, (Held(h.job(MAIN, "good")["fence"], True),)), settle=False
    )
    h.tell(AttemptEnded("w", "1", Ended(h.job(MAIN, "good")["fence"], 0), 0.0), settle=False)
    assert (h.state(MAIN, "good"), h.state(MAIN, "both")) == (JobState.COMPLETED, JobState.BLOCKED)
    h.settle()
    assert h.state(MAIN, "both") == JobState.CANCELLED
    assert "both" not in [grant.job_id for grant in h.grants]


def test_a_load_tells_nobody_anything_before_its_workers_are_back() -> None:
    h = told(9, -1)
    h.sent.clear()
    h.crash()
    assert not h.sent
    assert not h.tell(WorkerRenewed("home", "1")).changes


def test_after_a_crash_the_children_of_what_failed_say_why() -> None:
    for command, reason in (("fail", reasons.END_PARENT_FAILED), ("cancel", reasons.END_PARENT_CANCELLED)):
        h = Harness()
        h.worker()
        h.submit(job("p"), *(job(f"c{number}", "p") for number in range(900)), run_id=MAIN)
        if command == "cancel":
            h.accept(CancelJob(MAIN, "p"))
        name, incarnation, fence = h.holder(MAIN, "p")
        h.tell(AttemptEnded(name, incarnation, Ended(fence, 1), 0.0), settle=False)
        h.crash()
        assert {h.job(MAIN, f"c{number}")["reason"] for number in range(900)} == {reason}
        assert h.run(MAIN)["state"] == (RunState.FAILED if command == "fail" else RunState.CANCELLED)


def test_a_worker_that_comes_back_late_after_an_orderly_stop_keeps_its_jobs() -> None:
    h = Harness()
    h.worker()
    run_id = h.submit(job("j", on_lost="fail"))
    h.start(run_id, "j")
    h.tell(PrepareStop(900_000))
    h.crash()
    h.wait(100_000)
    h.worker(held=[Held(h.job(run_id, "j")["fence"], started=True)])
    assert h.state(run_id, "j") == JobState.RUNNING


def set_back(h: Harness) -> None:
    """The wall clock goes back by an hour, and the Master is started anew."""
    h.now = h.now._replace(wall_ms=h.now.wall_ms - 3_600_000)
    h.crash()


def test_after_a_start_with_the_wall_clock_set_back_nothing_waits_longer_than_it_ever_had_to() -> None:
    h = Harness()
    h.worker(slots=3)
    run_id = h.submit(job("delayed", delay_ms=2_000), job("failing", retries=3, retry_backoff_s=4), job("postponed"))
    h.start(run_id, "failing")
    h.end(run_id, "failing", 1, jitter=0.5)
    h.give_back(run_id, "postponed", "no folder")
    assert set(h.states(run_id).values()) == {JobState.DELAYED}
    set_back(h)
    due_ms = {}
    for _ in range(4_000):
        h.wait(1)
        for job_id, state in h.states(run_id).items():
            if state != JobState.DELAYED:
                due_ms.setdefault(job_id, h.now.mono_ms - 1_000_000)
    assert due_ms == {"delayed": 2_000, "failing": 4_000, "postponed": 1_000}


def test_a_wall_clock_set_back_prolongs_no_lease_beyond_what_an_orderly_stop_may_promise() -> None:
    h = Harness()
    h.worker()
    run_id = h.submit(job("j"))
    h.start(run_id, "j")
    h.tell(PrepareStop(24 * 3_600_000))
    set_back(h)
    h.wait(EXTEND_MS_MAX + 4_999)
    assert h.state(run_id, "j") == JobState.RUNNING
    h.wait(1)
    assert h.state(run_id, "j") == JobState.QUEUED
