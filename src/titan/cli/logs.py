"""`titan logs`: what a job printed."""

import dataclasses
from collections.abc import Iterator

import click

from titan.cli.ask import Document, LogPiece, Master, Named
from titan.cli.exits import exit_of_state
from titan.cli.follow import follow
from titan.cli.options import common
from titan.cli.output import Output
from titan_sdk.errors import Invalid
from titan_sdk.logs import LogText

NAMES_MAX = 5
TAIL_BYTES = 64 * 1024
TAIL_BYTES_MAX = 16 * 1024 * 1024


@click.command("logs", short_help="Print what a job printed; -f follows it.", epilog="Example: titan logs -f @last")
@click.argument("name", metavar="ID")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until the job has ended; with --json, NDJSON.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Of this attempt; the last one unless said.")
@click.option("-n", "--tail", type=click.IntRange(1, 100_000), metavar="N", help="The last N lines, of 16 MiB at most.")
@common
def command(out: Output, *, name: str, following: bool, attempt: int | None, tail: int | None) -> int | None:
    """Print what a job printed, stdout and stderr in order, byte for byte.

    Where bytes were dropped, because a log has a limit or a disk was full, a line of ours says how many.
    ID is a job, or a run of a single job. With -f it exits as the job did: 0, 1 or 8.
    """
    if following and attempt is not None:
        raise click.UsageError("--follow goes through all attempts: leave --attempt out")
    if following and tail is not None:
        raise click.UsageError("--follow goes from the beginning to the end: leave --tail out")
    master = Master()
    job = _job_of(master, master.find(name))
    if following:
        return _follow(out, master, job)
    if out.as_json:
        out.document(_whole(master, job, attempt, tail))
        return None
    stream = out.stream()
    for piece in _tail(master, job, attempt, tail) if tail else _pieces(master, job, attempt, 0):
        stream.write(piece.data, piece.missing)
    stream.close()
    return None


def _job_of(master: Master, named: Named) -> Document:
    if named.job is not None:
        return named.job
    path = f"runs/{named.run['id']}/jobs"
    failed = master.page(path, limit=NAMES_MAX, state="FAILED,DEAD")["jobs"]
    jobs = failed or master.page(path, limit=NAMES_MAX)["jobs"]
    listed = ", ".join(f"titan logs {named.label}/{job['id']}" for job in jobs)
    raise Invalid(
        f"run {named.label} has {named.run['jobs']['total']} jobs: name one",
        hint=listed + ", which failed" * bool(failed),
    )


def _pieces(master: Master, job: Document, attempt: int | None, begin: int) -> Iterator[LogPiece]:
    while True:
        piece = master.log_piece(job, begin, attempt=attempt)
        yield piece
        begin = piece.end
        if begin >= piece.total:
            return


def _tail(master: Master, job: Document, attempt: int | None, lines: int) -> list[LogPiece]:
    """Return the last `lines` lines as pieces, or what the last 16 MiB have of them."""
    size = TAIL_BYTES
    while True:
        pieces = list(_pieces(master, job, attempt, -size))
        found = sum(piece.data.count(b"\n") for piece in pieces)
        if found > lines or sum(len(piece.data) for piece in pieces) < size or size >= TAIL_BYTES_MAX:
            return _cut(pieces, lines)
        size *= 16


def _cut(pieces: list[LogPiece], lines: int) -> list[LogPiece]:
    kept: list[LogPiece] = []
    for piece in reversed(pieces):
        # What ends in a newline ends there, and no empty line begins behind it.
        at_end = b"\n" if not kept and piece.data.endswith(b"\n") else b""
        parts = piece.data.removesuffix(at_end).rsplit(b"\n", lines)
        if len(parts) > lines:
            kept.append(dataclasses.replace(piece, data=b"\n".join(parts[1:]) + at_end))
            break
        lines -= len(parts) - 1
        kept.append(piece)
    return kept[::-1]


def _whole(master: Master, job: Document, attempt: int | None, tail: int | None) -> Document:
    text, found = LogText(), []
    for piece in _tail(master, job, attempt, tail) if tail else _pieces(master, job, attempt, 0):
        found.append(text.add(piece.data, piece.missing))
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
