"""The tables of moves, held as tables: what is final, what is reachable, what is refused."""

import itertools
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pytest

from titan.core.states import (
    JOB_TRANSITIONS,
    RUN_TRANSITIONS,
    IllegalMoveError,
    JobEvent,
    RunEvent,
    next_job_state,
    next_run_state,
    run_outcome,
)
from titan.model.states import FINAL_JOB_STATES, FINAL_RUN_STATES, PENDING, JobState, RunState

Table = Mapping[Any, Mapping[Any, Any]]
FIRST_JOB_STATES = {JobState.BLOCKED, JobState.DELAYED, JobState.QUEUED}
ATTEMPT_EVENTS = {
    JobEvent.ASSIGN, JobEvent.START, JobEvent.RETURN, JobEvent.POSTPONE, JobEvent.SUCCEED, JobEvent.FAIL,
    JobEvent.RETRY, JobEvent.LOSE, JobEvent.QUARANTINE,
}  # fmt: skip


def reachable(table: Table, first: set[Any]) -> set[Any]:
    found: set[Any] = set()
    stack = list(first)
    while stack:
        state = stack.pop()
        if state not in found:
            found.add(state)
            stack.extend(table[state].values())
    return found


def test_every_state_has_its_row() -> None:
    assert list(JOB_TRANSITIONS) == list(JobState)
    assert list(RUN_TRANSITIONS) == list(RunState)


def test_final_are_the_states_that_only_a_new_generation_leaves() -> None:
    only_reopened = {state for state, moves in JOB_TRANSITIONS.items() if set(moves) == {JobEvent.REOPEN}}
    assert only_reopened == FINAL_JOB_STATES
    assert {state for state, moves in RUN_TRANSITIONS.items() if set(moves) == {RunEvent.REOPEN}} == FINAL_RUN_STATES
    reopenable = {state for state, moves in JOB_TRANSITIONS.items() if JobEvent.REOPEN in moves}
    assert reopenable == FINAL_JOB_STATES


def test_no_event_of_an_attempt_moves_a_final_job() -> None:
    for state, event in itertools.product(FINAL_JOB_STATES, ATTEMPT_EVENTS | {JobEvent.CANCEL}):
        with pytest.raises(IllegalMoveError, match=f"a job in {state} has no event {event}"):
            next_job_state(state, event)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(JobState, JobEvent)))
def test_a_job_moves_by_the_table_or_not_at_all(state: JobState, event: JobEvent) -> None:
    if event in JOB_TRANSITIONS[state]:
        assert next_job_state(state, event) == JOB_TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalMoveError, match=f"a job in {state} has no event {event}"):
            next_job_state(state, event)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(RunState, RunEvent)))
def test_a_run_moves_by_the_table_or_not_at_all(state: RunState, event: RunEvent) -> None:
    if event in RUN_TRANSITIONS[state]:
        assert next_run_state(state, event) == RUN_TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalMoveError, match=f"a run in {state} has no event {event}"):
            next_run_state(state, event)


def test_every_state_can_be_reached_but_the_gate_that_does_not_exist_yet() -> None:
    assert reachable(JOB_TRANSITIONS, FIRST_JOB_STATES) == set(JobState) - {JobState.WAITING}
    assert reachable(RUN_TRANSITIONS, {RunState.STAGED}) == set(RunState)


def test_nothing_is_a_trap() -> None:
    for job_state in JobState:
        assert reachable(JOB_TRANSITIONS, {job_state}) & FINAL_JOB_STATES
    for run_state in RunState:
        assert reachable(RUN_TRANSITIONS, {run_state}) & FINAL_RUN_STATES


def test_every_event_is_of_use() -> None:
    def events(table: Table) -> set[StrEnum]:
        return {event for moves in table.values() for event in moves}

    assert events(JOB_TRANSITIONS) == set(JobEvent)
    assert events(RUN_TRANSITIONS) == set(RunEvent)


def test_whatever_is_not_over_can_be_cancelled() -> None:
    for state in set(JobState) - FINAL_JOB_STATES:
        assert next_job_state(state, JobEvent.CANCEL) == JobState.CANCELLED


def test_pending_is_all_that_neither_runs_nor_is_over() -> None:
    assert set(JobState) - FINAL_JOB_STATES - {JobState.RUNNING} == PENDING


@pytest.mark.parametrize(
    ("failed", "dead", "cancelled", "outcome"),
    [
        (0, 0, False, RunEvent.COMPLETE),
        (0, 0, True, RunEvent.CANCEL),
        (1, 0, False, RunEvent.FAIL),
        (0, 1, False, RunEvent.FAIL),
        (1, 0, True, RunEvent.FAIL),
        (0, 1, True, RunEvent.FAIL),
    ],
)
def test_how_a_run_ends(failed: int, dead: int, cancelled: bool, outcome: RunEvent) -> None:
    assert run_outcome(failed, dead, cancelled) == outcome
