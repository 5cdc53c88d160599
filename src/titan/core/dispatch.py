"""From ready to granted: the queues, and the loop that empties them into free slots, then into those soon free.

Among queues that a free worker could serve, the one whose foremost job has the highest priority goes
first, the longest waiting among equals; every 16th grant goes to the queue with the oldest job, as inside
a queue. A decision grants at most GRANTS_A_SLICE jobs, fewer when it has many queues to look at; the rest
follows in the next slice.
"""

import hashlib
from collections.abc import Iterator

from titan.core import reasons
from titan.core.ahead import Ahead
from titan.core.lending import level_of
from titan.core.matching import Candidates, refusal
from titan.core.memory import ATTEMPT_COLUMNS as COLUMNS
from titan.core.memory import LEASE_GRACE_S, Attempt, Job, Memory, Worker
from titan.core.queues import AGEING_PERIOD, Lengths, QueueKey, ReadyQueue
from titan.core.states import JobEvent
from titan.model.states import AttemptState, JobState
from titan.model.wire import Grant

GRANTS_A_SLICE = 256
LOOKS_A_SLICE = 1_000


class Dispatcher:
    """The ready queues of one scheduler."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.ahead = Ahead(memory)
        self.queues: dict[QueueKey, ReadyQueue] = {}
        self.lengths = Lengths()
        self.grants = 0
        self.wanted = False

    def enqueue(self, job: Job) -> None:
        """Put a QUEUED job in its queue; pins it to its parent's worker where it asks for that."""
        memory = self.memory
        seq = memory.next_sequence()
        pins = job.affinity and bool(job.affinity_worker)
        fits = pins and self._may_pin(job)
        job.pinned_to = job.affinity_worker if fits else ""
        job.note = reasons.AFFINITY_RELEASED if pins and not fits else ""
        self._queue(job).add(job, seq)
        if fits:
            memory.set_timer(memory.now.mono_ms + job.affinity_wait_ms, "affinity", job, seq)
        self.wanted = True

    def _may_pin(self, job: Job) -> bool:
        """Say whether the parent's worker is worth waiting for: it fits, or is expected back after our start."""
        worker = self.memory.workers.get(job.affinity_worker)
        if worker is None or worker.draining:
            return False
        return not worker.connected_wall_ms or job.tags <= worker.capabilities

    def dequeue(self, job: Job) -> None:
        """Take a QUEUED job out of its queue; does nothing when it stands in none."""
        if job.queue_seq:
            self._queue(job).remove(job)
            self._drop_if_empty(QueueKey(job.tags, job.pinned_to))

    def release(self, job: Job) -> None:
        """Let any fitting worker take a job that waits for the one it is pinned to, for good."""
        self.dequeue(job)
        self.memory.amend(job, affinity_worker="")
        job.pinned_to, job.note = "", reasons.AFFINITY_RELEASED
        self._queue(job).add(job, self.memory.next_sequence())
        self.wanted = True

    def recheck_pins(self, name: str) -> None:
        """Release what is pinned to a worker that came back without the capability for it, or to leave."""
        worker = self.memory.workers[name]
        for key, queue in self.queues.items():
            if key.pinned_to == name and (worker.draining or not key.tags <= worker.capabilities):
                self.memory.slices.append(self._release_all(queue))

    def release_pins_to(self, name: str) -> None:
        """Release every job pinned to a worker that is gone for good, or leaves."""
        for key, queue in self.queues.items():
            if key.pinned_to == name:
                self.memory.slices.append(self._release_all(queue))

    def _release_all(self, queue: ReadyQueue) -> Iterator[None]:
        while queue.count:
            self.release(queue.oldest())
            yield

    def dispatch(self) -> bool:
        """Grant what can be granted; return True when more is left than one slice takes."""
        left = self._empty_into(self._servable(), GRANTS_A_SLICE) if self.queues else GRANTS_A_SLICE
        if left and self.queues:
            left = self._empty_into(self.ahead.servable(self.queues), left, ahead=True)
        if not left:
            return True
        self.wanted = False
        self.ahead.recall(self.queues)
        return False

    def _empty_into(self, served: dict[QueueKey, Candidates], left: int, ahead: bool = False) -> int:
        """Grant to the workers in `served`, or send ahead; return how many more the slice takes, 0: there are more."""
        looks = 0
        while left and looks <= LOOKS_A_SLICE:
            left -= 1
            looks += len(served)
            choice = self._choose(served)
            if choice is not None:
                key, worker = choice
                job = self.queues[key].take()
            elif not ahead and (deeper := self._choose_deeper()) is not None:
                key, worker, job = deeper
            else:
                return left + 1
            self._drop_if_empty(key)
            if key not in self.queues:
                served.pop(key, None)
            if self.memory.is_cancelled(job):
                continue  # its cancel is on the way; once that is acknowledged, nothing of the run is granted
            self.grants += 1
            attempt = self._grant(job, worker)
            if ahead:
                self.ahead.sent(worker, attempt)
        return 0

    def _servable(self) -> dict[QueueKey, Candidates]:
        """Return for each queue the workers free for it now."""
        free = {worker.name: worker for worker in self.memory.workers.values() if worker.free > 0}
        served: dict[QueueKey, Candidates] = {}
        if free:
            for key in self.queues:
                few = [free[key.pinned_to]] if key.pinned_to in free else ()
                served[key] = Candidates(few if key.pinned_to else free.values(), key.tags, key.pinned_to)
        return served

    def _choose(self, served: dict[QueueKey, Candidates]) -> tuple[QueueKey, Worker] | None:
        chosen: tuple[QueueKey, Worker] | None = None
        chosen_rank: tuple[int, int] | None = None
        by_age = (self.grants + 1) % AGEING_PERIOD == 0
        for key, candidates in list(served.items()):
            worker = candidates.best()
            if worker is None:
                del served[key]
                continue
            queue = self.queues[key]
            priority = 0 if by_age else -queue.head_priority()
            rank = (priority, queue.oldest().queue_seq)
            if chosen_rank is None or rank < chosen_rank:
                chosen, chosen_rank = (key, worker), rank
        return chosen

    def _choose_deeper(self) -> tuple[QueueKey, Worker, Job] | None:
        """Where only room kept for depth is left, take a job of the run that was waited for last, out of its turn."""
        memory = self.memory
        crowded = [worker for worker in memory.workers.values() if worker.free > 0] if memory.awaited else []
        for run_id in reversed(memory.awaited) if crowded else ():
            run = memory.runs.get(run_id)
            if run is None or not run.states.get(JobState.QUEUED):
                continue
            level = level_of(memory, run_id)
            for key, queue in self.queues.items():
                fitting = [each for each in crowded if refusal(each, key.tags, key.pinned_to, level) is None]
                job = queue.take_of(run_id) if fitting else None
                if job is not None:
                    return key, min(fitting, key=lambda each: (each.beyond, each.name)), job
        return None

    def _grant(self, job: Job, worker: Worker) -> Attempt:
        memory = self.memory
        fence = memory.next_fence()
        memory.move(job, JobEvent.ASSIGN, fence=fence, attempt=job.attempt + 1, worker=worker.name, reason="")
        job.pinned_to = job.note = ""
        attempt = Attempt(
            fence=fence, run_id=job.run_id, job_id=job.job_id, generation=job.generation, attempt=job.attempt,
            worker=worker.name, incarnation=worker.incarnation, boot_id=worker.boot_id,
            state=AttemptState.ASSIGNED, lease_s=job.lease_s, lease_until_ms=None,
            granted_ms=memory.now.wall_ms, started_ms=None, ended_ms=None, exit_code=None, signal=0, cause="",
            log_bytes=0, start="", base_ms=memory.now.mono_ms, level=level_of(memory, job.run_id),
        )  # fmt: skip
        memory.insert("attempts", attempt, COLUMNS)
        memory.hold(attempt)
        memory.set_timer(memory.now.mono_ms + (job.lease_s + LEASE_GRACE_S) * 1000, "lease", fence)
        agent_run_id = memory.runs[job.run_id].agent_run_id
        grant = Grant(
            fence=fence, run_id=job.run_id, job_id=job.job_id, generation=job.generation, attempt=job.attempt,
            spec=job.spec, token="", idempotency_key=idempotency_key(job), agent_run_id=agent_run_id,
        )  # fmt: skip
        memory.send(worker.name, worker.incarnation, grant)
        return attempt

    def _queue(self, job: Job) -> ReadyQueue:
        key = QueueKey(job.tags, job.pinned_to)
        queue = self.queues.get(key)
        if queue is None:
            queue = self.queues[key] = ReadyQueue(key, self.lengths)
        return queue

    def _drop_if_empty(self, key: QueueKey) -> None:
        queue = self.queues.get(key)
        if queue is not None and not queue.count:
            # A new queue starts its ageing count anew: nothing waits in an empty one.
            del self.queues[key]

    def refusals(self, job: Job) -> dict[str, list[str]]:
        """Return for each reason the workers that refuse `job` for it now, by name."""
        found: dict[str, list[str]] = {}
        level = level_of(self.memory, job.run_id)
        for worker in self.memory.workers.values():
            reason = refusal(worker, job.tags, job.pinned_to, level)
            if reason is not None:
                found.setdefault(reason, []).append(worker.name)
        return found

    def ahead_of(self, job: Job) -> int:
        """Return how many jobs of higher priority stand in `job`'s queue."""
        return self._queue(job).ahead_of(job) if job.queue_seq else 0


def idempotency_key(job: Job) -> str:
    """Return what TITAN_IDEMPOTENCY_KEY holds: the same in all attempts of one generation of a job."""
    return hashlib.sha256(f"{job.run_id}/{job.job_id}/{job.generation}".encode()).hexdigest()[:32]
