"""`titan events`: what happens to runs, jobs and workers, as it happens."""

import click

from titan.cli.ask import Document, Master
from titan.cli.options import common
from titan.cli.output import Output
from titan_sdk.feeds import RESYNC

KINDS = ("run", "job", "worker")


@click.command(
    "events", short_help="Print what happens, as it happens.", epilog="Example: titan events --kind run --json"
)
@click.option("--run", "run", metavar="ID", help="Only of this run and its jobs.")
@click.option("--kind", "kinds", type=click.Choice(KINDS), metavar="KIND", multiple=True, help="run, job or worker.")
@click.option("--after", metavar="EVENT", help="Go on behind the event with this id, from those the Master still has.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after so many.")
@common
def command(out: Output, *, run: str | None, kinds: tuple[str, ...], after: str | None, count: int | None) -> None:
    """Print a line for each event until Ctrl+C; with --json a document a line.

    An event of kind resync says that some may have been missed: look again at what you know.
    """
    master = Master()
    run_id = master.lookup(run)["run_id"] if run else None
    told = 0
    for event in master.events(after):
        if not _wanted(event, run_id, kinds):
            continue
        if out.as_json:
            out.document(event)
        elif event["kind"] == RESYNC:
            out.talk("some events may have been missed")
        else:
            out.line(event["id"] if out.quiet else _line(out, event))
        told += 1
        if told == count:
            return


def _wanted(event: Document, run_id: str | None, kinds: tuple[str, ...]) -> bool:
    if event["kind"] == RESYNC:
        return True
    return (not kinds or event["kind"] in kinds) and run_id in (None, event.get("run_id"))


def _line(out: Output, event: Document) -> str:
    match event["kind"]:
        case "job":
            name, state = f"{event['run_id'][:8]}/{event['job_id']}", out.state(event["state"])
            more = [event["reason"].lower().replace("_", " "), f"attempt {event['attempt']}" * bool(event["attempt"])]
        case "run":
            name, state = event["run_id"][:8], out.state(event["state"])
            more = [f"{event['completed']} of {event['total']} completed"]
            more += [f"{event[word]} {word}" for word in ("failed", "cancelled", "dead") if event[word]]
        case "worker":
            name, state = event["name"], "connected" if event["connected"] else "gone"
            more = ["draining" * event["draining"], "forgotten" * event["forgotten"]]
        case other:
            name, state, more = "", other, []
    return f"{event['kind']:<6}  {name}  {state}  {', '.join(filter(None, more))}".rstrip()
