"""The JSON bodies the HTTP API accepts: one struct a shape. An unknown field is refused by name.

Jobs stay undecoded here: `titan.model.spec.read_job` reads each so that all problems are told at once.
"""

from typing import Any

import msgspec

from titan.model.views import Kind


class SubmitBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST runs as one JSON document. `blobs`: SHA-256 (hex) -> content (base64), for files up to 64 KiB."""

    name: str
    jobs: list[Any]
    agent_run_id: str | None = None
    blobs: dict[str, str] = {}


class SubmitHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST runs as NDJSON, first line. `jobs`: how many jobs follow, a line each; other lines hold more `blobs`."""

    name: str
    jobs: int
    agent_run_id: str | None = None
    blobs: dict[str, str] = {}


class ExtendBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST runs/{run}/extend."""

    jobs: list[Any]
    blobs: dict[str, str] = {}


class ExtendHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST runs/{run}/extend as NDJSON, first line. The lines are those of POST runs."""

    jobs: int
    blobs: dict[str, str] = {}


class RetryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST runs/{run}/retry. No ids: everything FAILED, DEAD or CANCELLED, with all descendants.

    `scripts`: source path -> SHA-256 of what is there by now, for files that were edited since the submission. The
    jobs that start again and came from such a path run that content, which was PUT before.
    """

    job_ids: tuple[str, ...] = ()
    scripts: dict[str, str] = {}


class TokenBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST tokens. `worker`: the one it speaks for, with role worker; `expires_s`: how long it lasts, null for ever."""

    name: str
    role: str
    worker: str = ""
    expires_s: float | None = None


class InviteBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST workers/join-tokens. `expires_s`: how long the enrolment lasts."""

    expires_s: float = 900.0


class EnrolBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST workers/enrol, with an enrolment as its token. `name`: the worker's; `sha256`: of the credential it made."""

    name: str
    sha256: str


class Typed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A value with its kind; bytes as base64."""

    value: str
    kind: Kind = "text"


class Get(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="get", gc=False):
    """Read a value; text or bytes, as it was put, null when the key is missing."""

    key: str


class Put(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="put", gc=False):
    """Set a key to exactly this value. `ttl_s`: seconds until it reads as missing; null keeps it for ever."""

    key: str
    value: str
    kind: Kind = "text"
    ttl_s: float | None = None


class Delete(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="delete", gc=False):
    """Remove a key, value or set."""

    key: str


class Incr(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="incr", gc=False):
    """Add `by` to the decimal number that a key holds as text; a missing key counts from 0."""

    key: str
    by: int = 1


class Cas(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="cas", gc=False):
    """Set a key if it holds exactly `expect` (null: is missing); `value` null removes it."""

    key: str
    expect: Typed | None
    value: Typed | None


class SetAdd(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="sadd", gc=False):
    """Put a member into the set at a key."""

    key: str
    member: str


class SetRemove(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="srem", gc=False):
    """Take a member out of the set at a key; an empty set is a missing key."""

    key: str
    member: str


class SetMembers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="smembers", gc=False):
    """List the members of the set at a key, sorted."""

    key: str


class ListKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="list", gc=False):
    """List keys that begin with `prefix`, sorted, from behind `after` on."""

    prefix: str = ""
    limit: int = 100
    after: str | None = None


Operation = Get | Put | Delete | Incr | Cas | SetAdd | SetRemove | SetMembers


class Many(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Do up to 1,000 operations, `{"op": "put", ...}`: all reads, or all writes in one transaction, all or none."""

    operations: list[Operation]
