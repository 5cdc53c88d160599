"""What a worker's owner allows, whatever its Master asks for.

It is said at the worker's start and nothing that comes over the link changes it. It bounds with what a job may be
started and for how long; what a program then does is bounded by the user it runs as.
"""

import os
from pathlib import Path

import msgspec

from titan.core.link import LENT_MAX
from titan.model.ids import job_id_problem, shown
from titan.model.limits import Limits
from titan.model.spec import JobSpec, spec_problems
from titan.model.wire import Grant
from titan.worker.workspace import script_name

# The word for the worker's own interpreter, which runs every `.py`.
PYTHON = "python"
# What the kernel reads of a program to find its interpreter.
_FIRST_BYTES = 256


class Policy(msgspec.Struct, frozen=True):
    """The bounds of one worker. `interpreters` (): any; else absolute paths, and PYTHON for the worker's own.

    `timeout_s_max`: no job runs longer, whether it has a timeout or not; None is no bound. At most `lent_max` jobs
    begin beyond the slots while others wait for runs below them.
    """

    interpreters: tuple[str, ...] = ()
    timeout_s_max: float | None = None
    lent_max: int = LENT_MAX

    def bounded(self, spec: JobSpec) -> JobSpec:
        """Return `spec` with no longer a timeout than is allowed."""
        if self.timeout_s_max is None or (spec.timeout_s is not None and spec.timeout_s <= self.timeout_s_max):
            return spec
        return msgspec.structs.replace(spec, timeout_s=self.timeout_s_max)

    def script_problem(self, spec: JobSpec, script: Path) -> str | None:
        """Say why this worker does not run the file `script`; None when it may. Raises OSError."""
        if not self.interpreters:
            return None
        named = PYTHON if script_name(spec).endswith(".py") else _interpreter(script)
        if named in self.interpreters:
            return None
        what = f"{shown(script_name(spec))} runs by {shown(named)}" if named else "it is a program without a #! line"
        return f"{what}: this worker allows {', '.join(self.interpreters)} only (--allow-interpreter)"


def grant_problem(grant: Grant, spec: JobSpec, limits: Limits) -> str | None:
    """Say why nothing may be started for this grant; None when it may.

    The Master has checked the same; but what names files and programs on this machine is checked on this machine.
    """
    if problems := spec_problems(spec, limits):
        return problems[0].message
    if not spec.script:
        return "its description names no script"
    told = (grant.token, grant.run_id, grant.job_id, grant.idempotency_key)
    if any("\0" in text for text in told):
        return "its grant holds a NUL character"
    return job_id_problem(grant.job_id)


def _interpreter(script: Path) -> str:
    """Return the program that the first line of `script` names; "" when none does."""
    descriptor = os.open(script, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        head = os.read(descriptor, _FIRST_BYTES)
    finally:
        os.close(descriptor)
    words = head[2:].split(b"\n", 1)[0].split(b"\0", 1)[0].split() if head.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else ""
