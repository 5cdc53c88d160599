"""What the scheduler holds in memory: living runs and jobs, workers, attempts, timers, unfinished slices.

It is never the truth, only ahead of the database by the batches in flight. Finished jobs leave it; a
living run keeps counters and open edges. Jobs refer to their children but never back, so that dropping a
whole `Memory` frees it without help from the cycle collector (structs here are not tracked by it).
"""

import heapq
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from titan.core.changes import Insert, Table, Update
from titan.core.events import Decision, News, Now, Send
from titan.core.rows import AttemptRow, Columns, JobRow, RunRow
from titan.core.states import JobEvent, RunEvent, next_job_state, next_run_state
from titan.model.limits import Limits
from titan.model.spec import GPU
from titan.model.states import AttemptState, JobState
from titan.model.wire import EPOCH_SHIFT, MasterMessage

LEASE_GRACE_S = 5
AHEAD_MAX = 30
TIMERS_MIN = 10_000


class Job(JobRow, gc=False, kw_only=True):
    """A job that is not final. `waiting_for` counts parents that have not completed.

    `row_shows`: the state and generation in its row, as long as that is of the generation before (None: it is not).
    """

    tags: frozenset[str]
    affinity: bool = False
    affinity_wait_ms: int = 0
    delay_ms: int = 0
    retries: int = 0
    retry_backoff_s: float = 1.0
    lease_s: int = 60
    on_lost: str = "retry"
    waiting_for: int = 0
    children: list["Job"] | None = None
    queue_seq: int = 0
    pinned_to: str = ""
    note: str = ""
    row_shows: tuple[JobState, int] | None = None


class Run(RunRow, kw_only=True):
    """A run that is not final. `unlinked` holds children whose parent has not been staged yet."""

    jobs: dict[str, Job] = {}
    living: set[int] = set()
    roots: list[Job] = []
    unlinked: dict[str, list[Job]] = {}
    states: dict[JobState, int] = {}
    saved_state: str = ""
    saved_generation: int = 0
    saved_opening: bytes | None = None


class Attempt(AttemptRow, gc=False, kw_only=True):
    """A living attempt. Its lease counts from `base_ms` (monotonic) or its worker's last renewal."""

    base_ms: int
    not_before_ms: int = 0
    level: int = 0  # that of its run when it was granted; see `titan.core.lending`
    begun_ms: int = -1  # when its start was told (monotonic); -1: not, or not to this Master
    ahead: bool = False  # it waits at its worker for a slot there


class Wait(msgspec.Struct, gc=False):
    """What one attempt waits for: runs below it, or jobs of them ("": the run). It is dropped with the attempt.

    `asked`: how many asks are open now. `kept`: until when (monotonic) one that was not answered counts. `runs` are
    those of both.
    """

    fence: int
    asked: dict[tuple[str, str], int]
    kept: dict[tuple[str, str], int]
    runs: set[str]


class Worker(msgspec.Struct):
    """A worker process the Master knows: connected, or not yet given up.

    `devices`: how many it hands out, one a GPU job; 0: `GPU` is a plain tag there. `draining`: it takes nothing
    more, because it said so or a person did (`told_to_drain`). `hears`: it renewed since its hello, so it had our
    welcome. `predecessor`: the process whose record it said it has ("": none).
    """

    name: str
    incarnation: str
    boot_id: str
    capabilities: frozenset[str]
    slots: int
    connected: bool
    renewed_ms: int
    host: str = ""
    pid: int = 0
    version: str = ""
    connected_wall_ms: int = 0  # 0: known from before a start of the Master, and not seen since
    devices: int = 0
    draining: bool = False
    told_to_drain: bool = False
    hears: bool = False
    predecessor: str = ""
    fences: set[int] = set()
    device_fences: set[int] = set()
    lent: set[int] = set()  # those that wait, and whose slot may serve another
    ahead: set[int] = set()  # those that wait there for a slot
    forget_ms: int = 0  # when it was last asked for to be forgotten; what was asked for before is void
    pace_ms: float = -1  # how long its attempts take, a moving average; -1: not known

    @property
    def free(self) -> int:
        """Slots without an attempt that needs one (0 while it is away or leaves)."""
        if not self.connected or self.draining:
            return 0
        return max(0, self.slots - len(self.fences) + len(self.lent))

    @property
    def busy(self) -> int:
        """Attempts that need a slot."""
        return len(self.fences) - len(self.lent)

    @property
    def beyond(self) -> int:
        """How many attempts it holds beyond its slots, those that lend theirs included."""
        return len(self.fences) - self.slots

    @property
    def room(self) -> int:
        """How many attempts may be sent to it before a slot of it is free."""
        return min(self.slots, AHEAD_MAX) - max(0, self.busy - self.slots)

    def lacks_device(self, tags: frozenset[str]) -> bool:
        """Say whether a job needing `tags` needs a device, and all of this worker's are in use."""
        return 0 < self.devices <= len(self.device_fences) and GPU in tags


Timer = tuple[int, int, str, Any, int]


class Memory:
    """The state of one scheduler and the decision it is making. Owned by `Scheduler`; not thread-safe."""

    def __init__(self, epoch: int, limits: Limits) -> None:
        self.epoch = epoch
        self.limits = limits
        self.now = Now(0, 0)
        self.out = Decision()
        self.runs: dict[str, Run] = {}
        self.states: dict[JobState, int] = {}  # how many jobs of these runs are in which state
        self.child_runs: dict[str, dict[str, None]] = {}
        self.staged: dict[str, Run] = {}
        self.workers: dict[str, Worker] = {}
        self.attempts: dict[int, Attempt] = {}
        self.fences_of: dict[str, set[int]] = {}
        self.waits: dict[int, Wait] = {}
        self.unlent: dict[int, None] = {}  # those of them whose slot is not lent
        self.awaited: dict[str, dict[int, None]] = {}  # runs waited for, the newest last, and by which fences
        self.ahead: dict[tuple[int, frozenset[str]], dict[int, None]] = {}  # by priority and tags, not asked back
        self.recalled: dict[int, Any] = {}  # asked back on behalf of a worker (its name) or a queue (its key)
        self.timers: list[Timer] = []
        self._timers_max = TIMERS_MIN
        self.slices: deque[Iterator[None]] = deque()
        self.dirty_runs: dict[str, Run] = {}
        self.granted = 0
        self._sequence = 0

    def next_sequence(self) -> int:
        """Return a number never returned before in this memory."""
        self._sequence += 1
        return self._sequence

    def next_fence(self) -> int:
        """Return the next fence: epoch in the high bits, so that fences rise over every takeover."""
        self.granted += 1
        return (self.epoch << EPOCH_SHIFT) | self.granted

    def job(self, run_id: str, job_id: str) -> Job | None:
        """Return the living job, or None."""
        run = self.runs.get(run_id)
        return run.jobs.get(job_id) if run else None

    def is_cancelled(self, job: Job) -> bool:
        """Say whether `job` shall end: somebody asked for its end or for that of its run."""
        return job.cancel_requested or self.runs[job.run_id].cancel_requested

    def enter_run(self, run: Run) -> None:
        """Enter a living run, and below the run that a job of it was submitted from."""
        self.runs[run.run_id] = run
        for state, count in run.states.items():
            self.states[state] = self.states.get(state, 0) + count
        if run.parent_run_id is not None:
            self.child_runs.setdefault(run.parent_run_id, {})[run.run_id] = None

    def leave_run(self, run: Run) -> None:
        """Take out a run that has ended."""
        del self.runs[run.run_id]
        for state, count in run.states.items():
            self.states[state] -= count
        if run.parent_run_id is not None:
            children = self.child_runs[run.parent_run_id]
            del children[run.run_id]
            if not children:
                del self.child_runs[run.parent_run_id]

    def job_of(self, attempt: Attempt) -> Job:
        """Return the job of a living attempt: no other attempt of it lives, and it is not final."""
        return self.runs[attempt.run_id].jobs[attempt.job_id]

    def set_timer(self, at_ms: int, kind: str, key: Any, token: int = 0) -> None:
        """Ask to be woken at monotonic `at_ms`. Those that no longer matter are dropped once they are the most."""
        heapq.heappush(self.timers, (at_ms, self.next_sequence(), kind, key, token))
        if len(self.timers) > self._timers_max:
            self.timers = [timer for timer in self.timers if self.matters(timer)]
            heapq.heapify(self.timers)
            self._timers_max = max(TIMERS_MIN, 2 * len(self.timers))

    def forget_at(self, worker: Worker, at_ms: int) -> None:
        """Look at monotonic `at_ms`, and at no time asked for before, whether `worker` is to be forgotten."""
        if worker.forget_ms != at_ms:
            worker.forget_ms = at_ms
            self.set_timer(at_ms, "worker", worker.name, at_ms)

    def matters(self, timer: Timer) -> bool:
        """Say whether what `timer` was set for is still to come."""
        _, _, kind, key, token = timer
        if kind == "due":
            return bool(key.state == JobState.DELAYED and key.due_ms == token)
        if kind == "affinity":
            return bool(key.queue_seq == token)
        if kind == "lend":
            return key in self.waits
        if kind == "ahead":
            return key in self.attempts and self.attempts[key].ahead
        if kind == "worker":
            return key in self.workers and self.workers[key].forget_ms == token
        return key in self.attempts

    def run_slices(self, budget: int) -> None:
        """Do at most `budget` steps of the unfinished slices, which take turns from event to event."""
        while self.slices and budget > 0:
            steps = self.slices[0]
            while budget > 0:
                budget -= 1
                if next(steps, steps) is steps:
                    self.slices.remove(steps)
                    break
            else:
                self.slices.rotate(-1)

    def move(self, job: Job, event: JobEvent, **values: Any) -> None:
        """Move `job` by the table, set the named columns, and record the guarded update and the news."""
        self.open(job)
        values["state"] = state = next_job_state(job.state, event)
        self.count(self.runs[job.run_id], job.state, state)
        expect = {"state": job.state, "fence": job.fence, "generation": job.generation}
        for column, value in values.items():
            setattr(job, column, value)
        self.out.changes.append(Update("jobs", (job.run_id, job.job_id), expect, values))
        self.out.news.append(
            News("job", job.run_id, job.job_id, {"state": job.state, "reason": job.reason, "attempt": job.attempt})
        )

    def count(self, run: Run, old: JobState | None, new: JobState) -> None:
        """Keep the number of jobs by state, of the run and of all, that `stats` answers from."""
        for states in (run.states, self.states) if run.run_id in self.runs else (run.states,):
            if old is not None:
                states[old] = states.get(old, 0) - 1
            states[new] = states.get(new, 0) + 1

    def amend(self, job: Job, **values: Any) -> None:
        """Set columns of `job` without moving it (guarded all the same)."""
        self.open(job)
        expect = {"state": job.state, "fence": job.fence, "generation": job.generation}
        for column, value in values.items():
            setattr(job, column, value)
        self.out.changes.append(Update("jobs", (job.run_id, job.job_id), expect, values))

    def open(self, job: Job) -> None:
        """Have the row of a job that starts again say so, if it does not yet; always before anything else of it."""
        if job.row_shows is None:
            return
        state, generation = job.row_shows
        job.row_shows = None
        expect = {"state": state, "fence": job.fence, "generation": generation}
        values = JOB_REOPENED.of(job)
        self.out.changes.append(Update("jobs", (job.run_id, job.job_id), expect, values))
        self.out.news.append(
            News("job", job.run_id, job.job_id, {"state": job.state, "reason": job.reason, "attempt": job.attempt})
        )

    def move_run(self, run: Run, event: RunEvent, **values: Any) -> None:
        """Move `run` by its table; its row is written once, at the end of the event."""
        run.state = next_run_state(run.state, event)
        for column, value in values.items():
            setattr(run, column, value)
        self.touch(run)

    def touch(self, run: Run) -> None:
        """Have `run`'s row written at the end of this event."""
        self.dirty_runs[run.run_id] = run

    def flush_runs(self) -> None:
        """Record one guarded update for each run touched, and news where its state changed."""
        for run in self.dirty_runs.values():
            values = RUN_MUTABLE.of(run)
            if run.opening is not run.saved_opening:
                values["opening"] = run.saved_opening = run.opening
            expect = {"state": run.saved_state, "generation": run.saved_generation}
            self.out.changes.append(Update("runs", (run.run_id,), expect, values))
            self.out.news.append(News("run", run.run_id, "", run_news(run)))
            run.saved_state = run.state
            run.saved_generation = run.generation
        self.dirty_runs.clear()

    def hold(self, attempt: Attempt) -> None:
        """Enter a living attempt in every index."""
        self.attempts[attempt.fence] = attempt
        self.fences_of.setdefault(attempt.worker, set()).add(attempt.fence)
        self.runs[attempt.run_id].living.add(attempt.fence)
        worker = self.workers.get(attempt.worker)
        if worker is not None and worker.incarnation == attempt.incarnation:
            self.occupy(worker, attempt)

    def occupy(self, worker: Worker, attempt: Attempt) -> None:
        """Count a living attempt on the process that holds it."""
        worker.fences.add(attempt.fence)
        if GPU in self.job_of(attempt).tags:
            worker.device_fences.add(attempt.fence)

    def ahead_key(self, attempt: Attempt) -> tuple[int, frozenset[str]]:
        """Return where in `ahead` an attempt stands."""
        job = self.job_of(attempt)
        return job.priority, job.tags

    def forget_ahead(self, attempt: Attempt) -> None:
        """Take an attempt out of `ahead`, where it may be."""
        key = self.ahead_key(attempt)
        level = self.ahead.get(key, {})
        level.pop(attempt.fence, None)
        if not level:
            self.ahead.pop(key, None)

    def leave_ahead(self, attempt: Attempt) -> None:
        """An attempt sent ahead waits no more: it has started, or lives no more."""
        attempt.ahead = False
        self.forget_ahead(attempt)
        self.recalled.pop(attempt.fence, None)
        worker = self.workers.get(attempt.worker)
        if worker is not None:
            worker.ahead.discard(attempt.fence)

    def start_attempt(self, attempt: Attempt, start: str) -> None:
        """Record that a living attempt was handed to its launcher, and how it began."""
        if attempt.ahead:
            self.leave_ahead(attempt)
        values = {"state": AttemptState.RUNNING, "started_ms": self.now.wall_ms, "start": start}
        self.out.changes.append(Update("attempts", (attempt.fence,), {"state": attempt.state}, values))
        attempt.state, attempt.started_ms, attempt.start = AttemptState.RUNNING, self.now.wall_ms, start

    def close_attempt(self, attempt: Attempt, state: AttemptState, **values: Any) -> None:
        """End a living attempt: its row, its place in its run and on its worker."""
        if attempt.ahead:
            self.leave_ahead(attempt)
        values.update(state=state, ended_ms=self.now.wall_ms)
        self.out.changes.append(Update("attempts", (attempt.fence,), {"state": attempt.state}, values))
        if attempt.fence in self.waits:
            self.drop_wait(attempt)
        del self.attempts[attempt.fence]
        fences = self.fences_of[attempt.worker]
        fences.discard(attempt.fence)
        if not fences:
            del self.fences_of[attempt.worker]
        self.runs[attempt.run_id].living.discard(attempt.fence)
        worker = self.workers.get(attempt.worker)
        if worker is not None:
            worker.fences.discard(attempt.fence)
            worker.device_fences.discard(attempt.fence)

    def await_only(self, wait: Wait, runs: set[str]) -> None:
        """Have `wait` be for `runs`."""
        for run_id in wait.runs - runs:
            waiting = self.awaited[run_id]
            del waiting[wait.fence]
            if not waiting:
                del self.awaited[run_id]
        for run_id in runs - wait.runs:
            self.awaited.setdefault(run_id, {})[wait.fence] = None
        wait.runs = runs

    def drop_wait(self, attempt: Attempt) -> None:
        """An attempt waits for nothing any more: its slot is its own again."""
        self.await_only(self.waits.pop(attempt.fence), set())
        self.unlent.pop(attempt.fence, None)
        worker = self.workers.get(attempt.worker)
        if worker is not None:
            worker.lent.discard(attempt.fence)

    def insert(self, table: Table, row: msgspec.Struct, columns: Columns) -> None:
        """Record a new row holding `columns` of `row`."""
        self.out.changes.append(Insert(table, columns.of(row)))

    def send(self, worker: str, incarnation: str, message: MasterMessage) -> None:
        """Send `message` to one worker process once the batch is committed."""
        self.out.sends.append(Send(worker, incarnation, message))


RUN_COLUMNS = Columns(RunRow.__struct_fields__)
JOB_COLUMNS = Columns(JobRow.__struct_fields__)
ATTEMPT_COLUMNS = Columns(AttemptRow.__struct_fields__)
JOB_REOPENED = Columns((
    "state", "reason", "generation", "worker", "failures", "losses", "due_ms", "cancel_requested", "affinity_worker",
    "exit_code", "ready_ms", "started_ms", "ended_ms",
))  # fmt: skip
# `opening` is large and changes twice a generation: it is written only then.
RUN_MUTABLE = Columns((
    "state", "generation", "started_ms", "ended_ms", "cancel_requested", "cancelled_on_request",
    "jobs_total", "jobs_completed", "jobs_failed", "jobs_cancelled", "jobs_dead", "parent_fence",
))  # fmt: skip


def run_news(run: RunRow) -> dict[str, Any]:
    """Return what live views are told of a run: its state, generation and counts."""
    return {
        "state": run.state,
        "generation": run.generation,
        "total": run.jobs_total,
        "completed": run.jobs_completed,
        "failed": run.jobs_failed,
        "cancelled": run.jobs_cancelled,
        "dead": run.jobs_dead,
    }
