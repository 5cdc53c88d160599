"""`titan submit`: a pipeline file as a run."""

import logging

import click

from titan.cli.ask import Document, Master, Named
from titan.cli.exits import Exit, exit_of_state
from titan.cli.follow_run import follow_run
from titan.cli.interrupted import interrupted
from titan.cli.options import common
from titan.cli.output import Output, plural
from titan.cli.tell import say
from titan_sdk import Run


@click.command("submit", short_help="Submit a pipeline file (YAML).", epilog="Example: titan submit etl.yaml --follow")
@click.argument("file")
@click.option("--wait", "waiting", is_flag=True, help="Return when the run has ended.")
@click.option("-f", "--follow", "following", is_flag=True, help="Tell of each job that ends; with --json, NDJSON.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="With --wait, how long; without it, until the end.",
)
@click.option("--agent-run", "agent_run_id", metavar="ID", help="The agent run it belongs to.")
@common
def command(
    out: Output, *, file: str, waiting: bool, following: bool, timeout_s: float | None, agent_run_id: str | None
) -> int:
    """Submit the jobs of FILE, a pipeline in YAML, as one run; scripts are looked for from the file's folder.

    It returns when the Master has everything on disk. With --wait or --follow it stays until the run has ended and
    exits with 0 if it COMPLETED, 1 if it FAILED, 8 if it was CANCELLED, 7 if the time of --wait was up first. The
    first Ctrl+C leaves the run alone and says how to come back, a second one cancels it.
    """
    _refuse_misuse(file, waiting=waiting, following=following, timeout_s=timeout_s)
    logging.getLogger("titan_sdk").addHandler(logging.NullHandler())  # its warnings are told below
    with Master() as master:
        out.progress(f"submitting {file}")
        try:
            run = master.submit_yaml(file, agent_run_id)
        finally:
            out.clear_progress()
        named = Named(master, run.info, None, whole_run=True)
        for warning in run.warnings:
            out.talk(f"warning: {warning}")
        if not waiting and not following:
            return _submitted(out, named, run)
        try:
            ended = _follow(out, master, named, run) if following else _wait(out, named, run, timeout_s)
        except KeyboardInterrupt:
            return interrupted(out, master, named, f"titan show -f {named.short}")
        return exit_of_state(ended["state"])


def _refuse_misuse(file: str, *, waiting: bool, following: bool, timeout_s: float | None) -> None:
    if file.endswith(".py"):
        raise click.UsageError(f"{file} is a script: titan run {file}. A pipeline file (YAML) names scripts.")
    if waiting and following:
        raise click.UsageError("--follow waits too: give one of --wait and --follow")
    if timeout_s is not None and not waiting:
        raise click.UsageError("--timeout is how long --wait waits: add --wait")


def _header(named: Named) -> str:
    return f"run {named.short} {named.run['name']}   {plural(named.run['jobs']['total'], 'job')}"


def _answer(run: Run) -> Document:
    return {"run": run.info, "warnings": list(run.warnings), "resolved": run.resolved}


def _submitted(out: Output, named: Named, run: Run) -> int:
    if out.as_json:
        out.document(_answer(run))
    else:
        out.line(named.run["id"] if out.quiet else named.short)
        out.talk(f"{_header(named)}; how it goes: titan show -f {named.short}")
    return Exit.OK


def _begin(out: Output, named: Named) -> None:
    if out.quiet:
        out.line(named.run["id"])
    elif not out.as_json:
        out.talk(_header(named))


def _follow(out: Output, master: Master, named: Named, run: Run) -> Document:
    _begin(out, named)
    if out.as_json:
        out.document({"kind": "run", **_answer(run)})
    return follow_run(out, master, named)


def _wait(out: Output, named: Named, run: Run, timeout_s: float | None) -> Document:
    _begin(out, named)
    named.run = run.wait(timeout_s).info
    if out.as_json:
        out.document(_answer(run))
    elif not out.quiet:
        say(out, named)
        if named.run["state"] != "COMPLETED":
            out.talk(f"what became of each job: titan show {named.short}")
    return named.run
