"""Who is next: priorities, turns of runs, the ageing bound, and a queue that forgets who has left.

Invariant 19: a ready job with n older ones in its queue is dispatched within 16 * (n + 1) dispatches.
"""

from collections import Counter
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.unit.core.harness import Harness, job
from titan.core import queues
from titan.core.memory import Job
from titan.core.queues import Lengths, QueueKey, ReadyQueue

PERIOD = 16  # the agreed figure: every 16th dispatch takes the oldest


def a_queue() -> ReadyQueue:
    return ReadyQueue(QueueKey(frozenset(), ""), Lengths())


class Maker:
    """Ready jobs as the scheduler would make them."""

    def __init__(self) -> None:
        harness = Harness()
        self.lifecycle = harness.scheduler.lifecycle
        self.run = harness.scheduler.memory.runs[harness.submit(job("any"))]
        self.seq = 0

    def add(self, queue: ReadyQueue, run_id: str, priority: int = 1) -> Job:
        self.seq += 1
        made = self.lifecycle.new_job(self.run, job(f"j{self.seq}", priority=priority), self.seq)
        made.run_id = run_id
        queue.add(made, self.seq)
        return made


@dataclass
class Naive:
    """The same queue as a list: every step looks at everything."""

    jobs: list[Job] = field(default_factory=list)
    turns: dict[int, list[str]] = field(default_factory=dict)
    taken: int = 0

    def add(self, added: Job) -> None:
        self.jobs.append(added)
        turns = self.turns.setdefault(added.priority, [])
        if added.run_id not in turns:
            turns.append(added.run_id)

    def of(self, priority: int, run_id: str) -> list[Job]:
        return [each for each in self.jobs if (each.priority, each.run_id) == (priority, run_id)]

    def head(self) -> int:
        for priority in sorted(self.turns, reverse=True):
            turns = self.turns[priority]
            while turns and not self.of(priority, turns[0]):
                turns.pop(0)
            if turns:
                return priority
            del self.turns[priority]
        raise IndexError

    def take(self) -> Job:
        self.taken += 1
        if self.taken % PERIOD == 0:
            return self.jobs.pop(0)
        priority = self.head()
        turns = self.turns[priority]
        turns.append(turns.pop(0))
        taken = self.of(priority, turns[-1])[0]
        self.jobs.remove(taken)
        return taken


def places(queue: ReadyQueue) -> int:
    """How many places the queue remembers, living or stale, and how many turns."""
    levels = queue._levels.values()
    held = sum(len(held) for level in levels for held in level.by_run.values())
    return len(queue._oldest) + held + sum(len(level.turns) for level in levels)


OPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("ABC"), st.integers(0, 3)),
        st.tuples(st.just("take"), st.just(""), st.just(0)),
        st.tuples(st.just("remove"), st.just(""), st.integers(0, 1_000)),
        st.tuples(st.just("head"), st.just(""), st.just(0)),
    ),
    max_size=120,
)


@settings(max_examples=150)
@given(OPS)
def test_it_does_what_a_list_would(ops: list[tuple[str, str, int]]) -> None:
    maker, queue, naive = Maker(), a_queue(), Naive()
    for kind, run_id, number in ops:
        if kind == "add":
            naive.add(maker.add(queue, run_id, number))
        elif naive.jobs and kind == "take":
            assert queue.take() is naive.take()
        elif naive.jobs and kind == "remove":
            leaver = naive.jobs.pop(number % len(naive.jobs))
            queue.remove(leaver)
            assert leaver.queue_seq == 0
        elif naive.jobs:
            assert queue.head_priority() == naive.head()
        assert queue.count == len(naive.jobs)
        if naive.jobs:
            assert queue.oldest() is naive.jobs[0]
            ahead = sum(1 for each in naive.jobs if each.priority > naive.jobs[-1].priority)
            assert queue.ahead_of(naive.jobs[-1]) == ahead


@settings(max_examples=60)
@given(OPS)
def test_a_sweep_changes_nothing_that_anybody_sees(ops: list[tuple[str, str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queues, "_STALE_MIN", 0)
        maker, queue, naive = Maker(), a_queue(), Naive()
        for kind, run_id, number in [op for op in ops if op[0] == "add"]:
            assert kind == "add"
            naive.add(maker.add(queue, run_id, number))
        for _, _, number in [op for op in ops if op[0] == "remove"]:
            if naive.jobs:
                queue.remove(naive.jobs.pop(number % len(naive.jobs)))
        while naive.jobs:
            assert queue.take() is naive.take()
        assert queue.count == 0


def test_after_a_sweep_the_turns_go_on_where_they_were() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queues, "_STALE_MIN", 0)
        maker, queue, naive = Maker(), a_queue(), Naive()
        for number in range(120):
            naive.add(maker.add(queue, "BDAC"[number % 4]))
        for _ in range(5):
            assert queue.take() is naive.take()
        while len(naive.jobs) > 20:
            queue.remove(naive.jobs.pop())
        order = [queue.take() for _ in range(20)]
        assert order == [naive.take() for _ in range(20)]
        assert [each.run_id for each in order[:4]] == ["D", "A", "C", "B"]


def test_an_empty_queue_has_no_next() -> None:
    queue = a_queue()
    for ask in (queue.take, queue.head_priority, queue.oldest):
        with pytest.raises(IndexError):
            ask()


def test_10000_jobs_of_three_runs_take_turns_and_the_urgent_go_first() -> None:
    maker, queue = Maker(), a_queue()
    counts = {"A": 9_000, "B": 700, "C": 290}
    waiting = [maker.add(queue, run_id) for run_id, count in counts.items() for _ in range(count)]
    urgent = [maker.add(queue, "C", priority=500) for _ in range(10)]
    assert queue.count == 10_000
    order = [queue.take() for _ in range(10_000)]
    assert {id(each) for each in order} == {id(each) for each in [*waiting, *urgent]}

    by_turn = [each for number, each in enumerate(order, 1) if number % PERIOD]
    by_age = [each for number, each in enumerate(order, 1) if not number % PERIOD]
    assert by_turn[:10] == urgent
    shares = Counter(each.run_id for each in by_turn[10:310])
    assert shares == {"A": 100, "B": 100, "C": 100}
    # The run of 290 is done after three turns each, long before the run of 9,000, which came first.
    last = {run_id: max(place for place, each in enumerate(order) if each.run_id == run_id) for run_id in counts}
    assert last["C"] <= 3 * 290 * PERIOD / (PERIOD - 1) + PERIOD
    assert last["B"] < 3_000
    assert last["A"] == 9_999
    assert [each.ordinal for each in by_age] == sorted(each.ordinal for each in by_age)
    for run_id in counts:
        inside = [each.ordinal for each in by_turn[10:] if each.run_id == run_id]
        assert inside == sorted(inside)


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(0, 40))
def test_i19_no_stream_of_urgent_jobs_holds_a_job_up_beyond_the_stated_bound(old: int, before: int) -> None:
    maker, queue = Maker(), a_queue()
    for _ in range(before):
        maker.add(queue, "U", priority=9)
        queue.take()
    patient = [maker.add(queue, "P", priority=0) for _ in range(old)]
    dispatched: dict[int, int] = {}
    for number in range(1, PERIOD * old + 1):
        maker.add(queue, "U", priority=9)
        dispatched[id(queue.take())] = number
    for older, each in enumerate(patient):
        assert dispatched[id(each)] <= PERIOD * (older + 1)


def test_a_queue_is_as_large_as_what_waits_in_it() -> None:
    maker, queue = Maker(), a_queue()
    floor = queues._STALE_MIN
    patient = [maker.add(queue, f"P{number}", priority=0) for number in range(400)]
    for number in range(6_000):  # new runs come and go past those that wait
        maker.add(queue, f"U{number}", priority=9)
        queue.take()
        assert places(queue) <= 6 * queue.count + 3 * floor + 10
    for each in patient:
        if each.queue_seq:
            queue.remove(each)
    while queue.count:
        queue.take()
    for number in range(6_000):  # cancelled before their turn
        queue.remove(maker.add(queue, f"V{number}", priority=number % 3))
        assert places(queue) <= 3 * floor + 10


def test_a_job_of_one_run_is_taken_out_of_its_turn_the_highest_priority_first() -> None:
    make, queue = Maker(), a_queue()
    left, low, high = (make.add(queue, "mine", priority) for priority in (1, 1, 2))
    other = make.add(queue, "other", 3)
    queue.remove(left)
    assert [queue.take_of("mine") for _ in range(3)] == [high, low, None]
    assert queue.count == 1
    assert queue.take() is other
