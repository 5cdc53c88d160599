"""What an end is called: exit codes as a shell gives them, causes, and the `[titan]` lines of the log."""

import errno
import os
import signal

from titan.model.spec import JobSpec
from titan.model.wire import (
    CAUSE_CANCELLED,
    CAUSE_LEASE,
    CAUSE_LOST,
    CAUSE_OUT_OF_MEMORY,
    CAUSE_START_FAILED,
    CAUSE_TIMEOUT,
    CAUSE_WORKER_STOP,
    Ended,
)
from titan.worker.launcher import frames
from titan.worker.workspace import script_name

CAUSES = {
    frames.CAUSE_NONE: "",
    frames.CAUSE_CANCELLED: CAUSE_CANCELLED,
    frames.CAUSE_TIMEOUT: CAUSE_TIMEOUT,
    frames.CAUSE_LEASE: CAUSE_LEASE,
    frames.CAUSE_WORKER_STOP: CAUSE_WORKER_STOP,
    frames.CAUSE_OUT_OF_MEMORY: CAUSE_OUT_OF_MEMORY,
}
CODES = {cause: code for code, cause in CAUSES.items()}

# The machine's trouble: another worker, or this one later, may well start the same job.
MACHINE_FAULTS = frozenset(
    {errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.EDQUOT, errno.EIO, errno.EROFS}
)


def named(spec: JobSpec, report: frames.Report) -> tuple[Ended, str] | None:
    """Return the end that a launcher's ENDED or NOT_STARTED report means, as `end_of` does.

    None: nothing began, by a fault of the machine and not of the job.
    """
    if report.kind == frames.ENDED:
        return end_of(spec, report)
    if report.b != frames.STAGE_EXEC or report.a in MACHINE_FAULTS:
        return None
    return start_failure(report.fence, report.at_ms, script_name(spec), report.a, report.b)


def end_of(spec: JobSpec, report: frames.Report) -> tuple[Ended, str]:
    """Return the `Ended` for a launcher's ENDED report, without its `log_bytes`, and what its log says last."""
    status = report.a
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    cause = CAUSES[report.b]
    ended = Ended(
        fence=report.fence,
        exit_code=128 + number if number else os.WEXITSTATUS(status),
        signal=number,
        cause=cause,
        at_ms=report.at_ms,
    )
    lines = [_line(spec, cause, number), _leftovers(report.killed)]
    return ended, "\n[titan] ".join(line for line in lines if line)


def _line(spec: JobSpec, cause: str, number: int) -> str:
    if cause == CAUSE_TIMEOUT:
        return f"killed: timeout after {spec.timeout_s:g} s"
    if cause == CAUSE_OUT_OF_MEMORY:
        return "killed: OutOfMemory"
    if cause == CAUSE_CANCELLED:
        return "killed: cancelled"
    if cause == CAUSE_WORKER_STOP:
        return "killed: its worker was stopped"
    if cause == CAUSE_LEASE:
        return f"killed: no contact with the Master, lease of {spec.lease_s} s"
    if number:
        return f"killed by {_signal_name(number)} ({_signal_word(number)})"
    return ""


def _leftovers(killed: int) -> str:
    if not killed:
        return ""
    return f"killed {killed} process{'es' if killed > 1 else ''} the job left behind"


def start_failure(fence: int, at_ms: int, name: str, code: int, stage: int) -> tuple[Ended, str]:
    """Return the `Ended` of a program that could not be executed, and the line that says why."""
    exit_code = 127 if code == errno.ENOENT else 126
    reason = os.strerror(code)
    if stage == frames.STAGE_EXEC and code == errno.ENOENT:
        reason = "the interpreter named in its first line is not on this machine"
    elif stage == frames.STAGE_EXEC and code == errno.ENOEXEC:
        reason = "it has no first line like #!/bin/sh that names its interpreter"
    return not_started(fence, at_ms, exit_code, f"could not start {name}: {reason}")


def not_started(fence: int, at_ms: int, exit_code: int, line: str) -> tuple[Ended, str]:
    """Return the `Ended` of a job that never ran, by a fault of its own, and `line`."""
    return Ended(fence=fence, exit_code=exit_code, cause=CAUSE_START_FAILED, at_ms=at_ms, detail=line), line


def lost(fence: int, at_ms: int) -> tuple[Ended, str]:
    """Return the `Ended` of a job that was killed with what watched it, and no line."""
    return Ended(fence, 128 + 9, 9, CAUSE_LOST, at_ms=at_ms), ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _signal_word(number: int) -> str:
    # The word that readers of logs look for, where the system says "Segmentation fault".
    if number == signal.SIGSEGV:
        return "Segfault"
    return signal.strsignal(number) or "unknown"
