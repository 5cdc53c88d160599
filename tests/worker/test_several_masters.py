"""A Master with several addresses, or another in its place: the worker finds it, and what it holds goes on."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.worker.conftest import StartWorker
from tests.worker.double import MasterDouble
from tests.worker.meeting import Meeting
from tests.worker.test_connection import Side, connected
from titan.model.wire import CLOSE_STOPPING
from titan.worker import connection as connection_module

SEEN = "import json, os\nprint(json.dumps([os.environ[f'TITAN_{name}'] for name in ('URL', 'HOST', 'PORT')]))\n"


@pytest.fixture
def other(master: MasterDouble) -> Iterator[MasterDouble]:
    """A second Master over the same database; nobody is at its address yet."""
    double = MasterDouble(over=master)
    double.start()
    double.stop()
    yield double
    double.close()


def test_a_worker_goes_to_who_is_there_and_takes_what_it_holds_along(
    master: MasterDouble, other: MasterDouble, start_worker: StartWorker, meeting: Meeting
) -> None:
    worker = start_worker("--join", other.url, "--join", master.url)
    fence = meeting.begun()
    assert json.loads(master.run(SEEN)[1]) == [master.url, "127.0.0.1", str(master.port)]
    assert (len(master.fetches), other.hellos) == (2, [])

    # The first address comes to life and nobody moves; then the second dies.
    other.start()
    master.run("print('still here')\n")
    assert other.hellos == []
    master.stop()
    other.wait_hellos(1)
    # The end of the last job may not have been acknowledged yet.
    held = {each.fence: each for each in other.hellos[0].attempts}
    assert (held[fence].started, held[fence].log_bytes_acked) == (True, 3)
    assert other.hellos[0].incarnation == master.hellos[0].incarnation
    meeting.let_go()
    ended, log = other.end(fence)
    assert (ended.exit_code, log) == (8, "up\nwent on\n")

    # What begins now belongs here: its address, and where its script comes from.
    assert json.loads(other.run(f"# new\n{SEEN}")[1]) == [other.url, "127.0.0.1", str(other.port)]
    assert len(other.fetches) == 1
    assert len(master.fetches) == 3
    assert len(master.hellos) == 1
    assert f"worker w: connected to {other.url}" in worker.close().splitlines()


def test_a_script_on_its_way_comes_from_whoever_is_there(
    master: MasterDouble, other: MasterDouble, start_worker: StartWorker
) -> None:
    master.holds_fetches = True
    start_worker("--join", master.url, "--join", other.url)
    fence = master.grant("print('fetched')\n")
    master.wait(lambda: master.fetches, "the fetch")
    other.start()
    master.stop()
    assert other.end(fence)[1] == "fetched\n"
    assert len(other.fetches) == 1


def test_a_lost_link_is_made_to_the_same_address_first(
    master: MasterDouble, other: MasterDouble, tmp_path: Path
) -> None:
    async def story(side: Side) -> None:
        assert side.connection.url == master.url
        other.start()
        await asyncio.to_thread(master.disconnect, CLOSE_STOPPING)
        await asyncio.to_thread(master.wait_hellos, 2)

    side = connected([other.url, master.url], tmp_path, story)
    assert other.hellos == []
    assert side.connection.url == master.url


def test_while_all_are_away_they_are_tried_in_turn_and_each_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, master: MasterDouble, other: MasterDouble, tmp_path: Path
) -> None:
    tried: list[str] = []
    enough = asyncio.Event()

    def counted(uri: str, **options: Any) -> Any:
        tried.append(uri.removeprefix("ws").removesuffix("/api/v1/worker"))
        if len(tried) == 8:
            enough.set()
        return connect(uri, **options)

    async def story(side: Side) -> None:
        assert side.said.pop().startswith("connected")
        side.said.clear()
        monkeypatch.setattr(connection_module, "connect", counted)
        master.stop()
        await enough.wait()

    side = connected([other.url, master.url], tmp_path, story)
    there, nobody = master.url.removeprefix("http"), other.url.removeprefix("http")
    assert tried == [there, nobody] * 4
    lost, refused, nobody_there = side.said
    assert lost.startswith(master.url)
    assert lost.endswith("; trying again")
    assert refused.startswith(master.url)
    assert refused.endswith(f"; trying {other.url}")
    assert nobody_there.startswith(other.url)
    assert nobody_there.endswith(f"; trying {master.url}")
