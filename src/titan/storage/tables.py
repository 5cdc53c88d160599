"""The tables, and the rows they refuse.

Columns of `runs`, `jobs`, `edges` and `attempts` are the fields of the structs in `titan.core.rows`. Each CHECK
is a promise the core makes, kept here as well: a mistake in the code then fails a commit, which is noticed and
undone, and never leaves a row behind that a later start cannot make sense of. The migrations are proved equal
to this file by a test.

Store keys and members are bytes (the UTF-8 of the text): every text fits, NUL included, and their order is the
same in every database.
"""

import enum
from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.types import TypeEngine

from titan.model.roles import STORED_ROLES, Role
from titan.model.states import (
    FINAL_JOB_STATES,
    FINAL_RUN_STATES,
    LIVING_ATTEMPT_STATES,
    AttemptState,
    JobState,
    RunState,
)

METADATA = MetaData()
# STRICT tables know five types; INTEGER as a single key is SQLite's own row number, BIGINT would be a second key.
_Text = Text()
_Bytes = LargeBinary()
_Whole = BigInteger().with_variant(Integer(), "sqlite")
_Flag = Boolean(create_constraint=False).with_variant(Integer(), "sqlite")


def _col(name: str, kind: TypeEngine[Any] = _Text, key: bool = False, null: bool = False) -> Column[Any]:
    return Column(name, kind, primary_key=key, nullable=null)


def _one_of(column: str, kind: type[enum.StrEnum], among: Collection[enum.StrEnum] | None = None) -> str:
    """Return the rule that `column` is one of the states, in the order of their declaration.

    Not `IN (...)`: SQLite builds a tree of such a list for every row it checks, 12 us a row against 2 us.
    """
    return "(" + " OR ".join(f"{column} = '{state}'" for state in kind if among is None or state in among) + ")"


def _check(table: str, name: str, rule: str) -> CheckConstraint:
    return CheckConstraint(rule, name=f"{table}_{name}")


def _partial_index(name: str, column: str, rule: str) -> Index:
    clause = text(rule)
    return Index(name, column, sqlite_where=clause, postgresql_where=clause)


# What is not over. A query repeats the words of a partial index to be answered from it.
RUN_OPEN = _one_of("state", RunState, set(RunState) - FINAL_RUN_STATES)
JOB_OPEN = _one_of("jobs.state", JobState, set(JobState) - FINAL_JOB_STATES)
LIVING = _one_of("state", AttemptState, LIVING_ATTEMPT_STATES)

runs = Table(
    "runs",
    METADATA,
    # Tells runs of one millisecond apart: the order in which they arrived.
    Column("seq", _Whole, primary_key=True),
    _col("run_id"),
    _col("name"),
    _col("state"),
    _col("generation", _Whole),
    _col("agent_run_id"),
    _col("root_run_id"),
    _col("parent_run_id", null=True),
    _col("parent_job_id", null=True),
    _col("created_ms", _Whole),
    _col("started_ms", _Whole, null=True),
    _col("ended_ms", _Whole, null=True),
    _col("cancel_requested", _Flag),
    _col("cancelled_on_request", _Flag),
    _col("jobs_total", _Whole),
    _col("jobs_completed", _Whole),
    _col("jobs_failed", _Whole),
    _col("jobs_cancelled", _Whole),
    _col("jobs_dead", _Whole),
    _col("parent_fence", _Whole),
    _col("opening", _Bytes, null=True),
    UniqueConstraint("run_id", name="runs_run_id"),
    _check("runs", "state", _one_of("state", RunState)),
    # A run that has ended says when; one that goes on has no end.
    _check("runs", "ended", f"{_one_of('state', RunState, FINAL_RUN_STATES)} = (ended_ms IS NOT NULL)"),
    _check("runs", "generation", "generation >= 1"),
    # Lineage is known whole or not at all; a run nobody submitted from inside is its own root.
    _check("runs", "parent", "(parent_run_id IS NULL) = (parent_job_id IS NULL)"),
    _check("runs", "root", "parent_run_id IS NOT NULL OR root_run_id = run_id"),
    # No job is counted twice, and a run does not complete before all its jobs ended.
    _check(
        "runs",
        "counts",
        "jobs_completed >= 0 AND jobs_failed >= 0 AND jobs_cancelled >= 0 AND jobs_dead >= 0"
        " AND jobs_completed + jobs_failed + jobs_cancelled + jobs_dead <= jobs_total",
    ),
    _check(
        "runs",
        "complete",
        f"{RUN_OPEN} OR jobs_completed + jobs_failed + jobs_cancelled + jobs_dead = jobs_total",
    ),
    # A run does not end while jobs of its generation still wait to be opened.
    _check("runs", "opening", f"opening IS NULL OR {RUN_OPEN}"),
    Index("runs_created", "created_ms", "seq"),
    Index("runs_name", "name", "created_ms", "seq"),
    Index("runs_agent_run", "agent_run_id", "created_ms", "seq"),
    _partial_index("runs_open", "state", RUN_OPEN),
    _partial_index("runs_parent", "parent_run_id", "parent_run_id IS NOT NULL"),
    sqlite_strict=True,
)

jobs = Table(
    "jobs",
    METADATA,
    # The job id first: the same index then also finds a bare job id in all runs.
    _col("job_id", key=True),
    _col("run_id", key=True),
    _col("ordinal", _Whole),
    _col("spec", _Bytes),
    _col("filename"),
    _col("priority", _Whole),
    _col("requirement"),
    _col("state"),
    _col("reason"),
    _col("generation", _Whole),
    _col("attempt", _Whole),
    _col("fence", _Whole),
    _col("worker"),
    _col("failures", _Whole),
    _col("losses", _Whole),
    _col("due_ms", _Whole, null=True),
    _col("cancel_requested", _Flag),
    _col("affinity_worker"),
    _col("exit_code", _Whole, null=True),
    _col("ready_ms", _Whole, null=True),
    _col("started_ms", _Whole, null=True),
    _col("ended_ms", _Whole, null=True),
    UniqueConstraint("run_id", "ordinal", name="jobs_ordinal"),
    _check("jobs", "state", _one_of("state", JobState)),
    _check("jobs", "ended", f"{_one_of('state', JobState, FINAL_JOB_STATES)} = (ended_ms IS NOT NULL)"),
    # A job that somebody holds says who, and under which fence.
    _check(
        "jobs", "held", "(state <> 'ASSIGNED' AND state <> 'RUNNING') OR (fence > 0 AND attempt > 0 AND worker <> '')"
    ),
    _check("jobs", "running", "state <> 'RUNNING' OR started_ms IS NOT NULL"),
    # Whatever waits for a time says which: a delayed job without one would wait for ever.
    _check("jobs", "due", "state <> 'DELAYED' OR due_ms IS NOT NULL"),
    _check("jobs", "success", "state <> 'COMPLETED' OR exit_code IS NULL OR exit_code = 0"),
    _check(
        "jobs",
        "counts",
        "ordinal >= 0 AND generation >= 1 AND attempt >= 0 AND fence >= 0 AND failures >= 0 AND losses >= 0",
    ),
    sqlite_strict=True,
)

edges = Table(
    "edges",
    METADATA,
    _col("run_id", key=True),
    _col("job_id", key=True),
    _col("parent_id", key=True),
    # The shortest cycle; longer ones are refused before a row exists.
    _check("edges", "self", "job_id <> parent_id"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

attempts = Table(
    "attempts",
    METADATA,
    Column("fence", _Whole, primary_key=True, autoincrement=False),
    _col("run_id"),
    _col("job_id"),
    _col("generation", _Whole),
    _col("attempt", _Whole),
    _col("worker"),
    _col("incarnation"),
    _col("boot_id"),
    _col("state"),
    _col("lease_s", _Whole),
    _col("lease_until_ms", _Whole, null=True),
    _col("granted_ms", _Whole),
    _col("started_ms", _Whole, null=True),
    _col("ended_ms", _Whole, null=True),
    _col("exit_code", _Whole, null=True),
    _col("signal", _Whole),
    _col("cause"),
    _col("log_bytes", _Whole),
    _col("start"),
    _check("attempts", "state", _one_of("state", AttemptState)),
    _check("attempts", "ended", f"{LIVING} = (ended_ms IS NULL)"),
    _check("attempts", "running", "state <> 'RUNNING' OR started_ms IS NOT NULL"),
    # Without a worker, a lease and a fence nobody could ever end it.
    _check("attempts", "held", "fence > 0 AND attempt > 0 AND generation > 0 AND lease_s > 0 AND worker <> ''"),
    _check("attempts", "log_bytes", "log_bytes >= 0"),
    Index("attempts_job", "run_id", "job_id"),
    _partial_index("attempts_living", "state", LIVING),
    sqlite_strict=True,
)

leader = Table(
    "leader",
    METADATA,
    Column("id", _Whole, primary_key=True, autoincrement=False),
    _col("epoch", _Whole),
    _col("batch", _Whole),
    _col("renewals", _Whole),
    # There is one leader: every transaction is ordered by its row.
    _check("leader", "one", "id = 1"),
    _check("leader", "counts", "epoch >= 0 AND batch >= 0 AND renewals >= 0"),
    sqlite_strict=True,
)

meta = Table(
    "meta",
    METADATA,
    _col("name", key=True),
    _col("value", _Bytes),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

idempotency = Table(
    "idempotency",
    METADATA,
    _col("key", key=True),
    _col("body_hash", _Bytes),
    _col("answer", _Bytes),
    _col("created_ms", _Whole),
    _col("expires_ms", _Whole),
    # A key that never counted would guard nothing.
    _check("idempotency", "kept", "expires_ms > created_ms"),
    Index("idempotency_expires", "expires_ms"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

blobs = Table(
    "blobs",
    METADATA,
    _col("sha256", key=True),
    _col("size", _Whole),
    # NULL: the content is a file.
    _col("data", _Bytes, null=True),
    _col("created_ms", _Whole),
    _check("blobs", "sha256", "length(sha256) = 64"),
    _check("blobs", "size", "size >= 0 AND (data IS NULL OR length(data) = size)"),
    sqlite_strict=True,
)

registry = Table(
    "registry",
    METADATA,
    _col("name", key=True),
    _col("sha256"),
    _col("size", _Whole),
    _col("updated_ms", _Whole),
    _check("registry", "entry", "length(sha256) = 64 AND size >= 0"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

artifacts = Table(
    "artifacts",
    METADATA,
    _col("key", _Bytes, key=True),
    _col("version", _Whole, key=True),
    _col("name"),
    _col("sha256"),
    _col("size", _Whole),
    _col("created_ms", _Whole),
    _col("created_by"),
    _col("run_id"),
    _col("job_id"),
    _col("attempt", _Whole),
    _check("artifacts", "entry", "length(key) >= 1 AND version >= 1 AND length(sha256) = 64 AND size >= 0"),
    # Who published it is known whole or not at all.
    _check("artifacts", "job", "(run_id = '') = (job_id = '') AND (run_id = '') = (attempt = 0)"),
    Index("artifacts_name", "name", "created_ms"),
    Index("artifacts_sha256", "sha256"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# Contents of artifacts alone, so that a content goes with the last artifact that names it, whatever else is the same.
artifact_contents = Table(
    "artifact_contents",
    METADATA,
    _col("sha256", key=True),
    _col("size", _Whole),
    # NULL: the content is a file.
    _col("data", _Bytes, null=True),
    _check("artifact_contents", "sha256", "length(sha256) = 64"),
    _check("artifact_contents", "size", "size >= 0 AND (data IS NULL OR length(data) = size)"),
    sqlite_strict=True,
)

# What the limits bound, counted in the transaction that changes it: reading all rows for it would take longer the more
# there are. One row, from the first publication on. `bytes` are those of `artifact_contents`.
artifact_totals = Table(
    "artifact_totals",
    METADATA,
    Column("id", _Whole, primary_key=True, autoincrement=False),
    _col("versions", _Whole),
    _col("bytes", _Whole),
    _col("marks", _Whole),
    _check("artifact_totals", "one", "id = 1"),
    _check("artifact_totals", "counts", "versions >= 0 AND bytes >= 0 AND marks >= 0"),
    sqlite_strict=True,
)

# The highest number of each key whose newest version was deleted: it is never given again. The empty key stands for
# all keys that have no row here.
artifact_marks = Table(
    "artifact_marks",
    METADATA,
    _col("key", _Bytes, key=True),
    _col("version", _Whole),
    _check("artifact_marks", "version", "version >= 1"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

kv = Table(
    "kv",
    METADATA,
    _col("key", _Bytes, key=True),
    # t: text as UTF-8, b: bytes, s: a set, whose members are in kv_sets.
    _col("kind"),
    _col("value", _Bytes),
    _col("expires_ms", _Whole, null=True),
    _check("kv", "key", "length(key) >= 1"),
    _check("kv", "kind", "kind = 't' OR kind = 'b' OR (kind = 's' AND length(value) = 0 AND expires_ms IS NULL)"),
    _partial_index("kv_expires", "expires_ms", "expires_ms IS NOT NULL"),
    sqlite_strict=True,
)

kv_sets = Table(
    "kv_sets",
    METADATA,
    _col("key", _Bytes, key=True),
    _col("member", _Bytes, key=True),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

log_index = Table(
    "log_index",
    METADATA,
    _col("fence", _Whole, key=True),
    _col("offset", _Whole, key=True),
    _col("length", _Whole),
    _col("segment", _Whole),
    _col("position", _Whole),
    # NULL: the bytes are in the segment. Else they are nowhere, and this is why.
    _col("dropped", null=True),
    _check("log_index", "range", 'fence > 0 AND "offset" >= 0 AND length > 0 AND segment >= 0 AND position >= 0'),
    # What is missing has no place, and everything else has one.
    _check("log_index", "dropped", "(dropped IS NULL) = (segment > 0)"),
    _partial_index("log_index_holes", "fence", "dropped IS NOT NULL"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

tokens = Table(
    "tokens",
    METADATA,
    _col("token_id", key=True),
    _col("name"),
    _col("role"),
    # The one worker it may speak for; '' for any other role, and for an enrolment, which is used up by naming one.
    _col("worker"),
    # Of the whole token, which is shown once and kept nowhere.
    _col("hash", _Bytes),
    _col("created_ms", _Whole),
    _col("created_by"),
    _col("expires_ms", _Whole, null=True),
    _col("revoked_ms", _Whole, null=True),
    _check("tokens", "token_id", "length(token_id) = 12"),
    _check("tokens", "role", _one_of("role", Role, STORED_ROLES)),
    _check("tokens", "worker", "worker = '' OR role = 'worker'"),
    _check("tokens", "hash", "length(hash) = 32"),
    # A token that never counted would be a row without a use.
    _check("tokens", "lasts", "expires_ms IS NULL OR expires_ms > created_ms"),
    _partial_index("tokens_revoked", "revoked_ms", "revoked_ms IS NOT NULL"),
    _partial_index("tokens_expires", "expires_ms", "expires_ms IS NOT NULL"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

audit = Table(
    "audit",
    METADATA,
    Column("seq", _Whole, primary_key=True, autoincrement=False),
    _col("at_ms", _Whole),
    _col("actor"),
    _col("role"),
    _col("action"),
    _col("object"),
    _col("address"),
    _col("previous", _Bytes),
    _col("hash", _Bytes),
    _check("audit", "chain", "length(previous) = 32 AND length(hash) = 32"),
    Index("audit_actor", "actor", "seq"),
    Index("audit_action", "action", "seq"),
    sqlite_strict=True,
)

# The last row that was let go, for its age or because there are too many: the row after it hangs on this hash.
audit_anchor = Table(
    "audit_anchor",
    METADATA,
    Column("id", _Whole, primary_key=True, autoincrement=False),
    _col("seq", _Whole),
    _col("hash", _Bytes),
    _check("audit_anchor", "one", "id = 1"),
    _check("audit_anchor", "row", "seq >= 1 AND length(hash) = 32"),
    sqlite_strict=True,
)
# What was done stays told: not even this program can take a row back, but for the oldest, up to the anchor, which only
# moves on along the chain. audit_next also stops a REPLACE, which deletes without asking the trigger for that.
_ROW_THERE = "EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq AND hash = NEW.hash)"
AUDIT_GUARDS = {
    "audit_no_update": "BEFORE UPDATE ON audit",
    "audit_no_delete": "BEFORE DELETE ON audit WHEN OLD.seq > coalesce((SELECT seq FROM audit_anchor), 0)",
    "audit_next": "BEFORE INSERT ON audit WHEN NEW.seq <> coalesce((SELECT max(seq) FROM audit), 0) + 1",
    "audit_anchor_set": f"BEFORE INSERT ON audit_anchor WHEN NOT {_ROW_THERE}",
    "audit_anchor_moved": f"BEFORE UPDATE ON audit_anchor WHEN NEW.seq <= OLD.seq OR NOT {_ROW_THERE}",
    "audit_anchor_kept": "BEFORE DELETE ON audit_anchor",
}
for _name, _when in AUDIT_GUARDS.items():
    _guard: Any = DDL(  # type: ignore[no-untyped-call]
        f"CREATE TRIGGER {_name} {_when} BEGIN SELECT RAISE(ABORT, 'audit: rows are only added'); END"
    )
    event.listen(audit_anchor, "after_create", _guard.execute_if(dialect="sqlite"))
