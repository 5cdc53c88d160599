"""What every command takes, and the parsing that several share."""

import functools
import os
from collections.abc import Callable
from typing import Any

import click

from titan.cli.output import Output
from titan.model.ids import job_id_problem
from titan_sdk.errors import Invalid
from titan_sdk.trust import PINNED, fingerprint

# For a network that nobody else is on.
NO_TLS = "--insecure-no-tls"
Function = Callable[..., Any]


def common(function: Function) -> Function:
    """Give a command that asks a Master the options that say which one, and what `local` gives it."""
    for name, callback, metavar, text in (
        ("--profile", _profile, "NAME", "Ask the Master of this profile in ~/.config/titan/config.toml."),
        ("--token-file", _token_file, "PATH", "Show the token in this file; TITAN_TOKEN unless said."),
        ("--url", _url, "URL", "Ask the Master there; TITAN_URL unless said."),
    ):
        option = click.option(name, metavar=metavar, expose_value=False, callback=callback, help=text)
        function = option(function)
    return ca_option(local(function))


def local(function: Function) -> Function:
    """Give a command --json, -q and --debug; `function` gets the Output they make as its first argument."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    @click.option("-q", "--quiet", is_flag=True, help="Print ids only, and errors.")
    @click.option("--debug", is_flag=True, expose_value=False, help="Add the traceback to an error.")
    @functools.wraps(function)
    def command(*, as_json: bool, quiet: bool, **options: Any) -> Any:
        return function(Output(as_json=as_json, quiet=quiet), **options)

    return command


def ca_option(function: Function) -> Function:
    """Give a command --ca, which stands over TITAN_CA for all that this process asks."""
    return click.option(
        "--ca",
        metavar="PATH",
        expose_value=False,
        callback=_trust,
        help="Trust the certificates in this file, or with this sha256: fingerprint; TITAN_CA unless said.",
    )(function)


def _url(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value:
        from titan_sdk.discovery import Finder

        try:
            Finder(url=value, files=False).endpoints()
        except Invalid as error:
            raise Invalid(error.message.replace("from url=", "behind --url"), hint=error.hint) from None
        os.environ["TITAN_URL"] = value
        ctx.meta["url"] = value


def _token_file(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value:
        from titan_sdk.discovery import first_bytes

        token = first_bytes(value)
        if not token:
            raise Invalid(f"the token file {value} is empty", hint="name one that holds a token")
        os.environ["TITAN_TOKEN"] = token
        ctx.meta["token_file"] = value


def _profile(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    """Take a profile; where the environment says otherwise it would stand over the flag, so it is not asked then."""
    if value:
        given = {"url": "TITAN_URL", "token_file": "TITAN_TOKEN", "ca": "TITAN_CA"}
        flagged = {name for key, name in given.items() if key in ctx.meta}
        for name in {"TITAN_HOST", "TITAN_PORT", *given.values()} - flagged:
            os.environ.pop(name, None)
        os.environ["TITAN_PROFILE"] = value
        ctx.meta["profile"] = value


def _trust(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value:
        os.environ["TITAN_CA"] = fingerprint(value) if value.lower().startswith(PINNED) else os.path.abspath(value)
        ctx.meta["ca"] = value


class ListsCommand(click.Command):
    """A command without positional arguments whose repeatable options may be given several values at once.

    `--capability GPU HIGH_MEM` says the same as `--capability GPU --capability HIGH_MEM`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse `args` after giving every further value its own option."""
        repeatable = {name for param in self.params if getattr(param, "multiple", False) for name in param.opts}
        spread: list[str] = []
        option = None
        for word in args:
            if word.startswith("-"):
                option = word if word in repeatable else None
                spread += [] if option else [word]
            else:
                spread += [option, word] if option else [word]
        return super().parse_args(ctx, spread)


def worker_options(function: Function) -> Function:
    """Give a command the options that say what a worker offers: --slots, --capability and the like.

    It is called with `warm`, the words for a worker's command line.
    """

    @functools.wraps(function)
    def with_warm(*args: Any, preload: str | None, no_warm: bool, **given: Any) -> Any:
        return function(*args, warm=_warm_words(preload, no_warm), **given)

    for option in (
        click.option("--no-warm", is_flag=True, help="Start every job with an interpreter of its own."),
        click.option(
            "--preload",
            metavar="A,B",
            callback=_modules,
            help="Modules that jobs find imported, so that they start at once.",
        ),
        click.option("--no-general", is_flag=True, help="Take only jobs that require one of the capabilities."),
        click.option(
            "--capability",
            "capabilities",
            multiple=True,
            metavar="X ...",
            callback=_tags,
            help="Tags that jobs may require; several, or repeated, or separated by commas.",
        ),
        click.option(
            "--slots", type=click.IntRange(1, 1024), metavar="N", help="Jobs at a time; one for each CPU unless said."
        ),
    ):
        with_warm = option(with_warm)
    return with_warm


def _modules(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    for name in value.split(",") if value else ():
        if not all(part.isidentifier() for part in name.split(".")):
            raise click.BadParameter(f"{name!r} is not the name of a module, like numpy or scipy.linalg")
    return value


def _warm_words(preload: str | None, no_warm: bool) -> list[str]:
    """Return what a worker's command line says of --preload and --no-warm."""
    if preload and no_warm:
        raise click.UsageError("--preload is for warm starts, and --no-warm turns them off: give one of them")
    return ["--no-warm"] if no_warm else ["--preload", preload] if preload else []


def _tags(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    tags = tuple(dict.fromkeys(tag for value in values for tag in value.split(",")))
    for tag in tags:
        problem = job_id_problem(tag, "capability")
        if problem:
            raise click.BadParameter(problem)
    return tags
