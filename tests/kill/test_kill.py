"""The judge sees what it has to see, and a short campaign of each kind holds the promises."""

from pathlib import Path

import pytest

from tests.kill import faults
from tests.kill.judge import judge, overstayed, repeats
from tests.kill.ledger import Line

SHAPE = {"r": {"a": [], "b": ["a"]}}


def lines(*entries: str) -> list[Line]:
    """Entries are `JOB FENCE WHAT`, on w1, or `- WORKER WHAT` for a fault; a second passes between two of them."""
    found = []
    for place, entry in enumerate(entries):
        job, middle, what = entry.split(" ")
        fence, worker = (0, middle) if job == "-" else (int(middle), "w1")
        found.append(Line(place, place * 1000, "-" if job == "-" else "r", job, fence, 1, worker, what))
    return found


GOOD = ("a 1 start", "a 1 end", "b 2 start", "b 2 end")
LOST = ("a 1 start", "- w1 killed", "a 2 start", "- w1 killed", "a 3 start", "- w1 killed")


def test_a_clean_ledger_has_nothing_to_say() -> None:
    assert judge(lines(*GOOD), SHAPE) == []
    assert repeats(lines(*GOOD)) == (0, 0)


def test_a_job_killed_before_its_end_may_run_again() -> None:
    ledger = lines("a 1 start", "a 1 tick", "- w1 killed", "a 2 start", "a 2 end", "b 3 start", "b 3 end")
    assert judge(ledger, SHAPE) == []
    assert repeats(ledger) == (1, 0)


def test_a_job_that_is_dead_after_three_losses_need_not_end() -> None:
    assert judge(lines(*LOST), SHAPE, dead=[("r", "a")], cancelled=[("r", "b")]) == []


@pytest.mark.parametrize(
    ("ledger", "said"),
    [
        (("a 1 start", "a 1 end"), "r/b: acknowledged and never ended"),
        (("a 1 start", "b 2 start", "a 1 end", "b 2 end"), "r/b: started before its parent a had ended"),
        ((*GOOD, "- w1 killed", "- w1 killed", "b 3 start"), "r/b: had ended and ran again (fences 2 and 3)"),
        (
            ("a 1 start", "a 2 start", "a 2 end", "b 3 start", "b 3 end"),
            "r/a: ran again and nothing had happened to w1 (fences 1 and 2)",
        ),
        (
            ("- w1 killed", "a 1 start", "- w2 killed", "a 2 start", "a 2 end", "b 3 start", "b 3 end"),
            "r/a: ran again and nothing had happened to w1 (fences 1 and 2)",
        ),
        (
            ("a 1 start", "- w1 killed", "a 2 start", "a 1 tick", "a 2 end", "b 3 start", "b 3 end"),
            "r/a: two attempts lived at once (fences 1 and 2)",
        ),
        (("a 2 start", "- w1 killed", "a 1 start"), "r/a: its fence did not rise (fences 2 and 1)"),
        ((*LOST, "a 4 start", "a 4 end"), "r/a: started 4 times; it is DEAD after 3 losses"),
        ((), "r/a: acknowledged and never ended"),
    ],
)
def test_f1_a_broken_promise_is_named(ledger: tuple[str, ...], said: str) -> None:
    assert said in judge(lines(*ledger), SHAPE)


def test_a_job_that_is_dead_too_soon_is_named() -> None:
    told = judge(lines("a 1 start", "- w1 killed"), SHAPE, dead=[("r", "a")], cancelled=[("r", "b")])
    assert told == ["r/a: DEAD, and its workers were not lost 3 times"]


def test_an_attempt_whose_last_process_outlived_the_next_start_is_named() -> None:
    first, second = lines("a 1 start", "a 2 start")
    starts = {("r", "a"): [first, second]}
    said = ["r/a: a process of fence 1 lived when 2 began"]
    assert overstayed([(first, 1000)], starts) == []
    assert overstayed([(first, 1001)], starts) == said
    assert overstayed([(first, 0)], starts) == said


@pytest.mark.timeout(240)
def test_f1_a_master_workers_and_launchers_killed_and_cuts_under_load_lose_and_repeat_nothing(tmp_path: Path) -> None:
    turns = ["master", "worker", "launcher", "both", "cut"]
    outcome = faults.mixed(tmp_path / "place", 7, print, turns=turns, slots=4)
    assert outcome.broken == []
    assert (outcome.faults, outcome.acknowledged > 0) == (len(turns), True)
