"""`titan ps`: the runs, newest first, or the jobs of one."""

import click

from titan.cli.ask import Document, Master
from titan.cli.options import common
from titan.cli.output import Output
from titan.cli.tell import job_rows, run_rows
from titan.model.states import JobState, RunState
from titan_sdk.errors import Conflict, NotFound

RUN_STATES = [state.value for state in RunState if state is not RunState.STAGED]
JOB_STATES = [*(state.value for state in JobState), "PENDING"]


@click.command("ps", short_help="List runs, or the jobs of one.", epilog="Example: titan ps --state failed --limit 5")
@click.argument("run", required=False)
@click.option("--state", metavar="STATE", help="Only those in this state; of jobs also PENDING: not started.")
@click.option("--name", metavar="TEXT", help="Only runs with this in their name.")
@click.option(
    "--agent-run",
    "agent_run",
    metavar="ID",
    help="Only runs of this agent run, or of the one a run is of: with all below it.",
)
@click.option(
    "-n", "--limit", type=click.IntRange(1, 1_000), metavar="N", default=20, show_default=True, help="At most so many."
)
@click.option("--next", "cursor", metavar="CURSOR", help="Go on where the page before ended (its `next`).")
@common
def command(
    out: Output,
    *,
    run: str | None,
    state: str | None,
    name: str | None,
    agent_run: str | None,
    limit: int,
    cursor: str | None,
) -> None:
    """List runs, newest first, or with RUN the jobs of that run in order of submission."""
    if run is not None:
        if name or agent_run:
            raise click.UsageError("--name and --agent-run choose runs: leave RUN out, or leave them out")
        _tell_jobs(out, run, {"state": _state(state, JOB_STATES, "job"), "limit": limit, "after": cursor})
        return
    state = _state(state, RUN_STATES, "run")
    master = Master()
    query: Document = {"state": state, "name": name, "limit": limit, "before": cursor}
    page = master.page("runs", agent_run_id=agent_run, **query)
    if agent_run and not page["runs"]:
        page = master.page("runs", agent_run_id=_agent_run_of(master, agent_run), **query)
    if out.as_json:
        out.document(page)
    elif out.quiet:
        for found in page["runs"]:
            out.line(found["id"])
    else:
        out.table(
            ("RUN", "STATE", "DONE", "TIME", "SUBMITTED", "NAME"),
            run_rows(master.short_ids(page["runs"]), page["runs"]),
        )
        if not page["runs"]:
            out.talk("no runs" + (" like that" if state or name or agent_run else " yet: titan run hello.py"))
        _say_more(out, page["next"])


def _agent_run_of(master: Master, text: str) -> str:
    """Return the agent run of the run that `text` names; `text` itself when it names none."""
    try:
        return str(master.lookup(text)["run"]["agent_run_id"])
    except (NotFound, Conflict):
        return text


def _state(word: str | None, states: list[str], noun: str) -> str | None:
    if word is None or word.upper() in states:
        return word and word.upper()
    import difflib

    near = difflib.get_close_matches(word.upper(), states, 1)
    meant = f"Did you mean {near[0]!r}? " if near else ""
    raise click.UsageError(f"--state {word!a} is no state of a {noun}. {meant}Choose from {', '.join(states)}.")


def _tell_jobs(out: Output, run: str, query: dict[str, str | int | None]) -> None:
    master = Master()
    run_id = master.lookup(run)["run_id"]
    page = master.page(f"runs/{run_id}/jobs", **query)
    if out.as_json:
        out.document(page)
    elif out.quiet:
        for job in page["jobs"]:
            out.line(f"{run_id}/{job['id']}")
    else:
        out.table(("JOB", "STATE", "TIME", "WHY"), job_rows(page["jobs"]))
        _say_more(out, page["next"])


def _say_more(out: Output, cursor: str | None) -> None:
    if cursor:
        out.talk(f"there are more: add --next {cursor}")
