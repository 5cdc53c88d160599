"""What a person looks at first: the longest queues with why they wait, and what runs."""

from tests.unit.core.harness import Harness, job
from titan.core import overview, reasons
from titan.model.states import JobState


def test_queues_are_listed_by_length_with_why_the_oldest_of_each_waits() -> None:
    h = Harness()
    h.worker(slots=1)
    busy = h.submit(job("busy"))
    h.start(busy, "busy")
    first = h.submit(job("g1"), job("g2", requirement=("GPU",)))
    h.submit(job("more"), job("again"))
    queues = h.scheduler.overview()["waiting"]
    assert [(each["requirement"], each["jobs"], each["reason"]) for each in queues] == [
        (["GENERAL"], 3, reasons.WAIT_SLOTS),
        (["GPU"], 1, reasons.WAIT_CAPABILITY),
    ]
    assert [(each["run_id"], each["job_id"], each["pinned_to"]) for each in queues] == [
        (first, "g1", ""),
        (first, "g2", ""),
    ]
    assert queues[1]["message"] == "no connected worker offers GPU"
    assert queues[1]["remedy"]


def test_what_runs_is_told_and_what_was_only_sent_is_not() -> None:
    h = Harness()
    h.worker(slots=2)
    run_id = h.submit(job("a"), job("b"))
    h.start(run_id, "a")
    [told] = h.scheduler.overview()["running"]
    assert (told["run_id"], told["job_id"], told["attempt"]) == (run_id, "a", 1)
    assert h.state(run_id, "b") == JobState.ASSIGNED


def test_both_lists_are_bounded() -> None:
    h = Harness()
    h.worker(slots=overview.RUNNING_MAX + 1)
    many = [job(f"r{n}") for n in range(overview.RUNNING_MAX + 1)]
    run_id = h.submit(*many)
    for each in many:
        h.start(run_id, each.job_id)
    h.submit(*[job(f"q{n}", requirement=(f"T{n}",)) for n in range(overview.QUEUES_MAX + 1)])
    found = h.scheduler.overview()
    assert (len(found["waiting"]), len(found["running"])) == (overview.QUEUES_MAX, overview.RUNNING_MAX)
