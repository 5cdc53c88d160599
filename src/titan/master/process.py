"""The Master as a process: everything is opened in the order in which it can be refused, and closed in reverse.

Exit codes: 0 after an orderly stop, 6 when the start was refused (the reason is on stderr), 75 when another
process leads, so that the supervisor starts this one anew.
"""

import argparse
import asyncio
import gc
import ipaddress
import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from titan import __version__
from titan.master.api.site import Place
from titan.master.app import build_app
from titan.master.engine import Engine
from titan.master.server import Server, UnusableCertificate, tls_context
from titan.master.voice import speak
from titan.model.limits import Limits
from titan.storage.blobs import BlobFiles
from titan.storage.contents import ArtifactFiles
from titan.storage.database import Database
from titan.storage.errors import RefusedStart
from titan.storage.journal import Journal
from titan.storage.logs import LogFiles

EXIT_REFUSED = 6
EXIT_DEPOSED = 75
BACKLOG = 1024


class Refused(Exception):
    """The Master must not start; the message says why and what to do."""


def main(arguments: Sequence[str]) -> int:
    """Run a Master until it is told to stop; return the exit code."""
    options = _parse(arguments)
    os.umask(0o077)
    speak(sys.stderr)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(options))
    except (Refused, RefusedStart) as error:
        sys.stderr.write(f"titan master: {error}\n")
        return EXIT_REFUSED


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m titan.master", description="One Titan Master.", allow_abbrev=False)
    parser.add_argument("--home", type=Path, required=True, help="folder of its database, blobs, logs and token")
    parser.add_argument("--listen", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=9090, help="port to listen on; 0: any that is free")
    parser.add_argument("--host-name", action="append", default=[], metavar="NAME", help="a name it answers to")
    parser.add_argument("--tls-cert", type=Path, help="certificate (PEM, with its chain): serve TLS")
    parser.add_argument("--tls-key", type=Path, help="its key")
    parser.add_argument("--ca", default="", help="whom this machine's clients trust: a file or a fingerprint")
    parser.add_argument("--url-elsewhere", default="", help="where other machines find it")
    parser.add_argument("--fingerprint", default="", help="of the authority that other machines shall trust")
    parser.add_argument("--insecure-no-tls", action="store_true", help="listen on a public address without TLS")
    parser.add_argument("--parent-fd", type=int, help="stop when this pipe ends")
    parser.add_argument("--ready-fd", type=int, help="write a line here once it listens")
    return parser.parse_args(arguments)


async def _run(options: argparse.Namespace) -> int:
    home: Path = options.home.absolute()
    limits = _limits()
    token = _token(home)
    tls = _tls(options)
    listener = _listen(options.listen, options.port, public=tls is not None or options.insecure_no_tls)
    try:
        database = Database.open(f"sqlite:///{home / 'titan.db'}", home)
        try:
            blobs, logs = BlobFiles(home / "blobs", limits.blob_inline_bytes_max), LogFiles(home / "logs")
            artifacts = ArtifactFiles(home / "artifacts", limits.blob_inline_bytes_max)
            engine = Engine(database, Journal(database, blobs, logs, limits), limits)
            try:
                await engine.start()
                place = Place(options.url_elsewhere, options.fingerprint)
                app = build_app(engine, blobs, logs, artifacts, token, options.host_name, place)
                server = Server(app, limits, lambda: _tell(listener, options), tls)
                return await _serve(engine, server, listener, options)
            finally:
                await engine.stop()
        finally:
            database.close()
    finally:
        listener.close()


async def _serve(engine: Engine, server: Server, listener: socket.socket, options: argparse.Namespace) -> int:
    """Serve until a signal, the end of the parent, or the end of this process's leadership."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()
    loop.add_signal_handler(signal.SIGTERM, _stop, told)
    if options.parent_fd is None:
        loop.add_signal_handler(signal.SIGINT, _stop, told)  # with a parent, Ctrl+C is the parent's to hear
    else:
        loop.add_reader(options.parent_fd, _parent_said, options.parent_fd, told)
    _spare_the_collector()
    serving = loop.create_task(server.serve(sockets=[listener]))
    first: set[asyncio.Future[Any]] = {told, engine.ended, serving}
    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    await engine.stop()
    server.should_exit = True
    await serving
    return EXIT_DEPOSED if engine.ended.done() else 0


def _spare_the_collector() -> None:
    """Keep full collections short and rare: each would stop everybody for as long as it looks.

    What stands after the start stays, so it need not be looked through again; what comes and goes is freed by
    reference counts (the scheduler's memory holds no cycles).
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    gc.enable()


def _limits() -> Limits:
    try:
        return Limits.load(os.environ)
    except ValueError as error:
        raise Refused(str(error)) from None


def _token(home: Path) -> str:
    path = home / "token"
    try:
        token = path.read_text("ascii").strip()
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise Refused(f"{path} holds no token ({why}): start with titan up, which makes one") from None
    if mode & 0o077:
        raise Refused(f"{path} can be read by others (mode {mode & 0o777:o}): chmod 600 {path}")
    if len(token) < 32:
        raise Refused(f"{path} holds {len(token)} characters: a token has 32 or more; remove it and titan up makes one")
    return token


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        return None
    try:
        return tls_context(options.tls_cert, options.tls_key or options.tls_cert)
    except UnusableCertificate as error:
        raise Refused(f"{error}; give a certificate in PEM with --tls-cert and its key with --tls-key") from None


def _listen(host: str, port: int, *, public: bool) -> socket.socket:
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise Refused(f"--listen {host!r} is no address: give 127.0.0.1 or ::1") from None
    if not (address.is_loopback or public):
        raise Refused(f"--listen {host} would be public, and without TLS that is not done: add --tls, or use 127.0.0.1")
    listener = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Refused(
            f"cannot listen on {host}:{port}: {error.strerror}; stop what is there, or take another --port"
        ) from None
    return listener


def _tell(listener: socket.socket, options: argparse.Namespace) -> None:
    """Write where we are into the home, then tell the parent that we are ready."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what listens everywhere is here too
    scheme = "http" if options.tls_cert is None else "https"
    url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    record = {"url": url, "pid": os.getpid(), "version": __version__, **({"ca": options.ca} if options.ca else {})}
    fresh = options.home / f"endpoint.json.{os.getpid()}"
    fresh.write_text(json.dumps(record) + "\n")
    fresh.replace(options.home / "endpoint.json")
    if options.ready_fd is not None:
        os.write(options.ready_fd, b"ready\n")
        os.close(options.ready_fd)


def _stop(told: "asyncio.Future[None]") -> None:
    if not told.done():
        told.set_result(None)


def _parent_said(descriptor: int, told: "asyncio.Future[None]") -> None:
    """The pipe can be read: nobody writes to it, so this is its end, and the parent's."""
    asyncio.get_running_loop().remove_reader(descriptor)
    _stop(told)
