"""A Master that does what a test says: a real WebSocket and HTTP server in a thread of its own.

It keeps, over `stop` and `start`, what a database would keep: log bytes, starts and ends of attempts. Every
wait is for a fact, by condition variable, and gives up loudly.
"""

import asyncio
import hashlib
import http
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from titan.model.spec import JobSpec, encode_spec
from titan.model.wire import (
    Ack,
    Dropped,
    Ended,
    Grant,
    Hello,
    MasterMessage,
    Output,
    Renew,
    RenewAck,
    Returned,
    Started,
    Stop,
    Welcome,
    WorkerMessage,
    decode_worker_frame,
    encode_frame,
)

PATIENCE_S = 30.0
TOKEN = "the-token-of-the-home"
T = TypeVar("T")


class MasterDouble:
    """One Master on a port of its own. Attributes are read in `wait` and after it.

    `over`: it stands over the database of that one, which is dead or about to be.
    """

    def __init__(self, over: "MasterDouble | None" = None) -> None:
        self.port = 0
        self.hellos: list[Hello] = []
        self.messages: list[WorkerMessage] = []
        self.frames: list[int] = []
        self.logs: dict[int, bytearray] = {}
        self.dropped: dict[int, list[Dropped]] = {}
        self.started: dict[int, Started] = {}
        self.begun: set[int] = set()
        self.ended: dict[int, Ended] = {}
        self.returned: dict[int, Returned] = {}
        self.fetches: list[str] = []
        self.tokens: set[str] = set()
        self.faults: list[str] = []
        self.unwanted: set[int] = set()
        self.acknowledges = True
        self.answers_renewals = True
        self.stores_output = True
        self.holds_fetches = False
        self.answers_hello: Callable[[Hello], Welcome] | None = None
        self._released = asyncio.Event()
        self.blobs: dict[str, bytes] = {}
        self._fence = 0
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="master-double", daemon=True)
        self._thread.start()
        self._server: Server | None = None
        self._connections: set[ServerConnection] = set()
        self._sockets: set[ServerConnection] = set()
        if over is not None:
            for kept in ("logs", "dropped", "started", "begun", "ended", "returned", "blobs"):
                setattr(self, kept, getattr(over, kept))
            self._fence = 1_000

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # What a test does

    def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._run(self._start())

    def stop(self) -> None:
        """Die as if killed: every connection is reset, the port is closed."""
        self._run(self._stop())

    def close(self) -> None:
        self.stop()
        self._run(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        assert self.faults == []

    def send(self, *messages: MasterMessage) -> None:
        """Send one frame to the worker that is connected, or will be."""
        self.send_raw(encode_frame(list(messages)))

    def send_raw(self, data: bytes) -> None:
        self.wait(lambda: self._sockets, "a worker to be connected")
        self._run(self._send_raw(data))

    def disconnect(self, code: int, reason: str = "") -> None:
        """Close the worker's link with a code and a reason in words."""
        self.wait(lambda: self._sockets, "a worker to be connected")
        self._run(self._disconnect(code, reason))

    def add_blob(self, content: bytes | str) -> str:
        data = content.encode() if isinstance(content, str) else content
        sha256 = hashlib.sha256(data).hexdigest()
        self.blobs[sha256] = data
        return sha256

    def grant(
        self, content: bytes | str, filename: str = "job.py", *, agent_run_id: str = "agents", **spec: Any
    ) -> int:
        """Grant an attempt of a job with this script and return its fence."""
        sha256 = self.add_blob(content)
        with self._changed:
            self._fence += 1
            fence = self._fence
        job = JobSpec(job_id=f"job-{fence}", filename=filename, script=sha256, **spec)
        self.send(self.grant_message(fence, job, agent_run_id))
        return fence

    def grant_message(self, fence: int, job: JobSpec, agent_run_id: str = "agents") -> Grant:
        return Grant(
            fence=fence,
            run_id="0123456789abcdef0123456789abcdef",
            job_id=job.job_id,
            generation=1,
            attempt=3,
            spec=encode_spec(job),
            token=f"token-of-{fence}",
            idempotency_key=f"key-of-{job.job_id}",
            agent_run_id=agent_run_id,
        )

    def release_fetches(self) -> None:
        """Let the fetches go on that `holds_fetches` kept waiting."""
        self._loop.call_soon_threadsafe(self._released.set)

    def job_of(self, sha256: str) -> JobSpec:
        return JobSpec(job_id="a-job", filename="job.py", script=sha256)

    def cancel(self, fence: int) -> None:
        self.send(Stop(fence))

    def run(self, content: bytes | str, filename: str = "job.py", **spec: Any) -> tuple[Ended, str]:
        """Grant a job, wait for its end, return it with its log."""
        return self.end(self.grant(content, filename, **spec))

    def end(self, fence: int) -> tuple[Ended, str]:
        """Wait for the end of an attempt and return it with its log, which is whole by then."""
        ended = self.wait(lambda: self.ended.get(fence), f"the end of {fence}")
        log = bytes(self.logs.get(fence, b""))
        came = self.received(fence)
        assert came == ended.log_bytes, f"{came} bytes of log came before the end of {ended.log_bytes}"
        return ended, log.decode("utf-8", "surrogateescape")

    def wait_hellos(self, count: int) -> None:
        """Wait until workers have said hello `count` times, and no more often."""
        self.wait(lambda: len(self.hellos) >= count, f"hello number {count}")
        assert len(self.hellos) == count

    def received(self, fence: int) -> int:
        """Return how far the log of `fence` has come, dropped bytes included."""
        return len(self.logs.get(fence, b"")) + sum(each.length for each in self.dropped.get(fence, ()))

    def wait_log(self, fence: int, text: str) -> str:
        """Wait until the log of `fence` has `text` in it and return the log so far."""
        self.wait(lambda: text.encode() in self.logs.get(fence, b""), f"{text!r} in the log of {fence}")
        return self.logs[fence].decode("utf-8", "surrogateescape")

    def wait(self, what: Callable[[], T | None], name: str) -> T:
        """Return the first true value of `what()`, asked again whenever something came in."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(what()), PATIENCE_S):
                last = [repr(message)[:200] for message in self.messages[-5:]]
                raise AssertionError(f"waited {PATIENCE_S} s for {name}; last messages: {last}")
            value = what()
        assert value is not None
        return value

    # What the server does

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    async def _start(self) -> None:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            self.port,
            process_request=self._http,
            compression=None,
            ping_interval=None,
            close_timeout=1,
            max_size=4 * 1024 * 1024,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close(close_connections=False)
            for socket in self._connections:
                socket.transport.abort()
            self._connections.clear()
            self._sockets.clear()
            # Whoever asked is gone.
            self._released.set()
            await self._server.wait_closed()
            self._server = None

    async def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send_raw(self, data: bytes) -> None:
        for socket in list(self._sockets):
            await socket.send(data)

    async def _disconnect(self, code: int, reason: str) -> None:
        sockets = list(self._sockets)
        self._sockets.clear()
        for socket in sockets:
            await socket.close(code, reason)

    async def _http(self, connection: ServerConnection, request: Request) -> Response | None:
        self._connections.add(connection)
        with self._changed:
            self.tokens.add(request.headers.get("Authorization", ""))
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                return connection.respond(http.HTTPStatus.UNAUTHORIZED, "who are you\n")
            if request.path == "/api/v1/worker":
                return None
            sha256 = request.path.removeprefix("/api/v1/blobs/")
            self.fetches.append(sha256)
            self._changed.notify_all()
        if self.holds_fetches:
            await self._released.wait()
        blob = self.blobs.get(sha256)
        if blob is None:
            return connection.respond(http.HTTPStatus.NOT_FOUND, "no such blob\n")
        return Response(200, "OK", Headers({"Content-Length": str(len(blob)), "Connection": "close"}), blob)

    async def _serve(self, socket: ServerConnection) -> None:
        try:
            first, *others = decode_worker_frame(await socket.recv(decode=False))
            if not isinstance(first, Hello) or others:
                self.faults.append(f"began with {first} and {others}")
                return
            with self._changed:
                self.hellos.append(first)
                self.begun |= {held.fence for held in first.attempts if held.started}
                offsets = {held.fence: self.received(held.fence) for held in first.attempts}
                stop = tuple(held.fence for held in first.attempts if held.fence in self.unwanted)
                self._changed.notify_all()
            welcome = Welcome(epoch=1, stop=stop, log_offsets=offsets)
            await socket.send(encode_frame([self.answers_hello(first) if self.answers_hello else welcome]))
            with self._changed:
                self._sockets.add(socket)
                self._changed.notify_all()
            while True:
                answers = self._take(decode_worker_frame(await socket.recv(decode=False)))
                if answers:
                    await socket.send(encode_frame(answers))
        except ConnectionClosed:
            pass
        except msgspec.DecodeError as error:
            self.faults.append(str(error))
        finally:
            self._sockets.discard(socket)

    def _take(self, messages: list[WorkerMessage]) -> list[MasterMessage]:
        answers: list[MasterMessage] = []
        ended: list[int] = []
        offsets: dict[int, int] = {}
        with self._changed:
            self.frames.append(len(messages))
            for message in messages:
                self.messages.append(message)
                if isinstance(message, Renew):
                    if self.answers_renewals:
                        answers.append(RenewAck(message.seq))
                elif isinstance(message, Started):
                    self._once(self.started, message)
                elif isinstance(message, Returned):
                    self._once(self.returned, message)
                elif isinstance(message, (Output, Dropped)) and self.stores_output:
                    self._store(message)
                    offsets[message.fence] = self.received(message.fence)
                elif isinstance(message, Ended) and self.stores_output:
                    if message.fence not in self.started and message.fence not in self.begun:
                        self.faults.append(f"{message} without a start")
                    self.ended.setdefault(message.fence, message)
                    ended.append(message.fence)
            self._changed.notify_all()
        if self.acknowledges and (ended or offsets):
            answers.append(Ack(tuple(ended), offsets))
        return answers

    def _once(self, kept: dict[int, Any], message: Started | Returned) -> None:
        if message.fence in kept:
            self.faults.append(f"said twice: {message}")
        kept[message.fence] = message

    def _store(self, message: Output | Dropped) -> None:
        received = self.received(message.fence)
        if message.offset > received:
            self.faults.append(f"a gap in the log of {message.fence}: {received} to {message.offset}")
        if isinstance(message, Output):
            self.logs.setdefault(message.fence, bytearray()).extend(message.data[received - message.offset :])
        elif message.offset + message.length > received:
            new = message.offset + message.length - received
            self.dropped.setdefault(message.fence, []).append(Dropped(message.fence, received, new, message.why))
