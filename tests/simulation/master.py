"""A Master process: the real scheduler and the real commit machine, and around them what the shell does.

The order of things is that of `titan.master.shell` and `titan.master.links`: one event at a time, nothing told before
it is durable, every fault ends in a load of the state under a new epoch. The disk is asked here and answers later.
"""

from collections.abc import Callable, Sequence
from typing import Any

from tests.simulation.ground import Ground
from tests.simulation.links import WithLinks
from tests.simulation.ticket import Ticket
from titan.core.commit import (
    BATCH_COST_MAX,
    Batch,
    Commit,
    Entry,
    Order,
    ReadLeader,
    Refuse,
    Release,
    Reload,
    State,
    StepDown,
    Write,
    cost_of,
)
from titan.core.events import (
    AttemptEnded,
    Continue,
    Decision,
    Event,
    PrepareStop,
    Send,
    Tick,
)
from titan.core.rows import Snapshot
from titan.core.scheduler import Scheduler
from titan.master.tickets import Poison
from titan.model.limits import DEFAULT_LIMITS
from titan.model.store import SweepStage
from titan.model.wire import (
    Ack,
)
from titan.storage.errors import CommitFailed, CommitUnknown, Deposed, StorageError, StorageFull

# The real one is 15 minutes, which would only make the end of a simulation longer.
STOP_EXTEND_MS = 90_000
BACKOFF_MS = 100
CLEAN_UP_MS = 20_000
LOOK_MS = 3_000
ENDS = (Reload, StepDown)
BEFORE_COMMIT = ("crash_before_commit", "disk_fails", "disk_full", "commit_unknown_lost")
AFTER_COMMIT = ("crash_after_commit", "commit_unknown_done")


class Master(WithLinks):
    """One of the Masters: `lead` takes over and loads. Only one may lead at a time; the database sees to it."""

    def __init__(self, ground: Ground, name: str) -> None:
        super().__init__(ground.world, name)
        self.ground = ground
        self.scheduler: Scheduler | None = None
        self.forget()

    def forget(self) -> None:
        """Be as a process is that was just started."""
        self.machine = Commit(0)
        self.scheduler = None
        self.forget_links()
        self.stopping = False
        self.failures = 0
        self.working: set[str] = set()
        self.poison = Poison()
        self.poisoned = False
        self.leftovers: list[str] = []
        self.when_over: dict[str, list[Callable[[], None]]] = {}
        self.tick_at: int | None = None
        self.turning = self.continuing = False

    # Life and death

    def start(self) -> None:
        """Start the process; it leads as soon as it has loaded."""
        self.die()
        self.up = True
        self.forget()
        self.say("starts")
        self.after(self.world.between(50, 900), self.take_over)

    def crash(self) -> None:
        """SIGKILL: nothing more is said or written; connections are cut."""
        if not self.up:
            return
        self.say("is killed")
        links = [link for link in self.ground.network.links if link.master is self]
        self.die()
        self.forget()
        for link in links:
            link.reset()

    def stop(self) -> None:
        """Stop in order: extend the leases, commit that, and go."""
        if not self.up or self.scheduler is None or self.stopping:
            return
        self.say("stops in order")
        self.feed(PrepareStop(STOP_EXTEND_MS), Ticket(settled=self.crash))
        self.stopping = True
        self.scheduler = None

    def take_over(self) -> None:
        """Begin an epoch, unless somebody else did since ours."""
        store = self.ground.store
        try:
            if self.machine.epoch not in (0, store.leader()[0]):
                self.step_down("somebody else leads")
                return
            if self.ground.strikes("load_fails"):
                raise CommitFailed("the disk does not answer")
            epoch = store.take_over(self.clocks().wall_ms)
        except StorageError:
            self.failures += 1
            self.after(min(5_000, BACKOFF_MS * 2**self.failures), self.take_over)
            return
        self.ground.oracle.took_over(self, epoch)
        self.after(self.world.between(1, 30), self.read_state, epoch)

    def read_state(self, epoch: int) -> None:
        """Read all that is not over."""
        snapshot = self.ground.store.snapshot()
        self.leftovers = self.ground.store.staged_runs()
        self.after(self.world.between(1, 100), self.load, epoch, snapshot)

    def load(self, epoch: int, snapshot: Snapshot) -> None:
        """Build the core from it, and begin to answer."""
        now = self.clocks()
        scheduler = Scheduler(epoch, DEFAULT_LIMITS)
        decision = scheduler.load(snapshot, now)
        self.machine = Commit(epoch)
        self.scheduler = scheduler
        self.say(f"leads epoch {epoch}: {len(snapshot.jobs)} jobs, {len(snapshot.attempts)} attempts")
        self.ground.oracle.loaded(self, epoch, now, snapshot)
        self.reset_links()
        self.accept(decision, Ticket())
        self.after_quietly(CLEAN_UP_MS, self.clean_up, epoch)
        self.after_quietly(LOOK_MS, self.look_who_leads, epoch)

    def look_who_leads(self, epoch: int) -> None:
        """A leader that has nothing to write would never hear that another took over."""
        if self.machine.epoch != epoch:
            return
        leads = self.ground.store.leader()[0]
        if leads != epoch and self.scheduler is not None:
            self.step_down(f"epoch {leads} leads")
        else:
            self.after_quietly(LOOK_MS, self.look_who_leads, epoch)

    def clean_up(self, epoch: int) -> None:
        """Sweep what broken uploads left."""
        if self.scheduler is None or self.machine.epoch != epoch:
            return
        while self.leftovers:
            self.sweep(self.leftovers.pop())
        self.after_quietly(CLEAN_UP_MS, self.clean_up, epoch)

    def sweep(self, run_id: str) -> None:
        """Sweep a part of a broken upload, until nothing of it is left."""

        def swept(code: str, results: Any) -> None:
            if code == "ok" and results[0]:
                self.sweep(run_id)

        self.add(Entry(operations=(SweepStage(run_id),), ticket=Ticket(swept), cost=1))

    def reload(self, why: str) -> None:
        """Drop the core and load it anew."""
        self.say(f"drops its state: {why}")
        self.world.hits["reload"] += 1
        self.scheduler = None
        if self.stopping:
            return
        for asks in list(self.when_over.values()):
            for ask in asks:
                ask()
        self.when_over.clear()
        self.muted = True
        self.failures += 1
        self.after(1 if self.failures == 1 else BACKOFF_MS, self.take_over)

    def step_down(self, why: str) -> None:
        """Somebody else leads: this process ends."""
        self.say(f"steps down: {why}")
        self.world.hits["stepped_down"] += 1
        self.crash()

    # Events in, entries out

    def feed(self, event: Event, ticket: Ticket, extra: Sequence[Any] = (), operations: Sequence[Any] = ()) -> None:
        """Have the core take one event; `extra` and `operations` are committed with it unless it is refused."""
        if self.scheduler is None:
            ticket.refuse("closed")
            return
        decision = self.scheduler.handle(event, self.clocks())
        if "core_raises" in self.ground.rates and self.ground.strikes("core_raises"):
            # Its memory has changed and nobody knows how far: as after any exception on the way.
            self.poison.add(event)
            self.poisoned = True
            self.scheduler = None
            ticket.refuse("the core failed")
            self.carry(self.machine.raised(RuntimeError("injected")))
            return
        self.ground.oracle.decided(self, event, decision)
        self.accept(decision, ticket, extra, operations)

    def report(self, event: Event, durable: Callable[[], None] | None = None) -> bool:
        """Have the core take what a worker says, unless it has failed on that before."""
        if not self.poison.has(event):
            self.feed(event, Ticket(durable=durable))
            return True
        if isinstance(event, AttemptEnded):
            self.deliver(Send(event.worker, event.incarnation, Ack(ended=(event.ended.fence,))))
        return False

    def accept(
        self, decision: Decision, ticket: Ticket, extra: Sequence[Any] = (), operations: Sequence[Any] = ()
    ) -> None:
        """Queue what a decision leaves behind, and go on with what it left undone."""
        ticket.decision = decision
        changes: Sequence[Any] = decision.changes
        if decision.refusal is not None:
            operations = ()
        elif extra:
            changes = [*changes, *extra]
        self.add(Entry(changes, operations, (), ticket, cost_of(changes, operations, ())))
        if decision.more:
            self.continue_soon()
        self.wake_at(decision.wake_ms)

    def add(self, entry: Entry) -> None:
        """Have an entry committed in its turn."""
        self.ground.oracle.added(self, self.machine, entry)
        orders = self.machine.add(entry)
        if orders:
            self.carry(orders)
        elif self.machine.state is State.IDLE:
            self.turn_soon()

    def turn_soon(self) -> None:
        """Begin a batch at the end of this turn of the loop."""
        if not self.turning:
            self.turning = True
            self.after_quietly(0, self.turn)

    def turn(self) -> None:
        """Begin a batch if the writer is free."""
        self.turning = False
        self.carry(self.machine.turn())

    def continue_soon(self) -> None:
        """Feed `Continue` in the next turn."""
        if not self.continuing:
            self.continuing = True
            self.after_quietly(0, self.go_on)

    def go_on(self) -> None:
        """Go on with the slices, unless the writer is behind."""
        self.continuing = False
        if self.scheduler is None:
            return
        if self.machine.cost_waiting > BATCH_COST_MAX:
            self.continuing = True
            self.add(Entry(ticket=Ticket(settled=self.go_on)))
        else:
            self.feed(Continue(), Ticket())

    def wake_at(self, wake_ms: int | None) -> None:
        """Feed `Tick` at that time of our clock, if nothing asks for an earlier one."""
        if wake_ms is None or (self.tick_at is not None and self.tick_at <= wake_ms):
            return
        self.tick_at = wake_ms
        self.after(self.on_my_clock(max(0, wake_ms - self.mono_ms())), self.tick, wake_ms)

    def tick(self, wake_ms: int) -> None:
        """The time has come."""
        if self.tick_at == wake_ms:
            self.tick_at = None
            if self.scheduler is not None:
                self.feed(Tick(), Ticket())

    # Orders of the commit machine

    def carry(self, orders: list[Order]) -> None:
        """Carry out what the commit machine decided."""
        if not orders:
            return
        if type(orders[-1]) in ENDS:
            self.scheduler = None
        for order in orders:
            match order:
                case Release():
                    self.release(order)
                case Write():
                    self.ground.oracle.writes(self, self.machine, order.batch)
                    self.after(self.disk_ms(), self.write, self.machine, order.batch)
                case Refuse():
                    self.ground.oracle.refused(self, self.machine, order)
                    for entry in order.entries:
                        entry.ticket.refuse(str(order.error))
                case ReadLeader():
                    self.after(self.disk_ms(), self.read_leader, self.machine)
                case Reload():
                    self.reload(str(order.error))
                case StepDown():
                    self.step_down(order.reason)

    def release(self, order: Release) -> None:
        """Answer and send, in order."""
        if "crash_before_answer" in self.ground.rates and self.ground.strikes("crash_before_answer"):
            self.crash()
            return
        self.ground.oracle.released(self, self.machine, order)
        for entry, results in order.entries:
            ticket: Ticket = entry.ticket
            if ticket.durable is not None:
                ticket.durable()
            decision = ticket.decision
            if decision is not None:
                for send in decision.sends:
                    self.deliver(send)
                if decision.news and self.when_over:
                    self.wake_waiting(decision)
            if ticket.reply is not None:
                if decision is None:
                    ticket.reply("ok", results)
                elif decision.refusal is None:
                    ticket.reply("ok", results or decision.answer)
                else:
                    ticket.reply(decision.refusal.code, decision.refusal.message)
            if ticket.settled is not None:
                ticket.settled()

    def wake_waiting(self, decision: Decision) -> None:
        """Those who wait for the end of a run look again."""
        for news in decision.news:
            for ask in self.when_over.pop(news.run_id, ()) if news.kind == "run" else ():
                ask()

    def disk_ms(self) -> int:
        """Draw how long the disk takes."""
        if "disk_slow" in self.ground.rates and self.ground.strikes("disk_slow"):
            return self.world.between(200, 12_000)
        return self.world.between(0, 4)

    def write(self, machine: Commit, batch: Batch) -> None:
        """The disk takes a batch: for good, not at all, or nobody knows."""
        ground = self.ground
        struck = ground.first_strike(BEFORE_COMMIT)
        if struck == "crash_before_commit":
            self.crash()
            return
        try:
            if struck:
                raise failure(struck, batch)
            results = ground.commit(batch)
            ground.oracle.committed(self, batch, results)
            struck = ground.first_strike(AFTER_COMMIT)
            if struck == "crash_after_commit":
                self.crash()
                return
            if struck:
                raise CommitUnknown("no answer to COMMIT", results)
        except StorageError as error:
            self.after(self.world.between(0, 2), self.failed, machine, batch, error)
            return
        self.after(self.world.between(0, 2), self.written, machine, batch, results)

    def written(self, machine: Commit, batch: Batch, results: list[Any]) -> None:
        """The disk has answered."""
        self.failures = 0
        self.carry(machine.committed(batch.number, results))
        if machine.cost_waiting:
            self.turn_soon()

    def failed(self, machine: Commit, batch: Batch, error: StorageError) -> None:
        """The disk has answered otherwise."""
        if isinstance(error, Deposed):
            self.carry(machine.deposed(batch.number, error))
        elif isinstance(error, CommitUnknown):
            self.carry(machine.unknown(batch.number, error.results, error))
        else:
            self.ground.oracle.failed(self, error)
            self.carry(machine.failed(batch.number, error))
        self.turn_soon()

    def read_leader(self, machine: Commit) -> None:
        """Look who leads, and how far."""
        if self.ground.strikes("leader_unread"):
            self.ground.oracle.unlearned(self, machine)
            self.carry(machine.leader_unread(CommitFailed("the disk does not answer")))
            return
        epoch, number = self.ground.store.leader()
        if epoch != machine.epoch:
            self.ground.oracle.unlearned(self, machine)
        self.carry(machine.leader_row(epoch, number))
        self.turn_soon()


def failure(kind: str, batch: Batch) -> StorageError:
    """Return what the storage raises when that fault keeps a batch from being written."""
    if kind == "disk_fails":
        return CommitFailed("the disk failed")
    if kind == "disk_full":
        return StorageFull("the disk is full")
    return CommitUnknown("no answer to COMMIT", [None] * len(batch.operations))
