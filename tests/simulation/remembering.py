"""Compares what a scheduler has in memory with the rows, at a moment when nothing is under way between the two."""

from collections import Counter
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING

from tests.simulation.books import JobBook, RunBook
from tests.simulation.world import Broken
from titan.core.memory import Job, Memory, Run
from titan.core.queues import QueueKey
from titan.core.scheduler import Scheduler
from titan.model.states import FINAL_JOB_STATES, JobState, RunState

if TYPE_CHECKING:
    from tests.simulation.rows import Rows

RUN_COLUMNS = (
    "state", "generation", "cancel_requested", "cancelled_on_request", "jobs_total", "jobs_completed", "jobs_failed",
    "jobs_cancelled", "jobs_dead", "opening",
)  # fmt: skip
JOB_COLUMNS = (
    "state", "generation", "fence", "attempt", "worker", "failures", "losses", "due_ms", "cancel_requested", "reason",
    "ready_ms",
)  # fmt: skip
RUN_IN_ROW, RUN_IN_MEMORY = itemgetter(*RUN_COLUMNS), attrgetter(*RUN_COLUMNS)
JOB_IN_ROW, JOB_IN_MEMORY = itemgetter(*JOB_COLUMNS), attrgetter(*JOB_COLUMNS)


class Memories:
    """One look: every job that is not over is in memory, as its row says, and somebody will see to it."""

    def __init__(self, rows: "Rows", scheduler: Scheduler) -> None:
        self.rows = rows
        self.memory: Memory = scheduler.memory
        self.queues = scheduler.dispatcher.queues
        self.lengths = scheduler.dispatcher.lengths
        self.timers: set[tuple[object, ...]] = set()
        for _, _, kind, key, token in self.memory.timers:
            self.timers.add((kind, key.run_id, key.job_id, token) if isinstance(key, Job) else (kind, key))

    def look(self) -> None:
        """Compare."""
        memory, mirror = self.memory, self.rows.ground.mirror
        shown = [run_id for run_id, row in mirror.open_runs.items() if row["state"] != RunState.STAGED]
        if len(memory.runs) != len(shown):
            raise Broken("i12", f"{len(memory.runs)} runs in memory, {len(shown)} in the database")
        if len(memory.attempts) != len(mirror.living):
            raise Broken("i12", f"{len(memory.attempts)} attempts in memory, {len(mirror.living)} in the database")
        queued = 0
        for run_id in shown:
            run = memory.runs.get(run_id)
            if run is None:
                raise Broken("i12", f"run {run_id} is not in memory")
            queued += self.look_at_run(self.rows.books.runs[run_id], run)
        if queued != sum(queue.count for queue in self.queues.values()):
            raise Broken("i12", f"{queued} jobs are QUEUED, and not as many stand in queues")
        self.look_at_counts()

    def look_at_counts(self) -> None:
        """What is counted along the way is what a count of everything finds."""
        states: Counter[JobState] = Counter()
        for run in self.memory.runs.values():
            states.update(run.states)
        if states != Counter(self.memory.states):
            raise Broken("i12", f"jobs by state are {states}, counted as {self.memory.states}")
        longest = [self.queues[key].count for key in self.lengths.longest(len(self.queues) + 1)]
        if longest != sorted((queue.count for queue in self.queues.values()), reverse=True):
            raise Broken("i12", f"the queues by length are told as {longest}")

    def look_at_run(self, book: RunBook, run: Run) -> int:
        """Compare one run; return how many of its jobs are ready."""
        if RUN_IN_ROW(book.row) != RUN_IN_MEMORY(run):
            differ(f"run {run.run_id}", RUN_COLUMNS, book.row, run)
        opening = book.row["opening"] is not None
        queued = living = 0
        for job_id, job_book in book.jobs.items():
            job = run.jobs.get(job_id)
            final = job_book.row["state"] in FINAL_JOB_STATES and not (opening and job_book.starts_again)
            if final != (job is None):
                raise Broken("i12", f"{job_book.key} is {job_book.row['state']}, in memory: {job is not None}")
            if job is None:
                continue
            living += 1
            if JOB_IN_ROW(job_book.row) != JOB_IN_MEMORY(job):
                differ(str(job_book.key), JOB_COLUMNS, job_book.row, job)
            if not self.owner(job, job_book):
                raise Broken("i12", f"nobody sees to {job_book.key}, which is {job.state}")
            queued += job.state == JobState.QUEUED
        if living != len(run.jobs):
            raise Broken("i12", f"run {run.run_id} has {len(run.jobs)} jobs in memory, {living} in the database")
        return queued

    def owner(self, job: Job, book: JobBook) -> bool:
        """Say whether something is there that will move the job on."""
        if job.state == JobState.BLOCKED:
            return job.waiting_for == book.open_parents() > 0
        if job.state == JobState.DELAYED:
            return ("due", job.run_id, job.job_id, job.due_ms) in self.timers
        if job.state == JobState.QUEUED:
            return job.queue_seq > 0 and QueueKey(job.tags, job.pinned_to) in self.queues
        attempt = self.memory.attempts.get(job.fence)
        row = self.rows.tables["attempts"][job.fence,]
        if attempt is None or (attempt.state, attempt.incarnation) != (row["state"], row["incarnation"]):
            return False
        return ("lease", job.fence) in self.timers


def differ(name: str, columns: tuple[str, ...], row: dict[str, object], held: object) -> None:
    """Raise if memory and row say something else."""
    for column in columns:
        if getattr(held, column) != row[column]:
            raise Broken("i12", f"{name}: {column} is {getattr(held, column)} in memory, {row[column]} in its row")
