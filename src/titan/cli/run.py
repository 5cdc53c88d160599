"""`titan run`: one script, its output here, its exit code as ours."""

import logging
import os
import re
from pathlib import PurePath

import click

from titan.cli.ask import Document, Master, Named
from titan.cli.exits import Exit
from titan.cli.follow import follow
from titan.cli.interrupted import interrupted
from titan.cli.logs import follow_json
from titan.cli.options import common
from titan.cli.output import Output, closing_s, spoken_s
from titan.cli.tell import between_s, cause
from titan.model.spec import GENERAL
from titan_sdk import TitanJob
from titan_sdk.scripts import PIPELINE_SUFFIXES

_OUTSIDE_ID = re.compile(r"[^A-Za-z0-9._-]+")


class RunCommand(click.Command):
    """Tells where a script's own options go when one of them is taken for ours."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as usual; a wrong option that follows the script gets the way to pass it."""
        if args and args[0].startswith("-") and os.path.isfile(args[0]):
            args = [os.path.join(".", args[0]), *args[1:]]  # a script whose name begins like an option
        try:
            return super().parse_args(ctx, list(args))
        except click.exceptions.NoSuchOption as error:
            before = args[: args.index("--")] if "--" in args else args
            at = next((n for n, word in enumerate(before) if word.startswith(error.option_name)), len(before))
            files = [word for word in before if os.path.isfile(word)]
            scripts = files or [word for word in before if not word.startswith("-")]
            if not scripts or before.index(scripts[0]) > at:
                raise  # it stands before the script, so it was meant for us
            raise click.UsageError(
                f"No such option {error.option_name!r}. The script's own arguments go behind --: "
                f"titan run {scripts[0]} -- {error.option_name} ...",
                ctx,
            ) from None


@click.command(
    "run",
    cls=RunCommand,
    short_help="Run a script; its output and exit code are passed on.",
    epilog="Example: titan run hello.py -- --name Ada",
)
@click.argument("file")
@click.argument("arguments", metavar="[-- ARGS...]", nargs=-1)
@click.option("--job-id", metavar="ID", help="The job's id; made from the file's name unless said.")
@click.option("--requirement", metavar="TAG", multiple=True, help="A capability its worker must have; repeatable.")
@click.option("--priority", type=int, metavar="N", default=1, show_default=True, help="0 to 1000; higher goes first.")
@click.option(
    "--retries", type=int, metavar="N", default=0, show_default=True, help="How often a failure is tried again."
)
@click.option("--timeout", "timeout_s", type=float, metavar="SECONDS", help="How long one attempt may run.")
@click.option(
    "-e", "--env", "variables", metavar="NAME=VALUE", multiple=True, help="A variable for the script; repeatable."
)
@click.option("--agent-run", "agent_run_id", metavar="ID", help="The agent run it belongs to.")
@click.option(
    "-f/-d", "--follow/--detach", "following", default=None, help="Stay until it has ended (default), or not."
)
@common
def command(
    out: Output,
    *,
    file: str,
    arguments: tuple[str, ...],
    job_id: str | None,
    requirement: tuple[str, ...],
    priority: int,
    retries: int,
    timeout_s: float | None,
    variables: tuple[str, ...],
    agent_run_id: str | None,
    following: bool | None,
) -> int:
    """Run FILE on a worker, with its output here and its exit code as ours.

    What is behind -- is given to the script exactly. Whatever keeps the script from giving an exit code of its own
    ends with 125. The first Ctrl+C leaves the run alone and says how to come back, a second one cancels it.
    With --json the output is not shown and one document tells the end; with --json -f it comes line by line.
    """
    if file.endswith(PIPELINE_SUFFIXES):
        raise click.UsageError(f"{file} is a pipeline file: titan submit {file} --follow. titan run takes a script.")
    job = TitanJob(
        job_id=job_id or _job_id(file),
        filename=file,
        args=list(arguments),
        requirement=list(requirement) or GENERAL,
        priority=priority,
        retries=retries,
        timeout_s=timeout_s,
        env=_environment(variables),
    )
    logging.getLogger("titan_sdk").addHandler(logging.NullHandler())  # its warnings are told below
    with Master() as master:
        run = master.submit_job(job, agent_run_id=agent_run_id)
        named = Named(master, run.info, master.job({"run_id": run.id, "id": job.job_id}), whole_run=True)
        for warning in run.warnings:
            out.talk(f"warning: {warning}")
        if following is False:
            return _detached(out, named)
        if not out.as_json:
            out.talk(f"run {named.label} {run.name}")
        try:
            return _to_the_end(out, master, named, streaming=following is True)
        except KeyboardInterrupt:
            return interrupted(out, master, named, f"titan logs -f {named.label}")


def _job_id(file: str) -> str:
    stem = PurePath(file).name.removesuffix(".py")
    return _OUTSIDE_ID.sub("-", stem).strip("-._")[:128] or "job"


def _environment(variables: tuple[str, ...]) -> dict[str, str] | None:
    for variable in variables:
        if "=" not in variable:
            raise click.UsageError(f"--env {variable}: give NAME=VALUE")
    return dict(variable.split("=", 1) for variable in variables) or None


def _detached(out: Output, named: Named) -> int:
    if out.as_json:
        out.document({"run": named.run, "job": named.job})
    else:
        out.line(named.run["id"] if out.quiet else named.label)
        out.talk(f"run {named.label} {named.run['name']}; its output: titan logs -f {named.label}")
    return Exit.OK


def _to_the_end(out: Output, master: Master, named: Named, *, streaming: bool) -> int:
    job = named.job or {}
    if out.as_json and streaming:
        out.document({"kind": "run", "run": named.run})
        ended = follow_json(out, master, job)
    elif out.as_json or out.quiet:
        if not out.as_json:
            out.line(named.run["id"])
        ended = follow(master, job, lambda _data, _missing: None, lambda _text: None)
    else:
        stream = out.stream()
        ended = follow(master, job, stream.write, out.talk)
        stream.close()
    if out.as_json and not streaming:
        out.document({"run": master.get_run(named.run["id"]).info, "job": ended})
    elif not out.as_json:
        out.talk(_closing(master, named, ended))
    return _exit_of(ended)


def _closing(master: Master, named: Named, job: Document) -> str:
    took = closing_s(between_s(named.run["created_at"], job["ended_at"]) or 0.0)
    if job["state"] == "COMPLETED":
        last = master.attempts(job)[-1]
        queued_s = between_s(job["ready_at"], last["granted_at"]) or 0.0
        started_s = between_s(last["granted_at"], last["started_at"]) or 0.0
        return f"{named.label} COMPLETED in {took} (queued {spoken_s(queued_s)}, started in {spoken_s(started_s)})"
    parts = [cause(job), "" if job["exit_code"] is None else f"exit {job['exit_code']}"]
    told = ", ".join(part for part in parts if part)
    return f"{named.label} {job['state']} after {took}{': ' * bool(told)}{told}.   whole log: titan logs {named.label}"


def _exit_of(job: Document) -> int:
    if job["state"] == "COMPLETED":
        return Exit.OK
    if job["state"] == "CANCELLED":
        return Exit.CANCELLED
    code: int | None = job["exit_code"]
    return code or Exit.OURS
