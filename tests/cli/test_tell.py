"""What is said of a job beside its state."""

import pytest

from titan.cli.tell import ago, remedy, why
from titan.core import reasons


def test_what_helps_can_be_pasted() -> None:
    lacking = {"remedy": reasons.REMEDIES[reasons.WAIT_CAPABILITY], "requirement": ["BIG", "GENERAL", "GPU"]}
    line = "start a worker that offers it: titan worker --join https://192.0.2.7:9090 --capability BIG GPU"
    assert remedy(lacking, "https://192.0.2.7:9090") == line
    in_details = {"remedy": lacking["remedy"], "details": {"requirement": lacking["requirement"]}}
    assert remedy(in_details, "https://192.0.2.7:9090") == line
    plain = "start a worker that offers it: titan worker --join https://192.0.2.7:9090"
    assert remedy({**lacking, "requirement": ["GENERAL"]}, "https://192.0.2.7:9090") == plain
    assert remedy({"remedy": "nothing to do", "details": {}}, "https://192.0.2.7:9090") == "nothing to do"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3_599, "59 min"),
        (3_600, "1 h"),
        (172_799, "47 h"),
        (172_800, "2 d"),
        (9e6, "104 d"),
    ],
)
def test_the_past_is_told_as_coarsely_as_it_is_remembered(seconds: float, said: str) -> None:
    assert ago(seconds) == said


@pytest.mark.parametrize(
    ("attempt", "retries", "said"),
    [(1, 0, ""), (1, 2, "attempt 1 of 3"), (3, 2, "attempt 3 of 3"), (2, 0, "attempt 2"), (4, 2, "attempt 4")],
)
def test_attempts_lost_with_their_worker_are_not_counted_against_the_retries(
    attempt: int, retries: int, said: str
) -> None:
    job = {
        "state": "COMPLETED",
        "exit_code": 0,
        "reason": "",
        "attempt": attempt,
        "retries": retries,
        "cancelling": False,
        "worker": "w",
    }
    assert why(job, {}) == said
