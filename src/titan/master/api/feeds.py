"""Feeds: events as they become durable, and changes of the store, as server-sent events.

An id is `epoch.batch.index`; `?after=` or Last-Event-ID goes on behind one. A `resync` event says that some were
missed: read again what you show. A feed that the Master ends says when to come back; a client that does not
read is cut.
"""

import asyncio
from collections.abc import Callable

import msgspec
from litestar import get
from litestar.params import FromQuery
from litestar.response import Response
from litestar.response.base import ASGIResponse

from titan.core.events import News
from titan.master.api.site import Http, engine_of
from titan.master.asgi import Receive, Scope, Send
from titan.master.live import RESYNC, LiveEvent, Subscription
from titan_sdk.errors import Unavailable

KEEP_ALIVE_S = 15.0
SEND_S_MAX = 30.0
_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]


class Feed(Response[bytes]):
    """An endless answer, fed from a subscription. `only`: which news are told; a resync always is."""

    def __init__(self, subscription: Subscription, only: Callable[[News], bool] = lambda _: True) -> None:
        super().__init__(b"")
        self._subscription = subscription
        self._only = only

    def to_asgi_response(self, *_: object, **__: object) -> ASGIResponse:
        """Return the application that streams."""
        return _Streaming(self._subscription, self._only)


class _Streaming(ASGIResponse):
    def __init__(self, subscription: Subscription, only: Callable[[News], bool]) -> None:
        super().__init__()
        self._subscription = subscription
        self._only = only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Stream until the client goes, does not read, or the Master ends its feeds."""
        with self._subscription:
            gone = asyncio.create_task(_until_gone(receive))
            feeding = asyncio.create_task(self._feed(send))
            try:
                await asyncio.wait((gone, feeding), return_when=asyncio.FIRST_COMPLETED)
            finally:
                gone.cancel()
                feeding.cancel()
                await asyncio.gather(gone, feeding, return_exceptions=True)

    async def _feed(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        await _send(send, b": titan\n\n")
        while True:
            try:
                events = await self._subscription.next(KEEP_ALIVE_S)
            except Unavailable as error:
                await _send(send, b"retry: %d\n\n" % round((error.retry_after_s or 1) * 1000))
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            told = [_line(event) for event in events if event.news.kind == RESYNC or self._only(event.news)]
            if told or not events:
                await _send(send, b"".join(told) or b": keep-alive\n\n")


@get("/events", name="events.follow")
async def events(request: Http, after: FromQuery[str | None] = None) -> Feed:
    """Follow what becomes of runs, jobs and workers."""
    live = engine_of(request).live
    return Feed(live.subscribe(after or request.headers.get("last-event-id")))


@get("/store/watch", name="store.watch")
async def watch(request: Http, prefix: FromQuery[str] = "", after: FromQuery[str | None] = None) -> Feed:
    """Follow the writes of keys that begin with a prefix; the values are not sent."""
    live = engine_of(request).live
    subscription = live.subscribe(after or request.headers.get("last-event-id"), "store")
    return Feed(subscription, lambda news: str(news.data["key"]).startswith(prefix))


async def _send(send: Send, body: bytes) -> None:
    async with asyncio.timeout(SEND_S_MAX):
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _line(event: LiveEvent) -> bytes:
    news = event.news
    data = {"run_id": news.run_id, "job_id": news.job_id, **news.data} if news.run_id else news.data
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event.id.encode(), news.kind.encode(), msgspec.json.encode(data))


HANDLERS = [events, watch]
