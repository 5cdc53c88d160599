"""A Master process: the real scheduler and the real commit machine, and around them what the shell does.

The order of things is that of `titan.master.shell` and `titan.master.links`: one event at a time, nothing told before
it is durable, every fault ends in a load of the state under a new epoch. The disk is asked here and answers later.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tests.simulation.ground import Ground
from tests.simulation.network import Link
from tests.simulation.world import Node
from titan.core.commit import (
    BATCH_COST_MAX,
    Batch,
    Commit,
    Entry,
    LogChunk,
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
    AttemptReturned,
    AttemptStarted,
    Continue,
    Decision,
    Event,
    PrepareStop,
    Send,
    Tick,
    WorkerConnected,
    WorkerDisconnected,
    WorkerDraining,
    WorkerRenewed,
)
from titan.core.rows import Snapshot
from titan.core.scheduler import Scheduler
from titan.master.offsets import Gap, Offsets
from titan.master.tickets import Poison
from titan.model.limits import DEFAULT_LIMITS
from titan.model.store import SweepStage
from titan.model.wire import (
    Ack,
    Draining,
    Dropped,
    Ended,
    Grant,
    Hello,
    Output,
    Renew,
    RenewAck,
    Returned,
    Started,
    Welcome,
    WorkerMessage,
)
from titan.storage.errors import CommitFailed, CommitUnknown, Deposed, StorageError, StorageFull

# The real one is 15 minutes, which would only make the end of a simulation longer.
STOP_EXTEND_MS = 90_000
BACKOFF_MS = 100
CLEAN_UP_MS = 20_000
LOOK_MS = 3_000
Reply = Callable[[str, Any], None]


class Ticket:
    """What hangs on an entry: whom to answer, what to do when it is durable, and when it is settled either way."""

    __slots__ = ("decision", "durable", "reply", "settled")

    def __init__(
        self,
        reply: Reply | None = None,
        durable: Callable[[], None] | None = None,
        settled: Callable[[], None] | None = None,
    ) -> None:
        self.decision: Decision | None = None
        self.reply = reply
        self.durable = durable
        self.settled = settled

    def refuse(self, why: str) -> None:
        """Nothing of it was kept, as far as we know."""
        if self.reply is not None:
            self.reply("unavailable", why)
        if self.settled is not None:
            self.settled()


class MasterLink:
    """The Master's end of a worker's link: deaf to all but renewals until its hello is durable."""

    def __init__(self, link: Link, hello: Hello) -> None:
        self.link = link
        self.name, self.incarnation = hello.name, hello.incarnation
        self.held = tuple(each.fence for each in hello.attempts)
        self.open = False
        self.waiting: list[Any] = []


class Master(Node):
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
        self.stopping = self.muted = False
        self.failures = 0
        self.links: dict[str, MasterLink] = {}
        self.greeted: dict[Link, MasterLink] = {}
        self.offsets = Offsets(DEFAULT_LIMITS.log_job_bytes_max)
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
        self.ground.oracle.master_gone(self)
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
        self.ground.oracle.master_gone(self)
        self.crash()

    # Events in, entries out

    def feed(self, event: Event, ticket: Ticket, extra: Sequence[Any] = (), operations: Sequence[Any] = ()) -> None:
        """Have the core take one event; `extra` and `operations` are committed with it unless it is refused."""
        if self.scheduler is None:
            ticket.refuse("closed")
            return
        decision = self.scheduler.handle(event, self.clocks())
        if self.ground.strikes("core_raises"):
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
        if orders and isinstance(orders[-1], Reload | StepDown):
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
        if self.ground.strikes("crash_before_answer"):
            self.crash()
            return
        oracle = self.ground.oracle
        oracle.released(self, self.machine, order)
        for entry, results in order.entries:
            ticket: Ticket = entry.ticket
            if ticket.durable is not None:
                ticket.durable()
            decision = ticket.decision
            if decision is not None:
                for send in decision.sends:
                    self.deliver(send)
                if decision.news:
                    oracle.told(self, order.number, decision.news)
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
        self.after_quietly(0, oracle.all_told, self.machine.epoch, order.number)

    def wake_waiting(self, decision: Decision) -> None:
        """Those who wait for the end of a run look again."""
        for news in decision.news:
            for ask in self.when_over.pop(news.run_id, ()) if news.kind == "run" else ():
                ask()

    def disk_ms(self) -> int:
        """Draw how long the disk takes."""
        if self.ground.strikes("disk_slow"):
            return self.world.between(200, 12_000)
        return self.world.between(0, 4)

    def write(self, machine: Commit, batch: Batch) -> None:
        """The disk takes a batch: for good, not at all, or nobody knows."""
        ground = self.ground
        if ground.strikes("crash_before_commit"):
            self.crash()
            return
        try:
            if ground.strikes("disk_fails"):
                raise CommitFailed("the disk failed")
            if ground.strikes("disk_full"):
                raise StorageFull("the disk is full")
            if ground.strikes("commit_unknown_lost"):
                raise CommitUnknown("no answer to COMMIT", [None] * len(batch.operations))
            results = ground.commit(batch)
            ground.oracle.committed(self, batch, results)
            if ground.strikes("crash_after_commit"):
                self.crash()
                return
            if ground.strikes("commit_unknown_done"):
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

    # Worker links

    def heard(self, link: Link, frame: list[WorkerMessage]) -> None:
        """A frame arrived."""
        known = self.greeted.get(link)
        if known is None:
            self.greet(link, frame)
        elif self.links.get(known.name) is known:
            self.take(known, frame)

    def hung_up(self, link: Link) -> None:
        """A link is closed."""
        known = self.greeted.pop(link, None)
        if known is not None and self.links.get(known.name) is known:
            del self.links[known.name]
            self.report(WorkerDisconnected(known.name, known.incarnation))

    def close_link(self, known: MasterLink, reason: str) -> None:
        """Close a link from this side."""
        known.open = False
        known.link.close_at_master(reason)
        self.hung_up(known.link)

    def greet(self, link: Link, frame: list[WorkerMessage]) -> None:
        """Take a worker in."""
        hello = frame[0]
        if not isinstance(hello, Hello) or self.scheduler is None:
            link.close_at_master("the Master is loading")
            return
        fences = tuple(held.fence for held in hello.attempts)
        for fence, (total, kept) in self.ground.store.log_totals(self.offsets.unknown(fences)).items():
            self.offsets.begin(hello.name, fence, total, kept)
        known = MasterLink(link, hello)
        former = self.links.get(hello.name)
        if former is not None:
            former.open = False
            self.greeted.pop(former.link, None)
            former.link.close_at_master("replaced" if former.incarnation != hello.incarnation else "again")
        self.links[hello.name] = self.greeted[link] = known
        if not self.report(connected(hello), lambda: self.welcome(known)):
            self.close_link(known, "the core failed on this hello")
            return
        self.take(known, frame[1:])

    def welcome(self, known: MasterLink) -> None:
        """Its hello is durable."""
        known.open = True

    def reset_links(self) -> None:
        """Close all links, so that the workers say anew what they hold."""
        self.muted = False
        self.offsets.end_all()
        links, self.links = self.links, {}
        for known in links.values():
            self.greeted.pop(known.link, None)
            known.open = False
            known.link.close_at_master("loaded anew")

    def take(self, known: MasterLink, frame: Sequence[WorkerMessage]) -> None:
        """Take what one frame says, in order."""
        chunks: list[LogChunk] = []
        for message in frame:
            if isinstance(message, (Output, Dropped)):
                if not self.muted and not self.output(known, message, chunks):
                    break
            elif isinstance(message, Renew):
                if not self.muted:
                    self.keep(known, chunks)
                    chunks = []
                    heard = self.scheduler is not None
                    if not self.report(WorkerRenewed(known.name, known.incarnation)):
                        self.close_link(known, "the core has failed on this before")
                        return
                    self.ground.oracle.renewed(self, known.name, known.incarnation, heard)
                known.link.to_worker([RenewAck(message.seq)], 0)
            elif isinstance(message, Hello):
                self.close_link(known, "a second hello")
                return
            elif not self.muted:
                self.keep(known, chunks)
                chunks = []
                if not self.take_report(known, message):
                    self.after_quietly(1, self.close_link, known, "the core has failed on this before")
                    return
        self.keep(known, chunks)

    def take_report(self, known: MasterLink, message: WorkerMessage) -> bool:
        """Tell the core what a worker reports; False when it has failed on that before."""
        name, incarnation = known.name, known.incarnation
        match message:
            case Ended():
                return self.report(AttemptEnded(name, incarnation, message, self.world.chance()))
            case Started():
                return self.report(AttemptStarted(name, incarnation, message.fence))
            case Returned():
                return self.report(AttemptReturned(name, incarnation, message.fence, message.reason))
            case Draining():
                return self.report(WorkerDraining(name, incarnation))
        return True

    def output(self, known: MasterLink, said: Output | Dropped, chunks: list[LogChunk]) -> bool:
        """Take log bytes; False when they do not follow what came before."""
        try:
            new = self.offsets.receive(known.name, said)
        except Gap as gap:
            self.close_link(known, str(gap))
            return False
        if new:
            chunks += new
            return True
        durable = self.offsets.durable(said.fence)
        length = said.length if isinstance(said, Dropped) else len(said.data)
        self.say_to(known, Ack(log_offsets={said.fence: said.offset + length if durable is None else durable}))
        return True

    def keep(self, known: MasterLink, chunks: list[LogChunk]) -> None:
        """Have log bytes committed."""
        if chunks and self.scheduler is not None:
            self.add(Entry((), (), chunks, Ticket(durable=lambda: self.kept(known, chunks)), cost_of((), (), chunks)))

    def kept(self, known: MasterLink, chunks: list[LogChunk]) -> None:
        """Log bytes are durable: tell the worker, whichever link it has by now."""
        durable: dict[int, int] = {}
        for chunk in chunks:
            self.offsets.keep(chunk)
            end = self.offsets.durable(chunk.fence)
            durable[chunk.fence] = chunk.end if end is None else end
        current = self.links.get(known.name)
        if current is not None and current.open:
            self.say_to(current, Ack(log_offsets=durable))

    def deliver(self, send: Send) -> None:
        """Send what is durable to the process it is meant for, if that is connected."""
        self.ground.oracle.sends(self, send)
        known = self.links.get(send.worker)
        if known is None or not known.open or known.incarnation != send.incarnation:
            return
        message = send.message
        if isinstance(message, Grant):
            self.offsets.begin(send.worker, message.fence)
        elif isinstance(message, Ack):
            for fence in message.ended:
                self.offsets.end(send.worker, fence)
        elif isinstance(message, Welcome):
            for fence in message.stop:
                self.offsets.end(send.worker, fence)
            held = {fence: self.offsets.durable(fence) for fence in known.held}
            message = msgspec.structs.replace(
                message, log_offsets={fence: durable for fence, durable in held.items() if durable is not None}
            )
        self.say_to(known, message)

    def say_to(self, known: MasterLink, message: Any) -> None:
        """Send a message with the next frame."""
        known.waiting.append(message)
        if len(known.waiting) == 1:
            self.after_quietly(0, self.flush, known)

    def flush(self, known: MasterLink) -> None:
        """Send what waits as one frame: what may be forgotten first, as the real link does."""
        waiting, known.waiting = known.waiting, []
        if len(waiting) == 1:
            known.link.to_worker(waiting)
            return
        acks = [message for message in waiting if isinstance(message, Ack)]
        ended: list[int] = []
        offsets: dict[int, int] = {}
        for ack in acks:
            ended.extend(ack.ended)
            offsets.update(ack.log_offsets)
        frame: list[Any] = [Ack(tuple(ended), offsets)] if acks else []
        frame += [message for message in waiting if not isinstance(message, Ack)]
        known.link.to_worker(frame)


def connected(hello: Hello) -> WorkerConnected:
    """Return the event of a hello."""
    return WorkerConnected(
        name=hello.name, incarnation=hello.incarnation, boot_id=hello.boot_id, capabilities=hello.capabilities,
        slots=hello.slots, attempts=hello.attempts, host=hello.host, pid=hello.pid, version=hello.version,
        predecessor=hello.predecessor, devices=hello.devices, draining=hello.draining,
    )  # fmt: skip
