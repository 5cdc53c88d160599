"""`titan retry`: run again what did not complete, with the files as they are by now."""

import hashlib
import os
import stat

import click

from titan.cli.ask import Document, Master, Named
from titan.cli.exits import exit_of_state
from titan.cli.follow_run import follow_run
from titan.cli.interrupted import interrupted
from titan.cli.options import common
from titan.cli.output import Output, plural
from titan_sdk.errors import Invalid

PIECE_BYTES = 1024 * 1024
SENT_TOLD_MAX = 20


@click.command(
    "retry",
    short_help="Run again what did not complete.",
    epilog="Example: titan retry @last-failed --failed --follow",
)
@click.argument("name", metavar="ID")
@click.argument("job_ids", metavar="[JOB]...", nargs=-1)
@click.option("--failed/--all", "failed", default=True, help="What did not complete (default), or every job.")
@click.option("-f", "--follow", "following", is_flag=True, help="Stay until it has ended; with --json, NDJSON.")
@click.option("--as-submitted", is_flag=True, help="Use the files as they were sent, even if they were edited since.")
@common
def command(
    out: Output, *, name: str, job_ids: tuple[str, ...], failed: bool, following: bool, as_submitted: bool
) -> int | None:
    """Open the next generation of a run that has ended.

    FAILED, DEAD and CANCELLED jobs start again, or those named, with all that depends on them; what is done stays.
    ID is a run, or RUN/JOB for that one job. A script that was edited since it was submitted is sent anew when it is
    still where it was, and that is said. With more than 1,000 such files nothing is started: see --as-submitted.
    """
    master = Master()
    named = master.find(name)
    if job_ids and not named.whole_run:
        raise click.UsageError(f"{name} names a job already: give either RUN/JOB, or RUN and jobs")
    chosen = [*job_ids] if named.whole_run else [named.document["id"]]
    jobs = master.list_jobs(named.run["id"])
    if not failed:
        if chosen:
            raise click.UsageError("--all is every job: name none")
        chosen = [job["id"] for job in jobs if not job["parents"]]
    scripts = {} if as_submitted else _send_edited(out, master, _again(jobs, chosen))
    named.run = master.retry_with(named.run["id"], chosen, scripts)
    named.whole_run = True
    if not following:
        _tell(out, named, scripts)
        return None
    if out.as_json:
        out.document({"kind": "run", "run": named.run, "sent": sorted(scripts)})
    else:
        out.talk(_opened(named))
    try:
        return exit_of_state(follow_run(out, master, named)["state"])
    except KeyboardInterrupt:
        return interrupted(out, master, named, f"titan show -f {named.short}")


def _tell(out: Output, named: Named, scripts: dict[str, str]) -> None:
    if out.as_json:
        out.document({"run": named.run, "sent": sorted(scripts)})
    elif out.quiet:
        out.line(named.run["id"])
    else:
        out.talk(f"{_opened(named)}; how it goes: titan show -f {named.short}")


def _opened(named: Named) -> str:
    counts = named.run["jobs"]
    left = counts["total"] - counts["completed"]
    return f"run {named.short} {named.run['name']}   {plural(left, 'job')} again, generation {named.run['generation']}"


def _again(jobs: list[Document], chosen: list[str]) -> list[Document]:
    """Return the jobs that start again: those chosen, or all that did not complete, and what depends on them."""
    again = set(chosen) or {job["id"] for job in jobs if job["state"] != "COMPLETED"}
    children: dict[str, list[str]] = {}
    for job in jobs:
        for parent in job["parents"]:
            children.setdefault(parent, []).append(job["id"])
    left = list(again)
    while left:
        for child in children.get(left.pop(), ()):
            if child not in again:
                again.add(child)
                left.append(child)
    return [job for job in jobs if job["id"] in again]


def _send_edited(out: Output, master: Master, jobs: list[Document]) -> dict[str, str]:
    """Send the scripts of `jobs` that are on this disk and differ from what was submitted; return path -> SHA-256."""
    submitted: dict[str, set[str]] = {}
    for job in jobs:
        if os.path.isabs(job["source_path"]):
            submitted.setdefault(job["source_path"], set()).add(job["script"])
    sent: dict[str, str] = {}
    for path, digests in submitted.items():
        digest = _digest(path)
        if digest is None or digests == {digest}:
            continue
        master.send_file(digest, path)
        sent[path] = digest
        if len(sent) <= SENT_TOLD_MAX:
            out.talk(f"{path} was edited since it was submitted: it is sent anew")
    if len(sent) > SENT_TOLD_MAX:
        out.talk(f"and {plural(len(sent) - SENT_TOLD_MAX, 'file')} more")
    return sent


def _digest(path: str) -> str | None:
    """Return the SHA-256 of the script at `path`; None when there is none that a job could run.

    The path is what somebody wrote into the submission, so nothing but a script is ever sent from it.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            if not path.endswith(".py") and file.read(2) != b"#!":
                return None
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Invalid(
            f"{path} cannot be read: {error.strerror}",
            hint="to use the file as it was submitted: titan retry --as-submitted",
        ) from None
