"""Why a job is where it is, from the code that decides, and what would change it."""

from typing import Any

import msgspec

from titan.core import matching, reasons
from titan.core.dispatch import Dispatcher
from titan.core.lending import LENT_MAX
from titan.core.memory import Job, Memory
from titan.core.workers import Workers
from titan.model.spec import decode_spec
from titan.model.states import JobState

NAMES_MAX = 10
HELD = frozenset({JobState.ASSIGNED, JobState.RUNNING})


class Explanation(msgspec.Struct, frozen=True):
    """`reason` is a constant of `titan.core.reasons`; `message` says it in words, `remedy` what would change it."""

    run_id: str
    job_id: str
    state: JobState
    reason: str
    message: str
    remedy: str
    details: dict[str, Any]


class Explainer:
    """Reads the scheduler's memory; changes nothing."""

    def __init__(self, memory: Memory, dispatcher: Dispatcher, workers: Workers) -> None:
        self.memory = memory
        self.dispatcher = dispatcher
        self.workers = workers

    def explain(self, run_id: str, job_id: str) -> Explanation | None:
        """Return why the living job is where it is; None when it is not living (over, or unknown)."""
        job = self.memory.job(run_id, job_id)
        return None if job is None else self.why(job)

    def why(self, job: Job) -> Explanation:
        """Return why this living job is where it is."""
        reason, message, details = self._of(job)
        remedy = reasons.REMEDIES[reason]
        return Explanation(job.run_id, job.job_id, job.state, reason, message, remedy, details)

    def _of(self, job: Job) -> tuple[str, str, dict[str, Any]]:
        if self.memory.is_cancelled(job) and job.state not in HELD:
            return reasons.CANCELLING, "its run is being cancelled, and it is cancelled with it", {}
        if job.state == JobState.BLOCKED:
            return self._blocked(job)
        if job.state == JobState.DELAYED:
            return self._delayed(job)
        if job.state == JobState.QUEUED:
            return self._queued(job)
        return self._with_worker(job)

    def _blocked(self, job: Job) -> tuple[str, str, dict[str, Any]]:
        run = self.memory.runs[job.run_id]
        parents_of = decode_spec(job.spec).parents
        open_parents = [run.jobs[name] for name in parents_of if name in run.jobs]
        if not open_parents:
            return reasons.WAIT_ENTERING, "its parents are over, and it follows in a moment", {}
        names = [f"{each.job_id} ({each.state})" for each in open_parents[:NAMES_MAX]]
        message = f"waits for {job.waiting_for} of its parents: {', '.join(names)}"
        parents = [{"job_id": each.job_id, "state": each.state} for each in open_parents[:NAMES_MAX]]
        return reasons.WAIT_PARENTS, message, {"waiting_for": job.waiting_for, "parents": parents}

    def _delayed(self, job: Job) -> tuple[str, str, dict[str, Any]]:
        left_s = max(0, (job.due_ms or 0) - self.memory.now.wall_ms) / 1000
        details: dict[str, Any] = {"due_ms": job.due_ms, "left_s": left_s}
        if job.reason == reasons.WAIT_BACKOFF:
            details["failures"] = job.failures
            message = f"attempt {job.attempt} failed with exit code {job.exit_code}; tried again in {left_s:.1f} s"
            return job.reason, message, details
        if job.reason == reasons.WAIT_POSTPONED:
            details["worker_said"] = job.note
            said = f" ({job.note})" if job.note else ""
            return job.reason, f"its worker could not start it{said}; tried again in {left_s:.1f} s", details
        return reasons.WAIT_DELAY, f"its delay is over in {left_s:.1f} s", details

    def _queued(self, job: Job) -> tuple[str, str, dict[str, Any]]:
        needs = ", ".join(sorted(job.tags))
        if not job.queue_seq:
            return reasons.WAIT_ENTERING, "its run is large and still entering the queues", {}
        refusals = self.dispatcher.refusals(job)
        details: dict[str, Any] = {
            "requirement": sorted(job.tags),
            "workers": {k: v[:NAMES_MAX] for k, v in refusals.items()},
        }
        if sum(map(len, refusals.values())) < len(self.memory.workers):
            return reasons.WAIT_ENTERING, "a fitting worker has a free slot, and its turn comes next", details
        if job.pinned_to:
            details["pinned_to"] = job.pinned_to
            worker = self.memory.workers.get(job.pinned_to)
            if worker is None or not worker.connected:
                message = f"pinned to its parent's worker {job.pinned_to}, which is away"
                return reasons.WAIT_PINNED_AWAY, message, details
            if worker.draining:
                return reasons.WAIT_ENTERING, f"its parent's worker {job.pinned_to} leaves: others follow", details
            lacking = "devices" if matching.NO_FREE_DEVICE in refusals else "slots"
            message = f"pinned to its parent's worker {job.pinned_to}, whose {lacking} are all busy"
            return reasons.WAIT_AFFINITY, message, details
        if job.note == reasons.AFFINITY_RELEASED:
            details["affinity"] = reasons.AFFINITY_RELEASED
        if not any(worker.connected for worker in self.memory.workers.values()):
            return reasons.WAIT_NO_WORKER, "no worker is connected", details
        full, in_use = refusals.get(matching.IS_FULL, []), refusals.get(matching.NO_FREE_DEVICE, [])
        if not full and not in_use:
            if crowded := refusals.get(matching.IS_CROWDED, []):
                message = f"many jobs of {_offering(len(crowded), needs)} wait for runs below, slots lent"
                return reasons.WAIT_ROOM, message, details
            if matching.IS_DRAINING in refusals:
                return reasons.WAIT_DRAINING, f"every connected worker that offers {needs} is draining", details
            return reasons.WAIT_CAPABILITY, f"no connected worker offers {needs}", details
        details["ahead"] = self.dispatcher.ahead_of(job)
        reason, what, busy = (reasons.WAIT_SLOTS, "slots", full) if full else (reasons.WAIT_DEVICE, "devices", in_use)
        message = f"all {what} of {_offering(len(busy), needs)} are busy"
        if details["ahead"]:
            message += f"; {details['ahead']} jobs of higher priority go first"
        return reason, message, details

    def _with_worker(self, job: Job) -> tuple[str, str, dict[str, Any]]:
        details: dict[str, Any] = {"worker": job.worker, "attempt": job.attempt, "fence": str(job.fence)}
        if self.memory.is_cancelled(job):
            return reasons.CANCELLING, f"is being cancelled; worker {job.worker} stops it", details
        worker = self.memory.workers.get(job.worker)
        attempt = self.memory.attempts[job.fence]
        if worker is None or not worker.connected or worker.incarnation != attempt.incarnation:
            left_s = max(0, self.workers.lease_deadline_ms(attempt) - self.memory.now.mono_ms) / 1000
            details["lease_left_s"] = left_s
            message = f"worker {job.worker} is away; its lease ends in {left_s:.0f} s, then the job is lost with it"
            return reasons.WAIT_LEASE, message, details
        if attempt.ahead:
            message = f"sent ahead to worker {job.worker}, which starts it when a slot there is free"
            return reasons.WAIT_AHEAD, message, details
        if job.state == JobState.ASSIGNED:
            return reasons.WAIT_START, f"sent to worker {job.worker}, which has not reported the start", details
        if job.fence in self.memory.waits:
            return self._waiting_below(job, details)
        return reasons.RUNNING, f"runs on worker {job.worker}, attempt {job.attempt}", details

    def _waiting_below(self, job: Job, details: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        wait = self.memory.waits[job.fence]
        targets = sorted({*wait.asked, *wait.kept})
        names = [f"job {run_id[:8]}/{job_id}" if job_id else f"run {run_id[:8]}" for run_id, job_id in targets]
        details["waits_for"] = [{"run_id": run_id, "job_id": job_id or None} for run_id, job_id in targets[:NAMES_MAX]]
        details["slot_lent"] = job.fence not in self.memory.unlent
        message = f"runs on worker {job.worker}, attempt {job.attempt}, and waits for {', '.join(names[:NAMES_MAX])}; "
        if details["slot_lent"]:
            return reasons.WAITS_BELOW, message + "its slot is lent to others meanwhile", details
        return reasons.WAITS_BELOW, message + f"it keeps its slot, since {LENT_MAX} jobs there lend theirs", details


def _offering(count: int, needs: str) -> str:
    return f"the worker that offers {needs}" if count == 1 else f"the {count} workers that offer {needs}"
