"""A disk that is full, read-only, torn or held by somebody else: nothing half done, and healed without a restart."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.backend import NOW_MS, Storage
from tests.storage.builders import new_job, new_run, number_of_id
from tests.storage.mounts import small_disk
from titan.core.commit import LogChunk
from titan.model.store import StorePut
from titan.storage import kv, sqlite
from titan.storage.errors import CommitFailed, ReadTimedOut, StorageFull

DISK_BYTES = 4 * 1024 * 1024


@pytest.fixture
def on_a_small_disk(backend: str, tmp_path: Path) -> Iterator[Storage]:
    with small_disk(tmp_path / "disk", DISK_BYTES) as disk:
        storage = Storage(disk / "home")
        yield storage
        storage.close()


def fill(storage: Storage) -> Path:
    """Leave no byte free; return the file to remove again."""
    ballast = storage.home.parent / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return ballast


def until_full(storage: Storage) -> int:
    """Commit until it is refused; return how many commits were kept."""
    for number in range(10_000):
        try:
            storage.one(StorePut(f"k{number}", "v" * 3_000, NOW_MS))
        except StorageFull:
            return number
    raise AssertionError("the disk never filled")


def test_f8_a_full_disk_refuses_whole_batches_and_heals_without_a_restart(
    on_a_small_disk: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("titan.storage.logs.ROOM_BYTES", 0)  # it could write there, and gives it back when it fails
    storage = on_a_small_disk
    storage.commit(new_run(), chunks=[LogChunk(1, 0, b"kept")])
    ballast = fill(storage)
    kept = until_full(storage)
    before, leader = storage.everything(), storage.journal.leader()
    assert leader == (storage.epoch, kept + 1)
    for _ in range(3):
        with pytest.raises(StorageFull, match="free some space"):
            storage.send(storage.batch([new_job()], [StorePut("big", "x" * 100_000, NOW_MS)]))
        with pytest.raises(StorageFull):
            storage.commit(chunks=[LogChunk(1, 4, b"x" * 100_000)])
        with pytest.raises(OSError, match="No space left"):
            storage.blobs.save([b"x" * 100_000], NOW_MS)
    assert storage.everything() == before
    assert storage.journal.leader() == leader
    assert storage.database.read(lambda c: storage.logs.read(c, 1, 0, 9)).data == b"kept"
    if kept:
        assert storage.database.read(lambda c: kv.get(c, "k0", NOW_MS)) == "v" * 3_000
    ballast.unlink()
    storage.send(storage.batch([new_job()], [StorePut("big", "x" * 100_000, NOW_MS)], [LogChunk(1, 4, b" on")]))
    assert storage.database.read(lambda c: storage.logs.read(c, 1, 0, 9)).data == b"kept on"


def test_f8_nothing_acknowledged_is_lost_when_it_is_killed_on_a_full_disk(
    on_a_small_disk: Storage, tmp_path: Path
) -> None:
    storage = on_a_small_disk
    kept = until_full(storage)
    assert kept > 100
    survivor = storage.after_a_kill(tmp_path / "copy")
    assert len(survivor.rows("kv")) == kept
    survivor.close()


def test_f8_failed_log_writes_leave_no_pile_of_segments(on_a_small_disk: Storage) -> None:
    storage = on_a_small_disk
    ballast = fill(storage)
    for _ in range(5):
        with pytest.raises(StorageFull):
            storage.commit(chunks=[LogChunk(1, 0, b"x" * 200_000)])
    assert [*(storage.home / "logs").iterdir()] == []
    ballast.unlink()
    storage.commit(chunks=[LogChunk(1, 0, b"x")])


def test_f8_a_full_database_is_told_from_a_wrong_belief(storage: Storage) -> None:
    """SQLite's own page limit stands in for the disk where nobody may mount one."""
    storage.commit(new_run())
    before = storage.everything()
    pages = storage.database.writer().run("PRAGMA page_count")[0][0]
    storage.database.writer().run(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StorageFull):
        storage.one(StorePut("big", "x" * 1_000_000, NOW_MS))
    assert storage.everything() == before
    assert storage.journal.leader() == (storage.epoch, 1)
    storage.one(StorePut("big", "x" * 1_000_000, NOW_MS))


def test_f7_an_error_of_the_disk_under_a_log_fails_the_batch(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_descriptor: int, _data: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", write)
        with pytest.raises(CommitFailed, match="Input/output error"):
            storage.commit(new_run(), chunks=[LogChunk(1, 0, b"lost")])
    assert storage.rows("runs") == []
    storage.commit(new_run(), chunks=[LogChunk(1, 0, b"kept")])


def test_f12_a_database_that_turns_read_only_refuses_writes_and_serves_reads(storage: Storage) -> None:
    """A pragma stands in for the kernel, which remounts read-only only what nobody has open."""
    storage.one(StorePut("k", "v", NOW_MS))
    storage.database.writer().run("PRAGMA query_only = ON")
    with pytest.raises(CommitFailed, match="readonly"):
        storage.one(StorePut("k", "lost", NOW_MS))
    assert storage.database.read(lambda c: kv.get(c, "k", NOW_MS)) == "v"
    storage.one(StorePut("k", "new", NOW_MS))


@pytest.mark.parametrize("cut_bytes", [1, 100, 4096, 5000])
def test_f11_a_torn_tail_of_the_wal_costs_only_what_was_not_synced(
    storage: Storage, tmp_path: Path, cut_bytes: int
) -> None:
    for number in range(20):
        storage.commit(new_run(number_of_id(number)))
    wal = (storage.home / "titan.db-wal").read_bytes()
    half_written = tmp_path / "half"
    for number in range(20, 25):
        storage.commit(new_run(number_of_id(number)))
    longer = (storage.home / "titan.db-wal").read_bytes()
    assert longer.startswith(wal)

    def tear(size: int) -> int:
        copy = tmp_path / f"{half_written.name}-{size}"
        copy.mkdir()
        (copy / "titan.db").write_bytes((storage.home / "titan.db").read_bytes())
        (copy / "titan.db-wal").write_bytes(longer[:size])
        survivor = Storage(copy)
        found = len(survivor.rows("runs"))
        survivor.close()
        return found

    assert tear(len(wal)) == 20
    assert tear(len(wal) + cut_bytes) == 20
    assert tear(len(longer) - cut_bytes) in range(20, 25)


def test_f14_a_reader_that_takes_too_long_is_cut(storage: Storage) -> None:
    long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50000000) SELECT count(*) FROM n"
    with pytest.raises(ReadTimedOut, match="ask for less"):
        storage.database.read(lambda connection: connection.run(long), 0.05)
    assert storage.rows("runs") == []


def test_f14_many_short_reads_are_cut_as_well(storage: Storage) -> None:
    with pytest.raises(ReadTimedOut):
        storage.database.read(lambda connection: [kv.get(connection, "k", NOW_MS) for _ in range(1_000_000)], 0.05)


def test_f15_a_database_held_from_outside_fails_the_batch_and_nothing_else(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_S", 0.05)
    storage = Storage(tmp_path / "home")
    storage.commit(new_run())
    outside = sqlite3.connect(storage.home / "titan.db", isolation_level=None)
    outside.execute("BEGIN EXCLUSIVE")
    with pytest.raises(CommitFailed, match="database is locked"):
        storage.commit(new_job())
    assert len(storage.rows("runs")) == 1
    outside.execute("ROLLBACK")
    storage.commit(new_job())
    outside.close()
    storage.close()


def test_f15_a_reader_from_outside_holds_nobody_up(storage: Storage) -> None:
    outside = sqlite3.connect(storage.home / "titan.db", isolation_level=None)
    outside.execute("BEGIN")
    outside.execute("SELECT * FROM runs").fetchall()
    storage.commit(new_run())
    assert outside.execute("SELECT * FROM runs").fetchall() == []
    outside.close()
