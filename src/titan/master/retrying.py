"""Opening the next generation of a run: prepared on a reader's thread, and answered when every job shows it.

The command is done when the run's row says so. Its jobs' rows follow in slices, and until the last of them a job
could still be read as it ended before; so whoever asked for the retry hears of it after that.

A script that its author has edited since is taken up in the same transaction: the job's spec then names the new
content. That is the one change a spec ever sees, and only between two generations, when nothing runs by it.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from titan.core.changes import Update
from titan.core.events import RetryRun
from titan.core.retrying import prepare_retry
from titan.core.rows import JobRow
from titan.master.engine import Engine
from titan.master.finding import run_now
from titan.model.ids import SHA256_PATTERN, shown
from titan.model.limits import Limits, change
from titan.model.spec import decode_spec, encode_spec
from titan.storage import queries
from titan.storage.connection import Connection
from titan_sdk.errors import Invalid, NotFound

NO_SCRIPTS: Mapping[str, str] = {}


class Prepared(msgspec.Struct, frozen=True):
    """The command that opens a run's next generation, and the jobs' new specs, to be committed with it."""

    command: RetryRun
    specs: tuple[Update, ...] = ()


def check_size(job_ids: Sequence[str], scripts: Mapping[str, str], limits: Limits) -> None:
    """Raise Invalid for more names than any retry can have a use for: all of them are looked at on the loop."""
    most = limits.dag_jobs_max
    if len(job_ids) > most:
        text = f"{len(job_ids)} jobs are named: at most {most} in one retry"
        raise Invalid(text, code="too_large", hint=change("dag_jobs_max"))
    most = limits.submit_jobs_inline_max
    if len(scripts) > most:
        raise Invalid(
            f"{len(scripts)} edited files came with this retry, which takes at most {most}: nothing was started again",
            code="too_large",
            hint="titan retry --as-submitted uses the files that were sent before; or submit the DAG anew; "
            f"{change('submit_jobs_inline_max')}",
        )


async def prepared(
    engine: Engine, run_id: str, job_ids: Sequence[str] = (), scripts: Mapping[str, str] = NO_SCRIPTS
) -> Prepared:
    """Return what opens the run's next generation, whatever stands against it.

    `scripts`: source path -> SHA-256 of what its jobs shall run from now on. Raises NotFound, and Invalid for
    contents that are not here or that too many jobs would run.
    """
    await _check_present(engine, scripts)

    def read(connection: Connection) -> Prepared | None:
        whole = queries.whole_run(connection, run_id)
        if whole is None:
            return None
        run, rows, edges = whole
        edited = [_edited(row, scripts) for row in rows] if scripts else rows
        command = prepare_retry(run, edited, edges, job_ids)
        pairs = zip(rows, edited, strict=True)
        changes = [_respecified(old, new) for old, new in pairs if new is not old and new.job_id in command.jobs]
        return Prepared(command, tuple(changes))

    found = await engine.read(read, None)
    if found is None:
        raise NotFound(f"run {run_id} is no longer kept")
    limit = engine.limits.submit_jobs_inline_max
    if len(found.specs) > limit:
        text = f"{len(found.specs)} jobs would run an edited file: at most {limit} in one retry"
        hint = f"submit the DAG again, or retry it with the files it was sent with; {change('submit_jobs_inline_max')}"
        raise Invalid(text, code="too_large", hint=hint)
    return found


async def _check_present(engine: Engine, scripts: Mapping[str, str]) -> None:
    for sha256 in scripts.values():
        if not SHA256_PATTERN.fullmatch(sha256):
            raise Invalid(f"scripts: {shown(sha256)} is not a SHA-256: give 64 hex digits in lower case")
    present = await engine.read(partial(queries.blobs_present, hashes=set(scripts.values()))) if scripts else set()
    for path, sha256 in scripts.items():
        if sha256 not in present:
            text = f"the content of {shown(path)} (SHA-256 {sha256}) was not sent and is not here"
            raise Invalid(text, code="file_not_found", hint=f"PUT it to blobs/{sha256} first")


def _edited(row: JobRow, scripts: Mapping[str, str]) -> JobRow:
    spec = decode_spec(row.spec)
    script = scripts.get(spec.source_path, spec.script) if spec.source_path else spec.script
    if script == spec.script:
        return row
    return msgspec.structs.replace(row, spec=encode_spec(msgspec.structs.replace(spec, script=script)))


def _respecified(old: JobRow, new: JobRow) -> Update:
    """Return the change of a job's spec. The guard on the run's generation keeps two retries apart."""
    return Update("jobs", (old.run_id, old.job_id), {"spec": old.spec}, {"spec": new.spec})


async def opened(engine: Engine, run_id: str) -> None:
    """Wait until all rows show the generation that a retry has opened. Raises Unavailable at a stop or reload."""
    if run_now(engine, run_id).opening is None:
        return
    with engine.live.watch(("run", run_id)) as watch:
        while run_now(engine, run_id).opening is not None:
            await watch.changed(engine.limits.wait_s_max)
