"""Logs: bytes by offset across segments, durable with their batch, never more than was committed."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.backend import Storage
from titan.core.commit import LogChunk
from titan.storage.errors import CommitFailed, ContentMissing
from titan.storage.logs import NO_REASON, SMALL_BYTES, LogRange, log_totals


def read(storage: Storage, fence: int, offset: int = 0, length: int = 1 << 30) -> LogRange:
    return storage.database.read(lambda connection: storage.logs.read(connection, fence, offset, length))


def segments(storage: Storage) -> list[str]:
    return sorted(path.name for path in (storage.home / "logs").iterdir())


def test_nothing_is_there_before_the_first_byte(storage: Storage) -> None:
    assert read(storage, 7) == LogRange(0, b"", 0)
    assert segments(storage) == []


def test_attempts_share_a_segment_and_keep_their_own_bytes(storage: Storage) -> None:
    storage.commit(chunks=[LogChunk(1, 0, b"one "), LogChunk(2, 0, b"two "), LogChunk(1, 4, b"more")])
    storage.commit(chunks=[LogChunk(2, 4, b"\x00\xff")])
    assert read(storage, 1).data == b"one more"
    assert read(storage, 2).data == b"two \x00\xff"
    assert segments(storage) == ["00000001.seg"]


def test_neighbours_of_one_attempt_are_one_row(storage: Storage) -> None:
    storage.commit(chunks=[LogChunk(1, number, b"x") for number in range(100)])
    assert len(storage.rows("log_index")) == 1
    assert read(storage, 1).data == b"x" * 100


def test_empty_chunks_are_nothing(storage: Storage) -> None:
    storage.commit(chunks=[LogChunk(1, 0, b"")])
    assert storage.rows("log_index") == []
    assert segments(storage) == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.binary(min_size=1, max_size=40)), max_size=12), st.data())
def test_any_range_is_the_slice_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    storage = Storage(tmp_path_factory.mktemp("logs") / "home", segment_bytes_max=64)
    whole: dict[int, bytes] = {}
    for fence, piece in parts:
        storage.commit(chunks=[LogChunk(fence, len(whole.get(fence, b"")), piece)])
        whole[fence] = whole.get(fence, b"") + piece
        if data.draw(st.booleans()):
            storage.reopen()
    for fence, log in whole.items():
        offset = data.draw(st.integers(0, len(log) + 2))
        length = data.draw(st.integers(0, len(log) + 2))
        found = read(storage, fence, offset, length)
        assert (found.data, found.total) == (log[offset : offset + length], len(log))
    storage.close()


def test_a_full_segment_is_followed_by_the_next(backend: str, tmp_path: Path) -> None:
    storage = Storage(tmp_path / "home", segment_bytes_max=10)
    for number in range(5):
        storage.commit(chunks=[LogChunk(1, number * 6, b"%06d" % number)])
    assert segments(storage) == ["00000001.seg", "00000002.seg", "00000003.seg"]
    assert read(storage, 1, 3, 12).data == b"000000001000"
    storage.close()


def test_a_new_start_leaves_the_old_tail_alone(storage: Storage, tmp_path: Path) -> None:
    storage.commit(chunks=[LogChunk(1, 0, b"durable")])
    with open(storage.home / "logs" / "00000001.seg", "ab") as file:
        file.write(b"written, never committed")
    survivor = storage.after_a_kill(tmp_path / "copy")
    survivor.commit(chunks=[LogChunk(1, 7, b" and on")])
    assert read(survivor, 1) == LogRange(0, b"durable and on", 14)
    assert segments(survivor) == ["00000001.seg", "00000002.seg"]
    survivor.close()


def test_bytes_of_a_failed_batch_are_never_seen(storage: Storage) -> None:
    def fail(_: object) -> None:
        raise RuntimeError

    storage.commit(chunks=[LogChunk(1, 0, b"kept ")])
    storage.before_commit = fail
    with pytest.raises(CommitFailed):
        storage.commit(chunks=[LogChunk(1, 5, b"lost ")])
    storage.before_commit = None
    assert read(storage, 1).total == 5
    storage.commit(chunks=[LogChunk(1, 5, b"again")])
    assert read(storage, 1).data == b"kept again"


def test_small_batches_write_into_the_room_that_one_of_them_made(storage: Storage) -> None:
    path = storage.home / "logs" / "00000001.seg"
    storage.commit(chunks=[LogChunk(1, 0, b"one ")])
    size = path.stat().st_size
    assert size > SMALL_BYTES
    storage.commit(chunks=[LogChunk(1, 4, b"two")])
    assert path.stat().st_size == size
    storage.reopen()
    assert path.read_bytes() == b"one two"
    assert read(storage, 1).data == b"one two"


def test_a_large_batch_makes_no_room(storage: Storage) -> None:
    large = b"x" * (SMALL_BYTES + 1)
    storage.commit(chunks=[LogChunk(1, 0, large)])
    assert (storage.home / "logs" / "00000001.seg").read_bytes() == large


def test_a_disk_with_room_for_the_bytes_alone_keeps_them(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_all(descriptor: int, data: bytes) -> None:
        if len(data) > SMALL_BYTES:
            os.write(descriptor, data[:100])
            raise OSError(28, "No space left on device")
        os.write(descriptor, data)

    monkeypatch.setattr("titan.storage.logs.write_all", write_all)
    storage.commit(chunks=[LogChunk(1, 0, b"kept ")])
    storage.commit(chunks=[LogChunk(1, 5, b"too")])
    assert (storage.home / "logs" / "00000001.seg").read_bytes() == b"kept too"
    assert read(storage, 1).data == b"kept too"


def test_segments_are_synced_once_a_batch_before_the_commit(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    original = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        order.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        original(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    storage.before_commit = lambda batch: order.append(f"commit {batch.number}")
    storage.commit(chunks=[LogChunk(fence, 0, b"x") for fence in range(1, 50)])
    storage.commit()
    assert order == ["00000001.seg", "commit 1", "commit 2"]


def test_f6_a_segment_that_could_not_be_synced_is_never_written_again(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.commit(chunks=[LogChunk(1, 0, b"before ")])

    def fdatasync(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fdatasync)
        with pytest.raises(CommitFailed, match="Input/output error"):
            storage.commit(chunks=[LogChunk(1, 7, b"lost")])
    storage.commit(chunks=[LogChunk(1, 7, b"after")])
    assert read(storage, 1).data == b"before after"
    assert segments(storage) == ["00000001.seg", "00000002.seg"]
    assert (storage.home / "logs" / "00000001.seg").stat().st_size == 7


def test_i32_what_is_missing_is_told_where_it_is_missing(storage: Storage) -> None:
    storage.commit(chunks=[LogChunk(1, 0, b"head"), LogChunk(1, 4, b"", 90, "full"), LogChunk(2, 0, b"x")])
    assert read(storage, 1) == LogRange(0, b"head", 94, 90, "full")
    storage.commit(chunks=[LogChunk(1, 4, b"", 96, "full"), LogChunk(1, 100, b"tail")])
    assert read(storage, 1, 2) == LogRange(2, b"ad", 104, 96, "full")
    assert read(storage, 1, 2, 2) == LogRange(2, b"ad", 104)
    assert read(storage, 1, 4) == LogRange(4, b"", 104, 96, "full")
    assert read(storage, 1, 50, 52) == LogRange(50, b"", 104, 50, "full")
    assert read(storage, 1, 50, 0) == LogRange(50, b"", 104)
    assert read(storage, 1, 100, 2) == LogRange(100, b"ta", 104)
    assert read(storage, 1, 104) == LogRange(104, b"", 104)
    assert read(storage, 1, 50).end == 100


def test_bytes_that_nobody_knows_of_are_told_as_missing(storage: Storage) -> None:
    storage.commit(chunks=[LogChunk(1, 2, b"head"), LogChunk(1, 100, b"tail")])
    assert read(storage, 1, 0) == LogRange(0, b"", 104, 2, NO_REASON)
    assert read(storage, 1, 2) == LogRange(2, b"head", 104, 94, NO_REASON)
    assert read(storage, 1, 6, 10) == LogRange(6, b"", 104, 94, NO_REASON)


def test_bytes_do_not_become_a_hole(storage: Storage) -> None:
    storage.commit(chunks=[LogChunk(1, 0, b"head")])
    with pytest.raises(CommitFailed):
        storage.commit(chunks=[LogChunk(1, 0, b"", 4, "full")])
    assert read(storage, 1) == LogRange(0, b"head", 4)


def test_the_tail_counts_what_is_kept(storage: Storage) -> None:
    storage.commit(chunks=[LogChunk(1, 0, b"head"), LogChunk(1, 4, b"", 96, "full"), LogChunk(1, 100, b"tail")])
    storage.commit(chunks=[LogChunk(1, 104, b"", 10, "full"), LogChunk(1, 114, b"end")])

    def tail(fence: int, length: int) -> int:
        return storage.database.read(lambda c: storage.logs.tail(c, fence, length))

    assert [tail(1, length) for length in (1, 3, 4, 7, 8, 11, 12)] == [116, 114, 103, 100, 3, 0, 0]
    assert tail(2, 5) == 0


def test_totals_say_where_to_go_on(storage: Storage) -> None:
    storage.commit(chunks=[LogChunk(1, 0, b"abc"), LogChunk(2, 0, b"x")])
    storage.commit(chunks=[LogChunk(1, 3, b"de"), LogChunk(2, 1, b"", 10, "full")])
    assert storage.database.read(lambda c: log_totals(c, [1, 2, 3])) == {1: (5, 5), 2: (11, 1), 3: (0, 0)}


def test_a_segment_that_is_gone_or_cut_is_an_error_not_silence(storage: Storage) -> None:
    storage.commit(chunks=[LogChunk(1, 0, b"abc")])
    path = storage.home / "logs" / "00000001.seg"
    os.truncate(path, 2)
    with pytest.raises(ContentMissing, match="ends before byte 3"):
        read(storage, 1)
    assert read(storage, 1, 0, 2).data == b"ab"
    path.unlink()
    with pytest.raises(ContentMissing, match="it is not there"):
        read(storage, 1)


def test_segments_are_private(storage: Storage) -> None:
    storage.commit(chunks=[LogChunk(1, 0, b"secret")])
    assert (storage.home / "logs" / "00000001.seg").stat().st_mode & 0o777 == 0o600


def test_foreign_files_among_the_segments_are_left_alone(storage: Storage) -> None:
    (storage.home / "logs" / "notes.txt").write_text("mine")
    storage.reopen()
    storage.commit(chunks=[LogChunk(1, 0, b"x")])
    assert segments(storage) == ["00000001.seg", "notes.txt"]
