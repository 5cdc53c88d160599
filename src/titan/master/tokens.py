"""The token of a job: who it is, in plain text, and an HMAC that only this Master's key can make.

`tj.<run>.<job>.<attempt>.<fence>.<hmac>`: no row a token. It proves which attempt was granted; whether that
attempt still lives is asked of the core each time, so a token dies with its attempt.
"""

import hashlib
import hmac
from typing import NamedTuple

PREFIX = "tj."


class JobIdentity(NamedTuple):
    """The attempt a token was made for."""

    run_id: str
    job_id: str
    attempt: int
    fence: int


def make(key: bytes, run_id: str, job_id: str, attempt: int, fence: int) -> str:
    """Return the token of one attempt."""
    body = f"{PREFIX}{run_id}.{job_id}.{attempt}.{fence}"
    return f"{body}.{hmac.digest(key, body.encode(), hashlib.sha256).hex()}"


def check(key: bytes, token: str) -> JobIdentity | None:
    """Return whom `token` was made for; None when it was not made with `key`."""
    body, _, given = token.rpartition(".")
    if not body.startswith(PREFIX) or not token.isascii():
        return None
    made = hmac.digest(key, body.encode(), hashlib.sha256).hex()
    if not hmac.compare_digest(made, given):
        return None
    run_id, _, rest = body[len(PREFIX) :].partition(".")
    job_id, attempt, fence = rest.rsplit(".", 2)  # a job id may hold dots itself
    return JobIdentity(run_id, job_id, int(attempt), int(fence))
