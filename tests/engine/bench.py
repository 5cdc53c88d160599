"""An engine on a real database in a temporary home, faults on demand, and workers that say what the test tells them."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from titan.core.commit import Batch
from titan.core.events import NewRun, Now, SubmitRun
from titan.core.memory import Memory
from titan.core.rows import AttemptRow, JobRow, RunRow, Snapshot
from titan.master.engine import Engine, read_clocks
from titan.model.limits import Limits
from titan.model.spec import JobSpec
from titan.model.wire import (
    PROTOCOL,
    Ack,
    Ended,
    Grant,
    Held,
    Hello,
    MasterMessage,
    Output,
    Started,
    Welcome,
    WorkerMessage,
    decode_master_frame,
    encode_frame,
)
from titan.storage import queries
from titan.storage.blobs import BlobFiles
from titan.storage.connection import Connection
from titan.storage.database import Database
from titan.storage.journal import Journal
from titan.storage.logs import LogFiles

T = TypeVar("T", bound=MasterMessage)
SCRIPT = "a" * 64
REACHED_S_MAX = 5.0  # only so that a broken engine fails a test instead of hanging the run
_numbers = itertools.count(1)


def play(story: Coroutine[Any, Any, None]) -> None:
    """Run one test's story on a loop of its own."""
    asyncio.run(story)


class Faults:
    """What the journal is made to suffer. Each fault is used once, in order; None lets a batch pass."""

    def __init__(self) -> None:
        self.before: list[Exception | None] = []
        self.after: list[Exception | None] = []
        self.always: Exception | None = None
        self.batches: list[Batch] = []
        self._gate = threading.Event()
        self._gate.set()
        self._reached = threading.Event()

    def hold(self) -> None:
        """Keep the writer waiting before each COMMIT."""
        self._reached.clear()
        self._gate.clear()

    async def reached(self) -> None:
        """Return when a batch stands before its COMMIT since `hold`."""
        assert await asyncio.to_thread(self._reached.wait, REACHED_S_MAX), "no batch came"

    def let_go(self) -> None:
        """Let it commit again."""
        self._gate.set()

    def before_commit(self, _: Batch) -> None:
        self._reached.set()
        self._gate.wait()
        if self.always is not None:
            raise self.always
        fault = self.before.pop(0) if self.before else None
        if fault is not None:
            raise fault

    def after_commit(self, batch: Batch) -> None:
        self.batches.append(batch)
        fault = self.after.pop(0) if self.after else None
        if fault is not None:
            raise fault


class Bench:
    """One engine at work, and what its database holds."""

    def __init__(self, engine: Engine, database: Database, faults: Faults) -> None:
        self.engine = engine
        self.database = database
        self.faults = faults
        self.unanswered: list[asyncio.Future[str]] = []

    async def submit(self, *jobs: JobSpec, run_id: str = "") -> str:
        """Submit a run and return its id."""
        run_id = run_id or new_run_id()
        await self.engine.apply(SubmitRun(new_run(run_id), jobs))
        return run_id

    async def engine_submits(self, *jobs: JobSpec) -> str:
        """Have the core take a run, and do not wait until it is durable."""
        run_id = new_run_id()
        taken = asyncio.ensure_future(self.submit(*jobs, run_id=run_id))
        await asyncio.sleep(0)
        self.unanswered.append(taken)
        return run_id

    async def held(self, query: Callable[[Connection], Any]) -> Any:
        """Return what the database holds."""
        return await self.engine.read(query)

    async def run(self, run_id: str) -> RunRow | None:
        row: RunRow | None = await self.held(lambda connection: queries.run(connection, run_id))
        return row

    async def job(self, run_id: str, job_id: str) -> JobRow:
        row: JobRow = await self.held(lambda connection: queries.job(connection, run_id, job_id))
        return row

    async def log(self, fence: int) -> bytes:
        files = LogFiles(self.database.path.parent / "logs")
        found = await self.held(lambda connection: files.read(connection, fence, 0, 1_000_000))
        data: bytes = found.data
        return data

    async def worker(self, name: str = "w", **hello: Any) -> "Worker":
        """Connect a worker and wait until it is welcome."""
        worker = Worker(self.engine, name, **hello)
        await worker.hear(Welcome)
        return worker

    async def settled(self) -> None:
        """Return when everything decided so far is committed."""
        await self.engine.ask(lambda _, now: now)

    async def loaded(self) -> None:
        """Return when the core, dropped before, is loaded again."""
        task = self.engine._shell._loading
        assert task is not None
        await task

    def hold_loads(self, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
        """Keep the next load from beginning until the event returned is set."""
        may_load = asyncio.Event()
        real = self.engine._shell._load

        async def load() -> None:
            await may_load.wait()
            await real()

        monkeypatch.setattr(self.engine._shell, "_load", load)
        return may_load

    async def agree(self) -> None:
        """Assert that what the core remembers is what the database holds of living things."""
        await self.settled()
        snapshot = await self.held(queries.snapshot)
        memory = await self.engine.ask(lambda scheduler, _: scheduler.memory)
        assert remembered(memory) == stored(snapshot)


def stored(snapshot: Snapshot) -> dict[str, Any]:
    """Return what a snapshot says, row by row."""
    return {
        "runs": {row.run_id: plain(row, RunRow) for row in snapshot.runs},
        "jobs": {(row.run_id, row.job_id): plain(row, JobRow) for row in snapshot.jobs},
        "attempts": {row.fence: plain(row, AttemptRow) for row in snapshot.attempts},
        "edges": {(edge.run_id, edge.job_id, edge.parent_id) for edge in snapshot.edges},
    }


def remembered(memory: Memory) -> dict[str, Any]:
    """Return what the core holds, in the same shape."""
    jobs = [job for run in memory.runs.values() for job in run.jobs.values()]
    return {
        "runs": {run_id: plain(run, RunRow) for run_id, run in memory.runs.items()},
        "jobs": {(job.run_id, job.job_id): plain(job, JobRow) for job in jobs},
        "attempts": {fence: plain(attempt, AttemptRow) for fence, attempt in memory.attempts.items()},
        "edges": {(job.run_id, child.job_id, job.job_id) for job in jobs for child in job.children or ()},
    }


def plain(row: Any, kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {column: getattr(row, column) for column in kind.__struct_fields__}


class Worker:
    """One worker process's side of a link, as `titan.master.link.Socket`; it does only what the test says."""

    def __init__(
        self,
        engine: Engine,
        name: str = "w",
        incarnation: str = "first",
        held: Iterable[Held] = (),
        slots: int = 4,
        capabilities: tuple[str, ...] = ("GENERAL",),
        boot_id: str = "boot",
        greet: bool = True,
        **fields: Any,
    ) -> None:
        self.name = name
        self.closed: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.frames: list[list[MasterMessage]] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self._incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._heard: asyncio.Queue[MasterMessage] = asyncio.Queue()
        self.task = asyncio.create_task(engine.links.serve(self))
        if greet:
            hello = Hello(name, incarnation, boot_id, PROTOCOL, "0.1.0", capabilities, slots, tuple(held), **fields)
            self.say(hello)

    async def receive(self) -> bytes | None:
        return await self._incoming.get()

    async def send(self, frame: bytes) -> None:
        await self.reads.wait()
        messages = decode_master_frame(frame)
        self.frames.append(messages)
        for message in messages:
            self._heard.put_nowait(message)

    async def close(self, code: int, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result((code, reason))

    def say(self, *messages: WorkerMessage) -> None:
        """Send one frame to the Master."""
        self.say_bytes(encode_frame(messages))

    def say_bytes(self, frame: bytes) -> None:
        self._incoming.put_nowait(frame)

    def leave(self) -> None:
        """Lose the connection."""
        self._incoming.put_nowait(None)

    async def hear(self, kind: type[T]) -> T:
        """Return the next message of `kind`; others before it are passed over."""
        while True:
            message = await self._heard.get()
            if isinstance(message, kind):
                return message

    async def grants(self, count: int) -> list[Grant]:
        """Return the next `count` grants."""
        return [await self.hear(Grant) for _ in range(count)]

    def heard(self, kind: type[T]) -> list[T]:
        """Return everything of `kind` that came so far."""
        return [message for frame in self.frames for message in frame if isinstance(message, kind)]

    async def finish(self, grant: Grant, exit_code: int = 0, output: bytes = b"") -> None:
        """Play an attempt from start to end and wait until its end is durable."""
        said: list[WorkerMessage] = [Started(grant.fence)]
        if output:
            said.append(Output(grant.fence, 0, output))
        self.say(*said, Ended(grant.fence, exit_code, log_bytes=len(output)))
        while grant.fence not in (await self.hear(Ack)).ended:
            pass


@asynccontextmanager
async def bench(
    home: Path, limits: Limits | None = None, clock: Callable[[], Now] = read_clocks
) -> AsyncIterator[Bench]:
    """Start an engine in `home`, stop it at the end."""
    limits = limits or Limits()
    faults = Faults()
    database = Database.open(f"sqlite:///{home / 'titan.db'}", home)
    blobs, logs = BlobFiles(home / "blobs", limits.blob_inline_bytes_max), LogFiles(home / "logs")
    journal = Journal(database, blobs, logs, limits, faults.before_commit, faults.after_commit)
    engine = Engine(database, journal, limits, clock)
    try:
        await engine.start()
        await asyncio.sleep(0)
        it = Bench(engine, database, faults)
        await it.settled()  # the first cleaning up is over
        yield it
        await asyncio.gather(*it.unanswered)
    finally:
        faults.let_go()
        await engine.stop()
        database.close()


def new_run_id() -> str:
    return f"{next(_numbers):032x}"


def new_run(run_id: str) -> NewRun:
    return NewRun(run_id=run_id, name="test", agent_run_id=run_id, root_run_id=run_id)


def spec(job_id: str, *parents: str, **fields: Any) -> JobSpec:
    return JobSpec(job_id=job_id, filename=f"{job_id}.py", script=SCRIPT, parents=parents, **fields)


async def outcomes(*calls: Any) -> list[Any]:
    """Return what each of `calls`, made at once, returned or raised."""
    return await asyncio.gather(*calls, return_exceptions=True)


async def turns(count: int = 50) -> None:
    """Let the loop turn, for what must not happen to have had its chance."""
    for _ in range(count):
        await asyncio.sleep(0)


def with_bench(story: Callable[[Bench], Coroutine[Any, Any, None]], home: Path, limits: Limits | None = None) -> None:
    """Run `story` on an engine in `home`."""

    async def whole() -> None:
        async with bench(home, limits) as it:
            await story(it)

    play(whole())
