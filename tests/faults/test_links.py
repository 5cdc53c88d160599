"""A real worker behind a network that misbehaves: nothing is lost, and nothing runs twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.proxy import Proxy
from tests.worker.conftest import StartWorker, home, master, meeting, start_worker
from tests.worker.double import MasterDouble
from tests.worker.meeting import Meeting
from titan.model.wire import Started

__all__ = ["home", "master", "meeting", "start_worker"]
FRAME_TOO_LARGE = b"\x91" + b"\xc0" * (5 * 1024 * 1024)


@pytest.fixture
def proxy(master: MasterDouble) -> Iterator[Proxy]:
    with Proxy(master.port) as proxy:
        yield proxy


@pytest.mark.parametrize("way", ["both", "up", "down"])
def test_what_ends_behind_a_link_that_swallows_is_told_once_it_is_cut(
    master: MasterDouble, start_worker: StartWorker, proxy: Proxy, meeting: Meeting, way: str
) -> None:
    start_worker("--join", proxy.url)
    fence = meeting.begun()
    proxy.swallow(up=way != "down", down=way != "up")
    meeting.let_go()
    proxy.cut()
    proxy.pass_on()
    ended, log = master.end(fence)
    assert (ended.exit_code, log) == (8, "up\nwent on\n")
    assert [message for message in master.messages if isinstance(message, Started)] == [master.started[fence]]


def test_f49_ten_resets_run_nothing_again(
    master: MasterDouble, start_worker: StartWorker, proxy: Proxy, meeting: Meeting
) -> None:
    start_worker("--join", proxy.url)
    fence = meeting.begun()
    for life in range(2, 12):
        proxy.cut()
        master.wait_hellos(life)
    meeting.let_go()
    assert master.end(fence)[0].exit_code == 8
    assert list(master.started) == [fence]


def test_f43_an_old_grant_that_comes_again_starts_nothing(
    master: MasterDouble, start_worker: StartWorker, proxy: Proxy, tmp_path: Path
) -> None:
    start_worker("--join", proxy.url)
    job = "import os, sys\nos.close(os.open(sys.argv[1], os.O_CREAT | os.O_EXCL | os.O_WRONLY))\n"
    fence = master.grant(job, args=(str(tmp_path / "once"),))
    assert master.end(fence)[0].exit_code == 0
    proxy.cut()
    master.wait_hellos(2)
    # If the answer to the first end was cut off, it has come again before this one ends.
    master.run("print('x')\n")
    master.send(master.grant_message(fence, master.job_of(next(iter(master.blobs)))))
    assert "before" in master.wait(lambda: master.returned.get(fence), "the old grant").reason
    assert len(master.started) == 2


def test_f45_a_frame_too_large_ends_the_link_and_not_the_job(
    master: MasterDouble, start_worker: StartWorker, proxy: Proxy, meeting: Meeting
) -> None:
    start_worker("--join", proxy.url)
    fence = meeting.begun()
    master.send_raw(FRAME_TOO_LARGE)
    master.wait_hellos(2)
    meeting.let_go()
    assert master.end(fence)[0].exit_code == 8
    assert list(master.started) == [fence]
