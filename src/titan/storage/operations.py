"""The conditional operations of a batch, one after the other, each once for its idempotency key.

The key's row is read before the operation and written after it, in the one transaction of the batch; the rows of
a batch are written together at its end. Keys of calls that only guard their resends expire after minutes and
are pruned in slices, so the table stays as small as the traffic.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, select, text, tuple_

from titan.model.limits import Limits
from titan.model.states import RunState
from titan.model.store import (
    AppendAudit,
    DeleteArtifact,
    IdempotencyKey,
    KeepToken,
    KeyReused,
    Operation,
    Prune,
    PublishArtifact,
    RegisterFile,
    Result,
    RevokeToken,
    StoreAdd,
    StoreCas,
    StoreDelete,
    StoreIncr,
    StoreMany,
    StorePut,
    StoreRefused,
    StoreRemove,
    SweepStage,
    UploadBlob,
    UploadFile,
    UseEnrolment,
)
from titan.storage import artifacts, audit, kv, tokens
from titan.storage.connection import Connection, Statement
from titan.storage.errors import AssertionFailed
from titan.storage.kv import Refused
from titan.storage.tables import blobs, edges, idempotency, jobs, runs
from titan.storage.tables import kv as kv_table
from titan.storage.writes import keep_blob, remember

_ENCODER = msgspec.msgpack.Encoder()
_REMEMBERED = Statement(
    select(idempotency.c.body_hash, idempotency.c.answer, idempotency.c.expires_ms).where(
        idempotency.c.key == bindparam("k")
    ),
    "k",
)
_REGISTER = Statement(
    text(
        "INSERT INTO registry (name, sha256, size, updated_ms) VALUES (:name, :sha256, :size, :now)"
        " ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, size = excluded.size,"
        " updated_ms = excluded.updated_ms"
    ),
    "name",
    "sha256",
    "size",
    "now",
)
_BLOB_SIZE = Statement(select(blobs.c.size).where(blobs.c.sha256 == bindparam("sha256")), "sha256")


def _expired(table: Any) -> Statement:
    chosen = (
        select(table.c.key)
        .where(table.c.expires_ms <= bindparam("now"))
        .order_by(table.c.expires_ms)
        .limit(bindparam("rows"))
    )
    return Statement(delete(table).where(table.c.key.in_(chosen)), "now", "rows")


def _of_run(table: Any, *rest: str) -> Statement:
    key = [table.c[column] for column in ("run_id", *rest)]
    chosen = select(*key).where(table.c.run_id == bindparam("run_id")).limit(bindparam("rows"))
    return Statement(delete(table).where(tuple_(*key).in_(chosen)), "run_id", "rows")


_PRUNE_KEYS = _expired(idempotency)
_PRUNE_KV = _expired(kv_table)
_STAGED = Statement(
    select(runs.c.seq).where(runs.c.run_id == bindparam("run_id"), runs.c.state == RunState.STAGED), "run_id"
)
_SWEEP_EDGES = _of_run(edges, "job_id", "parent_id")
_SWEEP_JOBS = _of_run(jobs, "job_id")
_SWEEP_RUN = Statement(delete(runs).where(runs.c.run_id == bindparam("run_id")), "run_id")


def execute(connection: Connection, operations: Sequence[Operation], limits: Limits) -> list[Result]:
    """Carry out `operations` in order and return their results. A refused one changes nothing."""
    keys = _Keys(connection)
    results: list[Result] = []
    done = False  # whether the operation before was carried out: not refused, and not answered from its key
    for operation in operations:
        if isinstance(operation, AppendAudit) and operation.if_done and not done:
            results.append(None)
            continue
        key: IdempotencyKey | None = getattr(operation, "idempotency", None)
        now_ms: int = getattr(operation, "now_ms", 0)
        found = keys.look_up(key, now_ms) if key is not None else None
        if found is not None:
            results.append(found[0])
            done = False
            continue
        result = _once(connection, operation, limits)
        done = not isinstance(result, StoreRefused)
        if key is not None and not isinstance(result, StoreRefused):
            keys.remember(key, result, now_ms)
        results.append(result)
    keys.write()
    return results


class _Keys:
    """The idempotency keys of one batch."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._new: dict[str, tuple[IdempotencyKey, Result, int]] = {}

    def look_up(self, key: IdempotencyKey, now_ms: int) -> tuple[Result] | None:
        """Return the result that stands for `key` already, in a tuple; None when the operation is to be done."""
        new = self._new.get(key.key)
        if new is not None:
            return (new[1],) if new[0].body_hash == key.body_hash else (KeyReused(key.key),)
        row = self._connection.row(_REMEMBERED, key.key)
        if row is None or row[2] <= now_ms:
            return None
        if row[0] != key.body_hash:
            return (KeyReused(key.key),)
        return (msgspec.msgpack.decode(row[1]),)

    def remember(self, key: IdempotencyKey, result: Result, now_ms: int) -> None:
        self._new[key.key] = (key, result, now_ms)

    def write(self) -> None:
        rows = [
            (key.key, key.body_hash, _ENCODER.encode(result), now_ms, max(key.expires_ms, now_ms + 1))
            for key, result, now_ms in self._new.values()
        ]
        if rows and remember(self._connection, rows) != len(rows):
            raise AssertionFailed("idempotency: a key that was free is taken")


def _once(connection: Connection, operation: Operation, limits: Limits) -> Result:
    try:
        result: Result = _HANDLERS[type(operation)](connection, operation, limits)
        return result
    except Refused as refused:
        return refused.result


def _many(connection: Connection, operation: StoreMany, limits: Limits) -> Result:
    """Carry out `StoreMany`: a savepoint makes it all or none."""
    connection.run("SAVEPOINT many")
    results: list[bool | str | None] = []
    for number, one in enumerate(operation.operations, 1):
        try:
            results.append(_HANDLERS[type(one)](connection, one, limits))
        except Refused as refused:
            connection.run("ROLLBACK TO many")
            connection.run("RELEASE many")
            raise Refused(refused.result.code, f"operation {number}: {refused.result.message}") from refused
    connection.run("RELEASE many")
    return results


def _upload(connection: Connection, operation: UploadBlob, _: Limits) -> None:
    keep_blob(connection, operation.sha256, operation.size, operation.data, operation.now_ms)


def _register(connection: Connection, operation: RegisterFile, _: Limits) -> None:
    row = connection.row(_BLOB_SIZE, operation.sha256)
    if row is None:
        raise Refused("not_found", f"no blob has the SHA-256 {operation.sha256}: upload the content first")
    connection.change(_REGISTER, operation.name, operation.sha256, row[0], operation.now_ms)


def _upload_file(connection: Connection, operation: UploadFile, limits: Limits) -> None:
    _upload(connection, operation.blob, limits)
    _register(connection, RegisterFile(operation.name, operation.blob.sha256, operation.now_ms), limits)


def _prune(connection: Connection, operation: Prune, limits: Limits) -> int:
    now_ms, rows_max = operation.now_ms, operation.rows_max
    gone = sum(connection.change(statement, now_ms, rows_max) for statement in (_PRUNE_KEYS, _PRUNE_KV))
    return gone + tokens.prune(connection, now_ms, rows_max) + audit.prune(connection, now_ms, rows_max, limits)


def _sweep(connection: Connection, operation: SweepStage, _: Limits) -> int:
    if connection.row(_STAGED, operation.run_id) is None:
        return 0
    for statement in (_SWEEP_EDGES, _SWEEP_JOBS):
        if gone := connection.change(statement, operation.run_id, operation.rows_max):
            return gone
    return connection.change(_SWEEP_RUN, operation.run_id)


def _append_audit(connection: Connection, operation: AppendAudit, _: Limits) -> int:
    return audit.append(connection, operation)


def _keep_token(connection: Connection, operation: KeepToken, _: Limits) -> None:
    tokens.keep(connection, operation)


def _revoke_token(connection: Connection, operation: RevokeToken, _: Limits) -> bool:
    return tokens.revoke(connection, operation)


def _use_enrolment(connection: Connection, operation: UseEnrolment, _: Limits) -> bool:
    if not tokens.revoke(connection, RevokeToken(operation.token_id, operation.now_ms)):
        return False
    tokens.keep(connection, KeepToken(operation.row))
    audit.append(connection, operation.entry)
    return True


_HANDLERS: dict[type, Callable[[Connection, Any, Limits], Any]] = {
    StorePut: kv.put,
    StoreDelete: kv.remove,
    StoreIncr: kv.incr,
    StoreCas: kv.cas,
    StoreAdd: kv.add,
    StoreRemove: kv.discard,
    StoreMany: _many,
    UploadBlob: _upload,
    RegisterFile: _register,
    UploadFile: _upload_file,
    PublishArtifact: artifacts.publish,
    DeleteArtifact: artifacts.delete_versions,
    Prune: _prune,
    SweepStage: _sweep,
    AppendAudit: _append_audit,
    KeepToken: _keep_token,
    RevokeToken: _revoke_token,
    UseEnrolment: _use_enrolment,
}
