"""What becomes of a job: ready, over, tried again, lost, cancelled, and what that does to those behind it.

A job that ends passes it on to its children in slices: a parent of 100,000 children costs no event more
than a few milliseconds. A crash in between loses nothing, since `load` counts open parents anew.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from titan.core import reasons
from titan.core.dispatch import Dispatcher
from titan.core.memory import Attempt, Job, Memory, Run
from titan.core.rows import JobRow
from titan.core.states import JobEvent, next_job_state, run_outcome
from titan.model.spec import GENERAL, JobSpec, decode_spec, encode_spec
from titan.model.states import FINAL_JOB_STATES, AttemptState, JobState
from titan.model.wire import CAUSE_LOST, Ended, Stop

DEATHS_MAX = 3
POSTPONE_MS = 1_000
_GENERAL_TAGS = frozenset({GENERAL})
COUNTERS = {
    JobState.COMPLETED: "jobs_completed",
    JobState.FAILED: "jobs_failed",
    JobState.CANCELLED: "jobs_cancelled",
    JobState.DEAD: "jobs_dead",
}


class Lifecycle:
    """The moves of jobs that several events share."""

    def __init__(self, memory: Memory, dispatcher: Dispatcher) -> None:
        self.memory = memory
        self.dispatcher = dispatcher

    def new_job(self, run: Run, spec: JobSpec, ordinal: int) -> Job:
        """Return a job of `run` in its first state, without any link to others yet."""
        wall_ms = self.memory.now.wall_ms
        state, due_ms, ready_ms = JobState.BLOCKED, None, None
        if not spec.parents:
            if spec.delay_ms:
                state, due_ms = JobState.DELAYED, wall_ms + spec.delay_ms
            else:
                state, ready_ms = JobState.QUEUED, wall_ms
        requirement = tuple(sorted(set(spec.requirement)))
        job = Job(
            run_id=run.run_id, job_id=spec.job_id, ordinal=ordinal, spec=encode_spec(spec), filename=spec.filename,
            priority=spec.priority, requirement=",".join(requirement), state=state,
            reason=reasons.WAIT_DELAY if due_ms else "", generation=run.generation, attempt=0, fence=0, worker="",
            failures=0, losses=0, due_ms=due_ms, cancel_requested=False, affinity_worker="", exit_code=None,
            ready_ms=ready_ms, started_ms=None, ended_ms=None, tags=_GENERAL_TAGS,
        )  # fmt: skip
        equip(job, spec)
        job.waiting_for = len(spec.parents)
        return job

    def enter(self, job: Job) -> None:
        """Give a job that waits for no parent its owner: the queue, or the timer of its delay."""
        if job.state == JobState.QUEUED:
            self.dispatcher.enqueue(job)
        elif job.state == JobState.DELAYED:
            self.set_due_timer(job)
        elif job.state == JobState.BLOCKED and not job.waiting_for:
            self.unblock(job)

    def unblock(self, job: Job) -> None:
        """The last parent has completed: on to the delay or the queue."""
        if job.delay_ms:
            self.delay(job, JobEvent.DELAY, job.delay_ms, reasons.WAIT_DELAY)
        else:
            self.make_ready(job)

    def delay(self, job: Job, event: JobEvent, delay_ms: int, reason: str, **values: object) -> None:
        """Have `job` wait for `delay_ms` in DELAYED."""
        self.memory.move(job, event, due_ms=self.memory.now.wall_ms + delay_ms, reason=reason, **values)
        self.set_due_timer(job)

    def set_due_timer(self, job: Job) -> None:
        """Wake when a DELAYED job is due: never later than its delay allows, whatever the wall clock did."""
        left_ms = min(self._wait_ms_max(job), max(0, (job.due_ms or 0) - self.memory.now.wall_ms))
        self.memory.set_timer(self.memory.now.mono_ms + left_ms, "due", job, job.due_ms or 0)

    def _wait_ms_max(self, job: Job) -> int:
        """Return the longest that `job` can have been told to wait in DELAYED."""
        if job.reason == reasons.WAIT_BACKOFF:
            return self._backoff_ms(job.failures, job)
        return POSTPONE_MS if job.reason == reasons.WAIT_POSTPONED else job.delay_ms

    def _backoff_ms(self, failures: int, job: Job) -> int:
        """Return the window in which the retry after so many failures is drawn."""
        window_s = min(self.memory.limits.retry_backoff_s_max, job.retry_backoff_s * 2.0 ** min(failures - 1, 30))
        return int(window_s * 1000)

    def make_ready(self, job: Job, event: JobEvent = JobEvent.READY, **values: object) -> None:
        """Queue `job`; a run that is being cancelled takes it out again in its next slice."""
        values.setdefault("reason", "")
        self.memory.move(job, event, due_ms=None, ready_ms=self.memory.now.wall_ms, **values)
        self.dispatcher.enqueue(job)

    def finish(self, job: Job, event: JobEvent, reason: str, exit_code: int | None = None) -> None:
        """Move `job` to a final state, count it, and pass it on to its children."""
        memory = self.memory
        self.dispatcher.dequeue(job)
        memory.move(job, event, reason=reason, exit_code=exit_code, ended_ms=memory.now.wall_ms, due_ms=None)
        run = memory.runs[job.run_id]
        counter = COUNTERS[job.state]
        setattr(run, counter, getattr(run, counter) + 1)
        memory.touch(run)
        del run.jobs[job.job_id]
        children, job.children = job.children, None
        if children:
            self._pass_on(job, children)
        if not run.jobs:
            self._end(run)

    def _end(self, run: Run) -> None:
        """All jobs of `run` are final."""
        outcome = run_outcome(run.jobs_failed, run.jobs_dead, run.cancelled_on_request)
        parent = self.memory.job(run.parent_run_id or "", run.parent_job_id or "")
        fence = parent.fence if parent is not None and parent.state == JobState.RUNNING else 0
        self.memory.move_run(run, outcome, ended_ms=self.memory.now.wall_ms, parent_fence=fence, opening=None)
        self.memory.leave_run(run)

    def fail(self, job: Job, reason: str, exit_code: int, jitter: float) -> None:
        """An attempt failed by the job's own doing: try again after a backoff, or FAILED."""
        if job.failures < job.retries:
            failures = job.failures + 1
            delay_ms = int(self._backoff_ms(failures, job) * jitter)
            self.delay(job, JobEvent.RETRY, delay_ms, reasons.WAIT_BACKOFF, failures=failures, exit_code=exit_code)
        else:
            self.finish(job, JobEvent.FAIL, reason, exit_code)

    def lose(self, attempt: Attempt, counts: bool, reason: str = reasons.END_LOST, ended: Ended | None = None) -> None:
        """An attempt is gone without a result. `counts`: towards the three workers a job may take down.

        `ended` is what its worker could still say of it.
        """
        job = self.memory.job_of(attempt)
        started = attempt.state == AttemptState.RUNNING
        known = {"cause": CAUSE_LOST} if ended is None else end_values(ended)
        self.memory.close_attempt(attempt, AttemptState.LOST, **known)
        if self.memory.is_cancelled(job):
            self.finish(job, JobEvent.CANCEL, reasons.END_CANCELLED)
        elif job.on_lost == "fail":
            self.finish(job, JobEvent.FAIL, reason)
        elif counts and started and job.losses + 1 >= DEATHS_MAX:
            self.memory.amend(job, losses=job.losses + 1)
            self.finish(job, JobEvent.QUARANTINE, reasons.END_WORKER_DEATHS)
        else:
            losses = job.losses + (1 if counts and started else 0)
            self.make_ready(job, JobEvent.LOSE, losses=losses, reason=reason)

    def request_cancel(self, job: Job, reason: str = reasons.END_CANCELLED) -> None:
        """Cancel `job` now, or have its worker stop it and remember that it shall be CANCELLED."""
        if job.state not in (JobState.ASSIGNED, JobState.RUNNING):
            self.finish(job, JobEvent.CANCEL, reason)
        elif not job.cancel_requested:
            self.memory.amend(job, cancel_requested=True)
            attempt = self.memory.attempts[job.fence]
            self.memory.send(attempt.worker, attempt.incarnation, Stop(job.fence))

    def cancel_all(self, run: Run) -> None:
        """Cancel every job of a run whose flag is set, in slices: first those with a worker, which takes time."""
        self.in_slices(self._cancel_jobs(run))

    def own_all(self, run: Run, doomed: Collection[str] = ()) -> Iterator[None]:
        """Give every job of `run` its owner, a step a job: after a load, or when a retry has opened them.

        `doomed` are the jobs with a parent that is over without success. A run whose generation was still
        being opened is open at the end.
        """
        why = reasons.END_PARENT_FAILED if run.jobs_failed or run.jobs_dead else reasons.END_PARENT_CANCELLED
        for job in list(run.jobs.values()):
            if job.job_id not in run.jobs or job.queue_seq:
                continue
            self.memory.open(job)
            if job.job_id in doomed:
                self.finish(job, JobEvent.CANCEL, why)
            else:
                self.enter(job)
            yield
        if run.opening is not None:
            run.opening = None
            self.memory.touch(run)
        if run.cancel_requested:
            self.cancel_all(run)

    def _pass_on(self, parent: Job, children: list[Job]) -> None:
        if parent.state == JobState.COMPLETED:
            self.in_slices(self._release(parent, children))
        else:
            self.in_slices(self._cancel(passed_on(parent), children))

    def in_slices(self, steps: Iterator[None]) -> None:
        """Have `steps` done a slice at a time, the first ones still in this event."""
        self.memory.slices.append(steps)

    def _release(self, parent: Job, children: list[Job]) -> Iterator[None]:
        for child in children:
            child.waiting_for -= 1
            if parent.worker and child.affinity:
                child.affinity_worker = parent.worker
            if child.state == JobState.BLOCKED and not child.waiting_for:
                if child.affinity_worker:
                    self.memory.amend(child, affinity_worker=child.affinity_worker)
                self.unblock(child)
            yield

    def _cancel_jobs(self, run: Run) -> Iterator[None]:
        held = [self.memory.job_of(self.memory.attempts[fence]) for fence in run.living]
        for job in [*held, *run.jobs.values()]:
            if job.state not in FINAL_JOB_STATES:
                self.request_cancel(job)
            yield

    def _cancel(self, why: str, children: list[Job]) -> Iterator[None]:
        for child in children:
            if child.state not in FINAL_JOB_STATES:
                self.finish(child, JobEvent.CANCEL, why)
            yield


def passed_on(parent: JobRow) -> str:
    """Return the reason of a job that is cancelled because `parent` ended without success."""
    if parent.reason in (reasons.END_PARENT_FAILED, reasons.END_PARENT_CANCELLED):
        return parent.reason
    return reasons.END_PARENT_CANCELLED if parent.state == JobState.CANCELLED else reasons.END_PARENT_FAILED


def end_values(ended: Ended) -> dict[str, Any]:
    """Return what an attempt's row keeps of the worker's report of its end."""
    return {
        "exit_code": None if ended.cause == CAUSE_LOST else ended.exit_code,
        "signal": ended.signal,
        "cause": ended.cause,
        "log_bytes": ended.log_bytes,
    }


def equip(job: Job, spec: JobSpec) -> None:
    """Copy from `spec` what the scheduler needs of it while the job lives."""
    job.tags = _GENERAL_TAGS if spec.requirement == (GENERAL,) else frozenset(spec.requirement)
    job.affinity = spec.affinity
    job.affinity_wait_ms = int(spec.affinity_wait_s * 1000)
    job.delay_ms = spec.delay_ms
    job.retries = spec.retries
    job.retry_backoff_s = spec.retry_backoff_s
    job.lease_s = spec.lease_s
    job.on_lost = spec.on_lost


def reopened(row: JobRow, generation: int, affinity_worker: str) -> Job:
    """Return the job of `row`, which is final, as it starts again in `generation`: clean but for its attempts."""
    job = Job(
        run_id=row.run_id, job_id=row.job_id, ordinal=row.ordinal, spec=row.spec, filename=row.filename,
        priority=row.priority, requirement=row.requirement, state=next_job_state(row.state, JobEvent.REOPEN),
        reason="", generation=generation, attempt=row.attempt, fence=row.fence, worker="", failures=0, losses=0,
        due_ms=None, cancel_requested=False, affinity_worker="", exit_code=None, ready_ms=None, started_ms=None,
        ended_ms=None, tags=_GENERAL_TAGS, row_shows=(row.state, row.generation),
    )  # fmt: skip
    equip(job, decode_spec(row.spec))
    job.affinity_worker = affinity_worker if job.affinity else ""
    return job


def last_worker(completed: Iterable[JobRow]) -> str:
    """Return the worker of the job that completed last; "" when there is none."""
    last = max(completed, key=lambda row: row.ended_ms or 0, default=None)
    return last.worker if last else ""
