"""Scripts come once, whole or not at all, and wait for a Master that is away."""

import asyncio
import hashlib
import os
import socket
import threading
from pathlib import Path

import pytest

from tests.worker.conftest import WorkerProcess
from tests.worker.double import TOKEN, MasterDouble
from titan.worker.scripts import UNUSED_KEPT_S, ScriptGone, Scripts

CONTENT = "print('x')\n" * 10_000


def scripts_of(master: MasterDouble, tmp_path: Path, token: str = TOKEN) -> Scripts:
    return Scripts(tmp_path / "scripts", lambda: master.url, lambda: token)


def test_many_waiters_cause_one_fetch(master: MasterDouble, tmp_path: Path) -> None:
    sha256 = master.add_blob(CONTENT)
    scripts = scripts_of(master, tmp_path)

    async def fetch() -> set[Path]:
        return set(await asyncio.gather(*[scripts.fetch(sha256) for _ in range(50)]))

    assert scripts.kept(sha256) is None
    (path,) = asyncio.run(fetch())
    assert path.read_text() == CONTENT
    assert scripts.kept(sha256) == path
    assert master.fetches == [sha256]
    assert [name.name for name in path.parent.iterdir()] == [sha256]


def test_one_that_stops_waiting_leaves_the_fetch_to_the_others(master: MasterDouble, tmp_path: Path) -> None:
    sha256 = master.add_blob(CONTENT)
    master.holds_fetches = True
    scripts = scripts_of(master, tmp_path)

    async def fetch() -> Path:
        impatient = asyncio.create_task(scripts.fetch(sha256))
        patient = asyncio.create_task(scripts.fetch(sha256))
        await asyncio.to_thread(master.wait, lambda: master.fetches, "the fetch")
        impatient.cancel()
        master.release_fetches()
        return await patient

    assert asyncio.run(fetch()).read_text() == CONTENT
    assert master.fetches == [sha256]


def test_what_is_not_what_its_hash_says_is_not_kept(master: MasterDouble, tmp_path: Path) -> None:
    sha256 = master.add_blob(CONTENT)
    master.blobs[sha256] = b"print('evil')\n"
    scripts = scripts_of(master, tmp_path)
    with pytest.raises(ScriptGone, match="something else"):
        asyncio.run(scripts.fetch(sha256))
    assert scripts.kept(sha256) is None


def test_a_fetch_waits_for_the_master(master: MasterDouble, tmp_path: Path) -> None:
    sha256 = master.add_blob(CONTENT)
    scripts = scripts_of(master, tmp_path)
    master.stop()
    # A stand-in at its port tells when the first knock came, and hangs up on it.
    stand_in = socket.create_server(("127.0.0.1", master.port))
    knocks: list[bytes] = []

    def hang_up() -> None:
        caller, _ = stand_in.accept()
        knocks.append(caller.recv(100))
        caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npr")
        caller.close()
        stand_in.close()
        master.start()

    thread = threading.Thread(target=hang_up)
    thread.start()
    assert asyncio.run(scripts.fetch(sha256)).read_text() == CONTENT
    thread.join()
    assert knocks[0].startswith(f"GET /api/v1/blobs/{sha256}".encode()[:20])
    assert master.fetches == [sha256]


def test_a_refused_token_is_tried_again(master: MasterDouble, tmp_path: Path) -> None:
    sha256 = master.add_blob(CONTENT)
    tokens = ["old", "old", TOKEN]
    scripts = Scripts(tmp_path / "scripts", lambda: master.url, lambda: tokens.pop(0))
    assert asyncio.run(scripts.fetch(sha256)).read_text() == CONTENT
    assert tokens == []


def test_scripts_that_no_job_used_for_long_go(master: MasterDouble, tmp_path: Path) -> None:
    scripts = scripts_of(master, tmp_path)
    paths = [tmp_path / "scripts" / hashlib.sha256(name).hexdigest() for name in (b"old", b"used")]
    for path in paths:
        path.write_text("x")
        long_ago = path.stat().st_mtime - UNUSED_KEPT_S - 60
        os.utime(path, (long_ago, long_ago))
    kept = scripts.kept(paths[1].name)
    assert kept is not None
    assert kept.samefile(paths[1])
    scripts.sweep()
    assert [path.exists() for path in paths] == [False, True]


def test_a_worker_leaves_at_once_though_a_fetch_hangs(
    master: MasterDouble, worker: WorkerProcess, tmp_path: Path
) -> None:
    master.holds_fetches = True
    master.send(master.grant_message(1, master.job_of(master.add_blob(CONTENT))))
    master.wait(lambda: master.fetches, "the fetch")
    worker.leave_parent()
    # Less than the half minute after which a fetch would give up by itself.
    assert worker.process.wait(20) == 1
    master.release_fetches()
