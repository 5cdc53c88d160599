"""Runs and jobs in words: the lines that several commands print."""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from titan.cli.ask import BAD_ENDS, ENDED_FOR_A_PARENT, Document, Named
from titan.cli.output import Output, spoken_s


def between_s(start: str | None, end: str | None) -> float | None:
    """Return the seconds from one ISO-8601 time to another (None: now); None when it has not begun."""
    if start is None:
        return None
    end_s = datetime.fromisoformat(end).timestamp() if end else time.time()
    return max(0.0, end_s - datetime.fromisoformat(start).timestamp())


def spoken(start: str | None, end: str | None) -> str:
    """Return how long something took, or takes until now; "" when it has not begun."""
    seconds = between_s(start, end)
    return "" if seconds is None else spoken_s(seconds)


def when(time_told: str | None) -> str:
    """Return a time that the Master told as people read it: ``2026-01-31 12:00:09.250 UTC``; "" for none."""
    return (time_told or "").replace("T", " ").replace("Z", " UTC")


def ago(seconds: float) -> str:
    """Return how long something is past, as coarse as one remembers it: ``8 s``, ``12 min``, ``9 h``, ``3 d``."""
    for unit_s, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit_s * (2 if unit == "d" else 1):
            return f"{int(seconds // unit_s)} {unit}"
    return f"{int(seconds)} s"


def say(out: Output, named: Named) -> None:
    """Print one line about a run or a job."""
    if named.job is None or named.whole_run:
        _say_run(out, named.short, named.run)
    else:
        _say_job(out, named)


def _say_run(out: Output, label: str, run: Document) -> None:
    jobs = run["jobs"]
    done = f"{jobs['completed']} of {jobs['total']} jobs completed"
    bad = [f"{jobs[word]} {word}" for word in ("failed", "cancelled", "dead") if jobs[word]]
    took = spoken(run["started_at"], run["ended_at"])
    parts = [f"run {label} {run['name']}", out.state(run["state"]), ", ".join([done, *bad]), took]
    out.line("   ".join(part for part in parts if part))


def _say_job(out: Output, named: Named) -> None:
    job = named.document
    took = spoken(job["started_at"], job["ended_at"])
    parts = [named.label, out.state(job["state"]), took, why(job, named.bad_ends)]
    out.line("   ".join(part for part in parts if part))


def why(job: Document, states: Mapping[str, str]) -> str:
    """Return in words what is worth knowing beside the state: reason, exit code, attempt, worker.

    `states`: how others of its run ended.
    """
    parts = []
    if job["exit_code"] is not None and job["state"] != "COMPLETED":
        parts.append(f"exit {job['exit_code']}")
    elif job["reason"] in ENDED_FOR_A_PARENT:
        parts.append(_parent_ending(job, states))
    elif job["reason"]:
        parts.append(job["reason"].lower().replace("_", " "))
    if job["attempt"] > 1 or job["retries"]:
        # An attempt that was lost with its worker takes no retry, so there may be more of them than retries allow.
        allowed = job["retries"] + 1
        parts.append(f"attempt {job['attempt']}" + (f" of {allowed}" if job["attempt"] <= allowed else ""))
    if job["cancelling"]:
        parts.append("cancelling")
    if job["worker"] and job["state"] in ("ASSIGNED", "RUNNING", "FAILED", "DEAD"):
        parts.append(f"worker {job['worker']}")
    return ", ".join(parts)


def ending(job: Document, states: Mapping[str, str]) -> str:
    """Return in words how a job ended that did not simply complete. `states`: how others of its run ended."""
    if job["reason"] in ENDED_FOR_A_PARENT:
        return _parent_ending(job, states)
    allowed = job["retries"] + 1
    attempt = f"attempt {job['attempt']}" + (f" of {allowed}" if job["attempt"] <= allowed else "")
    if job["state"] in ("FAILED", "DEAD"):
        code = "" if job["exit_code"] is None else f"exit {job['exit_code']}"
        worker = f"worker {job['worker']}" if job["worker"] else ""
        return ", ".join(part for part in (cause(job), code, attempt, worker) if part)
    return attempt if job["attempt"] > 1 else ""


def _parent_ending(job: Document, states: Mapping[str, str]) -> str:
    bad = [parent for parent in job["parents"] if states.get(parent) in BAD_ENDS]
    ended = "was cancelled" if job["reason"] == "PARENT_CANCELLED" else "failed"
    if not bad:
        return f"a parent {ended}"
    return f"its parent {bad[0]} {'was cancelled' if states[bad[0]] == 'CANCELLED' else 'failed'}"


def cause(job: Document) -> str:
    """Return in words why a job ended; "" where its exit code says all."""
    return "" if job["reason"] in ("EXIT_CODE", "CANCEL_REQUESTED") else job["reason"].lower().replace("_", " ")


def remedy(explanation: Document, url: str) -> str:
    """Return what helps a job, as a line to paste where it names a command: the Master's URL and the tags put in."""
    from titan.model.spec import GENERAL  # loads more than a command may cost that needs no remedy

    told: str = explanation["remedy"]
    needs = [tag for tag in explanation.get("details", explanation).get("requirement", ()) if tag != GENERAL]
    offers = f" --capability {' '.join(needs)}" if needs else ""
    return told.replace("--join URL", f"--join {url}").replace(" --capability TAG", offers)


def link_of(worker: Document) -> str:
    """Return how a worker is: ``connected``, ``draining``, ``stopped`` (left in order, and holds nothing), ``away``."""
    if worker["connected"]:
        return "draining" if worker["draining"] else "connected"
    return "stopped" if worker["draining"] and not worker["running"] + worker["ahead"] else "away"


def job_rows(jobs: Sequence[Document]) -> list[tuple[str, str, str, str]]:
    """Return the cells of a table of jobs: id, state, time, why."""
    states = {job["id"]: job["state"] for job in jobs}
    return [(job["id"], job["state"], spoken(job["started_at"], job["ended_at"]), why(job, states)) for job in jobs]


def run_rows(short_ids: Iterable[str], runs: Iterable[Document]) -> list[tuple[str, ...]]:
    """Return the cells of a table of runs: id, state, jobs done, time, when it was submitted, name."""
    return [
        (
            label,
            run["state"],
            f"{run['jobs']['completed']}/{run['jobs']['total']}",
            spoken(run["started_at"], run["ended_at"]),
            f"{ago(between_s(run['created_at'], None) or 0.0)} ago",
            run["name"],
        )
        for label, run in zip(short_ids, runs, strict=True)
    ]
