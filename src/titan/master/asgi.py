"""ASGI as this package speaks it: the framework's types split connections in ways that its own code does not."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

Scope = Any
Message = Any
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_ENCODER = msgspec.json.Encoder()

# On every answer. The server adds them, so that they are also on those that never reach the application, as to what is
# no HTTP; but not to the refusal of a WebSocket, which the gate writes itself.
SECURITY_HEADERS = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


async def answer(send: Send, document: object, status: int = 200) -> None:
    """Answer a request that is served without the framework with `document` as JSON."""
    body = _ENCODER.encode(document)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
