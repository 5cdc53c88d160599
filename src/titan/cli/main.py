"""The root command: finds the file of a noun, and turns every error into words and an exit code.

Nothing here imports a command before it is called, so that `titan ps` does not pay for `titan up`.
"""

import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import click

from titan import __version__
from titan.cli.exits import Exit, exit_of_error
from titan.cli.output import safe, write_json
from titan_sdk.errors import TitanError, Unauthenticated, Unreachable

COMMANDS = (
    "up", "down", "status", "doctor",
    "run", "submit", "validate", "graph",
    "ps", "top", "show", "explain", "logs", "wait", "cancel", "retry", "events",
    "store", "artifacts",
    "worker", "master", "token", "audit",
    "config", "completion",
)  # fmt: skip

_LEAST = re.compile(r"is not in the range x>=([0-9.]+)\.")
_RANGE = re.compile(r"is not in the range ([0-9.]+)<=x<=([0-9.]+)\.")
# What every command that asks a Master takes may also stand before it; True: a value follows.
EVERYWHERE = {
    "--url": True,
    "--token-file": True,
    "--profile": True,
    "--ca": True,
    "--json": False,
    "-q": False,
    "--quiet": False,
    "--debug": False,
}
# Words that people bring from other tools; anything else is compared letter by letter.
SYNONYMS = {
    "apply": "submit",
    "artifact": "artifacts",
    "check": "validate",
    "deploy": "submit",
    "describe": "show",
    "draw": "graph",
    "exec": "run",
    "history": "ps",
    "info": "show",
    "inspect": "show",
    "job": "show",
    "kill": "cancel",
    "lint": "validate",
    "list": "ps",
    "ls": "ps",
    "jobs": "ps",
    "rerun": "retry",
    "runs": "ps",
    "serve": "master",
    "start": "up",
    "stop": "down",
    "tail": "logs",
    "why": "explain",
    "workers": "worker",
    "tokens": "token",
}
# The same below a group.
SYNONYMS_OF = {
    "store": {"set": "put", "rm": "del", "delete": "del", "remove": "del", "list": "ls", "add": "incr"},
    "artifacts": {"del": "rm", "delete": "rm", "remove": "rm", "upload": "put", "publish": "put", "download": "get"},
    "worker": {"rm": "remove", "delete": "remove", "del": "remove", "stop": "drain", "run": "start", "join": "start"},
    "token": {
        "rm": "revoke",
        "delete": "revoke",
        "remove": "revoke",
        "del": "revoke",
        "add": "create",
        "new": "create",
    },
    "config": {"show": "ls", "get": "ls", "list": "ls"},
    "audit": {"list": "ls", "log": "ls", "check": "verify"},
}


class RootGroup(click.Group):
    """The commands by name, each module imported when its name is typed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse `args` with what every command takes behind the command, where its own parser looks for it."""
        return super().parse_args(ctx, command_first(args))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        """Return the names in the order of the first five minutes."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        """Return the command of that name, or None."""
        return _command(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a wrong word is answered with the nearest right one."""
        if args[0] in SYNONYMS:
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {SYNONYMS[args[0]]!r}?", ctx)
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx) from None


def _command(name: str) -> click.Command | None:
    if name not in COMMANDS:
        return None
    found: click.Command = importlib.import_module(f"titan.cli.{name}").command
    return found


def command_first(args: Sequence[str]) -> list[str]:
    """Return `args` with what stands before the command behind it: `--url X store get k` is `store get --url X k`.

    `help X` is `X --help`, and `version` is `--version`.
    """
    if args[:1] == ["help"]:
        return [*args[1:], "--help"]
    if args[:1] == ["version"]:
        return ["--version"]
    begin = 0
    while begin < len(args) and (option := args[begin].split("=", 1)[0]) in EVERYWHERE:
        begin += 2 if EVERYWHERE[option] and "=" not in args[begin] else 1
    early, left = args[:begin], list(args[begin:])
    command = _command(left[0]) if early and left else None
    if command is None:
        return left
    is_group = isinstance(command, click.Group) and len(left) > 1 and not left[1].startswith("-")
    words = 2 if is_group else 1
    return [*left[:words], *early, *left[words:]]


@click.group(cls=RootGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="Titan %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Add the traceback to an error.")
def titan() -> None:
    """Run scripts, services and agents on any number of machines.

    Begin with `titan up`, then in another terminal `titan run hello.py`. Which Master is asked (--url, --token-file,
    --ca, --profile) and how is answered (--json, -q) may stand before the command or behind it.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (default: the process's own) and return its exit code."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    if instruction := os.environ.get("_TITAN_COMPLETE"):
        from titan.cli.completion import complete

        return complete(titan, instruction)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with titan.make_context("titan", list(typed)) as context:
            code = titan.invoke(context)
        sys.stdout.flush()
        return int(code or 0)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return Exit.USAGE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.BROKEN_PIPE
    except KeyboardInterrupt:
        print("titan: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place: everything becomes words and a code
        return _report(error, typed)


def _report(error: Exception, typed: list[str]) -> int:
    ours = typed[: typed.index("--")] if "--" in typed else typed
    words = [word for word in command_first(ours) if not word.startswith("-")]
    debug = "--debug" in ours
    if isinstance(error, Unreachable) and any(word.split("=")[0] == "--url" for word in ours):
        error.message = error.message.replace("(from TITAN_URL)", "(from --url)")
    told = _told(error)
    # `titan run` passes the script's own code, so whatever is not the script's must stand apart from it.
    code = int(Exit.OURS if words[:1] == ["run"] else told["exit_code"])
    if debug:
        import traceback

        traceback.print_exception(error)
    if "--json" in ours:
        write_json({"error": {**told, "exit_code": code}}, sys.stderr)
    else:
        text = str(error) if isinstance(error, TitanError) else f"{told['message']}\nNext: {told['hint']}"
        print(safe(f"titan: {text}", colours=False), file=sys.stderr)
    return code


def _plain(message: str) -> str:
    """Return click's words about a number as people say them."""
    message = message.replace("Choose from:\n\t", "Choose from: ").replace(",\n\t", ", ")
    message = message.replace("is not a valid integer range.", "is no whole number.")
    message = message.replace("is not a valid integer.", "is no whole number.")
    message = message.replace("is not a valid float range.", "is no number.").replace(
        " is not a valid float.", "is no number."
    )
    message = _LEAST.sub(lambda found: f"is out of range: give {_end(found[1])} or more.", message)
    return _RANGE.sub(lambda found: f"is out of range: give {_end(found[1])} to {_end(found[2])}.", message)


def _end(number: str) -> str:
    return f"{float(number):.12g}"


def _told(error: Exception) -> dict[str, Any]:
    if isinstance(error, TitanError):
        if isinstance(error, Unauthenticated):
            error.hint = f"{error.hint}; titan config ls --show-origin says which token was shown"
        return {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "problems": list(error.problems),
            "exit_code": exit_of_error(error),
        }
    if isinstance(error, click.ClickException):
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "titan"
        if isinstance(error, click.exceptions.NoSuchCommand):
            meant = SYNONYMS_OF.get(path.partition(" ")[2], {}).get(error.command_name)
            text = f"{error.message} Did you mean {meant!r}?" if meant else error.format_message()
        else:
            text = error.format_message()
        message, hint, code = _plain(text), f"{path} --help", error.exit_code
        return {"code": "usage", "message": message, "hint": hint, "problems": [], "exit_code": code}
    message = f"a fault of Titan itself: {type(error).__name__}: {error}"
    hint = "the same command with --debug shows where; please report it"
    return {"code": "internal", "message": message, "hint": hint, "problems": [], "exit_code": Exit.OURS}
