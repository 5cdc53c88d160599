"""The lines of `titan top`: they fit the paper they are written on, whatever the Master and strangers say."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titan.cli.overview import Paper, Rates, lines

NOW = "2026-01-31T12:00:10.000Z"
START = "2026-01-31T12:00:00.000Z"


def look(now: str = NOW, start: str = START, workers: int = 1, queues: int = 1, jobs: int = 1, **came: int) -> Any:
    """An overview of so many workers, queues and running jobs."""
    return {
        "now": now,
        "stats": {
            "version": "0.1.0", "epoch": 1, "started_at": start, "runs_living": 1, "jobs": {"RUNNING": jobs},
            "workers": workers, "slots": 4 * workers, "slots_free": 0, "queues": {}, "came": came,
        },
        "workers": [
            {
                "name": f"w{n}", "connected": True, "capabilities": ["GENERAL"], "slots": 4, "running": 2, "ahead": 1,
                "devices": 0, "draining": False, "host": "h", "pid": 1, "version": "0.1.0", "connected_at": START,
            }
            for n in range(workers)
        ],
        "waiting": [
            {
                "requirement": ["GENERAL", f"T{n}"], "pinned_to": "", "jobs": 3, "run_id": "a" * 32, "job_id": "j",
                "ready_at": START, "reason": "ALL_SLOTS_BUSY", "message": "all slots are busy", "remedy": "wait",
            }
            for n in range(queues)
        ],
        "running": [
            {
                "run_id": "b" * 32, "run_name": "etl", "job_id": f"j{n}", "attempt": 2, "worker": "w0",
                "started_at": START,
            }
            for n in range(jobs)
        ],
    }  # fmt: skip


def test_everything_has_its_line() -> None:
    assert lines("http://m:9090", look(), {"started": 1.5, "failed": 0.0}, Paper()) == [
        "Titan 0.1.0   http://m:9090   up 10.0 s   1 worker, 4 of 4 slots busy",
        "1 run under way   1 RUNNING",
        "1.5/s started   0/s failed",
        "",
        "WORKER  SLOTS  LOAD        HOST  OFFERS",
        "w0      2/4+1  #####.....  h     GENERAL",
        "",
        "QUEUE        JOBS  OLDEST  WHY",
        "GENERAL, T0  3     10.0 s  ALL_SLOTS_BUSY: all slots are busy",
        "",
        "RUNNING      NAME  WORKER  TIME",
        "bbbbbbbb/j0  etl   w0      10.0 s  attempt 2",
    ]


def test_where_nothing_is_it_says_so_and_what_to_do() -> None:
    text = "\n".join(lines("u", look(workers=0, queues=0, jobs=0), None, Paper()))
    for words in ("none: titan worker --join URL", "nothing waits", "nothing runs"):
        assert words in text


@settings(max_examples=30)
@given(
    workers=st.integers(0, 40), queues=st.integers(0, 40), jobs=st.integers(0, 40), columns=st.integers(20, 200),
    rows=st.integers(3, 60),
)  # fmt: skip
def test_it_fits(workers: int, queues: int, jobs: int, columns: int, rows: int) -> None:
    shown = lines("http://m", look(workers=workers, queues=queues, jobs=jobs), None, Paper(columns, rows))
    assert len(shown) <= rows
    assert max(map(len, shown)) <= columns


def test_a_table_that_is_cut_says_how_much_is_left() -> None:
    shown = lines("u", look(workers=40), None, Paper(80, 20))
    assert any(line.startswith("and ") and line.endswith(" more") for line in shown)


def test_a_strangers_name_cannot_draw() -> None:
    overview = look()
    overview["running"][0]["run_name"] = "\x1b[2J\nx\t\u202e"
    assert not any("\x1b" in line or "\n" in line or "\u202e" in line for line in lines("u", overview, None, Paper(80)))


@pytest.mark.parametrize(("draining", "connected", "word"), [(True, True, "draining"), (False, False, "away")])
def test_a_worker_that_leaves_is_lit(draining: bool, connected: bool, word: str) -> None:
    overview = look()
    overview["workers"][0].update(draining=draining, connected=connected)
    [line] = [line for line in lines("u", overview, None, Paper(colours=True)) if word in line]
    assert line.startswith("\x1b[33m")


def test_a_worker_that_left_in_order_is_no_alarm() -> None:
    overview = look()
    overview["workers"][0].update(draining=True, connected=False, running=0, ahead=0)
    [line] = [line for line in lines("u", overview, None, Paper(colours=True)) if line.endswith("stopped")]
    assert not line.startswith("\x1b")


def test_rates_are_over_the_last_looks_and_of_one_master_process() -> None:
    rates = Rates()
    assert rates.add(look(START, RUNNING=5)) is None
    told = rates.add(look(NOW, RUNNING=25, COMPLETED=10, FAILED=1, DEAD=1))
    assert told == {"started": 2.0, "completed": 1.0, "failed": 0.2, "cancelled": 0.0}
    assert rates.add(look("2026-01-31T12:00:20.000Z", start=NOW, RUNNING=1)) is None, "another process counts anew"
