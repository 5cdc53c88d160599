"""`titan master`: the Master alone, for a machine that runs no jobs itself."""

from typing import Any

import click

from titan.cli.up import command as up

OF_WORKERS = frozenset({"workers", "slots", "capabilities", "no_general"})


def _start(**options: Any) -> Any:
    start: Any = up.callback
    return start(workers=0, slots=None, capabilities=(), no_general=False, **options)


command = click.Command(
    "master",
    callback=_start,
    params=[param for param in up.params if param.name not in OF_WORKERS],
    short_help="Start the Master alone.",
    help="""Start the Master here without workers, and keep it up until Ctrl+C.

    It is titan up --workers 0: the same home, lock and supervision. Workers join with titan worker --join URL.
    """,
    epilog="Example: titan master --listen 0.0.0.0 --tls",
)
