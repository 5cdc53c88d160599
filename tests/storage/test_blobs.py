"""Blobs: content by hash, small ones as rows, large ones as private files that are durable before they are known."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.backend import NOW_MS, Storage
from tests.storage.builders import new_run
from titan.core.changes import Insert
from titan.model.limits import DEFAULT_LIMITS
from titan.model.store import RegisterFile, StoreRefused, UploadBlob, UploadFile
from titan.storage import queries
from titan.storage.errors import ContentMissing

INLINE_MAX = DEFAULT_LIMITS.blob_inline_bytes_max


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def get(storage: Storage, sha: str) -> bytes | None:
    return storage.database.read(lambda connection: storage.blobs.get(connection, sha))


def save(storage: Storage, data: bytes) -> str:
    storage.one(upload := storage.blobs.save([data], NOW_MS))
    return upload.sha256


def files(storage: Storage) -> list[Path]:
    return [path for path in (storage.home / "blobs").rglob("*") if path.is_file()]


@pytest.mark.parametrize("size", [0, 1, INLINE_MAX, INLINE_MAX + 1, 3_000_000])
def test_content_comes_back_and_only_large_content_is_a_file(storage: Storage, size: int) -> None:
    data = os.urandom(size)
    sha = save(storage, data)
    assert sha == sha256(data)
    assert get(storage, sha) == data
    assert len(files(storage)) == (size > INLINE_MAX)
    storage.reopen()
    assert get(storage, sha) == data


def test_large_blobs_are_private_files_under_their_hash(storage: Storage) -> None:
    sha = save(storage, b"x" * 100_000)
    path = storage.home / "blobs" / sha[:2] / sha[2:]
    assert files(storage) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_large_file_is_synced_before_the_batch_and_so_is_its_name(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    original = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    upload = storage.blobs.save([b"x" * 100_000], NOW_MS)
    place = str(storage.home / "blobs" / upload.sha256[:2])
    assert synced[0].startswith(str(storage.home / "blobs" / "incoming-"))
    assert synced[-1] == place
    assert str(storage.home / "blobs") in synced


def test_content_may_arrive_in_pieces(storage: Storage) -> None:
    pieces = [os.urandom(30_000) for _ in range(5)]
    upload = storage.blobs.save(iter(pieces), NOW_MS, sha256(b"".join(pieces)))
    assert (upload.size, upload.data) == (150_000, None)
    storage.one(upload)
    assert get(storage, upload.sha256) == b"".join(pieces)


@pytest.mark.parametrize("size", [10, 100_000])
def test_content_of_another_hash_is_refused_and_leaves_nothing(storage: Storage, size: int) -> None:
    with pytest.raises(ValueError, match="send it again, whole"):
        storage.blobs.save([b"x" * size], NOW_MS, sha256(b"other"))
    assert files(storage) == []


def test_an_upload_that_breaks_off_leaves_nothing(storage: Storage) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        storage.blobs.save(pieces(), NOW_MS)
    assert files(storage) == []


def test_a_start_removes_what_a_killed_upload_left(storage: Storage) -> None:
    (storage.home / "blobs" / "incoming-0123").write_bytes(b"half")
    sha = save(storage, b"x" * 100_000)
    storage.reopen()
    assert [path.name for path in files(storage)] == [sha[2:]]


def test_a_file_without_a_row_is_not_known(storage: Storage) -> None:
    upload = storage.blobs.save([b"x" * 100_000], NOW_MS)
    assert get(storage, upload.sha256) is None


def test_the_same_content_again_changes_nothing(storage: Storage) -> None:
    upload = storage.blobs.save([b"small"], NOW_MS)
    later = UploadBlob(upload.sha256, upload.size, upload.data, NOW_MS + 5)
    assert storage.do(upload, later) == [None, None]
    assert storage.rows("blobs") == [(upload.sha256, 5, b"small", NOW_MS)]


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_submission_brings_its_scripts_in_its_own_batch(storage: Storage, size: int) -> None:
    data = b"y" * size
    row = Insert("blobs", {"sha256": sha256(data), "size": size, "data": data, "created_ms": NOW_MS})
    storage.commit(new_run(), row)
    assert row.values["data"] == data
    assert get(storage, sha256(data)) == data
    assert len(files(storage)) == (size > INLINE_MAX)


def test_present_blobs_are_told_from_missing_ones(storage: Storage) -> None:
    here = save(storage, b"here")
    assert storage.database.read(lambda c: queries.blobs_present(c, [here, "f" * 64])) == {here}


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "A" * 64, "f" * 63, "f" * 64 + "\n", "f" * 65])
def test_what_is_no_hash_is_no_path(storage: Storage, name: str) -> None:
    with pytest.raises(ValueError, match="is not a SHA-256"):
        storage.blobs.path(name)
    assert get(storage, name) is None


def test_a_file_that_was_removed_or_cut_is_an_error_not_other_content(storage: Storage) -> None:
    sha = save(storage, b"x" * 100_000)
    path = storage.blobs.path(sha)
    path.write_bytes(b"x" * 99_999)
    with pytest.raises(ContentMissing, match="99999 bytes, not 100000"):
        get(storage, sha)
    path.unlink()
    with pytest.raises(ContentMissing, match="is gone"):
        get(storage, sha)


def test_a_name_means_the_newest_content(storage: Storage) -> None:
    first, second = save(storage, b"one"), save(storage, b"two!")
    storage.do(RegisterFile("a.py", first, NOW_MS), RegisterFile("a.py", second, NOW_MS + 1))
    found = storage.database.read(lambda c: queries.registered(c, "a.py"))
    assert found == queries.Registered("a.py", second, 4, NOW_MS + 1)
    assert storage.database.read(lambda c: queries.registered(c, "b.py")) is None


def test_a_file_can_be_uploaded_and_named_at_once(storage: Storage) -> None:
    upload = storage.blobs.save([b"x" * 100_000], NOW_MS)
    assert storage.one(UploadFile("big.py", upload, NOW_MS)) is None
    found = storage.database.read(lambda c: queries.registered(c, "big.py"))
    assert found is not None
    assert get(storage, found.sha256) == b"x" * 100_000


def test_a_name_for_unknown_content_is_refused(storage: Storage) -> None:
    result = storage.one(RegisterFile("a.py", "f" * 64, NOW_MS))
    assert isinstance(result, StoreRefused)
    assert result.code == "not_found"
    assert storage.rows("registry") == []
