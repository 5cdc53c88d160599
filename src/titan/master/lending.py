"""A job that waits for a run below it lends its slot: what the routes that wait tell the scheduler of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from titan.core.events import EndLend, LendSlot
from titan.core.rows import RunRow
from titan.master.asgi import Receive
from titan.master.auth import Principal
from titan.master.engine import Engine
from titan.model.roles import Role
from titan.storage import queries
from titan.storage.connection import Connection


class Ask:
    """One ask for the end of a run, or of the job `job_id` in it. Set `final` when it is answered with that.

    `begin` it before waiting: nothing is lent for what is over, nor for a mere look. It is `idle` when no slot hangs
    on it, because who asks is no job, or the run is not below it.
    """

    def __init__(
        self, engine: Engine, principal: Principal, run: RunRow, job_id: str, receive: Receive, idle: bool
    ) -> None:
        self.final = False
        self._idle = idle
        self._engine = engine
        self._target = (principal.fence, run.run_id, job_id)
        self._receive = receive
        self._gone: asyncio.Task[None] | None = None
        self._open = False

    def begin(self) -> None:
        """Lend the slot of the job that asks, until the ask is over or the connection cut."""
        if self._gone is None and not self._idle:
            self._engine.report(LendSlot(*self._target))
            self._open = True
            self._gone = asyncio.create_task(self._until_gone())

    def end(self) -> None:
        """The ask is over; one that was never begun may be the last of several, so that is told too."""
        if self._gone is not None:
            self._gone.cancel()
        self._tell()

    def _tell(self) -> None:
        if self._open or (self.final and not self._idle):
            self._open = False
            self._engine.report(EndLend(*self._target, self.final))

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._tell()


@asynccontextmanager
async def asking(
    engine: Engine, principal: Principal, run: RunRow, receive: Receive, job_id: str = ""
) -> AsyncIterator[Ask]:
    """Yield the ask of `principal`: a job lends its slot while it waits for what is below it."""
    idle = principal.role is not Role.JOB or not await _is_below(engine, run, principal)
    ask = Ask(engine, principal, run, job_id, receive, idle)
    try:
        yield ask
    finally:
        ask.end()


async def _is_below(engine: Engine, run: RunRow, principal: Principal) -> bool:
    if run.parent_run_id is None or (run.parent_run_id, run.parent_job_id) == (principal.run_id, principal.job_id):
        return run.parent_run_id is not None

    def read(connection: Connection) -> bool:
        at: RunRow | None = run
        while at is not None and at.parent_run_id is not None:
            if at.parent_run_id == principal.run_id:
                return at.parent_job_id == principal.job_id
            at = queries.run(connection, at.parent_run_id)
        return False

    return await engine.read(read)
