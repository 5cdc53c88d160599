"""What a Master knows: jobs and runs by the names people type, reasons, workers, counters, live events."""

from __future__ import annotations

from titan_sdk.api import Api, segment, text_of_id
from titan_sdk.errors import NotFound
from titan_sdk.feeds import follow
from titan_sdk.run import Run, run_id_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class ObserveCalls(Api):
    """The calls of TitanClient that look and change nothing."""

    def list_jobs(self, run: Run | str, state: str | None = None) -> list[dict[str, Any]]:
        """Return the jobs of a run, in the order of submission; `state` may also be PENDING.

        Example: ``[job["id"] for job in client.list_jobs(run, state="FAILED")]``. Raises NotFound.
        """
        return list(self._pages(f"runs/{segment(run_id_of(run))}/jobs", "jobs", "after", {"state": state}, None))

    def lookup(self, id: str) -> dict[str, Any]:  # noqa: A002
        """Return what a text names: a dict with `run_id`, `job_id`, `run` and `job` (None when it is a whole run).

        `run/job`; inside a job an id in its own run, then in those above; else the newest run with such a job; else a
        run's id or prefix. A leading ``DAG-`` may stand. Example: ``client.lookup("train_model")["run_id"]``.
        """
        found: dict[str, Any] = self._get("jobs/lookup", {"id": text_of_id(id)})
        return found

    def find_job(self, id: str) -> tuple[str, str]:  # noqa: A002
        """Return (run id, job id) of the job a text names. Example: ``client.find_job("DAG-train_model")``.

        A run with a single job stands for it. Raises NotFound.
        """
        found = self.lookup(id)
        if found["job_id"] is not None:
            return found["run_id"], found["job_id"]
        if found["run"]["jobs"]["total"] == 1:
            return found["run_id"], self.list_jobs(found["run_id"])[0]["id"]
        raise NotFound(f"{id!r} is a run of several jobs, not a job", hint=f"name one: {found['run_id'][:8]}/JOB")

    def get_job_status(self, id: str) -> str:  # noqa: A002
        """Return the state of a job, or of a run, as one word.

        BLOCKED, DELAYED, QUEUED, ASSIGNED, RUNNING, WAITING, or final: COMPLETED, FAILED, CANCELLED, DEAD.
        Example: ``client.get_job_status("train_model")``. Raises NotFound.
        """
        found = self.lookup(id)
        return str((found["job"] or found["run"])["state"])

    def explain(self, id: str) -> dict[str, Any]:  # noqa: A002
        """Say why a job is where it is: `reason` (a constant), `message`, and `remedy`, what would unblock it.

        Example: ``print(client.explain("train_model")["message"])``. Raises NotFound.
        """
        run_id, job_id = self.find_job(id)
        found: dict[str, Any] = self._get(f"runs/{run_id}/jobs/{segment(job_id)}/explain")
        return found

    def list_workers(self) -> list[dict[str, Any]]:
        """Return the workers the Master knows, with capabilities and slots. Example: ``client.list_workers()``."""
        workers: list[dict[str, Any]] = self._get("workers")["workers"]
        return workers

    def stats(self) -> dict[str, Any]:
        """Return counters: live runs and jobs by state, workers, slots. Example: ``client.stats()["slots_free"]``."""
        found: dict[str, Any] = self._get("stats")
        return found

    def events(self, after: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield what happens to runs, jobs and workers, each a dict with `id` and `kind`, without end.

        `after`: go on behind the event with that id. Kind "resync": some may have been missed, read anew.
        Example: ``for event in client.events(): print(event)``.
        """
        return follow(self._transport, "events", {}, after)
