"""`titan validate`: everything wrong with pipeline files, without a Master."""

import json
import os

import click

from titan.cli.ask import Document
from titan.cli.exits import Exit, exit_of_error
from titan.cli.options import local
from titan.cli.output import Output, plural, safe
from titan.model.ids import name_problem
from titan.model.limits import Limits
from titan.model.spec import Problem, read_job
from titan_sdk.errors import Invalid
from titan_sdk.pipeline import Pipeline, read_pipeline
from titan_sdk.submission import Submission


@click.command(
    "validate", short_help="Say what is wrong with pipeline files.", epilog="Example: titan validate flows/*.yaml"
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--scripts/--no-scripts", default=True, help="Look for the scripts on this disk (default), or leave them out."
)
@local
def command(out: Output, *, files: tuple[str, ...], scripts: bool) -> int:
    """Read pipeline files as `titan submit` does and tell all that is wrong with them, without a Master.

    Exits with 0 if all are good, 6 if one is not, 3 if what is missing is a file and nothing else is wrong.
    """
    told: list[Document] = []
    codes: set[int] = set()
    for file in files:
        try:
            pipeline = _validated(file, scripts=scripts)
        except Invalid as error:
            codes.add(exit_of_error(error))
            told.append(_refused(file, error))
            if not out.as_json:
                out.stdout.flush()
                print(safe(str(error), colours=False), file=out.stderr, flush=True)
        else:
            told.append(_accepted(file, pipeline))
            _tell(out, file, pipeline)
    if out.as_json:
        out.document({"files": told})
    return codes.pop() if len(codes) == 1 else Exit.INVALID if codes else Exit.OK


def _validated(file: str, *, scripts: bool) -> Pipeline:
    """Read one file, then look at its jobs as a Master with the limits of this environment would."""
    pipeline = read_pipeline(file, scripts_are_here=scripts)
    submission = Submission({"name": pipeline.name}, pipeline.jobs, may_stream=False)
    body = submission.body()
    found: list[Problem] = []
    if (name := name_problem(pipeline.name, Limits().dag_name_chars_max)) is not None:
        found.append(Problem(code="invalid", message=name, field="name"))
    limits = Limits.load(os.environ)
    for job in json.loads(body if isinstance(body, bytes) else b"".join(body))["jobs"]:
        read_job(job, limits, found)
    if found or submission.problems:
        theirs = [
            {"code": each.code, "message": each.message, "job_id": each.job_id, "field": each.field} for each in found
        ]
        raise pipeline.placed(submission.merged(Invalid("", problems=theirs)))
    return pipeline


def _accepted(file: str, pipeline: Pipeline) -> Document:
    jobs = len(pipeline.jobs)
    return {
        "file": file,
        "valid": True,
        "name": pipeline.name,
        "jobs": jobs,
        "warnings": pipeline.warnings,
        "problems": [],
    }


def _refused(file: str, error: Invalid) -> Document:
    problems = list(error.problems) or [{"code": error.code, "message": error.message}]
    return {"file": file, "valid": False, "name": None, "jobs": None, "warnings": [], "problems": problems}


def _tell(out: Output, file: str, pipeline: Pipeline) -> None:
    if out.as_json:
        return
    out.line(file if out.quiet else f"{file}   ok   {pipeline.name}, {plural(len(pipeline.jobs), 'job')}")
    for warning in pipeline.warnings:
        out.talk(f"warning: {warning}")
