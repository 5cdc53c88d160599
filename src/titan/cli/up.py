"""`titan up`: everything on one machine, in the foreground, until Ctrl+C."""

import dataclasses
import errno
import ipaddress
import os
import socket
import time
from pathlib import Path

import click

from titan import __version__
from titan.cli import home as homes
from titan.cli.options import ListsCommand, common, worker_options
from titan.cli.orphans import Orphans
from titan.cli.output import Output, plural
from titan.cli.supervise import MASTER_GRACE_S, WORKER_GRACE_S, Program, Supervisor
from titan.model.limits import Limits
from titan.model.spec import GENERAL
from titan_sdk.discovery import DEFAULT_HOST, DEFAULT_PORT, home_folder
from titan_sdk.errors import Conflict, Invalid

# A killed predecessor's children need a moment to read end of file and stop.
PREDECESSOR_S = 15.0


@click.command("up", cls=ListsCommand)
@click.option("--listen", default=DEFAULT_HOST, show_default=True, metavar="ADDR", help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=DEFAULT_PORT,
    show_default=True,
    help="The port to listen on; 0 takes any that is free.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 64),
    metavar="N",
    default=1,
    show_default=True,
    help="Local workers; 0 for none.",
)
@worker_options
@common
def command(
    out: Output,
    *,
    listen: str,
    port: int,
    workers: int,
    slots: int | None,
    capabilities: tuple[str, ...],
    no_general: bool,
) -> int:
    """Start Titan here and keep it up until Ctrl+C.

    It stays in the foreground, goes on with everything an earlier `titan up` left in the same home
    (TITAN_HOME, else ~/.local/state/titan), and is ready when `titan status` exits with 0.
    """
    begun_s = time.monotonic()
    slots = slots or len(os.sched_getaffinity(0))
    tags = (*(() if no_general else (GENERAL,)), *capabilities)
    if not tags:
        raise click.UsageError("--no-general leaves the worker without any tag: name one with --capability")
    _refuse_public(listen)
    _check_limits()
    home = Path(home_folder(os.environ))
    homes.prepare(home)
    lock = homes.take(home)
    previous = lock.previous()
    if previous is not None:
        homes.wait_for_children(previous, home, PREDECESSOR_S)
    url = _free_url(listen, port)
    holder = homes.Holder(os.getpid(), url)
    lock.record(holder)
    homes.ensure_token(home)

    def started(pids: tuple[int, ...]) -> None:
        nonlocal holder
        holder = dataclasses.replace(holder, children=pids)
        lock.record(holder)

    def ready() -> None:
        nonlocal holder
        holder = dataclasses.replace(holder, ready=True)
        lock.record(holder)
        _first_screen(out, home, url, workers, slots, tags, time.monotonic() - begun_s)

    orphans = Orphans()
    orphans.adopt()
    worker = _worker_arguments(home, url, slots, capabilities, no_general)
    supervisor = Supervisor(
        Program("the Master", _master_arguments(home, url), MASTER_GRACE_S),
        [Program(f"worker {number + 1}", worker, WORKER_GRACE_S) for number in range(workers)],
        on_ready=ready,
        on_start=started,
        say=lambda text: out.talk(f"titan: {text}"),
        orphans=orphans,
    )
    try:
        return supervisor.run()
    finally:
        lock.release()


def _master_arguments(home: Path, url: str) -> tuple[str, ...]:
    host, port = _host_and_port(url)
    return ("-m", "titan.master", "--home", str(home), "--listen", host, "--port", str(port))


def _worker_arguments(
    home: Path, url: str, slots: int, capabilities: tuple[str, ...], no_general: bool
) -> tuple[str, ...]:
    tags = [word for tag in capabilities for word in ("--capability", tag)]
    general = ["--no-general"] if no_general else []
    return ("-m", "titan.worker", "--home", str(home), "--join", url, "--slots", str(slots), *tags, *general)


def _first_screen(
    out: Output, home: Path, url: str, workers: int, slots: int, tags: tuple[str, ...], took_s: float
) -> None:
    if out.as_json:
        out.document(
            {
                "version": __version__,
                "url": url,
                "pid": os.getpid(),
                "home": str(home),
                "workers": workers,
                "slots": slots * workers,
                "capabilities": list(tags) if workers else [],
                "ready_s": round(took_s, 3),
            }
        )
        return
    if out.quiet:
        out.line(url)
        return
    offer = f"{plural(workers, 'worker')}, {plural(slots * workers, 'slot')}, {', '.join(tags)}"
    out.line(f"Titan {__version__}   {url}   {offer if workers else 'no worker'}   data {_tilde(home)}")
    out.line(f"  Ctrl+C stops everything.  Ready in {took_s:.1f} s.")


def _tilde(path: Path) -> str:
    try:
        return str("~" / path.relative_to(Path.home()))
    except ValueError:
        return str(path)


def _refuse_public(listen: str) -> None:
    """Raise Invalid unless `listen` is loopback: without TLS every token would cross the network readable."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if listen == "localhost" else listen)
    except ValueError:
        raise Invalid(
            f"--listen {listen!r} is not an address", hint="give an IP address, for example --listen 127.0.0.1"
        ) from None
    if not address.is_loopback:
        raise Invalid(
            f"--listen {listen} is open to the network, and without TLS everybody on it could read the tokens;"
            " this version has no TLS yet",
            hint="leave --listen out, and reach it from elsewhere through a tunnel: ssh -L 9090:127.0.0.1:9090 HOST",
        )


def _check_limits() -> None:
    try:
        Limits.load(os.environ)
    except ValueError as error:
        raise Invalid(str(error)) from None


def _free_url(listen: str, port: int) -> str:
    """Return the URL to serve, its port free a moment ago. Raises Conflict or Invalid saying what to do."""
    host = "127.0.0.1" if listen == "localhost" else listen
    shown = f"[{host}]" if ":" in host else host
    try:
        return f"http://{shown}:{_bound_port(host, port)}"
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise Invalid(
                f"cannot listen on {host} port {port}: {error.strerror}",
                hint="choose another address or a port above 1023, for example titan up --port 9091",
            ) from None
        raise Conflict(
            f"port {port} on {host} is taken by another program",
            hint=f"titan up --port {port + 1 if port < 65535 else 9091}, or stop what listens there"
            f" (ss -ltnp 'sport = :{port}' names it)",
        ) from None


def _bound_port(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)
        bound: int = probe.getsockname()[1]
        return bound


def _host_and_port(url: str) -> tuple[str, int]:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return parts.hostname or DEFAULT_HOST, parts.port or DEFAULT_PORT
