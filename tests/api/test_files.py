"""Contents and the registry: kept under their hash, named, found again."""

import hashlib
from collections.abc import Callable, Iterator

import pytest

from tests.api.master import TOKEN, Master
from tests.api.test_gate import raw
from tests.api.test_runs import refused


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_000])
def test_a_content_comes_back_exactly(master: Master, size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    for _ in range(2):
        assert master.put(f"/blobs/{sha(content)}", content).status == 204
    answer = master.get(f"/blobs/{sha(content)}")
    assert (answer.status, answer.body) == (200, content)
    assert answer.headers["content-type"] == "application/octet-stream"


def test_a_content_sent_in_pieces(master: Master) -> None:
    content = b"0123456789" * 20_000

    def pieces() -> Iterator[bytes]:
        yield from (content[at : at + 7_777] for at in range(0, len(content), 7_777))

    assert master.request("PUT", f"/blobs/{sha(content)}", pieces()).status == 204
    assert master.get(f"/blobs/{sha(content)}").body == content


@pytest.mark.parametrize("size", [10, 100_000])
def test_another_content_than_its_hash_is_refused_and_not_kept(master: Master, size: int) -> None:
    content = b"x" * size
    refused(master.put(f"/blobs/{sha(b'other')}", content), 422, "invalid", sha(b"other"), "send it again")
    refused(master.get(f"/blobs/{sha(b'other')}"), 404, "not_found", sha(b"other"))
    refused(master.get(f"/blobs/{sha(content)}"), 404, "not_found")


@pytest.mark.parametrize("name", ["x", "A" * 64, "g" * 64, "0" * 63, "0" * 65, "..", "%2e%2e%2fetc"])
def test_a_hash_that_is_none_never_becomes_a_path(master: Master, name: str) -> None:
    for answer in (master.get(f"/blobs/{name}"), master.put(f"/blobs/{name}", b"")):
        assert answer.status in (404, 405, 422)


def test_one_over_the_limit_of_a_content(own_master: Callable[..., Master]) -> None:
    master = own_master(blob_bytes_max=100_000)
    fits, over = b"x" * 100_000, b"x" * 100_001
    assert master.put(f"/blobs/{sha(fits)}", fits).status == 204
    refused(master.put(f"/blobs/{sha(over)}", over), 413, "too_large", "TITAN_LIMIT_BLOB_BYTES_MAX")
    announced = raw(
        master, "PUT", f"/api/v1/blobs/{sha(over)}", TOKEN, "Content-Length: 100001", "Expect: 100-continue"
    )
    assert announced[0] == 413, "it is refused before any of it is sent"
    pieces = (over[at : at + 10_000] for at in range(0, len(over), 10_000))
    refused(master.request("PUT", f"/blobs/{sha(over)}", pieces), 413, "too_large", "TITAN_LIMIT_BLOB_BYTES_MAX")
    refused(master.put("/registry/big.py", over), 413, "too_large", "TITAN_LIMIT_BLOB_BYTES_MAX")
    assert list((master.home / "blobs").rglob("incoming-*")) == []


def test_a_name_of_the_registry_means_the_newest_content(master: Master) -> None:
    first = master.put("/registry/tool.py", b"1").json
    assert (first["name"], first["sha256"], first["size"]) == ("tool.py", sha(b"1"), 1)
    assert first["updated_at"].endswith("Z")
    assert master.get("/registry/tool.py").json == first
    second = master.put("/registry/tool.py", b"22").json
    assert (second["sha256"], second["size"]) == (sha(b"22"), 2)
    back = master.put(f"/registry/tool.py?sha256={sha(b'1')}").json
    assert (back["sha256"], back["size"]) == (sha(b"1"), 1)
    assert master.get(f"/blobs/{sha(b'22')}").body == b"22"


def test_a_resent_upload_is_done_once(master: Master) -> None:
    key = {"Idempotency-Key": "upload-1"}
    assert master.put("/registry/resent.py", b"old", headers=key).status == 200
    master.put("/registry/resent.py", b"new")
    assert master.put("/registry/resent.py", b"old", headers=key).json["sha256"] == sha(b"new")
    refused(master.put("/registry/resent.py", b"other", headers=key), 409, "key_reused")


@pytest.mark.parametrize("name", ["bad%20name.py", ".hidden", "a" * 129, "%00", "x%0a", "%C3%BC.py"])
def test_a_name_that_is_none_is_refused(master: Master, name: str) -> None:
    refused(master.put(f"/registry/{name}", b""), 422, "invalid", "file name")
    refused(master.get(f"/registry/{name}"), 404, "not_found")


def test_a_name_for_a_content_that_is_not_here_is_refused(master: Master) -> None:
    answer = master.put(f"/registry/ghost.py?sha256={'0' * 64}")
    assert answer.code in ("not_found", "invalid", "conflict")
    refused(master.put("/registry/ghost.py?sha256=abc"), 422, "invalid", "SHA-256")
    refused(master.get("/registry/ghost.py"), 404, "not_found", "ghost.py", "upload_file")
