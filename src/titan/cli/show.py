"""`titan show`: all that is known of a run or a job, for people who want to know what happened."""

from collections.abc import Iterator

import click

from titan.cli.ask import Document, Master, Named
from titan.cli.exits import exit_of_state
from titan.cli.follow_run import follow_run
from titan.cli.interrupted import detached
from titan.cli.options import common
from titan.cli.output import Output, plural, spoken_s
from titan.cli.tell import between_s, ending, remedy, run_rows, say, spoken, when

ROWS_MAX = 100
RUNS_MAX = 100
TIMES = (("created", "created_at"), ("ready", "ready_at"), ("started", "started_at"), ("ended", "ended_at"))


@click.command(
    "show", short_help="All about a run or a job: attempts, times, worker, why.", epilog="Example: titan show @last"
)
@click.argument("name", metavar="ID")
@click.option("-f", "--follow", "following", is_flag=True, help="Tell of each job that ends, until the run has ended.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000), metavar="N", default=ROWS_MAX, show_default=True, help="Jobs of a run."
)
@common
def command(out: Output, *, name: str, following: bool, limit: int) -> int | None:
    """Show a run with its jobs and the runs they submitted, or a job: its attempts, its times, why it is where it is.

    With -f it stays with a run until that has ended, and exits as titan wait does; with --json, NDJSON.
    """
    master = Master()
    named = master.find(name)
    if following:
        return _follow(out, master, named)
    if named.whole_run:
        _show_run(out, master, named, limit)
    else:
        _show_job(out, master, named)
    return None


def _follow(out: Output, master: Master, named: Named) -> int:
    if not named.whole_run:
        raise click.UsageError(f"-f follows a run: titan logs -f {named.label} follows a job")
    try:
        return exit_of_state(follow_run(out, master, named)["state"])
    except KeyboardInterrupt:
        return detached(out, named, f"titan show -f {named.short}")


def _show_run(out: Output, master: Master, named: Named, limit: int) -> None:
    page = master.page(f"runs/{named.run['id']}/jobs", limit=limit)
    if out.quiet and not out.as_json:
        for job in page["jobs"]:
            out.line(f"{named.run['id']}/{job['id']}")
        return
    agent_run = master.page("runs", agent_run_id=named.run["agent_run_id"], limit=RUNS_MAX)
    children = [run for run in agent_run["runs"] if run["parent_run_id"] == named.run["id"]]
    if out.as_json:
        out.document({"kind": "run", "run": named.run, **page, "children": children})
        return
    say(out, named)
    _facts(out, _of_run(named.run))
    states = {job["id"]: job["state"] for job in page["jobs"]}
    out.table(
        ("JOB", "STATE", "ATTEMPT", "WORKER", "EXIT", "TIME", "WHY"),
        [_job_row(job, states) for job in page["jobs"]],
    )
    more = named.run["jobs"]["total"] - len(page["jobs"])
    if more > 0:
        out.talk(f"and {plural(more, 'job')} more: titan ps {named.short}")
    _show_children(out, master, children)
    if agent_run["next"] is not None:
        out.talk(
            f"its agent run has more than the {plural(RUNS_MAX, 'run')} looked at: titan ps --agent-run {named.short}"
        )


def _show_children(out: Output, master: Master, children: list[Document]) -> None:
    if children:
        rows = zip(children, run_rows(master.short_ids(children), children), strict=True)
        out.line("")
        out.table(
            ("CHILD RUN", "STATE", "DONE", "TIME", "SUBMITTED", "BY JOB", "NAME"),
            [(*row[:-1], run["parent_job_id"], row[-1]) for run, row in rows],
        )


def _of_run(run: Document) -> Iterator[tuple[str, str]]:
    yield "id", run["id"]
    if run["agent_run_id"] not in (run["id"], run["root_run_id"]):
        yield "agent run", run["agent_run_id"]
    if run["parent_run_id"]:
        yield "submitted by", f"{run['parent_run_id'][:8]}/{run['parent_job_id']}"
    if run["generation"] > 1:
        yield "generation", str(run["generation"])
    for word, field in TIMES:
        if run.get(field):
            yield word, when(run[field])


def _job_row(job: Document, states: dict[str, str]) -> tuple[str, ...]:
    code = "" if job["exit_code"] is None else str(job["exit_code"])
    why = ending({**job, "worker": "", "exit_code": None}, states) if job["ended_at"] else _reason(job)
    took = spoken(job["started_at"], job["ended_at"])
    return job["id"], job["state"], str(job["attempt"] or ""), job["worker"], code, took, why


def _reason(job: Document) -> str:
    parts = [job["reason"].lower().replace("_", " "), "cancelling" * job["cancelling"]]
    return ", ".join(part for part in parts if part)


def _show_job(out: Output, master: Master, named: Named) -> None:
    job = named.document
    attempts = master.attempts(job)
    explanation = master.explain(f"{job['run_id']}/{job['id']}")
    if out.as_json:
        out.document({"kind": "job", "job": job, "attempts": attempts, "explanation": explanation})
        return
    if out.quiet:
        out.line(f"{job['run_id']}/{job['id']}")
        return
    say(out, named)
    _facts(out, _of_job(job))
    if not job["ended_at"]:
        why = f"{explanation['reason']}: {explanation['message']}"
        _facts(out, [("why", why), ("next", remedy(explanation, master.url))])
    if attempts:
        out.table(
            ("ATTEMPT", "STATE", "WORKER", "EXIT", "STARTED", "TIME", "START", "WHY"),
            [_attempt_row(each) for each in attempts],
        )
        out.talk(f"its output: titan logs {named.label}")


def _of_job(job: Document) -> Iterator[tuple[str, str]]:
    yield "file", " ".join([job["filename"], *job["args"]])
    if job["source_path"]:
        yield "from", job["source_path"]
    if job["parents"]:
        yield "after", ", ".join(job["parents"])
    yield "requires", ", ".join(job["requirement"])
    if job["priority"] != 1:
        yield "priority", str(job["priority"])
    if job["retries"]:
        yield "retries", str(job["retries"])
    if job["timeout_s"]:
        yield "timeout", spoken_s(job["timeout_s"])
    for word, field in TIMES:
        if job.get(field):
            yield word, when(job[field])
    queued_s = between_s(job["ready_at"], job["started_at"]) if job["started_at"] else None
    if queued_s is not None:
        yield "waited", spoken_s(queued_s)


def _attempt_row(attempt: Document) -> tuple[str, ...]:
    code = "" if attempt["exit_code"] is None else str(attempt["exit_code"])
    took = spoken(attempt["started_at"], attempt["ended_at"])
    started = when(attempt["started_at"])
    how = attempt["start"]
    return str(attempt["attempt"]), attempt["state"], attempt["worker"], code, started, took, how, attempt["cause"]


def _facts(out: Output, facts: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> None:
    for word, text in facts:
        if text:
            out.line(f"  {word:<13}{text}")
