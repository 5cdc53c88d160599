"""Everything that can go wrong, as one tree of exceptions with stable codes.

    TitanError                     catch this to catch them all
    |-- NotFound                   no such run, job, file or key
    |-- Denied                     the token may not do this
    |   `-- Unauthenticated        no token, or one nobody made
    |-- Invalid                    what was sent cannot be accepted; `problems` lists everything
    |   `-- FileMissing            a named file is nowhere; also a builtin FileNotFoundError
    |-- Conflict                   right in itself, but not in the present state
    |-- Unreachable                no Master answered; also a builtin ConnectionError
    |-- TimedOut                   a wait ended first; also a builtin TimeoutError
    |-- RunFailed                  a run ended FAILED or CANCELLED, from `Run.raise_for_status()`
    |-- Unavailable                the Master cannot answer now; `retry_after_s` says when to ask again
    |-- StorageFull                the Master's disk is full
    `-- Internal                   a fault of ours; `request_id` finds it in the Master's log

`BY_CODE` is the one table of codes: the exception's class, the HTTP status, and what it means. The Master
answers with `to_problem` (application/problem+json) and the client raises `from_problem`, so an error is
the same thing on both sides. `str(error)` says what happened, why, and what to do next.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

PROBLEMS_SHOWN_MAX = 20


class TitanError(Exception):
    """Any error of Titan.

    `code` is stable and one of BY_CODE; `message` says what happened and why; `hint` what to do next ("" when
    there is nothing to say). `problems` are dicts with `code`, `message` and, where known, `job_id` and
    `field`; those of a pipeline file also have its `place` (file:line:column) and an `excerpt`.
    `retry_after_s` is set where asking again may help. Example::

        try:
            client.submit_job(job)
        except TitanError as error:
            print(error.code, error.hint)
    """

    code = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str = "",
        problems: Sequence[Mapping[str, str]] = (),
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        """Record what happened. `code` defaults to that of the class."""
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.hint = hint
        self.problems = tuple(dict(problem) for problem in problems)
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        """The HTTP status of this error's code, for example 404."""
        return BY_CODE[self.code][1] if self.code in BY_CODE else 500

    def __str__(self) -> str:
        """Say what, why and next: the message, each problem on a line, the hint."""
        lines = [self.message]
        shown = [problem for problem in self.problems if problem.get("message", "") != self.message]
        for problem in shown[:PROBLEMS_SHOWN_MAX]:
            where = [problem[key] for key in ("place", "job_id") if problem.get(key)]
            lines.append(f"  - {': '.join([*where, problem.get('message', '')])}")
            lines += [f"    {line}" for line in problem.get("excerpt", "").splitlines()]
        if len(shown) > PROBLEMS_SHOWN_MAX:
            lines.append(f"  - and {len(shown) - PROBLEMS_SHOWN_MAX} more: see error.problems")
        if self.hint:
            lines.append(f"Next: {self.hint}")
        if self.request_id and self.status >= 500:
            lines.append(f"(request {self.request_id})")
        return "\n".join(lines)


class NotFound(TitanError):
    """No such run, job or file. Example: ``client.get_run("ffff")`` where nothing begins with ffff."""

    code = "not_found"


class Denied(TitanError):
    """The token is known but may not do this. Example: a job's token cancels a run that is not below its own."""

    code = "denied"


class Unauthenticated(Denied):
    """No token was sent, or one the Master did not make. Example: ``TitanClient(token="wrong").stats()``."""

    code = "unauthenticated"


class Invalid(TitanError):
    """It cannot be accepted as it is; `problems` lists all that is wrong. Example: a DAG with a cycle."""

    code = "invalid"


class FileMissing(Invalid, FileNotFoundError):
    """A named file is neither on this disk nor at the Master. Example: ``except FileNotFoundError`` catches it."""

    code = "file_not_found"


class Conflict(TitanError):
    """Right in itself, but not now. Example: ``client.extend_run(run, jobs)`` on a run that has ended."""

    code = "conflict"


class Unreachable(TitanError, ConnectionError):
    """No Master answered within the patience of the client. Example: `titan up` is not running."""

    code = "unreachable"


class TimedOut(TitanError, TimeoutError):
    """A wait ended before what it waited for. Example: ``run.wait(timeout=1)`` on a long run."""

    code = "timed_out"


class RunFailed(TitanError):
    """A run ended FAILED or CANCELLED. Example: ``run.wait().raise_for_status()``."""

    code = "run_failed"


class Unavailable(TitanError):
    """The Master is starting, stopping or overloaded. Example: it kept answering 503 for 30 s."""

    code = "unavailable"


class StorageFull(TitanError):
    """The Master's disk is full; what was asked is not done. Example: ``client.store_put("k", big)``."""

    code = "storage_full"


class Internal(TitanError):
    """A fault of Titan itself. Example: please report it with `error.request_id`."""

    code = "internal"


BY_CODE: dict[str, tuple[type[TitanError], int, str]] = {
    "not_found": (NotFound, 404, "no such run, job, worker, file or route"),
    "denied": (Denied, 403, "the token's role does not allow this"),
    "unauthenticated": (Unauthenticated, 401, "no token, or one this Master did not make"),
    "invalid": (Invalid, 422, "a value cannot be accepted; every problem is listed"),
    "unsupported": (Invalid, 422, "the parameter or job type belongs to a feature this version does not have"),
    "too_large": (Invalid, 413, "over a limit, which is named"),
    "file_not_found": (FileMissing, 422, "a file is neither on the caller's disk nor in the Master's registry"),
    "conflict": (Conflict, 409, "not possible in the present state of the run, job or key"),
    "in_progress": (Conflict, 409, "the same request is being worked on; ask again after `retry_after_s`"),
    "name_taken": (Conflict, 409, "another worker was let in under that name"),
    "key_reused": (Conflict, 409, "the idempotency key was used before for another request"),
    "unavailable": (Unavailable, 503, "the Master is starting, stopping, reloading or full of waits"),
    "rate_limited": (Unavailable, 429, "too many requests of one kind came at once; ask again after `retry_after_s`"),
    "storage_full": (StorageFull, 507, "the Master's disk is full"),
    "internal": (Internal, 500, "a fault of Titan; `request_id` finds it in the Master's log"),
    "unreachable": (Unreachable, 502, "no Master answered within the client's patience"),
    "timed_out": (TimedOut, 504, "a wait ended before what it waited for"),
    "run_failed": (RunFailed, 424, "`raise_for_status()` of a run that ended FAILED or CANCELLED"),
}
BY_THE_CLIENT = frozenset({"unreachable", "timed_out", "run_failed"})  # no Master answers with these


def error_of(code: str, message: str, **fields: Any) -> TitanError:
    """Return (not raise) the exception for `code`; an unknown code, from a newer Master, becomes a TitanError.

    `fields` are the keyword arguments of TitanError. Example: ``raise error_of("conflict", "run 7f3a has ended")``.
    """
    kind = BY_CODE[code][0] if code in BY_CODE else TitanError
    return kind(message, code=code, **fields)


def to_problem(error: TitanError) -> dict[str, Any]:
    """Return the problem+json document of `error`. Example: ``to_problem(NotFound("no run"))["status"] == 404``."""
    document: dict[str, Any] = {
        "code": error.code,
        "title": BY_CODE[error.code][2] if error.code in BY_CODE else error.code,
        "status": error.status,
        "detail": error.message,
        "hint": error.hint,
        "problems": [dict(problem) for problem in error.problems],
        "request_id": error.request_id,
    }
    if error.retry_after_s is not None:
        document["retry_after_s"] = error.retry_after_s
    return document


def from_problem(document: Mapping[str, Any]) -> TitanError:
    """Return (not raise) the exception a problem+json `document` describes; the inverse of `to_problem`.

    Never fails: parts of the wrong type are left out. Example: ``raise from_problem(json.load(response))``.
    """
    listed = document.get("problems")
    problems = [
        {str(key): str(value) for key, value in problem.items()}
        for problem in (listed if isinstance(listed, list) else [])
        if isinstance(problem, dict)
    ]
    retry_after_s = document.get("retry_after_s")
    return error_of(
        str(document.get("code") or "internal"),
        str(document.get("detail") or document.get("title") or "the Master gave no reason"),
        hint=str(document.get("hint") or ""),
        problems=problems,
        request_id=str(document.get("request_id") or ""),
        retry_after_s=retry_after_s if isinstance(retry_after_s, (int, float)) else None,
    )
