"""What a campaign reached: every move of the tables of states, and every kind of fault, counted.

The moves are counted where the core asks for the next state. WAITING belongs to gates, which nothing reaches yet:
its moves are left out.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from tests.simulation.faults import KINDS
from titan.core import lifecycle, memory
from titan.core.states import JOB_TRANSITIONS, RUN_TRANSITIONS
from titan.model.states import JobState

# What strikes because jobs and clients are as they are, without a row in KINDS.
OF_THE_WORKLOAD = ("job_kills_worker", "timeout", "lease_term", "staged", "child_reopened", "answered_again")
FAULTS = (*sorted(KINDS), *OF_THE_WORKLOAD)
LEFT_OUT = (JobState.WAITING,)
MOVES: Counter[tuple[str, str]] = Counter()


def count_moves() -> None:
    """Have every move from now on be counted in MOVES. To be called once a process."""
    memory.next_job_state = _counted("job", memory.next_job_state)  # type: ignore[assignment]
    memory.next_run_state = _counted("run", memory.next_run_state)  # type: ignore[assignment]
    lifecycle.next_job_state = memory.next_job_state


def _counted(kind: str, following: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    names: dict[tuple[Any, Any], tuple[str, str]] = {}

    def count(state: Any, event: Any) -> Any:
        name = names.get((state, event))
        if name is None:
            name = names[state, event] = (f"{kind} {state}", str(event))
        MOVES[name] += 1
        return following(state, event)

    return count


def moves_of_the_tables() -> list[tuple[str, str]]:
    """Return every move that a campaign has to make, as MOVES names them."""
    tables: list[tuple[str, Mapping[Any, Any]]] = [("job", JOB_TRANSITIONS), ("run", RUN_TRANSITIONS)]
    return [
        (f"{kind} {state}", str(event))
        for kind, table in tables
        for state, events in table.items()
        if state not in LEFT_OUT
        for event in events
    ]
