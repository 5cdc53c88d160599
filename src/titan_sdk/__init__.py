"""Titan's Python SDK: what a script, a service or an agent imports to submit and observe work."""

from titan_sdk.errors import (
    Conflict,
    Denied,
    FileMissing,
    Internal,
    Invalid,
    NotFound,
    RunFailed,
    StorageFull,
    TimedOut,
    TitanError,
    Unauthenticated,
    Unavailable,
    Unreachable,
)

__all__ = [
    "Conflict",
    "Denied",
    "FileMissing",
    "Internal",
    "Invalid",
    "NotFound",
    "RunFailed",
    "StorageFull",
    "TimedOut",
    "TitanError",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
]
