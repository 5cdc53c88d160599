"""The first schema.

A migration is a record of what was: it repeats the words of `titan.storage.tables` and never imports them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FLAG = sa.Boolean().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make every table, and the one row of the leader."""
    _runs()
    _jobs()
    _edges()
    _attempts()
    _leader()
    _meta()
    _idempotency()
    _blobs()
    _registry()
    _artifacts()
    _kv()
    _kv_sets()
    _log_index()
    _tokens()
    _audit()
    op.execute("INSERT INTO leader (id, epoch, batch, renewals) VALUES (1, 0, 0, 0)")


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("seq", WHOLE, nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("generation", WHOLE, nullable=False),
        sa.Column("agent_run_id", sa.Text(), nullable=False),
        sa.Column("root_run_id", sa.Text(), nullable=False),
        sa.Column("parent_run_id", sa.Text(), nullable=True),
        sa.Column("parent_job_id", sa.Text(), nullable=True),
        sa.Column("created_ms", WHOLE, nullable=False),
        sa.Column("started_ms", WHOLE, nullable=True),
        sa.Column("ended_ms", WHOLE, nullable=True),
        sa.Column("cancel_requested", FLAG, nullable=False),
        sa.Column("cancelled_on_request", FLAG, nullable=False),
        sa.Column("jobs_total", WHOLE, nullable=False),
        sa.Column("jobs_completed", WHOLE, nullable=False),
        sa.Column("jobs_failed", WHOLE, nullable=False),
        sa.Column("jobs_cancelled", WHOLE, nullable=False),
        sa.Column("jobs_dead", WHOLE, nullable=False),
        sa.Column("parent_fence", WHOLE, nullable=False),
        sa.Column("opening", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint(
            "(state = 'COMPLETED' OR state = 'FAILED' OR state = 'CANCELLED') = (ended_ms IS NOT NULL)",
            name="runs_ended",
        ),
        sa.CheckConstraint(
            "(state = 'STAGED' OR state = 'QUEUED' OR state = 'RUNNING' OR state = 'COMPLETED' OR state "
            "= 'FAILED' OR state = 'CANCELLED')",
            name="runs_state",
        ),
        sa.CheckConstraint(
            "(state = 'STAGED' OR state = 'QUEUED' OR state = 'RUNNING') OR jobs_completed + "
            "jobs_failed + jobs_cancelled + jobs_dead = jobs_total",
            name="runs_complete",
        ),
        sa.CheckConstraint("(parent_run_id IS NULL) = (parent_job_id IS NULL)", name="runs_parent"),
        sa.CheckConstraint("generation >= 1", name="runs_generation"),
        sa.CheckConstraint(
            "opening IS NULL OR (state = 'STAGED' OR state = 'QUEUED' OR state = 'RUNNING')", name="runs_opening"
        ),
        sa.CheckConstraint(
            "jobs_completed >= 0 AND jobs_failed >= 0 AND jobs_cancelled >= 0 AND jobs_dead >= 0 AND "
            "jobs_completed + jobs_failed + jobs_cancelled + jobs_dead <= jobs_total",
            name="runs_counts",
        ),
        sa.CheckConstraint("parent_run_id IS NOT NULL OR root_run_id = run_id", name="runs_root"),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("run_id", name="runs_run_id"),
        sqlite_strict=True,
    )
    op.create_index("runs_agent_run", "runs", ["agent_run_id", "created_ms", "seq"], unique=False)
    op.create_index("runs_created", "runs", ["created_ms", "seq"], unique=False)
    op.create_index("runs_name", "runs", ["name", "created_ms", "seq"], unique=False)
    op.create_index(
        "runs_open",
        "runs",
        ["state"],
        sqlite_where=sa.text("(state = 'STAGED' OR state = 'QUEUED' OR state = 'RUNNING')"),
        postgresql_where=sa.text("(state = 'STAGED' OR state = 'QUEUED' OR state = 'RUNNING')"),
    )
    op.create_index(
        "runs_parent",
        "runs",
        ["parent_run_id"],
        sqlite_where=sa.text("parent_run_id IS NOT NULL"),
        postgresql_where=sa.text("parent_run_id IS NOT NULL"),
    )


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("ordinal", WHOLE, nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("priority", WHOLE, nullable=False),
        sa.Column("requirement", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("generation", WHOLE, nullable=False),
        sa.Column("attempt", WHOLE, nullable=False),
        sa.Column("fence", WHOLE, nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("failures", WHOLE, nullable=False),
        sa.Column("losses", WHOLE, nullable=False),
        sa.Column("due_ms", WHOLE, nullable=True),
        sa.Column("cancel_requested", FLAG, nullable=False),
        sa.Column("affinity_worker", sa.Text(), nullable=False),
        sa.Column("exit_code", WHOLE, nullable=True),
        sa.Column("ready_ms", WHOLE, nullable=True),
        sa.Column("started_ms", WHOLE, nullable=True),
        sa.Column("ended_ms", WHOLE, nullable=True),
        sa.CheckConstraint(
            "(state <> 'ASSIGNED' AND state <> 'RUNNING') OR (fence > 0 AND attempt > 0 AND worker <> '')",
            name="jobs_held",
        ),
        sa.CheckConstraint(
            "(state = 'BLOCKED' OR state = 'DELAYED' OR state = 'QUEUED' OR state = 'ASSIGNED' OR state "
            "= 'RUNNING' OR state = 'WAITING' OR state = 'COMPLETED' OR state = 'FAILED' OR state = "
            "'CANCELLED' OR state = 'DEAD')",
            name="jobs_state",
        ),
        sa.CheckConstraint(
            "(state = 'COMPLETED' OR state = 'FAILED' OR state = 'CANCELLED' OR state = 'DEAD') = "
            "(ended_ms IS NOT NULL)",
            name="jobs_ended",
        ),
        sa.CheckConstraint("state <> 'COMPLETED' OR exit_code IS NULL OR exit_code = 0", name="jobs_success"),
        sa.CheckConstraint("state <> 'DELAYED' OR due_ms IS NOT NULL", name="jobs_due"),
        sa.CheckConstraint("state <> 'RUNNING' OR started_ms IS NOT NULL", name="jobs_running"),
        sa.CheckConstraint(
            "ordinal >= 0 AND generation >= 1 AND attempt >= 0 AND fence >= 0 AND failures >= 0 AND losses >= 0",
            name="jobs_counts",
        ),
        sa.PrimaryKeyConstraint("job_id", "run_id"),
        sa.UniqueConstraint("run_id", "ordinal", name="jobs_ordinal"),
        sqlite_strict=True,
    )


def _edges() -> None:
    op.create_table(
        "edges",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=False),
        sa.CheckConstraint("job_id <> parent_id", name="edges_self"),
        sa.PrimaryKeyConstraint("run_id", "job_id", "parent_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("fence", WHOLE, autoincrement=False, nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("generation", WHOLE, nullable=False),
        sa.Column("attempt", WHOLE, nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("incarnation", sa.Text(), nullable=False),
        sa.Column("boot_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("lease_s", WHOLE, nullable=False),
        sa.Column("lease_until_ms", WHOLE, nullable=True),
        sa.Column("granted_ms", WHOLE, nullable=False),
        sa.Column("started_ms", WHOLE, nullable=True),
        sa.Column("ended_ms", WHOLE, nullable=True),
        sa.Column("exit_code", WHOLE, nullable=True),
        sa.Column("signal", WHOLE, nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("log_bytes", WHOLE, nullable=False),
        sa.Column("start", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "(state = 'ASSIGNED' OR state = 'RUNNING' OR state = 'ENDED' OR state = 'RETURNED' OR state = 'LOST')",
            name="attempts_state",
        ),
        sa.CheckConstraint("(state = 'ASSIGNED' OR state = 'RUNNING') = (ended_ms IS NULL)", name="attempts_ended"),
        sa.CheckConstraint(
            "fence > 0 AND attempt > 0 AND generation > 0 AND lease_s > 0 AND worker <> ''", name="attempts_held"
        ),
        sa.CheckConstraint("state <> 'RUNNING' OR started_ms IS NOT NULL", name="attempts_running"),
        sa.CheckConstraint("log_bytes >= 0", name="attempts_log_bytes"),
        sa.PrimaryKeyConstraint("fence"),
        sqlite_strict=True,
    )
    op.create_index("attempts_job", "attempts", ["run_id", "job_id"], unique=False)
    op.create_index(
        "attempts_living",
        "attempts",
        ["state"],
        unique=False,
        sqlite_where=sa.text("(state = 'ASSIGNED' OR state = 'RUNNING')"),
        postgresql_where=sa.text("(state = 'ASSIGNED' OR state = 'RUNNING')"),
    )


def _leader() -> None:
    op.create_table(
        "leader",
        sa.Column("id", WHOLE, autoincrement=False, nullable=False),
        sa.Column("epoch", WHOLE, nullable=False),
        sa.Column("batch", WHOLE, nullable=False),
        sa.Column("renewals", WHOLE, nullable=False),
        sa.CheckConstraint("epoch >= 0 AND batch >= 0 AND renewals >= 0", name="leader_counts"),
        sa.CheckConstraint("id = 1", name="leader_one"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )


def _meta() -> None:
    op.create_table(
        "meta",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _idempotency() -> None:
    op.create_table(
        "idempotency",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", WHOLE, nullable=False),
        sa.Column("expires_ms", WHOLE, nullable=False),
        sa.CheckConstraint("expires_ms > created_ms", name="idempotency_kept"),
        sa.PrimaryKeyConstraint("key"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("idempotency_expires", "idempotency", ["expires_ms"], unique=False)


def _blobs() -> None:
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", WHOLE, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=True),
        sa.Column("created_ms", WHOLE, nullable=False),
        sa.CheckConstraint("length(sha256) = 64", name="blobs_sha256"),
        sa.CheckConstraint("size >= 0 AND (data IS NULL OR length(data) = size)", name="blobs_size"),
        sa.PrimaryKeyConstraint("sha256"),
        sqlite_strict=True,
    )


def _registry() -> None:
    op.create_table(
        "registry",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", WHOLE, nullable=False),
        sa.Column("updated_ms", WHOLE, nullable=False),
        sa.CheckConstraint("length(sha256) = 64 AND size >= 0", name="registry_entry"),
        sa.PrimaryKeyConstraint("name"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("version", WHOLE, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", WHOLE, nullable=False),
        sa.Column("created_ms", WHOLE, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("attempt", WHOLE, nullable=False),
        sa.CheckConstraint(
            "length(key) >= 1 AND version >= 1 AND length(sha256) = 64 AND size >= 0", name="artifacts_entry"
        ),
        sa.CheckConstraint("(run_id = '') = (job_id = '') AND (run_id = '') = (attempt = 0)", name="artifacts_job"),
        sa.PrimaryKeyConstraint("key", "version"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("artifacts_name", "artifacts", ["name", "created_ms"], unique=False)
    op.create_index("artifacts_sha256", "artifacts", ["sha256"], unique=False)
    op.create_table(
        "artifact_contents",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", WHOLE, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint("length(sha256) = 64", name="artifact_contents_sha256"),
        sa.CheckConstraint("size >= 0 AND (data IS NULL OR length(data) = size)", name="artifact_contents_size"),
        sa.PrimaryKeyConstraint("sha256"),
        sqlite_strict=True,
    )
    op.create_table(
        "artifact_totals",
        sa.Column("id", WHOLE, autoincrement=False, nullable=False),
        sa.Column("versions", WHOLE, nullable=False),
        sa.Column("bytes", WHOLE, nullable=False),
        sa.Column("marks", WHOLE, nullable=False),
        sa.CheckConstraint("id = 1", name="artifact_totals_one"),
        sa.CheckConstraint("versions >= 0 AND bytes >= 0 AND marks >= 0", name="artifact_totals_counts"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_table(
        "artifact_marks",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("version", WHOLE, nullable=False),
        sa.CheckConstraint("version >= 1", name="artifact_marks_version"),
        sa.PrimaryKeyConstraint("key"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _kv() -> None:
    op.create_table(
        "kv",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("expires_ms", WHOLE, nullable=True),
        sa.CheckConstraint(
            "kind = 't' OR kind = 'b' OR (kind = 's' AND length(value) = 0 AND expires_ms IS NULL)", name="kv_kind"
        ),
        sa.CheckConstraint("length(key) >= 1", name="kv_key"),
        sa.PrimaryKeyConstraint("key"),
        sqlite_strict=True,
    )
    op.create_index(
        "kv_expires",
        "kv",
        ["expires_ms"],
        unique=False,
        sqlite_where=sa.text("expires_ms IS NOT NULL"),
        postgresql_where=sa.text("expires_ms IS NOT NULL"),
    )


def _kv_sets() -> None:
    op.create_table(
        "kv_sets",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("member", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key", "member"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _log_index() -> None:
    op.create_table(
        "log_index",
        sa.Column("fence", WHOLE, nullable=False),
        sa.Column("offset", WHOLE, nullable=False),
        sa.Column("length", WHOLE, nullable=False),
        sa.Column("segment", WHOLE, nullable=False),
        sa.Column("position", WHOLE, nullable=False),
        sa.Column("dropped", sa.Text(), nullable=True),
        sa.CheckConstraint(
            'fence > 0 AND "offset" >= 0 AND length > 0 AND segment >= 0 AND position >= 0', name="log_index_range"
        ),
        sa.CheckConstraint("(dropped IS NULL) = (segment > 0)", name="log_index_dropped"),
        sa.PrimaryKeyConstraint("fence", "offset"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "log_index_holes",
        "log_index",
        ["fence"],
        unique=False,
        sqlite_where=sa.text("dropped IS NOT NULL"),
        postgresql_where=sa.text("dropped IS NOT NULL"),
    )


def _tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("token_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", WHOLE, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_ms", WHOLE, nullable=True),
        sa.Column("revoked_ms", WHOLE, nullable=True),
        sa.CheckConstraint("length(token_id) = 12", name="tokens_token_id"),
        sa.CheckConstraint(
            "(role = 'viewer' OR role = 'submitter' OR role = 'approver' OR role = 'operator' OR role = 'admin'"
            " OR role = 'worker')",
            name="tokens_role",
        ),
        sa.CheckConstraint("worker = '' OR role = 'worker'", name="tokens_worker"),
        sa.CheckConstraint("length(hash) = 32", name="tokens_hash"),
        sa.CheckConstraint("expires_ms IS NULL OR expires_ms > created_ms", name="tokens_lasts"),
        sa.PrimaryKeyConstraint("token_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    for column in ("revoked_ms", "expires_ms"):
        given = sa.text(f"{column} IS NOT NULL")
        name = f"tokens_{column.removesuffix('_ms')}"
        op.create_index(name, "tokens", [column], unique=False, sqlite_where=given, postgresql_where=given)


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", WHOLE, autoincrement=False, nullable=False),
        sa.Column("at_ms", WHOLE, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("previous", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("length(previous) = 32 AND length(hash) = 32", name="audit_chain"),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_strict=True,
    )
    op.create_index("audit_actor", "audit", ["actor", "seq"], unique=False)
    op.create_index("audit_action", "audit", ["action", "seq"], unique=False)
    op.create_table(
        "audit_anchor",
        sa.Column("id", WHOLE, autoincrement=False, nullable=False),
        sa.Column("seq", WHOLE, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("id = 1", name="audit_anchor_one"),
        sa.CheckConstraint("seq >= 1 AND length(hash) = 32", name="audit_anchor_row"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    there = "EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq AND hash = NEW.hash)"
    for name, when in (
        ("audit_no_update", "BEFORE UPDATE ON audit"),
        ("audit_no_delete", "BEFORE DELETE ON audit WHEN OLD.seq > coalesce((SELECT seq FROM audit_anchor), 0)"),
        ("audit_next", "BEFORE INSERT ON audit WHEN NEW.seq <> coalesce((SELECT max(seq) FROM audit), 0) + 1"),
        ("audit_anchor_set", f"BEFORE INSERT ON audit_anchor WHEN NOT {there}"),
        ("audit_anchor_moved", f"BEFORE UPDATE ON audit_anchor WHEN NEW.seq <= OLD.seq OR NOT {there}"),
        ("audit_anchor_kept", "BEFORE DELETE ON audit_anchor"),
    ):
        op.execute(f"CREATE TRIGGER {name} {when} BEGIN SELECT RAISE(ABORT, 'audit: rows are only added'); END")
