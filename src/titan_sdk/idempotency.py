"""Keys that make a resent request count once.

A key guards the resends of one call; for that it may be random. Inside a job more is wanted: when its worker dies
and another attempt runs the same lines again, the same submissions and the same increments must be recognised.
There the key is a hash of what is the same in all attempts: the job's own key (`TITAN_IDEMPOTENCY_KEY`, one for
each run, job and generation), the call, its body, and how many identical calls this process made before it.

Only the job's main process can count like that. Its children, which may lead sessions of their own, run in an order
nobody can repeat, so they use random keys.
"""

from __future__ import annotations

import os
from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

JOB_PREFIX = "job."

_calls_made: dict[bytes, int] = {}
_lock = allocate_lock()


def random_key() -> str:
    """Return a key for the resends of one call: 32 hex digits.

    It begins with the time, so that the Master's index of keys grows at its end: at 100,000 kept keys a put whose
    key fell anywhere cost several times as much.
    """
    from time import time_ns

    return f"{time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def call_key(call: str, body: bytes, environ: Mapping[str, str] | None = None) -> str:
    """Return the key for one call of `submit`, `extend` or `incr` with this `body` (or its digest).

    In a job's main process it is the same in each attempt and begins with JOB_PREFIX; elsewhere it is random.
    Each use counts as one call, so take it once and repeat it on resends.
    """
    job_key = (os.environ if environ is None else environ).get("TITAN_IDEMPOTENCY_KEY")
    if not job_key or not is_main_process():
        return random_key()
    from hashlib import sha256

    same = sha256(b"\0".join((job_key.encode(), call.encode(), sha256(body).digest()))).digest()
    with _lock:
        count = _calls_made.get(same, 0)
        _calls_made[same] = count + 1
    return JOB_PREFIX + sha256(same + count.to_bytes(8, "big")).hexdigest()[:32]


def is_main_process() -> bool:
    """Whether this is the job's main process: the launcher writes its pid into the environment before the exec."""
    return os.environ.get("TITAN_MAIN_PID") == str(os.getpid())


def sendable(key: str) -> str:
    """Return a caller's own key as it may stand in a header: as it is, or hashed when it has unusual characters."""
    if 0 < len(key) <= 128 and key.isascii() and all(character.isalnum() or character in "._:-" for character in key):
        return key
    from hashlib import sha256

    return f"text.{sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:48]}"
