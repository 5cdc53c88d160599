"""From ready to granted: slots, priorities across queues, turns of runs, ageing, and slices of bounded work."""

import os
import subprocess
import sys
from collections import Counter

import hypothesis.strategies as st
from hypothesis import given, settings

from tests.unit.core.harness import Harness, job
from titan.core.dispatch import GRANTS_A_SLICE
from titan.core.events import CancelRun, Continue, WorkerConnected
from titan.model.spec import decode_spec
from titan.model.states import JobState
from titan.model.wire import Held

PERIOD = 16  # the agreed figure: every 16th dispatch takes the oldest


def granted(h: Harness) -> list[str]:
    return [grant.job_id for grant in h.grants]


def drain(h: Harness, count: int) -> list[tuple[str, str]]:
    """End what runs, one after the other, until `count` jobs were granted; return them in order."""
    while len(h.grants) < count:
        grant = h.grants[-1]
        h.end(grant.run_id, grant.job_id)
    return [(grant.run_id, grant.job_id) for grant in h.grants]


def test_a_grant_says_all_that_a_worker_needs() -> None:
    h = Harness()
    h.worker()
    run_id = h.submit(job("j", retries=1, lease_s=45, args=("a|b", "")))
    [grant] = h.grants
    attempt = h.attempt(run_id, "j")
    assert (grant.run_id, grant.job_id, grant.attempt, grant.generation) == (run_id, "j", 1, 1)
    assert grant.fence == attempt["fence"] == h.job(run_id, "j")["fence"] == (1 << 32) + 1
    assert decode_spec(grant.spec) == job("j", retries=1, lease_s=45, args=("a|b", ""))
    assert (grant.token, grant.agent_run_id) == ("", run_id)
    assert (attempt["worker"], attempt["incarnation"], attempt["boot_id"]) == ("w", "1", "boot")
    assert (attempt["lease_s"], attempt["state"]) == (45, "ASSIGNED")


def test_the_idempotency_key_is_that_of_the_generation_and_the_fence_rises() -> None:
    h = Harness()
    h.worker()
    run_id = h.submit(job("j", retries=1))
    h.end(run_id, "j", 1)
    h.wait(1_000)
    h.end(run_id, "j", 1)
    h.accept(h.retry(run_id))
    first, second, third = h.grants
    assert first.idempotency_key == second.idempotency_key != third.idempotency_key
    assert first.fence < second.fence < third.fence
    assert [grant.attempt for grant in h.grants] == [1, 2, 3]
    other = Harness()
    other.worker()
    other.submit(job("k"))
    assert other.grants[0].idempotency_key not in {grant.idempotency_key for grant in h.grants}


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=5),
    st.lists(st.sampled_from([("GENERAL",), ("GPU",), ("GENERAL", "GPU")]), max_size=40),
)
def test_no_worker_gets_more_than_its_slots_and_none_idles_beside_work_it_could_do(
    shapes: list[tuple[int, bool]], wanted: list[tuple[str, ...]]
) -> None:
    h = Harness()
    for number, (slots, gpu) in enumerate(shapes):
        h.worker(f"w{number}", slots, ("GENERAL", "GPU") if gpu else ("GENERAL",))
    if wanted:
        h.submit(*(job(f"j{number}", requirement=tags) for number, tags in enumerate(wanted)))
    held = Counter(row["worker"] for row in h.store.tables["attempts"].values())
    for number, (slots, gpu) in enumerate(shapes):
        assert held[f"w{number}"] <= slots
        waiting = [
            row for row in h.store.tables["jobs"].values() if row["state"] == JobState.QUEUED
            and (gpu or "GPU" not in row["requirement"])
        ]  # fmt: skip
        assert held[f"w{number}"] == slots or not waiting


def test_a_general_job_leaves_the_gpu_to_those_who_need_it() -> None:
    h = Harness()
    h.worker("gpu", 1, ("GENERAL", "GPU"))
    h.worker("plain", 2)
    run_id = h.submit(*(job(f"j{number}") for number in range(3)))
    assert [h.job(run_id, f"j{number}")["worker"] for number in range(3)] == ["plain", "plain", "gpu"]


def test_the_highest_priority_of_all_queues_goes_first_then_the_longest_waiting() -> None:
    h = Harness()
    h.submit(
        job("a", requirement=("X",)), job("b", requirement=("Y",)), job("c", requirement=("X",), priority=5),
        job("d", requirement=("Y",), priority=7), job("e", requirement=("Z",)), job("f", requirement=("X",)),
    )  # fmt: skip
    h.worker("w", 1, ("X", "Y", "Z"))
    assert [job_id for _, job_id in drain(h, 6)] == ["d", "c", "a", "b", "e", "f"]


def test_runs_of_one_priority_take_turns_and_higher_priorities_do_not_wait() -> None:
    h = Harness()
    large = h.submit(*(job(f"l{number}") for number in range(50)))
    small = h.submit(*(job(f"s{number}") for number in range(3)))
    urgent = h.submit(job("u", priority=2))
    h.worker()
    order = drain(h, 8)
    assert order[0] == (urgent, "u")
    assert order[1:7] == [(large, "l0"), (small, "s0"), (large, "l1"), (small, "s1"), (large, "l2"), (small, "s2")]


def test_10000_jobs_of_three_runs_share_one_slot_by_turns_priority_and_age() -> None:
    h = Harness()
    runs = [h.submit(*(job(f"j{number}") for number in range(count))) for count in (9_000, 900, 90)]
    urgent = h.submit(*(job(f"u{number}", priority=10) for number in range(10)))
    assert h.scheduler.stats()["queues"] == {"GENERAL": 10_000}
    h.worker()
    order = drain(h, 330)
    by_turn = [run_id for place, (run_id, _) in enumerate(order, 1) if place % PERIOD]
    by_age = [each for place, each in enumerate(order, 1) if place % PERIOD == 0]
    assert by_turn[:10] == [urgent] * 10
    shares = Counter(by_turn[10:280])
    assert max(shares[run_id] for run_id in runs) - min(shares[run_id] for run_id in runs) <= 1
    assert {run_id for run_id, _ in by_age} == {runs[0]}
    oldest_first = [int(job_id[1:]) for _, job_id in by_age]
    assert oldest_first == sorted(oldest_first)


def test_i19_every_16th_grant_goes_to_the_queue_with_the_oldest_job() -> None:
    h = Harness()
    h.submit(job("patient", requirement=("Y",), priority=0))
    h.submit(*(job(f"u{number}", requirement=("X",), priority=9) for number in range(200)))
    h.worker("w", 1, ("X", "Y"))
    drain(h, PERIOD)
    assert granted(h).index("patient") == PERIOD - 1


def test_i19_the_oldest_of_all_is_granted_within_the_square_of_the_period() -> None:
    # Its own queue is the other one's prey and full of urgent jobs: it goes by both counts.
    h = Harness()
    h.submit(job("patient", requirement=("Y",), priority=0))
    h.submit(*(job(f"y{number}", requirement=("Y",), priority=5) for number in range(300)))
    h.submit(*(job(f"x{number}", requirement=("X",), priority=9) for number in range(300)))
    h.worker("w", 1, ("X", "Y"))
    drain(h, PERIOD**2)
    assert "patient" in granted(h)


def test_a_decision_grants_a_slice_and_says_that_there_is_more() -> None:
    h = Harness()
    h.submit(*(job(f"j{number}") for number in range(700)))
    first = h.tell(WorkerConnected("w", "1", "boot", ("GENERAL",), 1_000, ()), settle=False)
    assert (len(h.grants), first.more) == (GRANTS_A_SLICE, True)
    second = h.tell(Continue(), settle=False)
    assert (len(h.grants), second.more) == (2 * GRANTS_A_SLICE, True)
    third = h.tell(Continue(), settle=False)
    assert (len(h.grants), third.more) == (700, False)


def test_many_queues_make_slices_shorter_and_nobody_is_left_out() -> None:
    h = Harness()
    tags = [f"T{number}" for number in range(100)]
    h.submit(*(job(f"j{number}", requirement=(tags[number % 100],)) for number in range(400)))
    first = h.tell(WorkerConnected("w", "1", "boot", tuple(tags), 1_000, ()), settle=False)
    assert first.more
    assert len(h.grants) <= 1_000 // 100 + 1  # about a thousand looks at a queue, whatever their number
    h.settle()
    assert len(h.grants) == 400


def test_a_worker_that_comes_back_with_fewer_slots_is_not_overfilled() -> None:
    h = Harness()
    h.worker(slots=3)
    run_id = h.submit(*(job(f"j{number}") for number in range(5)))
    h.start(run_id, "j0")
    h.worker(slots=1, held=[Held(fence, True) for (fence,) in h.store.tables["attempts"]])
    assert (len(h.grants), h.scheduler.stats()["slots_free"]) == (3, 0)
    h.wait(2_000)  # its jobs are not short: nothing is sent ahead
    h.end(run_id, "j0")
    h.end(run_id, "j1")
    assert len(h.grants) == 3
    h.end(run_id, "j2")
    assert len(h.grants) == 4


def test_stats_and_workers_say_what_lives() -> None:
    h = Harness()
    h.worker("b", 2, ("GENERAL", "GPU"))
    h.worker("a", 1)
    run_id = h.submit(job("r"), job("s"), job("t"), job("q"), job("g", requirement=("HIGH_MEM",)), job("c", "r"))
    h.start(run_id, "r")
    stats = h.scheduler.stats()
    assert stats["jobs"] == {"RUNNING": 1, "ASSIGNED": 2, "QUEUED": 2, "BLOCKED": 1}
    assert (stats["runs_living"], stats["workers"], stats["slots"], stats["slots_free"]) == (1, 2, 3, 0)
    assert stats["queues"] == {"GENERAL": 1, "HIGH_MEM": 1}
    listed = h.scheduler.worker_list()
    assert [each["name"] for each in listed] == ["a", "b"]
    assert [each["running"] for each in listed] == [1, 2]
    assert listed[1]["capabilities"] == ["GENERAL", "GPU"]
    assert h.scheduler.offered() == {"GENERAL", "GPU"}
    assert h.scheduler.holds(h.job(run_id, "r")["fence"])
    fence = h.job(run_id, "r")["fence"]
    assert h.scheduler.worker_of(fence) == "a"
    h.end(run_id, "r")
    assert not h.scheduler.holds(fence)
    assert h.scheduler.worker_of(fence) == ""


def test_nothing_is_decided_by_the_order_of_a_set() -> None:
    """The same events give the same decisions in a process with another hash seed."""
    script = (
        "from tests.unit.core.test_dispatch import history; import hashlib;"
        "print(hashlib.sha256(repr(history()).encode()).hexdigest())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1


def history() -> list[object]:
    h = Harness()
    h.worker("w", 2, ("GENERAL", "GPU"))
    run_id = h.submit(*(job(f"j{number}", *([f"j{number - 1}"] if number % 3 else [])) for number in range(12)))
    for _ in range(5):
        h.submit(job("c"), job("d", requirement=("GPU", "GENERAL")), parent=(run_id, "j0"))
    h.end(run_id, "j0", 1)
    decision = h.tell(CancelRun(run_id))
    for grant in h.grants:
        if h.scheduler.holds(grant.fence):
            h.give_back(grant.run_id, grant.job_id)
    return [decision.changes, h.sent, h.store.tables, str(h.accept(h.retry(run_id)))]
