"""Feeds and waits: nothing missed, nothing out of order, nobody blocked, everything ended at once when it must."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titan.core.events import News
from titan.master.live import RESYNC, LiveEvent, LiveEvents
from titan.model.limits import Limits
from titan_sdk.errors import Unavailable

LONG_S = 60.0


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def news(name: str, kind: str = "job") -> News:
    return News(kind, "r", name, {"state": name})


def live(ring: int = 10, waits: int = 10) -> LiveEvents:
    return LiveEvents(Limits(events_ring_max=ring, waits_max=waits), epoch=5)


def seen(events: list[LiveEvent]) -> list[tuple[str, str]]:
    return [(event.id, event.news.job_id or event.news.kind) for event in events]


def test_a_subscriber_gets_events_from_now_on_in_commit_order_with_ids() -> None:
    async def story() -> None:
        feed = live()
        feed.publish(1, [news("before")])
        with feed.subscribe() as events:
            feed.publish(2, [news("a"), news("b")])
            feed.publish(4, [news("c")])
            assert seen(await events.next(LONG_S)) == [("5.2.1", "a"), ("5.2.2", "b"), ("5.4.1", "c")]

    run(story())


def test_going_on_after_an_id_misses_nothing_and_repeats_nothing() -> None:
    async def story() -> None:
        feed = live()
        for batch in range(1, 8):
            feed.publish(batch, [news(f"{batch}a"), news(f"{batch}b")])
        with feed.subscribe("5.6.2") as events:
            assert seen(await events.next(LONG_S)) == [("5.7.1", "7a"), ("5.7.2", "7b")]
        with feed.subscribe("5.7.2") as events:
            assert await events.next(0) == []

    run(story())


@pytest.mark.parametrize("after", ["4.7.1", "5.1.1", "5.9.1", "6.1.1", "x", "5.1", "5.-1.1", "", "5.²1.1"])
def test_an_id_that_cannot_be_gone_on_from_is_answered_with_resync_first(after: str) -> None:
    async def story() -> None:
        feed = live(ring=3)
        for batch in range(1, 8):
            feed.publish(batch, [news(str(batch))])
        with feed.subscribe(after) as events:
            assert seen(await events.next(LONG_S)) == [("5.7.1", RESYNC)]
            feed.publish(8, [news("8")])
            assert seen(await events.next(LONG_S)) == [("5.8.1", "8")]

    run(story())


def test_the_oldest_id_that_still_works_is_the_last_one_forgotten() -> None:
    async def story() -> None:
        feed = live(ring=3)
        for batch in range(1, 6):
            feed.publish(batch, [news(str(batch))])
        with feed.subscribe("5.2.1") as events:
            assert seen(await events.next(LONG_S)) == [("5.3.1", "3"), ("5.4.1", "4"), ("5.5.1", "5")]
        with feed.subscribe("5.1.1") as events:
            assert seen(await events.next(LONG_S)) == [("5.5.1", RESYNC)]

    run(story())


def test_a_slow_subscriber_is_cut_to_a_resync_and_goes_on_from_now() -> None:
    async def story() -> None:
        feed = live(ring=4)
        with feed.subscribe() as slow, feed.subscribe() as quick:
            for batch in range(1, 7):
                feed.publish(batch, [news(str(batch))])
                assert len(await quick.next(LONG_S)) == 1
            assert seen(await slow.next(LONG_S)) == [("5.6.1", RESYNC)]
            feed.publish(7, [news("7")])
            assert seen(await slow.next(LONG_S)) == [("5.7.1", "7")]

    run(story())


@given(st.integers(1, 6), st.lists(st.integers(1, 3), max_size=12), st.data())
def test_whatever_was_read_before_going_on_reads_the_same_as_staying(ring: int, sizes: list[int], data: Any) -> None:
    async def story() -> None:
        feed = live(ring=ring)
        everything: list[str] = []
        for batch, size in enumerate(sizes, start=1):
            feed.publish(batch, [news(f"{batch}.{index}") for index in range(size)])
            everything += [f"5.{batch}.{index}" for index in range(1, size + 1)]
        after = data.draw(st.sampled_from(["5.0.0", *everything]))
        with feed.subscribe(after) as events:
            got = [event.id for event in await events.next(0)]
        expected = [
            place for place in everything if tuple(map(int, place.split("."))) > tuple(map(int, after.split(".")))
        ]
        assert got == (expected if len(expected) <= ring else [everything[-1]])

    run(story())


def test_nothing_is_returned_early_for_events_that_were_read_already() -> None:
    async def story() -> None:
        feed = live()
        with feed.subscribe() as events:
            feed.publish(1, [news("a")])
            await events.next(LONG_S)
            waiting = asyncio.ensure_future(events.next(LONG_S))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            feed.publish(2, [news("b")])
            assert seen(await waiting) == [("5.2.1", "b")]

    run(story())


def test_the_store_feed_is_apart_from_the_events() -> None:
    async def story() -> None:
        feed = live()
        with feed.subscribe(feed="store") as store, feed.subscribe() as events:
            feed.publish_store(1, [news("key", "store")])
            feed.publish(1, [news("a")])
            assert seen(await store.next(LONG_S)) == [("5.1.1", "key")]
            assert seen(await events.next(LONG_S)) == [("5.1.1", "a")]

    run(story())


def test_a_watch_remembers_what_happened_between_subscribing_and_waiting() -> None:
    async def story() -> None:
        feed = live()
        with feed.watch(("job", "r", "a")) as watch:
            feed.publish(1, [news("a")])
            assert await watch.changed(LONG_S)
            assert not await watch.changed(0)

    run(story())


def test_a_watch_wakes_for_its_own_keys_and_for_what_matters_only() -> None:
    async def story() -> None:
        feed = live()
        with (
            feed.watch(("run", "r"), only=lambda one: one.data["state"] == "COMPLETED") as done,
            feed.watch(("log", 7), ("job", "r", "b")) as log,
        ):
            feed.publish(1, [News("run", "r", "", {"state": "RUNNING"}), news("a")])
            assert not await done.changed(0)
            assert not await log.changed(0)
            sleeping = asyncio.ensure_future(log.changed(LONG_S))
            await asyncio.sleep(0)
            feed.touch(("log", 7))
            assert await sleeping
            feed.publish(2, [News("run", "r", "", {"state": "COMPLETED"})])
            assert await done.changed(LONG_S)

    run(story())


def test_closing_ends_every_wait_and_feed_at_once_and_refuses_new_ones_until_reopened() -> None:
    async def story() -> None:
        feed = live()
        with feed.watch(("run", "r")) as watch, feed.subscribe() as events:
            waiting = [asyncio.ensure_future(watch.changed(LONG_S)), asyncio.ensure_future(events.next(LONG_S))]
            await asyncio.sleep(0)
            feed.close("the Master is stopping")
            for one in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(one, Unavailable)
                assert one.retry_after_s
        with pytest.raises(Unavailable, match="stopping"):
            feed.watch(("run", "r"))
        feed.reopen(6)
        with feed.subscribe("5.0.0") as events:
            assert seen(await events.next(LONG_S)) == [("6.0.0", RESYNC)]

    run(story())


def test_a_wait_that_was_not_asleep_at_the_close_still_hears_of_it_after_the_reopening() -> None:
    async def story() -> None:
        feed = live()
        with feed.watch(("run", "r")) as watch:
            feed.close("the Master is loading")
            feed.reopen(6)
            with pytest.raises(Unavailable):
                await watch.changed(LONG_S)

    run(story())


def test_one_wait_over_the_limit_is_refused_and_a_closed_one_makes_room() -> None:
    async def story() -> None:
        feed = live(waits=2)
        with feed.watch(("run", "r")):
            with feed.subscribe(), pytest.raises(Unavailable, match="2 waits"):
                feed.watch(("run", "r"))
            with feed.watch(("run", "r")):
                pass

    run(story())
