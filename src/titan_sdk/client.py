"""TitanClient: everything a program asks of a Master."""

from __future__ import annotations

import os

from titan_sdk.api import count, seconds, segment
from titan_sdk.discovery import Finder
from titan_sdk.errors import Invalid, TimedOut, TitanError
from titan_sdk.files import FileCalls
from titan_sdk.idempotency import call_key, sendable
from titan_sdk.job import TitanJob
from titan_sdk.logs import LogCalls
from titan_sdk.run import Run, run_id_of
from titan_sdk.store import StoreCalls
from titan_sdk.submission import Submission
from titan_sdk.transport import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Self

WAIT_S = 25.0


class TitanClient(StoreCalls, LogCalls, FileCalls):
    """A connection to a Master; any number of threads may use one.

    It finds host, port and token by itself: arguments, then `TITAN_URL` (a list allowed), `TITAN_HOST` and
    `TITAN_PORT`, then what `titan up` left in the home. Nothing is asked before the first call. A Master that is
    restarting is waited for; `timeout_s`, if given, is the most seconds that a call may be in trouble. `ca`
    is whom to trust behind an https address, over `TITAN_CA`: a file, or a `sha256:` fingerprint. Example::

        with TitanClient() as client:
            run = client.submit_job(TitanJob(job_id="hello", filename="hello.py"))
            print(run.wait().status, client.fetch_logs("hello"))
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        token: str | None = None,
        url: str | None = None,
        timeout_s: float | None = None,
        ca: str | None = None,
    ) -> None:
        if url and (host or port):
            raise Invalid("url= and host= or port= were both given", hint="give one of them")
        for name, value in (("host", host), ("token", token), ("url", url), ("ca", ca)):
            if value is not None and not isinstance(value, str):
                raise Invalid(f"{name} is {value!r}, of type {type(value).__name__}", hint=f"give {name}= as text")
        if port is not None and not (str(port).isdecimal() and int(port) < 65536):
            raise Invalid(f"port is {port!r}", hint="give port= as a number from 1 to 65535")
        seconds("timeout_s", timeout_s)
        if timeout_s is not None and timeout_s <= 0:
            raise Invalid(f"timeout_s is {timeout_s!r}", hint="give more than 0 seconds, or None")
        finder = Finder(host, port, token, url, ca=ca)
        self._transport = Transport(finder, timeout_s=timeout_s, in_job="TITAN_JOB_ID" in os.environ)

    def __repr__(self) -> str:
        try:
            return f"<TitanClient {self.url}>"
        except TitanError:
            return "<TitanClient>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, as the end of a `with` block does. Example: ``client.close()``."""
        self._transport.close()

    @property
    def url(self) -> str:
        """The Master's URL. Example: ``client.url == "http://127.0.0.1:9090"``."""
        return self._transport.base_url()

    # Submit.

    def submit_job(self, job: TitanJob, agent_run_id: str | None = None, idempotency_key: str | None = None) -> Run:
        """Submit one job, as a DAG of one that has the job's id as its name; see `submit_dag`.

        Example: ``client.submit_job(TitanJob(job_id="hello", filename="hello.py")).wait()``.
        """
        name = getattr(job, "job_id", "")
        if not isinstance(name, str):
            raise Invalid(f"job_id is {name!r}, of type {type(name).__name__}: give text")
        return self.submit_dag(name, [job], agent_run_id, idempotency_key)

    def submit_dag(
        self,
        name: str,
        jobs: Iterable[TitanJob],
        agent_run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Run:
        """Submit jobs and their order as one run. When it returns, the Master has all of it on disk.

        `agent_run_id` groups runs of one agent. `idempotency_key`: the same key with the same jobs gives the same
        run for seven days. Example: ``client.submit_dag("nightly", [extract, train])``. Raises Invalid with every
        problem (FileMissing, also a FileNotFoundError, when a file is nowhere).
        """
        if not isinstance(name, str):
            raise Invalid(f"the name of the DAG is {name!r}, of type {type(name).__name__}: give text")
        for what, text in (("agent_run_id", agent_run_id), ("idempotency_key", idempotency_key)):
            if text is not None and not isinstance(text, str):
                raise Invalid(f"{what} is {text!r}, of type {type(text).__name__}: give text")
        header: dict[str, Any] = {"name": name}
        if agent_run_id is not None:
            header["agent_run_id"] = agent_run_id
        submission = Submission(header, _listed(jobs))
        key = sendable(idempotency_key) if idempotency_key else call_key("submit", submission.digest)
        return self._submit("runs", submission, key)

    def submit_yaml(
        self,
        path: str | os.PathLike[str],
        agent_run_id: str | None = None,
        wait: bool = False,
        poll_interval: float = 2,  # noqa: ARG002 - old callers give it; the Master is waited for, not polled
        timeout: float | None = 300,
    ) -> Run:
        """Submit the pipeline file at `path`, with `wait` also wait for its end, however it ended.

        Scripts are looked for from the file's folder. `timeout` is in seconds and for the wait alone;
        `poll_interval` is accepted and not needed. Example: ``client.submit_yaml("etl.yaml", wait=True).status``.
        Raises Invalid with every problem of the file, its place and what was expected (FileMissing when the file or
        a script is nowhere), TimedOut when the wait ended first; the run goes on.
        """
        from titan_sdk.pipeline import read_pipeline

        pipeline = read_pipeline(path)
        try:
            run = self.submit_dag(pipeline.name, pipeline.jobs, agent_run_id)
        except Invalid as error:
            raise pipeline.placed(error) from None
        if pipeline.warnings:
            _warn(pipeline.warnings)
            run.warnings = (*pipeline.warnings, *run.warnings)
        return run.wait(timeout) if wait else run

    def extend_run(self, run: Run | str, jobs: Iterable[TitanJob]) -> Run:
        """Add jobs to a run that has not ended; their parents may be jobs of it that have finished.

        Example: ``client.extend_run(run, [TitanJob(job_id="more", filename="more.py", parents=["first"])])``.
        Raises Invalid as `submit_dag` does, Conflict when the run has ended.
        """
        run_id = run_id_of(run)
        path = f"runs/{segment(run_id)}/extend"
        submission = Submission({}, _listed(jobs))
        key = call_key("extend", run_id.encode("utf-8", "surrogatepass") + submission.digest)
        return self._submit(path, submission, key)

    def _submit(self, path: str, submission: Submission, key: str) -> Run:
        try:
            self._put_blobs(submission.scripts.large)
            answer = self._transport.call(
                "POST", path, body=submission.body, content_type=submission.content_type, key=key
            ).json()
        except Invalid as error:
            raise submission.merged(error) from None
        except TitanError:
            if submission.problems:
                raise submission.merged(None) from None
            raise
        if answer["warnings"]:
            _warn(answer["warnings"])
        return Run(self, answer["run"], answer["warnings"], answer["resolved"])

    # Observe.

    def get_run(self, id: str) -> Run:  # noqa: A002 - the word people use
        """Return the run with this id, a prefix of it (4 digits or more), `@last`, `@last-failed` or a run's name.

        Example: ``client.get_run("7f3a").status``. Raises NotFound, Conflict when the prefix fits several.
        """
        return Run(self, self._get(f"runs/{segment(id)}"))

    def list_runs(
        self, state: str | None = None, name: str | None = None, agent_run_id: str | None = None, limit: int = 100
    ) -> list[Run]:
        """Return the newest runs, at most `limit`, that have the given state, name and agent run.

        Each one's `info` is of now. Example: ``[run.name for run in client.list_runs(state="RUNNING")]``.
        """
        count("limit", limit)
        query = {"state": state, "name": name, "agent_run_id": agent_run_id}
        return [Run(self, info) for info in self._pages("runs", "runs", "before", query, limit)]

    # Wait.

    def wait(self, id: str, timeout: float | None = None) -> str:  # noqa: A002
        """Wait until a job or run has ended; return its final state. `timeout` is in seconds.

        Example: ``client.wait("train_model", timeout=60) == "COMPLETED"``. Raises TimedOut, NotFound.
        """
        found = self.lookup(id)
        if found["job_id"] is None:
            return str(self.wait_run(found["run_id"], None, timeout)[0]["state"])
        path = f"runs/{found['run_id']}/jobs/{segment(found['job_id'])}/wait"
        return str(self._ask_until_done(path, lambda _: {}, "job", f"job {found['job_id']}", timeout)["state"])

    def wait_run(self, run_id: str, generation: int | None, timeout: float | None) -> tuple[dict[str, Any], int]:
        """Wait until a generation of a run (None: the current one) has ended; return the run and the generation.

        Example: ``client.wait_run(run.id, None, 60)``. Raises TimedOut.
        """
        waited = [generation]

        def query(run: dict[str, Any] | None) -> dict[str, Any]:
            if waited[0] is None and run is not None:
                waited[0] = run["generation"]
            return {"generation": waited[0]}

        run = self._ask_until_done(f"runs/{run_id}/wait", query, "run", f"run {run_id[:8]}", timeout)
        return run, waited[0] or run["generation"]

    def _ask_until_done(
        self,
        path: str,
        query: Callable[[dict[str, Any] | None], dict[str, Any]],
        field: str,
        what: str,
        timeout: float | None,
    ) -> dict[str, Any]:
        seconds("timeout", timeout)
        clock = self._transport.clock
        give_up_at = None if timeout is None else clock.now() + timeout
        view: dict[str, Any] | None = None
        while True:
            left_s = WAIT_S if give_up_at is None else min(WAIT_S, max(0.0, give_up_at - clock.now()))
            answer = self._get(path, {**query(view), "timeout_s": round(left_s, 3)}, wait_s=left_s)
            view = answer[field]
            if answer["done"]:
                return view
            if give_up_at is not None and clock.now() >= give_up_at:
                raise TimedOut(
                    f"{what} is {view['state']} after {timeout:g} s", hint="it goes on; wait again for its end"
                )

    # Act.

    def cancel(self, id: str) -> dict[str, Any]:  # noqa: A002
        """Ask that a run, or a job with all that depends on it, ends; return it as it is now.

        Jobs that run are stopped: TERM, 10 s, KILL. Example: ``client.cancel("train_model")["state"]``.
        Raises NotFound.
        """
        found = self.lookup(id)
        path = f"runs/{found['run_id']}"
        if found["job_id"] is not None:
            path += f"/jobs/{segment(found['job_id'])}"
        answer = self._post(f"{path}/cancel", {})
        view: dict[str, Any] = answer["run" if found["job_id"] is None else "job"]
        return view

    def drain_worker(self, name: str) -> dict[str, Any]:
        """Have a worker finish what it runs and take nothing more, and return it as it is now.

        Started again it is as new. Example: ``client.drain_worker("host-1")["running"]``. Raises NotFound.
        """
        answer: dict[str, Any] = self._post(f"workers/{segment(name)}/drain", {})
        return answer

    def retry(self, run: Run | str, failed: bool = True, jobs: Iterable[str] = ()) -> Run:
        """Open the next generation of a run that has ended, and return it.

        Its FAILED, DEAD and CANCELLED jobs start again with all that depends on them; with `jobs` those named; with
        ``failed=False`` all. Example: ``client.retry("7f3a").wait()``. Raises Conflict when it has not ended.
        """
        if isinstance(jobs, str):
            raise Invalid(f"jobs is the text {jobs!r}: give a list of job ids", hint=f"jobs=[{jobs!r}]")
        if not hasattr(jobs, "__iter__"):
            raise Invalid(f"jobs is {jobs!r}, of type {type(jobs).__name__}", hint="give a list of job ids")
        job_ids = list(jobs)
        if not failed and not job_ids:
            job_ids = [job["id"] for job in self.list_jobs(run) if not job["parents"]]
        answer = self._post(f"runs/{segment(run_id_of(run))}/retry", {"job_ids": job_ids})
        return Run(self, answer["run"])


def _warn(warnings: Iterable[str]) -> None:
    import logging

    logging.getLogger("titan_sdk").warning("%s", "\n".join(warnings))


def _listed(jobs: Iterable[TitanJob]) -> list[TitanJob]:
    if isinstance(jobs, TitanJob) or not hasattr(jobs, "__iter__"):
        raise Invalid(f"jobs is of type {type(jobs).__name__}: give a list of TitanJob objects")
    return list(jobs)
