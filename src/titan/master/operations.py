"""Conditional operations as the API sees them: their idempotency keys, and their refusals as errors."""

import hashlib
from typing import Any

from titan.model.store import IdempotencyKey, KeyReused, StoreRefused
from titan_sdk.errors import error_of

KEEP_MS = 15 * 60_000


def key_for(key: str | None, body: bytes, now_ms: int, keep_ms: int = KEEP_MS) -> IdempotencyKey | None:
    """Return the idempotency key of one call; None when the caller sent none."""
    if key is None:
        return None
    return IdempotencyKey(key, hashlib.sha256(body).digest(), now_ms + keep_ms)


def done(result: Any) -> Any:
    """Return the result of an operation. Raises what it was refused with."""
    if isinstance(result, StoreRefused):
        raise error_of(result.code, result.message)
    if isinstance(result, KeyReused):
        raise error_of(
            "key_reused", "this idempotency key was used for another request", hint="use a fresh one for each request"
        )
    return result
