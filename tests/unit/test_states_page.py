"""docs/states.md says what the table says, and the table speaks of every state there is."""

from tests.unit.states_page import EVENTS, PAGE, RUNS, STATES, render
from titan.core import reasons
from titan.core.states import JOB_TRANSITIONS, RUN_TRANSITIONS, JobEvent
from titan.model.states import JobState, RunState


def test_the_page_is_made_from_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: .venv/bin/python -m tests.unit.states_page"


def test_every_state_and_event_is_explained() -> None:
    assert set(STATES) == set(JobState) == set(JOB_TRANSITIONS)
    assert set(RUNS) == set(RunState) == set(RUN_TRANSITIONS)
    assert set(EVENTS) == set(JobEvent)


def test_every_reason_of_an_end_is_explained() -> None:
    assert set(reasons.ENDS) == {value for name, value in vars(reasons).items() if name.startswith("END_")}


def test_what_helps_after_an_end_fits_it() -> None:
    assert reasons.after("") == reasons.REMEDIES[reasons.ENDED]
    assert {reasons.after(each) for each in (reasons.END_EXIT_CODE, reasons.END_TIMEOUT)} == {reasons.AFTER_A_FIX}
    assert {reasons.after(each) for each in (reasons.END_PARENT_FAILED, reasons.END_LOST)} == {reasons.AGAIN}


def test_the_page_shows_every_move() -> None:
    page = render()
    for table in (JOB_TRANSITIONS, RUN_TRANSITIONS):
        for state, moves in table.items():
            for event, target in moves.items():
                assert f"| {state} | {event} | {target} |" in page
