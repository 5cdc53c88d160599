"""Artifacts over HTTP: published whole or not at all, sent as a download and nothing else."""

import hashlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.api.master import TOKEN, Answer, Master, Worker
from tests.api.test_runs import refused
from titan.master import artifacts
from titan.model.store import DeleteArtifact

LARGE = 300_000


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def publish(
    master: Master, key: str, content: object, name: str = "out.bin", token: str = TOKEN, **query: str
) -> Answer:
    asked = "&".join(f"{word}={quote(text, safe='')}" for word, text in {"key": key, "name": name, **query}.items())
    return master.request("PUT", f"/artifacts?{asked}", content, token=token)


def fetched(master: Master, key: str, more: str = "") -> Answer:
    return master.get(f"/artifacts/content?key={quote(key, safe='')}{more}")


def kept(master: Master) -> list[Path]:
    # Whatever is to be collected is on the threads already: they are done when a call behind it is.
    master.gate.site.artifacts._threads.submit(lambda: None).result()  # type: ignore[attr-defined]
    return [path for path in (master.home / "artifacts").rglob("*") if path.is_file()]


def until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end_s, "it never came about"


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given to the threads is done in order, so that a test can wait for it."""
    monkeypatch.setattr(artifacts, "THREADS", 1)


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_000])
def test_an_artifact_comes_back_exactly(master: Master, size: int) -> None:
    content = os.urandom(size)
    answer = publish(master, f"size/{size}", content, "data.bin", sha256=sha(content))
    assert answer.status == 200, answer.body
    told = answer.json
    assert (told["key"], told["version"], told["name"]) == (f"size/{size}", 1, "data.bin")
    assert (told["sha256"], told["size"], told["created_by"]) == (sha(content), size, "admin")
    assert (told["run_id"], told["job_id"], told["attempt"]) == (None, None, None)
    back = fetched(master, f"size/{size}")
    assert (back.status, back.body) == (200, content)
    assert back.headers["titan-artifact-sha256"] == sha(content)
    for offset in (size // 2, size):
        assert fetched(master, f"size/{size}", f"&offset={offset}").body == content[offset:]
    refused(fetched(master, f"size/{size}", f"&offset={size + 1}"), 422, "invalid", "offset")


def test_an_artifact_sent_in_pieces_and_its_versions(master: Master) -> None:
    def pieces() -> Iterator[bytes]:
        yield from (b"0123456789" * 999 for _ in range(30))

    assert publish(master, "pieces", pieces()).status == 200
    assert publish(master, "pieces", b"newer", "new.txt").json["version"] == 2
    assert fetched(master, "pieces").body == b"newer"
    assert fetched(master, "pieces", "&version=1").body == b"".join(pieces())
    listed = master.get("/artifacts/versions?key=pieces").json["artifacts"]
    assert [one["version"] for one in listed] == [2, 1]
    newest = [one for one in master.get("/artifacts?prefix=pie").json["artifacts"] if one["key"] == "pieces"]
    assert newest == listed[:1]
    assert master.get("/artifacts/content?name=new.txt").body == b"newer"
    refused(fetched(master, "pieces", "&version=3"), 404, "not_found", "version 3")
    refused(master.get("/artifacts/versions?key=nothing"), 404, "not_found", "artifacts ls")


@pytest.mark.parametrize("name", ["page.html", "image.svg", "..%5c", "file.html%3f.txt", "ü ' \" .js", "a;b=c.htm"])
def test_s26_whatever_it_is_called_it_is_a_download_and_no_page(master: Master, name: str) -> None:
    assert publish(master, "named", b"<script>", name).status == 200
    back = fetched(master, "named")
    assert back.headers["content-type"] == "application/octet-stream"
    assert back.headers["content-disposition"] == f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    assert back.headers["x-content-type-options"] == "nosniff"
    assert back.headers["titan-artifact-key"] == "named"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "\\..\\", "file.html\0.txt", "x\n", "\u202e", "n" * 256]
)
def test_s26_a_name_that_leads_elsewhere_is_refused(master: Master, name: str) -> None:
    refused(publish(master, "key", b"", name), 422, "invalid", "file name")


@pytest.mark.parametrize("key", ["../../etc/passwd", "/", "..", "a\\..\\b", "k" * 512, "ü%00"])
def test_s26_a_key_never_becomes_a_path(master: Master, key: str) -> None:
    assert publish(master, key, b"k" * LARGE).status == 200
    assert fetched(master, key).body == b"k" * LARGE
    digest = sha(b"k" * LARGE)
    assert (master.home / "artifacts" / digest[:2] / digest[2:]).is_file()
    assert master.request("DELETE", f"/artifacts?key={quote(key, safe='')}").json == {"deleted": 1}


@pytest.mark.parametrize("key", ["", "k" * 513, "a\0b", "a\nb", "a\u2066b"])
def test_a_key_that_is_none_is_refused(master: Master, key: str) -> None:
    refused(publish(master, key, b""), 422, "invalid", "artifact key")


def test_i35_another_content_than_its_hash_is_not_published(master: Master) -> None:
    before = kept(master)
    refused(publish(master, "wrong", b"x" * LARGE, sha256=sha(b"other")), 422, "invalid", "damaged")
    refused(publish(master, "wrong", b"x", sha256="abc"), 422, "invalid", "SHA-256")
    refused(fetched(master, "wrong"), 404, "not_found")
    assert kept(master) == before


def test_what_breaks_off_leaves_nothing(own_master: Callable[..., Master]) -> None:
    master = own_master()
    head = (
        f"PUT /api/v1/artifacts?key=broken&name=b HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: 9000000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", master.port)) as connection:
        connection.sendall(head.encode() + b"x" * 4_000_000)
        until(lambda: bool(kept(master)))
    until(lambda: not kept(master))
    refused(fetched(master, "broken"), 404, "not_found")


def test_one_over_the_limit_of_an_artifact(own_master: Callable[..., Master]) -> None:
    master = own_master(artifact_bytes_max=100_000, artifact_key_chars_max=5)
    assert publish(master, "fits", b"x" * 100_000).status == 200
    for body in (b"x" * 100_001, (b"x" * 10_001 for _ in range(10))):
        refused(publish(master, "over", body), 413, "too_large", "TITAN_LIMIT_ARTIFACT_BYTES_MAX")
    refused(publish(master, "longer", b""), 422, "invalid", "artifact key")
    assert len(kept(master)) == 1


def test_one_over_the_limit_of_versions_and_of_artifacts(own_master: Callable[..., Master]) -> None:
    master = own_master(artifact_versions_max=2, artifacts_max=3)
    for number in range(3):
        assert publish(master, "a", bytes([number]) * LARGE).json["version"] == number + 1
    assert {path.stat().st_size for path in kept(master)} == {LARGE}
    assert len(kept(master)) == 2
    assert publish(master, "b", b"").status == 200
    refused(publish(master, "c", b"c" * LARGE), 409, "conflict", "3 versions", "delete some")
    assert len(kept(master)) == 2
    assert publish(master, "a", b"").status == 200, "one goes for it"


def test_one_byte_over_all_artifacts_is_refused_before_it_is_stored(
    own_master: Callable[..., Master], monkeypatch: pytest.MonkeyPatch
) -> None:
    master = own_master(artifacts_total_bytes_max=LARGE + 10)
    key = {"Idempotency-Key": "filled"}
    put = f"/artifacts?key=a&name=a&sha256={sha(b'a' * LARGE)}"
    assert master.put(put, b"a" * LARGE, headers=key).status == 200
    added: list[int] = []
    files = master.gate.site.artifacts._files  # type: ignore[attr-defined]
    monkeypatch.setattr(type(files), "add", lambda _, __, piece: added.append(len(piece)))
    told = ("limit of 300010", "delete some", "TITAN_LIMIT_ARTIFACTS_TOTAL_BYTES_MAX")
    refused(publish(master, "b", b"b" * 11), 409, "conflict", *told)
    refused(publish(master, "b", (b"b" for _ in range(11))), 409, "conflict", *told)
    with socket.create_connection(("127.0.0.1", master.port), timeout=60) as announced:
        head = f"PUT /api/v1/artifacts?key=b&name=b HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        announced.sendall(head.encode() + b"Content-Length: 11\r\n\r\n")
        assert announced.recv(12) == b"HTTP/1.1 409", "it is refused before a byte of it came"
    assert added == []
    monkeypatch.undo()
    assert master.put(put, b"a" * LARGE, headers=key).json["version"] == 1, "a resend is no second one"
    assert publish(master, "b", b"b" * 10).status == 200
    assert master.request("DELETE", "/artifacts?key=a").status == 200
    assert publish(master, "c", b"c" * LARGE).status == 200


def test_two_that_arrive_together_have_no_more_room_than_one_after_the_other(own_master: Callable[..., Master]) -> None:
    master = own_master(artifacts_total_bytes_max=3_000_000)
    with socket.create_connection(("127.0.0.1", master.port)) as connection:
        head = f"PUT /api/v1/artifacts?key=slow&name=s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        connection.sendall(head.encode() + b"Content-Length: 2900000\r\n\r\n" + b"x" * 2_000_000)
        arriving = master.gate.site.artifacts  # type: ignore[attr-defined]
        until(lambda: arriving._arriving > 1_000_000)
        refused(publish(master, "second", b"2" * 2_000_001), 409, "conflict", "limit of 3000000")
    until(lambda: arriving._arriving == 0)
    assert publish(master, "second", b"2" * 2_000_001).status == 200


def test_what_is_deleted_between_being_found_and_being_sent_is_told_as_deleted(
    own_master: Callable[..., Master], monkeypatch: pytest.MonkeyPatch
) -> None:
    master = own_master()
    site = master.gate.site.artifacts  # type: ignore[attr-defined]
    opening = site._files.open

    def deleted_first(digest: str, size: int) -> int:
        gone = DeleteArtifact("large", 0, 1)
        master.run(site._engine.mutate(gone))
        site._collect(digest)
        return int(opening(digest, size))

    publish(master, "large", b"l" * LARGE)
    monkeypatch.setattr(site._files, "open", deleted_first)
    refused(fetched(master, "large"), 404, "not_found", "deleted meanwhile")
    publish(master, "small", b"s")
    monkeypatch.setattr("titan.storage.artifacts.content", lambda *_: None)
    refused(fetched(master, "small"), 404, "not_found", "deleted meanwhile")


def test_one_over_the_limit_of_transfers(own_master: Callable[..., Master]) -> None:
    master = own_master(transfers_max=1)
    publish(master, "there", b"x")
    with socket.create_connection(("127.0.0.1", master.port)) as connection:
        head = f"PUT /api/v1/artifacts?key=slow&name=s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        connection.sendall(head.encode() + b"Content-Length: 9000000\r\n\r\n" + b"x" * 2_000_000)
        until(lambda: bool(kept(master)))
        refused(publish(master, "second", b""), 503, "unavailable", "1 artifacts")
        refused(fetched(master, "there"), 503, "unavailable", "1 artifacts")
    until(lambda: not kept(master))
    assert fetched(master, "there").status == 200


def test_a_full_disk_is_said_and_leaves_nothing(
    own_master: Callable[..., Master], monkeypatch: pytest.MonkeyPatch
) -> None:
    master = own_master()
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))  # type: ignore[attr-defined]
        refused(publish(master, "big", b"x" * LARGE), 507, "storage_full", "MiB would be free", "free some space")
    assert kept(master) == []
    assert publish(master, "big", b"x" * LARGE).status == 200


def test_the_loop_waits_for_no_file_that_is_being_deleted(own_master: Callable[..., Master]) -> None:
    site = (master := own_master()).gate.site.artifacts  # type: ignore[attr-defined]
    files = site._files
    files.add(incoming := files.begin(), b"x")
    content = artifacts.Content(*files.settle(incoming)[:1], 1, b"x")

    async def settled() -> None:
        site._settled(content)

    with files._turn:  # as while a large file goes
        master.run(settled())
        assert files._waiting
    kept(master)
    assert not files._waiting


def test_a_resent_publication_is_one_version(master: Master) -> None:
    key = {"Idempotency-Key": "publication-1"}
    path = "/artifacts?key=resent&name=r"
    assert master.put(path, b"once", headers=key).json == master.put(path, b"once", headers=key).json
    assert len(master.get("/artifacts/versions?key=resent").json["artifacts"]) == 1
    refused(master.put(path, b"other", headers=key), 409, "key_reused")


def test_a_publication_that_is_resent_is_told_of_itself(master: Master) -> None:
    def put(content: bytes, key: str) -> str:
        answer = master.request("PUT", "/artifacts?key=twice&name=a", content, headers={"Idempotency-Key": key})
        return str(answer.json["sha256"])

    assert put(b"one", "told-1") == sha(b"one")
    assert master.request("DELETE", "/artifacts?key=twice").status == 200
    assert put(b"two", "told-2") == sha(b"two")
    assert put(b"one", "told-1") == sha(b"one")
    assert fetched(master, "twice").body == b"two"


def test_a_job_publishes_as_itself_while_its_attempt_lives(master: Master) -> None:
    with Worker(master.port) as worker:
        run = master.submit(worker.job("maker"))
        grant = worker.start()
        told = publish(master, "by-a-job", b"made", token=grant.token).json
        assert (told["run_id"], told["job_id"], told["attempt"]) == (run["id"], "maker", 1)
        assert told["created_by"] == f"job {run['id']}/maker {grant.fence}"
        refused(master.request("DELETE", "/artifacts?key=by-a-job", token=grant.token), 403, "denied")
        worker.end(grant)
        assert master.get(f"/runs/{run['id']}/wait?timeout_s=25").json["done"]
        refused(publish(master, "by-a-job", b"late", token=grant.token), 401, "unauthenticated")
    assert fetched(master, "by-a-job").body == b"made"


def test_a_deleted_content_goes_from_the_disk_with_its_last_name(own_master: Callable[..., Master]) -> None:
    master = own_master()
    for key in ("one", "two"):
        publish(master, key, b"same" * LARGE)
    assert master.request("DELETE", "/artifacts?key=one&version=1").json == {"deleted": 1}
    assert len(kept(master)) == 1
    assert fetched(master, "two").body == b"same" * LARGE
    assert master.request("DELETE", "/artifacts?key=two").json == {"deleted": 1}
    assert kept(master) == []
    refused(master.request("DELETE", "/artifacts?key=two"), 404, "not_found")
    refused(master.request("DELETE", "/artifacts?key=one&version=-1"), 404, "not_found")


def test_a_start_takes_away_what_no_row_names_and_nothing_else(
    own_master: Callable[..., Master], tmp_path: Path
) -> None:
    orphan = tmp_path / "home" / "artifacts" / "ab" / ("c" * 62)
    foreign = tmp_path / "home" / "artifacts" / "ab" / "notes.txt"
    part = tmp_path / "home" / "artifacts" / "incoming-0123"
    orphan.parent.mkdir(parents=True)
    for path in (orphan, foreign, part):
        path.write_bytes(b"x")
    master = own_master()
    publish(master, "kept", b"k" * LARGE)
    site = master.gate.site.artifacts  # type: ignore[attr-defined]
    master.run(site.sweep())
    digest = sha(b"k" * LARGE)
    assert sorted(kept(master)) == sorted([foreign, tmp_path / "home" / "artifacts" / digest[:2] / digest[2:]])


def test_a_content_that_was_damaged_from_outside_is_not_sent(own_master: Callable[..., Master]) -> None:
    master = own_master()
    publish(master, "hurt", b"x" * LARGE)
    os.truncate(kept(master)[0], 10)
    assert fetched(master, "hurt").status == 500


@pytest.mark.parametrize(
    "query", ["", "key=a&name=b", "key=%ff&version=0", "key=a&version=99999999999999999999", "key=a&version=x"]
)
def test_nonsense_is_refused(master: Master, query: str) -> None:
    assert master.get(f"/artifacts/content?{query}").status in (404, 422)
