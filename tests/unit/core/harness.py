"""A scheduler with a dict for a database, so that a test can drive it event by event.

The dict store does what a real one does with a decision: it folds the changes, refuses the whole batch when
a guard finds another row, and only then hands out messages. It knows nothing of scheduling.
"""

from collections.abc import Iterable
from typing import Any, TypeVar

from titan.core.changes import PRIMARY_KEYS, Change, Insert, fold
from titan.core.events import (
    AttemptEnded,
    AttemptReturned,
    AttemptStarted,
    Continue,
    Decision,
    Event,
    ExtendRun,
    NewRun,
    Now,
    Refusal,
    RetryRun,
    SubmitRun,
    Tick,
    WorkerConnected,
)
from titan.core.retrying import prepare_retry
from titan.core.rows import AttemptRow, EdgeRow, JobRow, RunRow, Snapshot, starts_again
from titan.core.scheduler import Scheduler
from titan.model.limits import DEFAULT_LIMITS, Limits
from titan.model.spec import JobSpec
from titan.model.states import FINAL_JOB_STATES, FINAL_RUN_STATES, LIVING_ATTEMPT_STATES, JobState, RunState
from titan.model.wire import Ended, Grant, Held

Row = dict[str, Any]
Message = TypeVar("Message")
HELD = (JobState.ASSIGNED, JobState.RUNNING)


def job(job_id: str, *parents: str, **fields: Any) -> JobSpec:
    return JobSpec(job_id, "a.py", parents=parents, **fields)


class DictStore:
    """Tables as dicts by primary key. `commit` raises AssertionError when a guard does not hold."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[tuple[Any, ...], Row]] = {name: {} for name in PRIMARY_KEYS}

    def commit(self, changes: list[Change]) -> None:
        for change in fold(changes):
            table = self.tables[change.table]
            if isinstance(change, Insert):
                key = tuple(change.values[column] for column in PRIMARY_KEYS[change.table])
                assert key not in table, f"{change.table} {key} exists"
                table[key] = dict(change.values)
                check_row(change.table, table[key])
                continue
            row = table.get(change.key)
            assert row is not None, f"{change.table} {change.key} does not exist"
            for column, expected in change.expect.items():
                assert row[column] == expected, (
                    f"{change.table} {change.key}: {column} is {row[column]}, not {expected}"
                )
            row.update(change.values)
            check_row(change.table, row)

    def snapshot(self) -> Snapshot:
        runs = [RunRow(**row) for row in self.tables["runs"].values() if row["state"] not in FINAL_RUN_STATES]
        runs = [run for run in runs if run.state != RunState.STAGED]
        shown = {run.run_id: run for run in runs}
        jobs = [JobRow(**row) for row in self.tables["jobs"].values() if row["run_id"] in shown]
        jobs = [job for job in jobs if job.state not in FINAL_JOB_STATES or starts_again(shown[job.run_id], job)]
        open_jobs = {(job.run_id, job.job_id) for job in jobs}
        edges = [
            EdgeRow(**row)
            for row in self.tables["edges"].values()
            if (row["run_id"], row["job_id"]) in open_jobs
            and (
                (row["run_id"], row["parent_id"]) in open_jobs
                or self.job(row["run_id"], row["parent_id"])["state"] != JobState.COMPLETED
            )
        ]
        attempts = [
            AttemptRow(**row) for row in self.tables["attempts"].values() if row["state"] in LIVING_ATTEMPT_STATES
        ]
        return Snapshot(runs, jobs, edges, attempts)

    def sweep_stages(self, only: str = "") -> None:
        staged = {key[0] for key, row in self.tables["runs"].items() if row["state"] == RunState.STAGED}
        staged = staged & {only} if only else staged
        for name in ("runs", "jobs", "edges"):
            self.tables[name] = {key: row for key, row in self.tables[name].items() if key[0] not in staged}

    def job(self, run_id: str, job_id: str) -> Row:
        return self.tables["jobs"][run_id, job_id]

    def run(self, run_id: str) -> Row:
        return self.tables["runs"][run_id,]


def check_row(table: str, row: Row) -> None:
    """What the schema's CHECKs say of a row, as far as the core could break it."""
    if table == "jobs":
        assert (row["state"] in FINAL_JOB_STATES) == (row["ended_ms"] is not None), row
        assert row["state"] != JobState.DELAYED or row["due_ms"] is not None, row
        assert row["state"] != JobState.RUNNING or row["started_ms"] is not None, row
        assert row["state"] not in HELD or (row["fence"] and row["attempt"] and row["worker"]), row
        assert row["state"] != JobState.COMPLETED or not row["exit_code"], row
        assert min(row["attempt"], row["failures"], row["losses"]) >= 0, row
    elif table == "attempts":
        assert (row["state"] in LIVING_ATTEMPT_STATES) == (row["ended_ms"] is None), row
    elif table == "runs":
        over = row["jobs_completed"] + row["jobs_failed"] + row["jobs_cancelled"] + row["jobs_dead"]
        assert (row["state"] in FINAL_RUN_STATES) == (row["ended_ms"] is not None), row
        assert row["opening"] is None or row["state"] not in FINAL_RUN_STATES, row
        assert over == row["jobs_total"] if row["state"] in FINAL_RUN_STATES else over <= row["jobs_total"], row


class Harness:
    """`tell` feeds one event and commits; time moves only when `wait` says so."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.store = DictStore()
        self.limits = limits
        self.now = Now(1_000_000, 1_700_000_000_000)
        self.epoch = 1
        self.scheduler = Scheduler(self.epoch, limits)
        self.decision = Decision()
        self.hurried = False
        self.grants: list[Grant] = []
        self.sent: list[tuple[str, Any]] = []
        self._runs = 0

    def tell(self, event: Event, settle: bool = True) -> Decision:
        """Feed `event`; with `settle`, go on with the slices until none is left. Return the event's own decision."""
        decision = self._take(self.scheduler.handle(event, self.now))
        if settle:
            self.settle()
        return decision

    def settle(self) -> None:
        """Go on with the slices until none is left; `hurried`: leave that to somebody else."""
        while self.decision.more and not self.hurried:
            self._take(self.scheduler.handle(Continue(), self.now))

    def wait(self, ms: int) -> None:
        """Move both clocks by `ms`, stopping at every timer on the way."""
        until = self.now.mono_ms + ms
        while self.decision.wake_ms is not None and self.decision.wake_ms <= until:
            step = max(0, self.decision.wake_ms - self.now.mono_ms)
            self.now = Now(self.now.mono_ms + step, self.now.wall_ms + step)
            self.tell(Tick())
        step = until - self.now.mono_ms
        self.now = Now(until, self.now.wall_ms + step)

    def crash(self, settle: bool = True) -> None:
        """Throw the scheduler away and load the next epoch's from the store."""
        self.store.sweep_stages()
        self.epoch += 1
        self.scheduler = Scheduler(self.epoch, self.limits)
        self._take(self.scheduler.load(self.store.snapshot(), self.now))
        if settle:
            self.settle()

    def submit(self, *jobs: JobSpec, run_id: str = "", parent: tuple[str, str] | None = None) -> str:
        self._runs += 1
        run_id = run_id or f"{self._runs:032x}"
        root = parent[0] if parent else run_id
        new = NewRun(run_id, "test", root, root, parent[0] if parent else None, parent[1] if parent else None)
        self.accept(SubmitRun(new, jobs))
        return run_id

    def accept(self, event: Event) -> Decision:
        """Feed a command that must not be refused."""
        decision = self.tell(event)
        assert decision.refusal is None, decision.refusal
        return decision

    def refused(self, event: Event) -> Refusal:
        decision = self.tell(event)
        assert decision.refusal is not None
        assert not decision.changes
        return decision.refusal

    def worker(
        self,
        name: str = "w",
        slots: int = 1,
        tags: Iterable[str] = ("GENERAL",),
        held: Iterable[Held] = (),
        incarnation: str = "1",
        boot_id: str = "boot",
        **fields: Any,
    ) -> None:
        self.tell(WorkerConnected(name, incarnation, boot_id, tuple(tags), slots, tuple(held), **fields))

    # What the worker that holds a job says of it.

    def start(self, run_id: str, job_id: str) -> Decision:
        name, incarnation, fence = self.holder(run_id, job_id)
        return self.tell(AttemptStarted(name, incarnation, fence))

    def end(
        self, run_id: str, job_id: str, exit_code: int = 0, cause: str = "", signal: int = 0, jitter: float = 0.0
    ) -> Decision:
        name, incarnation, fence = self.holder(run_id, job_id)
        return self.tell(AttemptEnded(name, incarnation, Ended(fence, exit_code, signal, cause, 7), jitter))

    def give_back(self, run_id: str, job_id: str, reason: str = "") -> Decision:
        name, incarnation, fence = self.holder(run_id, job_id)
        return self.tell(AttemptReturned(name, incarnation, fence, reason))

    def holder(self, run_id: str, job_id: str) -> tuple[str, str, int]:
        attempt = self.attempt(run_id, job_id)
        return attempt["worker"], attempt["incarnation"], attempt["fence"]

    def attempt(self, run_id: str, job_id: str) -> Row:
        """The row of the job's newest attempt."""
        return self.store.tables["attempts"][self.job(run_id, job_id)["fence"],]

    def retry(self, run_id: str, *job_ids: str) -> RetryRun:
        """The command with the rows as they are now."""
        tables = self.store.tables
        jobs = [JobRow(**row) for key, row in tables["jobs"].items() if key[0] == run_id]
        edges = [EdgeRow(**row) for key, row in tables["edges"].items() if key[0] == run_id]
        return prepare_retry(RunRow(**self.run(run_id)), jobs, edges, job_ids)

    def extend(self, run_id: str, *jobs: JobSpec) -> ExtendRun:
        """The command with those parents that are over now."""
        finished = {
            key[1]: JobRow(**row)
            for key, row in self.store.tables["jobs"].items()
            if key[0] == run_id and row["state"] in FINAL_JOB_STATES
        }
        return ExtendRun(run_id, jobs, finished)

    # What is known of a job.

    def job(self, run_id: str, job_id: str) -> Row:
        return self.store.job(run_id, job_id)

    def run(self, run_id: str) -> Row:
        return self.store.run(run_id)

    def messages(self, kind: type[Message], worker: str = "w") -> list[Message]:
        """What was sent to the worker of that kind, in order."""
        return [message for name, message in self.sent if name == worker and isinstance(message, kind)]

    def states(self, run_id: str) -> dict[str, JobState]:
        return {key[1]: row["state"] for key, row in self.store.tables["jobs"].items() if key[0] == run_id}

    def state(self, run_id: str, job_id: str) -> JobState:
        return JobState(self.store.job(run_id, job_id)["state"])

    def reason(self, run_id: str, job_id: str) -> str:
        explanation = self.scheduler.explain(run_id, job_id, self.now)
        assert explanation is not None
        return explanation.reason

    def _take(self, decision: Decision) -> Decision:
        self.store.commit(decision.changes)
        self.decision = decision
        for send in decision.sends:
            self.sent.append((send.worker, send.message))
            if isinstance(send.message, Grant):
                self.grants.append(send.message)
        return decision
