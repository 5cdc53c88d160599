"""Rows as the outside sees them."""

from titan.core.rows import AttemptRow, JobRow, RunRow
from titan.model.spec import decode_spec
from titan.model.states import FINAL_JOB_STATES, FINAL_RUN_STATES
from titan.model.views import AttemptView, JobCounts, JobView, RunView, iso_time


def run_view(row: RunRow) -> RunView:
    """Return the view of a run."""
    return RunView(
        id=row.run_id,
        name=row.name,
        state=row.state,
        generation=row.generation,
        agent_run_id=row.agent_run_id,
        root_run_id=row.root_run_id,
        parent_run_id=row.parent_run_id,
        parent_job_id=row.parent_job_id,
        created_at=iso_time(row.created_ms),
        started_at=iso_time(row.started_ms),
        ended_at=iso_time(row.ended_ms),
        jobs=JobCounts(
            total=row.jobs_total,
            completed=row.jobs_completed,
            failed=row.jobs_failed,
            cancelled=row.jobs_cancelled,
            dead=row.jobs_dead,
        ),
        cancelling=row.cancel_requested and row.state not in FINAL_RUN_STATES,
    )


def job_view(row: JobRow) -> JobView:
    """Return the view of a job; its spec is decoded here and nowhere before."""
    spec = decode_spec(row.spec)
    return JobView(
        id=row.job_id,
        run_id=row.run_id,
        state=row.state,
        reason=row.reason,
        generation=row.generation,
        attempt=row.attempt,
        fence=str(row.fence),
        worker=row.worker,
        filename=spec.filename,
        script=spec.script,
        source_path=spec.source_path,
        job_type=spec.job_type,
        args=spec.args,
        parents=spec.parents,
        requirement=spec.requirement,
        priority=spec.priority,
        delay_ms=spec.delay_ms,
        affinity=spec.affinity,
        retries=spec.retries,
        retry_backoff_s=spec.retry_backoff_s,
        timeout_s=spec.timeout_s,
        lease_s=spec.lease_s,
        on_lost=spec.on_lost,
        reap=spec.reap,
        warm=spec.warm,
        env_names=tuple(spec.env),
        failures=row.failures,
        losses=row.losses,
        exit_code=row.exit_code,
        cancelling=row.cancel_requested and row.state not in FINAL_JOB_STATES,
        due_at=iso_time(row.due_ms),
        ready_at=iso_time(row.ready_ms),
        started_at=iso_time(row.started_ms),
        ended_at=iso_time(row.ended_ms),
    )


def attempt_view(row: AttemptRow) -> AttemptView:
    """Return the view of one attempt."""
    return AttemptView(
        attempt=row.attempt,
        generation=row.generation,
        fence=str(row.fence),
        state=row.state,
        worker=row.worker,
        granted_at=iso_time(row.granted_ms),
        started_at=iso_time(row.started_ms),
        ended_at=iso_time(row.ended_ms),
        exit_code=row.exit_code,
        signal=row.signal,
        cause=row.cause,
        log_bytes=row.log_bytes,
        start=row.start,
    )
