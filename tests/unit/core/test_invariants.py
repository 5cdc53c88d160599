"""Random histories against the scheduler, judged by an oracle that reads only rows and messages.

The numbers are those of the list of invariants: 7 parents first, 8 fences rise, 11 final is final,
12 every job has an owner, 13 everything ends once the faults stop, 15 no run ends and then grows,
17 no grant after a cancel, 20 three dead workers and no more.
"""

import itertools
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from tests.unit.core.harness import Harness
from titan.core import dispatch, scheduler
from titan.core.changes import Insert, fold
from titan.core.events import (
    AttemptEnded,
    AttemptReturned,
    AttemptStarted,
    CancelJob,
    CancelRun,
    Continue,
    Decision,
    DrainWorker,
    DropStage,
    ExtendRun,
    FlipRun,
    NewRun,
    StageJobs,
    StageRun,
    SubmitRun,
    WorkerConnected,
    WorkerDisconnected,
    WorkerDraining,
    WorkerRenewed,
)
from titan.core.retrying import prepare_retry
from titan.core.rows import EdgeRow, JobRow, RunRow, starts_again
from titan.model.spec import JobSpec
from titan.model.states import FINAL_JOB_STATES, FINAL_RUN_STATES, JobState
from titan.model.wire import Drain, Ended, Grant, Held, Recall, Stop, Welcome

WORKERS = ("w1", "w2", "gpu")
TAGS = {"w1": ("GENERAL",), "w2": ("GENERAL",), "gpu": ("GENERAL", "GPU")}


class Process:
    """A worker process as the Master sees it: connected or not, holding attempts it has started or not.

    `asked`: a person wants it to leave, whether or not it has heard so. `draining`: it knows.
    """

    def __init__(self, incarnation: str) -> None:
        self.incarnation = incarnation
        self.connected = True
        self.predecessor = ""
        self.slots = 0
        self.asked = False
        self.draining = False
        self.held: dict[int, bool] = {}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[JobSpec, ...]:
    count = draw(st.integers(1, 6))
    jobs = []
    for index in range(count):
        parents = draw(st.sets(st.integers(0, index - 1), max_size=3)) if index else set()
        jobs.append(
            JobSpec(
                f"j{index}",
                "a.py",
                parents=tuple(f"j{parent}" for parent in sorted(parents)),
                requirement=draw(st.sampled_from([("GENERAL",), ("GPU",)])),
                priority=draw(st.integers(0, 2)),
                delay_ms=draw(st.sampled_from([0, 0, 0, 500])),
                affinity=draw(st.booleans()),
                retries=draw(st.integers(0, 2)),
                on_lost=draw(st.sampled_from(["retry", "retry", "fail"])),
            )
        )
    return tuple(draw(st.permutations(jobs)))


class History(RuleBasedStateMachine):
    runs = Bundle("runs")
    stages = Bundle("stages")

    @initialize(steps=st.sampled_from([1, 2, 400]), hurried=st.booleans())
    def begin(self, steps: int, hurried: bool) -> None:
        """`steps` of work an event, however small the graphs; `hurried`: other events come between any two slices."""
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(scheduler, "STEPS_AN_EVENT", steps)
        self.patch.setattr(dispatch, "GRANTS_A_SLICE", steps)
        self.h = Harness()
        self.h.hurried = hurried
        self.processes: dict[str, Process] = {}
        self.serial = itertools.count(1)
        self.delivered = 0
        self.fences: dict[tuple[str, str], int] = {}
        self.final: dict[tuple[str, str, int], str] = {}
        self.ended_totals: dict[tuple[str, int], int] = {}
        self.cancelled: set[tuple[str, int]] = set()
        self.commit = self.h.store.commit
        self.h.store.commit = self.judge  # type: ignore[method-assign]

    # The oracle: every commit is looked at before and after.

    def judge(self, changes: list[Any]) -> None:
        before = {key: (row["state"], row["generation"]) for key, row in self.h.store.tables["jobs"].items()}
        self.commit(changes)
        tables = self.h.store.tables
        for change in fold(changes):
            if isinstance(change, Insert) and change.table == "attempts":
                self.judge_grant(change.values)
        for key, (state, generation) in before.items():
            row = tables["jobs"].get(key)
            if row is not None and state in FINAL_JOB_STATES and row["generation"] == generation:
                assert row["state"] == state, f"invariant 11: {key} moved from {state} to {row['state']}"
        for (run_id,), run in tables["runs"].items():
            if run["state"] in FINAL_RUN_STATES:
                rows = [row for key, row in tables["jobs"].items() if key[0] == run_id]
                assert all(row["state"] in FINAL_JOB_STATES for row in rows), "a run ended before its jobs"
                total = self.ended_totals.setdefault((run_id, run["generation"]), len(rows))
                assert total == len(rows) == run["jobs_total"], "invariant 15: an ended run grew"
                counted = run["jobs_completed"] + run["jobs_failed"] + run["jobs_cancelled"] + run["jobs_dead"]
                assert counted == total, "counters differ from the rows"

    def judge_grant(self, attempt: dict[str, Any]) -> None:
        run_id, job_id = attempt["run_id"], attempt["job_id"]
        tables = self.h.store.tables
        for edge_run, child, parent in tables["edges"]:
            if (edge_run, child) == (run_id, job_id):
                state = tables["jobs"][run_id, parent]["state"]
                assert state == JobState.COMPLETED, f"invariant 7: {job_id} granted while {parent} is {state}"
                run, row = RunRow(**tables["runs"][run_id,]), JobRow(**tables["jobs"][run_id, parent])
                assert not starts_again(run, row), f"invariant 7: {job_id} granted before {parent} starts again"
        last = self.fences.get((run_id, job_id), 0)
        assert attempt["fence"] > last, "invariant 8: a fence did not rise"
        self.fences[run_id, job_id] = attempt["fence"]
        generation = tables["runs"][run_id,]["generation"]
        assert (run_id, generation) not in self.cancelled, "invariant 17: granted after the cancel was acknowledged"
        others = [
            row
            for row in tables["attempts"].values()
            if (row["run_id"], row["job_id"]) == (run_id, job_id) and row["state"] in ("ASSIGNED", "RUNNING")
        ]
        assert len(others) == 1, "invariant 10: two living attempts"
        process = self.processes[attempt["worker"]]
        assert not process.draining, "granted to a worker that leaves"
        assert not process.asked, "granted to a worker that shall leave"
        held = [
            row
            for row in tables["attempts"].values()
            if row["state"] in ("ASSIGNED", "RUNNING") and row["incarnation"] == process.incarnation
        ]
        running = sum(row["state"] == "RUNNING" for row in held)
        assert len(held) <= 2 * max(process.slots, running), "more than one sent ahead a slot"
        assert attempt["worker"] != "gpu" or len(held) <= max(process.slots, running), "sent ahead to a GPU worker"
        gpu_jobs = [
            row
            for row in tables["attempts"].values()
            if row["state"] in ("ASSIGNED", "RUNNING") and row["incarnation"] == process.incarnation
            and tables["jobs"][row["run_id"], row["job_id"]]["requirement"] == "GPU"
        ]  # fmt: skip
        assert attempt["worker"] != "gpu" or len(gpu_jobs) <= 1, "two jobs on one device"
        assert set(TAGS[attempt["worker"]]) >= set(tables["jobs"][run_id, job_id]["requirement"].split(","))

    @invariant()
    def owners(self) -> None:
        if not hasattr(self, "h") or self.h.scheduler.memory.slices:
            return
        memory = self.h.scheduler.memory
        for run in self.h.store.tables["runs"].values():
            assert run["opening"] is None, "invariant 12: a generation is half open and nobody goes on with it"
        due = {id(timer[3]) for timer in memory.timers if timer[2] == "due"}
        leases = {timer[3] for timer in memory.timers if timer[2] == "lease"}
        for (run_id, job_id), row in self.h.store.tables["jobs"].items():
            if row["state"] in FINAL_JOB_STATES or run_id in memory.staged:
                continue
            job = memory.runs[run_id].jobs[job_id]
            owned = {
                JobState.BLOCKED: job.waiting_for > 0,
                JobState.DELAYED: id(job) in due,
                JobState.QUEUED: job.queue_seq > 0,
                JobState.ASSIGNED: job.fence in memory.attempts and job.fence in leases,
                JobState.RUNNING: job.fence in memory.attempts and job.fence in leases,
            }
            assert owned[row["state"]], f"invariant 12: {job_id} in {row['state']} has no owner"
            assert job.losses < 3, "invariant 20: lost with three workers and still not DEAD"

    # What people do.

    @rule(target=runs, jobs=graphs())
    def submit(self, jobs: tuple[JobSpec, ...]) -> str:
        run_id = self.h.submit(*jobs)
        self.deliver(self.h.decision)
        return run_id

    @rule(target=runs, parent=runs, jobs=graphs())
    def submit_child(self, parent: str, jobs: tuple[JobSpec, ...]) -> Any:
        run_id = f"f{next(self.serial):031x}"
        job_id = next(key[1] for key in self.h.store.tables["jobs"] if key[0] == parent)
        new = NewRun(run_id, "child", parent, parent, parent, job_id)
        decision = self.h.tell(SubmitRun(new, jobs))
        return multiple() if decision.refusal else run_id

    @rule(target=stages, jobs=graphs())
    def stage(self, jobs: tuple[JobSpec, ...]) -> tuple[str, tuple[JobSpec, ...]]:
        run_id = f"f{next(self.serial):031x}"
        self.h.tell(StageRun(NewRun(run_id, "staged", run_id, run_id), len(jobs)))
        half = len(jobs) // 2
        self.h.tell(StageJobs(run_id, jobs[:half]))
        return run_id, jobs[half:]

    @rule(target=runs, stage=consumes(stages), drop=st.booleans())
    def flip(self, stage: tuple[str, tuple[JobSpec, ...]], drop: bool) -> Any:
        run_id, rest = stage
        if drop:
            self.h.tell(DropStage(run_id))
            self.h.store.sweep_stages(run_id)
            return multiple()
        first = self.h.tell(StageJobs(run_id, rest))
        flipped = self.h.tell(FlipRun(run_id))
        assert (first.refusal is None) == (flipped.refusal is None)
        return multiple() if flipped.refusal else run_id

    @rule(run_id=runs)
    def cancel(self, run_id: str) -> None:
        self.h.tell(CancelRun(run_id), settle=False)
        self.cancelled.add((run_id, self.h.store.run(run_id)["generation"]))
        self.h.settle()

    @rule(run_id=runs, pick=st.integers(0, 5))
    def cancel_job(self, run_id: str, pick: int) -> None:
        self.h.tell(CancelJob(run_id, f"j{pick}"))

    @rule(run_id=runs, pick=st.integers(0, 5), named=st.booleans())
    def retry(self, run_id: str, pick: int, named: bool) -> None:
        tables = self.h.store.tables
        run = RunRow(**self.h.store.run(run_id))
        jobs = [JobRow(**row) for key, row in tables["jobs"].items() if key[0] == run_id]
        edges = [EdgeRow(**row) for key, row in tables["edges"].items() if key[0] == run_id]
        decision = self.h.tell(prepare_retry(run, jobs, edges, (f"j{pick}",) if named else ()))
        assert run.state in FINAL_RUN_STATES or decision.refusal is not None

    @rule(run_id=runs, pick=st.integers(0, 5))
    def extend(self, run_id: str, pick: int) -> None:
        finished = {
            key[1]: JobRow(**row)
            for key, row in self.h.store.tables["jobs"].items()
            if key[0] == run_id and row["state"] in FINAL_JOB_STATES
        }
        new = f"x{next(self.serial)}"
        jobs = (JobSpec(f"{new}b", "a.py", parents=(new,)), JobSpec(new, "a.py", parents=(f"j{pick}",)))
        was_final = self.h.store.run(run_id)["state"] in FINAL_RUN_STATES
        decision = self.h.tell(ExtendRun(run_id, jobs, finished))
        assert not was_final or decision.refusal is not None

    # What workers do.

    def deliver(self, _: Decision | None = None) -> None:
        """Bring every message sent so far to the process it was meant for, if that still listens."""
        while self.delivered < len(self.h.sent):
            name, message = self.h.sent[self.delivered]
            self.delivered += 1
            process = self.processes.get(name)
            if process is None or not process.connected:
                continue
            if isinstance(message, Grant):
                process.held[message.fence] = False
            elif isinstance(message, Recall):
                if process.held.get(message.fence) is False:
                    del process.held[message.fence]
                    self.h.tell(AttemptReturned(name, process.incarnation, message.fence, ""))
            elif isinstance(message, Drain):
                process.draining = True
                self.give_back(name, process)
            elif isinstance(message, Welcome):
                for fence in message.stop:
                    process.held.pop(fence, None)
            elif isinstance(message, Stop) and process.held.get(message.fence) is False:
                del process.held[message.fence]
                self.h.tell(AttemptReturned(name, process.incarnation, message.fence, ""))

    @rule(name=st.sampled_from(WORKERS), fresh=st.sampled_from(["same", "new", "disk"]), boot=st.sampled_from("aab"),
          slots=st.integers(1, 3))  # fmt: skip
    def connect(self, name: str, slots: int, fresh: str, boot: str) -> None:
        """`fresh`: the process that was there, a new one that knows nothing, or one that reads what was begun."""
        self.deliver()
        former = self.processes.get(name)
        process = former
        if process is None or fresh != "same":
            process = self.processes[name] = Process(f"{name}-{next(self.serial)}")
            if former is not None and fresh == "disk":
                process.predecessor = former.incarnation
                process.held = {fence: True for fence, started in former.held.items() if started}
        process.connected = True
        process.slots = slots
        held = tuple(Held(fence, started) for fence, started in process.held.items())
        self.delivered = len(self.h.sent)
        before = self.h.store.tables["attempts"]
        named = {fence for fence in process.held if (fence,) in before and before[fence,]["ended_ms"] is None}
        process.asked = process.asked and name in self.h.scheduler.memory.workers
        event = WorkerConnected(
            name, process.incarnation, boot, TAGS[name], slots, held, predecessor=process.predecessor,
            devices=("0",) if name == "gpu" else (), draining=process.draining,
        )  # fmt: skip
        self.h.tell(event)
        for fence in named:
            row = self.h.store.tables["attempts"][fence,]
            assert row["ended_ms"] is None, "what a worker holds was taken from it"
            assert row["incarnation"] == process.incarnation, "what a worker holds is another process's"
        self.deliver()

    def give_back(self, name: str, process: Process) -> None:
        for fence, started in list(process.held.items()):
            if not started:
                del process.held[fence]
                self.h.tell(AttemptReturned(name, process.incarnation, fence, ""))

    @rule(name=st.sampled_from(WORKERS), by_itself=st.booleans())
    def drain(self, name: str, by_itself: bool) -> None:
        self.deliver()
        process = self.processes.get(name)
        if process is None:
            return
        if not by_itself:
            process.asked = self.h.tell(DrainWorker(name)).refusal is None
        elif process.connected:
            process.draining = True
            self.h.tell(WorkerDraining(name, process.incarnation))
            self.give_back(name, process)
        self.deliver()

    @rule(name=st.sampled_from(WORKERS))
    def disconnect(self, name: str) -> None:
        process = self.processes.get(name)
        if process is not None and process.connected:
            self.deliver()
            process.connected = False
            self.h.tell(WorkerDisconnected(name, process.incarnation))

    @rule(name=st.sampled_from(WORKERS))
    def renew(self, name: str) -> None:
        process = self.processes.get(name)
        if process is not None and process.connected:
            self.h.tell(WorkerRenewed(name, process.incarnation))

    @rule(
        name=st.sampled_from(WORKERS),
        end=st.sampled_from(["start", "ok", "ok", "fail", "timeout", "worker_stop", "lost", "refuse"]),
        jitter=st.floats(0, 0.99),
    )
    def work(self, name: str, end: str, jitter: float) -> None:
        self.deliver()
        process = self.processes.get(name)
        if process is None or not process.connected or not process.held:
            return
        running = [fence for fence, started in process.held.items() if started]
        waiting = [fence for fence, started in process.held.items() if not started]
        pick = running if running and (end != "start" or len(running) >= process.slots) else waiting
        fence, started = (pick or running)[0], bool(running and (pick or running)[0] in running)
        if end == "start" and started:
            return
        if end == "refuse":
            if not started:
                del process.held[fence]
                self.h.tell(AttemptReturned(name, process.incarnation, fence, "no memory"))
        elif end == "start":
            process.held[fence] = True
            self.h.tell(AttemptStarted(name, process.incarnation, fence))
        else:
            del process.held[fence]
            code = 0 if end == "ok" else 1
            cause = end if end in ("timeout", "worker_stop", "lost") else ""
            ended = AttemptEnded(name, process.incarnation, Ended(fence, code, cause=cause), jitter)
            self.h.tell(ended)
            self.h.tell(ended)  # sent twice: applied once
        self.deliver()

    @rule(ms=st.sampled_from([1, 400, 1_000, 2_000, 30_000, 66_000]))
    def wait(self, ms: int) -> None:
        self.h.wait(ms)
        self.deliver()

    @rule()
    def go_on(self) -> None:
        self.h.tell(Continue())
        self.deliver()

    @rule()
    def crash(self) -> None:
        self.deliver()
        self.h.crash()
        for process in self.processes.values():
            process.connected = process.asked = False  # an order is in memory, unless its worker has heard it

    def teardown(self) -> None:
        """Invariant 13: the faults stop, fitting workers come, and every run ends."""
        if not hasattr(self, "h"):
            return
        self.patch.undo()
        self.h.hurried = False
        self.h.settle()
        for name in WORKERS:
            leaves = name in self.processes and (self.processes[name].asked or self.processes[name].draining)
            self.connect(name, 2, "disk" if leaves else "same", "a")
        for _ in range(400):
            for name in WORKERS:
                self.renew(name)
                self.work(name, "ok", 0.5)
            if not self.h.scheduler.memory.runs:
                break
            self.h.wait(5_000)
            self.deliver()
        assert not self.h.scheduler.memory.runs, "invariant 13: a run did not end"
        assert not self.h.scheduler.memory.attempts


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=150,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
