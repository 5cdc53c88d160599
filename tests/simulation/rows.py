"""Judges what is in the database: every move of every job, attempt and run, and what may follow from it.

What is decided is judged in `deciding`, how it gets to the database in `queueing`, what is there in `committing` and
`model`, and what a scheduler makes of it in `remembering`. This is where they meet.
"""

from typing import TYPE_CHECKING, Any

from tests.simulation.books import RunBook
from tests.simulation.callers import Callers
from tests.simulation.committing import Books
from tests.simulation.deciding import SAYING, Lead
from tests.simulation.hosts import Hosts
from tests.simulation.queueing import Line
from tests.simulation.remembering import Memories
from tests.simulation.store import Tables
from tests.simulation.world import Broken
from titan.core.commit import Batch, Commit, Entry, Refuse, Release
from titan.core.events import CancelJob, CancelRun, Decision, Event, Now, Send
from titan.core.rows import Snapshot
from titan.model.spec import JobSpec
from titan.model.states import FINAL_JOB_STATES, FINAL_RUN_STATES, LIVING_ATTEMPT_STATES, RunState
from titan.model.store import SweepStage
from titan.model.wire import Ack, Grant

if TYPE_CHECKING:
    from tests.simulation.ground import Ground
    from tests.simulation.master import Master

LOOK_COMMITS = 64


class Rows:
    """The judge of the rows. `specs` are those of all jobs ever decided on, `asked` the runs with a cancel in them."""

    def __init__(self, ground: "Ground", hosts: Hosts, callers: Callers) -> None:
        self.ground = ground
        self.world = ground.world
        self.hosts = hosts
        self.callers = callers
        self.watchers = callers.watchers
        self.tables = ground.mirror.rows
        self.specs: dict[tuple[str, str], JobSpec] = {}
        self.asked: dict[str, None] = {}
        self.predecessors: dict[str, str] = {}
        self.books = Books(self)
        self.leads: dict[str, Lead] = {}
        self.lines: dict[Commit, Line] = {}
        self.granted: set[int] = set()
        self.epoch = self.number = 0
        self.unlooked = 0

    # Masters

    def took_over(self, master: "Master", epoch: int) -> None:
        """A Master has begun an epoch."""
        if epoch <= self.epoch:
            raise Broken("i21", f"epoch {epoch} after {self.epoch}")
        self.epoch, self.number = epoch, 0

    def loaded(self, master: "Master", epoch: int, now: Now, snapshot: Snapshot) -> None:
        """It leads: all that it counts in memory begins anew."""
        former = self.leads.get(master.name)
        if former is not None:
            former.look_at_queues()
        self.leads[master.name] = Lead(self, epoch, now, snapshot, self.hosts.slots.ledgers[master.name])
        self.unlooked = LOOK_COMMITS

    def decided(self, master: "Master", event: Event, decision: Decision) -> None:
        """Its scheduler took an event. Most of them follow from time alone, and nothing from them."""
        if decision.changes or decision.sends or type(event) in SAYING:
            self.leads[master.name].decided(master, event, decision)

    def renewed(self, master: "Master", name: str, incarnation: str, heard: bool) -> None:
        """A renewal is answered; `heard`: a scheduler is there to hear of it."""
        if heard:
            self.leads[master.name].renewals[incarnation] = master.mono_ms()
            self.hosts.contact.heard(master, name)

    # Batches

    def line(self, machine: Commit) -> Line:
        """Return the line of a commit machine."""
        line = self.lines.get(machine)
        if line is None:
            line = self.lines[machine] = Line(machine.epoch)
        return line

    def added(self, master: "Master", machine: Commit, entry: Entry) -> None:
        """A decision waits for its batch."""
        (self.lines.get(machine) or self.line(machine)).waiting.append(entry)

    def writes(self, master: "Master", machine: Commit, batch: Batch) -> None:
        """A batch goes to the disk, perhaps not for the first time."""
        self.lines[machine].writes(batch)

    def unlearned(self, master: "Master", machine: Commit) -> None:
        """Whether the batch in flight arrived cannot be learned: the row is unreadable, or another's."""
        self.line(machine).known = False

    def failed(self, master: "Master", error: Exception) -> None:
        """A batch was not taken."""
        self.world.hits[f"commit {type(error).__name__}"] += 1

    def refused(self, master: "Master", machine: Commit, order: Refuse) -> None:
        """Callers are told that it was not kept."""
        self.line(machine).refused(order)

    def committed(self, master: "Master", batch: Batch) -> None:
        """A batch is in the database."""
        if (batch.epoch, batch.number) != (self.epoch, self.number + 1):
            raise Broken("i21", f"batch {batch.number} of epoch {batch.epoch} after {self.number} of {self.epoch}")
        self.number = batch.number
        self.lines[master.machine].kept = batch.number
        self.unlooked += 1
        if batch.changes:
            self.books.committed(batch, self.leads[master.name].closed)
        for operation in batch.operations:
            if type(operation) is SweepStage:
                self.books.swept(operation.run_id)

    def released(self, master: "Master", machine: Commit, order: Release) -> None:
        """What follows is told as durable."""
        (self.lines.get(machine) or self.line(machine)).released(order)
        self.watchers.released(machine.epoch, order)
        lead = self.leads.get(master.name)
        if lead is not None:
            if lead.cancels:
                self.cancels_told(lead, order)
            if self.unlooked >= LOOK_COMMITS:
                self.look(master, machine, lead)

    def cancels_told(self, lead: Lead, order: Release) -> None:
        """A cancel is acknowledged: it must stand in the rows of all that it is for."""
        for entry, _ in order.entries:
            decision = entry.ticket.decision
            for place, (of, event, generations) in enumerate(lead.cancels):
                if of is decision:
                    del lead.cancels[place]
                    self.is_cancelled(event, generations)
                    break

    def is_cancelled(self, event: CancelRun | CancelJob, generations: dict[str, int]) -> None:
        """See that a cancel is kept: in the run and the living runs below it, or in the job.

        A retry that was taken right behind it may have opened another generation in the same batch.
        """
        run = self.books.runs[event.run_id]
        if run.row["generation"] > generations[event.run_id]:
            return
        if isinstance(event, CancelJob):
            row = run.jobs[event.job_id].row
            if row["state"] not in FINAL_JOB_STATES and not row["cancel_requested"]:
                raise Broken("i17", f"the cancel of {event.run_id}/{event.job_id} is told and not kept")
            return
        runs = [run]
        for each in runs:
            state = each.row["state"]
            if state in FINAL_RUN_STATES or state == RunState.STAGED:
                continue
            known = generations.get(each.run_id, each.row["generation"])
            if not each.row["cancel_requested"] and each.row["generation"] == known:
                raise Broken("i17", f"the cancel of {event.run_id} is told and not kept in {each.run_id}")
            runs += each.children

    # Looks at everything

    def look(self, master: "Master", machine: Commit, lead: Lead) -> None:
        """Compare memory and rows, if nothing is on its way between them."""
        scheduler = master.scheduler
        if scheduler is None or machine.cost_waiting or machine.epoch != self.epoch or scheduler.memory.slices:
            return
        self.unlooked = 0
        self.world.hits["looked at memory"] += 1
        Memories(self, scheduler).look()
        lead.look_at_queues()
        if self.number >= LOOK_COMMITS:
            touched, self.books.touched = self.books.touched, {}
            for run in touched.values():
                self.look_at_rows(run, True)

    def look_at_rows(self, run: RunBook, quiet: bool) -> None:
        """Compare all rows of a run with what they must be."""
        for job in run.jobs.values():
            self.books.judge_job(job, quiet)

    # What is told

    def sends(self, master: "Master", send: Send) -> None:
        """A message to a worker is let go."""
        message = send.message
        kind = type(message)
        if kind is Grant:
            fence = message.fence
            if (fence,) not in self.tables["attempts"]:
                raise Broken("i8", f"grant {fence} before its commit")
            if fence in self.granted:
                raise Broken("i8", f"grant {fence} is sent twice")
            self.granted.add(fence)
        elif kind is Ack and message.ended:
            if master.poisoned:
                self.hosts.spoiled.update(message.ended)
                return
            for fence in message.ended:
                row = self.tables["attempts"].get((fence,))
                if row is not None and row["state"] in LIVING_ATTEMPT_STATES:
                    raise Broken("i29", f"the end of {fence} is acknowledged and its row is {row['state']}")

    def answers(self, request: Any, code: str) -> None:
        """A Master answers a request."""
        if code == "invalid" and (request.key,) in self.tables["idempotency"]:
            raise Broken("i16", f"{request.key} was refused, and is remembered")

    # The end

    def left(self) -> str:
        """Return what is left to do."""
        for key, row in self.tables["runs"].items():
            if row["state"] not in FINAL_RUN_STATES:
                return f"run {key[0][:8]} is {row['state']}"
        return ""

    def finish(self) -> None:
        """Judge the whole."""
        for lead in self.leads.values():
            lead.look_at_queues()
        for run in self.books.runs.values():
            self.look_at_rows(run, True)
        if len(self.tables["attempts"]) != len(self.books.attempts):
            raise Broken("i8", "there are attempts that no batch brought")
        if self.ground.store is not self.ground.mirror:
            self.compare_stores(self.ground.store.tables())

    def compare_stores(self, tables: Tables) -> None:
        """The real database must hold the rows that the batches made; of broken uploads it may have a rest."""
        swept = {key for key, row in tables["runs"].items() if row["state"] == RunState.STAGED} - set(
            self.tables["runs"]
        )
        memos = {(key,) for key in self.ground.mirror.keys_used}
        for name, rows in tables.items():
            mirror = self.tables[name]
            for key in sorted({*rows, *mirror}) if rows != mirror else ():
                if rows.get(key) != mirror.get(key) and key[:1] not in swept and key not in memos:
                    raise Broken("rows", f"{name} {key}: {rows.get(key)} is not {mirror.get(key)}")
