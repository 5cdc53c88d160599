"""Sending ahead: the next jobs of slots that fall free in a moment, and asking them back.

A slot whose jobs last milliseconds would stand empty for a round trip after each of them. So a worker whose recent
attempts were short holds, beside those that run, up to one more for each slot, which it starts by itself. Only when
no slot anywhere is free for a job; and not where the next free slot is spoken for: on workers that offer GPU, that a
pinned job waits for, or that lend slots.

What is sent ahead is ASSIGNED under its fence like every attempt, so nobody else is granted the job before the
worker gives it back, or comes back without it, or its lease ends. A recall is therefore a question, and the worker
decides it: it answers `Returned`, or it had begun, and `Started` is on its way. A recall is sent

- for an idle slot elsewhere that nothing queued fits, one for each such slot;
- for a queued job of higher priority that the worker could take, one for each queue;
- when it has waited for AHEAD_WAIT_MS: the worker's jobs are not short any more.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import islice

from titan.core.matching import Candidates, refusal
from titan.core.memory import Attempt, Memory, Worker
from titan.core.queues import QueueKey, ReadyQueue
from titan.model.spec import GPU
from titan.model.states import AttemptState
from titan.model.wire import Recall

AHEAD_MS_MAX = 1_000
AHEAD_WAIT_MS = 2_000
PACE_WEIGHT = 0.25
LOOKS_A_RECALL = 1_000


class Ahead:
    """What was sent ahead, where that pays, and when it is asked back."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def learn(self, attempt: Attempt) -> None:
        """An attempt has ended: its worker's pace follows, if its start was told apart from its end."""
        worker = self.memory.workers.get(attempt.worker)
        if worker is not None and attempt.begun_ms >= 0:
            took_ms = self.memory.now.mono_ms - attempt.begun_ms
            worker.pace_ms = (
                took_ms if worker.pace_ms < 0 else worker.pace_ms + PACE_WEIGHT * (took_ms - worker.pace_ms)
            )

    def servable(self, queues: Mapping[QueueKey, ReadyQueue]) -> dict[QueueKey, Candidates]:
        """Return for each queue the workers that its jobs may be sent ahead to."""
        spoken_for = {key.pinned_to for key in queues}
        workers = self.memory.workers.values()
        quick = [each for each in workers if _is_quick(each) and each.name not in spoken_for]
        if not quick:
            return {}
        return {key: Candidates(quick, key.tags, "", ahead=True) for key in queues if not key.pinned_to}

    def sent(self, worker: Worker, attempt: Attempt) -> None:
        """An attempt waits at `worker` for a slot there."""
        memory = self.memory
        attempt.ahead = True
        worker.ahead.add(attempt.fence)
        memory.ahead.setdefault(memory.ahead_key(attempt), {})[attempt.fence] = None
        memory.set_timer(memory.now.mono_ms + AHEAD_WAIT_MS, "ahead", attempt.fence)

    def settle(self, worker: Worker) -> None:
        """A worker said hello: what it has not started beyond its slots waits there, and no recall is under way."""
        for fence in sorted(worker.fences):
            attempt = self.memory.attempts[fence]
            if attempt.ahead:
                self.memory.leave_ahead(attempt)
            if worker.busy > worker.slots and attempt.state == AttemptState.ASSIGNED:
                self.sent(worker, attempt)

    def overdue(self, fence: int) -> None:
        """It has waited too long for a worker whose jobs are short."""
        attempt = self.memory.attempts[fence]
        worker = self._where_stuck(attempt)
        if worker is not None and fence not in self.memory.recalled:
            worker.pace_ms = AHEAD_MS_MAX
            self._recall(attempt, "")
        else:
            # What goes before it may begin and last; then it is this one's turn to be asked back.
            self.memory.set_timer(self.memory.now.mono_ms + AHEAD_WAIT_MS, "ahead", fence)

    def recall(self, queues: Mapping[QueueKey, ReadyQueue]) -> None:
        """Ask back what is better off elsewhere. All that could be granted has been."""
        if self.memory.ahead:
            under_way = Counter(self.memory.recalled.values())
            self._for_idle_slots(under_way)
            self._for_higher_priority(queues, under_way)

    def _for_idle_slots(self, under_way: Counter[str | QueueKey]) -> None:
        memory = self.memory
        idle = {each.name: each.free - under_way[each.name] for each in memory.workers.values() if each.free}
        for (_, tags), fences in sorted(memory.ahead.items(), key=_by_priority, reverse=True):
            takers = [name for name, slots in idle.items() if slots > 0 and not refusal(memory.workers[name], tags, "")]
            for fence in list(islice(reversed(fences), LOOKS_A_RECALL)) if takers else ():
                attempt = memory.attempts[fence]
                if self._where_stuck(attempt) is not None:
                    self._recall(attempt, takers[-1])
                    idle[takers[-1]] -= 1
                    if not idle[takers[-1]]:
                        takers.pop()
                if not takers:
                    break

    def _for_higher_priority(self, queues: Mapping[QueueKey, ReadyQueue], under_way: Counter[str | QueueKey]) -> None:
        looks = LOOKS_A_RECALL
        lowest = min((priority for priority, _ in self.memory.ahead), default=None)
        for key, queue in queues.items():
            if lowest is None or looks <= 0:
                return
            if queue.head_priority() > lowest and not under_way[key]:
                looks -= self._for_queue(key, queue.head_priority(), looks)

    def _for_queue(self, key: QueueKey, priority: int, looks: int) -> int:
        """Ask back the last of the least important attempts in the way of `key`'s foremost job; return the looks."""
        looked = 0
        for (lower, _), fences in sorted(self.memory.ahead.items(), key=_by_priority):
            if lower >= priority:
                break
            for fence in reversed(fences):
                looked += 1
                attempt = self.memory.attempts[fence]
                worker = self._where_stuck(attempt)
                if worker is not None and key.pinned_to in ("", worker.name) and key.tags <= worker.capabilities:
                    self._recall(attempt, key)
                    return looked
                if looked >= looks:
                    return looked
        return looked

    def _where_stuck(self, attempt: Attempt) -> Worker | None:
        """Return the connected worker at which `attempt` waits, unless all that waits there is asked back or starts."""
        worker = self.memory.workers.get(attempt.worker)
        if worker is None or not worker.connected or worker.incarnation != attempt.incarnation:
            return None
        recalled = sum(fence in self.memory.recalled for fence in worker.ahead)
        return worker if worker.busy - worker.slots > recalled else None

    def _recall(self, attempt: Attempt, on_behalf_of: str | QueueKey) -> None:
        memory = self.memory
        memory.forget_ahead(attempt)
        memory.recalled[attempt.fence] = on_behalf_of
        memory.send(attempt.worker, attempt.incarnation, Recall(attempt.fence))


def _is_quick(worker: Worker) -> bool:
    """Say whether the slots of `worker` fall free soon, and nobody has a claim on them."""
    lends = worker.busy < len(worker.fences)
    return 0 <= worker.pace_ms < AHEAD_MS_MAX and GPU not in worker.capabilities and not worker.devices and not lends


def _by_priority(item: tuple[tuple[int, frozenset[str]], dict[int, None]]) -> int:
    return item[0][0]
