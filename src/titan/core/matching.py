"""Which worker may take a job, and which of those should.

Feasible, then rank. Every refusal is a constant that `explain` shows, so that the answer to "why does it
not run" comes from the code that decides.
"""

import heapq
from collections.abc import Iterable

from titan.core.lending import is_crowded
from titan.core.memory import Worker
from titan.model.spec import GENERAL

LACKS_CAPABILITY = "LACKS_CAPABILITY"
IS_AWAY = "IS_AWAY"
IS_DRAINING = "IS_DRAINING"
NO_FREE_DEVICE = "NO_FREE_DEVICE"
IS_FULL = "IS_FULL"
IS_CROWDED = "IS_CROWDED"
IS_NOT_THE_PINNED_ONE = "IS_NOT_THE_PINNED_ONE"

_GENERAL_ONLY = frozenset({GENERAL})


def refusal(worker: Worker, tags: frozenset[str], pinned_to: str, level: int = 0, ahead: bool = False) -> str | None:
    """Return why `worker` may not take a job needing `tags` now, the lasting reasons first; None: it may.

    `level`: how deep below waiting jobs the job's run is. `ahead`: to wait there until a slot is free.
    """
    if pinned_to and worker.name != pinned_to:
        return IS_NOT_THE_PINNED_ONE
    if not tags <= worker.capabilities:
        return LACKS_CAPABILITY
    if not worker.connected:
        return IS_AWAY
    if worker.draining:
        return IS_DRAINING
    if worker.lacks_device(tags):
        return NO_FREE_DEVICE
    if (worker.room if ahead else worker.free) <= 0:
        return IS_FULL
    if is_crowded(worker, level):
        return IS_CROWDED
    return None


class Candidates:
    """The workers that may take a job with one requirement, the best first.

    Least loaded first; a job that needs only GENERAL leaves tagged workers to those who need them while a
    plain one is free; the name breaks ties, so that the same state gives the same answer. Made anew for each
    round of grants: in between workers only fill up, so a rank only falls and is looked at again when it leads.
    """

    __slots__ = ("_ahead", "_heap", "_spare_tagged", "_tags")

    def __init__(self, workers: Iterable[Worker], tags: frozenset[str], pinned_to: str, ahead: bool = False) -> None:
        self._ahead = ahead
        self._tags = tags
        self._spare_tagged = tags <= _GENERAL_ONLY
        feasible = [worker for worker in workers if refusal(worker, tags, pinned_to, ahead=ahead) is None]
        self._heap = [(self._rank(worker), worker) for worker in feasible]
        heapq.heapify(self._heap)

    def best(self) -> Worker | None:
        """Return the worker that should take the next job, or None when none may."""
        while self._heap:
            rank, worker = self._heap[0]
            full = (worker.room if self._ahead else worker.free) <= 0
            if full or worker.lacks_device(self._tags) or is_crowded(worker):
                heapq.heappop(self._heap)
            elif rank != self._rank(worker):
                heapq.heapreplace(self._heap, (self._rank(worker), worker))
            else:
                return worker
        return None

    def _rank(self, worker: Worker) -> tuple[bool, float, str]:
        tagged = self._spare_tagged and bool(worker.capabilities - _GENERAL_ONLY)
        return tagged, worker.busy / worker.slots, worker.name
