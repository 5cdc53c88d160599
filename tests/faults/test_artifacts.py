"""Artifacts while the network is cut in the middle of them and the Master is killed: whole, once, or not at all."""

import hashlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.acceptance.cluster import Cluster
from tests.faults.proxy import Proxy
from titan_sdk import NotFound, TitanClient

SIZE_BYTES = 800_000
PUBLISHERS, FILES = 2, 2
CUTS = 4
UP_BYTES_S = 4_000_000
JOIN_S = 120


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    environ = {"TITAN_LIMIT_ARTIFACT_VERSIONS_MAX": "100"}
    with Cluster(tmp_path / "home", "--port", "0", "--workers", "0", environ=environ) as one:
        yield one


def files_of(cluster: Cluster) -> set[str]:
    """Return the name of every file in the Master's folder of artifacts, parts too."""
    folder = cluster.home / "artifacts"
    return {str(path.relative_to(folder)).replace("/", "") for path in folder.rglob("*") if path.is_file()}


class Reading:
    """Fetches a key over and over on a thread, and keeps the hash of each content that it got whole."""

    def __init__(self, client: TitanClient, key: str) -> None:
        self.seen: set[str] = set()
        self._client, self._key = client, key
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(JOIN_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                content = b"".join(self._client.read_artifact(self._key))
            except NotFound:  # before the first is there
                continue
            self.seen.add(hashlib.sha256(content).hexdigest())


def enough(proxy: Proxy, target: int, threads: list[threading.Thread]) -> bool:
    return proxy.bytes_up >= target or not any(thread.is_alive() for thread in threads)


def test_f60_uploads_cut_at_any_byte_under_one_key_are_each_there_whole_and_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    chance = random.Random(60)
    contents = {}
    for number in range(PUBLISHERS * FILES):
        path = tmp_path / f"file-{number}"
        path.write_bytes(chance.randbytes(SIZE_BYTES))
        contents[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    told: list[tuple[int, str]] = []

    def publish(paths: list[str]) -> None:
        for path in paths:
            answer = client.publish_artifact("same", path)
            told.append((answer["version"], answer["sha256"]))

    master = int(cluster.url.rpartition(":")[2])
    token = (cluster.home / "token").read_text().strip()
    with Proxy(master) as proxy, TitanClient(url=proxy.url, token=token) as client, Reading(client, "same") as reading:
        client.stats()
        proxy.limit(UP_BYTES_S, down=False)
        names = list(contents)
        threads = [threading.Thread(target=publish, args=(names[at::PUBLISHERS],)) for at in range(PUBLISHERS)]
        for thread in threads:
            thread.start()
        cuts = 0
        while cuts < CUTS and any(thread.is_alive() for thread in threads):
            target = proxy.bytes_up + chance.randrange(1, SIZE_BYTES)
            # The reader keeps asking, so this is looked at again when all is published.
            proxy.wait(lambda target=target: enough(proxy, target, threads), "some more bytes")  # type: ignore[misc]
            proxy.cut()
            cuts += 1
            if cuts == 1:
                cluster.kill_master()
        for thread in threads:
            thread.join(JOIN_S)
            assert not thread.is_alive()
        versions = client.artifact_versions("same")
    assert cuts > 1, "it was over too soon to be cut"
    assert sorted(told) == sorted((one["version"], one["sha256"]) for one in versions)
    assert sorted(version for version, _ in told) == list(range(1, len(contents) + 1))
    assert {sha256 for _, sha256 in told} == set(contents.values())
    assert reading.seen <= set(contents.values())
    assert reading.seen
    assert files_of(cluster) == set(contents.values()), "no part is left"
