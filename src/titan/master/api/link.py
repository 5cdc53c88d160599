"""The door for workers: a WebSocket, accepted once the gate has let it through, then handed over whole."""

from typing import Any

from litestar import WebSocket, websocket
from litestar.datastructures import State

from titan.master.api.site import site_of
from titan.master.auth import Principal
from titan.master.link import LinkFault
from titan.model.roles import Role
from titan.model.wire import CLOSE_BAD_FRAME


@websocket("/worker", name="worker.link")
async def worker_link(socket: WebSocket[Any, Any, State]) -> None:
    """Link a worker: msgpack frames, see docs/reference/http-api.md."""
    await socket.accept()
    principal: Principal = socket.scope["state"]["principal"]
    only = None if principal.role is Role.ADMIN else principal.worker
    await site_of(socket.scope).engine.links.serve(Frames(socket), only)


class Frames:
    """An accepted WebSocket as `titan.master.links.Socket`."""

    def __init__(self, socket: WebSocket[Any, Any, State]) -> None:
        self._socket = socket
        self._receive, self._send = socket.scope["state"]["wire"]

    async def receive(self) -> bytes | None:
        """Return the next frame; None when the peer is gone. Raises LinkFault for text."""
        message: Any = await self._receive()
        if message["type"] != "websocket.receive":
            return None
        data: bytes | None = message.get("bytes")
        if data is None:
            raise LinkFault(CLOSE_BAD_FRAME, "a frame of text came: send msgpack")
        return data

    async def send(self, frame: bytes) -> None:
        """Send one frame; returns when the transport takes more."""
        await self._send({"type": "websocket.send", "bytes": frame})

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye."""
        await self._socket.send({"type": "websocket.close", "code": code, "reason": reason})


HANDLERS = [worker_link]
