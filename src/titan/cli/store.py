"""`titan store`: the key-value store that all jobs share."""

import base64
import re
import sys
from pathlib import Path
from typing import Any

import click

from titan.cli.ask import Master
from titan.cli.options import common
from titan.cli.output import Output
from titan_sdk.errors import NotFound

_NEGATIVE = re.compile(r"-[0-9]+")


class NumberCommand(click.Command):
    """A command that takes a negative number for an argument, not for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse `args` with negative numbers behind everything else."""
        numbers = [] if "--" in args else [word for word in args if _NEGATIVE.fullmatch(word)]
        others = [word for word in args if word not in numbers]
        return super().parse_args(ctx, [*others, "--", *numbers] if numbers else args)


@click.group(
    "store",
    short_help="Read and write the store that all jobs share.",
    epilog="Example: titan store put greeting hello",
)
def command() -> None:
    """Read and write the store that all jobs of a Master share."""


@command.command("get", short_help="Print the value of KEY.", epilog="Example: titan store get model/best")
@click.argument("key")
@common
def get(out: Output, *, key: str) -> None:
    """Print the value of KEY, byte for byte; exit with 3 when it is missing."""
    with Master() as client:
        value = client.store_get(key)
    if value is None:
        raise NotFound(f"the store has no key {key!a}", hint="titan store ls shows the keys")
    if out.as_json:
        out.document({"key": key, **_typed(value)})
    else:
        out.exact(value.encode() if isinstance(value, str) else value)


@command.command(
    "put", short_help="Write VALUE or a file to KEY.", epilog="Example: titan store put model/best --file weights.bin"
)
@click.argument("key")
@click.argument("value", required=False)
@click.option(
    "--file", "path", type=click.Path(path_type=Path), metavar="PATH", help="Take the value from it; - is stdin."
)
@click.option("--bytes", "as_bytes", is_flag=True, help="Keep it as bytes even if it is UTF-8 text.")
@click.option(
    "--ttl", "ttl_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Until it reads as missing."
)
@common
def put(out: Output, *, key: str, value: str | None, path: Path | None, as_bytes: bool, ttl_s: float | None) -> None:
    """Write VALUE, or the content of --file, to KEY. It is durable when the command has ended.

    The content of a file is kept as text if it is UTF-8, else as bytes.
    """
    if (value is None) == (path is None):
        raise click.UsageError("give either VALUE or --file")
    data = _content(value, path, as_bytes=as_bytes)
    with Master() as client:
        client.store_put(key, data, ttl_s=ttl_s)
    _done(out, key, {"key": key, "size": len(data.encode() if isinstance(data, str) else data)})


@command.command("del", epilog="Example: titan store del model/best model/last")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@common
def delete(out: Output, *, keys: tuple[str, ...]) -> None:
    """Remove keys; one that is missing is no error."""
    with Master() as client:
        deleted = {key: client.store_delete(key) for key in keys}
    if out.as_json:
        out.document({"deleted": deleted})
        return
    for key, was_there in deleted.items():
        if out.quiet and was_there:
            out.line(key)
        out.talk(f"{key!a} {'deleted' if was_there else 'was not there'}")


@command.command("ls", epilog="Example: titan store ls model/")
@click.argument("prefix", default="")
@common
def ls(out: Output, *, prefix: str) -> None:
    """List the keys that begin with PREFIX, sorted."""
    with Master() as client:
        keys = client.store_list(prefix)
    if out.as_json:
        out.document({"keys": keys})
    else:
        if not keys and not out.quiet:
            out.talk("no keys" + (" like that" if prefix else " yet: titan store put KEY VALUE writes one"))
        out.table(("KEY",), [(key,) for key in keys])


@command.command(
    "incr", cls=NumberCommand, short_help="Add to the number at KEY.", epilog="Example: titan store incr pages/done 10"
)
@click.argument("key")
@click.argument("by", type=int, default=1)
@common
def incr(out: Output, *, key: str, by: int) -> None:
    """Add BY (1 unless given, may be negative) to the number at KEY and print the new one."""
    with Master() as client:
        value = client.store_incr(key, by)
    if out.as_json:
        out.document({"key": key, "value": value})
    else:
        out.line(str(value))


@command.command(
    "watch", short_help="Print each write as it happens.", epilog="Example: titan store watch model/ --json"
)
@click.argument("prefix", default="")
@common
def watch(out: Output, *, prefix: str) -> None:
    """Print a line for each write to a key that begins with PREFIX, until Ctrl+C; with --json, NDJSON."""
    with Master() as client:
        for event in client.store_watch(prefix):
            if out.as_json:
                out.document(event)
            elif event.get("key") is not None:
                out.line(event["key"])
            else:
                out.talk("some writes may have been missed")


def _content(value: str | None, path: Path | None, *, as_bytes: bool) -> str | bytes:
    if value is not None:
        return value.encode() if as_bytes else value
    data = sys.stdin.buffer.read() if str(path) == "-" else _read(path or Path())
    if as_bytes:
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}", hint="name a file, or --file - for stdin") from None


def _typed(value: str | bytes) -> dict[str, str]:
    if isinstance(value, str):
        return {"value": value, "kind": "text"}
    return {"value": base64.b64encode(value).decode(), "kind": "bytes"}


def _done(out: Output, key: str, document: dict[str, Any]) -> None:
    if out.as_json:
        out.document(document)
    elif out.quiet:
        out.line(key)
