"""The audit's rows and the chain they form.

Each row carries the hash of the row before it, and its own hash covers that and every field. Whoever changes or takes
out a row has to make all later ones anew, and a hash that was kept elsewhere then no longer fits.
"""

import hashlib
from collections.abc import Iterable

import msgspec

BEGINNING = bytes(32)
_ENCODER = msgspec.msgpack.Encoder()


class AuditRow(msgspec.Struct, frozen=True):
    """One row: the fields of what was done, and its place in the chain."""

    seq: int
    at_ms: int
    actor: str
    role: str
    action: str
    object: str
    address: str
    previous: bytes
    hash: bytes


class Walked(msgspec.Struct, frozen=True):
    """How far a walk along the chain came. `fault` says what is wrong behind `seq`, "" for nothing."""

    seq: int
    hash: bytes
    fault: str = ""


def row_hash(
    previous: bytes, seq: int, at_ms: int, actor: str, role: str, action: str, object_: str, address: str
) -> bytes:
    """Return the hash of a row: SHA-256 over the hash before it and the row's own fields."""
    fields = _ENCODER.encode((seq, at_ms, actor, role, action, object_, address))
    return hashlib.sha256(previous + fields).digest()


def walk(rows: Iterable[AuditRow], seq: int, previous: bytes) -> Walked:
    """Walk along `rows`, which follow row `seq` with the hash `previous`, to their end or to the first fault."""
    for row in rows:
        told = (row.at_ms, row.actor, row.role, row.action, row.object, row.address)
        if row.seq != seq + 1:
            return Walked(seq, previous, f"row {seq + 1} is missing: row {row.seq} comes next")
        if row.previous != previous:
            return Walked(
                seq, previous, f"row {row.seq} does not follow row {seq}: it, or a row before it, was changed"
            )
        if row_hash(previous, row.seq, *told) != row.hash:
            return Walked(seq, previous, f"row {row.seq} was changed: its hash does not fit what it says")
        seq, previous = row.seq, row.hash
    return Walked(seq, previous)
