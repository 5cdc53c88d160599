"""Slots lent by jobs that wait, so that a run can wait for runs below it however few slots there are.

A job that waits for a run below it does nothing, so its slot serves another meanwhile, and its worker holds more
attempts than it has slots. Two bounds keep that from ending in a deadlock in which everybody waits:

- At most LENT_MAX attempts of a worker lend at once. A waiting one beyond that keeps its slot until another ends.
- An attempt is granted into a lent slot only while its worker holds fewer than `slots + BEYOND_MAX[level]`. The
  level of a run is one more than that of the attempts that wait for it, 0 when nobody does; an attempt has that of
  its run, and never one below that under which it was granted, though those who waited may be lost. Every level
  may take half of what those above it left: 31 processes beyond the slots for whoever comes, 47 for the runs
  waited for, 55 for those that they wait for, and so on up to 63.

Why somebody can always go on, up to LEVEL_MAX levels and for any number of waiting jobs: assume that every attempt
waits. A worker with s slots holds at most s + 63 attempts, of which 64 lend, so a slot of it is free. Take an
attempt of the highest level, K. It waits for a living run of level K + 1. No attempt of that run waits, since it
would be of a higher level still; so a job of it stands in the queue, or will by a timer. On a worker that it fits
the newest attempt was granted at a level of K or lower, so that worker holds at most s + BEYOND_MAX[K] attempts,
fewer than level K + 1 may: the job is granted. Breadth alone (jobs for which nobody waits) never takes the room that
depth needs, on whichever workers the levels run; an order among those who wait would not do, since a hundred of
them on as many slots begin at once. Over the first bound a worker takes only jobs of runs waited for, those of the
newest wait first.

A wait is known by who waits and for what. It lasts while it is asked, and KEPT_MS after an answer that was not
final or a cut connection, until it is asked again; the final answer ends it at once. Devices are never lent. All this
lives in memory: after a load the next ask lends again, and after a hello the worker is told anew.
"""

from titan.core.events import EndLend, LendSlot
from titan.core.memory import Memory, Wait, Worker
from titan.model.wire import Lend

LENT_MAX = 64
KEPT_MS = 5_000
LEVEL_MAX = 6
BEYOND_MAX = tuple(LENT_MAX - 1 - (32 >> level) for level in range(LEVEL_MAX + 1))


def level_of(memory: Memory, run_id: str, left: int = LEVEL_MAX) -> int:
    """Return how deep below waiting attempts a run is; at most `left`."""
    highest = 0
    for fence in memory.awaited.get(run_id, ()) if left else ():
        attempt = memory.attempts[fence]
        highest = max(highest, 1 + max(attempt.level, level_of(memory, attempt.run_id, left - 1)))
    return min(highest, left)


def is_crowded(worker: Worker, level: int = 0) -> bool:
    """Say whether `worker` has no room for one more process beside those that wait, at this level."""
    return worker.beyond >= BEYOND_MAX[level]


class Lending:
    """Who waits for a run below, and whose slot is lent."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._changed = False

    def begin(self, event: LendSlot) -> None:
        """An attempt asks for the end of a living run below it, or of a job there. `settle` lends its slot."""
        memory = self.memory
        attempt = memory.attempts.get(event.fence)
        if attempt is None or event.run_id not in memory.runs or event.run_id == attempt.run_id:
            return
        wait = memory.waits.get(event.fence)
        if wait is None:
            wait = memory.waits[event.fence] = Wait(event.fence, {}, {}, set())
            memory.unlent[event.fence] = None
        target = (event.run_id, event.job_id)
        wait.kept.pop(target, None)
        wait.asked[target] = wait.asked.get(target, 0) + 1
        memory.await_only(wait, wait.runs | {event.run_id})
        self._changed = True

    def end(self, event: EndLend) -> None:
        """One ask is over: with the final answer, or it may be asked again within KEPT_MS."""
        wait = self.memory.waits.get(event.fence)
        if wait is None:
            return
        target = (event.run_id, event.job_id)
        left = wait.asked.pop(target, 0) - 1
        if left > 0:
            wait.asked[target] = left
        elif event.final:
            wait.kept.pop(target, None)
        elif not left:
            wait.kept[target] = self.memory.now.mono_ms + KEPT_MS
            self.memory.set_timer(wait.kept[target], "lend", event.fence)
        self._look_at(wait)

    def due(self, fence: int) -> None:
        """A wait was not asked again in time."""
        wait = self.memory.waits[fence]
        now_ms = self.memory.now.mono_ms
        wait.kept = {target: until_ms for target, until_ms in wait.kept.items() if until_ms > now_ms}
        self._look_at(wait)

    def _look_at(self, wait: Wait) -> None:
        """Forget what is not waited for any more; without any, the slot is the attempt's own again."""
        memory = self.memory
        attempt = memory.attempts[wait.fence]
        memory.await_only(wait, {run_id for run_id, _ in (*wait.asked, *wait.kept)})
        if wait.runs:
            return
        if wait.fence not in memory.unlent:
            memory.send(attempt.worker, attempt.incarnation, Lend(wait.fence, on=False))
        memory.drop_wait(attempt)

    def settle(self) -> bool:
        """Lend the slots of those who wait, as far as their workers may; say whether more may be granted now."""
        memory = self.memory
        changed, self._changed = self._changed, False
        for fence in list(memory.unlent):
            attempt = memory.attempts[fence]
            worker = memory.workers.get(attempt.worker)
            if worker is not None and fence in worker.fences and len(worker.lent) < LENT_MAX:
                del memory.unlent[fence]
                self._lend(worker, fence)
                changed = True
        return changed

    def say_again(self, worker: Worker) -> None:
        """A worker process is back, and has forgotten whose slots are lent."""
        for fence in sorted(worker.fences):
            if fence in self.memory.waits and fence not in self.memory.unlent:
                self._lend(worker, fence)

    def _lend(self, worker: Worker, fence: int) -> None:
        worker.lent.add(fence)
        self.memory.send(worker.name, worker.incarnation, Lend(fence, on=True))
