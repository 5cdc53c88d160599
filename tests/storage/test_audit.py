"""The audit: rows are only added, and each hangs on the one before."""

import pytest

from tests.storage.backend import Storage
from titan.model.audit import BEGINNING, row_hash
from titan.model.store import AppendAudit, StorePut

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
