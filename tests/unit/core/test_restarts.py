"""A process started anew under a name: what it knows of the one before it, and what only a lease can tell."""

import pytest

from tests.unit.core.harness import Harness, job
from titan.core import reasons
from titan.core.events import AttemptEnded, CancelRun, WorkerDisconnected, WorkerRenewed
from titan.model.states import JobState
from titan.model.wire import CAUSE_LOST, Ack, Ended, Held, Stop, Welcome

LEASE_MS = 60_000
GRACE_MS = 5_000


@pytest.fixture
def h() -> Harness:
    """A harness with one worker of two slots."""
    harness = Harness()
    harness.worker(slots=2)
    return harness


def welcome(h: Harness) -> Welcome:
    return h.messages(Welcome)[-1]


def test_a_process_started_anew_that_has_the_record_has_lost_what_it_does_not_name(h: Harness) -> None:
    run_id = h.submit(job("run"), job("sent"))
    h.start(run_id, "run")
    old = [h.job(run_id, name)["fence"] for name in ("run", "sent")]
    h.worker(slots=2, incarnation="2", predecessor="1")
    assert [h.store.tables["attempts"][fence,]["state"] for fence in old] == ["LOST", "RETURNED"]
    assert (h.job(run_id, "run")["losses"], h.job(run_id, "sent")["losses"]) == (1, 0)
    assert h.state(run_id, "run") == JobState.ASSIGNED  # at once, for the old process was swept
    assert h.holder(run_id, "run")[1] == "2"


def test_a_worker_of_the_same_name_and_boot_from_another_home_takes_no_living_jobs(h: Harness) -> None:
    run_id = h.submit(job("a", lease_s=30), job("b"))
    h.start(run_id, "a")
    fences = [h.job(run_id, name)["fence"] for name in "ab"]
    h.wait(20_000)
    h.tell(WorkerRenewed("w", "1"))
    for _ in range(3):
        h.worker(slots=2, incarnation="other home")
        assert h.states(run_id) == {"a": JobState.RUNNING, "b": JobState.ASSIGNED}
        h.worker(slots=2, held=[Held(fences[0], True), Held(fences[1], False)])
        assert welcome(h).stop == ()
    assert [h.job(run_id, name)["fence"] for name in "ab"] == fences
    assert len(h.grants) == 2


def test_the_lease_of_a_process_that_another_took_the_name_of_counts_from_its_last_renewal(h: Harness) -> None:
    run_id = h.submit(job("j"))
    h.start(run_id, "j")
    for _ in range(9):
        h.wait(20_000)
        h.tell(WorkerRenewed("w", "1"))
    fence = h.job(run_id, "j")["fence"]
    h.wait(4_000)
    h.worker(slots=2, incarnation="other home")
    h.wait(LEASE_MS + GRACE_MS - 4_000 - 1)
    assert h.holder(run_id, "j") == ("w", "1", fence)
    h.wait(1)
    assert h.holder(run_id, "j")[1] == "other home"


def test_a_process_started_anew_adopts_what_its_predecessor_had_begun_and_reports_its_end(h: Harness) -> None:
    run_id = h.submit(job("run"), job("begun"), job("ahead"))
    h.start(run_id, "run")
    fences = {name: h.job(run_id, name)["fence"] for name in ("run", "begun")}
    held = [Held(fences["run"], True), Held(fences["begun"], True)]
    h.worker(slots=2, incarnation="2", boot_id="later", predecessor="1", held=held)
    assert welcome(h).stop == ()
    for name, fence in fences.items():
        assert h.state(run_id, name) == JobState.RUNNING
        assert h.holder(run_id, name) == ("w", "2", fence)
        assert h.attempt(run_id, name)["boot_id"] == "later"
    assert len(h.grants) == 2  # they hold the slots until their ends are told
    assert not h.tell(AttemptEnded("w", "1", Ended(fences["run"], 1), 0.0)).changes  # the old process has no say
    h.end(run_id, "run")
    h.end(run_id, "begun", 3)
    assert h.states(run_id) == {
        "run": JobState.COMPLETED, "begun": JobState.FAILED, "ahead": JobState.ASSIGNED
    }  # fmt: skip


def test_an_adopted_attempt_is_renewed_by_the_process_that_adopted_it(h: Harness) -> None:
    run_id = h.submit(job("j"))
    h.start(run_id, "j")
    h.worker(slots=2, incarnation="2", predecessor="1", held=[Held(h.job(run_id, "j")["fence"], True)])
    h.wait(40_000)
    h.tell(WorkerRenewed("w", "2"))
    h.wait(LEASE_MS + GRACE_MS - 1)
    assert h.state(run_id, "j") == JobState.RUNNING
    h.wait(1)
    assert h.job(run_id, "j")["losses"] == 1


def test_what_the_predecessor_never_began_goes_back_even_when_a_loss_would_fail_it(h: Harness) -> None:
    run_id = h.submit(job("sent", on_lost="fail"), job("run", on_lost="fail"))
    h.start(run_id, "run")
    h.worker(slots=2, incarnation="2", predecessor="1")
    assert (h.state(run_id, "sent"), h.job(run_id, "sent")["attempt"]) == (JobState.ASSIGNED, 1)
    assert h.holder(run_id, "sent")[1] == "2"
    assert (h.state(run_id, "run"), h.job(run_id, "run")["reason"]) == (JobState.FAILED, reasons.END_LOST)


@pytest.mark.parametrize(
    ("predecessor", "boot_id", "known"),
    [("0", "boot", False), ("", "boot", False), ("1", "other", False), ("1", "boot", True)],
)
def test_only_of_the_predecessor_on_this_boot_is_it_known_what_became_of_what_is_not_named(
    h: Harness, predecessor: str, boot_id: str, known: bool
) -> None:
    run_id = h.submit(job("sent", on_lost="fail"), job("run", on_lost="fail"))
    h.start(run_id, "run")
    old = h.job(run_id, "sent")["fence"]
    h.worker(slots=2, incarnation="2", boot_id=boot_id, predecessor=predecessor)
    assert h.state(run_id, "run") == (JobState.FAILED if known else JobState.RUNNING)
    assert (h.job(run_id, "sent")["fence"] > old) == known
    h.wait(LEASE_MS + GRACE_MS)
    assert h.state(run_id, "run") == JobState.FAILED


def test_of_a_process_that_was_killed_before_its_welcome_it_is_known_that_it_began_nothing(h: Harness) -> None:
    run_id = h.submit(job("run", on_lost="fail"), job("sent", on_lost="fail"))
    h.start(run_id, "run")
    held = [Held(h.job(run_id, "run")["fence"], True)]
    for incarnation in ("2", "3", "4"):
        h.worker(slots=2, incarnation=incarnation, predecessor="1", held=held)
        assert [h.holder(run_id, name)[1] for name in ("run", "sent")] == [incarnation, incarnation]
    assert (h.state(run_id, "run"), h.state(run_id, "sent")) == (JobState.RUNNING, JobState.ASSIGNED)
    assert h.job(run_id, "sent")["attempt"] == 1


def test_of_a_process_that_heard_its_welcome_its_predecessor_tells_nothing(h: Harness) -> None:
    run_id = h.submit(job("j"))
    h.worker(slots=2, incarnation="2", predecessor="1")
    assert h.holder(run_id, "j")[1] == "2"
    h.tell(WorkerRenewed("w", "2"))
    h.worker(slots=2, incarnation="3", predecessor="1")  # a copy of the record, say
    assert h.holder(run_id, "j")[1] == "2"


def test_after_a_load_the_same_is_known_of_the_predecessor_and_nothing_of_others() -> None:
    for predecessor in ("1", "0"):
        h = Harness()
        h.worker(slots=2)
        run_id = h.submit(job("run"), job("sent"))
        h.start(run_id, "run")
        h.crash()
        h.worker(slots=2, incarnation="2", predecessor=predecessor)
        for name in ("run", "sent"):
            assert h.holder(run_id, name)[1] == ("2" if predecessor == "1" else "1")


def test_a_load_finds_the_attempts_of_two_processes_of_one_name(h: Harness) -> None:
    run_id = h.submit(job("a"))
    h.worker(slots=2, incarnation="other home")
    h.submit(job("b"), run_id="b" * 32)
    h.crash()
    assert [worker["running"] for worker in h.scheduler.worker_list()] == [1]
    h.wait(10_000)
    h.worker(slots=2, incarnation="other home", held=[Held(h.job("b" * 32, "b")["fence"], False)])
    assert (h.holder(run_id, "a")[1], h.holder("b" * 32, "b")[1]) == ("1", "other home")
    h.worker(slots=2, held=[Held(h.job(run_id, "a")["fence"], False)])
    assert (h.holder(run_id, "a")[1], h.holder("b" * 32, "b")[1]) == ("1", "other home")
    for _ in range(2):
        h.wait(30_000)
        h.tell(WorkerRenewed("w", "1"))
    assert h.holder(run_id, "a")[1] == "1"
    h.wait(GRACE_MS)
    assert h.holder("b" * 32, "b")[1] == "1"


def test_an_adopted_job_that_is_cancelled_is_over_with_its_end(h: Harness) -> None:
    run_id = h.submit(job("j"))
    h.start(run_id, "j")
    h.tell(WorkerDisconnected("w", "1"))
    h.accept(CancelRun(run_id))
    h.sent.clear()
    h.worker(incarnation="2", predecessor="1", held=[Held(h.job(run_id, "j")["fence"], True)])
    assert [type(message) for _, message in h.sent] == [Welcome, Stop]
    h.end(run_id, "j")
    assert h.state(run_id, "j") == JobState.CANCELLED


@pytest.mark.parametrize(
    ("on_lost", "state", "losses"), [("retry", JobState.ASSIGNED, 1), ("fail", JobState.FAILED, 0)]
)
def test_an_attempt_found_dead_is_lost_with_what_its_log_had(
    h: Harness, on_lost: str, state: JobState, losses: int
) -> None:
    run_id = h.submit(job("j", on_lost=on_lost))
    fence = h.job(run_id, "j")["fence"]
    h.worker(incarnation="2", predecessor="1", held=[Held(fence, True)])
    h.tell(AttemptEnded("w", "2", Ended(fence, 1, cause=CAUSE_LOST, log_bytes=9), 0.0))
    row = h.store.tables["attempts"][fence,]
    assert (row["state"], row["cause"], row["log_bytes"], row["exit_code"]) == ("LOST", CAUSE_LOST, 9, None)
    assert (h.state(run_id, "j"), h.job(run_id, "j")["losses"]) == (state, losses)
    assert h.messages(Ack)[-1] == Ack(ended=(fence,))


@pytest.mark.parametrize("boot_id", ["boot", "other"])
def test_what_a_process_without_the_record_does_not_name_keeps_its_lease(h: Harness, boot_id: str) -> None:
    # It may as well be another machine or another home; only time tells that the first one is gone.
    run_id = h.submit(job("j"))
    h.start(run_id, "j")
    fence = h.job(run_id, "j")["fence"]
    h.worker(slots=2, incarnation="2", boot_id=boot_id)
    assert (h.state(run_id, "j"), h.scheduler.holds(fence)) == (JobState.RUNNING, True)
    assert h.scheduler.stats()["slots_free"] == 2
    assert h.reason(run_id, "j") == reasons.WAIT_LEASE
    h.wait(LEASE_MS + GRACE_MS - 1)
    assert h.scheduler.holds(fence)
    h.wait(1)
    assert not h.scheduler.holds(fence)
    assert h.holder(run_id, "j")[1] == "2"
