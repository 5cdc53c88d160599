"""Writes docs/states.md from the tables of titan.core.states: .venv/bin/python -m tests.unit.states_page"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from tests.unit.sources import ROOT
from titan.core import reasons
from titan.core.states import JOB_TRANSITIONS, RUN_TRANSITIONS, JobEvent, RunEvent
from titan.model.states import FINAL_JOB_STATES, FINAL_RUN_STATES, JobState, RunState

PAGE = ROOT / "docs" / "states.md"
Table = Mapping[Any, Mapping[Any, StrEnum]]

STATES: Mapping[StrEnum, str] = {
    JobState.BLOCKED: "its parents have not completed",
    JobState.DELAYED: "a timer runs: `delay` after the parents, or the pause before another try",
    JobState.QUEUED: "ready, and no worker has it yet; `titan explain` says why",
    JobState.ASSIGNED: "sent to a worker and not started; `timeout_s` does not run yet",
    JobState.RUNNING: "its worker reported the start",
    JobState.WAITING: "a gate waits for a person; it takes no slot",
    JobState.COMPLETED: "exit code 0",
    JobState.FAILED: "it failed and has no retry left",
    JobState.CANCELLED: "somebody asked for its end, or a parent did not complete",
    JobState.DEAD: "three workers died while they ran it; nobody gets it again unasked",
}
RUNS: Mapping[StrEnum, str] = {
    RunState.STAGED: "a large submission is being received; nobody sees it",
    RunState.QUEUED: "accepted; no job has started",
    RunState.RUNNING: "a job has started and not all are over",
    RunState.COMPLETED: "all jobs completed",
    RunState.FAILED: "all are over, and one at least is FAILED or DEAD",
    RunState.CANCELLED: "all are over, none failed, and somebody asked for the end of some of it",
}
EVENTS: Mapping[StrEnum, str] = {
    JobEvent.READY: "all parents completed, or the timer ran out",
    JobEvent.DELAY: "all parents completed, and the job has a `delay`",
    JobEvent.ASSIGN: "matched with a worker",
    JobEvent.START: "the worker handed it to its launcher",
    JobEvent.RETURN: "the worker gave it back unstarted",
    JobEvent.POSTPONE: "the machine could not start it: elsewhere or later, no fault of the job",
    JobEvent.SUCCEED: "it ended with exit code 0",
    JobEvent.FAIL: 'it ended otherwise and has no retry left, or was lost with `on_lost="fail"`',
    JobEvent.RETRY: "it ended otherwise and has a retry left",
    JobEvent.LOSE: "the lease ran out, or the worker came back without it",
    JobEvent.QUARANTINE: "the third worker was lost with it",
    JobEvent.CANCEL: "somebody asked for its end, or a parent did not complete",
    JobEvent.REOPEN: "`retry` of the run: the next generation begins",
}


def render() -> str:
    """Return the page."""
    return "\n".join(
        [
            "# The life of a job and of a run",
            "",
            "Made from `src/titan/core/states.py`; a test compares the two. Do not edit it here.",
            "",
            "## Jobs",
            "",
            *_states(STATES, FINAL_JOB_STATES),
            *_diagram(JOB_TRANSITIONS),
            *_moves(JOB_TRANSITIONS),
            "",
            "| event | what happened |",
            "|---|---|",
            *(f"| {event} | {EVENTS[event]} |" for event in JobEvent),
            "",
            "No event of an attempt moves a final job. Only REOPEN does, and it opens a new generation.",
            "",
            "## Runs",
            "",
            *_states(RUNS, FINAL_RUN_STATES),
            *_diagram(RUN_TRANSITIONS),
            *_moves(RUN_TRANSITIONS),
            "",
            "## Why a job is not running",
            "",
            "`titan explain JOB` and `client.explain(id)` answer with one of these, from the code that decides.",
            "",
            "| reason | what would help |",
            "|---|---|",
            *(f"| {reason} | {remedy} |" for reason, remedy in reasons.REMEDIES.items()),
            "",
            "## Why a job ended, or goes round again",
            "",
            "A job's `reason`, beside its state. It is empty for a job that completed.",
            "",
            "| reason | what happened | what helps, once it is over |",
            "|---|---|---|",
            *(f"| {reason} | {meaning} | {reasons.after(reason)} |" for reason, meaning in reasons.ENDS.items()),
            "",
        ]
    )


def _states(meanings: Mapping[StrEnum, str], final: frozenset[StrEnum]) -> list[str]:
    rows = [f"| {state} | {meaning} | {'final' if state in final else ''} |" for state, meaning in meanings.items()]
    return ["| state | meaning | |", "|---|---|---|", *rows, ""]


def _diagram(table: Table) -> list[str]:
    moves = [
        f"    {state} --> {target}: {event}"
        for state, targets in table.items()
        for event, target in targets.items()
        if event not in (JobEvent.REOPEN, RunEvent.REOPEN, JobEvent.CANCEL, RunEvent.CANCEL)
    ]
    return ["```mermaid", "stateDiagram-v2", *moves, "```", "", "Left out of the picture: CANCEL and REOPEN.", ""]


def _moves(table: Table) -> list[str]:
    rows = [f"| {state} | {event} | {target} |" for state, moves in table.items() for event, target in moves.items()]
    return ["| from | event | to |", "|---|---|---|", *rows]


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
