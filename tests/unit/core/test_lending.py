"""Slots of jobs that wait for runs below them: lent, taken back, and never so that everybody waits."""

import random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.unit.core.harness import Harness, job
from tests.unit.core.parents import Play
from titan.core import ahead, lending, lifecycle
from titan.core.events import EndLend, LendSlot, WorkerDisconnected
from titan.core.lending import KEPT_MS
from titan.core.workers import FORGET_WORKER_MS
from titan.model.states import JobState
from titan.model.wire import Held, Lend


def lend(h: Harness, run_id: str, job_id: str, below: str, of_it: str = "") -> int:
    fence = h.holder(run_id, job_id)[2]
    h.tell(LendSlot(fence, below, of_it))
    return fence


def waiting() -> tuple[Harness, str, str, int]:
    """A worker of one slot whose job waits for a run below it, which is granted therefore."""
    h = Harness()
    h.worker()
    root = h.submit(job("r"))
    h.start(root, "r")
    child = h.submit(job("c"), parent=(root, "r"))
    assert h.state(child, "c") == JobState.QUEUED
    return h, root, child, lend(h, root, "r", child)


# Teach


def test_a_job_that_waits_for_a_run_below_lends_its_slot_and_goes_on_at_once() -> None:
    h, root, child, fence = waiting()
    assert h.messages(Lend) == [Lend(fence, on=True)]
    assert h.state(child, "c") == JobState.ASSIGNED
    h.end(child, "c")
    h.tell(EndLend(fence, child, final=True))
    assert h.messages(Lend)[1:] == [Lend(fence, on=False)]
    h.end(root, "r")
    assert h.run(root)["state"] == "COMPLETED"


def test_the_worker_gets_nothing_new_until_what_needs_a_slot_fits() -> None:
    h, root, child, fence = waiting()
    h.tell(EndLend(fence, child, final=True))  # a person cancelled that run, say
    other = h.submit(job("o"))
    assert h.state(other, "o") == JobState.QUEUED
    h.end(child, "c")
    assert h.state(other, "o") == JobState.QUEUED, "the parent needs the one slot itself"
    h.end(root, "r")
    assert h.state(other, "o") == JobState.ASSIGNED


def test_a_wait_is_kept_for_five_seconds_after_an_answer_that_was_not_final() -> None:
    h, _, child, fence = waiting()
    h.tell(EndLend(fence, child))
    h.wait(KEPT_MS - 1)
    assert len(h.messages(Lend)) == 1
    h.tell(LendSlot(fence, child))
    h.wait(10 * KEPT_MS)
    assert len(h.messages(Lend)) == 1, "asked again in time, and as long as it is asked"
    h.tell(EndLend(fence, child))
    h.wait(KEPT_MS)
    assert h.messages(Lend)[1:] == [Lend(fence, on=False)]


def test_with_several_waits_open_the_last_one_ends_it() -> None:
    h, root, child, fence = waiting()
    other = h.submit(job("c"), parent=(root, "r"))
    for target in ((other, ""), (other, "c"), (other, "c")):
        h.tell(LendSlot(fence, *target))
    h.tell(EndLend(fence, child, final=True))
    h.tell(EndLend(fence, other, "c", final=True))
    h.tell(EndLend(fence, other, ""))
    h.wait(2 * KEPT_MS)
    assert len(h.messages(Lend)) == 1
    h.tell(EndLend(fence, other, "c", final=True))
    assert [message.on for message in h.messages(Lend)] == [True, False]


def test_the_final_answer_to_a_wait_that_was_cut_before_ends_it() -> None:
    h, _, child, fence = waiting()
    h.tell(EndLend(fence, child))
    h.tell(EndLend(fence, child, final=True))
    assert [message.on for message in h.messages(Lend)] == [True, False]


def test_a_worker_that_comes_back_is_told_anew_after_its_welcome() -> None:
    h, root, _, fence = waiting()
    held = (h.holder(root, "r")[2],)
    h.sent.clear()
    h.worker(held=[Held(each, True) for each in held])
    names = [type(message).__name__ for _, message in h.sent]
    assert names[:2] == ["Welcome", "Lend"]
    assert h.messages(Lend) == [Lend(fence, on=True)]


def test_after_a_load_the_next_ask_lends_again() -> None:
    h, root, child, fence = waiting()
    h.crash()
    h.worker(held=[Held(fence, True), Held(h.holder(child, "c")[2], True)])
    assert len(h.messages(Lend)) == 1
    h.tell(EndLend(fence, child))  # of an ask before the load: nobody knows it
    h.tell(LendSlot(fence, child))
    assert h.messages(Lend)[1:] == [Lend(fence, on=True)]
    h.end(root, "r")
    assert not h.scheduler.memory.waits


def test_the_end_of_an_ask_from_before_a_load_ends_no_other_wait() -> None:
    h, root, child, fence = waiting()
    other = h.submit(job("c"), parent=(root, "r"))
    h.crash()
    h.worker(held=[Held(fence, True), Held(h.holder(child, "c")[2], True)])
    h.sent.clear()
    h.tell(LendSlot(fence, other))
    h.tell(EndLend(fence, child))
    assert h.messages(Lend) == [Lend(fence, on=True)]
    h.tell(EndLend(fence, other, final=True))
    assert h.messages(Lend) == [Lend(fence, on=True), Lend(fence, on=False)]


def test_of_two_that_wait_for_one_run_each_ends_its_own_wait() -> None:
    h = Harness()
    h.worker(slots=2)
    root = h.submit(job("r"), job("s"))
    child = h.submit(job("c"), parent=(root, "r"))
    fences = []
    for name in "rs":
        h.start(root, name)
        fences.append(lend(h, root, name, child))
    h.tell(EndLend(fences[0], child, final=True))
    assert h.messages(Lend)[2:] == [Lend(fences[0], on=False)]
    assert lending.level_of(h.scheduler.memory, child) == 1, "one still waits for it"
    h.tell(EndLend(fences[1], child, final=True))
    assert h.messages(Lend)[3:] == [Lend(fences[1], on=False)]
    assert lending.level_of(h.scheduler.memory, child) == 0


def test_a_wait_ends_with_its_attempt_when_the_worker_is_forgotten_already() -> None:
    h = Harness()
    h.worker()
    root = h.submit(job("r", lease_s=600))
    h.start(root, "r")
    child = h.submit(job("c", requirement=("NOWHERE",)), parent=(root, "r"))
    lend(h, root, "r", child)
    h.worker(incarnation="other home", slots=0)
    h.tell(WorkerDisconnected("w", "other home"))
    h.wait(FORGET_WORKER_MS)
    assert h.scheduler.worker_list() == []
    assert h.scheduler.memory.waits
    h.wait(605_000 - FORGET_WORKER_MS)
    assert h.state(root, "r") == JobState.QUEUED
    assert not h.scheduler.memory.waits | h.scheduler.memory.awaited | h.scheduler.memory.unlent


def test_explain_says_that_it_waits_for_which_run_and_lends_its_slot() -> None:
    h, root, child, fence = waiting()
    h.tell(LendSlot(fence, child, "c"))
    told = h.scheduler.explain(root, "r", h.now)
    assert told is not None
    assert told.reason == "WAITS_FOR_RUN_BELOW"
    assert f"waits for run {child[:8]}, job {child[:8]}/c; its slot is lent" in told.message
    assert told.details["slot_lent"] is True
    assert told.details["waits_for"] == [{"run_id": child, "job_id": None}, {"run_id": child, "job_id": "c"}]


@pytest.mark.parametrize("target", ["own", "over", "unknown attempt"])
def test_nothing_is_lent_for_a_run_that_is_over_or_is_its_own(target: str) -> None:
    h = Harness()
    h.worker(slots=2)
    root = h.submit(job("r"), job("s"))
    child = h.submit(job("c"), parent=(root, "r"))
    h.end(root, "s")
    h.end(child, "c")
    fence = h.holder(root, "r")[2]
    h.tell(LendSlot(fence + (target == "unknown attempt"), root if target == "own" else child))
    assert not h.messages(Lend)
    assert not h.scheduler.memory.waits


# Prove: it never ends with everybody waiting


@pytest.mark.parametrize(("slots", "parents", "levels"), [
    ((1,), 1, 2), ((1,), 1, 40), ((1,), 100, 1), ((2,), 100, 1), ((1,), 100, 2), ((2,), 100, 2), ((1,), 100, 6),
    ((32,), 100, 2), ((48,), 200, 3), ((80,), 200, 3), ((100,), 300, 2), ((1, 2), 150, 3), ((1, 40), 150, 3),
])  # fmt: skip
def test_parents_that_wait_all_finish(slots: tuple[int, ...], parents: int, levels: int) -> None:
    play = Play(*slots)
    play.submit(parents, levels)
    play.finish(random.Random(parents).shuffle)
    assert play.most <= max(slots) + lending.BEYOND_MAX[-1]


def test_a_tree_that_is_wide_at_every_level_finishes() -> None:
    play = Play(1, width=4)
    play.submit(20, 3)
    play.finish()


def test_without_the_room_for_depth_they_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rule is for: with one bound for all levels, breadth takes the room that depth needs."""
    monkeypatch.setattr(lending, "BEYOND_MAX", (63,) * 7)
    play = Play(1)
    play.submit(100, 1)
    with pytest.raises(AssertionError, match="stuck"):
        play.finish()


def test_over_the_limit_of_lent_slots_a_job_keeps_its_own_and_lends_when_another_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lending, "LENT_MAX", 1)
    h = Harness()
    h.worker(slots=2)
    roots = [h.submit(job("r")) for _ in range(2)]
    below = [h.submit(job("c", requirement=("NOWHERE",)), parent=(root, "r")) for root in roots]
    for root in roots:
        h.start(root, "r")
    fences = [lend(h, root, "r", child) for root, child in zip(roots, below, strict=True)]
    assert h.messages(Lend) == [Lend(fences[0], on=True)]
    told = h.scheduler.explain(roots[1], "r", h.now)
    assert told is not None
    assert "it keeps its slot" in told.message
    h.tell(EndLend(fences[0], below[0], final=True))
    assert h.messages(Lend)[1:] == [Lend(fences[0], on=False), Lend(fences[1], on=True)]
    h.tell(EndLend(fences[1], below[1], final=True))
    fences[0] = lend(h, roots[0], "r", below[0])
    lend(h, roots[1], "r", below[1])
    h.tell(EndLend(fences[1], below[1], final=True))
    assert fences[1] not in [message.fence for message in h.messages(Lend)[5:]], "it lent nothing, nothing ends"


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(1, 2), st.integers(0, 3), st.integers(4, 50),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_lost_workers_and_ended_leases_in_between_block_nobody(
    slots: list[int], width: int, levels: int, parents: int, choose: random.Random
) -> None:
    """Cuts, workers that come back as others or late, loads: and once that ends, all runs complete."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle, "DEATHS_MAX", 1_000)
        patch.setattr(ahead, "AHEAD_MS_MAX", 0)  # these processes start at once whatever they are granted
        play = Play(*slots, width=width)
        play.submit(parents if width == 1 else parents // 4, levels)
        for _ in range(25):
            disturb(play, choose)
            for attempt in choose.sample(living := play.living(), min(8, len(living))):
                play.act(attempt)
        play.back()
        play.finish(choose.shuffle)


def disturb(play: Play, choose: random.Random) -> None:
    name = choose.choice(list(play.processes))
    process = play.processes[name]
    match choose.choice(["nothing", "nothing", "nothing", "cut", "cut", "back", "anew", "away", "late", "crash"]):
        case "cut" if process.asking and process.connected:
            play.cut(name, choose.choice(list(process.asking)))
            play.h.wait(choose.choice([0, KEPT_MS]))
        case "back":
            play.connect(name)
        case "anew":
            play.connect(name, anew=True)
        case "away" if process.connected:
            play.disconnect(name)
        case "late" if process.connected:
            play.disconnect(name)
            play.h.wait(66_000)
        case "crash":
            play.crash()
    play.deliver()
