"""`titan up`: everything on one machine, in the foreground, until Ctrl+C."""

import dataclasses
import datetime as dt
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from titan import __version__
from titan.cli import home as homes
from titan.cli.listening import Place, place_of
from titan.cli.options import NO_TLS, ListsCommand, local, worker_options
from titan.cli.orphans import Orphans
from titan.cli.output import Output, plural
from titan.cli.supervise import MASTER_GRACE_S, WORKER_GRACE_S, Program, Supervisor
from titan.model.limits import Limits
from titan.model.spec import GENERAL
from titan.worker.environment import own_environment
from titan_sdk.discovery import DEFAULT_HOST, DEFAULT_PORT, home_folder
from titan_sdk.errors import Invalid, TitanError

if TYPE_CHECKING:
    from titan.cli.certificates import Files

PEM = click.Path(path_type=Path, exists=True, dir_okay=False, readable=True)
ENROLMENT_S = 900
# The screen does not wait longer for it.
JOIN_LINE_S = 5.0
# A killed predecessor's children need a moment to read end of file and stop.
PREDECESSOR_S = 15.0


@click.command("up", cls=ListsCommand, epilog="Example: titan up --slots 4 --capability GPU")
@click.option(
    "--listen",
    default=DEFAULT_HOST,
    show_default=True,
    metavar="ADDR[:PORT]",
    help="The address to listen on; any that is not loopback needs --tls.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    help=f"The port to listen on; 0 takes any that is free.  [default: {DEFAULT_PORT}]",
)
@click.option("--tls", is_flag=True, help="Serve TLS, with a CA of its own made in the home.")
@click.option("--tls-cert", type=PEM, metavar="PATH", help="Serve TLS with this certificate and its chain (PEM).")
@click.option("--tls-key", type=PEM, metavar="PATH", help="The key of --tls-cert, readable by nobody else.")
@click.option(
    "--tls-name", "tls_names", multiple=True, metavar="NAME", help="A name under which others reach it; repeatable."
)
@click.option(NO_TLS, "insecure_no_tls", is_flag=True, help="Listen without TLS where others can listen in.")
@click.option(
    "--workers",
    type=click.IntRange(0, 64),
    metavar="N",
    default=1,
    show_default=True,
    help="Local workers; 0 for none.",
)
@worker_options
@local
def command(
    out: Output,
    *,
    listen: str,
    port: int | None,
    tls: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_names: tuple[str, ...],
    insecure_no_tls: bool,
    workers: int,
    slots: int | None,
    capabilities: tuple[str, ...],
    no_general: bool,
    warm: list[str],
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
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    _check_limits()
    place = place_of(listen, port, tls_names, tls=tls or tls_cert is not None, insecure=insecure_no_tls)
    home = Path(home_folder(os.environ))
    homes.prepare(home)
    lock = homes.take(home)
    previous = lock.previous()
    if previous is not None:
        homes.wait_for_children(previous, home, PREDECESSOR_S)
    place = place.bound()
    holder = homes.Holder(os.getpid(), place.url)
    lock.record(holder)
    homes.ensure_token(home)
    files = _certificates(home, place, tls_cert, tls_key)
    ca = files.ca if files else ""

    def started(pids: tuple[int, ...]) -> None:
        nonlocal holder
        holder = dataclasses.replace(holder, children=pids)
        lock.record(holder)

    def ready() -> None:
        nonlocal holder
        holder = dataclasses.replace(holder, ready=True)
        lock.record(holder)
        _first_screen(out, home, place, ca, workers, slots, tags, time.monotonic() - begun_s)

    orphans = Orphans()
    orphans.adopt()
    shell = own_environment(os.environ)
    worker = (*_worker_arguments(home, place.url, ca, slots, capabilities, no_general), *warm)
    supervisor = Supervisor(
        Program("the Master", _master_arguments(home, place, files), MASTER_GRACE_S),
        [Program(f"worker {number + 1}", worker, WORKER_GRACE_S, shell) for number in range(workers)],
        on_ready=ready,
        on_start=started,
        say=lambda text: out.talk(f"titan: {text}"),
        orphans=orphans,
    )
    try:
        return supervisor.run()
    finally:
        lock.release()


def _certificates(home: Path, place: Place, certificate: Path | None, key: Path | None) -> "Files | None":
    if not place.tls:
        return None
    from titan.cli import certificates

    now = dt.datetime.now(dt.UTC)
    if certificate is not None and key is not None:
        return certificates.given(certificate, key, now)
    return certificates.own(home, place.names, now)


def _master_arguments(home: Path, place: Place, files: "Files | None") -> tuple[str, ...]:
    words = ["-m", "titan.master", "--home", str(home), "--listen", place.host, "--port", str(place.port)]
    words += ["--url-elsewhere", place.url_elsewhere]
    words += [word for name in place.host_names for word in ("--host-name", name)]
    if files is None:
        return (*words, *([NO_TLS] if place.is_public else []))
    return (
        *words,
        "--tls-cert",
        str(files.certificate),
        "--tls-key",
        str(files.key),
        "--ca",
        files.ca,
        "--fingerprint",
        files.fingerprint,
    )


def _worker_arguments(
    home: Path, url: str, ca: str, slots: int, capabilities: tuple[str, ...], no_general: bool
) -> tuple[str, ...]:
    tags = [word for tag in capabilities for word in ("--capability", tag)]
    general = ["--no-general"] if no_general else []
    return (
        "-m",
        "titan.worker",
        "--home",
        str(home),
        "--join",
        url,
        "--ca",
        ca,
        "--slots",
        str(slots),
        *tags,
        *general,
    )


def _first_screen(
    out: Output, home: Path, place: Place, ca: str, workers: int, slots: int, tags: tuple[str, ...], took_s: float
) -> None:
    if out.as_json:
        out.document(
            {
                "version": __version__,
                "url": place.url,
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
        out.line(place.url)
        return
    offer = f"{plural(workers, 'worker')}, {plural(slots * workers, 'slot')}, {', '.join(tags)}"
    out.line(f"Titan {__version__}   {place.url}   {offer if workers else 'no worker'}   data {homes.spoken(home)}")
    if place.is_public:
        _offer_joining(out, home, place, ca)
    out.line(f"  Ctrl+C stops everything.  Ready in {took_s:.1f} s.")


def _offer_joining(out: Output, home: Path, place: Place, ca: str) -> None:
    from titan.cli.ask import Master
    from titan.cli.worker import join_line

    token = (home / homes.TOKEN).read_text().strip()
    try:
        master = Master(url=place.url, token=token, ca=ca or None, timeout_s=JOIN_LINE_S)
        line = join_line(master.invite_worker(ENROLMENT_S))
    except TitanError as error:
        out.talk(f"titan: no line to join with ({error.message}): titan worker join-token prints one")
        return
    out.line(f"  add a machine, once, within {ENROLMENT_S // 60} minutes (then: titan worker join-token):")
    out.line(f"  {line}")


def _check_limits() -> None:
    try:
        Limits.load(os.environ)
    except ValueError as error:
        raise Invalid(str(error)) from None
