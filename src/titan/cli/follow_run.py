"""A run as it goes, to its end: a line for each job that ends, then what to do next.

The feed is opened before anything is read, so no job's end falls between the two. Of a run with more jobs than a
person reads, only those that did not complete get a line.
"""

import dataclasses
from collections.abc import Callable

from titan.cli.ask import Document, Master, Named
from titan.cli.output import Output, closing_s, plural, safe
from titan.cli.tell import between_s, ending
from titan_sdk.feeds import RESYNC, follow

ROWS_MAX = 100
LAST_LINES = 10
LAST_BYTES = 8_192
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "DEAD"})
BAD = "FAILED,DEAD"


@dataclasses.dataclass(slots=True)
class Followed:
    """What was seen of one run: its newest document, the states of the jobs told of, and the first that failed."""

    run: Document
    states: dict[str, str]
    failed: Document | None = None

    @property
    def is_small(self) -> bool:
        """Whether each of its jobs gets a line."""
        return bool(self.run["jobs"]["total"] <= ROWS_MAX)


def follow_run(out: Output, master: Master, named: Named) -> Document:
    """Tell of each job of the run that ends, until the run has ended; return the run as it then is.

    With --json a line for each (kind "job") and one for the end (kind "end").
    """
    width = max((len(job["id"]) for job in _first_jobs(master, named.run)), default=0)
    seen = Followed(named.run, {})

    def tell(job: Document) -> None:
        if out.as_json:
            out.document({"kind": "job", "job": job})
        elif not out.quiet:
            out.clear_progress()
            out.line(_row(out, job, width, seen.states))

    _watch(out, master, seen, tell)
    out.clear_progress()
    if out.as_json:
        out.document({"kind": "end", "state": seen.run["state"], "run": seen.run})
    else:
        _close(out, master, named, seen)
    return seen.run


def _watch(out: Output, master: Master, seen: Followed, tell: Callable[[Document], None]) -> None:
    run_id = seen.run["id"]
    for event in follow(master._transport, "events", {}, None, read_first=True):
        if event["kind"] == RESYNC:
            _catch_up(master, seen, tell)
        elif event.get("run_id") != run_id:
            continue
        elif event["kind"] == "job":
            if event["state"] in ENDED and (seen.is_small or event["state"] in BAD):
                _meet(master.job({"run_id": run_id, "id": event["job_id"]}), seen, tell)
        elif event["state"] in ENDED and event["generation"] >= seen.run["generation"]:
            _catch_up(master, seen, tell)
        else:
            out.progress(_so_far(event))
        if seen.run["state"] in ENDED:
            return


def _so_far(counts: Document) -> str:
    done = counts["completed"] + counts["failed"] + counts["cancelled"] + counts["dead"]
    bad = counts["failed"] + counts["dead"]
    return f"{done} of {plural(counts['total'], 'job')} done" + (f", {bad} failed" if bad else "")


def _catch_up(master: Master, seen: Followed, tell: Callable[[Document], None]) -> None:
    """Read the run, then its jobs: what is told of a run that has ended is all there is to tell."""
    seen.run = master.get_run(seen.run["id"]).info
    states = ",".join(sorted(ENDED)) if seen.is_small else BAD
    found = sorted(master.list_jobs(seen.run["id"], states), key=lambda job: job["ended_at"] or "")
    for job in found if seen.is_small else found[:ROWS_MAX]:
        _meet(job, seen, tell)


def _meet(job: Document, seen: Followed, tell: Callable[[Document], None]) -> None:
    """Tell of a job that has ended in this generation, once."""
    if job["id"] in seen.states or job["state"] not in ENDED or job["generation"] < seen.run["generation"]:
        return
    seen.states[job["id"]] = job["state"]
    if seen.failed is None and job["state"] in BAD:
        seen.failed = job
    if seen.is_small or len(seen.states) <= ROWS_MAX:
        tell(job)


def _first_jobs(master: Master, run: Document) -> list[Document]:
    found: list[Document] = master.page(f"runs/{run['id']}/jobs", limit=ROWS_MAX)["jobs"]
    return found


def _row(out: Output, job: Document, width: int, states: Document) -> str:
    took_s = between_s(job["started_at"], job["ended_at"])
    took = "" if took_s is None else closing_s(took_s)
    name, state = safe(job["id"], colours=False).ljust(width), out.state(job["state"]) + " " * (9 - len(job["state"]))
    return f" {name}   {state} {took:<5}   {ending(job, states)}".rstrip()


def _close(out: Output, master: Master, named: Named, seen: Followed) -> None:
    run = seen.run
    took = closing_s(between_s(run["started_at"] or run["created_at"], run["ended_at"]) or 0.0)
    label = named.short
    if not seen.is_small:
        counts = [f"{run['jobs'][word]} {word}" for word in ("failed", "dead", "cancelled") if run["jobs"][word]]
        out.talk(", ".join([f"{run['jobs']['completed']} of {run['jobs']['total']} jobs completed", *counts]))
    if run["state"] == "COMPLETED":
        out.talk(f"{label} COMPLETED in {took}")
        return
    again = f"titan retry {label} --failed"
    if seen.failed is None:
        out.talk(f"{label} {run['state']} after {took}.   To go on: {again}")
        return
    _last_lines(out, master, seen.failed)
    file = seen.failed["filename"].replace("\\", "/").rsplit("/", 1)[-1]
    whole_log = f"titan logs {label}/{seen.failed['id']}"
    out.talk(f"{label} FAILED after {took}.   Fix {file}, then: {again}      whole log: {whole_log}")


def _last_lines(out: Output, master: Master, job: Document) -> None:
    data = master.log_piece(job, -LAST_BYTES).data
    lines = data.decode("utf-8", "replace").rstrip().splitlines()[-LAST_LINES:]
    if lines:
        out.talk(f"{job['id']}, last lines:")
        out.talk("\n".join(f"    {line}" for line in lines))
