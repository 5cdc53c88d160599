"""`titan wait`: until a run or job has ended."""

import click

from titan.cli.ask import Master
from titan.cli.exits import exit_of_state
from titan.cli.options import common
from titan.cli.output import Output
from titan.cli.tell import say


@click.command("wait", epilog="Example: titan wait @last --timeout 600")
@click.argument("name", metavar="ID")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to wait; without it, until the end.",
)
@common
def command(out: Output, *, name: str, timeout_s: float | None) -> int:
    """Wait until the run or job ID has ended.

    Exits with 0 if it COMPLETED, 1 if it FAILED or is DEAD, 8 if it was CANCELLED, 7 if the time was up first.
    """
    master = Master()
    named = master.find(name)
    document = master.wait_end(named, timeout_s)
    if out.as_json:
        out.document(document)
    elif out.quiet:
        out.line(named.label)
    else:
        named.update(document)
        say(out, named)
    return exit_of_state(document["state"])
