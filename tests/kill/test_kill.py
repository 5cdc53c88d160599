"""The judge sees what it has to see, and a short campaign holds the promises."""

from pathlib import Path

import pytest

from tests.kill.campaign import run_campaign
from tests.kill.ledger import Line, judge

SHAPE = {"r": {"a": [], "b": ["a"]}}


def lines(*entries: str) -> list[Line]:
    split = (entry.split(" ") for entry in entries)
    return [Line(place, "r", job, int(fence), what) for place, (job, fence, what) in enumerate(split)]


GOOD = ("a 1 start", "a 1 end", "b 2 start", "b 2 end")


def test_a_clean_ledger_has_nothing_to_say() -> None:
    assert judge(lines(*GOOD), SHAPE) == []


def test_a_job_killed_before_its_end_may_run_again() -> None:
    assert judge(lines("a 1 start", "a 2 start", "a 2 end", "b 3 start", "b 3 end"), SHAPE) == []


@pytest.mark.parametrize(
    ("ledger", "said"),
    [
        (("a 1 start", "a 1 end"), "r/b: acknowledged and never ended"),
        (("a 1 start", "b 2 start", "a 1 end", "b 2 end"), "r/b: started before its parent a had ended"),
        ((*GOOD, "b 3 start"), "r/b: had ended and ran again (fences [2, 3])"),
        ((*GOOD, "a 3 start", "a 3 end"), "r/a: had ended and ran again (fences [1, 3])"),
    ],
)
def test_f1_a_broken_promise_is_named(ledger: tuple[str, ...], said: str) -> None:
    assert said in judge(lines(*ledger), SHAPE)


@pytest.mark.timeout(240)
def test_f1_three_kills_under_a_submit_load_lose_and_repeat_nothing(tmp_path: Path) -> None:
    outcome = run_campaign(tmp_path, kills=3, seed=7, submitters=2, say=print)
    assert outcome.broken == []
    assert outcome.acknowledged > 0
