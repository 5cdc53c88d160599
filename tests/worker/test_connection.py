"""The link itself, with periods of milliseconds: silence, slow links, what is said once."""

import asyncio
import errno
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.worker.double import TOKEN, MasterDouble
from titan.core import link as link_module
from titan.core.link import Kill, Order, WorkerLink
from titan.model.wire import CLOSE_STOPPING, Grant, Hello, Renew, Started
from titan.worker import connection as connection_module
from titan.worker.connection import Connection, Handler
from titan.worker.launcher.frames import boot_ms


class Side:
    """A worker's link without a worker behind it."""

    def __init__(self, urls: list[str], folder: Path) -> None:
        (folder / "token").write_text(TOKEN)
        self.link = WorkerLink(2)
        self.orders: list[Order] = []
        self.said: list[str] = []
        self.answered: list[int] = []
        self.handler = Handler(self._hello, self.orders.extend, self._read_log, self.answered.append, self.said.append)
        self.connection = Connection(urls, folder / "token", self.link, self.handler)

    def _hello(self) -> Hello:
        return Hello("w", "i", "b", 1, "v", ("GENERAL",), 2, self.link.hello(boot_ms()))

    def _read_log(self, fence: int, offset: int, length: int) -> bytes:
        return b"x" * length

    def runs(self, fence: int) -> None:
        self.link.grant(Grant(fence, "r", "j", 1, 1, b"", "t", "k", "a"))
        self.link.hand_over(fence)
        self.link.started(fence, 0)


def connected(url: str | list[str], folder: Path, story: Callable[[Side], Coroutine[Any, Any, None]]) -> Side:
    """Run `story` beside a connection; return what it left."""

    async def play() -> Side:
        side = Side([url] if isinstance(url, str) else url, folder)
        link = asyncio.create_task(side.connection.run())
        await side.connection.welcomed.wait()
        await story(side)
        link.cancel()
        await asyncio.gather(link, return_exceptions=True)
        return side

    return asyncio.run(play())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "RENEW_EVERY_MS", 20)


@pytest.mark.usefixtures("quick")
def test_a_silent_master_is_left_for_a_new_connection(
    monkeypatch: pytest.MonkeyPatch, master: MasterDouble, tmp_path: Path
) -> None:
    monkeypatch.setattr(link_module, "SILENCE_MS_MAX", 60)
    master.answers_renewals = False

    async def story(side: Side) -> None:
        await asyncio.to_thread(master.wait, lambda: len(master.hellos) >= 3, "two new connections")

    side = connected(master.url, tmp_path, story)
    assert "the Master does not answer; making a new connection" in side.said


@pytest.mark.usefixtures("quick")
def test_renewals_go_on_while_the_master_answers(master: MasterDouble, tmp_path: Path) -> None:
    async def story(side: Side) -> None:
        await asyncio.to_thread(master.wait, lambda: len(master.messages) >= 10, "ten renewals")

    side = connected(master.url, tmp_path, story)
    assert [type(message) for message in master.messages[:10]] == [Renew] * 10
    assert len(master.hellos) == 1
    # Leases count from the hello until the first answer, then from each renewal's send.
    assert side.answered == sorted(set(side.answered))
    assert len(side.answered) > 5


@pytest.mark.usefixtures("quick")
def test_f44_renewals_go_before_a_backlog_that_nobody_reads(master: MasterDouble, tmp_path: Path) -> None:
    # The Master keeps no log, so nothing is acknowledged and 50 MB wait; renewals are answered all the while.
    master.stores_output = False

    async def story(side: Side) -> None:
        side.runs(1)
        side.link.log_grew(1, 50_000_000)
        side.connection.wake()
        await asyncio.to_thread(master.wait, lambda: len(_renewals(master)) >= 10, "ten renewals")

    connected(master.url, tmp_path, story)
    assert len(master.hellos) == 1
    assert sum(len(getattr(message, "data", b"")) for message in master.messages) == link_module.WINDOW_BYTES_START


def test_what_is_said_in_one_turn_is_one_frame(master: MasterDouble, tmp_path: Path) -> None:
    async def story(side: Side) -> None:
        for fence in (1, 2):
            side.runs(fence)
        side.connection.wake()
        await asyncio.to_thread(master.wait, lambda: {1, 2} <= set(master.started), "two starts")

    connected(master.url, tmp_path, story)
    at = master.messages.index(Started(1, 0))
    assert master.messages[at + 1] == Started(2, 0)
    assert master.frames.count(2) == 1


def test_a_connection_that_comes_and_goes_is_told_once_each_time(master: MasterDouble, tmp_path: Path) -> None:
    async def story(side: Side) -> None:
        for count in (2, 3):
            await asyncio.to_thread(master.disconnect, CLOSE_STOPPING, "the Master is stopping")
            await asyncio.to_thread(master.wait_hellos, count)

    side = connected(master.url, tmp_path, story)
    connected_line = f"connected to {master.url}"
    lost_line = f"{master.url}: the Master is stopping; trying again"
    assert side.said[:5] == [connected_line, lost_line, connected_line, lost_line, connected_line][: len(side.said)]
    assert len(side.said) >= 4


def test_why_there_is_no_connection_is_told_once_for_each_reason(
    monkeypatch: pytest.MonkeyPatch, master: MasterDouble, tmp_path: Path
) -> None:
    monkeypatch.setattr(connection_module, "RETRY_S_MAX_LOOPBACK", 0.001)
    real = connection_module.connect
    tries = iter([*("no route", "no answer") * 3, *(f"number {number}" for number in range(200))])

    async def fails(*words: Any, **options: Any) -> Any:
        if text := next(tries, ""):
            raise OSError(text)
        return await real(*words, **options)

    async def story(side: Side) -> None:
        """Connected at last."""

    monkeypatch.setattr(connection_module, "connect", fails)
    said = connected(master.url, tmp_path, story).said
    assert [line.count("no ") for line in said[:3]] == [1, 1, 0]
    assert len(said) == connection_module.SAID_MAX + 1


@pytest.mark.parametrize("part", ["hello", "obey", "read_log", "answered"])
def test_a_fault_of_ours_is_not_taken_for_one_of_the_link(master: MasterDouble, tmp_path: Path, part: str) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EMFILE, "no descriptor is left")

    async def play() -> None:
        side = Side([master.url], tmp_path)
        side.runs(1)
        side.link.log_grew(1, 10)
        setattr(side.handler, part, fails)
        await asyncio.wait_for(side.connection.run(), 30)

    with pytest.raises(OSError, match="no descriptor is left"):
        asyncio.run(play())
    assert len(master.hellos) == (part != "hello")


def test_an_unwanted_attempt_is_ordered_to_die_by_the_welcome(master: MasterDouble, tmp_path: Path) -> None:
    async def story(side: Side) -> None:
        side.runs(7)
        master.unwanted.add(7)
        await asyncio.to_thread(master.disconnect, CLOSE_STOPPING)
        # The order is given before the first renewal of the new link is sent.
        await asyncio.to_thread(master.wait, lambda: len(_renewals(master)) == 2, "its renewal")

    side = connected(master.url, tmp_path, story)
    assert side.orders == [Kill(7, "cancelled", 5_000)]


def _renewals(master: MasterDouble) -> list[Renew]:
    return [message for message in master.messages if isinstance(message, Renew)]
