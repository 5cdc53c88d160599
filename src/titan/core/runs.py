"""Commands on runs: submit, stage, flip, extend, cancel, retry.

A refusal changes nothing: every check stands before the first change.
"""

from collections.abc import Iterable, Iterator

from titan.core.changes import Change, Insert
from titan.core.events import (
    CancelJob,
    CancelRun,
    DropStage,
    ExtendRun,
    FlipRun,
    NewRun,
    News,
    Refusal,
    RetryRun,
    StageJobs,
    StageRun,
    SubmitRun,
)
from titan.core.lifecycle import COUNTERS, Lifecycle, last_worker, passed_on
from titan.core.memory import JOB_COLUMNS, RUN_COLUMNS, Job, Memory, Run, run_news
from titan.core.rows import JobRow, RunRow
from titan.core.states import JobEvent, RunEvent
from titan.model.spec import JobSpec
from titan.model.states import FINAL_RUN_STATES, JobState, RunState

Answer = dict[str, object] | Refusal


class Runs:
    """What people and programs ask of runs."""

    def __init__(self, memory: Memory, lifecycle: Lifecycle) -> None:
        self.memory = memory
        self.lifecycle = lifecycle

    def submit(self, event: SubmitRun) -> Answer:
        """Accept a whole small run in one event."""
        refused = self._refuse_parent(event.run)
        if refused:
            return refused
        run = self._new_run(event.run, len(event.jobs), RunState.QUEUED)
        self._show(run)
        self.memory.insert("runs", run, RUN_COLUMNS)
        for job in self._add_jobs(run, event.jobs, 0, {}):
            self.lifecycle.enter(job)
        run.unlinked = {}
        self._extra(event.extra)
        return {"run_id": run.run_id}

    def stage(self, event: StageRun) -> Answer:
        """Begin to receive a large run."""
        refused = self._refuse_parent(event.run)
        if refused:
            return refused
        run = self._new_run(event.run, event.jobs_total, RunState.STAGED)
        self.memory.staged[run.run_id] = run
        self.memory.insert("runs", run, RUN_COLUMNS)
        self._extra(event.extra)
        return {"run_id": run.run_id}

    def stage_jobs(self, event: StageJobs) -> Answer:
        """Take one chunk of a staged run."""
        run = self.memory.staged.get(event.run_id)
        if run is None:
            return Refusal("unavailable", f"run {event.run_id} is not being received: submit it again")
        run.roots.extend(self._add_jobs(run, event.jobs, len(run.jobs), {}))
        self._extra(event.extra)
        return {"run_id": run.run_id, "jobs": len(run.jobs)}

    def flip(self, event: FlipRun) -> Answer:
        """Show a staged run; its ready jobs enter the queues from a cursor."""
        run = self.memory.staged.get(event.run_id)
        if run is None:
            return Refusal("unavailable", f"run {event.run_id} is not being received: submit it again")
        if len(run.jobs) != run.jobs_total:
            return Refusal(
                "invalid", f"{len(run.jobs)} jobs arrived of the {run.jobs_total} announced: submit it again"
            )
        refused = self._refuse_parent(run)
        if refused:
            return refused
        del self.memory.staged[run.run_id]
        run.unlinked = {}
        roots, run.roots = run.roots, []
        self.memory.move_run(run, RunEvent.FLIP)
        self._show(run)
        self.lifecycle.in_slices(self._enter(run, roots))
        self._extra(event.extra)
        return {"run_id": run.run_id}

    def drop_stage(self, event: DropStage) -> Answer:
        """Forget a staged run; nothing of it was ever visible."""
        self.memory.staged.pop(event.run_id, None)
        return {}

    def extend(self, event: ExtendRun) -> Answer:
        """Add jobs to a live run, all or none."""
        run = self.memory.runs.get(event.run_id)
        if run is None:
            return Refusal(
                "conflict", f"run {event.run_id} has ended: only a live run can be extended; submit a new one"
            )
        if run.cancel_requested:
            return Refusal("conflict", f"run {event.run_id} is being cancelled and takes no more jobs")
        new = {spec.job_id for spec in event.jobs}
        finished = {job_id: row for job_id, row in event.finished.items() if job_id not in run.jobs}
        for spec in event.jobs:
            if spec.job_id in run.jobs or spec.job_id in finished:
                return Refusal("conflict", f"job id {spec.job_id} is taken in run {event.run_id}: choose another")
            for parent in spec.parents:
                if parent not in new and parent not in run.jobs and parent not in finished:
                    return Refusal("unavailable", f"parent {parent} has just ended: try again")
        ordinal = run.jobs_total
        run.jobs_total += len(event.jobs)
        self.memory.touch(run)
        for job in self._add_jobs(run, event.jobs, ordinal, finished):
            self.lifecycle.enter(job)
        run.unlinked = {}
        self._extra(event.extra)
        return {"run_id": run.run_id}

    def cancel(self, event: CancelRun) -> Answer:
        """Flag the run and every living run below it, then cancel their jobs in slices."""
        run = self.memory.runs.get(event.run_id)
        if run is None:
            return {"cancelled": False}
        for each in self._with_children(run):
            if not each.cancel_requested:
                each.cancel_requested = each.cancelled_on_request = True
                self.memory.touch(each)
                self.lifecycle.cancel_all(each)
        return {"cancelled": True}

    def cancel_job(self, event: CancelJob) -> Answer:
        """Cancel one job; its descendants follow when it is CANCELLED."""
        run = self.memory.runs.get(event.run_id)
        job = run.jobs.get(event.job_id) if run else None
        if run is None or job is None:
            return {"cancelled": False}
        run.cancelled_on_request = True
        self.memory.touch(run)
        self.lifecycle.request_cancel(job)
        return {"cancelled": True}

    def retry(self, event: RetryRun) -> Answer:
        """Open the next generation of an ended run: at once here, in slices in the rows of its jobs."""
        if event.run.run_id in self.memory.runs or event.run.state not in FINAL_RUN_STATES:
            return Refusal("conflict", f"run {event.run.run_id} has not ended: cancel it or wait, then retry")
        refused = self._refuse_parent(event.run) or event.refused
        if refused:
            return refused
        run = self._reopen_run(event)
        self.lifecycle.in_slices(self.lifecycle.own_all(run))
        return {"run_id": run.run_id, "generation": run.generation, "jobs": len(event.jobs)}

    def _reopen_run(self, event: RetryRun) -> Run:
        old = event.run
        run = Run(**RUN_COLUMNS.of(old), jobs=event.jobs, living=set())
        run.saved_state, run.saved_generation = old.state, old.generation
        run.opening = event.opening
        for state, count in event.ended.items():
            setattr(run, COUNTERS[state], getattr(run, COUNTERS[state]) - count)
        run.states = {JobState.BLOCKED: len(run.jobs)}
        self.memory.move_run(
            run, RunEvent.REOPEN, generation=old.generation + 1, ended_ms=None, started_ms=None,
            cancel_requested=False, cancelled_on_request=False, parent_fence=0,
        )  # fmt: skip
        self._show(run)
        return run

    def _new_run(self, new: NewRun, jobs_total: int, state: RunState) -> Run:
        return Run(
            run_id=new.run_id, name=new.name, state=state, generation=1, agent_run_id=new.agent_run_id,
            root_run_id=new.root_run_id, parent_run_id=new.parent_run_id, parent_job_id=new.parent_job_id,
            created_ms=self.memory.now.wall_ms, started_ms=None, ended_ms=None, cancel_requested=False,
            cancelled_on_request=False, jobs_total=jobs_total, jobs_completed=0, jobs_failed=0, jobs_cancelled=0,
            jobs_dead=0, parent_fence=0, opening=None, saved_state=state, saved_generation=1,
            jobs={}, living=set(), roots=[], unlinked={},
        )  # fmt: skip

    def _show(self, run: Run) -> None:
        self.memory.enter_run(run)
        self.memory.out.news.append(News("run", run.run_id, "", run_news(run)))

    def _add_jobs(self, run: Run, specs: Iterable[JobSpec], ordinal: int, finished: dict[str, JobRow]) -> list[Job]:
        """Insert rows and links for `specs`; return those that wait for no parent."""
        free: list[Job] = []
        doomed: list[tuple[Job, str]] = []
        for spec in specs:
            job = self.lifecycle.new_job(run, spec, ordinal)
            ordinal += 1
            run.jobs[job.job_id] = job
            self.memory.count(run, None, job.state)
            why = self._meet_finished(job, spec, finished) if finished else ""
            if why:
                doomed.append((job, why))
            self.memory.insert("jobs", job, JOB_COLUMNS)
            for parent_id in spec.parents:
                self.memory.out.changes.append(
                    Insert("edges", {"run_id": run.run_id, "job_id": job.job_id, "parent_id": parent_id})
                )
                if parent_id not in finished:
                    self._link(run, parent_id, job)
            waiting = run.unlinked.pop(job.job_id, None)
            if waiting:
                job.children = [*(job.children or ()), *waiting]
            if not job.waiting_for:
                free.append(job)
        for job, why in doomed:
            self.lifecycle.finish(job, JobEvent.CANCEL, why)
        return free

    def _meet_finished(self, job: Job, spec: JobSpec, finished: dict[str, JobRow]) -> str:
        """Count off the parents that have completed; return why `job` is doomed if one ended otherwise."""
        parents = [finished[name] for name in spec.parents if name in finished]
        completed = [parent for parent in parents if parent.state == JobState.COMPLETED]
        job.waiting_for -= len(completed)
        job.affinity_worker = last_worker(completed) if job.affinity else ""
        return next((passed_on(parent) for parent in parents if parent.state != JobState.COMPLETED), "")

    def _link(self, run: Run, parent_id: str, job: Job) -> None:
        parent = run.jobs.get(parent_id)
        if parent is None:
            run.unlinked.setdefault(parent_id, []).append(job)
        elif parent.children is None:
            parent.children = [job]
        else:
            parent.children.append(job)

    def _enter(self, run: Run, roots: list[Job]) -> Iterator[None]:
        for job in roots:
            if job.job_id in run.jobs and not job.queue_seq:
                self.lifecycle.enter(job)
            yield

    def _with_children(self, run: Run) -> list[Run]:
        found, at = [run], 0
        while at < len(found):
            found.extend(self.memory.runs[child] for child in self.memory.child_runs.get(found[at].run_id, ()))
            at += 1
        return found

    def _refuse_parent(self, new: NewRun | RunRow) -> Refusal | None:
        """A job that is being cancelled starts nothing new."""
        parent = self.memory.runs.get(new.parent_run_id or "")
        if parent is None:
            return None
        job = parent.jobs.get(new.parent_job_id or "")
        if parent.cancel_requested or (job is not None and job.cancel_requested):
            return Refusal("conflict", f"run {parent.run_id} is being cancelled and starts nothing new")
        return None

    def _extra(self, extra: tuple[Change, ...]) -> None:
        self.memory.out.changes.extend(extra)
