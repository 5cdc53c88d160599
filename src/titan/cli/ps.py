"""`titan ps`: the runs, newest first, or the jobs of one."""

import click

from titan.cli.ask import Master
from titan.cli.options import common
from titan.cli.output import Output
from titan.cli.tell import job_rows, run_rows
from titan.model.states import JobState, RunState

RUN_STATES = [state.value for state in RunState if state is not RunState.STAGED]
STATES = list(dict.fromkeys([*RUN_STATES, *(state.value for state in JobState), "PENDING"]))


@click.command("ps")
@click.argument("run", required=False)
@click.option("--state", type=click.Choice(STATES, case_sensitive=False), help="Only those in this state.")
@click.option("--name", metavar="TEXT", help="Only runs of this name.")
@click.option("--agent-run", "agent_run", metavar="ID", help="Only runs of this agent run.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, show_default=True, help="At most so many.")
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
    master = Master()
    if run is not None:
        if name or agent_run:
            raise click.UsageError("--name and --agent-run choose runs: leave RUN out, or leave them out")
        _tell_jobs(out, master, run, {"state": state, "limit": limit, "after": cursor})
        return
    if state is not None and state not in RUN_STATES:
        raise click.UsageError(
            f"--state {state} is a state of jobs: name a RUN, or choose from {', '.join(RUN_STATES)}"
        )
    page = master.page("runs", state=state, name=name, agent_run_id=agent_run, limit=limit, before=cursor)
    if out.as_json:
        out.document(page)
    elif out.quiet:
        for found in page["runs"]:
            out.line(found["id"])
    else:
        out.table(("RUN", "STATE", "DONE", "TIME", "NAME"), run_rows(master.short_ids(page["runs"]), page["runs"]))
        if not page["runs"]:
            out.talk("no runs" + (" like that" if state or name or agent_run else " yet: titan run hello.py"))
        _say_more(out, page["next"])


def _tell_jobs(out: Output, master: Master, run: str, query: dict[str, str | int | None]) -> None:
    run_id = master.find(run).run["id"]
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
