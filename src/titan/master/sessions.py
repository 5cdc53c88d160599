"""Requests and WebSockets that are open now, by the token they were let in with, so that they can be cut.

A token that is revoked, expires, or belonged to an attempt that is over must not go on being heard or told
things through a connection from before. So each such request has a session, and its end is a signal: the task that
serves it is cancelled where it waits, and the caller is told why. The home's own token has no end, hence no session.
"""

import asyncio
from collections.abc import Hashable

from titan.master.asgi import Application, Message, Receive, Scope, Send
from titan.master.problems import request_id_of, send_problem
from titan.model.wire import CLOSE_DENIED
from titan_sdk.errors import Unauthenticated

CUT = "the token was revoked, has expired, or its attempt is over"
TIMER_S_MAX = 86_400.0


class Session:
    """One request or WebSocket. `fence`: the attempt of a job's token; 0 for any other."""

    def __init__(self, key: Hashable, fence: int) -> None:
        self.key = key
        self.fence = fence
        self.is_cut = False
        self._task = asyncio.current_task()

    def cut(self) -> None:
        """End it where it waits."""
        if not self.is_cut and self._task is not None:
            self.is_cut = True
            self._task.cancel()


class Sessions:
    """All sessions of one Master. Everything here runs on the event loop."""

    def __init__(self) -> None:
        self._open: dict[Hashable, set[Session]] = {}

    def of(self, key: Hashable) -> tuple[Session, ...]:
        """Return what is open under `key`: a token's id, or (run, job)."""
        return tuple(self._open.get(key, ()))

    def keys(self) -> tuple[Hashable, ...]:
        """Return the keys under which anything is open."""
        return tuple(self._open)

    def cut(self, key: Hashable) -> None:
        """End everything that is open under `key`."""
        for session in self.of(key):
            session.cut()

    def leave(self, session: Session) -> None:
        """Forget a session: it is over, or may end by itself. Doing so again does nothing."""
        others = self._open.get(session.key)
        if others is not None:
            others.discard(session)
            if not others:
                del self._open[session.key]

    async def serve(
        self, app: Application, scope: Scope, receive: Receive, send: Send, session: Session, left_s: float | None
    ) -> None:
        """Serve one connection as long as its token is good; `left_s`: seconds until that expires, None for never."""
        answer = _Answer(send)
        timer = None
        if left_s is not None and left_s < TIMER_S_MAX:
            timer = asyncio.get_running_loop().call_later(left_s, session.cut)
        self._open.setdefault(session.key, set()).add(session)
        scope["state"]["session"] = session
        try:
            await app(scope, receive, answer)
        except asyncio.CancelledError:
            if not session.is_cut:
                raise
            self.leave(session)
            await answer.end(scope)
        finally:
            self.leave(session)
            if timer is not None:
                timer.cancel()


class _Answer:
    """The way out of a session; it knows how far the answer is."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = self._over = False

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self._begun = True
        elif kind == "websocket.close" or (kind == "http.response.body" and not message.get("more_body", False)):
            self._over = True
        await self._send(message)

    async def end(self, scope: Scope) -> None:
        """Say that the token is no good any more, as far as the answer still lets us."""
        if self._over:
            return
        if scope["type"] == "websocket":  # before it opens, the gate makes a 403 of it
            await self._send({"type": "websocket.close", "code": CLOSE_DENIED, "reason": CUT})
        elif not self._begun:
            error = Unauthenticated(CUT)
            error.request_id = request_id_of(scope)
            await send_problem(self._send, error, {"connection": "close"})
        else:  # a feed; if it were an answer of a known length, the server would end the connection with it
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
