"""`titan artifacts`: files of any size that jobs and people publish under a key."""

import os
import shlex
import time
from collections.abc import Callable
from typing import Any, Self

import click

from titan.cli.options import common
from titan.cli.output import Output, plural
from titan.cli.tell import when
from titan_sdk import TitanClient
from titan_sdk.errors import Conflict

EVERY_S = 0.1
WHAT_CHARS_MAX = 40
VERSION = click.IntRange(min=1)


@click.group(
    "artifacts",
    short_help="Publish and fetch files that jobs make.",
    epilog="Example: titan artifacts put report out.html",
)
def command() -> None:
    """Publish and fetch files of any size under a key; the newest version is what a key means."""


@command.command("ls", short_help="List artifacts.", epilog="Example: titan artifacts ls reports/")
@click.argument("prefix", default="")
@click.option("--versions", is_flag=True, help="List the versions of the artifact whose key PREFIX is.")
@common
def ls(out: Output, *, prefix: str, versions: bool) -> None:
    """List the artifacts whose keys begin with PREFIX, sorted, with who published them."""
    with TitanClient() as client:
        found = client.artifact_versions(prefix) if versions else client.list_artifacts(prefix)
    if out.as_json:
        out.document({"artifacts": found})
    elif out.quiet:
        for artifact in found:
            out.line(str(artifact["version"]) if versions else artifact["key"])
    else:
        if not found:
            out.talk(
                "no artifacts" + (" like that" if prefix else " yet: titan artifacts put KEY FILE publishes a file")
            )
        out.table(("KEY", "VERSION", "SIZE", "PUBLISHED", "BY"), [_row(artifact) for artifact in found])


@command.command("get", short_help="Save an artifact.", epilog="Example: titan artifacts get report out.html")
@click.argument("key")
@click.argument("path", required=False)
@click.option("--version", type=VERSION, metavar="N", help="This version instead of the newest.")
@click.option("--force", is_flag=True, help="Replace a file whose name was not given.")
@common
def get(out: Output, *, key: str, path: str | None, version: int | None, force: bool) -> None:
    """Save the artifact KEY at PATH: a file, which is replaced, or a folder; - is stdout.

    Without PATH it goes into the working folder. There and in another folder it has the name of the file that was
    published, and replaces no file of that name unless --force is given. Exit with 3 when there is no such artifact.
    """
    with TitanClient() as client:
        if path == "-":
            for piece in client.read_artifact(key, version):
                out.stdout.buffer.write(piece)
            out.stdout.flush()
            return
        with _Progress(out, f"fetching {key}") as progress:
            named = path is not None and not os.path.isdir(path)
            try:
                saved = client.get_artifact(key, path, version, progress, replace=named or force)
            except Conflict as error:
                hint = f"titan artifacts get {shlex.quote(key)} PATH gives it another name; --force replaces the file"
                raise Conflict(error.message, hint=hint) from None
    if out.as_json:
        out.document(saved)
    elif out.quiet:
        out.line(saved["path"])
    else:
        out.talk(f"saved {saved['path']}: version {saved['version']} of {key}, {spoken_bytes(saved['size'])}")


@command.command("put", short_help="Publish a file.", epilog="Example: titan artifacts put report out.html")
@click.argument("key")
@click.argument("path")
@common
def put(out: Output, *, key: str, path: str) -> None:
    """Publish the file PATH as the newest version of KEY. It is durable when the command has ended."""
    with TitanClient() as client, _Progress(out, f"publishing {key}") as progress:
        told = client.publish_artifact(key, path, progress)
    if out.as_json:
        out.document(told)
    elif out.quiet:
        out.line(key)
    else:
        out.talk(f"published {key}: version {told['version']}, {spoken_bytes(told['size'])}")


@command.command("rm", short_help="Delete an artifact.", epilog="Example: titan artifacts rm report --version 1")
@click.argument("key")
@click.option("--version", type=VERSION, metavar="N", help="This version alone.")
@common
def remove(out: Output, *, key: str, version: int | None) -> None:
    """Delete the artifact KEY with all its versions, or one of them; exit with 3 when it is not there."""
    with TitanClient() as client:
        deleted = client.delete_artifact(key, version)
    if out.as_json:
        out.document({"key": key, "deleted": deleted})
    elif out.quiet:
        out.line(key)
    else:
        out.talk(f"deleted {plural(deleted, 'version')} of {key}")


class _Progress:
    """The line that shows on a terminal how far a transfer is; called with bytes done and bytes in all."""

    def __init__(self, out: Output, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._what = what if len(what) <= WHAT_CHARS_MAX else f"{what[: WHAT_CHARS_MAX - 3]}..."
        self._clock = clock
        self._shown_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.clear_progress()

    def __call__(self, done: int, total: int) -> None:
        now_s = self._clock()
        if now_s - self._shown_s >= EVERY_S:
            self._shown_s = now_s
            share = 100 * done // max(1, total)
            self._out.progress(f"{self._what}  {share:3d} %  {spoken_bytes(done)} of {spoken_bytes(total)}")


def spoken_bytes(count: int) -> str:
    """Return a size as people say it. Example: ``spoken_bytes(1_500_000) == "1.4 MiB"``."""
    if count < 1024:
        return plural(count, "byte")
    units = ("KiB", "MiB", "GiB", "TiB")
    power = min(len(units), (count.bit_length() - 1) // 10)
    return f"{count / 1024**power:.1f} {units[power - 1]}"


def _row(artifact: dict[str, Any]) -> tuple[str, ...]:
    job = f"{artifact['run_id'][:8]}/{artifact['job_id']}" if artifact["job_id"] else artifact["created_by"]
    size, published = spoken_bytes(artifact["size"]), when(artifact["created_at"])
    return artifact["key"], str(artifact["version"]), size, published, job
