"""Bodies on their way in: read to a limit, decoded to a struct, refused in words that say what to change."""

import re
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import msgspec

from titan.master.asgi import Receive, Scope
from titan.master.problems import ClientGone, HttpError, too_large
from titan.model.ids import one_line
from titan.model.limits import Limits, body_limit
from titan.model.wording import reworded
from titan_sdk.errors import Invalid, TitanError

T = TypeVar("T")

JSON = "application/json"
NDJSON = "application/x-ndjson"
ERROR_CHARS_MAX = 300
SCANNED_BYTES_MAX = 1024 * 1024
# A text that does not end is a token as well, or each quote in it would be looked behind again.
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def content_type(scope: Scope) -> str:
    """Return the media type of the body without its parameters, "" when none was sent."""
    for name, value in scope["headers"]:
        if name == b"content-type":
            text: str = value.decode("latin-1")
            return text.partition(";")[0].strip().lower()
    return ""


def require_type(scope: Scope, *accepted: str) -> str:
    """Return the media type of the body. Raises a 415 when it is none of `accepted`."""
    sent = content_type(scope)
    if sent not in accepted:
        wanted = " or ".join(accepted)
        raise HttpError(
            415, f"the body has the type {sent[:60]!a}: this route takes {wanted}", hint=f"send Content-Type: {wanted}"
        )
    return sent


async def chunks(scope: Scope, receive: Receive, limit: int, variable: str) -> AsyncIterator[bytes]:
    """Yield the body as it arrives, at most `limit` bytes of it; one more raises `too_large`.

    A length that was announced is judged before anything is read. Raises ClientGone when the caller hangs up.
    """
    length = announced(scope)
    if length > limit:
        raise too_large(f"the body of {length} bytes", limit, variable)
    seen = 0
    while True:
        message: Any = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        body: bytes = message.get("body", b"")
        seen += len(body)
        if seen > limit:
            raise too_large("the body", limit, variable)
        if body:
            yield body
        if not message.get("more_body", False):
            return


async def read_body(scope: Scope, receive: Receive, limits: Limits, route: str) -> bytes:
    """Return the whole body. Raises `too_large` over what the route of that name takes."""
    variable = body_limit(route)
    limit: int = getattr(limits, variable)
    message: Any = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise too_large(f"the body of {len(body)} bytes", limit, variable)
        return body
    parts = bytearray()

    async def again() -> Any:
        nonlocal message
        first, message = message, None
        return first or await receive()

    async for part in chunks(scope, again, limit, variable):
        parts += part
    return bytes(parts)


def decode(decoder: msgspec.json.Decoder[T], body: bytes, limits: Limits, what: str = "the body") -> T:
    """Return `body` decoded. Raises Invalid (or `too_large` for its depth) whatever was sent."""
    try:
        return decoder.decode(body)
    except RecursionError:
        raise _too_deep(what, limits) from None
    except (msgspec.DecodeError, ValueError) as error:
        if is_deeper(body, limits.json_depth_max):
            raise _too_deep(what, limits) from None
        if not body.strip():
            raise Invalid(f"{what} is empty: send a JSON document") from None
        raise Invalid(_why(str(error), what), hint="GET /api/v1/openapi.json describes what each route takes") from None


def _why(text: str, what: str) -> str:
    return one_line(reworded(text[:ERROR_CHARS_MAX], what).replace(f"{what}.", "", 1))


def is_deeper(body: bytes, limit: int) -> bool:
    """Say whether JSON text nests deeper than `limit`, looking at its first MiB."""
    depth = 0
    for token in _TOKENS.finditer(body[:SCANNED_BYTES_MAX]):
        first = token.group()[:1]
        if first in (b"[", b"{"):
            depth += 1
            if depth > limit:
                return True
        elif first != b'"':
            depth -= 1
    return False


def is_deeper_value(value: object, limit: int) -> bool:
    """Say whether a decoded value nests deeper than `limit`."""
    level = [value]
    for _ in range(limit + 1):
        below: list[object] = []
        for part in level:
            if isinstance(part, dict):
                below.extend(part.values())
            elif isinstance(part, list):
                below.extend(part)
        if not any(isinstance(part, (dict, list)) for part in level):
            return False
        level = below
    return True


def depth_message(limits: Limits) -> str:
    """Return the words for JSON that nests too deeply."""
    limit = limits.json_depth_max
    return f"JSON nested deeper than {limit}: flatten it (TITAN_LIMIT_JSON_DEPTH_MAX at the Master changes the limit)"


def _too_deep(what: str, limits: Limits) -> TitanError:
    return Invalid(f"{what} is {depth_message(limits)}", code="too_large")


def announced(scope: Scope) -> int:
    """Return the length of the body as the caller announced it, 0 when it did not."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
