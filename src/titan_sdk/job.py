"""One job as a person writes it down. It records; `submit_*` reads files and has everything checked."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from typing import Any

GENERAL = "GENERAL"
GATE_WAIT_S = 172_800


# Parameters of features that do not exist yet, refused by name: an ignored gate would skip a person's approval.
LATER = {
    "hitl_message": "human approval gates",
    "max_wait_seconds": "human approval gates",
    "port": "services",
    "is_archive": "project archives",
    "inputs": "declared inputs",
    "outputs": "declared outputs",
    "secrets": "secrets",
    "python": "a job's own interpreter",
    "packages": "a job's own packages",
}


class TitanJob:
    """A unit of work: a Python file, or any executable file with a shebang line.

    Nothing is read or checked here; `submit_job` and `submit_dag` do that and list all problems at once. Every
    argument is an attribute of the same name and may be changed until the job is submitted.

    job_id: 1 to 128 of ``A-Z a-z 0-9 . _ -``, unique in its DAG.
    filename: looked for on this disk, then among the files uploaded to the Master.
    job_type: ``RUN_PAYLOAD`` or ``TASK``; both run the file.
    args: text, split as a shell would, or a list, passed exactly as it is.
    parents: ids of jobs that must have COMPLETED first.
    priority: 0 to 1000, higher goes first.
    delay: milliseconds, or text such as ``"2s"``, counted from when the parents are done.
    affinity, affinity_wait_s: run on the worker of the parent that finished last, and how long to wait for it.
    requirement: a capability, or a list of which all must match.
    script_content: the script itself (text or bytes), instead of reading `filename`.
    retries, retry_backoff_s: how often a failed job is tried again, and the first pause in seconds.
    timeout_s: seconds one attempt may run (None: no limit).
    lease_s: seconds a silent worker keeps the job.
    on_lost: ``"retry"``, or ``"fail"`` when it must never start twice.
    env: environment variables of the job.
    reap: reap orphans below the job's main process, so that its ``os.wait()`` sees its own children only.

    warm: ``False``: an interpreter of its own, although the worker could start it warm.

    The others belong to features that come later; the Master refuses them, by name, when they are set.
    Example::

        TitanJob(job_id="train", filename="ml/train.py", args=["--epochs", "3"], parents=["extract"], priority=5)
    """

    def __init__(
        self,
        job_id: str,
        filename: str | os.PathLike[str],
        job_type: str = "RUN_PAYLOAD",
        args: str | Sequence[str] | None = None,
        parents: Sequence[str] | None = None,
        port: int = 0,
        is_archive: bool = False,
        priority: int = 1,
        delay: int | str = 0,
        affinity: bool = False,
        requirement: str | Sequence[str] = GENERAL,
        hitl_message: str | None = None,
        max_wait_seconds: int = GATE_WAIT_S,
        *,
        script_content: str | bytes | None = None,
        retries: int = 0,
        retry_backoff_s: float = 1.0,
        timeout_s: float | None = None,
        lease_s: int = 60,
        on_lost: str = "retry",
        env: Mapping[str, str] | None = None,
        affinity_wait_s: float = 60.0,
        reap: bool = False,
        warm: bool = True,
        inputs: Any = None,
        outputs: Any = None,
        secrets: Any = None,
        python: Any = None,
        packages: Any = None,
    ) -> None:
        self.job_id = job_id
        self.filename = filename
        self.job_type = job_type
        self.args = args
        self.parents = parents
        self.port = port
        self.is_archive = is_archive
        self.priority = priority
        self.delay = delay
        self.affinity = affinity
        self.requirement = requirement
        self.hitl_message = hitl_message
        self.max_wait_seconds = max_wait_seconds
        self.script_content = script_content
        self.retries = retries
        self.retry_backoff_s = retry_backoff_s
        self.timeout_s = timeout_s
        self.lease_s = lease_s
        self.on_lost = on_lost
        self.env = env
        self.affinity_wait_s = affinity_wait_s
        self.reap = reap
        self.warm = warm
        self.inputs = inputs
        self.outputs = outputs
        self.secrets = secrets
        self.python = python
        self.packages = packages

    def __repr__(self) -> str:
        """Return the call that makes this job, with its id and file only."""
        return f"TitanJob(job_id={self.job_id!r}, filename={self.filename!r})"
