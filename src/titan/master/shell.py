"""The shell around the pure parts: carries orders between scheduler, commit machine, disk and the outside.

One event at a time goes through `Scheduler.handle`; what it decides waits in `core.commit` until the writer
thread has made it durable; only then are callers answered, messages sent, events published. Nothing is
decided here, and everything here runs on one event loop.

Long work comes in slices: while a decision says `more`, `Continue` is fed, once a turn of the loop, so that
requests and workers have theirs in between. It pauses while the writer is behind, so that what waits for
the disk stays bounded.

Whatever goes wrong on the way (a batch that cannot commit, an exception in the core) ends the same way:
scheduler and commit machine are dropped and loaded anew from the database under a new epoch (fences count
from it, and those of the dropped memory may never be given twice), those who waited are told to ask again,
and the workers' links are closed so that each says anew what it holds. While that lasts, renewals are still
answered: whatever the load brings, every lease begins afresh after it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from titan.core.changes import Change
from titan.core.commit import (
    BATCH_COST_MAX,
    Commit,
    Entry,
    Order,
    ReadLeader,
    Refuse,
    Release,
    Reload,
    StepDown,
    Write,
    cost_of,
)
from titan.core.events import Continue, Decision, Event, News, Now, Send, Tick
from titan.core.rows import Snapshot
from titan.core.scheduler import Scheduler
from titan.master.book import Book
from titan.master.live import LiveEvents, closed_error
from titan.master.notices import data_bytes, store_news
from titan.master.tickets import Poison, Ticket
from titan.master.writer import Report, Writer
from titan.model.limits import Limits
from titan.model.store import Operation
from titan.model.tokens import TokenRow
from titan.storage import queries
from titan.storage.connection import Connection
from titan.storage.database import READ_S_MAX
from titan.storage.errors import Deposed, StorageFull
from titan.storage.journal import Journal
from titan.storage.tokens import living
from titan_sdk import errors

BACKOFF_S = 0.1
BACKOFF_S_MAX = 5.0
LOADING = "the Master is loading its state"
LOG = logging.getLogger("titan.master")
T = TypeVar("T")


class Links(Protocol):
    """What the shell needs of the workers' links."""

    def deliver(self, send: Send) -> None:
        """Send a durable decision's message."""

    def mute(self) -> None:
        """Answer nothing but renewals from here on."""

    def reset(self) -> None:
        """Close all links, so that the workers come back and say what they hold."""


class Read(Protocol):
    """Runs a query on a reader thread."""

    def __call__(self, query: Callable[[Connection], T], timeout_s: float | None = READ_S_MAX) -> Awaitable[T]:
        """Return what `query` returns; it sees what is committed."""


class Shell:
    """`ended` gets a reason when this process must go, because another one leads or nobody can tell."""

    def __init__(
        self,
        journal: Journal,
        read: Read,
        live: LiveEvents,
        links: Links,
        book: Book,
        limits: Limits,
        clock: Callable[[], Now],
    ) -> None:
        self.scheduler: Scheduler | None = None
        self.closed = LOADING
        self.token_key = b""
        self.leftovers: list[str] = []
        self.poison = Poison()
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self.loop.create_future()
        self.writer = Writer(journal, self.loop, self._reported)
        self._journal, self._read, self._live, self._links, self._book = journal, read, live, links, book
        self._limits, self._clock = limits, clock
        self._machine = Commit(0)
        self._released = 0
        self._failures = 0
        self._loading: asyncio.Task[None] | None = None
        self._wake_ms: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._turning = self._continuing = self._stopping = False

    def feed(
        self, event: Event, ticket: Ticket, extra: Sequence[Change] = (), operations: Sequence[Operation] = ()
    ) -> None:
        """Have the core take one event. `extra` and `operations` are committed with it unless it is refused."""
        if self.scheduler is None:
            ticket.refuse(closed_error(self.closed))
            return
        try:
            decision = self.scheduler.handle(event, self._clock())
        except Exception as error:
            LOG.exception("the core failed on %s", type(event).__name__)
            self.poison.add(event)
            self.close(LOADING)
            ticket.refuse(errors.Internal("the Master failed on this request and did not carry it out"))
            self._carry(self._machine.raised(error))
            return
        self._accept(decision, ticket, extra, operations)

    def add(self, entry: Entry) -> None:
        """Have an entry (its ticket is a `Ticket`) committed in its turn."""
        if self.closed:
            entry.ticket.refuse(closed_error(self.closed))
            return
        self._carry(self._machine.add(entry))
        self._turn_soon()

    def close(self, reason: str, for_good: bool = False) -> None:
        """Take nothing more. What was taken is still settled. `for_good`: and load nothing any more."""
        self._stopping = self._stopping or for_good
        if not (self._stopping and self.closed) or for_good:
            self.closed = reason
        self.scheduler = None
        self._set_timer(None)

    @property
    def epoch(self) -> int:
        """The epoch that was begun last; 0 before the first."""
        return self._machine.epoch

    async def start(self) -> None:
        """Take over and load. Raises StorageError when the database cannot be used."""
        await self._load()

    async def stop(self) -> None:
        """Let the writer finish what was taken, and end its thread. Close it for good before."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        await self.writer.call(self._journal.close)
        await self.writer.stop()

    def _accept(
        self, decision: Decision, ticket: Ticket, extra: Sequence[Change] = (), operations: Sequence[Operation] = ()
    ) -> None:
        ticket.decision = decision
        changes: Sequence[Change] = decision.changes
        if decision.refusal is not None:
            operations = ()
        elif extra:
            changes = [*changes, *extra]
        cost = len(changes)
        if operations:
            cost = cost_of(changes, operations, (), sum(map(data_bytes, operations)))
        self.add(Entry(changes, operations, (), ticket, cost))
        if decision.more:
            self._continue_soon()
        if decision.wake_ms != self._wake_ms:
            self._set_timer(decision.wake_ms)

    def _carry(self, orders: list[Order]) -> None:
        if orders and isinstance(orders[-1], Reload | StepDown):
            self.close(LOADING)  # before anybody is refused, so that nothing more is fed on the way
        for order in orders:
            match order:
                case Release():
                    self._release(order)
                case Write():
                    self.writer.commit(self._machine, order.batch)
                case Refuse():
                    for entry in order.entries:
                        entry.ticket.refuse(_told(order.error))
                case ReadLeader():
                    self.writer.read_leader(self._machine)
                case Reload():
                    self._reload(order.error)
                case StepDown():
                    self._step_down(order.reason)

    def _release(self, order: Release) -> None:
        news: list[News] = []
        store: list[News] = []
        for entry, results in order.entries:
            try:
                entry.ticket.release(results, self._links.deliver, news)
                for operation, result in zip(entry.operations, results, strict=True):
                    store += store_news(operation, result)
                    self._book.committed(operation, result)
            except Exception:
                LOG.exception("an answer of batch %d could not be given", order.number)
                entry.ticket.refuse(errors.Internal("it is done, but the Master failed to say so"))
        if news:
            self._live.publish(order.number, news)
        if store:
            self._live.publish_store(order.number, store)

    def _reported(self, report: Report) -> None:
        """The writer has done what it was told."""
        number = self._machine.number
        self._carry(report())
        if self._machine.number > number:
            self._failures = 0
        self._turn_soon()

    def _turn_soon(self) -> None:
        if not self._turning:
            self._turning = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        self._carry(self._machine.turn())

    def _continue_soon(self) -> None:
        if not self._continuing:
            self._continuing = True
            self.loop.call_soon(self._continue)

    def _continue(self) -> None:
        self._continuing = False
        if self.scheduler is None:
            return
        if self._machine.cost_waiting > BATCH_COST_MAX:
            # The writer is behind. What is to be gone on with waits behind what waits already.
            self._continuing = True
            self.add(Entry(ticket=Ticket(settled=self._continue)))
        else:
            self.feed(Continue(), Ticket())

    def _set_timer(self, wake_ms: int | None) -> None:
        self._wake_ms = wake_ms
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wake_ms is not None:
            delay_s = max(0, wake_ms - self._clock().mono_ms) / 1000
            self._timer = self.loop.call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = self._wake_ms = None
        self.feed(Tick(), Ticket())

    def _step_down(self, reason: str) -> None:
        LOG.error("stepping down: %s", reason)
        self.close(reason, for_good=True)
        if not self.ended.done():
            self.ended.set_result(reason)

    def _reload(self, error: Exception) -> None:
        LOG.error("the state in memory is dropped: %s", error, exc_info=error)
        if self._stopping:
            return
        self._live.close(LOADING)
        self._links.mute()
        self._loading = self.loop.create_task(self._reload_until_done())

    async def _reload_until_done(self) -> None:
        while True:
            if self._failures:
                await asyncio.sleep(min(BACKOFF_S_MAX, BACKOFF_S * 2 ** (self._failures - 1)))
            self._failures += 1
            try:
                await self._load()
            except Deposed as error:
                self._step_down(str(error))
            except Exception:
                LOG.exception("loading failed and is tried again")
                continue
            return

    async def _load(self) -> None:
        epoch = await self.writer.call(self._take_over)
        found = await self._read(partial(_everything, now_ms=self._clock().wall_ms), None)
        snapshot, self.leftovers, self.token_key, tokens = found
        scheduler = Scheduler(epoch, self._limits)
        decision = await self.loop.run_in_executor(None, scheduler.load, snapshot, self._clock())
        self._machine = Commit(epoch)
        self.scheduler, self.closed = scheduler, ""
        self._book.load(tokens)
        self._live.reopen(epoch)
        self._links.reset()
        self._accept(decision, Ticket())

    def _take_over(self) -> int:
        """Begin a new epoch, unless somebody else has begun one since ours."""
        epoch, _ = self._journal.leader()
        if self._machine.epoch not in (0, epoch):
            raise Deposed(f"epoch {epoch} leads now, this process was epoch {self._machine.epoch}")
        return self._journal.take_over(self._clock().wall_ms)


def _everything(connection: Connection, now_ms: int) -> tuple[Snapshot, list[str], bytes, list[TokenRow]]:
    return (
        queries.snapshot(connection),
        queries.staged_runs(connection),
        queries.token_key(connection),
        living(connection, now_ms),
    )


def _told(error: Exception) -> errors.TitanError:
    """Return what a caller is told whose request went down with a batch; a fresh exception for each."""
    if isinstance(error, StorageFull):
        text = "the Master's disk is full: this was not kept"
        return errors.StorageFull(text, hint="free some space and ask again", retry_after_s=BACKOFF_S_MAX)
    text = "the Master could not keep this and is loading its state; it is not known to be done"
    return errors.Unavailable(text, hint="ask again with the same idempotency key", retry_after_s=2 * BACKOFF_S)
