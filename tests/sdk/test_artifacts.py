"""Artifacts through the SDK: from one job to another and to a person, whole whatever happens on the way."""

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.api.master import TOKEN, Master
from tests.sdk.conftest import Connect
from tests.sdk.double import Double, Last, Request, answer, raw
from titan.model.limits import Limits
from titan_sdk import Conflict, Denied, FileMissing, Invalid, NotFound, TitanClient, Unreachable
from titan_sdk import artifacts as module

MIB = 1024 * 1024
CONTENT = b"0123456789" * 1000


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    with Master(tmp_path_factory.mktemp("artifacts") / "home") as running:
        yield running


@pytest.fixture
def client(master: Master) -> Iterator[TitanClient]:
    with TitanClient(url=master.url, token=TOKEN) as made:
        yield made


def file(name: str, content: bytes) -> str:
    Path(name).write_bytes(content)
    return name


@pytest.mark.parametrize("size", [0, 5, 3 * MIB + 1])
def test_what_is_published_is_got_back(client: TitanClient, size: int) -> None:
    content = os.urandom(size)
    seen: list[tuple[int, int]] = []
    told = client.publish_artifact(f"data {size}", file("data.bin", content), progress=lambda *at: seen.append(at))
    assert (told["name"], told["version"], told["size"]) == ("data.bin", 1, size)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1:] == ([(size, size)] if size else [])
    got = client.get_artifact(f"data {size}", "back.bin")
    assert got == {"path": "back.bin", "key": f"data {size}", "version": 1, "sha256": told["sha256"], "size": size}
    assert Path("back.bin").read_bytes() == content == b"".join(client.read_artifact(f"data {size}"))


def test_where_it_is_saved(client: TitanClient) -> None:
    client.publish_artifact("place", file("first.txt", b"1"))
    client.publish_artifact("place", file("second.txt", b"2"))
    Path("folder").mkdir()
    assert client.get_artifact("place")["path"] == os.path.join(".", "second.txt")
    assert client.get_artifact("place", "folder", version=1)["path"] == os.path.join("folder", "first.txt")
    assert Path("folder/first.txt").read_bytes() == b"1"
    assert client.get_artifact("place", Path("second.txt"), version=1)["version"] == 1
    assert Path("second.txt").read_bytes() == b"1", "a file that is there is replaced"
    assert client.fetch_artifact("somewhere/second.txt", "by-name")["key"] == "place"
    assert Path("by-name").read_bytes() == b"2"
    assert sorted(os.listdir()) == ["by-name", "first.txt", "folder", "second.txt"]


def test_a_file_that_is_there_stays_with_replace_false(client: TitanClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.publish_artifact("stays", file("stays.txt", b"theirs"))
    for hard_links in (True, False):
        if not hard_links:
            monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no hard links here")))
        Path("stays.txt").write_bytes(b"mine")
        with pytest.raises(Conflict, match=r"stays\.txt is there already"):
            client.get_artifact("stays", replace=False)

        def somebody_was_faster(_done: int, _total: int) -> None:
            Path("late.txt").write_bytes(b"mine")

        with pytest.raises(Conflict, match=r"late\.txt is there already"):
            client.get_artifact("stays", "late.txt", progress=somebody_was_faster, replace=False)
        assert Path("stays.txt").read_bytes() == Path("late.txt").read_bytes() == b"mine"
        assert client.get_artifact("stays", "new.txt", replace=False)["version"] == 1
        assert Path("new.txt").read_bytes() == b"theirs"
        for name in ("late.txt", "new.txt"):
            Path(name).unlink()
        assert not list(Path().glob("*.part-*"))


def test_a_script_that_is_too_large_is_named_with_its_size_and_a_way_out(tmp_path: Path) -> None:
    file("big.py", b"#" * 1_001)
    limits = Limits(blob_bytes_max=1_000, blob_inline_bytes_max=1_000)
    with Master(tmp_path / "small", limits) as small, TitanClient(url=small.url, token=TOKEN) as client:
        for send, name in (
            (lambda: client.upload_file("big.py"), "big.py"),
            (lambda: client._put_blobs({"0" * 64: "big.py"}), "big.py"),
            (lambda: client._put_blobs({"0" * 64: b"#" * 1_001}), "script_content"),
        ):
            with pytest.raises(Invalid) as caught:
                send()
            assert caught.value.code == "too_large"
            assert caught.value.message.startswith(f"{name} has 1,001 bytes: a script")
            assert caught.value.message.endswith("may have 1,000 bytes")
            assert "titan artifacts put KEY FILE" in caught.value.hint
            assert "TITAN_LIMIT_BLOB_BYTES_MAX" in caught.value.hint


def test_a_file_that_was_only_uploaded_is_fetched_by_its_name(client: TitanClient) -> None:
    client.upload_file(file("uploaded.txt", b"up"))
    got = client.fetch_artifact("uploaded.txt", "down.txt")
    assert (got["key"], got["version"], got["size"], got["path"]) == ("", 0, 2, "down.txt")
    assert Path("down.txt").read_bytes() == b"up"
    client.publish_artifact("newer", file("uploaded.txt", b"published"))
    assert client.fetch_artifact("uploaded.txt", "down.txt")["key"] == "newer"
    with pytest.raises(Invalid):
        client.fetch_artifact("uploaded.txt", "missing/down.txt")


def test_listing_and_deleting(client: TitanClient) -> None:
    for content in (b"1", b"2"):
        client.publish_artifact("list/a", file("a.txt", content))
    client.publish_artifact("list/b", "a.txt")
    assert [(one["key"], one["version"]) for one in client.list_artifacts("list/")] == [("list/a", 2), ("list/b", 1)]
    assert [one["version"] for one in client.artifact_versions("list/a")] == [2, 1]
    assert client.delete_artifact("list/a", version=1) == 1
    assert client.delete_artifact("list/a") == 1
    with pytest.raises(NotFound, match="no artifact 'list/a'"):
        client.delete_artifact("list/a")


def test_what_cannot_be_published_or_saved(client: TitanClient) -> None:
    Path("folder").mkdir()
    client.publish_artifact("there", file("f", b"x"))
    with pytest.raises(FileMissing, match=r"missing\.bin"):
        client.publish_artifact("k", "missing.bin")
    with pytest.raises(FileNotFoundError):
        client.publish_artifact("k", "missing.bin")
    for key, path in (("k", "folder"), ("k", "/dev/null"), ("", "f"), ("a\nb", "f"), ("\ud800", "f"), (7, "f")):
        with pytest.raises(Invalid):
            client.publish_artifact(key, path)  # type: ignore[arg-type]
    for path in ("/dev/null", "missing/f", "f/f"):
        with pytest.raises(Invalid):
            client.get_artifact("there", path)
    for name in ("no such", ""):
        with pytest.raises(NotFound):
            client.get_artifact(name)
    with pytest.raises(NotFound, match=r"published from a file 'no\.txt'"):
        client.fetch_artifact("no.txt")
    assert sorted(os.listdir()) == ["f", "folder"]


@pytest.mark.parametrize(("after", "words"), [(b"y" * MIB, "has changed"), (b"x" * 10, "became shorter")])
def test_a_file_that_changes_while_it_is_published_is_not(
    client: TitanClient, monkeypatch: pytest.MonkeyPatch, after: bytes, words: str
) -> None:
    real = module._sent

    def changed(path: str, size: int, progress: object) -> Iterator[bytes]:
        Path(path).write_bytes(after)
        yield from real(path, size, None)

    monkeypatch.setattr(module, "_sent", changed)
    with pytest.raises(Invalid, match=words):
        client.publish_artifact("changing", file("log", b"x" * MIB))
    with pytest.raises(NotFound):
        client.get_artifact("changing")


def test_many_threads_publish_under_one_key_and_each_is_a_version(client: TitanClient) -> None:
    file("one", b"x" * 100_000)
    told: list[int] = []

    def publish() -> None:
        told.append(client.publish_artifact("together", "one")["version"])

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(told) == list(range(1, 9))
    assert [one["version"] for one in client.artifact_versions("together")] == [8, 7, 6, 5, 4]


# A Master that breaks off.


def content(request: Request, *, sha256: str = "", name: str = "f", short_by: int = 0) -> bytes:
    offset = int(request.target.rpartition("offset=")[2])
    rest = CONTENT[offset:]
    head = {
        "titan_artifact_key": "k",
        "titan_artifact_version": "3",
        "titan_artifact_size": str(len(CONTENT)),
        "titan_artifact_sha256": sha256 or hashlib.sha256(CONTENT).hexdigest(),
        "content_disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
    }
    whole = raw(rest, 200, "application/octet-stream", **head)
    return Last(whole[: len(whole) - short_by]) if short_by else whole


def test_a_download_that_is_cut_goes_on_where_it_was_with_the_same_version(connect: Connect) -> None:
    with Double(lambda one: content(one, short_by=4000), lambda one: content(one, short_by=1000), content) as master:
        connect(url=master.url, token="t").get_artifact("k", "whole")
        asked = [request.target.partition("?")[2] for request in master.requests]
    assert asked == ["key=k&version=0&offset=0", "key=k&version=3&offset=6000", "key=k&version=3&offset=9000"]
    assert Path("whole").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (lambda one: content(one, sha256="0" * 64), "its SHA-256 is another"),
        (lambda one: content(one, short_by=len(CONTENT)), "broke off after 0 of 10000 bytes"),
    ],
)
def test_i35_a_download_that_is_not_whole_leaves_nothing(connect: Connect, reply: object, words: str) -> None:
    file("whole", b"what was there")
    with Double(reply) as master, pytest.raises(Unreachable, match=words):  # type: ignore[arg-type]
        connect(url=master.url, token="t").get_artifact("k", "whole")
    assert os.listdir() == ["whole"]
    assert Path("whole").read_bytes() == b"what was there"


@pytest.mark.parametrize("name", ["../../out", "/etc/passwd", "..", "", "a\0b"])
def test_a_name_from_a_master_never_leads_out_of_the_folder(connect: Connect, name: str) -> None:
    with Double(lambda one: content(one, name=name)) as master, pytest.raises(Invalid, match="no name for a file"):
        connect(url=master.url, token="t").get_artifact("k")
    assert os.listdir() == []


def test_a_publication_whose_answer_is_lost_is_sent_again_whole_with_its_key(connect: Connect) -> None:
    with Double(None, answer({"key": "k"})) as master:
        connect(url=master.url, token="t").publish_artifact("k", file("f", CONTENT))
        first, second = master.requests
    assert first.body == second.body == CONTENT
    assert first.headers["content-length"] == "10000"
    assert first.key == second.key != ""


def test_who_only_reads_publishes_and_deletes_nothing(master: Master, client: TitanClient) -> None:
    client.publish_artifact("guarded", file("f", b"x"))
    viewer = master.post("/tokens", {"name": "v", "role": "viewer"}).json["token"]
    with TitanClient(url=master.url, token=viewer) as reader:
        assert reader.get_artifact("guarded", "back")["version"] == 1
        with pytest.raises(Denied):
            reader.delete_artifact("guarded")
        with pytest.raises(Denied):
            reader.publish_artifact("guarded", "f")
