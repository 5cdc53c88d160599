"""The audit: rows are only added, and each hangs on the one before."""

import random
from typing import Any

import pytest

from tests.storage.backend import Storage
from titan.model.audit import BEGINNING, row_hash
from titan.model.limits import Limits
from titan.model.store import AppendAudit, IdempotencyKey, Prune, PublishArtifact, StorePut
from titan.storage import audit

ENTRIES = [
    AppendAudit(5, "admin", "admin", "tokens.create", "0123456789ab", "127.0.0.1"),
    AppendAudit(6, "0123456789ab", "operator", "workers.drain", "box-1", "10.0.0.7"),
    AppendAudit(6, "job r/j 9", "job", "runs.cancel", "r", ""),
]
READ = "SELECT * FROM audit ORDER BY seq"


def test_s52_each_row_carries_the_hash_of_the_one_before(storage: Storage) -> None:
    assert storage.do(*ENTRIES[:2], StorePut("k", "v", 6)) == [1, 2, None]
    storage.reopen()
    assert storage.one(ENTRIES[2]) == 3
    rows = storage.database.read(lambda connection: connection.run(READ))
    assert [row[1:7] for row in rows] == [
        (entry.now_ms, entry.actor, entry.role, entry.action, entry.object, entry.address) for entry in ENTRIES
    ]
    previous = BEGINNING
    for row in rows:
        assert row[7] == previous
        previous = row_hash(previous, *row[:7])
        assert row[8] == previous
    assert len({row[8] for row in rows}) == 3


@pytest.mark.parametrize(
    "change",
    ["UPDATE audit SET actor = 'x'", "DELETE FROM audit", "REPLACE INTO audit SELECT * FROM audit WHERE seq = 1"],
)
def test_s52_a_row_is_not_changed_and_not_taken_out(storage: Storage, change: str) -> None:
    storage.do(*ENTRIES)
    before = storage.rows("audit")
    connection = storage.database.writer()
    connection.begin()
    with pytest.raises(Exception, match="audit: rows are only added"):
        connection.run(change)
    connection.rollback()
    assert storage.rows("audit") == before


DAY_MS = audit.DAY_MS
SHA = "0" * 64


def keeping(storage: Storage, **limits: int) -> None:
    storage.close()
    storage.limits = Limits(**limits)  # type: ignore[arg-type]
    storage.open()


def wrote(storage: Storage, count: int, at_ms: int) -> None:
    storage.do(*[AppendAudit(at_ms, "admin", "admin", "runs.submit", str(number), "") for number in range(count)])


def pruned(storage: Storage, now_ms: int, rows_max: int = 500) -> int:
    """Clean up as the Master does, until there is nothing more; return how many rows went."""
    gone = 0
    while count := storage.one(Prune(now_ms, rows_max)):
        gone += count
    return gone


def walked(storage: Storage, after: int = 0, previous: bytes = BEGINNING) -> tuple[int, str]:
    found, more = storage.database.read(lambda connection: audit.verify(connection, after, previous, 10_000))
    assert not more
    return found.seq, found.fault


def seqs(storage: Storage) -> list[int]:
    return sorted(row[0] for row in storage.rows("audit"))


def test_s52_beyond_the_limit_of_rows_the_oldest_go_and_the_chain_is_whole_from_there(storage: Storage) -> None:
    keeping(storage, audit_rows_max=10)
    wrote(storage, 10, 5)
    assert pruned(storage, 5) == 0
    wrote(storage, 15, 6)
    assert pruned(storage, 7, rows_max=4) == 20
    assert seqs(storage) == [*range(21, 31)]
    assert walked(storage) == (seqs(storage)[-1], "")
    assert walked(storage, 3, bytes(32)) == walked(storage), "a walk that had come to row 3 goes on behind the anchor"
    told = [row[4:6] for row in sorted(storage.rows("audit")) if row[4] == "audit.prune"]
    assert told[-1][1].endswith(" to 20")
    anchor = storage.database.read(audit.anchor)
    assert anchor[0] == 20
    assert min(storage.rows("audit"))[7] == anchor[1]


def test_s52_a_row_is_kept_for_so_many_days_and_the_newest_for_ever(storage: Storage) -> None:
    keeping(storage, audit_days_max=100)
    for day in (0, 1, 50, 99):
        wrote(storage, 2, day * DAY_MS)
    assert pruned(storage, 100 * DAY_MS) == 0
    assert pruned(storage, 100 * DAY_MS + 1) == 4, "those of day 1 go along, so that not every row makes a row"
    assert seqs(storage) == [5, 6, 7, 8, 9]
    assert pruned(storage, 1_000 * DAY_MS) == 5
    assert seqs(storage) == [10]
    assert walked(storage) == (10, "")
    wrote(storage, 1, 1_000 * DAY_MS)
    assert walked(storage) == (11, "")


@pytest.mark.parametrize("limit", [1, 2, 3, 100, 150])
def test_s52_cleaning_up_ends_and_holds_the_limit_whatever_came(storage: Storage, limit: int) -> None:
    draw = random.Random(limit)
    keeping(storage, audit_rows_max=limit, audit_days_max=30)
    now_ms = 0
    for _ in range(40):
        now_ms += draw.choice([0, 1, DAY_MS, 20 * DAY_MS])
        wrote(storage, draw.randrange(1, 60), now_ms)
        pruned(storage, now_ms, rows_max=draw.choice([1 + limit // 50, 500]) + 2)
        kept = sorted(storage.rows("audit"))
        assert 1 <= len(kept) <= limit
        assert kept[0][1] >= now_ms - 30 * DAY_MS
        assert walked(storage) == (kept[-1][0], "")


def test_s52_a_slice_that_somebody_touched_is_not_let_go(storage: Storage) -> None:
    keeping(storage, audit_rows_max=5)
    wrote(storage, 9, 5)
    connection = storage.database.writer()
    connection.run("DROP TRIGGER audit_no_update")
    connection.run("UPDATE audit SET actor = 'x' WHERE seq = 2")
    assert pruned(storage, 6) == 0
    assert walked(storage)[1].startswith("row 2 was changed")


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM audit WHERE seq > 18",
        "DELETE FROM audit WHERE seq = 19",
        "DELETE FROM audit_anchor",
        "UPDATE audit_anchor SET seq = 17",
        "UPDATE audit_anchor SET hash = zeroblob(32)",
        "UPDATE audit_anchor SET seq = 20",
        "UPDATE audit_anchor SET seq = 99, hash = (SELECT hash FROM audit WHERE seq = 20)",
        "INSERT INTO audit_anchor (id, seq, hash) VALUES (1, 20, zeroblob(32))",
    ],
)
def test_s52_the_anchor_moves_along_the_chain_and_nowhere_else(storage: Storage, change: str) -> None:
    keeping(storage, audit_rows_max=10)
    wrote(storage, 25, 6)
    pruned(storage, 7)
    connection = storage.database.writer()
    connection.begin()
    with pytest.raises(Exception, match="audit: rows are only added"):
        connection.run(change)
    connection.rollback()


def test_s52_what_was_refused_or_done_before_has_no_row(storage: Storage) -> None:
    keeping(storage, artifacts_max=1)
    entry = AppendAudit(5, "admin", "admin", "artifacts.put", "a", "", if_done=True)

    def put(key: str, once: str) -> Any:
        return PublishArtifact(
            key, "f", SHA, 0, b"", 5, "admin", idempotency=IdempotencyKey(once, key.encode(), 5 + DAY_MS)
        )

    results = storage.do(put("a", "1"), entry, put("a", "1"), entry, put("b", "2"), entry, put("b", "1"), entry)
    assert [results[at] for at in (1, 3, 5, 7)] == [1, None, None, None]
    assert storage.do(StorePut("k", "v", 5), entry)[1] == 2
    assert len(storage.rows("audit")) == 2


def test_s52_a_filter_of_the_audit_walks_along_an_index(storage: Storage) -> None:
    def plan(by_actor: bool, by_action: bool) -> str:
        connection = storage.database.writer()
        text = audit.listing(by_actor, by_action).compiled(connection.dialect).text
        return " ".join(
            row[3] for row in connection.raw.execute("EXPLAIN QUERY PLAN " + text, [None] * text.count("?"))
        )

    assert "audit_actor (actor=? AND seq<?)" in plan(True, False)
    assert "audit_action (action=? AND seq<?)" in plan(False, True)
    assert "INDEX audit_a" in plan(True, True)
    assert "PRIMARY KEY (rowid<?)" in plan(False, False)
    for by_actor, by_action in ((True, False), (False, True), (True, True), (False, False)):
        assert "TEMP B-TREE" not in plan(by_actor, by_action)
