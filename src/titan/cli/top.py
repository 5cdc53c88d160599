"""`titan top`: the Master at one look, live."""

import os
import sys
import time

import click

from titan.cli.ask import Document, Master
from titan.cli.exits import Exit
from titan.cli.options import common
from titan.cli.output import Output, colour_wanted
from titan.cli.overview import Paper, Rates, lines
from titan_sdk.errors import TitanError

INTERVAL_S = 1.0
PATIENCE_S = 2.0
QUIT = ("q", "Q", "\x04")


@click.command(
    "top", short_help="Workers, queues, running jobs and rates, live.", epilog="Example: titan top --interval 5"
)
@click.option("--once", is_flag=True, help="Print it once and end, as into a pipe and with --json.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.1, 3600),
    metavar="SECONDS",
    default=INTERVAL_S,
    show_default=True,
    help="Time between two looks.",
)
@common
def command(out: Output, *, once: bool, interval_s: float) -> int | None:
    """Show workers with their slots and load, queues with the reason why they wait, running jobs, and rates.

    On a terminal it goes on until q or Ctrl+C. Rates are of the last looks; with --once of two, --interval apart.
    """
    master = Master(timeout_s=PATIENCE_S)
    first = master.overview()
    if out.as_json:
        out.document({"url": master.url, **first})
    elif out.quiet:
        for worker in first["workers"]:
            out.line(worker["name"])
    elif once or not (out.on_terminal and sys.stdin.isatty()) or os.environ.get("TERM", "dumb") == "dumb":
        rates = Rates()
        rates.add(first)
        time.sleep(interval_s)
        last = master.overview()
        for line in lines(master.url, last, rates.add(last), Paper()):
            out.line(line)
    else:
        return _live(out, master, first, interval_s)
    return None


def _live(out: Output, master: Master, first: Document, interval_s: float) -> int:
    from titan.cli.screen import Screen

    rates, trouble, overview = Rates(), "", first
    speed: dict[str, float] | None = None
    colours = colour_wanted(out.stdout)
    with Screen() as screen:
        try:
            while True:
                speed = speed if trouble else rates.add(overview)
                columns, rows = screen.size
                paper = Paper(columns, rows - 1, colours)
                shown = lines(master.url, overview, speed, paper)
                foot = trouble or f"q leaves   every {interval_s:g} s"
                screen.draw([*shown, *[""] * (rows - 1 - len(shown)), paper.fitted(foot)])
                if screen.key(interval_s)[:1] in QUIT:
                    return Exit.OK
                overview, trouble = _look(master, overview)
        except KeyboardInterrupt:
            return Exit.INTERRUPTED


def _look(master: Master, last: Document) -> tuple[Document, str]:
    """Return what is there now; what was there last, and why that is all, when the Master does not answer."""
    try:
        return master.overview(), ""
    except TitanError as error:
        return last, f"as of {last['now']}: {error.message}"
