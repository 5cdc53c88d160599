"""The schema: the migrations make what is declared, structs are rows, and each invariant refuses a wrong row."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, create_engine
from sqlalchemy.dialects import postgresql

from tests.storage.backend import Storage
from tests.storage.builders import attempt_values, job_values, new_run, run_values
from titan.core.changes import PRIMARY_KEYS, Insert
from titan.core.rows import AttemptRow, EdgeRow, JobRow, RunRow
from titan.model.tokens import TokenRow
from titan.storage import artifacts, audit, blobs, journal, kv, logs, migrate, operations, queries, tokens, writes
from titan.storage.connection import Connection, Statement
from titan.storage.errors import AssertionFailed
from titan.storage.tables import METADATA

SHA = "0" * 64
# Made by the database and read by nobody outside the storage.
OWN_COLUMNS = {"runs": {"seq"}}


def definition(run: Any) -> dict[str, Any]:
    """Return tables, columns, checks and indexes as SQLite itself describes them."""
    tables = run("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name <> 'alembic_version'")
    found: dict[str, Any] = {}
    for name, sql in tables:
        parts = sorted(
            re.sub(r"\s+", " ", part).strip() for part in re.split(r",\s*\n", sql[sql.index("(") + 1 : sql.rindex(")")])
        )
        columns = run(f"PRAGMA table_xinfo({name})")
        options = run(f"SELECT wr, strict FROM pragma_table_list('{name}')")
        found[name] = (parts, columns, options)
    indexes = run("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    triggers = run("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    return {"tables": found, "indexes": dict(indexes), "triggers": dict(triggers)}


def test_migrated_schema_is_the_declared_one(storage: Storage) -> None:
    declared = create_engine("sqlite://")
    METADATA.create_all(declared)
    with declared.connect() as connection:
        wanted = definition(lambda sql: [tuple(row) for row in connection.exec_driver_sql(sql)])
    assert storage.database.read(lambda connection: definition(connection.run)) == wanted
    declared.dispose()


def test_alembic_finds_nothing_to_migrate(storage: Storage) -> None:
    engine = create_engine(Storage.url(storage.home))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_heads() == [migrate.HEAD]


@pytest.mark.parametrize(
    ("table", "struct"),
    [("runs", RunRow), ("jobs", JobRow), ("edges", EdgeRow), ("attempts", AttemptRow), ("tokens", TokenRow)],
)
def test_structs_are_rows(table: str, struct: Any) -> None:
    columns = {*METADATA.tables[table].c.keys()} - OWN_COLUMNS.get(table, set())
    assert columns == {*struct.__struct_fields__}


def test_keys_of_changes_are_unique_keys() -> None:
    for name, key in PRIMARY_KEYS.items():
        table = METADATA.tables[name]
        unique = [{column.name for column in table.primary_key}]
        unique += [
            {*map(str, (c.name for c in rule.columns))} for rule in table.constraints if hasattr(rule, "columns")
        ]
        assert {*key} in unique, name


BLOB = {"sha256": SHA, "size": 3, "data": b"abc", "created_ms": 1}
KEPT = {"key": "k", "body_hash": b"h", "answer": b"", "created_ms": 5, "expires_ms": 6}
ENTRY = {"name": "a.py", "sha256": SHA, "size": 3, "updated_ms": 1}
ARTIFACT = {
    "key": b"report", "version": 1, "name": "r.html", "sha256": SHA, "size": 3, "created_ms": 1, "created_by": "admin",
    "run_id": "", "job_id": "", "attempt": 0,
}  # fmt: skip
CONTENT = {"sha256": SHA, "size": 3, "data": b"abc"}
MARK = {"key": b"k", "version": 3}
TOTALS = {"id": 1, "versions": 0, "bytes": 0, "marks": 0}
VALUE = {"key": b"k", "kind": "t", "value": b"v", "expires_ms": None}
TOKEN = {
    "token_id": "0" * 12, "name": "ci", "role": "viewer", "worker": "", "hash": bytes(32), "created_ms": 1,
    "created_by": "admin", "expires_ms": None, "revoked_ms": None,
}  # fmt: skip
AUDITED = {
    "seq": 1, "at_ms": 1, "actor": "admin", "role": "admin", "action": "tokens.create", "object": "0" * 12,
    "address": "127.0.0.1", "previous": bytes(32), "hash": bytes(32),
}  # fmt: skip
ANCHORED = {"id": 1, "seq": 1, "hash": bytes(32)}
LOG = {"fence": 1, "offset": 0, "length": 1, "segment": 1, "position": 0}

# (constraint, a good row, what makes it bad)
REFUSED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("runs_state", run_values(), {"state": "DREAMING"}),
    ("runs_ended", run_values(), {"ended_ms": 5}),
    ("runs_ended", run_values(jobs_completed=1), {"state": "COMPLETED"}),
    ("runs_generation", run_values(), {"generation": 0}),
    ("runs_parent", run_values(), {"parent_job_id": "extract"}),
    ("runs_root", run_values(), {"root_run_id": "b" * 32}),
    ("runs_counts", run_values(), {"jobs_completed": 2}),
    ("runs_counts", run_values(), {"jobs_dead": -1}),
    ("runs_complete", run_values(), {"state": "COMPLETED", "ended_ms": 5}),
    ("runs_opening", run_values(), {"opening": b"\1", "state": "COMPLETED", "ended_ms": 5, "jobs_completed": 1}),
    ("jobs_state", job_values(), {"state": "PENDING"}),
    ("jobs_ended", job_values(), {"state": "FAILED"}),
    ("jobs_ended", job_values(), {"ended_ms": 5}),
    ("jobs_held", job_values(fence=1, attempt=1), {"state": "ASSIGNED"}),
    ("jobs_held", job_values(attempt=1, worker="w"), {"state": "ASSIGNED"}),
    ("jobs_running", job_values(fence=1, attempt=1, worker="w"), {"state": "RUNNING"}),
    ("jobs_due", job_values(), {"state": "DELAYED"}),
    ("jobs_success", job_values(), {"state": "COMPLETED", "ended_ms": 5, "exit_code": 1}),
    ("jobs_counts", job_values(), {"losses": -1}),
    ("edges_self", {"run_id": "r", "job_id": "a", "parent_id": "b"}, {"parent_id": "a"}),
    ("attempts_state", attempt_values(state="ENDED", ended_ms=9), {"state": "SLEEPING"}),
    ("attempts_ended", attempt_values(), {"ended_ms": 5}),
    ("attempts_ended", attempt_values(), {"state": "LOST"}),
    ("attempts_running", attempt_values(), {"state": "RUNNING"}),
    ("attempts_held", attempt_values(), {"worker": ""}),
    ("attempts_held", attempt_values(), {"lease_s": 0}),
    ("attempts_log_bytes", attempt_values(), {"log_bytes": -1}),
    ("leader_one", {"id": 1, "epoch": 0, "batch": 0, "renewals": 0}, {"id": 2}),
    ("leader_counts", {"id": 1, "epoch": 0, "batch": 0, "renewals": 0}, {"epoch": -1}),
    ("idempotency_kept", KEPT, {"expires_ms": 5}),
    ("blobs_sha256", BLOB, {"sha256": "abc"}),
    ("blobs_size", BLOB, {"size": 4}),
    ("registry_entry", ENTRY, {"sha256": "abc"}),
    ("artifacts_entry", ARTIFACT, {"version": 0}),
    ("artifacts_job", ARTIFACT, {"run_id": "r"}),
    ("artifact_contents_sha256", CONTENT, {"sha256": "abc"}),
    ("artifact_contents_size", CONTENT, {"size": 4}),
    ("artifact_marks_version", MARK, {"version": 0}),
    ("artifact_totals_one", TOTALS, {"id": 2}),
    ("artifact_totals_counts", TOTALS, {"bytes": -1}),
    ("kv_key", VALUE, {"key": b""}),
    ("kv_kind", VALUE, {"kind": "x"}),
    ("kv_kind", VALUE, {"kind": "s"}),
    ("log_index_range", LOG, {"length": 0}),
    ("log_index_dropped", LOG, {"dropped": "a reason"}),
    ("log_index_dropped", LOG, {"segment": 0}),
    ("tokens_token_id", TOKEN, {"token_id": "7"}),
    ("tokens_role", TOKEN, {"role": "job"}),
    ("tokens_role", TOKEN, {"role": "root"}),
    ("tokens_worker", TOKEN, {"worker": "box-1"}),
    ("tokens_hash", TOKEN, {"hash": b"the token itself"}),
    ("tokens_lasts", TOKEN, {"expires_ms": 1}),
    ("audit_chain", AUDITED, {"previous": b""}),
    ("audit_chain", AUDITED, {"hash": b""}),
    ("audit_anchor_one", ANCHORED, {"id": 2}),
    ("audit_anchor_row", ANCHORED, {"seq": 0}),
]


def insert(connection: Connection, table: str, values: dict[str, Any]) -> None:
    names = ", ".join(f'"{name}"' for name in values)
    connection.begin()
    try:
        connection.raw.execute("DELETE FROM leader")
        connection.raw.execute("DROP TRIGGER audit_anchor_set")
        places = ", ".join("?" * len(values))
        connection.raw.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", [*values.values()])
    finally:
        connection.rollback()


@pytest.mark.parametrize(("constraint", "good", "bad"), REFUSED, ids=[row[0] for row in REFUSED])
def test_impossible_rows_are_refused(
    storage: Storage, constraint: str, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    table = next(name for name in sorted(METADATA.tables, key=len, reverse=True) if constraint.startswith(name + "_"))
    connection = storage.database.writer()
    insert(connection, table, good)
    with pytest.raises(Exception, match=f"CHECK constraint failed: {constraint}$"):
        insert(connection, table, good | bad)


def test_every_check_has_a_row_it_refuses() -> None:
    declared = {rule.name for table in METADATA.tables.values() for rule in table.constraints
                if isinstance(rule, CheckConstraint)}  # fmt: skip
    assert {row[0] for row in REFUSED} == declared


@pytest.mark.parametrize("bad", [{"generation": "first"}, {"name": None}, {"spec": "text"}], ids=repr)
def test_wrong_types_are_refused(storage: Storage, bad: dict[str, Any]) -> None:
    table, good = ("jobs", job_values()) if "spec" in bad else ("runs", run_values())
    with pytest.raises(AssertionFailed):
        storage.commit(Insert(table, good | bad))  # type: ignore[arg-type]


def test_an_unknown_column_is_refused_by_name(storage: Storage) -> None:
    with pytest.raises(Exception, match="runs has no column colour"):
        storage.commit(Insert("runs", run_values() | {"colour": 1}))
    storage.commit(new_run())


def statements() -> dict[str, Statement]:
    modules = (artifacts, audit, blobs, journal, kv, logs, operations, queries, tokens, writes)
    found = {
        f"{module.__name__}.{name}": value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Statement)
    }
    for filters in ((0, False, False, False), (2, True, True, True)):
        found[f"list{filters}"] = queries._run_list(*filters)
    found["jobs"] = queries._job_list(2)
    for filters in itertools.product((False, True), repeat=2):
        found[f"audit{filters}"] = audit.listing(*filters)
    found["insert"] = writes._shape("jobs", tuple(job_values()), None).statement
    found["update"] = writes._shape("jobs", ("state", "fence"), ("state", "due_ms")).statement
    return found


@pytest.mark.parametrize("name", sorted(statements()))
def test_one_text_for_both_databases(name: str) -> None:
    dialect = postgresql.dialect(paramstyle="format")  # type: ignore[no-untyped-call]
    assert statements()[name].compiled(dialect).text.count("%s") >= len(statements()[name].names)


# Walks an index from its newest end and stops at the first row that fits.
WALKS = {"_LAST", "_LAST_FAILED", "_NEWEST_OF_MANY", "list(0, False, False, False)"}
LEADER = {"_READ", "_CLAIM", "_TAKE_OVER"}


@pytest.mark.parametrize("name", sorted(statements()))
def test_no_query_reads_a_whole_table(storage: Storage, name: str) -> None:
    statement = statements()[name]
    short = name.rsplit(".", 1)[-1]

    def plan(connection: Connection) -> list[str]:
        text = statement.compiled(connection.dialect).text
        rows = connection.raw.execute("EXPLAIN QUERY PLAN " + text, [None] * text.count("?"))
        return [row[3] for row in rows]

    scans = [step for step in plan(storage.database.writer()) if re.match(r"SCAN (?!up|CONSTANT)", step)]
    if short in WALKS:
        assert scans == ["SCAN runs USING INDEX runs_created"]
    elif short not in LEADER:
        assert scans == []
