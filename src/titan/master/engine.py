"""The Master's working parts under one roof, and the verbs by which the API and the worker links use them."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from titan.core.changes import Change
from titan.core.commit import Entry, LogChunk, cost_of
from titan.core.events import (
    AttemptEnded,
    DropStage,
    Event,
    FlipRun,
    NewRun,
    News,
    Now,
    PrepareStop,
    Send,
    StageJobs,
    StageRun,
)
from titan.core.scheduler import Scheduler
from titan.master.book import Book
from titan.master.claims import Claims
from titan.master.links import WorkerLinks
from titan.master.live import LiveEvents, closed_error
from titan.master.notices import data_bytes
from titan.master.sessions import Sessions
from titan.master.shell import Shell
from titan.master.tickets import Ticket, in_chunks
from titan.model.limits import Limits
from titan.model.spec import JobSpec
from titan.model.store import Operation, Prune, SweepStage
from titan.model.wire import CLOSE_STOPPING, Ack
from titan.storage.connection import Connection
from titan.storage.database import READ_S_MAX, Database
from titan.storage.journal import Journal
from titan_sdk.errors import TitanError

READERS = 4
STOP_EXTEND_MS = 15 * 60_000
STOP_S_MAX = 5.0
CLEAN_UP_EVERY_S = 60.0
STOPPING = "the Master is stopping"
LOG = logging.getLogger("titan.master")
T = TypeVar("T")


def read_clocks() -> Now:
    """Return both clocks."""
    return Now(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000)


class Engine:
    """One Master at work. Made, started and stopped on one event loop."""

    def __init__(
        self, database: Database, journal: Journal, limits: Limits, clock: Callable[[], Now] = read_clocks
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.live = LiveEvents(limits)
        self.links = WorkerLinks(self)
        self.claims = Claims(self)
        self.sessions = Sessions()
        self.book = Book(self.sessions, lambda: clock().wall_ms)
        self._database = database
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="titan-reader")
        self._shell = Shell(journal, self.read, self.live, self.links, self.book, limits, clock)
        self.live.listen(self._heard)
        # Called with each cleaning up.
        self.chores: list[Callable[[], Awaitable[None]]] = []
        self._housekeeping: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def ended(self) -> "asyncio.Future[str]":
        """Gets a reason when this process must go, because another one leads or nobody can tell."""
        return self._shell.ended

    @property
    def token_key(self) -> bytes:
        """The key that signs job tokens."""
        return self._shell.token_key

    @property
    def epoch(self) -> int:
        """The epoch that this Master began."""
        return self._shell.epoch

    @property
    def open(self) -> bool:
        """Whether events are taken: not while loading or stopping."""
        return self._shell.scheduler is not None

    async def start(self) -> None:
        """Take over, load, and begin to answer. Raises StorageError when the database cannot be used."""
        await self._shell.start()
        self._housekeeping = asyncio.create_task(self._keep_house())

    async def stop(self) -> None:
        """Stop in order: extend the leases of what runs, so that a later Master waits for it, then close.

        Stopping again does nothing.
        """
        if self._stopped:
            return
        self._stopped = True
        self.live.close(STOPPING)
        if self.open:
            future = self._shell.loop.create_future()
            self._shell.feed(PrepareStop(STOP_EXTEND_MS), Ticket(future))
            self._shell.close(STOPPING, for_good=True)
            try:
                await asyncio.wait_for(future, STOP_S_MAX)
            except (TitanError, TimeoutError) as error:
                LOG.warning("the leases of running jobs could not be extended: %s", error)
        self._shell.close(STOPPING, for_good=True)
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.wait([self._housekeeping])
        await self.links.close_all(CLOSE_STOPPING, STOPPING)
        await self._shell.stop()
        await asyncio.to_thread(self._readers.shutdown)

    async def apply(
        self, event: Event, extra: Sequence[Change] = (), operations: Sequence[Operation] = ()
    ) -> dict[str, Any]:
        """Have the core take a command and return its answer once that is durable.

        `extra` changes and `operations` are committed with it, and only if it is not refused. Raises the
        error of a refusal, Internal when the core failed on it, Unavailable or StorageFull when it was not kept.
        """
        future: asyncio.Future[dict[str, Any]] = self._shell.loop.create_future()
        self._shell.feed(event, Ticket(future), extra, operations)
        return await future

    async def submit_staged(
        self,
        run: NewRun,
        jobs: Sequence[JobSpec],
        extra: Sequence[Change] = (),
        operations: Sequence[Operation] = (),
        trail: Sequence[Operation] = (),
    ) -> dict[str, Any]:
        """Submit a run too large for one event, chunk by chunk.

        `extra` and `trail` are committed with the flip that shows it, `operations` with its first chunk.

        Each chunk is taken when the one before is durable. Raises as `apply` does; nothing of the run was
        ever visible then, and its rows are swept.
        """
        try:
            await self.apply(StageRun(run, len(jobs)), (), operations)
            for chunk in in_chunks(jobs):
                await self.apply(StageJobs(run.run_id, chunk))
            return await self.apply(FlipRun(run.run_id), extra, trail)
        except BaseException:
            self.report(DropStage(run.run_id))
            self._shell.leftovers.append(run.run_id)
            raise

    async def mutate(self, operation: Operation, *more: Operation) -> Any:
        """Do a conditional operation and return its result once it is durable. Raises Unavailable or StorageFull.

        `more` are committed with it, whatever its result is.
        """
        operations = (operation, *more)
        cost = cost_of((), operations, (), sum(map(data_bytes, operations)))
        results = await self._kept(Entry(operations=operations, cost=cost))
        return results[0]

    async def write(self, changes: Sequence[Change]) -> None:
        """Commit asserted changes that are none of the core's business. Raises Unavailable or StorageFull."""
        await self._kept(Entry(changes=changes, cost=len(changes)))

    async def ask(self, question: Callable[[Scheduler, Now], T]) -> T:
        """Answer from memory, once all that the answer rests on is durable. Raises Unavailable."""
        scheduler = self._shell.scheduler
        if scheduler is None:
            raise closed_error(self._shell.closed)
        answer = question(scheduler, self.clock())
        await self._kept(Entry())
        return answer

    async def read(self, query: Callable[[Connection], T], timeout_s: float | None = READ_S_MAX) -> T:
        """Run `query` on a reader thread; it sees what is committed. Raises ReadTimedOut after `timeout_s`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._database.read, query, timeout_s)

    def look(self, query: Callable[[Connection], T]) -> T:
        """Run a query that finds a few rows by their key, here and now: a thread would cost more than all of it."""
        return self._database.read(query)

    def holds(self, fence: int) -> bool:
        """Say whether the attempt with this fence lives. Raises Unavailable while that is not known."""
        if self._shell.scheduler is None:
            raise closed_error(self._shell.closed)
        return self._shell.scheduler.holds(fence)

    def worker_of(self, fence: int) -> str:
        """Return the name of the worker that has the attempt; "" for one that is over. Raises Unavailable."""
        if self._shell.scheduler is None:
            raise closed_error(self._shell.closed)
        return self._shell.scheduler.worker_of(fence)

    def _heard(self, news: News) -> None:
        """Something became of a job: what tokens of its ended attempts have open is cut."""
        scheduler = self._shell.scheduler
        for session in self.sessions.of((news.run_id, news.job_id)):
            if scheduler is not None and not scheduler.holds(session.fence):
                session.cut()

    def when_settled(self, call: Callable[[], None]) -> None:
        """Call `call` when all that was decided so far is committed or refused."""
        self._shell.add(Entry(ticket=Ticket(settled=call)))

    def report(self, event: Event, durable: Callable[[], None] | None = None) -> bool:
        """Have the core take what a worker says; nobody waits. `durable` is called before the messages it leads to.

        Returns False for a report on which the core has failed before: it is not fed again.
        """
        if not self._shell.poison.has(event):
            self._shell.feed(event, Ticket(durable=durable))
            return True
        if isinstance(event, AttemptEnded):
            self.links.deliver(Send(event.worker, event.incarnation, Ack(ended=(event.ended.fence,))))
        return False

    def log(self, chunks: Sequence[LogChunk], durable: Callable[[], None]) -> None:
        """Keep log bytes; `durable` is called when they are. If they cannot be kept, the worker sends them again."""
        self._shell.add(Entry(chunks=chunks, ticket=Ticket(durable=durable), cost=cost_of((), (), chunks)))

    async def _kept(self, entry: Entry) -> list[Any]:
        future: asyncio.Future[list[Any]] = self._shell.loop.create_future()
        entry.ticket = Ticket(future)
        self._shell.add(entry)
        return await future

    async def clean_up(self) -> None:
        """Sweep what broken uploads left and drop what has expired, in small operations between other work."""
        while await self.mutate(Prune(self.clock().wall_ms)):
            pass
        while self._shell.leftovers:
            run_id = self._shell.leftovers.pop()
            while await self.mutate(SweepStage(run_id)):
                pass

    async def _keep_house(self) -> None:
        while True:
            try:
                await self.clean_up()
                for chore in tuple(self.chores):
                    await chore()
            except (TitanError, OSError) as error:
                LOG.info("cleaning up is put off: %s", error)  # a load lists what is left over anew
            await asyncio.sleep(CLEAN_UP_EVERY_S)
