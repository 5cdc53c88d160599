"""The one thread that writes. It carries out the commit machine's orders and reports back to the event loop.

A report is a call that is still to be made: the machine belongs to the loop, so the thread only says which
of its methods is due, and the loop makes the call.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from titan.core.commit import Batch, Commit, Order
from titan.storage.errors import CommitFailed, CommitUnknown, Deposed
from titan.storage.journal import Journal

T = TypeVar("T")
Report = Callable[[], list[Order]]


class Writer:
    """Runs a journal on a thread of its own; `reported` is called on the loop with each report."""

    def __init__(self, journal: Journal, loop: asyncio.AbstractEventLoop, reported: Callable[[Report], None]) -> None:
        self._journal = journal
        self._loop = loop
        self._reported = reported
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # Daemonic: a disk that hangs for ever must not keep a stopped process from ending.
        self._thread = threading.Thread(target=self._run, name="titan-writer", daemon=True)
        self._thread.start()

    def commit(self, machine: Commit, batch: Batch) -> None:
        """Commit `batch` and report what became of it."""
        self._orders.put(lambda: self._send(self._commit(machine, batch)))

    def read_leader(self, machine: Commit) -> None:
        """Read the leader row and report it."""
        self._orders.put(lambda: self._send(self._leader(machine)))

    def call(self, function: Callable[[], T]) -> "asyncio.Future[T]":
        """Call `function` on the writer's thread, in turn, and return a future of its result."""
        future: asyncio.Future[T] = self._loop.create_future()

        def answer() -> None:
            try:
                result = function()
            except Exception as error:  # noqa: BLE001
                self._loop.call_soon_threadsafe(_fail, future, error)
            else:
                self._loop.call_soon_threadsafe(_answer, future, result)

        self._orders.put(answer)
        return future

    async def stop(self) -> None:
        """End the thread once everything ordered so far is done."""
        self._orders.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _run(self) -> None:
        for order in iter(self._orders.get, None):
            order()

    def _send(self, report: Report) -> None:
        self._loop.call_soon_threadsafe(self._reported, report)

    def _commit(self, machine: Commit, batch: Batch) -> Report:
        try:
            results = self._journal.commit(batch)
        except CommitFailed as error:
            return partial(machine.failed, batch.number, error)
        except CommitUnknown as error:
            return partial(machine.unknown, batch.number, error.results, error)
        except Deposed as error:
            return partial(machine.deposed, batch.number, error)
        except Exception as error:  # noqa: BLE001
            # Nobody knows how far it came: the leader row does.
            return partial(machine.deposed, batch.number, error)
        return partial(machine.committed, batch.number, results)

    def _leader(self, machine: Commit) -> Report:
        try:
            epoch, number = self._journal.leader()
        except Exception as error:  # noqa: BLE001
            return partial(machine.leader_unread, error)
        return partial(machine.leader_row, epoch, number)


def _answer(future: "asyncio.Future[Any]", result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
