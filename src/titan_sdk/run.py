"""The handle of one run."""

from __future__ import annotations

from titan_sdk.errors import RunFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from titan_sdk.client import TitanClient

ENDED = ("COMPLETED", "FAILED", "CANCELLED")


class Run:
    """One run, that is one submission of a DAG.

    Example::

        run = client.submit_dag("nightly", jobs)
        run.wait(timeout=600).raise_for_status()

    `info` is what the Master said last, as a dict. `warnings` and `resolved` are those of the submission: what will
    keep jobs waiting, and which files were taken from the Master's registry ("registry", "own script").
    """

    def __init__(
        self,
        client: TitanClient,
        info: Mapping[str, Any],
        warnings: Sequence[str] = (),
        resolved: Mapping[str, str] | None = None,
    ) -> None:
        self.info = dict(info)
        self.warnings = tuple(warnings)
        self.resolved = dict(resolved or {})
        self._client = client
        self._generation: int | None = None

    @property
    def id(self) -> str:
        """The run's id, 32 hex digits. Example: ``client.get_run(run.id)``."""
        return str(self.info["id"])

    @property
    def name(self) -> str:
        """The DAG's name. Example: ``run.name``."""
        return str(self.info["name"])

    @property
    def url(self) -> str:
        """Its page at the Master. Example: ``print(run.url)``."""
        return f"{self._client.url}/runs/{self.id}"

    @property
    def status(self) -> str:
        """Its state now, asked anew: QUEUED, RUNNING, COMPLETED, FAILED or CANCELLED. Example: ``run.status``."""
        return self._refreshed()

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """Its jobs now, each a dict, in the order of submission. Example: ``[job["state"] for job in run.jobs]``."""
        return self._client.list_jobs(self)

    def wait(self, timeout: float | None = None) -> Run:
        """Wait until it has ended, however it ended, and return it.

        The wait is for the generation that was current at the first call; `retry` moves it on. `timeout` is in
        seconds. A job that waits for a run it has submitted lends its slot meanwhile.
        Example: ``run.wait(timeout=600)``. Raises TimedOut, and the run goes on.
        """
        self.info, self._generation = self._client.wait_run(self.id, self._generation, timeout)
        return self

    def raise_for_status(self) -> Run:
        """Raise RunFailed if it is FAILED or CANCELLED now, else return it. Example: ``run.raise_for_status()``."""
        state = self._refreshed()
        if state not in ("FAILED", "CANCELLED"):
            return self
        counts = self.info["jobs"]
        told = ", ".join(
            f"{counts[word]} {word}" for word in ("completed", "failed", "dead", "cancelled") if counts[word]
        )
        raise RunFailed(
            f"run {self.id[:8]} {self.name!r} is {state}: {told or 'no job has ended'} of {counts['total']}",
            hint="see run.jobs and run.logs(job_id); run.retry() tries again what did not complete",
        )

    def logs(self, job: str) -> str:
        """Return the log of one of its jobs. Example: ``run.logs("train_model")``. Raises NotFound."""
        return self._client.fetch_logs(f"{self.id}/{job}")

    def cancel(self) -> Run:
        """Ask for its end; running jobs are stopped. Example: ``run.cancel().wait()``."""
        self.info = self._client.cancel(self.id)
        return self

    def retry(self, failed: bool = True) -> Run:
        """Open its next generation and return it; see `TitanClient.retry`. Example: ``run.retry().wait()``."""
        again = self._client.retry(self, failed=failed)
        self.info = again.info
        self._generation = None
        return self

    def _refreshed(self) -> str:
        self.info = self._client.get_run(self.id).info
        return str(self.info["state"])

    def __repr__(self) -> str:
        return f"<Run {self.id[:8]} {self.name!r} {self.info['state']}>"

    def _repr_html_(self) -> str:
        from html import escape

        counts = self.info["jobs"]
        bad = [f"{counts[word]} {word}" for word in ("failed", "dead", "cancelled") if counts[word]]
        short = self.id[:8]
        row = {
            "run": short,
            "name": self.name,
            "state": self.info["state"],
            "jobs": ", ".join([f"{counts['completed']} of {counts['total']} completed", *bad]),
            "more": f"titan show {short}",
        }
        head = "".join(f"<th>{word}</th>" for word in row)
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in row.values())
        return f"<table><tr>{head}</tr><tr>{cells}</tr></table>"


def run_id_of(run: Run | str) -> str:
    """Return the id of a handle, and a text as it is."""
    return run.id if isinstance(run, Run) else run
