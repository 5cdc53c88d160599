"""Questions to the Master whose answers a command prints as they are.

The SDK turns answers into objects; a command line wants the documents. Both go through one client, so address,
token, patience and errors are the same.
"""

import dataclasses
import functools
from typing import Any

from titan_sdk import TitanClient
from titan_sdk.api import segment
from titan_sdk.logs import dropped_line

Document = dict[str, Any]
WAIT_S = 25.0
LOG_BYTES = 1024 * 1024
SHORT_IDS_MAX = 200
BESIDE_MAX = 200
BAD_ENDS = ("FAILED", "DEAD", "CANCELLED")
ENDED_FOR_A_PARENT = ("PARENT_FAILED", "PARENT_CANCELLED")


@dataclasses.dataclass(frozen=True, slots=True)
class LogPiece:
    """Some bytes of a log. `complete`: the log has `total` bytes and will never have more.

    `missing` is our line about bytes that were dropped behind these, "" for none.
    """

    data: bytes
    missing: str
    end: int
    total: int
    complete: bool

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after it."""
        return self.complete and self.end >= self.total


class Named:
    """What a text typed by a person names: a run, or one job of it. `job` is None for a run with several jobs.

    A run of a single job is that job wherever a command wants one.
    """

    def __init__(self, master: "Master", run: Document, job: Document | None, *, whole_run: bool) -> None:
        self._master = master
        self.run = run
        self.job = job
        self.whole_run = whole_run

    @property
    def document(self) -> Document:
        """The run, or the job when a job was named."""
        return self.run if self.whole_run or self.job is None else self.job

    def update(self, document: Document) -> None:
        """Take what the Master says of it now."""
        if self.whole_run:
            self.run = document
        else:
            self.job = document

    @functools.cached_property
    def short(self) -> str:
        """The shortest prefix that names the run alone."""
        return self._master.short_ids([self.run])[0]

    @functools.cached_property
    def bad_ends(self) -> dict[str, str]:
        """How jobs beside this one ended badly, job -> state, where it is a job that ended for one of its parents."""
        if self.whole_run or self.job is None or self.job["reason"] not in ENDED_FOR_A_PARENT:
            return {}
        page = self._master.page(f"runs/{self.run['id']}/jobs", state=",".join(BAD_ENDS), limit=BESIDE_MAX)
        return {job["id"]: job["state"] for job in page["jobs"]}

    @property
    def label(self) -> str:
        """How people call it, short enough to type again."""
        return self.short if self.whole_run or self.job is None else f"{self.short}/{self.job['id']}"


class Master(TitanClient):
    """The Master this shell points at: an SDK client that also gives the documents as they came."""

    def page(self, path: str, **query: Any) -> Document:
        """Return one page of a list with the cursor of the next; a value of None is left out."""
        answer: Document = self._get(path, {name: value for name, value in query.items() if value is not None})
        return answer

    def find(self, text: str) -> Named:
        """Return what `text` names, by the rules of the Master. Raises NotFound, or Conflict for several."""
        found = self.lookup(text)
        run, job = found["run"], found["job"]
        if job is not None:
            return Named(self, run, job, whole_run=False)
        only = self.page(f"runs/{run['id']}/jobs", limit=1)["jobs"][0] if run["jobs"]["total"] == 1 else None
        return Named(self, run, only, whole_run=True)

    def overview(self) -> Document:
        """Return counts, workers, the queues with why they wait, and what runs."""
        found: Document = self._get("overview")
        return found

    def short_ids(self, runs: list[Document]) -> list[str]:
        """Return for each run the shortest prefix that names it alone now."""
        found: list[str] = []
        for begin in range(0, len(runs), SHORT_IDS_MAX):
            asked = [run["id"] for run in runs[begin : begin + SHORT_IDS_MAX]]
            answer = self._get("runs/short-ids", {"ids": ",".join(asked)})["short_ids"]
            found += [answer[run_id] for run_id in asked]
        return found

    def attempts(self, job: Document) -> list[Document]:
        """Return all tries at a job, the oldest first."""
        found: list[Document] = self._get(f"{job_path(job)}/attempts")["attempts"]
        return found

    def create_token(self, name: str, role: str, worker: str, expires_s: int | None) -> Document:
        """Make a token and return it with what is known of it."""
        asked = {"name": name, "role": role, "worker": worker, "expires_s": expires_s}
        made: Document = self._post("tokens", asked)
        return made

    def invite_worker(self, expires_s: int) -> Document:
        """Make an enrolment for another machine and return it with where to join."""
        made: Document = self._post("workers/join-tokens", {"expires_s": expires_s})
        return made

    def remove_worker(self, name: str) -> Document:
        """Let a worker in no more. Raises NotFound, or Conflict for one that has the home's token."""
        removed: Document = self._post(f"workers/{segment(name)}/remove", {})
        return removed

    def list_tokens(self) -> list[Document]:
        """Return all tokens, also those that ended lately."""
        return list(self._pages("tokens", "tokens", "after", {}, None))

    def revoke_token(self, token_id: str) -> Document:
        """Let a token count no more, and return what is known of it. Raises NotFound."""
        revoked: Document = self._post(f"tokens/{segment(token_id)}/revoke", {})
        return revoked

    def job(self, job: Document) -> Document:
        """Return the job as it is now."""
        answer: Document = self._get(job_path(job))
        return answer

    def wait_end(self, named: Named, timeout_s: float | None) -> Document:
        """Wait on the server until it has ended, and return it. Raises TimedOut."""
        if named.whole_run:
            return self.wait_run(named.run["id"], named.run["generation"], timeout_s)[0]
        self.wait(f"{named.run['id']}/{named.document['id']}", timeout_s)
        return self.job(named.document)

    def retry_with(self, run_id: str, job_ids: list[str], scripts: dict[str, str]) -> Document:
        """Open the next generation of a run and return the run.

        `scripts`: source path -> SHA-256 of what the jobs that came from there run from now on. Raises Conflict.
        """
        asked: Document = {"job_ids": job_ids}
        if scripts:
            asked["scripts"] = scripts
        run: Document = self._post(f"runs/{run_id}/retry", asked)["run"]
        return run

    def send_file(self, digest: str, path: str) -> None:
        """Put the file at `path`, whose SHA-256 is `digest`, where jobs find their scripts."""
        self._put_blobs({digest: path})

    def log_piece(self, job: Document, offset: int, *, attempt: int | None = None, follow_s: float = 0.0) -> LogPiece:
        """Return the job's log from `offset` on, up to 1 MiB; with `follow_s` wait that long for something new."""
        query: Document = {"offset": offset, "limit": LOG_BYTES}
        if attempt is not None:
            query["attempt"] = attempt
        if follow_s:
            query["follow_s"] = follow_s
        answer = self._transport.call("GET", f"{job_path(job)}/log", query=query, wait_s=follow_s)
        return LogPiece(
            data=answer.body,
            missing=dropped_line(answer.headers),
            end=int(answer.headers["titan-log-next"]),
            total=int(answer.headers["titan-log-total"]),
            complete=answer.headers["titan-log-complete"] == "true",
        )


def job_path(job: Document) -> str:
    """Return where the API keeps a job."""
    return f"runs/{job['run_id']}/jobs/{job['id']}"
