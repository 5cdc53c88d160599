"""The commit rules: one transaction that says what it believes, whole or not at all, and never in doubt for long."""

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.storage.backend import NOW_MS, Storage
from tests.storage.builders import RUN, assign, new_attempt, new_edge, new_job, new_run, number_of_id
from titan.core.changes import Change, Insert, Update
from titan.core.commit import Batch, LogChunk
from titan.model.states import JobState
from titan.model.store import StoreCas, StoreIncr, StorePut
from titan.storage import kv, queries
from titan.storage.errors import (
    AssertionFailed,
    CommitFailed,
    CommitUnknown,
    DatabaseCorrupt,
    Deposed,
    StorageError,
)
from titan.storage.journal import EPOCH_BEGIN_S


class Injected(Exception):
    pass


def raising(_: Batch) -> None:
    raise Injected("pulled the plug")


def full_batch(storage: Storage) -> Batch:
    """Return a batch that touches every kind of thing a batch can hold."""
    changes: list[Change] = [new_run(), new_job("a"), new_job("b", ordinal=1), new_edge("b", "a"), new_attempt(7, "a")]
    blob = Insert("blobs", {"sha256": "1" * 64, "size": 1, "data": b"x", "created_ms": 1})
    return storage.batch([*changes, blob], [StorePut("k", "v", NOW_MS)], [LogChunk(7, 0, b"hello")])


def test_a_batch_is_there_after_a_kill(storage: Storage, tmp_path: Path) -> None:
    storage.send(full_batch(storage))
    survivor = storage.after_a_kill(tmp_path / "copy")
    assert survivor.everything() == storage.everything()
    assert survivor.database.read(lambda c: survivor.logs.read(c, 7, 0, 99)).data == b"hello"
    survivor.close()


def test_results_come_in_the_order_of_operations(storage: Storage) -> None:
    assert storage.do(StoreIncr("n", 2, NOW_MS), StoreCas("n", "3", "9", NOW_MS), StoreIncr("n", -5, NOW_MS)) == [
        "2",
        False,
        "-3",
    ]


def test_the_leader_row_counts_batches(storage: Storage) -> None:
    assert storage.journal.leader() == (storage.epoch, 0)
    storage.commit(new_run())
    storage.commit()
    assert storage.journal.leader() == (storage.epoch, 2)


@pytest.mark.parametrize("number", [1, 3, 7])
def test_a_batch_out_of_order_changes_nothing(storage: Storage, number: int) -> None:
    storage.commit(new_run())
    with pytest.raises(Deposed, match=f"batch {number} of epoch"):
        storage.journal.commit(Batch(storage.epoch, number, [new_job()], [], []))
    assert storage.rows("jobs") == []
    assert storage.journal.leader() == (storage.epoch, 1)


def test_a_former_epoch_commits_nothing(storage: Storage) -> None:
    former, number = storage.epoch, storage.number
    storage.take_over()
    with pytest.raises(Deposed, match=f"epoch {storage.epoch}"):
        storage.journal.commit(Batch(former, number + 1, [new_run()], [StorePut("k", "v", NOW_MS)], []))
    assert storage.everything()["runs"] == storage.everything()["kv"] == []
    storage.commit(new_run())


def test_epochs_rise_and_are_never_less_than_the_seconds_since_2020(storage: Storage) -> None:
    first = storage.epoch
    assert first == NOW_MS // 1000 - EPOCH_BEGIN_S
    assert storage.journal.take_over(0) == first + 1
    assert storage.journal.take_over(NOW_MS + 10_000) == first + 10
    assert storage.journal.leader() == (first + 10, 0)


def test_f65_fences_do_not_go_back_when_an_old_backup_is_restored(storage: Storage, tmp_path: Path) -> None:
    storage.close()
    backup = tmp_path / "backup.db"
    backup.write_bytes((storage.home / "titan.db").read_bytes())
    storage.open()
    lost = storage.journal.take_over(NOW_MS + 600_000)
    storage.close()
    (storage.home / "titan.db").write_bytes(backup.read_bytes())
    storage.open()
    assert storage.journal.take_over(NOW_MS + 601_000) > lost


def test_the_token_key_is_made_once(storage: Storage) -> None:
    key = storage.database.read(queries.token_key)
    assert len(key) == 32
    storage.reopen()
    assert storage.database.read(queries.token_key) == key


def test_token_keys_of_two_databases_differ(storage: Storage, tmp_path: Path) -> None:
    other = Storage(tmp_path / "other")
    assert other.database.read(queries.token_key) != storage.database.read(queries.token_key)
    other.close()


UNMET: list[tuple[str, Change, str]] = [
    ("state", Update("jobs", (RUN, "a"), {"state": JobState.RUNNING}, {"reason": "x"}), "found {'state': 'QUEUED'}"),
    ("fence", assign("a", 9, expect_fence=3), "found {'fence': 0}"),
    ("null", Update("jobs", (RUN, "a"), {"due_ms": 5}, {"reason": "x"}), "found {'due_ms': None}"),
    ("not null", Update("jobs", (RUN, "a"), {"ready_ms": None}, {"reason": "x"}), "found {'ready_ms': 1000}"),
    ("missing", Update("jobs", (RUN, "zz"), {"state": JobState.QUEUED}, {"reason": "x"}), "no such row"),
    ("other run", Update("jobs", ("b" * 32, "a"), {}, {"reason": "x"}), "jobs: 0 of 1"),
    ("twice", new_job("a", ordinal=5), "UNIQUE constraint failed"),
    ("ordinal twice", new_job("c", ordinal=0), "UNIQUE constraint failed"),
    ("impossible", Update("jobs", (RUN, "a"), {}, {"state": JobState.FAILED}), "CHECK constraint failed: jobs_ended"),
]


@pytest.mark.parametrize(("change", "says"), [row[1:] for row in UNMET], ids=[row[0] for row in UNMET])
def test_one_wrong_belief_undoes_the_whole_batch(storage: Storage, change: Change, says: str) -> None:
    storage.commit(new_run(), new_job("a"), new_job("b", ordinal=1))
    before = storage.everything()
    batch = storage.batch([assign("b", 5), change], [StorePut("k", "v", NOW_MS)], [LogChunk(5, 0, b"lost")])
    with pytest.raises(AssertionFailed) as failed:
        storage.send(batch)
    assert says in str(failed.value)
    assert storage.everything() == before
    assert storage.journal.leader() == (storage.epoch, 1)
    storage.commit(assign("a", 5), assign("b", 6))


def test_null_is_a_belief_that_can_be_met(storage: Storage) -> None:
    storage.commit(new_run(), new_job("a"))
    storage.commit(Update("jobs", (RUN, "a"), {"due_ms": None, "ready_ms": 1000}, {"reason": "met"}))
    row = storage.database.read(lambda c: queries.job(c, RUN, "a"))
    assert row is not None
    assert row.reason == "met"


def test_the_row_that_was_not_as_expected_is_named(storage: Storage) -> None:
    storage.commit(new_run(jobs_total=3), *(new_job(f"j{number}", ordinal=number) for number in range(3)))
    storage.commit(assign("j1", 4))
    with pytest.raises(
        AssertionFailed, match=r"jobs: 2 of 3 rows .* \('a+', 'j1'\) expected .* found {'state': 'ASSIGNED'"
    ):
        storage.commit(*(assign(f"j{number}", number + 5) for number in range(3)))


def test_a_script_that_is_there_already_is_no_surprise(storage: Storage) -> None:
    blob = Insert("blobs", {"sha256": "1" * 64, "size": 1, "data": b"x", "created_ms": 1})
    storage.commit(blob)
    storage.commit(blob, new_run())
    assert len(storage.rows("blobs")) == 1


def test_an_idempotency_row_is_written_once_until_it_expires(storage: Storage) -> None:
    def kept(answer: bytes, created_ms: int) -> Insert:
        values = {"key": "k", "body_hash": b"h", "answer": answer, "created_ms": created_ms}
        return Insert("idempotency", values | {"expires_ms": created_ms + 100})

    storage.commit(kept(b"first", 1_000))
    with pytest.raises(AssertionFailed):
        storage.commit(kept(b"second", 1_099))
    storage.commit(kept(b"third", 1_100))
    found = storage.database.read(lambda c: queries.remembered(c, "k", 1_150))
    assert found is not None
    assert found.answer == b"third"


def test_a_failure_before_the_commit_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    before = storage.everything()
    batch = full_batch(storage)
    storage.before_commit = raising
    with pytest.raises(CommitFailed, match="pulled the plug"):
        storage.send(batch)
    assert storage.everything() == before
    assert storage.journal.leader() == (storage.epoch, 0)
    survivor = storage.after_a_kill(tmp_path / "copy")
    assert survivor.rows("runs") == []
    survivor.close()
    storage.before_commit = None
    storage.send(batch)
    assert len(storage.rows("runs")) == 1


def test_after_an_unknown_outcome_the_leader_row_tells_that_it_arrived(storage: Storage) -> None:
    storage.after_commit = raising
    with pytest.raises(CommitUnknown) as unknown:
        storage.send(storage.batch([new_run()], [StoreIncr("n", 4, NOW_MS)]))
    assert storage.journal.leader() == (storage.epoch, 1)
    assert unknown.value.results == ["4"]
    assert len(storage.rows("runs")) == 1


class FailingCommit:
    """A driver connection whose COMMIT fails once, before or after it was done."""

    def __init__(self, raw: sqlite3.Connection, error: Exception, arrives: bool) -> None:
        self._raw = raw
        self._error = error
        self._arrives = arrives

    def commit(self) -> None:
        if self._arrives:
            self._raw.commit()
        raise self._error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def failing_commit(storage: Storage, code: int, arrives: bool) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    connection = storage.database.writer()
    connection.raw = FailingCommit(connection.raw, error, arrives)


@pytest.mark.parametrize("arrives", [True, False])
def test_f6_an_error_of_the_commit_itself_is_an_unknown_outcome(storage: Storage, arrives: bool) -> None:
    batch = storage.batch([new_run()], [StoreIncr("n", 4, NOW_MS)])
    failing_commit(storage, sqlite3.SQLITE_IOERR_FSYNC, arrives)
    with pytest.raises(CommitUnknown):
        storage.send(batch)
    epoch, number = storage.journal.leader()
    assert (epoch, number) == (storage.epoch, int(arrives))
    if number == 0:
        storage.send(batch)
    assert len(storage.rows("runs")) == 1
    assert storage.database.read(lambda c: kv.get(c, "n", NOW_MS)) == "4"


def test_the_same_rows_can_be_sent_again(storage: Storage) -> None:
    batch = full_batch(storage)
    failing_commit(storage, sqlite3.SQLITE_IOERR_WRITE, arrives=False)
    with pytest.raises(CommitUnknown):
        storage.send(batch)
    storage.send(batch)
    assert storage.database.read(lambda c: storage.logs.read(c, 7, 0, 99)).data == b"hello"


def test_a_refused_operation_aborts_nothing(storage: Storage) -> None:
    storage.one(StorePut("text", "many", NOW_MS))
    results = storage.send(storage.batch([new_run()], [StoreIncr("text", 1, NOW_MS), StorePut("k", "v", NOW_MS)]))
    assert results[0].code == "invalid"
    assert results[1] is None
    assert len(storage.rows("runs")) == 1


def test_log_bytes_are_indexed_with_the_batch_or_not_at_all(storage: Storage) -> None:
    storage.commit(new_run(), chunks=[LogChunk(7, 0, b"one")])
    with pytest.raises(AssertionFailed):
        storage.commit(new_job(), chunks=[LogChunk(7, 0, b"again")])
    assert storage.rows("jobs") == []
    storage.commit(chunks=[LogChunk(7, 3, b" two")])
    assert storage.database.read(lambda c: storage.logs.read(c, 7, 0, 99)).data == b"one two"


def test_readers_see_what_is_committed_and_do_not_wait_for_the_writer(storage: Storage) -> None:
    storage.commit(new_run())
    seen: list[int] = []

    def look(_: Batch) -> None:
        reader = threading.Thread(target=lambda: seen.append(len(storage.rows("runs"))))
        reader.start()
        reader.join()

    storage.before_commit = look
    storage.commit(new_run(number_of_id(1)))
    storage.before_commit = None
    assert [*seen, len(storage.rows("runs"))] == [1, 2]


def test_a_read_sees_one_moment(storage: Storage) -> None:
    def count_twice(connection: Any) -> list[int]:
        first = len(queries.list_runs(connection, queries.RunFilter(), 10).rows)
        writer = threading.Thread(target=lambda: storage.commit(new_run()))
        writer.start()
        writer.join()
        return [first, len(queries.list_runs(connection, queries.RunFilter(), 10).rows)]

    assert storage.database.read(count_twice) == [0, 0]
    assert len(storage.rows("runs")) == 1


def test_a_reader_cannot_write(storage: Storage) -> None:
    with pytest.raises(StorageError, match="readonly"):
        storage.database.read(lambda connection: connection.run("DELETE FROM leader"))


def test_a_leader_row_that_cannot_be_read_is_an_error_and_the_next_try_is_fresh(storage: Storage) -> None:
    storage.database.writer().raw.close()
    with pytest.raises(CommitFailed):
        storage.journal.leader()
    assert storage.journal.leader() == (storage.epoch, 0)


def test_a_database_without_its_leader_row_takes_no_batch(storage: Storage) -> None:
    connection = storage.database.writer()
    connection.run("DELETE FROM leader")
    with pytest.raises(AssertionFailed, match="leader row is gone"):
        storage.commit(new_run())
    assert storage.rows("runs") == []


def test_damage_met_by_a_commit_is_called_by_its_name(storage: Storage) -> None:
    storage.commit(*(new_run(number_of_id(number)) for number in range(500)))
    storage.close()
    path = storage.home / "titan.db"
    storage.database = storage.database.open(storage.url(storage.home), storage.home)
    storage.journal = type(storage.journal)(storage.database, storage.blobs, storage.logs)
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))
    with pytest.raises(DatabaseCorrupt, match="damaged"):
        storage.journal.take_over(NOW_MS)


def test_a_failed_batch_lets_go_of_its_lock_while_somebody_still_holds_its_error(storage: Storage) -> None:
    key = {"key": "k", "body_hash": b"h", "answer": b"a", "created_ms": NOW_MS, "expires_ms": NOW_MS + 1}
    storage.before_commit = raising
    with pytest.raises(CommitFailed) as caught:
        storage.send(storage.batch([Insert("idempotency", key)]))
    storage.before_commit = None
    storage.take_over()
    storage.send(storage.batch([Insert("idempotency", key)]))
    assert caught.tb is not None
