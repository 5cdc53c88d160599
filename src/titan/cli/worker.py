"""`titan worker`: run one here, list those the Master knows, or have one leave."""

import os
import sys
from pathlib import Path

import click

from titan.cli.ask import Document, Master
from titan.cli.home import prepare
from titan.cli.options import NO_TLS, ListsCommand, ca_option, common, worker_options
from titan.cli.output import Output, plural
from titan.cli.tell import link_of, when
from titan.cli.token import Span
from titan.core.link import LENT_MAX
from titan.model.ids import job_id_problem
from titan.model.limits import DEFAULT_LIMITS
from titan.worker.environment import ENROLMENT, own_environment
from titan.worker.policy import PYTHON
from titan_sdk.discovery import Endpoint, Finder, home_folder
from titan_sdk.errors import Invalid
from titan_sdk.trust import fingerprint as pinned_text

OFTEN = ("--join", "--token", "--name", "--slots", "--capability")


class WorkerGroup(click.Group):
    """`titan worker --join URL` means `titan worker start --join URL`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the word in where it was left out."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["start", *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Add the options of `start` that most need: they are typed here."""
        super().format_options(ctx, formatter)
        params = self.commands["start"].params
        told = [param.get_help_record(ctx) for param in params if param.opts[0] in OFTEN]
        with formatter.section("Options of start (all: titan worker start --help)"):
            formatter.write_dl([record for record in told if record])


@click.group(
    "worker",
    cls=WorkerGroup,
    short_help="Run a worker here, list the workers, or drain one.",
    epilog="Example: titan worker --join https://m:9090 --token tt.3f...",
)
def command() -> None:
    """Run a worker in the foreground (start, which may be left out), list the workers, or drain one."""


@command.command(
    "start",
    cls=ListsCommand,
    epilog="Example: titan worker --join https://m:9090 --token-file gpu.token",
)
@click.option(
    "--join",
    "joins",
    multiple=True,
    metavar="URL",
    help="The Master to work for; where clients look unless said. Repeated: further addresses of the same Master.",
)
@click.option(
    "--token",
    "enrolment",
    metavar="TOKEN",
    help="Join with the enrolment that titan worker join-token prints at the Master; it is good once.",
)
@click.option("--fingerprint", metavar="SHA256", help="Trust only the Master whose certificate or CA has it.")
@ca_option
@click.option(NO_TLS, "insecure_no_tls", is_flag=True, help="Join without TLS where others can listen in.")
@click.option(
    "--name",
    metavar="N",
    help="Its name; HOST-1, HOST-2, ... unless said, and with a suffix where another machine has that.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, readable=True),
    metavar="PATH",
    help="A file with the token; the home's unless said.",
)
@click.option("--pass-env", metavar="A,B", help="Variables of this shell that jobs shall see.")
@click.option(
    "--allow-interpreter",
    "interpreters",
    multiple=True,
    metavar="PATH",
    help="What may run jobs, whatever the Master asks: a path, or `python` for .py files. Anything unless said.",
)
@click.option(
    "--timeout-max",
    type=click.FloatRange(0.001, DEFAULT_LIMITS.timeout_s_max),
    metavar="SECONDS",
    help="No job runs longer here, whether it has a timeout or not.",
)
@click.option(
    "--lend-max",
    type=click.IntRange(0, LENT_MAX),
    metavar="N",
    help="Jobs that may begin beyond the slots while others wait for runs below them; 64 unless said.",
)
@click.option("--debug", is_flag=True, expose_value=False, help="Add the traceback to an error.")
@worker_options
def start(
    *,
    joins: tuple[str, ...],
    enrolment: str | None,
    fingerprint: str | None,
    insecure_no_tls: bool,
    name: str | None,
    token_file: Path | None,
    pass_env: str | None,
    interpreters: tuple[str, ...],
    timeout_max: float | None,
    lend_max: int | None,
    slots: int | None,
    capabilities: tuple[str, ...],
    no_general: bool,
    warm: list[str],
) -> None:
    """Run one worker here until Ctrl+C. It keeps trying while the Master is away."""
    if no_general and not capabilities:
        raise click.UsageError("--no-general leaves the worker without any tag: name one with --capability")
    problem = job_id_problem(name, "worker name") if name is not None else None
    if problem:
        raise click.UsageError(problem)
    for path in interpreters:
        if path != PYTHON and not os.path.isabs(path):
            raise click.UsageError(f"--allow-interpreter {path}: give {PYTHON}, or a path from the root, like /bin/sh")
    if enrolment and token_file:
        raise click.UsageError("--token is an enrolment and --token-file a lasting token: give one of them")
    if fingerprint and "ca" in click.get_current_context().meta:
        raise click.UsageError("--fingerprint and --ca both say whom to trust: give one of them")
    endpoints = _endpoints(joins, pinned_text(fingerprint) if fingerprint else None)
    if not insecure_no_tls:
        _refuse_readable(endpoints)
    home = home_folder(os.environ)
    prepare(Path(home))
    given = {
        "--timeout-max": None if timeout_max is None else str(timeout_max),
        "--lend-max": None if lend_max is None else str(lend_max),
        "--ca": endpoints[0].ca or None,
        "--name": name,
        "--token-file": str(token_file.resolve()) if token_file else None,
        "--pass-env": pass_env,
        "--slots": None if slots is None else str(slots),
    }
    words = [word for endpoint in endpoints for word in ("--join", endpoint.url)]
    words += [word for option, value in given.items() if value is not None for word in (option, value)]
    words += [word for tag in capabilities for word in ("--capability", tag)]
    words += [word for path in interpreters for word in ("--allow-interpreter", path)]
    words += ["--no-general"] if no_general else []
    words += warm
    command_line = [sys.executable, "-P", "-m", "titan.worker", "--home", home, *words]
    environment = own_environment(os.environ, (pass_env or "").split(","))
    environment |= {ENROLMENT: enrolment} if enrolment else {}
    os.execve(sys.executable, command_line, environment)  # noqa: S606 - our own interpreter and module


def _endpoints(joins: tuple[str, ...], ca: str | None) -> list[Endpoint]:
    try:
        return [endpoint for join in joins or (None,) for endpoint in Finder(url=join, ca=ca, files=False).endpoints()]
    except Invalid as error:
        raise Invalid(error.message.replace("from url=", "behind --join"), hint=error.hint) from None


def join_line(invitation: Document) -> str:
    """Return what to type on another machine, for an answer of `Master.invite_worker`."""
    url, fingerprint = invitation["url"], invitation["fingerprint"]
    words = ["titan worker --join", url or "URL", "--token", invitation["token"]]
    words += ["--fingerprint", fingerprint] if fingerprint else []
    words += [NO_TLS] if url and _is_readable(Finder(url=url).endpoints()[0]) else []
    return " ".join(words)


def _is_readable(endpoint: Endpoint) -> bool:
    return endpoint.scheme == "http" and not endpoint.is_loopback


def _refuse_readable(endpoints: list[Endpoint]) -> None:
    for endpoint in endpoints:
        if _is_readable(endpoint):
            raise Invalid(
                f"--join {endpoint.url} has no TLS: whoever is on the way could read the token and send jobs",
                hint=f"titan up --listen ADDR --tls at the Master; {NO_TLS} is for a network that nobody else is on",
            )


@command.command("ls", epilog="Example: titan worker ls --json")
@common
def ls(out: Output) -> None:
    """List the workers that the Master knows.

    One that was stopped in order, and holds no job, is `stopped`; one whose link went otherwise is `away`. Both are
    forgotten a minute later or, where it holds jobs, once their leases are over.
    """
    master = Master()
    workers = master.list_workers()
    if out.as_json:
        out.document({"workers": workers})
        return
    if out.quiet:
        for worker in workers:
            out.line(worker["name"])
        return
    rows = [
        (
            worker["name"],
            link_of(worker),
            f"{worker['running']}/{worker['slots']}",
            ",".join(worker["capabilities"]),
            worker["host"],
        )
        for worker in workers
    ]
    out.table(("NAME", "LINK", "BUSY", "TAGS", "HOST"), rows)
    if not rows:
        out.talk(f"no workers: titan worker --join {master.url}; for another machine: titan worker join-token")


@command.command("drain", epilog="Example: titan worker drain gpu-1")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@common
def drain(out: Output, *, names: tuple[str, ...]) -> None:
    """Have workers finish what they run and take nothing more.

    What they have not started goes back to the queue, and no job waits for them any longer. Started again, a worker
    is as new.
    """
    master = Master()
    told = [master.drain_worker(name) for name in names]
    out.told("workers", told, "name", lambda it: f"{it['name']} drains: {plural(it['running'], 'job')} left")


@command.command("remove", epilog="Example: titan worker remove gpu-1")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@common
def remove(out: Output, *, names: tuple[str, ...]) -> None:
    """Let workers in no more: their credentials are revoked and their links closed, at once.

    What they run is started elsewhere once its lease is over, as when a machine is lost: drain a worker first to
    have it finish. The name is free again.
    """
    master = Master()
    removed = [master.remove_worker(name) for name in names]
    out.told("workers", removed, "name", lambda it: f"{it['name']} is let in no more")


@command.command("join-token", epilog="Example: titan worker join-token")
@click.option(
    "--expires", "expires_s", type=Span(), metavar="TIME", default="15m", show_default=True, help="45s, 15m, 12h, 7d."
)
@common
def join_token(out: Output, *, expires_s: int) -> None:
    """Print the line that lets another machine join, once.

    Paste it there. It holds an enrolment, which the first worker that uses it trades for a credential of its own, and
    the fingerprint by which that machine knows this Master.
    """
    invitation = Master().invite_worker(expires_s)
    if out.as_json:
        out.document({**invitation, "line": join_line(invitation)})
        return
    out.talk(f"good once, until {when(invitation['expires_at'])}; paste it on the other machine:")
    out.line(join_line(invitation))
