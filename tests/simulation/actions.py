"""What clients and jobs ask of a Master. Each is a class with `at_master`; the tables below say how often it is drawn.

To add one: write the class, give it a row. What it may break belongs in the oracle, not here.
"""

from collections.abc import Callable, Sequence
from typing import Any

from tests.simulation.ground import Ground
from tests.simulation.master import Master
from tests.simulation.ticket import Reply, Ticket
from titan.core.changes import Insert
from titan.core.commit import Entry
from titan.core.events import (
    CancelJob,
    CancelRun,
    DrainWorker,
    DropStage,
    EndLend,
    ExtendRun,
    FlipRun,
    LendSlot,
    NewRun,
    StageJobs,
    StageRun,
    SubmitRun,
)
from titan.core.graph import graph_problems
from titan.core.retrying import prepare_retry
from titan.model.limits import DEFAULT_LIMITS
from titan.model.spec import JobSpec
from titan.model.states import FINAL_RUN_STATES, RunState

KEEP_MS = 7 * 86_400_000
WAIT_MS = 25_000


def key_row(key: str, answer: bytes, now_wall_ms: int) -> Insert:
    """Return what remembers an answer."""
    values = {
        "key": key, "body_hash": b"", "answer": answer, "created_ms": now_wall_ms, "expires_ms": now_wall_ms + KEEP_MS,
    }  # fmt: skip
    return Insert("idempotency", values)


class Keyed:
    """A request with an idempotency key, worked on once at a time."""

    name = ""
    answer_ms = 5_000

    def __init__(self, ground: Ground, key: str) -> None:
        self.ground = ground
        self.key = key

    def at_master(self, master: Master, reply: Reply) -> None:
        """Answer from what is remembered, or do it and remember."""
        if self.key in master.working:
            reply("unavailable", "in progress")
            return
        stored = self.ground.store.remembered(self.key, master.clocks().wall_ms)
        if stored is not None:
            self.again(master, stored, reply)
            return
        master.working.add(self.key)
        self.do(master, reply)

    def again(self, master: Master, stored: bytes, reply: Reply) -> None:
        """It was done before."""
        master.world.hits["answered_again"] += 1
        reply("ok", stored)

    def do(self, master: Master, reply: Reply) -> None:
        """Do it for the first time."""
        raise NotImplementedError

    def ticket(self, master: Master, reply: Reply, answer: bytes) -> Ticket:
        """Return a ticket that answers with `answer` and lets go of the key."""
        return Ticket(
            lambda code, given: reply(code, answer if code == "ok" else given),
            settled=lambda: master.working.discard(self.key),
        )


class Submit(Keyed):
    """Submit a run, whole or, when `staged`, in chunks. `parent`: the attempt (run, job, fence) that submits it."""

    name = "submit"

    def __init__(
        self,
        ground: Ground,
        key: str,
        jobs: Sequence[JobSpec],
        staged: bool = False,
        parent: tuple[str, str, int] | None = None,
    ) -> None:
        super().__init__(ground, key)
        self.jobs = tuple(jobs)
        self.staged = staged
        self.parent = parent

    def at_master(self, master: Master, reply: Reply) -> None:
        """Only a living attempt may submit below itself."""
        if self.parent is not None and not master.scheduler.holds(self.parent[2]):
            reply("denied", "the attempt is over")
            return
        super().at_master(master, reply)

    def do(self, master: Master, reply: Reply) -> None:
        """Check, and have the core take it."""
        if graph_problems(self.jobs, (), DEFAULT_LIMITS):
            master.working.discard(self.key)
            reply("invalid", "the graph")
            return
        run_id = self.ground.draw_run_id()
        above = self.ground.store.run(self.parent[0]) if self.parent else None
        root = above.root_run_id if above else run_id
        agent = above.agent_run_id if above else run_id
        new = NewRun(
            run_id, "sim", agent, root,
            self.parent[0] if self.parent else None, self.parent[1] if self.parent else None,
        )  # fmt: skip
        answer = run_id.encode()
        row = key_row(self.key, answer, master.clocks().wall_ms)
        ticket = self.ticket(master, reply, answer)
        if self.staged:
            self.stage(master, new, ticket, row)
        else:
            master.feed(SubmitRun(new, self.jobs), ticket, (row,))

    def stage(self, master: Master, new: NewRun, last: Ticket, row: Insert) -> None:
        """Send it chunk by chunk, each when the one before is durable."""
        self.ground.world.hits["staged"] += 1
        size = max(1, len(self.jobs) // 3)
        chunks = [self.jobs[begin : begin + size] for begin in range(0, len(self.jobs), size)]

        def failed(code: str, answer: Any) -> None:
            master.report(DropStage(new.run_id))
            master.leftovers.append(new.run_id)
            last.reply(code, answer)
            last.settled()

        def next_chunk(code: str, answer: Any) -> None:
            if code != "ok":
                failed(code, answer)
            elif chunks:
                master.feed(StageJobs(new.run_id, chunks.pop(0)), Ticket(next_chunk))
            else:
                master.feed(FlipRun(new.run_id), Ticket(flipped), (row,))

        def flipped(code: str, answer: Any) -> None:
            if code == "ok":
                last.reply("ok", answer)
                last.settled()
            else:
                failed(code, answer)

        master.feed(StageRun(new, len(self.jobs)), Ticket(next_chunk))

    def again(self, master: Master, stored: bytes, reply: Reply) -> None:
        """A later attempt gets the same child run, opened again if it had ended badly before."""
        if self.parent is None:
            super().again(master, stored, reply)
            return
        run = self.ground.store.run(stored.decode())
        bad = run is not None and run.state in (RunState.FAILED, RunState.CANCELLED)
        if not bad or run.parent_fence == self.parent[2]:
            super().again(master, stored, reply)
            return
        master.world.hits["child_reopened"] += 1
        Retry(self.ground, stored.decode()).at_master(
            master, lambda code, _answer: reply("ok" if code == "conflict" else code, stored)
        )


class Extend(Keyed):
    """Add jobs to a run."""

    name = "extend"

    def __init__(self, ground: Ground, key: str, run_id: str, jobs: Sequence[JobSpec]) -> None:
        super().__init__(ground, key)
        self.run_id = run_id
        self.jobs = tuple(jobs)

    def do(self, master: Master, reply: Reply) -> None:
        """Look up the parents that are over, and have the core take it."""
        parents = sorted({parent for job in self.jobs for parent in job.parents})
        finished = self.ground.store.finished_parents(self.run_id, parents)
        row = key_row(self.key, b"extended", master.clocks().wall_ms)
        ticket = self.ticket(master, reply, b"extended")
        master.feed(ExtendRun(self.run_id, self.jobs, finished), ticket, (row,))


class Retry:
    """Open the next generation of a run: read first, and fed within `read_ms`, as a reader's thread does."""

    name = "retry"
    answer_ms = 5_000

    def __init__(self, ground: Ground, run_id: str, job_ids: Sequence[str] = (), read_ms: int = 40) -> None:
        self.ground = ground
        self.run_id = run_id
        self.job_ids = tuple(job_ids)
        self.read_ms = read_ms

    def at_master(self, master: Master, reply: Reply) -> None:
        """Prepare from the rows as they are now."""
        whole = self.ground.store.whole_run(self.run_id)
        if whole is None:
            reply("not_found", "no such run")
            return
        command = prepare_retry(*whole, self.job_ids)
        master.after(master.world.between(0, self.read_ms), lambda: master.feed(command, Ticket(reply)))


class Cancel:
    """Cancel a run, or one job of it."""

    name = "cancel"
    answer_ms = 5_000

    def __init__(self, run_id: str, job_id: str = "") -> None:
        self.run_id = run_id
        self.job_id = job_id

    def at_master(self, master: Master, reply: Reply) -> None:
        """Have the core take it."""
        event = CancelJob(self.run_id, self.job_id) if self.job_id else CancelRun(self.run_id)
        master.feed(event, Ticket(reply))


class DrainIt:
    """Have a worker finish what it runs and take nothing more."""

    name = "drain"
    answer_ms = 5_000

    def __init__(self, worker: str) -> None:
        self.worker = worker

    def at_master(self, master: Master, reply: Reply) -> None:
        """Have the core take it."""
        master.feed(DrainWorker(self.worker), Ticket(reply))


class Store:
    """A conditional write of the key-value store. `make` builds it with the wall time."""

    name = "store"
    answer_ms = 5_000

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def at_master(self, master: Master, reply: Reply) -> None:
        """Commit it."""
        operation = self.make(master.clocks().wall_ms)
        self.operation = operation
        master.add(Entry(operations=(operation,), ticket=Ticket(reply), cost=1))


class Read:
    """A read of a cell of the key-value store."""

    name = "read"
    answer_ms = 5_000

    def __init__(self, cell: str) -> None:
        self.cell = cell

    def at_master(self, master: Master, reply: Reply) -> None:
        """Look it up."""
        reply("ok", master.ground.store.value(self.cell, master.clocks().wall_ms))


class Wait:
    """A job's ask for the end of a run below it; its slot is lent meanwhile. Answers "again" when that takes long."""

    name = "wait"
    answer_ms = WAIT_MS + 10_000

    def __init__(self, ground: Ground, fence: int, run_id: str) -> None:
        self.ground = ground
        self.fence = fence
        self.run_id = run_id

    def at_master(self, master: Master, reply: Reply) -> None:
        """Lend until the run has ended or the time is over."""
        if not master.scheduler.holds(self.fence):
            reply("denied", "the attempt is over")
            return
        Open(self, master, reply).look()


class Open:
    """One ask that a Master holds open."""

    def __init__(self, wait: Wait, master: Master, reply: Reply) -> None:
        self.wait, self.master, self.reply = wait, master, reply
        self.lent = self.over = False

    def look(self) -> None:
        """Answer if the run has ended; else lend, and look again when it has moved."""
        if self.over:
            return
        wait, master = self.wait, self.master
        if master.scheduler is None:
            self.answer("unavailable", None, False)
            return
        run = wait.ground.store.run(wait.run_id)
        if run is None or run.state in FINAL_RUN_STATES:
            self.answer("ok", None if run is None else run.state, True)
            return
        if not self.lent:
            self.lent = True
            master.report(LendSlot(wait.fence, wait.run_id))
            master.after_quietly(WAIT_MS, self.time_is_over)
            if master.scheduler is None:
                return
        master.when_over.setdefault(wait.run_id, []).append(self.look)

    def time_is_over(self) -> None:
        """It has taken long: the job asks again."""
        if not self.over:
            self.answer("again", None, False)

    def answer(self, code: str, answer: Any, final: bool) -> None:
        """Give the slot back and answer."""
        self.over = True
        if self.lent and self.master.scheduler is not None:
            self.master.report(EndLend(self.wait.fence, self.wait.run_id, "", final))
        self.reply(code, answer)
