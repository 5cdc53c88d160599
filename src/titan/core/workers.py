"""Reports of workers: hello, farewell, renewals, and what became of each attempt.

Everything an attempt says names its fence. A fence that is not living here is stale: its end is
acknowledged so that the worker forgets it, and changes nothing. A worker process can speak only of
attempts that were granted to that very process (name and incarnation), or that it adopted: a process that
was started after another of its name says in its hello what that one had begun, and reports the ends.

Leases: the worker's clock counts from the send of its last answered renewal and kills at L - 10 s; ours
counts from the receipt, and an attempt is given up at L + 5 s. So no attempt lives twice as long as clock
rates differ by less than a tenth.
"""

from typing import Any

from titan.core import reasons
from titan.core.changes import Update
from titan.core.dispatch import Dispatcher
from titan.core.events import (
    AttemptEnded,
    AttemptReturned,
    AttemptStarted,
    DrainWorker,
    News,
    Refusal,
    WorkerConnected,
    WorkerDisconnected,
    WorkerDraining,
    WorkerRenewed,
)
from titan.core.lending import Lending
from titan.core.lifecycle import POSTPONE_MS, Lifecycle, end_values
from titan.core.memory import LEASE_GRACE_S, Attempt, Memory, Worker
from titan.core.states import JobEvent, RunEvent
from titan.model.states import AttemptState, RunState
from titan.model.wire import (
    CAUSE_LEASE,
    CAUSE_LOST,
    CAUSE_OUT_OF_MEMORY,
    CAUSE_START_FAILED,
    CAUSE_TIMEOUT,
    CAUSE_WORKER_STOP,
    Ack,
    Drain,
    Ended,
    Stop,
    Welcome,
)

FORGET_WORKER_MS = 65_000


class Workers:
    """What workers tell the scheduler."""

    def __init__(self, memory: Memory, lifecycle: Lifecycle, dispatcher: Dispatcher, lending: Lending) -> None:
        self.memory = memory
        self.lifecycle = lifecycle
        self.lending = lending
        self.dispatcher = dispatcher

    def connected(self, event: WorkerConnected) -> None:
        """Take a worker in and settle the difference between what it holds and what we gave it."""
        memory = self.memory
        held = {attempt.fence: attempt for attempt in event.attempts}
        worker = Worker(
            name=event.name, incarnation=event.incarnation, boot_id=event.boot_id,
            capabilities=frozenset(event.capabilities), slots=event.slots, connected=True,
            renewed_ms=memory.now.mono_ms, host=event.host, pid=event.pid, version=event.version,
            connected_wall_ms=memory.now.wall_ms, devices=len(event.devices), fences=set(), device_fences=set(),
            lent=set(), ahead=set(), predecessor=event.predecessor,
        )  # fmt: skip
        former = memory.workers.get(event.name)
        records = _records_of(event, former)
        worker.pace_ms = former.pace_ms if former is not None else -1
        worker.told_to_drain = former is not None and former.incarnation == event.incarnation and former.told_to_drain
        worker.draining = event.draining or worker.told_to_drain
        known = former is not None and former.incarnation == event.incarnation and former.connected_wall_ms > 0
        if former is not None and known and not former.hears:
            # It may hear nothing of us and say hello for ever, with attempts that it has ended long ago.
            worker.renewed_ms = former.renewed_ms
        if former is not None and former.incarnation != event.incarnation:
            for fence in former.fences:  # it may live on, and its own clock counts from there
                memory.attempts[fence].base_ms = max(memory.attempts[fence].base_ms, former.renewed_ms)
        memory.workers[event.name] = worker
        cancelled: list[Attempt] = []
        for fence in sorted(memory.fences_of.get(event.name, ())):
            attempt = memory.attempts[fence]
            if fence not in held:
                self._not_held(attempt, event, records)
                continue
            if attempt.incarnation != event.incarnation:
                self._adopt(attempt, event)
            memory.occupy(worker, attempt)
            self._came_back(attempt)
            if held[fence].started:
                self._start(attempt)
            if memory.is_cancelled(memory.job_of(attempt)):
                cancelled.append(attempt)
        stop = tuple(fence for fence in held if fence not in worker.fences)
        memory.send(event.name, event.incarnation, Welcome(epoch=memory.epoch, stop=stop))
        if worker.told_to_drain:
            memory.send(event.name, event.incarnation, Drain())
        for attempt in cancelled:
            memory.send(event.name, event.incarnation, Stop(attempt.fence))
        self.lending.say_again(worker)
        self.dispatcher.ahead.settle(worker)
        self._tell(worker)
        self.dispatcher.recheck_pins(event.name)
        self.dispatcher.wanted = True

    def disconnected(self, event: WorkerDisconnected) -> None:
        """Its link closed: its leases go on running, and it is forgotten when they are over."""
        worker = self.memory.workers.get(event.name)
        if worker is not None and worker.incarnation == event.incarnation:
            worker.connected = False
            self._tell(worker)
            self.memory.forget_at(worker, self.memory.now.mono_ms + FORGET_WORKER_MS)

    def renewed(self, event: WorkerRenewed) -> None:
        """All leases of this process begin anew."""
        worker = self.memory.workers.get(event.name)
        if worker is None or worker.incarnation != event.incarnation:
            return
        worker.renewed_ms = self.memory.now.mono_ms
        worker.hears = True
        if not worker.connected:
            worker.connected = self.dispatcher.wanted = True
            self._tell(worker)

    def draining(self, event: WorkerDraining) -> None:
        """It takes nothing more; it gives back by itself what it has not started."""
        worker = self.memory.workers.get(event.name)
        if worker is not None and worker.incarnation == event.incarnation:
            self._leave(worker)

    def drain(self, event: DrainWorker) -> dict[str, object] | Refusal:
        """Have a worker leave: this process, over every link it makes, but not one started anew."""
        worker = self.memory.workers.get(event.name)
        if worker is None:
            return Refusal("not_found", f"no worker {event.name} is known here: see titan worker ls")
        if not worker.told_to_drain:
            worker.told_to_drain = True
            self.memory.send(worker.name, worker.incarnation, Drain())
        self._leave(worker)
        return worker_fields(worker)

    def _leave(self, worker: Worker) -> None:
        if not worker.draining:
            worker.draining = True
            self.dispatcher.release_pins_to(worker.name)
            self._tell(worker)

    def started(self, event: AttemptStarted) -> None:
        """The attempt was handed to the launcher."""
        attempt = self._attempt(event.worker, event.incarnation, event.fence)
        if attempt is not None and attempt.state == AttemptState.ASSIGNED:
            attempt.begun_ms = self.memory.now.mono_ms
            self.dispatcher.wanted = self.dispatcher.wanted or attempt.fence in self.memory.recalled
            self._start(attempt, event.start)

    def returned(self, event: AttemptReturned) -> None:
        """Given back unstarted: the attempt number is given back too."""
        attempt = self._attempt(event.worker, event.incarnation, event.fence)
        if attempt is None or attempt.state != AttemptState.ASSIGNED:
            return
        self._hand_back(attempt, event.reason)

    def ended(self, event: AttemptEnded) -> None:
        """The attempt is over; the answer makes the worker forget it, whether or not it was stale."""
        memory, ended = self.memory, event.ended
        memory.send(event.worker, event.incarnation, Ack(ended=(ended.fence,)))
        attempt = self._attempt(event.worker, event.incarnation, ended.fence)
        if attempt is None:
            return
        self._start(attempt)
        self.dispatcher.ahead.learn(attempt)
        self.dispatcher.wanted = True
        job = memory.job_of(attempt)
        if ended.cause == CAUSE_LOST:
            self.lifecycle.lose(attempt, counts=True, ended=ended)
            return
        if ended.cause in (CAUSE_WORKER_STOP, CAUSE_LEASE) and not memory.is_cancelled(job):
            why = reasons.END_WORKER_STOP if ended.cause == CAUSE_WORKER_STOP else reasons.END_LOST
            self.lifecycle.lose(attempt, counts=False, reason=why, ended=ended)
            return
        memory.close_attempt(attempt, AttemptState.ENDED, **end_values(ended))
        if memory.is_cancelled(job):
            self.lifecycle.finish(job, JobEvent.CANCEL, reasons.END_CANCELLED, ended.exit_code)
        elif ended.exit_code == 0 and not ended.cause:
            self.lifecycle.finish(job, JobEvent.SUCCEED, "", 0)
        else:
            self.lifecycle.fail(job, end_reason(ended), ended.exit_code, event.jitter)

    def lease_due(self, fence: int) -> None:
        """A living attempt's lease timer fired: give it up, or wait for what is left."""
        attempt = self.memory.attempts[fence]
        deadline_ms = self.lease_deadline_ms(attempt)
        if deadline_ms > self.memory.now.mono_ms:
            self.memory.set_timer(deadline_ms, "lease", fence)
        else:
            self._silence(attempt)
            # It may hear us though we do not hear it, and must not run beside the job's next attempt.
            self.memory.send(attempt.worker, attempt.incarnation, Stop(fence))
            self.lifecycle.lose(attempt, counts=True)
            self.dispatcher.wanted = True

    def _silence(self, attempt: Attempt) -> None:
        """A process that let a lease run out takes nothing new until it renews, though its link may be open."""
        worker = self.memory.workers.get(attempt.worker)
        if worker is not None and worker.incarnation == attempt.incarnation and worker.connected:
            worker.connected = False
            self._tell(worker)
            self.memory.forget_at(worker, self.memory.now.mono_ms + FORGET_WORKER_MS)

    def lease_deadline_ms(self, attempt: Attempt) -> int:
        """Return the monotonic time at which `attempt` is given up unless its worker renews."""
        base_ms = attempt.base_ms
        worker = self.memory.workers.get(attempt.worker)
        if worker is not None and worker.incarnation == attempt.incarnation:
            base_ms = max(base_ms, worker.renewed_ms)
        return max(base_ms + (attempt.lease_s + LEASE_GRACE_S) * 1000, attempt.not_before_ms)

    def forget_due(self, name: str) -> None:
        """A worker has been away for long: forget it once it holds nothing, and release what is pinned to it."""
        worker = self.memory.workers[name]
        if worker.connected:
            return
        held = [self.lease_deadline_ms(self.memory.attempts[fence]) for fence in worker.fences]
        forget_ms = max([worker.renewed_ms + FORGET_WORKER_MS, *held])
        if forget_ms > self.memory.now.mono_ms:
            self.memory.forget_at(worker, forget_ms)
            return
        del self.memory.workers[name]
        self.memory.out.news.append(News("worker", "", "", {"name": name, "connected": False, "forgotten": True}))
        self.dispatcher.release_pins_to(name)

    def _attempt(self, worker: str, incarnation: str, fence: int) -> Attempt | None:
        attempt = self.memory.attempts.get(fence)
        if attempt is None or (attempt.worker, attempt.incarnation) != (worker, incarnation):
            return None
        return attempt

    def _start(self, attempt: Attempt, start: str = "") -> None:
        if attempt.state != AttemptState.ASSIGNED:
            return
        wall_ms = self.memory.now.wall_ms
        self.memory.start_attempt(attempt, start)
        job = self.memory.job_of(attempt)
        self.memory.move(job, JobEvent.START, started_ms=wall_ms)
        run = self.memory.runs[job.run_id]
        if run.state == RunState.QUEUED:
            self.memory.move_run(run, RunEvent.START, started_ms=wall_ms)

    def _came_back(self, attempt: Attempt) -> None:
        """An extension that an orderly stop of the Master gave is over once the worker is back."""
        attempt.not_before_ms = 0
        if attempt.lease_until_ms is not None:
            attempt.lease_until_ms = None
            self.memory.set_timer(self.lease_deadline_ms(attempt), "lease", attempt.fence)
            self.memory.out.changes.append(
                Update("attempts", (attempt.fence,), {"state": attempt.state}, {"lease_until_ms": None})
            )

    def _adopt(self, attempt: Attempt, event: WorkerConnected) -> None:
        """A process before this one had begun it; this one has its records and reports how it ended."""
        expect = {"state": attempt.state, "incarnation": attempt.incarnation}
        values = {"incarnation": event.incarnation, "boot_id": event.boot_id}
        attempt.incarnation, attempt.boot_id = event.incarnation, event.boot_id
        self.memory.out.changes.append(Update("attempts", (attempt.fence,), expect, values))

    def _not_held(self, attempt: Attempt, event: WorkerConnected, records: frozenset[str]) -> None:
        """The worker that says hello does not name it: never begun there, lost there, or not there to be known.

        What a process begins is on its disk first, so one that has the whole record knows, on the same boot: a disk
        may lack the last of it after another. One that has not may be of another machine or of another home of this
        one, and the process before it may live: time has to tell.
        """
        if attempt.incarnation not in records or attempt.boot_id != event.boot_id:
            return
        if attempt.state == AttemptState.ASSIGNED:
            self._hand_back(attempt, "")
        else:
            self.lifecycle.lose(attempt, counts=True)

    def _hand_back(self, attempt: Attempt, reason: str) -> None:
        job = self.memory.job_of(attempt)
        self.memory.close_attempt(attempt, AttemptState.RETURNED, cause=reason)
        self.dispatcher.wanted = True
        if self.memory.is_cancelled(job):
            self.memory.amend(job, attempt=job.attempt - 1)
            self.lifecycle.finish(job, JobEvent.CANCEL, reasons.END_CANCELLED)
        elif reason:
            # The machine of its parent cannot start it either, so it is not waited for again.
            values = {"attempt": job.attempt - 1, "affinity_worker": ""}
            self.lifecycle.delay(job, JobEvent.POSTPONE, POSTPONE_MS, reasons.WAIT_POSTPONED, **values)
            job.note = reason
        else:
            self.lifecycle.make_ready(job, JobEvent.RETURN, attempt=job.attempt - 1)

    def _tell(self, worker: Worker) -> None:
        told = {"name": worker.name, "connected": worker.connected, "draining": worker.draining, "forgotten": False}
        self.memory.out.news.append(News("worker", "", "", told))


def _records_of(event: WorkerConnected, former: Worker | None) -> frozenset[str]:
    """Return the processes whose whole record the one that says hello has, its own included.

    A process leaves its own record behind once it is welcome, and begins nothing before. So one that was never heard
    of after its hello has begun nothing where the next one tells the predecessor that it told itself.
    """
    records = {event.incarnation}
    if event.predecessor:
        records.add(event.predecessor)
        if former is not None and not former.hears and former.predecessor == event.predecessor:
            records.add(former.incarnation)
    return frozenset(records)


def worker_fields(worker: Worker) -> dict[str, Any]:
    """Return what people are told of a worker, as plain values."""
    return {
        "name": worker.name,
        "connected": worker.connected,
        "capabilities": sorted(worker.capabilities),
        "slots": worker.slots,
        "running": len(worker.fences) - len(worker.ahead),
        "ahead": len(worker.ahead),
        "devices": worker.devices,
        "draining": worker.draining,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "incarnation": worker.incarnation,
        "connected_at_ms": worker.connected_wall_ms,
    }


def end_reason(ended: Ended) -> str:
    """Return the reason constant for an attempt that did not succeed."""
    by_cause = {
        CAUSE_TIMEOUT: reasons.END_TIMEOUT,
        CAUSE_OUT_OF_MEMORY: reasons.END_OUT_OF_MEMORY,
        CAUSE_START_FAILED: reasons.END_START_FAILED,
    }
    return by_cause.get(ended.cause) or (reasons.END_SIGNAL if ended.signal else reasons.END_EXIT_CODE)
