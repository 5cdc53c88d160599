"""Ctrl+C while a run is followed: the first one leaves the run alone, a second one cancels it if it was begun here."""

import time

from titan.cli.ask import Master, Named
from titan.cli.exits import Exit
from titan.cli.output import Output

SECOND_CTRL_C_S = 2.0


def detached(out: Output, named: Named, again: str) -> int:
    """Say that the run goes on and that the command `again` shows the rest: who only looks on cancels nothing."""
    out.clear_progress()
    out.talk(f"\ndetached: run {named.short} goes on; {again} shows the rest")
    return Exit.INTERRUPTED


def interrupted(out: Output, master: Master, named: Named, again: str) -> int:
    """Say that the run goes on and that the command `again` shows the rest; cancel it if another Ctrl+C comes now."""
    out.clear_progress()
    try:
        out.talk(f"\ndetached: run {named.short} goes on; {again} shows the rest; Ctrl+C again now cancels it")
        time.sleep(SECOND_CTRL_C_S)
    except KeyboardInterrupt:
        master.cancel(named.run["id"])
        out.talk(f"run {named.short} is being cancelled")
    return Exit.INTERRUPTED
