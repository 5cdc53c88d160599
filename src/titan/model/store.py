"""The conditional writes: what may find something else than hoped for, and answers so instead of failing.

Each is executed inside the transaction of the batch that carries it and has one plain result. Zero rows is an
answer here, never an accident (`titan.core.changes` holds the writes for which it is one). An operation that is
refused changes nothing and aborts nothing: its result is a `StoreRefused`.

With an `IdempotencyKey` an operation is applied once: the key is looked up and written in the same transaction.
The same key with the same body gives the first result again; with another body the result is `KeyReused`.
Refusals change nothing, so they are not remembered. Times are wall milliseconds, given by the caller.
"""

import msgspec

from titan.model.tokens import TokenRow

Value = str | bytes


class IdempotencyKey(msgspec.Struct, frozen=True, gc=False):
    """One call of one caller: `body_hash` tells a resend from a reuse; kept until `expires_ms`."""

    key: str
    body_hash: bytes
    expires_ms: int


class StorePut(msgspec.Struct, frozen=True, gc=False):
    """Set `key` to exactly `value`; it reads as missing after `ttl_s` seconds (None: never). Result: None."""

    key: str
    value: Value
    now_ms: int
    ttl_s: float | None = None
    idempotency: IdempotencyKey | None = None


class StoreDelete(msgspec.Struct, frozen=True, gc=False):
    """Remove `key`, value or set. Result: whether there was one."""

    key: str
    now_ms: int
    idempotency: IdempotencyKey | None = None


class StoreIncr(msgspec.Struct, frozen=True, gc=False):
    """Add `by` to the decimal text at `key` (missing: 0) of any size. Result: the sum, as decimal text.

    Refused when the value is anything but an optional '-' and digits. An expiry stays as it is.
    """

    key: str
    by: int
    now_ms: int
    idempotency: IdempotencyKey | None = None


class StoreCas(msgspec.Struct, frozen=True, gc=False):
    """If `key` holds exactly `expect` (None: is missing), set it to `value` (None: remove it). Result: whether it did.

    Text never equals bytes. An expiry stays as it is.
    """

    key: str
    expect: Value | None
    value: Value | None
    now_ms: int
    idempotency: IdempotencyKey | None = None


class StoreAdd(msgspec.Struct, frozen=True, gc=False):
    """Put `member` into the set at `key`. Result: whether it is new there."""

    key: str
    member: str
    now_ms: int
    idempotency: IdempotencyKey | None = None


class StoreRemove(msgspec.Struct, frozen=True, gc=False):
    """Take `member` out of the set at `key`; an empty set is a missing key. Result: whether it was there."""

    key: str
    member: str
    now_ms: int
    idempotency: IdempotencyKey | None = None


StoreOperation = StorePut | StoreDelete | StoreIncr | StoreCas | StoreAdd | StoreRemove


class StoreMany(msgspec.Struct, frozen=True):
    """All of `operations` in order, or none. Result: the list of theirs, or the `StoreRefused` of the first refused.

    The key is that of the whole; keys of single operations are not looked at. A `StoreCas` that finds
    something else answers False and does not undo the others.
    """

    operations: tuple[StoreOperation, ...]
    now_ms: int
    idempotency: IdempotencyKey | None = None


class UploadBlob(msgspec.Struct, frozen=True, gc=False):
    """Keep content under its hash, as `titan.storage.blobs.BlobFiles.save` prepared it. Result: None.

    `data` is None when the content is a file already. A blob that is there stays as it is.
    """

    sha256: str
    size: int
    data: bytes | None
    now_ms: int


class RegisterFile(msgspec.Struct, frozen=True, gc=False):
    """Let `name` mean the blob `sha256` from now on: newest wins. Result: None; refused when there is no such blob."""

    name: str
    sha256: str
    now_ms: int
    idempotency: IdempotencyKey | None = None


class UploadFile(msgspec.Struct, frozen=True):
    """`blob` and `name` for it in one. Result: None."""

    name: str
    blob: UploadBlob
    now_ms: int
    idempotency: IdempotencyKey | None = None


class PublishArtifact(msgspec.Struct, frozen=True):
    """Make a content the newest version of the artifact `key`. Result: ["1", ...], see below.

    First comes the number of the version, then the hashes of contents that nothing names any more, because the oldest
    versions had to go. `data` is None when the content is a file already. With `fence` it is refused when that attempt
    is over: what a job published late would else stand over what its next attempt has done.
    """

    key: str
    name: str
    sha256: str
    size: int
    data: bytes | None
    now_ms: int
    created_by: str
    run_id: str = ""
    job_id: str = ""
    attempt: int = 0
    fence: int = 0
    idempotency: IdempotencyKey | None = None


class DeleteArtifact(msgspec.Struct, frozen=True, gc=False):
    """Remove one version of an artifact, or all (`version` 0). Result: how many went, then hashes as above."""

    key: str
    version: int
    now_ms: int
    idempotency: IdempotencyKey | None = None


class Prune(msgspec.Struct, frozen=True, gc=False):
    """Drop what expired before `now_ms`, `rows_max` rows of a kind at most.

    Idempotency keys and store keys go at once, tokens 30 days after their end, and of the audit the oldest rows.

    Result: how many rows went; ask again while it is not 0.
    """

    now_ms: int
    rows_max: int = 500


class SweepStage(msgspec.Struct, frozen=True, gc=False):
    """Delete a STAGED run, `rows_max` edges and jobs at a time, its own row last.

    Result: how many rows went; ask again while it is not 0. A run that is not STAGED is left alone.
    """

    run_id: str
    rows_max: int = 500


class AppendAudit(msgspec.Struct, frozen=True, gc=False):
    """Add a row to the audit: commit it with what it tells of. Result: the row's number.

    `actor` is a token's id, "admin", or "job RUN/JOB FENCE"; `action` the name of a route; `object` what it was
    done to; `address` where the request came from. None of them holds a secret. With `if_done` it is added only when
    the operation before it was carried out now: not refused, and no resend. Result: None when it was not added.
    """

    now_ms: int
    actor: str
    role: str
    action: str
    object: str
    address: str
    if_done: bool = False


class KeepToken(msgspec.Struct, frozen=True, gc=False):
    """Add a token. Result: None."""

    row: TokenRow


class RevokeToken(msgspec.Struct, frozen=True, gc=False):
    """Let a token count no more. Result: whether it was there and not revoked before."""

    token_id: str
    now_ms: int


class UseEnrolment(msgspec.Struct, frozen=True, gc=False):
    """Use up the token `token_id` for the one in `row`, and write `entry` of it: all of it, or nothing.

    Result: whether it was done; not when the enrolment was used or revoked before.
    """

    token_id: str
    row: TokenRow
    entry: AppendAudit
    now_ms: int


Operation = (
    StoreOperation | StoreMany | UploadBlob | RegisterFile | UploadFile | PublishArtifact | DeleteArtifact | Prune
    | SweepStage | AppendAudit | KeepToken | RevokeToken | UseEnrolment
)  # fmt: skip


class StoreRefused(msgspec.Struct, frozen=True, tag="refused", gc=False):
    """The operation cannot be done and changed nothing. `code` is one of `titan_sdk.errors`."""

    code: str
    message: str


class KeyReused(msgspec.Struct, frozen=True, tag="reused", gc=False):
    """The idempotency key was used before, for something else."""

    key: str


class KeyPage(msgspec.Struct, frozen=True):
    """One page of store keys, sorted by their UTF-8 bytes. `next`: give it as `after` for more; None: the end."""

    keys: list[str]
    next: str | None


Result = bool | int | str | StoreRefused | KeyReused | list[bool | str | None] | None
