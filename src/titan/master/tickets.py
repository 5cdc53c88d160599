"""Who waits for an entry: the callers to answer, and what may be sent and told once it is durable."""

import asyncio
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import msgspec

from titan.core.events import (
    AttemptEnded,
    AttemptReturned,
    AttemptStarted,
    Decision,
    Event,
    News,
    Send,
    WorkerConnected,
    WorkerDisconnected,
    WorkerDraining,
    WorkerRenewed,
)
from titan.model.spec import JobSpec
from titan_sdk.errors import TitanError, error_of

CHUNK_ROWS = 500
POISON_MAX = 1_000


class Ticket(msgspec.Struct):
    """What hangs on one entry. `future` is the caller's; `durable` is called at the release, before the sends.

    `settled` is called at the release or the refusal, whichever comes.
    """

    future: "asyncio.Future[Any] | None" = None
    decision: Decision | None = None
    durable: Callable[[], None] | None = None
    settled: Callable[[], None] | None = None

    def release(self, results: list[Any], deliver: Callable[[Send], None], news: list[News]) -> None:
        """The entry is durable: send, tell (into `news`), answer."""
        if self.durable is not None:
            self.durable()
        decision = self.decision
        if decision is not None:
            for send in decision.sends:
                deliver(send)
            news += decision.news
        future = self.future
        if future is not None and not future.done():
            if decision is None:
                future.set_result(results)
            elif decision.refusal is None:
                future.set_result(decision.answer)
            else:
                future.set_exception(_refusal(decision.refusal.code, decision.refusal.message))
        if self.settled is not None:
            self.settled()

    def refuse(self, error: TitanError) -> None:
        """The entry is not kept: tell the caller why. Each caller needs an exception of its own."""
        if self.future is not None and not self.future.done():
            self.future.set_exception(error)
        if self.settled is not None:
            self.settled()


class Poison:
    """The reports on which the core has failed. A worker says them again at each hello; they are not fed again."""

    def __init__(self) -> None:
        self._known: dict[Hashable, None] = {}

    def add(self, event: Event) -> None:
        """Remember a report; commands of people are not sent again by themselves and need no remembering."""
        mark = _mark(event)
        if mark is not None:
            if len(self._known) >= POISON_MAX:
                del self._known[next(iter(self._known))]
            self._known[mark] = None

    def has(self, event: Event) -> bool:
        """Say whether the core has failed on this report before."""
        return bool(self._known) and _mark(event) in self._known


def in_chunks(jobs: Sequence[JobSpec]) -> Iterator[tuple[JobSpec, ...]]:
    """Yield `jobs` in order, in chunks of at most 500 rows (a job and its edges) or of one job."""
    chunk: list[JobSpec] = []
    rows = 0
    for job in jobs:
        cost = 1 + len(job.parents)
        if chunk and rows + cost > CHUNK_ROWS:
            yield tuple(chunk)
            chunk, rows = [], 0
        chunk.append(job)
        rows += cost
    if chunk:
        yield tuple(chunk)


def _mark(event: Event) -> Hashable | None:
    match event:
        case AttemptEnded():
            return ("ended", event.worker, event.ended.fence)  # its jitter differs each time
        case AttemptStarted() | AttemptReturned():
            return event
        case WorkerConnected() | WorkerDisconnected() | WorkerDraining() | WorkerRenewed():
            return event
        case _:
            return None


def _refusal(code: str, message: str) -> TitanError:
    if code == "unavailable":
        return error_of(code, message, hint="send it again", retry_after_s=0.2)
    return error_of(code, message)
