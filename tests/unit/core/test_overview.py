"""What a person looks at first: the longest queues with why they wait, and what runs."""

from collections.abc import Iterator
from typing import Any

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


class Counted(dict[Any, Any]):
    """A dict that counts what is looked at, one by one or walked along."""

    looks = 0

    def __getitem__(self, key: Any) -> Any:
        self.looks += 1
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Any]:
        for key in super().__iter__():
            self.looks += 1
            yield key

    def items(self) -> Any:
        return ((key, self[key]) for key in self)

    def values(self) -> Any:
        return (self[key] for key in self)


def test_a_look_visits_a_bounded_number_of_queues_and_runs_however_many_there_are() -> None:
    h = Harness()
    many = 3 * overview.COUNTED_MAX
    h.submit(*[job(f"j{n}", requirement=(f"T{n}",)) for n in range(many)], job("second", requirement=("T7",)))
    for _ in range(100):
        h.submit(job("a", requirement=("T9",)))
    dispatcher, memory = h.scheduler.dispatcher, h.scheduler.memory
    dispatcher.queues, memory.runs = Counted(dispatcher.queues), Counted(memory.runs)
    assert len(dispatcher.queues) == many
    stats = h.scheduler.stats()
    assert dispatcher.queues.looks == overview.COUNTED_MAX
    assert (len(stats["queues"]), stats["queues"]["T9"], stats["queues"]["T7"]) == (overview.COUNTED_MAX, 101, 2)
    assert (stats["runs_living"], stats["jobs"]) == (101, {JobState.QUEUED: many + 101})
    assert memory.runs.looks == 0
    dispatcher.queues.looks = 0
    waiting = h.scheduler.overview()["waiting"]
    assert [(each["requirement"], each["jobs"]) for each in waiting[:2]] == [(["T9"], 101), (["T7"], 2)]
    assert dispatcher.queues.looks <= 3 * overview.QUEUES_MAX
    assert memory.runs.looks <= 3 * overview.QUEUES_MAX
