"""The exit codes, and which error leaves with which."""

import enum

from titan_sdk.errors import TitanError


class Exit(enum.IntEnum):
    """What a shell script may rely on; the same for every command but `titan run`, which passes the script's own."""

    OK = 0
    RUN_FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    DENIED = 5
    INVALID = 6
    TIMED_OUT = 7
    CANCELLED = 8
    OURS = 125
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANING = {
    Exit.OK: "done",
    Exit.RUN_FAILED: "the run or job ended FAILED or DEAD",
    Exit.USAGE: "the command was not understood",
    Exit.NOT_FOUND: "no such run, job, key or file",
    Exit.UNREACHABLE: "no Master answered, or it cannot answer now",
    Exit.DENIED: "no token, or one that may not do this",
    Exit.INVALID: "refused: invalid, in conflict with the present state, or Titan could not start",
    Exit.TIMED_OUT: "the wait ended first",
    Exit.CANCELLED: "the run or job was cancelled",
    Exit.OURS: "a fault of Titan; from `titan run` everything that is not the script's own exit code",
    Exit.INTERRUPTED: "interrupted by Ctrl+C",
    Exit.BROKEN_PIPE: "whoever read the output went away",
}

_BY_CODE = {
    "not_found": Exit.NOT_FOUND,
    "file_not_found": Exit.NOT_FOUND,
    "denied": Exit.DENIED,
    "unauthenticated": Exit.DENIED,
    "unreachable": Exit.UNREACHABLE,
    "unavailable": Exit.UNREACHABLE,
    "rate_limited": Exit.UNREACHABLE,
    "storage_full": Exit.UNREACHABLE,
    "timed_out": Exit.TIMED_OUT,
    "run_failed": Exit.RUN_FAILED,
    "internal": Exit.OURS,
}

_BY_STATE = {
    "COMPLETED": Exit.OK,
    "FAILED": Exit.RUN_FAILED,
    "DEAD": Exit.RUN_FAILED,
    "CANCELLED": Exit.CANCELLED,
}


def exit_of_error(error: TitanError) -> Exit:
    """Return the exit code of `error`; what has none of its own is a refusal of what was asked."""
    return _BY_CODE.get(error.code, Exit.INVALID)


def exit_of_state(state: str) -> Exit:
    """Return the exit code that tells how a run or job ended. Raises KeyError for a state that is not final."""
    return _BY_STATE[state]
