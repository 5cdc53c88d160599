"""Opening the next generation of a run: prepared on a reader's thread, and answered when every job shows it.

The command is done when the run's row says so. Its jobs' rows follow in slices, and until the last of them a job
could still be read as it ended before; so whoever asked for the retry hears of it after that.
"""

from collections.abc import Sequence

from titan.core.events import RetryRun
from titan.core.retrying import prepare_retry
from titan.master.engine import Engine
from titan.master.finding import run_now
from titan.storage import queries
from titan.storage.connection import Connection
from titan_sdk.errors import NotFound


async def prepared(engine: Engine, run_id: str, job_ids: Sequence[str] = ()) -> RetryRun:
    """Return the command that opens the run's next generation, whatever stands against it. Raises NotFound."""

    def read(connection: Connection) -> RetryRun | None:
        whole = queries.whole_run(connection, run_id)
        return None if whole is None else prepare_retry(*whole, job_ids)

    command = await engine.read(read, None)
    if command is None:
        raise NotFound(f"run {run_id} is no longer kept")
    return command


async def opened(engine: Engine, run_id: str) -> None:
    """Wait until all rows show the generation that a retry has opened. Raises Unavailable at a stop or reload."""
    if run_now(engine, run_id).opening is None:
        return
    with engine.live.watch(("run", run_id)) as watch:
        while run_now(engine, run_id).opening is not None:
            await watch.changed(engine.limits.wait_s_max)
