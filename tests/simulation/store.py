"""A database of dicts: the smallest thing that keeps the promises which the storage makes.

A batch is applied whole or not at all, behind the leader row that says who may and which number comes next. Rows
are guarded by what an update expects. Nothing here knows what a job is.
"""

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from titan.core.changes import CONTENT_ADDRESSED, PRIMARY_KEYS, Change, Insert
from titan.core.commit import Batch
from titan.core.rows import AttemptRow, EdgeRow, JobRow, RunRow, Snapshot, starts_again
from titan.model.states import FINAL_JOB_STATES, FINAL_RUN_STATES, LIVING_ATTEMPT_STATES, JobState, RunState
from titan.model.store import Prune, StoreCas, StoreIncr, StorePut, StoreRefused, SweepStage
from titan.storage.errors import AssertionFailed, Deposed

Row = dict[str, Any]
Key = tuple[Any, ...]
Tables = dict[str, dict[Key, Row]]
KEYS = {name: itemgetter(*columns) for name, columns in PRIMARY_KEYS.items()}
SHORT_KEYS = tuple(name for name, columns in PRIMARY_KEYS.items() if len(columns) == 1)
TABLES = ("runs", "jobs", "edges", "attempts", "idempotency", "blobs", "registry")


def key_of(name: str, values: Row) -> Key:
    """Return the primary key of a row."""
    key = KEYS[name](values)
    return (key,) if name in SHORT_KEYS else key


class DictStore:
    """`values` are those of the key-value store, `logs` what was kept of each attempt's log: (total, kept)."""

    def __init__(self) -> None:
        self.epoch = 0
        self.number = 0
        self.rows: Tables = {name: {} for name in TABLES}
        self.jobs_of: dict[str, dict[str, Row]] = {}
        self.edges_of: dict[str, list[Row]] = {}
        self.living: dict[int, Row] = {}
        self.open_runs: dict[str, Row] = {}
        self.values: dict[str, str | bytes] = {}
        self.keys_used: dict[str, tuple[bytes, Any]] = {}
        self.logs: dict[int, tuple[int, int]] = {}

    def take_over(self, wall_ms: int) -> int:
        """Begin a new epoch."""
        self.epoch += 1
        self.number = 0
        return self.epoch

    def leader(self) -> tuple[int, int]:
        """Return (epoch, batch)."""
        return self.epoch, self.number

    def commit(self, batch: Batch) -> list[Any]:
        """Apply `batch` or raise and change nothing: Deposed, AssertionFailed."""
        if (self.epoch, self.number) != (batch.epoch, batch.number - 1):
            raise Deposed(f"the leader row shows batch {self.number} of epoch {self.epoch}")
        for change in batch.changes:
            self._check(change)
        return self.apply(batch)

    def apply(self, batch: Batch) -> list[Any]:
        """Apply `batch`, whoever asks."""
        self.number = batch.number
        for change in batch.changes:
            if type(change) is Insert:
                self._insert(change.table, change.values)
            else:
                row = self.rows[change.table][change.key]
                row.update(change.values)
                if change.table == "attempts":
                    if row["state"] not in LIVING_ATTEMPT_STATES:
                        self.living.pop(row["fence"], None)
                elif change.table == "runs":
                    self._run_moved(row)
        for chunk in batch.chunks:
            _, kept = self.logs.get(chunk.fence, (0, 0))
            self.logs[chunk.fence] = (chunk.end, kept + len(chunk.data))
        return [self._operate(operation) for operation in batch.operations] if batch.operations else []

    def _check(self, change: Change) -> None:
        name = change.table
        table = self.rows[name]
        if type(change) is Insert:
            key = key_of(name, change.values)
            if key not in table or name in CONTENT_ADDRESSED:
                return
            if name != "idempotency" or table[key]["expires_ms"] > change.values["created_ms"]:
                raise AssertionFailed(f"{name} {key} exists")
            return
        if change.key not in table:
            raise AssertionFailed(f"{name} {change.key} does not exist")
        row = table[change.key]
        for column, value in change.expect.items():
            if row[column] != value:
                shown = {each: row[each] for each in change.expect}
                raise AssertionFailed(f"{name} {change.key} shows {shown}, not {change.expect}")

    def _insert(self, name: str, values: Row) -> None:
        row = values.copy()
        self.rows[name][key_of(name, values)] = row
        if name == "jobs":
            self.jobs_of.setdefault(row["run_id"], {})[row["job_id"]] = row
        elif name == "edges":
            self.edges_of.setdefault(row["run_id"], []).append(row)
        elif name == "attempts" and row["state"] in LIVING_ATTEMPT_STATES:
            self.living[row["fence"]] = row
        elif name == "runs":
            self._run_moved(row)

    def _run_moved(self, row: Row) -> None:
        if row["state"] in FINAL_RUN_STATES:
            self.open_runs.pop(row["run_id"], None)
        else:
            self.open_runs[row["run_id"]] = row

    def _operate(self, operation: Any) -> Any:
        key = getattr(operation, "idempotency", None)
        if key is not None and key.key in self.keys_used:
            return self.keys_used[key.key][1]
        result = self._do(operation)
        if key is not None and not isinstance(result, StoreRefused):
            self.keys_used[key.key] = (key.body_hash, result)
        return result

    def _do(self, operation: Any) -> Any:
        match operation:
            case StorePut():
                self.values[operation.key] = operation.value
                return None
            case StoreIncr():
                value = self.values.get(operation.key, "0")
                total = str(int(value) + operation.by)
                self.values[operation.key] = total
                return total
            case StoreCas():
                if self.values.get(operation.key) != operation.expect:
                    return False
                if operation.value is None:
                    self.values.pop(operation.key, None)
                else:
                    self.values[operation.key] = operation.value
                return True
            case SweepStage():
                return self._sweep(operation.run_id)
            case Prune():
                return 0
        raise NotImplementedError(type(operation).__name__)

    def _sweep(self, run_id: str) -> int:
        row = self.rows["runs"].get((run_id,))
        if row is None or row["state"] != RunState.STAGED:
            return 0
        del self.rows["runs"][run_id,]
        self.open_runs.pop(run_id, None)
        for job_id in self.jobs_of.pop(run_id, {}):
            del self.rows["jobs"][run_id, job_id]
        for edge in self.edges_of.pop(run_id, []):
            del self.rows["edges"][run_id, edge["job_id"], edge["parent_id"]]
        return 1

    # What is read

    def snapshot(self) -> Snapshot:
        """Return what the core is rebuilt from."""
        runs = [RunRow(**row) for row in self.open_runs.values() if row["state"] != RunState.STAGED]
        jobs: list[JobRow] = []
        edges: list[EdgeRow] = []
        for run in runs:
            rows = self.jobs_of.get(run.run_id, {})
            living = [JobRow(**row) for row in rows.values()]
            living = [job for job in living if job.state not in FINAL_JOB_STATES or starts_again(run, job)]
            jobs += living
            ids = {job.job_id for job in living}
            for edge in self.edges_of.get(run.run_id, ()):
                parent = edge["parent_id"]
                if edge["job_id"] in ids and (parent in ids or rows[parent]["state"] != JobState.COMPLETED):
                    edges.append(EdgeRow(**edge))
        attempts = [AttemptRow(**row) for row in self.living.values()]
        return Snapshot(runs, jobs, edges, attempts)

    def staged_runs(self) -> list[str]:
        """Return the runs of which only a part arrived."""
        return [run_id for run_id, row in self.open_runs.items() if row["state"] == RunState.STAGED]

    def run(self, run_id: str) -> RunRow | None:
        """Return the run's row."""
        row = self.rows["runs"].get((run_id,))
        return None if row is None or row["state"] == RunState.STAGED else RunRow(**row)

    def whole_run(self, run_id: str) -> tuple[RunRow, list[JobRow], list[EdgeRow]] | None:
        """Return all rows of a run."""
        run = self.run(run_id)
        if run is None:
            return None
        jobs = [JobRow(**row) for row in self.jobs_of.get(run_id, {}).values()]
        return run, jobs, [EdgeRow(**row) for row in self.edges_of.get(run_id, ())]

    def finished_parents(self, run_id: str, job_ids: Sequence[str]) -> dict[str, JobRow]:
        """Return those of the jobs that are over."""
        run = self.run(run_id)
        found: dict[str, JobRow] = {}
        for job_id in job_ids:
            row = self.jobs_of.get(run_id, {}).get(job_id)
            if run is not None and row is not None and row["state"] in FINAL_JOB_STATES:
                job = JobRow(**row)
                if not starts_again(run, job):
                    found[job_id] = job
        return found

    def remembered(self, key: str, now_wall_ms: int) -> bytes | None:
        """Return the answer kept under an idempotency key."""
        row = self.rows["idempotency"].get((key,))
        return row["answer"] if row is not None and row["expires_ms"] > now_wall_ms else None

    def value(self, key: str, now_wall_ms: int) -> str | bytes | None:
        """Return the value of a key of the store."""
        return self.values.get(key)

    def tables(self) -> Tables:
        """Return all rows."""
        return self.rows

    def log_totals(self, fences: Iterable[int]) -> dict[int, tuple[int, int]]:
        """Return how far each log goes and how many bytes of it are kept."""
        return {fence: self.logs.get(fence, (0, 0)) for fence in fences}

    def close(self) -> None:
        """Nothing is open."""
