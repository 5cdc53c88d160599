"""From ready to over and round again: parents, delays, retries, reasons, losses, and what is given back."""

import pytest

from tests.unit.core.harness import Harness, job
from titan.core import reasons
from titan.core.changes import Update
from titan.core.events import AttemptEnded, CancelRun, Now, Tick, WorkerDisconnected
from titan.core.scheduler import TIMERS_AN_EVENT
from titan.model.states import JobState, RunState
from titan.model.wire import (
    CAUSE_LEASE,
    CAUSE_OUT_OF_MEMORY,
    CAUSE_START_FAILED,
    CAUSE_TIMEOUT,
    CAUSE_WORKER_STOP,
    Ack,
    Ended,
)


def working(slots: int = 4) -> Harness:
    h = Harness()
    h.worker(slots=slots)
    return h


def test_a_job_goes_from_queued_to_completed_and_its_row_tells_when() -> None:
    h = working()
    run_id = h.submit(job("j"))
    assert h.job(run_id, "j")["ready_ms"] == h.now.wall_ms
    assert (h.state(run_id, "j"), h.run(run_id)["state"]) == (JobState.ASSIGNED, RunState.QUEUED)
    h.wait(10)
    h.start(run_id, "j")
    assert (h.state(run_id, "j"), h.run(run_id)["state"]) == (JobState.RUNNING, RunState.RUNNING)
    assert h.job(run_id, "j")["started_ms"] == h.run(run_id)["started_ms"] == h.now.wall_ms
    h.wait(10)
    h.end(run_id, "j")
    row, run, attempt = h.job(run_id, "j"), h.run(run_id), h.attempt(run_id, "j")
    assert (row["state"], row["exit_code"], row["reason"], row["ended_ms"]) == ("COMPLETED", 0, "", h.now.wall_ms)
    assert (run["state"], run["jobs_completed"], run["ended_ms"]) == ("COMPLETED", 1, h.now.wall_ms)
    assert (attempt["state"], attempt["exit_code"], attempt["log_bytes"]) == ("ENDED", 0, 7)
    assert not h.scheduler.memory.runs


def test_an_end_that_overtakes_its_start_is_a_start_too() -> None:
    h = working()
    run_id = h.submit(job("j"))
    h.end(run_id, "j", 1)
    assert h.job(run_id, "j")["started_ms"] == h.attempt(run_id, "j")["started_ms"] == h.now.wall_ms
    assert (h.state(run_id, "j"), h.run(run_id)["state"]) == (JobState.FAILED, RunState.FAILED)


def test_a_child_waits_for_all_of_its_parents() -> None:
    h = working()
    run_id = h.submit(job("a"), job("b"), job("c", "a", "b"), job("d", "c"))
    h.end(run_id, "a")
    assert h.state(run_id, "c") == JobState.BLOCKED
    h.end(run_id, "b")
    assert h.state(run_id, "c") == JobState.ASSIGNED
    assert h.state(run_id, "d") == JobState.BLOCKED


def test_a_failure_cancels_its_descendants_only() -> None:
    h = working()
    run_id = h.submit(job("a"), job("b", "a"), job("c", "b"), job("x"), job("y", "x"), job("z", "y", "c"))
    h.end(run_id, "a", 1)
    assert {name: state for name, state in h.states(run_id).items() if state == "CANCELLED"}.keys() == {"b", "c", "z"}
    assert {h.job(run_id, name)["reason"] for name in "bcz"} == {reasons.END_PARENT_FAILED}
    h.end(run_id, "x")
    h.end(run_id, "y")
    run = h.run(run_id)
    assert (run["state"], run["jobs_completed"], run["jobs_failed"], run["jobs_cancelled"]) == ("FAILED", 2, 1, 3)


def test_a_delay_counts_from_submission_or_from_the_end_of_the_parents() -> None:
    h = working()
    run_id = h.submit(job("p"), job("c", "p", delay_ms=2_000), job("d", delay_ms=500))
    h.wait(499)
    assert h.state(run_id, "d") == JobState.DELAYED
    h.wait(1)
    assert h.state(run_id, "d") == JobState.ASSIGNED
    h.wait(9_500)
    assert h.state(run_id, "c") == JobState.BLOCKED
    h.end(run_id, "p")
    assert (h.state(run_id, "c"), h.job(run_id, "c")["due_ms"]) == (JobState.DELAYED, h.now.wall_ms + 2_000)
    assert h.job(run_id, "c")["reason"] == reasons.WAIT_DELAY
    h.wait(1_999)
    assert h.state(run_id, "c") == JobState.DELAYED
    h.wait(1)
    assert (h.state(run_id, "c"), h.job(run_id, "c")["due_ms"]) == (JobState.ASSIGNED, None)


def test_a_delay_is_waited_for_once_and_not_before_every_try() -> None:
    h = working()
    run_id = h.submit(job("p"), job("j", "p", delay_ms=60_000, retries=2, retry_backoff_s=0))
    h.end(run_id, "p")
    h.wait(60_000)
    h.end(run_id, "j", 1)
    h.wait(0)
    assert (h.state(run_id, "j"), h.job(run_id, "j")["attempt"]) == (JobState.ASSIGNED, 2)
    h.give_back(run_id, "j")
    assert h.state(run_id, "j") == JobState.ASSIGNED
    h.end(run_id, "j", 143, CAUSE_WORKER_STOP)
    assert h.state(run_id, "j") == JobState.ASSIGNED


def test_a_job_is_tried_as_often_as_it_may_be_and_then_failed() -> None:
    h = working()
    run_id = h.submit(job("j", retries=2))
    for failures in (1, 2):
        h.end(run_id, "j", 9, jitter=0.5)
        row = h.job(run_id, "j")
        assert (row["state"], row["failures"], row["exit_code"]) == (JobState.DELAYED, failures, 9)
        assert row["reason"] == reasons.WAIT_BACKOFF
        h.wait(1_000)
        assert (h.state(run_id, "j"), h.job(run_id, "j")["attempt"]) == (JobState.ASSIGNED, failures + 1)
    h.end(run_id, "j", 9)
    row = h.job(run_id, "j")
    assert (row["state"], row["failures"], row["exit_code"], row["attempt"]) == (JobState.FAILED, 2, 9, 3)
    assert row["reason"] == reasons.END_EXIT_CODE


def test_a_retry_that_works_makes_the_job_completed() -> None:
    h = working()
    run_id = h.submit(job("j", retries=1), job("c", "j"))
    h.end(run_id, "j", 1)
    h.wait(1_000)
    h.end(run_id, "j")
    assert (h.state(run_id, "j"), h.state(run_id, "c")) == (JobState.COMPLETED, JobState.ASSIGNED)


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("backoff_s", [0.0, 1.0, 7.5, 300.0])
def test_the_backoff_window_doubles_up_to_300_s_and_jitter_places_the_try_in_it(
    jitter: float, backoff_s: float
) -> None:
    h = working()
    run_id = h.submit(job("j", retries=12, retry_backoff_s=backoff_s))
    for failures in range(1, 13):
        decision = h.end(run_id, "j", 1, jitter=jitter)
        window_ms = min(300_000, backoff_s * 1_000 * 2 ** (failures - 1))
        [delay_ms] = [
            change.values["due_ms"] - h.now.wall_ms
            for change in decision.changes
            if isinstance(change, Update) and change.values["state"] == JobState.DELAYED
        ]
        assert delay_ms == int(window_ms * jitter)
        assert delay_ms <= 300_000
        if delay_ms:
            h.wait(delay_ms - 1)
            assert h.state(run_id, "j") == JobState.DELAYED
            h.wait(1)
        assert h.state(run_id, "j") == JobState.ASSIGNED


@pytest.mark.parametrize(
    ("exit_code", "cause", "signal", "reason"),
    [
        (3, "", 0, reasons.END_EXIT_CODE),
        (139, "", 11, reasons.END_SIGNAL),
        (137, CAUSE_OUT_OF_MEMORY, 9, reasons.END_OUT_OF_MEMORY),
        (143, CAUSE_TIMEOUT, 15, reasons.END_TIMEOUT),
        (0, CAUSE_TIMEOUT, 0, reasons.END_TIMEOUT),
        (127, CAUSE_START_FAILED, 0, reasons.END_START_FAILED),
    ],
)
def test_why_a_job_failed_is_told_and_each_of_it_can_be_retried(
    exit_code: int, cause: str, signal: int, reason: str
) -> None:
    h = working()
    run_id = h.submit(job("j"), job("again", retries=1))
    h.end(run_id, "j", exit_code, cause, signal)
    row, attempt = h.job(run_id, "j"), h.attempt(run_id, "j")
    assert (row["state"], row["reason"], row["exit_code"]) == (JobState.FAILED, reason, exit_code)
    assert (attempt["state"], attempt["cause"], attempt["signal"]) == ("ENDED", cause, signal)
    h.end(run_id, "again", exit_code, cause, signal, jitter=0.5)
    assert h.state(run_id, "again") == JobState.DELAYED


def lose(h: Harness, run_id: str, started: bool = True) -> None:
    """Have the worker that holds j die with it, and another take its place."""
    if started:
        h.start(run_id, "j")
    name, incarnation, _ = h.holder(run_id, "j")
    h.tell(WorkerDisconnected(name, incarnation))
    h.wait(65_000)
    h.worker(incarnation=str(int(incarnation) + 1), boot_id=f"boot{incarnation}")


def test_being_lost_with_a_worker_is_no_failure() -> None:
    h = working(1)
    run_id = h.submit(job("j", retries=0))
    lose(h, run_id)
    row = h.job(run_id, "j")
    assert (row["state"], row["attempt"], row["failures"], row["losses"]) == (JobState.ASSIGNED, 2, 0, 1)
    assert [attempt["state"] for attempt in h.store.tables["attempts"].values()] == ["LOST", "ASSIGNED"]
    h.end(run_id, "j")
    assert h.state(run_id, "j") == JobState.COMPLETED


def test_what_on_lost_forbids_to_guess_has_failed() -> None:
    for started in (True, False):
        h = working(1)
        run_id = h.submit(job("j", on_lost="fail", retries=5), job("c", "j"))
        lose(h, run_id, started)
        assert (h.state(run_id, "j"), h.job(run_id, "j")["reason"]) == (JobState.FAILED, reasons.END_LOST)
        assert h.state(run_id, "c") == JobState.CANCELLED
        assert h.run(run_id)["state"] == RunState.FAILED
        assert len(h.grants) == 1


def test_f52_a_job_that_took_three_workers_down_is_dead() -> None:
    h = working(1)
    run_id = h.submit(job("j", retries=9), job("c", "j"))
    for losses in (1, 2):
        lose(h, run_id)
        assert (h.state(run_id, "j"), h.job(run_id, "j")["losses"]) == (JobState.ASSIGNED, losses)
    lose(h, run_id)
    row = h.job(run_id, "j")
    assert (row["state"], row["losses"], row["reason"]) == (JobState.DEAD, 3, reasons.END_WORKER_DEATHS)
    assert (h.state(run_id, "c"), h.job(run_id, "c")["reason"]) == (JobState.CANCELLED, reasons.END_PARENT_FAILED)
    assert (h.run(run_id)["state"], h.run(run_id)["jobs_dead"]) == (RunState.FAILED, 1)


def test_losses_before_the_start_and_orderly_stops_never_count() -> None:
    h = working(1)
    run_id = h.submit(job("j"))
    for _ in range(4):
        lose(h, run_id, started=False)
    for cause in (CAUSE_WORKER_STOP, CAUSE_LEASE) * 3:
        h.start(run_id, "j")
        h.end(run_id, "j", 143, cause, 15)
        attempts = list(h.store.tables["attempts"].values())
        assert (attempts[-2]["state"], attempts[-2]["cause"], attempts[-2]["exit_code"]) == ("LOST", cause, 143)
        assert attempts[-2]["log_bytes"] == 7
    row = h.job(run_id, "j")
    assert (row["state"], row["losses"], row["failures"]) == (JobState.ASSIGNED, 0, 0)


@pytest.mark.parametrize(
    ("cause", "reason"), [(CAUSE_WORKER_STOP, reasons.END_WORKER_STOP), (CAUSE_LEASE, reasons.END_LOST)]
)
def test_an_orderly_stop_leaves_it_to_on_lost(cause: str, reason: str) -> None:
    h = working(1)
    run_id = h.submit(job("j", on_lost="fail"))
    h.end(run_id, "j", 143, cause, 15)
    assert (h.state(run_id, "j"), h.job(run_id, "j")["reason"]) == (JobState.FAILED, reason)
    again = h.submit(job("j"))
    decision = h.end(again, "j", 143, cause, 15)
    [moved] = [change for change in decision.changes if isinstance(change, Update) and change.table == "jobs"][1:2]
    assert (moved.values["state"], moved.values["reason"]) == (JobState.QUEUED, reason)


def test_what_is_given_back_gives_its_attempt_number_back() -> None:
    h = working(1)
    run_id = h.submit(job("j"))
    h.give_back(run_id, "j")
    row = h.job(run_id, "j")
    assert (row["state"], row["attempt"], row["failures"], row["losses"]) == (JobState.ASSIGNED, 1, 0, 0)
    first, second = h.store.tables["attempts"].values()
    assert (first["state"], second["state"]) == ("RETURNED", "ASSIGNED")
    assert first["fence"] < second["fence"]


def test_a_start_that_the_machine_refused_is_put_off_for_a_second_and_counts_for_nothing() -> None:
    h = working(1)
    run_id = h.submit(job("j"))
    h.give_back(run_id, "j", "no space left on device")
    row = h.job(run_id, "j")
    assert (row["state"], row["reason"], row["attempt"]) == (JobState.DELAYED, reasons.WAIT_POSTPONED, 0)
    assert next(iter(h.store.tables["attempts"].values()))["cause"] == "no space left on device"
    h.wait(999)
    assert h.state(run_id, "j") == JobState.DELAYED
    h.wait(1)
    row = h.job(run_id, "j")
    assert (row["state"], row["attempt"], row["failures"], row["reason"]) == (JobState.ASSIGNED, 1, 0, "")


def test_started_jobs_cannot_be_given_back() -> None:
    h = working(1)
    run_id = h.submit(job("j"))
    h.start(run_id, "j")
    assert not h.give_back(run_id, "j").changes
    assert h.state(run_id, "j") == JobState.RUNNING


def test_every_report_counts_once() -> None:
    h = working(1)
    run_id = h.submit(job("j", retries=1), job("c", "j"))
    name, incarnation, fence = h.holder(run_id, "j")
    h.start(run_id, "j")
    assert not h.start(run_id, "j").changes
    ended = AttemptEnded(name, incarnation, Ended(fence, 1), 0.5)
    assert h.tell(ended).changes
    again = h.tell(ended)
    assert not again.changes
    assert [send.message for send in again.sends] == [Ack(ended=(fence,))]
    assert h.job(run_id, "j")["failures"] == 1


def test_a_timer_that_no_longer_matters_does_nothing() -> None:
    h = working(1)
    run_id = h.submit(job("j", delay_ms=5_000), job("k", delay_ms=1_000, retries=1, retry_backoff_s=10))
    h.wait(1_000)
    h.end(run_id, "k", 1, jitter=0.9)
    assert h.state(run_id, "k") == JobState.DELAYED
    h.wait(4_000)
    assert h.state(run_id, "j") == JobState.ASSIGNED
    h.end(run_id, "j")
    assert not h.tell(Tick()).changes
    assert h.state(run_id, "k") == JobState.DELAYED


def test_many_timers_due_at_once_are_worked_off_in_slices() -> None:
    h = Harness()
    run_id = h.submit(*(job(f"j{number}", delay_ms=1_000) for number in range(2 * TIMERS_AN_EVENT + 50)))
    h.now = Now(h.now.mono_ms + 1_000, h.now.wall_ms + 1_000)
    for ready in (TIMERS_AN_EVENT, 2 * TIMERS_AN_EVENT):
        decision = h.tell(Tick())
        assert list(h.states(run_id).values()).count(JobState.QUEUED) == ready
        assert decision.wake_ms == h.now.mono_ms
    assert h.tell(Tick()).wake_ms is None
    assert set(h.states(run_id).values()) == {JobState.QUEUED}


def test_timers_of_jobs_that_are_over_are_not_kept_until_they_are_due() -> None:
    h = working(1)
    for _ in range(40):
        run_id = h.submit(*(job(f"j{number}", delay_ms=86_400_000) for number in range(500)))
        h.accept(CancelRun(run_id))
        assert len(h.scheduler.memory.timers) <= 10_001
    last = h.submit(job("j", delay_ms=1_000))
    h.wait(1_000)
    assert h.state(last, "j") == JobState.ASSIGNED
