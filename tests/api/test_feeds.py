"""Feeds: every fact once and in order, from where the reader was, or the word to read anew."""

import socket
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from tests.api.master import TOKEN, Events, Master
from tests.api.test_runs import refused, waiting
from titan.core.events import News
from titan.master.api import feeds


def until(feed: Events, event: str, **data: Any) -> list[tuple[str, str, Any]]:
    """Read until an event of this kind with this data came; return all that was read."""
    read = []
    for one in feed:
        read.append(one)
        if one[1] == event and data.items() <= one[2].items():
            return read
    raise AssertionError(f"the feed ended without {event} {data}: {read}")


def place(event_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in event_id.split("."))


def test_what_becomes_of_a_run_is_told_in_order(master: Master) -> None:
    with master.worker() as worker, master.events() as feed:
        assert feed.answer.headers["content-type"].startswith("text/event-stream")
        run = master.submit(worker.job("a"))["id"]
        worker.end(worker.start())
        told = until(feed, "run", run_id=run, state="COMPLETED")
    places = [place(event_id) for event_id, _, _ in told]
    assert places == sorted(set(places))
    states = [data["state"] for _, event, data in told if event == "job" and data["run_id"] == run]
    assert states[-3:] == ["ASSIGNED", "RUNNING", "COMPLETED"]
    assert all(data["job_id"] == "a" for _, event, data in told if event == "job")


@pytest.mark.parametrize("by_header", [False, True])
def test_a_reader_goes_on_behind_the_last_event_it_saw(master: Master, by_header: bool) -> None:
    with master.events() as feed:
        run = master.submit(waiting("a"))["id"]
        seen = until(feed, "run", run_id=run)[-1][0]
    master.post(f"/runs/{run}/cancel")
    path, headers = ("/events", {"Last-Event-ID": seen}) if by_header else (f"/events?after={seen}", {})
    with master.events(path, headers=headers) as feed:
        told = until(feed, "run", run_id=run, state="CANCELLED")
    assert all(place(event_id) > place(seen) for event_id, _, _ in told)
    assert "resync" not in [event for _, event, _ in told]
    assert any(data.get("job_id") == "a" for _, _, data in told)


@pytest.mark.parametrize("after", ["0.0.0", "1.1.1", "nonsense", "9999999999.1.1", "%00", "1.2", "-1.0.0"])
def test_an_id_that_cannot_be_gone_on_from_leads_to_a_resync(master: Master, after: str) -> None:
    with master.events(f"/events?after={after}") as feed:
        event_id, event, data = next(iter(feed))
        assert (event, data) == ("resync", {})
        run = master.submit(waiting("a"))["id"]
        told = until(feed, "run", run_id=run)
        assert all(place(each) >= place(event_id) for each, _, _ in told)


def test_events_older_than_the_ring_lead_to_a_resync(own_master: Callable[..., Master]) -> None:
    master = own_master(events_ring_max=3)
    with master.events() as feed:
        run = master.submit(waiting("a"))["id"]
        first = next(iter(feed))[0]
    for _ in range(5):
        master.submit(waiting("a"))
    with master.events(f"/events?after={first}") as feed:
        assert next(iter(feed))[1] == "resync"
        master.post(f"/runs/{run}/cancel")
        until(feed, "run", run_id=run, state="CANCELLED")


def test_another_epoch_is_a_resync(own_master: Callable[..., Master]) -> None:
    """The id of a former life of the Master looks like any other, and is not gone on from."""
    master = own_master()
    with master.events() as feed:
        master.submit(waiting("a"))
        epoch, batch, index = place(next(iter(feed))[0])
    with master.events(f"/events?after={epoch - 1}.{batch}.{index}") as feed:
        assert next(iter(feed))[1] == "resync"


def test_the_store_is_watched_by_prefix_and_values_stay_unsaid(master: Master) -> None:
    with master.events("/store/watch?prefix=seen/") as feed:
        master.store("put", key="hidden/1", value="secret")
        master.store("put", key="seen/1", value="secret")
        master.store("incr", key="seen/2")
        master.store("delete", key="seen/1")
        told = [data for _, event, data in islice(feed, 3) if event == "store"]
        assert told == [
            {"key": "seen/1", "op": "put"},
            {"key": "seen/2", "op": "incr"},
            {"key": "seen/1", "op": "delete"},
        ]
    with master.events("/store/watch?after=0.0.0&prefix=seen/") as feed:
        assert next(iter(feed))[1] == "resync"


def test_a_quiet_feed_is_kept_alive(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "KEEP_ALIVE_S", 0.01)
    with master.events("/store/watch?prefix=nothing-has-this") as feed:
        assert feed.answer.readline() == b": keep-alive\n"


def test_the_master_s_end_closes_feeds_with_a_hint(own_master: Callable[..., Master]) -> None:
    master = own_master()
    with master.events() as feed:
        master.on_loop(lambda: master.engine.live.close("the Master is stopping"))
        assert int(feed.block()["retry"]) > 0
        assert feed.block() == {}
        assert feed.answer.read() == b""
    refused(master.get("/events"), 503, "unavailable", "stopping")
    refused(master.get("/runs/@last/wait"), 404, "not_found")


def nobody_listens(master: Master) -> None:
    while master.on_loop(lambda: len(master.engine.live._open)):
        pass


def test_a_reader_that_hangs_up_is_forgotten(own_master: Callable[..., Master]) -> None:
    master = own_master(waits_max=1)
    for _ in range(3):
        with master.events() as feed:
            assert feed.answer.status == 200
        nobody_listens(master)


def test_a_reader_that_does_not_read_is_cut(own_master: Callable[..., Master], monkeypatch: pytest.MonkeyPatch) -> None:
    master = own_master()
    monkeypatch.setattr(feeds, "SEND_S_MAX", 0.05)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", master.port))
        head = f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        client.sendall(head.encode())
        while not master.on_loop(lambda: len(master.engine.live._open)):
            pass
        large = News("test", "", "", {"text": "x" * 100_000})
        for batch in range(200):
            master.on_loop(lambda batch=batch: master.engine.live.publish(batch, [large]))  # type: ignore[misc]
        nobody_listens(master)
    assert master.get("/stats").status == 200
