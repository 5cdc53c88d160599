"""The audit: who did what, from where, in rows that are only ever added.

Each row carries the hash of the row before it, and its own hash covers that and every field. Whoever changes or
takes out a row has to make all later ones anew, and the last hash, kept elsewhere, then no longer fits.
"""

import hashlib

import msgspec
from sqlalchemy import bindparam, func, insert, select

from titan.model.store import AppendAudit
from titan.storage.connection import Connection, Statement
from titan.storage.tables import audit

BEGINNING = bytes(32)
_ENCODER = msgspec.msgpack.Encoder()
_newest = select(func.max(audit.alias().c.seq)).scalar_subquery()
_NEWEST = Statement(select(audit.c.seq, audit.c.hash).where(audit.c.seq == _newest))
_COLUMNS = ("seq", "at_ms", "actor", "role", "action", "object", "address", "previous", "hash")
_APPEND = Statement(insert(audit).values({name: bindparam(name) for name in _COLUMNS}), *_COLUMNS)


def row_hash(
    previous: bytes, seq: int, at_ms: int, actor: str, role: str, action: str, object_: str, address: str
) -> bytes:
    """Return the hash of a row: SHA-256 over the hash before it and the row's own fields."""
    fields = _ENCODER.encode((seq, at_ms, actor, role, action, object_, address))
    return hashlib.sha256(previous + fields).digest()


def append(connection: Connection, entry: AppendAudit) -> int:
    """Add one row and return its number."""
    last = connection.row(_NEWEST)
    seq, previous = (last[0] + 1, last[1]) if last else (1, BEGINNING)
    told = (entry.now_ms, entry.actor, entry.role, entry.action, entry.object, entry.address)
    connection.change(_APPEND, seq, *told, previous, row_hash(previous, seq, *told))
    return seq
