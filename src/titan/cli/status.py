"""`titan status`: is it ready, and how is this run or job."""

import os
from pathlib import Path

import click

from titan.cli import home as homes
from titan.cli.ask import Document, Master, Named
from titan.cli.options import common
from titan.cli.output import Output, plural
from titan.cli.tell import job_rows, say
from titan_sdk.discovery import home_folder
from titan_sdk.errors import Unavailable

JOBS_SHOWN_MAX = 20


@click.command("status", epilog="Example: titan status @last --json")
@click.argument("name", metavar="[ID]", required=False)
@common
def command(out: Output, *, name: str | None) -> None:
    """Say whether Titan is ready, or how a run or job is.

    Without ID it exits with 0 when the Master answers and its local workers are connected, with 4 until then.
    ID is a run id or its first digits, RUN/JOB, a job id, @last, @last-failed, or the name of a run.
    """
    master = Master()
    if name is None:
        _tell_cluster(out, master)
        return
    named = master.find(name)
    if out.as_json:
        out.document(named.document)
    elif out.quiet:
        out.line(named.label)
    else:
        _tell(out, master, named)


def _tell_cluster(out: Output, master: Master) -> None:
    stats = master.stats()
    _refuse_starting(master.url)
    document = {"state": "READY", "url": master.url, **stats}
    if out.as_json:
        out.document(document)
        return
    if out.quiet:
        out.line(master.url)
        return
    slots = plural(stats["slots"], "slot")
    out.line(f"Titan {stats['version']}   {master.url}   {plural(stats['workers'], 'worker')}, {slots}")
    out.line(f"  {plural(stats['runs_living'], 'run')} under way   {_counts(stats)}".rstrip())
    if not stats["workers"]:
        out.talk(f"no workers, so jobs wait: titan worker --join {master.url}")


def _refuse_starting(url: str) -> None:
    """Raise Unavailable while the `titan up` of this home has not said that it is ready."""
    holder = homes.holder(Path(home_folder(os.environ)))
    if holder is not None and holder.url == url and not holder.ready:
        raise Unavailable("Titan is starting: its workers are not connected yet", hint="ask again in a moment")


def _counts(stats: Document) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(stats["jobs"].items()) if count)


def _tell(out: Output, master: Master, named: Named) -> None:
    say(out, named)
    if not named.whole_run:
        return
    jobs = master.page(f"runs/{named.run['id']}/jobs", limit=JOBS_SHOWN_MAX)["jobs"]
    out.table(("JOB", "STATE", "TIME", "WHY"), job_rows(jobs))
    more = named.run["jobs"]["total"] - len(jobs)
    if more > 0:
        out.talk(f"and {plural(more, 'job')} more: titan ps {named.label}")
