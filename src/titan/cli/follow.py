"""A job's log as it grows, through all its attempts, to its end."""

from collections.abc import Callable

from titan.cli.ask import WAIT_S, Document, Master
from titan.cli.tell import remedy
from titan.model.states import FINAL_JOB_STATES, JobState

MOMENT_S = 2.0
Write = Callable[[bytes, str], None]
Say = Callable[[str], None]


def follow(master: Master, job: Document, write: Write, say: Say) -> Document:
    """Hand every byte of the job's log to `write` until the job has ended; return the job as it then is.

    Where bytes were dropped, `write` gets our line about it with the piece before them, else "".
    It begins with the attempt that is newest now, or with the first. A later attempt is announced to `say`, and so
    is why the job does not start, when that takes longer than a moment.
    """
    attempt = max(job["attempt"], 1)
    while True:
        _follow_attempt(master, job, attempt, write, say)
        job = master.job(job)
        if job["state"] in FINAL_JOB_STATES:
            return job
        # An attempt that its worker gave back unstarted gives its number back too.
        attempt = attempt if job["attempt"] < attempt else attempt + 1


def _follow_attempt(master: Master, job: Document, attempt: int, write: Write, say: Say) -> None:
    """Follow one attempt, which need not exist yet, to the end of its log."""
    end, wait_s = 0, MOMENT_S
    while True:
        piece = master.log_piece(job, end, attempt=attempt, follow_s=wait_s)
        if (piece.data or piece.missing) and not end and attempt > 1:
            say(f"attempt {attempt}:")
        write(piece.data, piece.missing)
        end = piece.end
        if piece.is_last:
            return
        if wait_s == MOMENT_S and not end:
            _say_why(master, job, say)
        wait_s = WAIT_S


def _say_why(master: Master, job: Document, say: Say) -> None:
    found = master.explain(f"{job['run_id']}/{job['id']}")
    if found["state"] not in (JobState.ASSIGNED, JobState.RUNNING) and found["state"] not in FINAL_JOB_STATES:
        say(f"{found['state']}: {found['message']}\n  {remedy(found, master.url)}")
