"""`titan graph`: the order of a pipeline file's jobs, or of a run's, as a drawing."""

import os

import click

from titan.cli.ask import Document, Master
from titan.cli.draw import drawing, mermaid
from titan.cli.options import common
from titan.cli.output import Output, plural
from titan_sdk.pipeline import read_pipeline
from titan_sdk.scripts import PIPELINE_SUFFIXES


@click.command(
    "graph", short_help="Draw a pipeline file or a run.", epilog="Example: titan graph etl.yaml --mermaid > etl.mmd"
)
@click.argument("name", metavar="FILE|RUN")
@click.option("--mermaid", "as_mermaid", is_flag=True, help="Print a Mermaid flowchart, for Markdown pages.")
@common
def command(out: Output, *, name: str, as_mermaid: bool) -> None:
    """Draw the jobs of FILE, a pipeline in YAML, or of a run, each below what it waits for.

    Of a file each job's script is shown, and no Master is asked; of a run each job's state.
    """
    is_file = name.endswith(PIPELINE_SUFFIXES) or os.path.isfile(name)
    title, jobs = _of_file(name) if is_file else _of_run(name)
    parents = {job["id"]: job["depends_on"] for job in jobs}
    labels = {job["id"]: job["label"] for job in jobs}
    if out.as_json:
        out.document({"name": title, "jobs": [{k: v for k, v in job.items() if k != "label"} for job in jobs]})
    elif out.quiet:
        for job in jobs:
            out.line(job["id"])
    elif as_mermaid:
        for line in mermaid(parents, labels):
            out.line(line)
    else:
        out.talk(f"{title}   {plural(len(jobs), 'job')}")
        for line in drawing(parents, labels, plain=not _has_lines(out)):
            out.line(line)


def _of_file(path: str) -> tuple[str, list[Document]]:
    pipeline = read_pipeline(path)
    folder = os.path.dirname(path)
    jobs = []
    for job in pipeline.jobs:
        file = os.path.relpath(job.filename, folder or ".")
        tags = [job.requirement] if isinstance(job.requirement, str) else list(job.requirement)
        wanted = "" if tags == ["GENERAL"] else f"   {', '.join(tags)}"
        found = {"id": job.job_id, "depends_on": list(job.parents or ()), "file": file, "requirement": tags}
        jobs.append({**found, "label": file + wanted})
    return pipeline.name, jobs


def _of_run(name: str) -> tuple[str, list[Document]]:
    with Master() as master:
        run = master.lookup(name)["run"]
        jobs = master.list_jobs(run["id"])
    return run["name"], [
        {"id": job["id"], "depends_on": job["parents"], "state": job["state"], "label": job["state"]} for job in jobs
    ]


def _has_lines(out: Output) -> bool:
    try:
        "\u2502\u25cf".encode(out.stdout.encoding or "ascii")
    except (LookupError, UnicodeError):
        return False
    return True
