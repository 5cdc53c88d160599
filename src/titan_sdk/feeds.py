"""Live feeds: server-sent events read as dicts, gone on with after a cut as if nothing had happened.

Each event has an id. After a cut the feed is opened again behind the last id seen, so that nothing is missed; when
the Master cannot go on from there (it restarted, or too much happened) the next event has the kind "resync":
whatever was learned before may be old, read it again.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from titan_sdk.transport import Transport

RESYNC = "resync"


def follow(
    transport: Transport, path: str, query: dict[str, Any], after: str | None, *, read_first: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the events of the feed at `path`, from behind `after` or from now, without end.

    `read_first`: begin with a resync, once the feed is open, so that what is read then and what comes after leave no
    gap. Each is a dict with `id`, `kind` and what the Master says of it. Raises Unreachable or Unavailable when the
    feed was cut and could not be opened again.
    """
    import json

    opened_before = False
    while True:
        heard = False
        with transport.feed(path, {**query, "after": after}) as feed:
            if after is None and (opened_before or read_first):
                yield {"id": "", "kind": RESYNC}  # no id was seen yet: nothing says what was missed
            opened_before = True
            for name, event_id, data in parse(feed.lines()):
                heard = True
                after = event_id or after
                yield {**json.loads(data or "{}"), "kind": name, "id": event_id}
        if not heard:
            transport.clock.pause(transport.clock.jitter())


def parse(lines: Iterable[bytes]) -> Iterator[tuple[str, str, str]]:
    """Yield (event name, id, data) of each server-sent event in `lines`; comments and broken last ones are dropped."""
    name, event_id = "message", ""
    data: list[str] = []
    complete = False
    for line in lines:
        text = line.decode("utf-8", "replace")
        complete = text.endswith("\n")
        text = text.rstrip("\r\n")
        if not text and complete:
            if data or name == RESYNC:
                yield name, event_id, "\n".join(data)
            name, data = "message", []
            continue
        field, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "id":
            event_id = value
        elif field == "data":
            data.append(value)
