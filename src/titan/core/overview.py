"""What a person looks at first: which queues wait and why, and what runs. Reads memory; changes nothing.

Both are bounded, so that a look at a Master with a million ready jobs costs as much as at one with ten.
"""

from itertools import islice
from typing import Any

from titan.core.dispatch import Dispatcher
from titan.core.explain import Explainer
from titan.core.memory import Memory
from titan.core.queues import QueueKey, ReadyQueue
from titan.model.states import AttemptState

COUNTED_MAX = 1_000
QUEUES_MAX = 50
QUEUES_MIN = 5
LOOKS_MAX = 10_000  # at a worker, to say why a queue waits
RUNNING_MAX = 50


def waiting(dispatcher: Dispatcher, explainer: Explainer) -> list[dict[str, Any]]:
    """Return the longest queues, each with the job that has been ready longest and the reason why that one waits."""
    queues_max = max(QUEUES_MIN, min(QUEUES_MAX, LOOKS_MAX // (1 + len(explainer.memory.workers))))
    return [_queue(key, dispatcher.queues[key], explainer) for key in dispatcher.lengths.longest(queues_max)]


def ready(dispatcher: Dispatcher) -> dict[str, int]:
    """Return how many jobs stand in the longest queues, by their requirement."""
    found: dict[str, int] = {}
    for key in dispatcher.lengths.longest(COUNTED_MAX):
        name = ",".join(sorted(key.tags))
        found[name] = found.get(name, 0) + dispatcher.queues[key].count
    return found


def _queue(key: QueueKey, queue: ReadyQueue, explainer: Explainer) -> dict[str, Any]:
    oldest = queue.oldest()
    why = explainer.why(oldest)
    return {
        "requirement": sorted(key.tags),
        "pinned_to": key.pinned_to,
        "jobs": queue.count,
        "run_id": oldest.run_id,
        "job_id": oldest.job_id,
        "ready_ms": oldest.ready_ms,
        "reason": why.reason,
        "message": why.message,
        "remedy": why.remedy,
    }


def running(memory: Memory) -> list[dict[str, Any]]:
    """Return attempts that run now, those that were granted first."""
    held = (attempt for attempt in memory.attempts.values() if attempt.state == AttemptState.RUNNING)
    return [
        {
            "run_id": attempt.run_id,
            "run_name": memory.runs[attempt.run_id].name,
            "job_id": attempt.job_id,
            "attempt": attempt.attempt,
            "worker": attempt.worker,
            "started_ms": attempt.started_ms,
        }
        for attempt in islice(held, RUNNING_MAX)
    ]
