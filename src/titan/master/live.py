"""What live views and waiting callers hear: facts that are durable, in commit order, or the word to ask anew.

Events are kept in rings in memory and nowhere else. A subscriber is a place in a ring, not a queue: the
sender writes once whoever listens, and one that falls a whole ring behind is told to resync and goes on
from now. An event's id is `epoch.batch.index`; an id of another epoch, or older than the ring, cannot be
gone on from, and says so with a `resync` event first.

A wait subscribes first, then reads the database, then sleeps: what happens in between is remembered by
the watch, so no change is missed. At a stop and at a reload every feed and wait ends at once with a retry
hint; their number is limited, because each holds a connection.
"""

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import msgspec

from titan.core.events import News
from titan.model.limits import Limits, change
from titan_sdk.errors import Unavailable

RESYNC = "resync"
EVENTS_A_READ_MAX = 500
Key = tuple[str | int, ...]
Place = tuple[int, int, int]


class LiveEvent(msgspec.Struct, frozen=True, gc=False):
    """One event with its id. Kind "resync": whatever you know may be old, read it again."""

    id: str
    news: News


class Ring:
    """The last `size` events of one feed, by rising sequence number."""

    def __init__(self, size: int, epoch: int) -> None:
        self.size = size
        self.epoch = epoch
        self.end = 0
        self._slots: list[tuple[Place, News]] = []
        self._forgotten: Place = (epoch, 0, 0)
        self._last: Place = (epoch, 0, 0)

    @property
    def begin(self) -> int:
        """The sequence number of the oldest event still held."""
        return self.end - len(self._slots)

    def append(self, place: Place, news: News) -> None:
        """Add an event; the oldest one is forgotten when the ring is full."""
        if len(self._slots) < self.size:
            self._slots.append((place, news))
        else:
            at = self.end % self.size
            self._forgotten = self._slots[at][0]
            self._slots[at] = (place, news)
        self._last = place
        self.end += 1

    def find(self, after: str) -> int | None:
        """Return the sequence number of the first event after the id `after`; None when events may be missing."""
        place = _place(after)
        if place is None or not self._forgotten <= place <= self._last:
            return None
        low, high = self.begin, self.end
        while low < high:
            middle = (low + high) // 2
            if self._slots[middle % self.size][0] <= place:
                low = middle + 1
            else:
                high = middle
        return low

    def read(self, begin: int, count_max: int) -> list[LiveEvent]:
        """Return at most `count_max` events from sequence number `begin` on."""
        found = (self._slots[at % self.size] for at in range(begin, min(self.end, begin + count_max)))
        return [LiveEvent(_id(place), news) for place, news in found]

    def resync(self) -> LiveEvent:
        """Return the event that says: go on from here, but read everything again first."""
        return LiveEvent(_id(self._last), News(RESYNC, "", "", {}))


class LiveEvents:
    """All feeds and waits of one Master. Everything here runs on the event loop."""

    def __init__(self, limits: Limits, epoch: int = 0) -> None:
        self.limits = limits
        self.events = Ring(limits.events_ring_max, epoch)
        self.store = Ring(limits.events_ring_max, epoch)
        self.closed = ""
        self.came: dict[str, int] = {}  # how often a job has come into each state, since this process began
        self._epoch = epoch
        self._open: set[Watch] = set()
        self._watches: dict[Key, set[Watch]] = {}
        self._on_job: Callable[[News], None] = _nobody_listens

    def listen(self, on_job: Callable[[News], None]) -> None:
        """Call `on_job` with all news of jobs from now on, after those who watch them."""
        self._on_job = on_job

    def publish(self, batch: int, news: Iterable[News]) -> None:
        """Tell everybody of facts released with batch `batch`, in order."""
        for index, one in enumerate(news, start=1):
            self.events.append((self._epoch, batch, index), one)
            if one.kind == "job":
                state = one.data["state"]
                self.came[state] = self.came.get(state, 0) + 1
                self.touch(("job", one.run_id, one.job_id), one)
                self._on_job(one)
            elif one.kind == "run":
                self.touch(("run", one.run_id), one)
        self.touch(("events",))

    def publish_store(self, batch: int, news: Iterable[News]) -> None:
        """Tell everybody of keys of the store written with batch `batch`."""
        for index, one in enumerate(news, start=1):
            self.store.append((self._epoch, batch, index), one)
        self.touch(("store",))

    def touch(self, key: Key, news: News | None = None) -> None:
        """Wake what watches `key`."""
        for watch in self._watches.get(key, ()):
            watch.wake(news)

    def watch(self, *keys: Key, only: Callable[[News], bool] | None = None) -> "Watch":
        """Return a watch on `keys`, to be used with `with`; `only` says which news of them matter.

        Keys: ("run", run_id), ("job", run_id, job_id), ("log", fence), ("events",), ("store",). Raises
        Unavailable when too many are open, or when the Master is stopping or reloading.
        """
        if self.closed:
            raise closed_error(self.closed)
        if len(self._open) >= self.limits.waits_max:
            message = f"{self.limits.waits_max} waits and feeds are open, which is the limit"
            hint = f"close some, or ask again; {change('waits_max')}"
            raise Unavailable(message, hint=hint, retry_after_s=1.0)
        return Watch(self, keys, only)

    def subscribe(self, after: str | None = None, feed: str = "events") -> "Subscription":
        """Return a place in the feed "events" or "store": after the id `after`, or from now. Raises as `watch` does."""
        ring = self.store if feed == "store" else self.events
        return Subscription(self.watch((feed,)), ring, after)

    def close(self, reason: str) -> None:
        """End every feed and wait with Unavailable, and refuse new ones; `reason` is its message."""
        self.closed = reason
        for watch in list(self._open):
            watch.wake(None)

    def reopen(self, epoch: int) -> None:
        """Begin anew in `epoch`: ids of the former one lead to a resync."""
        self.events = Ring(self.limits.events_ring_max, epoch)
        self.store = Ring(self.limits.events_ring_max, epoch)
        self._epoch = epoch
        self.closed = ""

    def enter(self, watch: "Watch") -> None:
        """Take a watch in; called by the watch itself."""
        self._open.add(watch)
        for key in watch.keys:
            self._watches.setdefault(key, set()).add(watch)

    def leave(self, watch: "Watch") -> None:
        """Let a watch go; called by the watch itself."""
        self._open.discard(watch)
        for key in watch.keys:
            watching = self._watches.get(key)
            if watching is not None:
                watching.discard(watch)
                if not watching:
                    del self._watches[key]


class Watch:
    """One caller's ear on some keys: it hears from its making on, and remembers until asked."""

    def __init__(self, live: LiveEvents, keys: tuple[Key, ...], only: Callable[[News], bool] | None) -> None:
        self.keys = keys
        self._live = live
        self._only = only
        self._ended = ""
        self._heard = False
        self._sleeper: asyncio.Future[None] | None = None
        live.enter(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._live.leave(self)

    def wake(self, news: News | None) -> None:
        """Remember that something happened, and wake the sleeper."""
        if news is not None and self._only is not None and not self._only(news):
            return
        self._heard = True
        self._ended = self._ended or self._live.closed
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def changed(self, timeout_s: float) -> bool:
        """Wait until something happened since the last call; False when `timeout_s` went by first.

        Raises the Unavailable that the Master closed its waits with.
        """
        if not self._heard:
            loop = asyncio.get_running_loop()
            self._sleeper = loop.create_future()
            timer = loop.call_later(timeout_s, _give_up, self._sleeper)
            try:
                await self._sleeper
            finally:
                timer.cancel()
                self._sleeper = None
        if self._ended:
            raise closed_error(self._ended)
        heard, self._heard = self._heard, False
        return heard


class Subscription:
    """A place in a ring, to be used with `with`."""

    def __init__(self, watch: Watch, ring: Ring, after: str | None) -> None:
        self._watch = watch
        self._ring = ring
        place = ring.end if after is None else ring.find(after)
        self._lost = place is None
        self._next = ring.end if place is None else place

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.close()

    async def next(self, timeout_s: float) -> list[LiveEvent]:
        """Return what comes next, in order, as soon as there is anything; [] when `timeout_s` went by first.

        Raises the Unavailable that the Master closed its feeds with.
        """
        while not self._lost and self._next == self._ring.end:
            # It may remember what was read already: then it is asked again.
            if not await self._watch.changed(timeout_s):
                return []
        ring = self._ring
        if self._lost or self._next < ring.begin:
            self._lost = False
            self._next = ring.end
            return [ring.resync()]
        events = ring.read(self._next, EVENTS_A_READ_MAX)
        self._next += len(events)
        return events


def closed_error(reason: str) -> Unavailable:
    """Return what callers are told while the Master stops or loads: ask again soon."""
    return Unavailable(reason, hint="ask again", retry_after_s=0.2)


def _nobody_listens(_: News) -> None:
    pass


def _give_up(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


def _id(place: Place) -> str:
    return f"{place[0]}.{place[1]}.{place[2]}"


def _place(text: str) -> Place | None:
    parts = text.split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) <= 20 for part in parts):
        return None
    return int(parts[0]), int(parts[1]), int(parts[2])
