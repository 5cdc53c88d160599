"""Artifacts on their way in and out: any size through a little memory, no thread held while the network is slow."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from litestar import Response
from litestar.response.base import ASGIResponse

from titan.master.asgi import Receive, Scope, Send
from titan.master.bodies import announced, chunks
from titan.master.engine import Engine
from titan.model.limits import change
from titan.model.store import AppendAudit, DeleteArtifact, PublishArtifact
from titan.storage import artifacts
from titan.storage.blobs import Incoming
from titan.storage.contents import ArtifactFiles
from titan.storage.errors import ContentMissing
from titan_sdk.errors import Conflict, Invalid, NotFound, StorageFull, Unavailable

PIECE_BYTES = 512 * 1024
THREADS = 4
STALLED_S = 60.0
T = TypeVar("T")
Operations = tuple[PublishArtifact, *tuple[AppendAudit, ...]]


class Content(msgspec.Struct, frozen=True):
    """What arrived and is durable; `data` is None when it is a file."""

    sha256: str
    size: int
    data: bytes | None


class Transfer(msgspec.Struct):
    """One transfer: how many bytes of it take room that no row counts yet, and how many to come are here already."""

    bytes: int = 0
    known: int = 0


class Artifacts:
    """The transfers of one Master. Everything here runs on the event loop."""

    def __init__(self, engine: Engine, files: ArtifactFiles) -> None:
        self._engine = engine
        self._files = files
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="titan-artifact")
        self._open = 0
        self._arriving = 0  # bytes that no row counts yet
        engine.chores.append(self.sweep)

    async def publish(
        self, scope: Scope, receive: Receive, sha256: str | None, operation: Callable[[Content], Operations]
    ) -> tuple[PublishArtifact, Any]:
        """Take a body in and carry out what `operation` makes of it; return the first of these with its result.

        Raises Invalid when the body does not hash to `sha256` (None: any), `too_large`, Conflict when all artifacts
        together would have too many bytes, StorageFull, and what the operation is refused with is the caller's to look
        at.
        """
        with self.transfer() as transfer:
            content = await self._received(scope, receive, sha256, transfer)
            try:
                asked, *more = operation(content)
                result = await self._engine.mutate(asked, *more)
            finally:
                # Whatever became of it: who asked may have gone while it was being committed.
                self._engine.when_settled(lambda: self._settled(content))
        self._collect_dropped(result)
        return asked, result

    async def delete(self, operation: DeleteArtifact, *more: AppendAudit) -> Any:
        """Delete versions and take away the contents that nothing names any more; return the operation's result."""
        result = await self._engine.mutate(operation, *more)
        self._collect_dropped(result)
        return result

    def download(self, sha256: str, size: int, offset: int, headers: dict[str, str]) -> Response[bytes]:
        """Return the answer that sends a content from `offset` on. Raises Unavailable when too many are under way."""
        return _Download(self, sha256, size, offset, headers)

    async def sweep(self) -> None:
        """Take away every file that no row names: what a process that was killed had not published yet."""
        for sha256 in await self._run(lambda: list(self._files.kept())):
            await self._run(lambda sha256=sha256: self._collect(sha256))  # type: ignore[misc]
        if self.sweep in self._engine.chores:
            self._engine.chores.remove(self.sweep)

    async def pieces(self, sha256: str, size: int, offset: int) -> AsyncIterator[bytes]:
        """Yield a content from `offset` on."""
        row = await self._known(sha256)
        if row[1] is not None:
            yield row[1][offset:]
            return
        try:
            descriptor = await self._run(lambda: self._files.open(sha256, size))
        except ContentMissing:
            await self._known(sha256)  # a file that goes with its last row is no damage
            raise
        try:
            while offset < size:
                piece = await self._run(lambda at=offset: os.pread(descriptor, PIECE_BYTES, at))  # type: ignore[misc]
                if not piece:
                    return
                offset += len(piece)
                yield piece
        finally:
            self._threads.submit(os.close, descriptor)  # behind a read that may still be under way

    @contextmanager
    def transfer(self) -> Iterator[Transfer]:
        """Count one transfer while it lasts. Raises Unavailable when there are too many."""
        limit = self._engine.limits.transfers_max
        if self._open >= limit:
            text = f"{limit} artifacts are on their way, which is the limit"
            raise Unavailable(text, hint=f"ask again; {change('transfers_max')}", retry_after_s=1.0)
        self._open += 1
        transfer = Transfer()
        try:
            yield transfer
        finally:
            self._open -= 1
            self._arriving -= transfer.bytes

    async def _known(self, sha256: str) -> tuple[int, bytes | None]:
        row = await self._engine.read(lambda connection: artifacts.content(connection, sha256))
        if row is None:
            raise NotFound("the artifact was deleted meanwhile", hint="titan artifacts ls shows what there is now")
        return row

    async def _expect(self, scope: Scope, sha256: str | None, transfer: Transfer) -> None:
        """Refuse what was announced and would not fit, before any of it is taken in."""
        if sha256 is not None:
            row = await self._engine.read(lambda connection: artifacts.content(connection, sha256))
            transfer.known = 0 if row is None else row[0]  # so that a publication can be sent again
        self._require_room(announced(scope) - transfer.known)

    def _take(self, transfer: Transfer, more: int) -> None:
        """Count bytes that arrived, before they are written. Raises Conflict when there is no room for them."""
        new = max(0, more - transfer.known)
        transfer.known -= more - new
        self._require_room(new)
        transfer.bytes += new
        self._arriving += new

    def _require_room(self, more: int) -> None:
        kept = self._engine.look(artifacts.totals).bytes + self._arriving
        if more > 0 and kept + more > self._engine.limits.artifacts_total_bytes_max:
            raise Conflict(artifacts.full_message(kept, more, self._engine.limits))

    async def _received(self, scope: Scope, receive: Receive, sha256: str | None, transfer: Transfer) -> Content:
        body = chunks(scope, receive, self._engine.limits.artifact_bytes_max, "artifact_bytes_max")
        await self._expect(scope, sha256, transfer)
        incoming = self._files.begin()
        try:
            async for piece in _gathered(body):
                self._take(transfer, len(piece))
                await self._run(lambda piece=piece: self._files.add(incoming, piece))  # type: ignore[misc]
            if sha256 is not None and incoming.hash.hexdigest() != sha256:
                raise Invalid(
                    f"the body does not have the SHA-256 {sha256}: it was damaged on its way, or has changed",
                    hint="send it again, when nothing writes to the file any more",
                )
            return await self._kept(incoming)
        except TimeoutError:
            raise Invalid(f"nothing arrived for {STALLED_S:g} s: send it again") from None
        except OSError as error:
            why = error.strerror or str(error)
            raise StorageFull(f"the artifact could not be kept: {why}", hint="free some space at the Master") from error
        finally:
            self._threads.submit(incoming.drop)

    async def _kept(self, incoming: Incoming) -> Content:
        settling = asyncio.get_running_loop().run_in_executor(self._threads, self._files.settle, incoming)
        try:
            sha256, data = await asyncio.shield(settling)
        except asyncio.CancelledError:
            settling.add_done_callback(self._unwanted)
            raise
        return Content(sha256, incoming.size, data)

    def _unwanted(self, settling: "asyncio.Future[tuple[str, bytes | None]]") -> None:
        if not settling.cancelled() and settling.exception() is None:
            sha256, data = settling.result()
            self._settled(Content(sha256, 0, data))

    def _settled(self, content: Content) -> None:
        """The database knows of it, or never will: then it goes. The loop never waits for a file that is deleted."""
        self._threads.submit(self._let_go, content)

    def _let_go(self, content: Content) -> None:
        self._files.release(content.sha256)
        if content.data is None:
            self._collect(content.sha256)

    def _collect_dropped(self, result: Any) -> None:
        if isinstance(result, list):
            for sha256 in result[1:]:
                self._threads.submit(self._collect, sha256)

    def _collect(self, sha256: str) -> None:
        self._files.collect(
            sha256, lambda one: self._engine.look(lambda found: artifacts.content(found, one)) is not None
        )

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


class _Download(Response[bytes]):
    def __init__(self, site: Artifacts, sha256: str, size: int, offset: int, headers: dict[str, str]) -> None:
        super().__init__(b"")
        self._sending = _Sending(site, sha256, size, offset, headers)

    def to_asgi_response(self, *_: object, **__: object) -> ASGIResponse:
        """Return the application that streams."""
        return self._sending


class _Sending(ASGIResponse):
    def __init__(self, site: Artifacts, sha256: str, size: int, offset: int, headers: dict[str, str]) -> None:
        super().__init__()
        self._site = site
        self._what = (sha256, size, offset)
        self._headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send all of it; a reader that takes nothing is cut."""
        with self._site.transfer():
            pieces = self._site.pieces(*self._what)
            first = await anext(pieces, b"")  # what is gone is an error as long as there is no answer
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            await _send(send, first)
            async for piece in pieces:
                await _send(send, piece)
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send(send: Send, piece: bytes) -> None:
    async with asyncio.timeout(STALLED_S):
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _gathered(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what arrives in pieces that are worth a thread's while."""
    gathered = bytearray()
    while True:
        async with asyncio.timeout(STALLED_S):
            part = await anext(body, b"")
        gathered += part
        if gathered and (not part or len(gathered) >= PIECE_BYTES):
            yield bytes(gathered)
            gathered.clear()
        if not part:
            return
