"""`titan down`: stop the `titan up` of this home."""

import os
import signal
from pathlib import Path
from types import FrameType

import click

from titan.cli import home as homes
from titan.cli.options import common
from titan.cli.output import Output
from titan_sdk.discovery import home_folder
from titan_sdk.errors import Conflict, Denied, TimedOut


@click.command("down")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=60.0, show_default=True, help="Seconds to wait."
)
@common
def command(out: Output, *, timeout_s: float) -> None:
    """Stop what `titan up` started in this home, and wait until it is gone.

    Jobs that run get TERM and 10 s; they start again, or fail where on_lost says so, at the next `titan up`.
    Exits with 0 when nothing was up.
    """
    home = Path(home_folder(os.environ))
    stopped = _ask_to_stop(home)
    if stopped is not None:
        _wait_gone(home, timeout_s)
    if out.as_json:
        out.document({"stopped": stopped is not None, "pid": stopped, "home": str(home)})
    elif stopped is not None:
        out.talk(f"stopped Titan (pid {stopped}) on {home}")
    else:
        out.talk(f"nothing is up on {home}")


def _ask_to_stop(home: Path) -> int | None:
    """Send TERM to the holder of `home`'s lock and return its pid; None when nobody holds it.

    The pid is believed only because its lock is held: first a handle on the process, then the look at the
    lock once more, then the signal through the handle, so that a pid given to somebody else is never hit.
    """
    held_by = homes.holder(home)
    if held_by is None:
        return None
    if held_by.pid <= 0:
        raise Conflict(
            f"a process holds {home / homes.LOCK} and does not say which it is",
            hint=f"it is just starting, then try again; or a foreign program: fuser {home / homes.LOCK}",
        )
    try:
        handle = os.pidfd_open(held_by.pid)
    except ProcessLookupError:
        return None
    try:
        if homes.holder(home) != held_by:
            return _ask_to_stop(home)
        signal.pidfd_send_signal(handle, signal.SIGTERM)
    except ProcessLookupError:
        return None
    except PermissionError:
        raise Denied(
            f"pid {held_by.pid} belongs to somebody else", hint="run titan down as the user who ran titan up"
        ) from None
    finally:
        os.close(handle)
    return held_by.pid


def _wait_gone(home: Path, timeout_s: float) -> None:
    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise TimedOut(
            f"Titan on {home} is still stopping after {timeout_s:g} s",
            hint="wait longer: titan down --timeout 300",
        )

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        homes.wait_released(home)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
