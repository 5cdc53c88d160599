"""Judges each batch by what it changed: every new attempt, every move of a job, every count of a run."""

from typing import TYPE_CHECKING

from tests.simulation import model
from tests.simulation.books import JobBook, Row, RunBook, has_cycle
from tests.simulation.watchers import BEGINNINGS, FIGURES_IN_ROW, Untold
from tests.simulation.world import Broken
from titan.core.changes import Change, Insert
from titan.core.commit import Batch
from titan.model.spec import decode_spec
from titan.model.states import (
    FINAL_JOB_STATES,
    FINAL_RUN_STATES,
    LIVING_ATTEMPT_STATES,
    AttemptState,
    JobState,
    RunState,
)
from titan.model.wire import CAUSE_LEASE, CAUSE_LOST, CAUSE_TIMEOUT, CAUSE_WORKER_STOP

if TYPE_CHECKING:
    from tests.simulation.rows import Rows

HELD = (JobState.ASSIGNED, JobState.RUNNING)
COUNTERS = {
    JobState.COMPLETED: "jobs_completed",
    JobState.FAILED: "jobs_failed",
    JobState.CANCELLED: "jobs_cancelled",
    JobState.DEAD: "jobs_dead",
}


class Written:
    """What one batch has written, by kind; `new` and `moved` are jobs."""

    __slots__ = ("attempts", "edges", "moved", "new", "runs", "untold")

    def __init__(self) -> None:
        self.untold = Untold()
        self.runs: dict[str, RunBook] = {}
        self.new: list[JobBook] = []
        self.moved: list[JobBook] = []
        self.edges: list[Row] = []
        self.attempts: list[Change] = []


class Books:
    """What the batches so far have made. `touched`: runs and their jobs changed since somebody looked last."""

    def __init__(self, rows: "Rows") -> None:
        self.rows = rows
        self.hosts = rows.hosts
        self.callers = rows.callers
        self.tables = rows.tables
        self.runs: dict[str, RunBook] = {}
        self.attempts: dict[int, AttemptState] = {}
        self.fence = 0
        self.touched: dict[str, RunBook] = {}

    def committed(self, batch: Batch, closed: set[int]) -> None:
        """Judge a batch, which the rows show already. `closed`: attempts that its Master ended with good reason."""
        written = self.sort(batch)
        runs, new, untold = written.runs, written.new, written.untold
        for values in written.edges:
            self.new_edge(values)
        if new or runs:
            grown = {job.key[0]: job.run for job in new}
            grown.update({run_id: run for run_id, run in runs.items() if run.state == RunState.STAGED})
            for run in grown.values():
                self.link_all(run)
            runs.update(grown)
        for change in written.attempts:
            self.attempt_changed(change, closed)
        if new or runs or written.moved:
            for job in new:
                if job.row["state"] not in BEGINNINGS:
                    untold.jobs[job.key] = (None, job.row["state"], job.row["attempt"])
            self.callers.watchers.untold[batch.epoch, batch.number] = untold
            self.judge_rows(runs, new + written.moved)

    def sort(self, batch: Batch) -> "Written":
        """Look once at each change, and put it where its judge will find it."""
        written = Written()
        for change in batch.changes:
            table = change.table
            if table == "jobs":
                if type(change) is Insert:
                    written.new.append(self.new_job(change.values))
                    continue
                job = self.runs[change.key[0]].jobs[change.key[1]]
                written.moved.append(job)
                if "state" in change.values:
                    written.untold.jobs[job.key] = (job.state, job.row["state"], job.row["attempt"])
            elif table == "attempts":
                written.attempts.append(change)
            elif table == "runs":
                run = self.run_changed(change)
                written.runs[run.run_id] = run
                self.callers.run_changed(run.run_id, run.row)
                if run.row["state"] != RunState.STAGED:
                    written.untold.runs[run.run_id] = FIGURES_IN_ROW(run.row)
            elif table == "edges":
                written.edges.append(change.values)
            elif table == "idempotency":
                self.callers.remembered(change.values["key"], change.values["answer"])
        return written

    def judge_rows(self, runs: dict[str, RunBook], jobs: list[JobBook]) -> None:
        """Judge the rows that were written."""
        for job in jobs:
            run = job.run
            if job.counted is not None or job.row["state"] in FINAL_JOB_STATES:
                runs[run.run_id] = run  # it may count another number of them now
            self.touched[run.run_id] = run
            self.job_changed(job)
        for run in runs.values():
            self.judge_run(run)
        self.touched.update(runs)
        for job in jobs:
            self.judge_job(job, False)

    def swept(self, run_id: str) -> None:
        """What was left of a broken upload is gone."""
        if (run_id,) in self.tables["runs"]:
            return
        book = self.runs.pop(run_id, None)
        self.touched.pop(run_id, None)
        if book is not None and book.state != RunState.STAGED:
            raise Broken("i1", f"run {run_id} was shown and is swept")

    # Rows that are new

    def run_changed(self, change: Change) -> RunBook:
        """A run is new, or its row was written; what it was before stays in its book until it is judged."""
        if isinstance(change, Insert):
            run_id = change.values["run_id"]
            book = self.runs[run_id] = RunBook(run_id, self.tables["runs"][run_id,])
            above = self.runs.get(book.row["parent_run_id"] or "")
            if above is not None:
                above.children.append(book)
            return book
        book = self.runs[change.key[0]]
        if book.row["generation"] != book.generation:
            if book.state not in FINAL_RUN_STATES or book.row["generation"] != book.generation + 1:
                raise Broken("i15", f"run {book.run_id} was {book.state} and opens generation {book.row['generation']}")
            book.cancelled = book.on_request = False
            for job in book.jobs.values():
                if job.starts_again:
                    book.count(job, None)
        return book

    def new_job(self, values: Row) -> JobBook:
        """A job is new."""
        key = (values["run_id"], values["job_id"])
        run = self.runs[key[0]]
        spec = self.rows.specs.get(key) or decode_spec(values["spec"])
        job = run.jobs[key[1]] = JobBook(run, key, self.tables["jobs"][key], spec)
        job.generation = job.row["generation"]
        run.edges_due += len(spec.parents)
        return job

    def new_edge(self, values: Row) -> None:
        """An edge is new."""
        run = self.runs[values["run_id"]]
        run.edges += 1
        child = run.jobs[values["job_id"]]
        if values["parent_id"] not in child.spec.parents:
            raise Broken("i2", f"{child.key} has an edge from {values['parent_id']}")

    # Attempts

    def attempt_changed(self, change: Change, closed: set[int]) -> None:
        """An attempt was granted, begun, adopted, prolonged or ended."""
        if type(change) is Insert:
            self.granted(change.values)
            fence, before = change.values["fence"], AttemptState.ASSIGNED
        else:
            fence = change.key[0]
            before = self.attempts[fence]
        row = self.tables["attempts"][fence,]
        state = row["state"]
        if before not in LIVING_ATTEMPT_STATES:
            raise Broken("i11", f"attempt {fence} was {before} and is written again: {state}")
        if before == AttemptState.RUNNING and state == AttemptState.ASSIGNED:
            raise Broken("i11", f"attempt {fence} was RUNNING and is ASSIGNED")
        self.attempts[fence] = state
        if state not in LIVING_ATTEMPT_STATES:
            self.attempt_ended(row, fence, closed)
            if type(change) is not Insert:
                self.hosts.attempt_over(row, change.values)

    def granted(self, values: Row) -> None:
        """A job was granted."""
        fence, key = values["fence"], (values["run_id"], values["job_id"])
        run = self.runs[key[0]]
        job = run.jobs[key[1]]
        if fence <= self.fence:
            raise Broken("i8", f"{key}: fence {fence} after {self.fence}")
        if job.living:
            raise Broken("i8", f"{key}: {fence} is granted while {job.living} lives")
        if values["attempt"] != job.numbered + 1:
            raise Broken("i8", f"{key}: attempt {values['attempt']} after {job.numbered}")
        if values["generation"] != job.row["generation"] or job.row["generation"] != run.row["generation"]:
            raise Broken("i8", f"{key}: {fence} is of generation {values['generation']}, not {run.row['generation']}")
        living = self.tables["attempts"][fence,]["state"] in LIVING_ATTEMPT_STATES  # else it is over in the same batch
        if run.row["state"] == RunState.STAGED or (living and run.row["state"] in FINAL_RUN_STATES):
            raise Broken("i15", f"{key} is granted in a run that is {run.row['state']}")
        if run.cancelled or (job.cancelled and job.generation == values["generation"]):
            raise Broken("i17", f"{key}: {fence} is granted after its cancel")
        if fence in self.hosts.started:
            raise Broken("i8", f"{key}: {fence} runs before its commit")
        if job.parents and job.open_parents():
            raise Broken("i7", f"{key} is granted, and {job.open_parents()} of its parents have not completed")
        if job.generation != values["generation"]:
            job.history = []
        self.fence = job.fence = job.living = fence
        job.numbered += 1
        job.history.append(self.tables["attempts"][fence,])

    def attempt_ended(self, row: Row, fence: int, closed: set[int]) -> None:
        """An attempt is over: as whoever knows it said, and as it really was."""
        job = self.runs[row["run_id"]].jobs[row["job_id"]]
        job.living = 0
        if fence not in closed:
            raise Broken("i9", f"attempt {fence} is {row['state']}, and nothing said so")
        closed.discard(fence)
        truth = self.hosts.ends.get(fence)
        state, cause = row["state"], row["cause"]
        if state == AttemptState.RETURNED:
            job.numbered -= 1
            if fence in self.hosts.started:
                raise Broken("i9", f"attempt {fence} is given back and was begun")
        elif state == AttemptState.ENDED:
            if truth != (row["exit_code"], cause):
                raise Broken("i11", f"attempt {fence} ended {row['exit_code']} {cause}, its process {truth}")
            if cause in (CAUSE_LOST, CAUSE_WORKER_STOP, CAUSE_LEASE) and not job.row["state"] == JobState.CANCELLED:
                raise Broken("i20", f"attempt {fence} ended by {cause} and counts as a failure")
        elif cause != CAUSE_LOST and (truth is None or truth[1] != cause):
            raise Broken("i20", f"attempt {fence} is lost by {cause}, its process {truth}")

    # Jobs

    def job_changed(self, job: JobBook) -> None:
        """The row of a job was written: may it be so after what it was?"""
        row, run, key = job.row, job.run, job.key
        state, generation = row["state"], row["generation"]
        final = state in FINAL_JOB_STATES
        if job.state is not None:
            if generation == job.generation:
                if job.state in FINAL_JOB_STATES:
                    raise Broken("i11", f"{key} was {job.state} and is {state}")
            elif job.state not in FINAL_JOB_STATES or generation != run.row["generation"]:
                raise Broken("i11", f"{key} was {job.state} and is {state} in generation {generation}")
            else:
                job.cancelled = False
                job.history = [each for each in job.history if each["generation"] == generation]
        elif generation != run.row["generation"]:
            raise Broken("i15", f"{key} is new in generation {generation} of {run.row['generation']}")
        if (row["fence"], row["attempt"]) != (job.fence, job.numbered):
            raise Broken("i8", f"{key} has {row['fence'], row['attempt']}, its attempts {job.fence, job.numbered}")
        if (run.cancelled or job.cancelled) and final and state != JobState.CANCELLED:
            raise Broken("i17", f"{key} is {state} after its cancel")
        if final:
            self.job_ended(job)
        if final or job.counted is not None:
            run.count(job, state if final else None)
        if self.rows.world.tell is not None:
            text = f"{key[0][:6]}/{key[1]} {state} {row['reason']} {row['fence']} {row['worker']}"
            self.rows.world.tell(self.rows.world.now, "database", text)
        job.state, job.generation, job.cancelled = state, generation, row["cancel_requested"]

    def job_ended(self, job: JobBook) -> None:
        """A job is over: only its process can say so, and only after its end."""
        row = job.row
        state, reason, fence = row["state"], row["reason"], row["fence"]
        truth = self.hosts.ends.get(fence)
        if state == JobState.COMPLETED:
            if truth != (0, "") or row["exit_code"] != 0:
                raise Broken("i11", f"{job.key} is COMPLETED {row['exit_code']}, its process {fence}: {truth}")
        elif state == JobState.FAILED and row["exit_code"] is not None:
            means = "TIMEOUT" if truth and truth[1] == CAUSE_TIMEOUT else ""
            if truth is None or truth[0] != row["exit_code"] or truth == (0, ""):
                raise Broken("i11", f"{job.key} FAILED {reason} {row['exit_code']}, its process {fence}: {truth}")
            if (means or reason) != reason or (reason == "TIMEOUT" and not means):
                raise Broken("i11", f"{job.key} FAILED {reason}, its process {fence}: {truth}")
        elif state == JobState.FAILED and (job.spec.on_lost != "fail" or not job.history):
            raise Broken("i11", f"{job.key} FAILED {reason} without an exit code")
        elif row["exit_code"] is not None and (truth is None or truth[0] != row["exit_code"]):
            raise Broken("i11", f"{job.key} {state} {row['exit_code']}, its process {fence}: {truth}")

    def judge_job(self, job: JobBook, quiet: bool) -> None:
        """The row of a job must follow from its attempts and its parents, and have an owner."""
        row = job.row
        if job.run.row["state"] == RunState.STAGED:
            return
        state = row["state"]
        if (state in HELD) != (job.living != 0):
            raise Broken("i12", f"{job.key} is {state}, its living attempt {job.living}")
        if job.living:
            attempt = self.tables["attempts"][job.living,]
            if attempt["state"] != state or attempt["worker"] != row["worker"]:
                raise Broken("i12", f"{job.key} is {state}, its attempt {attempt['state']} at {attempt['worker']}")
        if (state == JobState.DELAYED) != (row["due_ms"] is not None):
            raise Broken("i12", f"{job.key} is {state}, due at {row['due_ms']}")
        found = model.wrong(job, quiet)
        if found is not None:
            raise Broken(found[0], f"{job.key} is {found[1]}")

    # Runs

    def judge_run(self, run: RunBook) -> None:
        """The row of a run must follow from its jobs."""
        row, before = run.row, run.state
        state = row["state"]
        if before is not None and before != RunState.STAGED and state == RunState.STAGED:
            raise Broken("i2", f"run {run.run_id} was {before} and is {state}")
        if before in FINAL_RUN_STATES and row["generation"] == run.generation:
            raise Broken("i15", f"run {run.run_id} was {before} and is written again: {state}")
        if row["generation"] != run.generation and run.generation:
            self.judge_opening(run)
        asked = run.cancelled or run.on_request
        if asked and row["generation"] == run.generation and (run.cancelled, run.on_request) > (
            row["cancel_requested"], row["cancelled_on_request"] or run.cancelled,
        ):  # fmt: skip
            raise Broken("i17", f"the cancel of run {run.run_id} is forgotten")
        if row["cancelled_on_request"] and not run.on_request and not self.was_asked(run):
            raise Broken("i15", f"nobody asked for the cancel of {run.run_id}")
        run.state, run.generation = state, row["generation"]
        run.cancelled, run.on_request = row["cancel_requested"], row["cancelled_on_request"]
        if state == RunState.STAGED:
            return
        if len(run.jobs) != row["jobs_total"] or run.edges != run.edges_due:
            raise Broken(
                "i2", f"run {run.run_id} is {state} with {len(run.jobs)} of {row['jobs_total']} jobs, "
                f"{run.edges} of {run.edges_due} edges",
            )  # fmt: skip
        self.judge_end(run)

    def judge_end(self, run: RunBook) -> None:
        """A run's counters are those of its jobs, and it is over when they are, as they ended."""
        row, state, ends = run.row, run.row["state"], run.ends
        for name, column in COUNTERS.items():
            if row[column] != ends[name]:
                raise Broken("i15", f"run {run.run_id} counts {row[column]} {name}, its jobs {ends}")
        ended = sum(ends.values())
        over = ended == len(run.jobs)
        if over != (state in FINAL_RUN_STATES):
            raise Broken("i15" if over else "i12", f"run {run.run_id} is {state}, {ended} jobs over")
        if not over:
            return
        want = RunState.CANCELLED if row["cancelled_on_request"] else RunState.COMPLETED
        if ends[JobState.FAILED] or ends[JobState.DEAD]:
            want = RunState.FAILED
        if state != want:
            raise Broken("i15", f"run {run.run_id} is {state}, not {want}")
        if row["ended_ms"] is None or row["opening"] is not None:
            raise Broken("i15", f"run {run.run_id} is {state} and still opens")

    def judge_opening(self, run: RunBook) -> None:
        """A new generation takes whole branches, and only behind what has completed."""
        generation = run.row["generation"]
        again = [job for job in run.jobs.values() if job.starts_again or job.row["generation"] == generation]
        keys = {job.key for job in again}
        if not again:
            raise Broken("i15", f"run {run.run_id} opens generation {generation} with no job")
        for job in again:
            if any(child.key not in keys for child in job.children):
                raise Broken("i15", f"{job.key} starts again without its children")
            if any(parent.key not in keys and parent.row["state"] != JobState.COMPLETED for parent in job.parents):
                raise Broken("i7", f"{job.key} starts again behind a parent that has not completed")

    def was_asked(self, run: RunBook | None) -> bool:
        """Say whether anybody asked for the end of a run, of a job in it, or of a run above it."""
        while run is not None:
            if run.run_id in self.rows.asked:
                return True
            run = self.runs.get(run.row["parent_run_id"] or "")
        return False

    def link_all(self, run: RunBook) -> None:
        """Link the jobs of a run that is shown now or has grown, and see that they are a graph."""
        if not is_shown(run):
            return
        for job in run.jobs.values():
            for parent_id in job.spec.parents if not job.parents else ():
                parent = run.jobs.get(parent_id)
                if parent is None:
                    raise Broken("i16", f"{job.key} waits for {parent_id}, which is not there")
                parent.children.append(job)
                job.parents.append(parent)
        if has_cycle(list(run.jobs.values())):
            raise Broken("i16", f"jobs of run {run.run_id} wait for one another")


def is_shown(run: RunBook) -> bool:
    """Say whether a run is there for anybody to see."""
    return bool(run.row["state"] != RunState.STAGED)
