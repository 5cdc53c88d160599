"""Judges what a leading Master's scheduler decides, by that Master's own monotonic clock and what it was told.

A Lead lives from a load to the end of that core, as all that is counted in memory does: leases, backoffs, and the
turns of the queues.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.simulation.hosts import Hosts
from tests.simulation.slots import Ledger
from tests.simulation.world import Broken
from titan.core.changes import Insert
from titan.core.events import (
    AttemptEnded,
    AttemptReturned,
    CancelJob,
    CancelRun,
    Decision,
    Event,
    FlipRun,
    Now,
    StageJobs,
    WorkerConnected,
)
from titan.core.rows import AttemptRow, Snapshot
from titan.model.spec import JobSpec, decode_spec
from titan.model.states import LIVING_ATTEMPT_STATES, AttemptState, JobState

if TYPE_CHECKING:
    from tests.simulation.master import Master
    from tests.simulation.rows import Rows

JobKey = tuple[str, str]
GRACE_MS = 5_000
EXTEND_MS_MAX = 15 * 60_000
BACKOFF_S_MAX = 300.0
POSTPONE_MS = 1_000
TURN = 16
STEPS_OF_A_LOAD = 400
QUEUED, ASSIGNED, RUNNING = JobState.QUEUED, JobState.ASSIGNED, AttemptState.RUNNING
STARTING = (QUEUED, ASSIGNED)
# Events that tell something beside what follows from them.
SAYING = frozenset({CancelJob, CancelRun, FlipRun, WorkerConnected})
HITS = {(old, new): f"job {old} {new}" for old in JobState for new in JobState}


class Hold:
    """A living attempt: which processes had it, and until when it may not be given up whatever is heard."""

    __slots__ = ("base_ms", "boot_id", "incarnations", "lease_ms", "not_before_ms", "worker")

    def __init__(self, row: AttemptRow | dict[str, Any], base_ms: int) -> None:
        values = row if isinstance(row, dict) else {name: getattr(row, name) for name in HOLD_COLUMNS}
        self.worker: str = values["worker"]
        self.boot_id: str = values["boot_id"]
        self.incarnations: list[str] = [values["incarnation"]]
        self.lease_ms: int = values["lease_s"] * 1_000
        self.base_ms = base_ms
        self.not_before_ms = 0


HOLD_COLUMNS = ("worker", "boot_id", "incarnation", "lease_s")


class Turn:
    """A ready job in its queue: how many stood there before it, and how many grants that queue had made by then."""

    __slots__ = ("before", "granted")

    def __init__(self, before: int, granted: int) -> None:
        self.before = before
        self.granted = granted


NO_QUEUE: dict[JobKey, Turn | None] = {}


class Lead:
    """One load of one Master's core. `closed`: the attempts it ended, with good reason."""

    def __init__(self, rows: "Rows", epoch: int, now: Now, snapshot: Snapshot, ledger: Ledger) -> None:
        self.rows = rows
        self.ledger = ledger
        self.hosts: Hosts = rows.hosts
        self.epoch = epoch
        self.closed: set[int] = set()
        self.renewals: dict[str, int] = {}
        self.held: dict[int, Hold] = {}
        self.waits_until: dict[JobKey, int] = {}
        self.granted: Counter[tuple[str, ...]] = Counter()
        self.queues: dict[tuple[str, ...], dict[JobKey, Turn | None]] = {}
        self.cancels: list[tuple[Decision, CancelRun | CancelJob, dict[str, int]]] = []
        self.staged: dict[str, list[JobKey]] = {}
        for attempt in snapshot.attempts:
            hold = self.held[attempt.fence] = Hold(attempt, now.mono_ms)
            if attempt.lease_until_ms is not None:
                left_ms = min(EXTEND_MS_MAX, max(0, attempt.lease_until_ms - now.wall_ms))
                hold.not_before_ms = now.mono_ms + left_ms + GRACE_MS
        ready = [job for job in snapshot.jobs if job.state == JobState.QUEUED]
        for job in ready:
            self.queues.setdefault(self.spec((job.run_id, job.job_id)).requirement, {})[job.run_id, job.job_id] = None
        # In which order they enter their queues is not known: each may be the last. A load that takes several events
        # lets others in between.
        if len(snapshot.jobs) < STEPS_OF_A_LOAD:
            for queue in self.queues.values():
                for key in queue:
                    queue[key] = None if self.spec(key).affinity else Turn(len(queue) - 1, 0)

    def spec(self, key: JobKey) -> JobSpec:
        """Return the spec of a job that was ever decided on."""
        return self.rows.specs[key]

    def decided(self, master: "Master", event: Event, decision: Decision) -> None:
        """Judge one decision. A Master that was deposed can grant and close nothing."""
        leads = master.machine.epoch == self.rows.epoch
        if type(event) in SAYING:
            self.heard(event, decision)
        now = master.clocks() if decision.changes else None
        for change in decision.changes:
            values = change.values
            if change.table == "jobs":
                if type(change) is Insert:
                    self.new_job(values, event, now)
                elif "state" in values:
                    self.job_moves(change.key, change.expect["state"], values, event, now)
            elif change.table == "attempts":
                if type(change) is Insert:
                    fence = values["fence"]
                    self.held[fence] = Hold(values, now.mono_ms)
                    self.ledger.hold(fence, (values["worker"], values["incarnation"]))
                    continue
                fence = change.key[0]
                if "incarnation" in values:
                    self.adopted(fence, values)
                if values.get("state", RUNNING) not in LIVING_ATTEMPT_STATES:
                    self.attempt_ends(fence, values["state"], event, now)
                    self.ledger.drop(fence)
                    if leads:
                        self.hosts.closes(master, fence, values)
        if decision.sends:
            self.hosts.slots.sends(self.ledger, decision.sends, leads)

    def heard(self, event: Any, decision: Decision) -> None:
        """Note what an event told, beside what follows from it."""
        if isinstance(event, WorkerConnected):
            self.hello(event)
        elif isinstance(event, FlipRun):
            if decision.refusal is None:
                for key in self.staged.pop(event.run_id, ()):
                    self.ready(key, not decision.more)
        elif decision.answer.get("cancelled"):
            self.cancels.append((decision, event, self.generations(decision, event.run_id)))
            self.rows.asked.setdefault(event.run_id)

    def generations(self, decision: Decision, run_id: str) -> dict[str, int]:
        """Return of which generations the runs are that a cancel writes, and the run that it names."""
        known = self.rows.books.runs.get(run_id)
        found = {run_id: known.generation if known is not None else 1}
        for change in decision.changes:
            if change.table == "runs" and not isinstance(change, Insert):
                found[change.key[0]] = change.expect["generation"]
        return found

    # Attempts

    def hello(self, event: WorkerConnected) -> None:
        """A worker is back: what was promised for its absence is over."""
        self.ledger.current[event.name] = event.incarnation
        self.ledger.lent[event.name] = set()
        self.rows.predecessors[event.incarnation] = event.predecessor
        for attempt in event.attempts:
            hold = self.held.get(attempt.fence)
            if hold is not None and hold.worker == event.name:
                hold.not_before_ms = 0

    def adopted(self, fence: int, values: dict[str, Any]) -> None:
        """The next process of its worker answers for an attempt."""
        hold = self.held[fence]
        hold.incarnations.append(values["incarnation"])
        hold.boot_id = values["boot_id"]
        self.ledger.adopt(fence, values["incarnation"])

    def attempt_ends(self, fence: int, state: AttemptState, event: Event, now: Now) -> None:
        """An attempt is over, as the Master believes."""
        hold = self.held.pop(fence)
        self.closed.add(fence)
        if self.told(fence, hold, state, event):
            process = self.hosts.started.get(fence)
            if process is not None and not process.gone:
                raise Broken("i9", f"attempt {fence} is {state} by {type(event).__name__}, and its process lives")
            return
        heard_ms = max(hold.base_ms, *[self.renewals.get(each, 0) for each in hold.incarnations])
        until_ms = max(heard_ms + hold.lease_ms + GRACE_MS, hold.not_before_ms)
        if state != AttemptState.LOST:
            raise Broken("i9", f"attempt {fence} is {state} by {type(event).__name__}")
        if now.mono_ms < until_ms:
            raise Broken("i9", f"attempt {fence} is given up {until_ms - now.mono_ms} ms before its lease is over")

    def told(self, fence: int, hold: Hold, state: AttemptState, event: Event) -> bool:
        """Say whether who may speak for an attempt has just told that it is over."""
        if isinstance(event, AttemptEnded):
            return event.ended.fence == fence and (event.worker, event.incarnation) == (
                hold.worker, hold.incarnations[-1],
            )  # fmt: skip
        if isinstance(event, AttemptReturned):
            mine = event.fence == fence and (event.worker, event.incarnation) == (hold.worker, hold.incarnations[-1])
            return mine and state == AttemptState.RETURNED
        if not isinstance(event, WorkerConnected) or event.name != hold.worker or event.boot_id != hold.boot_id:
            return False
        if any(attempt.fence == fence for attempt in event.attempts):
            return False
        holder, record = hold.incarnations[-1], event.predecessor
        # Who told the same predecessor was never welcome, so it began nothing: its own record would be there else.
        return holder in (event.incarnation, record) or bool(record and self.rows.predecessors.get(holder) == record)

    # Jobs

    def new_job(self, values: dict[str, Any], event: Event, now: Now) -> None:
        """A job is made; that of a run which is still received enters its queue when the run is shown."""
        key = (values["run_id"], values["job_id"])
        self.rows.specs[key] = decode_spec(values["spec"])
        if not isinstance(event, StageJobs):
            self.job_moves(key, None, values, event, now)
        elif values["state"] == JobState.QUEUED:
            self.staged.setdefault(key[0], []).append(key)

    def job_moves(self, key: JobKey, old: JobState | None, values: dict[str, Any], event: Event, now: Now) -> None:
        """A job is moved, or made."""
        state: JobState = values["state"]
        if old is not None:
            self.rows.world.hits[HITS[old, state]] += 1
        if key in self.waits_until:
            until_ms = self.waits_until.pop(key)
            if state in STARTING and now.mono_ms < until_ms:
                raise Broken("i20", f"{key} is {state} {until_ms - now.mono_ms} ms before it is due")
        if state == JobState.DELAYED:
            self.waits_until[key] = now.mono_ms + self.delayed(key, values, event, now)
        elif state == ASSIGNED:
            self.taken(key)
        elif state == QUEUED:
            self.ready(key, True)
            return
        if old == QUEUED:
            queue = self.queues.get(self.rows.specs[key].requirement)
            if queue is not None:
                queue.pop(key, None)

    def delayed(self, key: JobKey, values: dict[str, Any], event: Event, now: Now) -> int:
        """Return how long a job has to wait in DELAYED."""
        spec = self.spec(key)
        wait_ms = spec.delay_ms
        if values["reason"] == "RETRY_BACKOFF":
            assert isinstance(event, AttemptEnded)
            window_s = min(BACKOFF_S_MAX, spec.retry_backoff_s * 2 ** (values["failures"] - 1))
            wait_ms = int(int(window_s * 1_000) * event.jitter)
        elif values["reason"] == "START_POSTPONED":
            wait_ms = POSTPONE_MS
        due_ms = values["due_ms"] - now.wall_ms
        if due_ms != wait_ms:
            raise Broken("i20", f"{key} {values['reason']} is due in {due_ms}, not {wait_ms} ms")
        return wait_ms

    # Turns in the queues

    def ready(self, key: JobKey, known: bool) -> None:
        """A job enters its queue, the last there; `known` False: others may still enter before it."""
        spec = self.rows.specs[key]
        queue = self.queues.setdefault(spec.requirement, {})
        # Pinned jobs stand in queues of their own, from which they may come later.
        queue[key] = Turn(len(queue), self.granted[spec.requirement]) if known and not spec.affinity else None

    def taken(self, key: JobKey) -> None:
        """A job is granted: nobody in its queue may have been passed over too often."""
        spec = self.rows.specs[key]
        turn = self.queues.get(spec.requirement, NO_QUEUE).get(key)
        if turn is not None:
            self.passed_over(spec.requirement, key, turn)
        # A run below another may be granted out of its turn, and a pinned job from another queue: neither counts.
        run = self.rows.books.runs.get(key[0])
        if not spec.affinity and run is not None and run.row["parent_run_id"] is None:
            self.granted[spec.requirement] += 1

    def passed_over(self, requirement: tuple[str, ...], key: JobKey, turn: Turn) -> None:
        """A ready job with k older ones before it is granted within 16 * (k + 1) grants of its queue."""
        passed = self.granted[requirement] - turn.granted
        if passed >= TURN * (turn.before + 1):
            raise Broken("i19", f"{key} had {turn.before} before it, and {passed} others were granted")

    def look_at_queues(self) -> None:
        """Judge those who still wait."""
        for requirement, queue in self.queues.items():
            for key, turn in queue.items():
                if turn is not None:
                    self.passed_over(requirement, key, turn)
