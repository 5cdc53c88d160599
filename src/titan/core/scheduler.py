"""The scheduler: one event in, one decision out.

`handle` is a function of the events so far and the times given with them; it does no I/O, reads no clock
and draws no random number. It changes its memory at once and returns what must be committed before
anybody may learn of it; if that commit fails the whole scheduler is thrown away and a new one is loaded.
"""

import heapq
from collections.abc import Callable
from typing import Any

from msgspec.structs import asdict

from titan.core import overview
from titan.core.changes import Update
from titan.core.dispatch import Dispatcher
from titan.core.events import (
    AttemptEnded,
    AttemptReturned,
    AttemptStarted,
    CancelJob,
    CancelRun,
    Continue,
    Decision,
    DrainWorker,
    DropStage,
    EndLend,
    Event,
    ExtendRun,
    FlipRun,
    LendSlot,
    Now,
    PrepareStop,
    Refusal,
    RetryRun,
    StageJobs,
    StageRun,
    SubmitRun,
    Tick,
    WorkerConnected,
    WorkerDisconnected,
    WorkerDraining,
    WorkerRenewed,
)
from titan.core.explain import Explainer, Explanation
from titan.core.lending import Lending
from titan.core.lifecycle import Lifecycle, equip, reopened
from titan.core.memory import (
    LEASE_GRACE_S,
    Attempt,
    Job,
    Memory,
    Run,
    Worker,
)
from titan.core.rows import AttemptRow, EdgeRow, JobRow, RunRow, Snapshot, starts_again
from titan.core.runs import Runs
from titan.core.workers import FORGET_WORKER_MS, Workers, worker_fields
from titan.model.limits import Limits
from titan.model.spec import decode_spec
from titan.model.states import FINAL_JOB_STATES, JobState

STEPS_AN_EVENT = 400
EXTEND_MS_MAX = 15 * 60_000
TIMERS_AN_EVENT = 400


class Scheduler:
    """Decides everything about runs, jobs, attempts and workers."""

    def __init__(self, epoch: int, limits: Limits) -> None:
        self.memory = Memory(epoch, limits)
        self.dispatcher = Dispatcher(self.memory)
        self.lifecycle = Lifecycle(self.memory, self.dispatcher)
        self.runs = Runs(self.memory, self.lifecycle)
        self.lending = Lending(self.memory)
        self.workers = Workers(self.memory, self.lifecycle, self.dispatcher, self.lending)
        self.explainer = Explainer(self.memory, self.dispatcher, self.workers)
        self._handlers: dict[type, Callable[[Any], dict[str, Any] | Refusal | None]] = {
            SubmitRun: self.runs.submit,
            StageRun: self.runs.stage,
            StageJobs: self.runs.stage_jobs,
            FlipRun: self.runs.flip,
            DropStage: self.runs.drop_stage,
            ExtendRun: self.runs.extend,
            CancelRun: self.runs.cancel,
            CancelJob: self.runs.cancel_job,
            RetryRun: self.runs.retry,
            WorkerConnected: self.workers.connected,
            WorkerDisconnected: self.workers.disconnected,
            WorkerRenewed: self.workers.renewed,
            WorkerDraining: self.workers.draining,
            DrainWorker: self.workers.drain,
            AttemptStarted: self.workers.started,
            AttemptReturned: self.workers.returned,
            AttemptEnded: self.workers.ended,
            LendSlot: self.lending.begin,
            EndLend: self.lending.end,
            Tick: self._nothing,
            Continue: self._nothing,
            PrepareStop: self._prepare_stop,
        }

        self._on_timer: dict[str, Callable[[Any], None]] = {
            "due": self.lifecycle.make_ready,
            "affinity": self.dispatcher.release,
            "ahead": self.dispatcher.ahead.overdue,
            "lease": self.workers.lease_due,
            "worker": self.workers.forget_due,
            "lend": self.lending.due,
        }

    def handle(self, event: Event, now: Now) -> Decision:
        """Take one event and return the decision; see `Decision` for what may be done with it when.

        Raises only for defects of ours (an illegal move, say); the caller then throws this scheduler away.
        """
        self.memory.now = now
        self.memory.out = Decision(changes=[], sends=[], news=[], answer={})
        result = self._handlers[type(event)](event)
        if isinstance(result, Refusal):
            self.memory.out.refusal = result
        elif result:
            self.memory.out.answer = result
        return self._finish_decision()

    def load(self, snapshot: Snapshot, now: Now) -> Decision:
        """Rebuild from the database what is not over; the decision holds what was left undone by a crash."""
        self.memory.now = now
        self.memory.out = Decision(changes=[], sends=[], news=[], answer={})
        for row in snapshot.runs:
            self.memory.enter_run(_loaded_run(row))
        for job_row in snapshot.jobs:
            run = self.memory.runs[job_row.run_id]
            job = _loaded_job(run, job_row)
            run.jobs[job.job_id] = job
            self.memory.count(run, None, job.state)
        for attempt_row in snapshot.attempts:
            self._load_attempt(attempt_row)
        for job_row in snapshot.jobs:
            if job_row.affinity_worker:
                self._expect(job_row.affinity_worker)
        doomed = self._link(snapshot.edges)
        for run in list(self.memory.runs.values()):
            self.lifecycle.in_slices(self.lifecycle.own_all(run, doomed.get(run.run_id, ())))
        return self._finish_decision()

    def explain(self, run_id: str, job_id: str, now: Now) -> Explanation | None:
        """Return why a living job is where it is; None when it is over or unknown."""
        self.memory.now = now
        return self.explainer.explain(run_id, job_id)

    def holds(self, fence: int) -> bool:
        """Say whether the attempt with this fence is living: a job token is valid just as long."""
        return fence in self.memory.attempts

    def worker_of(self, fence: int) -> str:
        """Return the name of the worker that has the attempt with this fence; "" when it is not living."""
        attempt = self.memory.attempts.get(fence)
        return "" if attempt is None else attempt.worker

    def offered(self) -> frozenset[str]:
        """Return every capability that a connected worker offers."""
        tags = [worker.capabilities for worker in self.memory.workers.values() if worker.connected]
        return frozenset().union(*tags)

    def worker_list(self) -> list[dict[str, Any]]:
        """Return the workers known, by name: plain values for people."""
        return [worker_fields(worker) for _, worker in sorted(self.memory.workers.items())]

    def stats(self) -> dict[str, Any]:
        """Return counts of what lives: runs, jobs by state, workers, slots, queues by requirement."""
        memory = self.memory
        states = {state: memory.states.get(state, 0) for state in JobState if state not in FINAL_JOB_STATES}
        connected = [worker for worker in memory.workers.values() if worker.connected]
        return {
            "runs_living": len(memory.runs),
            "jobs": {state: count for state, count in states.items() if count},
            "workers": len(connected),
            "slots": sum(worker.slots for worker in connected),
            "slots_free": sum(worker.free for worker in connected),
            "queues": overview.ready(self.dispatcher),
        }

    def overview(self) -> dict[str, list[dict[str, Any]]]:
        """Return the longest queues with why they wait, and what runs: some of each, however many there are."""
        return {
            "waiting": overview.waiting(self.dispatcher, self.explainer),
            "running": overview.running(self.memory),
        }

    def _finish_decision(self) -> Decision:
        memory = self.memory
        self._fire_timers()
        if memory.slices:
            memory.run_slices(STEPS_AN_EVENT)
        if self.lending.settle():
            self.dispatcher.wanted = True
        more = self.dispatcher.wanted and self.dispatcher.dispatch()
        if memory.dirty_runs:
            memory.flush_runs()
        out = memory.out
        out.more = more or bool(memory.slices)
        out.wake_ms = memory.timers[0][0] if memory.timers else None
        return out

    def _fire_timers(self) -> None:
        for _ in range(TIMERS_AN_EVENT):
            timers = self.memory.timers
            if not timers or timers[0][0] > self.memory.now.mono_ms:
                return
            timer = heapq.heappop(timers)
            if self.memory.matters(timer):
                self._on_timer[timer[2]](timer[3])

    def _nothing(self, event: Tick | Continue) -> None:
        """Timers and slices are seen to at the end of every event."""

    def _prepare_stop(self, event: PrepareStop) -> None:
        until_ms = self.memory.now.wall_ms + min(EXTEND_MS_MAX, event.extend_ms)
        for attempt in self.memory.attempts.values():
            attempt.lease_until_ms = until_ms
            self.memory.out.changes.append(
                Update("attempts", (attempt.fence,), {"state": attempt.state}, {"lease_until_ms": until_ms})
            )

    def _load_attempt(self, row: AttemptRow) -> None:
        memory = self.memory
        attempt = Attempt(**asdict(row), base_ms=memory.now.mono_ms)
        if attempt.lease_until_ms is not None:
            # A wall clock that was set back meanwhile prolongs nothing beyond what was ever promised.
            left_ms = min(EXTEND_MS_MAX, max(0, attempt.lease_until_ms - memory.now.wall_ms))
            attempt.not_before_ms = memory.now.mono_ms + left_ms + LEASE_GRACE_S * 1000
        self._expect(attempt.worker, attempt.incarnation, attempt.boot_id)
        memory.hold(attempt)
        memory.set_timer(self.workers.lease_deadline_ms(attempt), "lease", attempt.fence)

    def _expect(self, name: str, incarnation: str = "", boot_id: str = "") -> None:
        """Wait for a worker that was known before the start as long as for one that went away just now."""
        memory = self.memory
        if name not in memory.workers:
            memory.workers[name] = Worker(
                name=name, incarnation=incarnation, boot_id=boot_id, capabilities=frozenset(), slots=1,
                connected=False, renewed_ms=memory.now.mono_ms, fences=set(), device_fences=set(), lent=set(),
                ahead=set(),
            )  # fmt: skip
            memory.forget_at(memory.workers[name], memory.now.mono_ms + FORGET_WORKER_MS)

    def _link(self, edges: list[EdgeRow]) -> dict[str, set[str]]:
        """Link children to living parents; return by run the jobs whose parent is over without success."""
        doomed: dict[str, set[str]] = {}
        for edge in edges:
            jobs = self.memory.runs[edge.run_id].jobs
            child, parent = jobs[edge.job_id], jobs.get(edge.parent_id)
            child.waiting_for += 1
            if parent is None:
                doomed.setdefault(edge.run_id, set()).add(edge.job_id)
            elif parent.children is None:
                parent.children = [child]
            else:
                parent.children.append(child)
        return doomed


def _loaded_run(row: RunRow) -> Run:
    return Run(
        **asdict(row),
        saved_state=row.state, saved_generation=row.generation, saved_opening=row.opening,
        jobs={}, living=set(), roots=[], unlinked={},
    )  # fmt: skip


def _loaded_job(run: Run, row: JobRow) -> Job:
    if starts_again(run, row):
        # Either all its parents stay completed, and its row has the pin they gave it, or the last of them pins it.
        return reopened(row, run.generation, row.affinity_worker)
    job = Job(**asdict(row), tags=frozenset())
    equip(job, decode_spec(row.spec))
    return job
