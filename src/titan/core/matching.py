"""Which worker may take a job, and which of those should.

Feasible, then rank. Every refusal is a constant that `explain` shows, so that the answer to "why does it
not run" comes from the code that decides.
"""

from collections.abc import Iterable

from titan.core.memory import Worker
from titan.model.spec import GENERAL

LACKS_CAPABILITY = "LACKS_CAPABILITY"
IS_AWAY = "IS_AWAY"
IS_FULL = "IS_FULL"
IS_NOT_THE_PINNED_ONE = "IS_NOT_THE_PINNED_ONE"

_GENERAL_ONLY = frozenset({GENERAL})


def refusal(worker: Worker, tags: frozenset[str], pinned_to: str) -> str | None:
    """Return why `worker` may not take a job needing `tags` now, the lasting reasons first; None: it may."""
    if pinned_to and worker.name != pinned_to:
        return IS_NOT_THE_PINNED_ONE
    if not tags <= worker.capabilities:
        return LACKS_CAPABILITY
    if not worker.connected:
        return IS_AWAY
    if worker.free <= 0:
        return IS_FULL
    return None


def best(workers: Iterable[Worker], tags: frozenset[str], pinned_to: str) -> Worker | None:
    """Return the worker that should take the job, or None when none may.

    Least loaded first; a job that needs only GENERAL leaves tagged workers to those who need them while a
    plain one is free; the name breaks ties, so that the same state gives the same answer.
    """
    feasible = [worker for worker in workers if refusal(worker, tags, pinned_to) is None]
    if not feasible:
        return None
    spare_tagged = tags <= _GENERAL_ONLY

    def rank(worker: Worker) -> tuple[bool, float, str]:
        tagged = spare_tagged and bool(worker.capabilities - _GENERAL_ONLY)
        return tagged, len(worker.fences) / worker.slots, worker.name

    return min(feasible, key=rank)
