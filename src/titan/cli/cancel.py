"""`titan cancel`: end runs and jobs."""

import click

from titan.cli.ask import Document, Master
from titan.cli.options import common
from titan.cli.output import Output
from titan.model.states import FINAL_JOB_STATES


@click.command("cancel", short_help="Cancel runs or jobs.", epilog="Example: titan cancel @last 81c0/clean-us")
@click.argument("names", metavar="ID...", nargs=-1, required=True)
@common
def command(out: Output, *, names: tuple[str, ...]) -> None:
    """Cancel runs or jobs, with everything that waits for them.

    It returns when the request is durable. What runs gets TERM, 10 s, KILL, and shows as cancelling until it has
    ended; `titan wait ID` waits for that.
    """
    master = Master()
    found = [master.find(name) for name in names]
    told: list[Document] = []
    for named in found:
        document = master.cancel(named.run["id"] if named.whole_run else f"{named.run['id']}/{named.document['id']}")
        told.append({"kind": "run" if named.whole_run else "job", **document})
        if out.quiet:
            out.line(named.label)
        elif not out.as_json:
            out.talk(f"{named.label} {_became(named.document['state'], document)}")
    if out.as_json:
        out.document({"cancelled": told})


def _became(before: str, now: Document) -> str:
    if before in FINAL_JOB_STATES:
        return f"is {before}: it had ended before"
    return f"{now['state']}{', cancelling' if now['cancelling'] else ''}"
