"""`titan logs`: what a job printed."""

import click

from titan.cli.ask import Document, Master, Named
from titan.cli.exits import exit_of_state
from titan.cli.follow import follow
from titan.cli.options import common
from titan.cli.output import Output, Stream
from titan_sdk.errors import Invalid
from titan_sdk.logs import LogText

NAMES_MAX = 5


@click.command("logs", short_help="Print what a job printed; -f follows it.", epilog="Example: titan logs -f @last")
@click.argument("name", metavar="ID")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until the job has ended; with --json, NDJSON.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Of this attempt; the last one unless said.")
@common
def command(out: Output, *, name: str, following: bool, attempt: int | None) -> int | None:
    """Print what a job printed, stdout and stderr in order, byte for byte.

    Where bytes were dropped, because a log has a limit or a disk was full, a line of ours says how many.
    ID is a job, or a run of a single job. With -f it exits as the job did: 0, 1 or 8.
    """
    if following and attempt is not None:
        raise click.UsageError("--follow goes through all attempts: leave --attempt out")
    master = Master()
    job = _job_of(master, master.find(name))
    if following:
        return _follow(out, master, job)
    if out.as_json:
        out.document(_whole(master, job, attempt))
        return None
    stream = out.stream()
    _print(master, job, attempt, stream)
    stream.close()
    return None


def _job_of(master: Master, named: Named) -> Document:
    if named.job is not None:
        return named.job
    jobs = master.page(f"runs/{named.run['id']}/jobs", limit=NAMES_MAX)["jobs"]
    listed = ", ".join(f"titan logs {named.label}/{job['id']}" for job in jobs)
    raise Invalid(f"run {named.label} has {named.run['jobs']['total']} jobs: name one", hint=listed)


def _print(master: Master, job: Document, attempt: int | None, stream: Stream) -> None:
    end = 0
    while True:
        piece = master.log_piece(job, end, attempt=attempt)
        stream.write(piece.data, piece.missing)
        end = piece.end
        if end >= piece.total:
            return


def _whole(master: Master, job: Document, attempt: int | None) -> Document:
    text, found, end = LogText(), [], 0
    while True:
        piece = master.log_piece(job, end, attempt=attempt)
        found.append(text.add(piece.data, piece.missing))
        end = piece.end
        if end >= piece.total:
            break
    return {
        "run_id": job["run_id"],
        "job_id": job["id"],
        "attempt": attempt or job["attempt"],
        "text": "".join(found) + text.end(),
        "complete": piece.is_last,
    }


def _follow(out: Output, master: Master, job: Document) -> int:
    if out.as_json:
        ended = follow_json(out, master, job)
    else:
        stream = out.stream()
        ended = follow(master, job, stream.write, out.talk)
        stream.close()
    return exit_of_state(ended["state"])


def follow_json(out: Output, master: Master, job: Document) -> Document:
    """Print a line of JSON for each piece of the log and one for the job's end; return the job then."""
    log = LogText()

    def write(data: bytes, missing: str) -> None:
        if text := log.add(data, missing):
            out.document({"kind": "log", "run_id": job["run_id"], "job_id": job["id"], "text": text})

    ended = follow(master, job, write, out.talk)
    out.document({"kind": "end", "run_id": job["run_id"], "job_id": job["id"], "state": ended["state"], "job": ended})
    return ended
