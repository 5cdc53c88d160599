"""Rows as the core would write them, one call each; what a test is about is named in the call."""

from typing import Any

from titan.core.changes import Insert, Update
from titan.core.rows import AttemptRow, JobRow, RunRow
from titan.model.states import AttemptState, JobState, RunState

RUN = "a" * 32


def run_values(run_id: str = RUN, **given: Any) -> dict[str, Any]:
    values = {
        "run_id": run_id, "name": "nightly", "state": RunState.QUEUED, "generation": 1, "agent_run_id": run_id,
        "root_run_id": run_id, "parent_run_id": None, "parent_job_id": None, "created_ms": 1_000, "started_ms": None,
        "ended_ms": None, "cancel_requested": False, "cancelled_on_request": False, "jobs_total": 1,
        "jobs_completed": 0, "jobs_failed": 0, "jobs_cancelled": 0, "jobs_dead": 0, "parent_fence": 0, "opening": None,
    }  # fmt: skip
    assert set(values) == set(RunRow.__struct_fields__)
    return values | given


def job_values(job_id: str = "extract", run_id: str = RUN, **given: Any) -> dict[str, Any]:
    values = {
        "run_id": run_id, "job_id": job_id, "ordinal": 0, "spec": b"spec", "filename": "extract.py", "priority": 1,
        "requirement": "GENERAL", "state": JobState.QUEUED, "reason": "", "generation": 1, "attempt": 0, "fence": 0,
        "worker": "", "failures": 0, "losses": 0, "due_ms": None, "cancel_requested": False, "affinity_worker": "",
        "exit_code": None, "ready_ms": 1_000, "started_ms": None, "ended_ms": None,
    }  # fmt: skip
    assert set(values) == set(JobRow.__struct_fields__)
    return values | given


def attempt_values(fence: int = 1, job_id: str = "extract", run_id: str = RUN, **given: Any) -> dict[str, Any]:
    values = {
        "fence": fence, "run_id": run_id, "job_id": job_id, "generation": 1, "attempt": 1, "worker": "w1",
        "incarnation": "i1", "boot_id": "b1", "state": AttemptState.ASSIGNED, "lease_s": 60, "lease_until_ms": None,
        "granted_ms": 2_000, "started_ms": None, "ended_ms": None, "exit_code": None, "signal": 0, "cause": "",
        "log_bytes": 0, "start": "",
    }  # fmt: skip
    assert set(values) == set(AttemptRow.__struct_fields__)
    return values | given


def new_run(run_id: str = RUN, **given: Any) -> Insert:
    return Insert("runs", run_values(run_id, **given))


def new_job(job_id: str = "extract", run_id: str = RUN, **given: Any) -> Insert:
    return Insert("jobs", job_values(job_id, run_id, **given))


def new_attempt(fence: int = 1, job_id: str = "extract", run_id: str = RUN, **given: Any) -> Insert:
    return Insert("attempts", attempt_values(fence, job_id, run_id, **given))


def new_edge(job_id: str, parent_id: str, run_id: str = RUN) -> Insert:
    return Insert("edges", {"run_id": run_id, "job_id": job_id, "parent_id": parent_id})


def assign(job_id: str, fence: int, run_id: str = RUN, expect_fence: int = 0) -> Update:
    expect = {"state": JobState.QUEUED, "fence": expect_fence, "generation": 1}
    values = {"state": JobState.ASSIGNED, "fence": fence, "attempt": 1, "worker": "w1"}
    return Update("jobs", (run_id, job_id), expect, values)


def number_of_id(number: int) -> str:
    """Return a run id that is different for each number."""
    return f"{number:08x}" * 4
