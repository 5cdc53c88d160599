"""Artifacts: versions under a key, contents kept once, files that go when no row names them."""

import hashlib
import os
import random
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.storage.backend import NOW_MS, Storage
from tests.storage.builders import new_attempt
from tests.storage.mounts import small_disk
from titan.core.changes import Update
from titan.model.limits import Limits
from titan.model.store import DeleteArtifact, IdempotencyKey, PublishArtifact, StoreRefused
from titan.storage import artifacts
from titan.storage.contents import ArtifactFiles, NoRoom
from titan.storage.errors import ContentMissing

LARGE = 200_000


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def publish(storage: Storage, key: str, content: bytes = b"x", **more: Any) -> Any:
    return storage.one(PublishArtifact(key, "f.bin", sha(content), len(content), content, NOW_MS, "admin", **more))


def newest(storage: Storage, key: str) -> Any:
    return storage.database.read(lambda connection: artifacts.find(connection, key))


def contents(storage: Storage) -> set[str]:
    return {row[0] for row in storage.rows("artifact_contents")}


def test_each_publication_is_a_version_and_the_newest_is_what_the_key_means(storage: Storage) -> None:
    assert publish(storage, "report", b"1") == ["1"]
    assert publish(storage, "report", b"2") == ["2"]
    assert publish(storage, "other", b"1") == ["1"]
    assert newest(storage, "report").sha256 == sha(b"2")
    rows = storage.database.read(lambda connection: artifacts.versions(connection, "report"))
    assert [row.version for row in rows] == [2, 1]
    assert contents(storage) == {sha(b"1"), sha(b"2")}


def test_the_oldest_version_goes_and_its_content_unless_another_has_it(storage: Storage) -> None:
    storage.close()
    storage.limits = Limits(artifact_versions_max=2)
    storage.open()
    publish(storage, "a", b"1")
    publish(storage, "a", b"2")
    publish(storage, "b", b"2")
    assert publish(storage, "a", b"3") == ["3", sha(b"1")]
    assert publish(storage, "a", b"4") == ["4"]
    assert contents(storage) == {sha(b"2"), sha(b"3"), sha(b"4")}


def test_a_key_is_published_once_for_an_idempotency_key(storage: Storage) -> None:
    once = IdempotencyKey("k", b"body", NOW_MS + 1000)
    assert publish(storage, "a", idempotency=once) == publish(storage, "a", idempotency=once) == ["1"]
    assert newest(storage, "a").version == 1


def test_i35_what_an_attempt_that_is_over_publishes_counts_no_more(storage: Storage) -> None:
    storage.commit(new_attempt(fence=7))
    job = {"run_id": "r", "job_id": "j", "attempt": 1, "fence": 7}
    assert publish(storage, "a", b"1", **job) == ["1"]
    storage.commit(Update("attempts", (7,), {}, {"state": "LOST", "ended_ms": NOW_MS}))
    late = publish(storage, "a", b"2", **job)
    assert isinstance(late, StoreRefused)
    assert late.code == "denied"
    assert newest(storage, "a").version == 1
    assert contents(storage) == {sha(b"1")}
    assert isinstance(publish(storage, "a", b"2", **(job | {"fence": 8})), StoreRefused)


def test_one_over_the_limit_of_artifacts(storage: Storage) -> None:
    storage.close()
    storage.limits = Limits(artifacts_max=3, artifact_versions_max=2)
    storage.open()
    for key in ("a", "b", "b"):
        assert isinstance(publish(storage, key), list)
    refused = publish(storage, "c")
    assert isinstance(refused, StoreRefused)
    assert "3 versions" in refused.message
    assert publish(storage, "b") == ["3"], "one goes for it"


def recounted(storage: Storage) -> tuple[int, int, int]:
    marks = [row for row in storage.rows("artifact_marks") if row[0]]
    return len(storage.rows("artifacts")), sum(row[1] for row in storage.rows("artifact_contents")), len(marks)


def test_one_byte_over_what_all_artifacts_may_have(storage: Storage) -> None:
    storage.close()
    storage.limits = Limits(artifacts_total_bytes_max=5, artifact_versions_max=2)
    storage.open()
    assert publish(storage, "a", b"123") == ["1"]
    assert publish(storage, "b", b"123") == ["1"], "the same content takes no room"
    refused = publish(storage, "c", b"456")
    assert isinstance(refused, StoreRefused)
    assert (refused.code, "limit of 5" in refused.message) == ("conflict", True)
    assert "TITAN_LIMIT_ARTIFACTS_TOTAL_BYTES_MAX" in refused.message
    assert publish(storage, "c", b"45") == ["1"]
    storage.one(DeleteArtifact("a", 0, NOW_MS))
    assert isinstance(publish(storage, "d", b"6"), StoreRefused), "b still has the content"
    storage.one(DeleteArtifact("b", 0, NOW_MS))
    assert publish(storage, "d", b"678") == ["1"]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_counted_is_what_there_is_whatever_was_done(storage: Storage, seed: int) -> None:
    draw = random.Random(seed)
    storage.close()
    storage.limits = Limits(artifacts_max=12, artifact_versions_max=3, artifacts_total_bytes_max=60)
    storage.open()
    seen: Counter[str] = Counter()
    for step in range(250):
        key = draw.choice("abcdefgh")
        once = IdempotencyKey(f"k{draw.randrange(40)}", b"body", NOW_MS + 1000) if draw.random() < 0.2 else None
        if draw.random() < 0.65:
            result = publish(storage, key, b"x" * draw.randrange(12), idempotency=once)
        else:
            result = storage.one(DeleteArtifact(key, draw.choice([0, 0, 1, 2, 9]), NOW_MS))
        seen[result.message[:18] if isinstance(result, StoreRefused) else "done"] += 1
        now = storage.database.read(artifacts.totals)
        assert (now.versions, now.bytes, now.marks) == recounted(storage), step
        if step % 100 == 99:
            storage.close()
            storage.open()
    assert seen["done"] > 100
    assert storage.database.read(artifacts.totals).bytes <= 60


def test_a_publication_costs_the_same_however_many_artifacts_there_are(storage: Storage) -> None:
    steps = [0]

    def step() -> int:
        steps[0] += 1
        return 0

    storage.database.writer().raw.set_progress_handler(step, 10)
    costs = []
    for count in (50, 1_500):
        for number in range(count):
            publish(storage, f"{count}/{number}", b"%d" % number)
            if number % 2:
                storage.one(DeleteArtifact(f"{count}/{number}", 0, NOW_MS))
        before = steps[0]
        publish(storage, "a", b"content")
        storage.one(DeleteArtifact("a", 0, NOW_MS))
        costs.append(steps[0] - before)
    assert 0 < costs[1] < 1.5 * costs[0]


def test_deleting_one_version_and_all(storage: Storage) -> None:
    for content in (b"1", b"2", b"3"):
        publish(storage, "a", content)
    assert storage.one(DeleteArtifact("a", 2, NOW_MS)) == ["1", sha(b"2")]
    assert storage.one(DeleteArtifact("a", 2, NOW_MS)) == ["0"]
    assert storage.one(DeleteArtifact("a", 0, NOW_MS)) == ["2", sha(b"3"), sha(b"1")]
    assert newest(storage, "a") is None
    assert contents(storage) == set()
    assert publish(storage, "a") == ["4"]


def test_a_number_is_never_given_twice(storage: Storage) -> None:
    once = IdempotencyKey("k", b"body", NOW_MS + 1000)
    for _ in range(2):
        publish(storage, "a")
    assert publish(storage, "a", idempotency=once) == ["3"]
    assert publish(storage, "b") == ["1"]
    for version in (3, 2, 1):
        assert storage.one(DeleteArtifact("a", version, NOW_MS))[0] == "1"
        assert publish(storage, "a", idempotency=once) == ["3"], "a resend gets the answer it had"
    storage.close()
    storage.open()
    assert publish(storage, "a") == ["4"]
    assert storage.one(DeleteArtifact("a", 4, NOW_MS))[0] == "1"
    assert storage.one(DeleteArtifact("a", 4, NOW_MS)) == ["0"]
    assert publish(storage, "a") == ["5"]
    assert publish(storage, "b") == ["2"], "other keys count for themselves"


def test_the_marks_of_deleted_keys_do_not_grow_for_ever_and_no_number_comes_again(storage: Storage) -> None:
    storage.close()
    storage.limits = Limits(artifacts_max=3)
    storage.open()
    given: dict[str, list[int]] = {}
    for key in "abbcdeabcdebbbfa":
        number = int(publish(storage, key)[0])
        assert number > max(given.get(key, [0])), f"{key} had {given}"
        given.setdefault(key, []).append(number)
        if key != "b" or len(given["b"]) % 2 == 0:
            storage.one(DeleteArtifact(key, 0, NOW_MS))
        assert len(storage.rows("artifact_marks")) <= 4, "three and the floor"
    assert given["c"][0] == 1
    assert given["f"][0] > 1, "more were deleted than there are marks: it begins above the floor"


def test_listing_by_prefix_page_by_page(storage: Storage) -> None:
    for key in ("a/1", "a/2", "a/2", "a/ü", "b", "a"):
        publish(storage, key)
    found, after = [], None
    while True:
        page = storage.database.read(lambda connection, after=after: artifacts.page(connection, "a/", 2, after))
        found += [(row.key, row.version) for row in page.rows]
        after = page.next
        if after is None:
            break
    assert found == [("a/1", 1), ("a/2", 2), ("a/ü", 1)]
    named = storage.database.read(lambda connection: artifacts.find_named(connection, "f.bin"))
    assert named is not None


@pytest.fixture
def files(tmp_path: Path) -> ArtifactFiles:
    return ArtifactFiles(tmp_path / "artifacts", spare_bytes=0)


def settled(files: ArtifactFiles, content: bytes) -> str:
    incoming = files.begin()
    files.add(incoming, content)
    digest, _ = files.settle(incoming)
    incoming.drop()
    return digest


def paths(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]


def test_a_large_content_is_a_private_file_and_comes_back(files: ArtifactFiles, tmp_path: Path) -> None:
    content = os.urandom(LARGE)
    digest = settled(files, content)
    (path,) = paths(tmp_path)
    assert path == tmp_path / "artifacts" / digest[:2] / digest[2:]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    descriptor = files.open(digest, LARGE)
    assert os.pread(descriptor, LARGE + 1, 0) == content
    os.close(descriptor)
    assert list(files.kept()) == [digest]


def test_a_content_that_is_damaged_is_not_sent(files: ArtifactFiles, tmp_path: Path) -> None:
    digest = settled(files, b"x" * LARGE)
    os.truncate(paths(tmp_path)[0], 10)
    with pytest.raises(ContentMissing, match="10 bytes"):
        files.open(digest, LARGE)
    paths(tmp_path)[0].unlink()
    with pytest.raises(ContentMissing, match="gone"):
        files.open(digest, LARGE)


def test_what_waits_for_its_transaction_or_is_known_is_not_collected(files: ArtifactFiles, tmp_path: Path) -> None:
    digest = settled(files, b"x" * LARGE)
    assert not files.collect(digest, lambda _: False), "it waits"
    assert settled(files, b"x" * LARGE) == digest
    files.release(digest)
    assert not files.collect(digest, lambda _: False), "it waits for the other"
    files.release(digest)
    assert not files.collect(digest, lambda _: True), "it is known"
    assert len(paths(tmp_path)) == 1
    assert files.collect(digest, lambda _: False)
    assert paths(tmp_path) == []
    assert files.collect(digest, lambda _: False), "again does no harm"


def test_a_start_sweeps_what_was_still_arriving(files: ArtifactFiles, tmp_path: Path) -> None:
    incoming = files.begin()
    files.add(incoming, b"x" * LARGE)
    assert len(paths(tmp_path)) == 1
    ArtifactFiles(tmp_path / "artifacts")
    assert paths(tmp_path) == []
    incoming.drop()


def test_a_failed_sync_leaves_nothing_waiting(
    files: ArtifactFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = files.begin()
    files.add(incoming, b"x" * LARGE)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            files.settle(incoming)
    incoming.drop()
    assert paths(tmp_path) == []
    assert files.collect(sha(b"x" * LARGE), lambda _: False)


def test_the_last_room_of_a_disk_is_left_to_the_database(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4_000_000) as disk:
        files = ArtifactFiles(disk / "artifacts", spare_bytes=2_000_000)
        incoming = files.begin()
        files.add(incoming, b"x" * 1_000_000)
        with pytest.raises(NoRoom, match="database needs"):
            files.add(incoming, b"x" * 1_500_000)
        incoming.drop()
        assert [path for path in disk.rglob("*") if path.is_file()] == []
