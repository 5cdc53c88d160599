"""A job's log as it grows, through all its attempts, to its end."""

from collections.abc import Callable

from titan.cli.ask import WAIT_S, Document, Master

Write = Callable[[bytes], None]
Say = Callable[[str], None]


def follow(master: Master, job: Document, write: Write, say: Say) -> Document:
    """Hand every byte of the job's log to `write` until the job has ended; return the job as it then is.

    It begins with the attempt that is newest now. A later attempt is announced to `say`, and so is, once, why
    the job does not start when that takes longer than a moment.
    """
    while True:
        attempt = max(job["attempt"], 1)
        _follow_attempt(master, job, attempt, write, say)
        ended, job = False, master.job(job)
        while not ended and job["attempt"] <= attempt:
            ended, job = master.wait_job_once(job)
        if ended and job["attempt"] <= attempt:
            return job
        say(f"attempt {job['attempt']}")


def _follow_attempt(master: Master, job: Document, attempt: int, write: Write, say: Say) -> None:
    end, explained = 0, False
    while True:
        piece = master.log_piece(job, end, attempt=attempt, follow_s=WAIT_S if explained else MOMENT_S)
        write(piece.data)
        end = piece.end
        if piece.is_last:
            return
        if not explained and not end:
            say(_why_waiting(master, job))
        explained = True


MOMENT_S = 2.0


def _why_waiting(master: Master, job: Document) -> str:
    found = master.explain(f"{job['run_id']}/{job['id']}")
    return f"{found['state']}: {found['message']}" + (f" ({found['remedy']})" if found["remedy"] else "")
