"""`titan explain`: why a job is where it is, and what would change that."""

import click

from titan.cli.ask import Document, Master, Named
from titan.cli.options import common
from titan.cli.output import Output, plural
from titan.cli.tell import remedy

JOBS_MAX = 20
OVER = {"COMPLETED", "CANCELLED"}


@click.command("explain", epilog="Example: titan explain 81c0/report")
@click.argument("name", metavar="ID")
@common
def command(out: Output, *, name: str) -> None:
    """Say why a job is where it is, and what would unblock it.

    For a run of several jobs it explains those that are not done, the first 20.
    """
    master = Master()
    named = master.find(name)
    if named.job is not None:
        jobs, more = [named.job], 0
    else:
        open_jobs = [job for job in master.list_jobs(named.run["id"]) if job["state"] not in OVER]
        jobs, more = open_jobs[:JOBS_MAX], max(0, len(open_jobs) - JOBS_MAX)
    told = [master.explain(f"{named.run['id']}/{job['id']}") for job in jobs]
    if out.as_json:
        out.document(told[0] if named.job is not None else {"explanations": told, "more": more})
        return
    for explanation in told:
        _tell(out, named, explanation, master.url)
    if not told:
        out.talk(f"nothing of {named.label} waits: it is {named.run['state']}")
    if more:
        out.talk(f"and {plural(more, 'job')} more")


def _tell(out: Output, named: Named, explanation: Document, url: str) -> None:
    label = f"{named.short}/{explanation['job_id']}"
    if out.quiet:
        out.line(label)
        return
    out.line(f"{label}   {out.state(explanation['state'])}   {explanation['reason']}: {explanation['message']}")
    if explanation["remedy"]:
        out.line(f"  {remedy(explanation, url)}")
