"""`titan down`: stop the `titan up` of this home."""

import os
import signal
import time
from pathlib import Path

import click

from titan.cli import home as homes
from titan.cli.options import local
from titan.cli.output import Output
from titan.cli.supervise import DOWN_SIGNAL
from titan_sdk.discovery import home_folder
from titan_sdk.errors import Conflict, Denied, TimedOut


@click.command("down", short_help="Stop what titan up started.", epilog="Example: titan down --timeout 300")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="How long to wait.",
)
@local
def command(out: Output, *, timeout_s: float) -> None:
    """Stop what `titan up` started in this home, and wait until it is gone.

    Jobs that run get TERM and 10 s; they start again, or fail where on_lost says so, at the next `titan up`.
    Exits with 0 when nothing was up.
    """
    home = Path(home_folder(os.environ))
    stopped = _stop(home, timeout_s)
    if out.as_json:
        out.document({"stopped": stopped is not None, "pid": stopped, "home": str(home)})
    elif stopped is not None:
        out.talk(f"stopped Titan (pid {stopped}) on {homes.spoken(home)}")
    else:
        out.talk(f"nothing is up on {homes.spoken(home)}")


def _stop(home: Path, timeout_s: float) -> int | None:
    """Tell the holder of `home`'s lock, wait for its end and return its pid; None when nobody holds it.

    The pid is believed only because its lock is held: first a handle on the process, then the look at the
    lock once more, then the signal through the handle, so that a pid given to somebody else is never hit.
    """
    while True:
        held_by = homes.holder(home)
        if held_by is None:
            return None
        if held_by.pid <= 0:
            raise Conflict(
                f"a process holds {home / homes.LOCK} and does not say which it is",
                hint=f"it may be just starting: try again; else it is a foreign program: fuser {home / homes.LOCK}",
            )
        try:
            handle = os.pidfd_open(held_by.pid)
        except ProcessLookupError:
            continue
        try:
            again = homes.holder(home)
            if again is not None and again.pid == held_by.pid:
                _end(handle, held_by.pid, home, timeout_s)
                return held_by.pid
        finally:
            os.close(handle)


def _end(handle: int, pid: int, home: Path, timeout_s: float) -> None:
    try:
        signal.pidfd_send_signal(handle, DOWN_SIGNAL)
    except ProcessLookupError:
        return
    except PermissionError:
        raise Denied(
            f"pid {pid} belongs to somebody else", hint="run titan down as the user who ran titan up"
        ) from None
    if not homes.ended_by(handle, time.monotonic() + timeout_s):
        raise TimedOut(
            f"Titan on {home} (pid {pid}) is still stopping after {timeout_s:g} s",
            hint="wait longer: titan down --timeout 300",
        )
