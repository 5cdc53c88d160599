"""A real Master on a free port in a thread of the test, plain HTTP to it, and a worker that does as it is told."""

import asyncio
import dataclasses
import http.client
import itertools
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
import pytest
import uvloop
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from titan.master.app import build_app
from titan.master.auth import Gate
from titan.master.engine import Engine
from titan.master.server import Server
from titan.model.limits import DEFAULT_LIMITS, Limits
from titan.model.wire import (
    PROTOCOL,
    Ended,
    Grant,
    Held,
    Hello,
    MasterMessage,
    Output,
    Started,
    WorkerMessage,
    decode_master_frame,
    encode_frame,
)
from titan.storage.blobs import BlobFiles
from titan.storage.contents import ArtifactFiles
from titan.storage.database import Database
from titan.storage.journal import Journal
from titan.storage.logs import LogFiles

TOKEN = "the-admin-token-of-this-test-0123456789"
JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
# The tests knock thousands of times from one address; those of the limits themselves set them back.
ROOMY = dataclasses.replace(DEFAULT_LIMITS, refusals_max=10**9, address_refusals_max=10**9)
WAIT_S = 60.0
T = TypeVar("T")
Heard = TypeVar("Heard", bound=MasterMessage)
_names = itertools.count(1)


class Answer(msgspec.Struct):
    """What came back. `json` decodes the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        assert self.headers["content-type"] == "application/problem+json", self.body
        assert self.json["status"] == self.status
        assert self.json["detail"]
        return str(self.json["code"])


class Master:
    """Use with `with`: engine, gate and server live on a thread, on one event loop."""

    def __init__(self, home: Path, limits: Limits = ROOMY) -> None:
        self.home = home
        self.limits = limits
        self.port = 0
        self.engine: Engine
        self.gate: Gate
        self._loop: asyncio.AbstractEventLoop
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="master-under-test")
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        token: str | None = TOKEN,
        kept: http.client.HTTPConnection | None = None,
    ) -> Answer:
        """Send one request, over the connection `kept` or one of its own. A dict or list is sent as JSON."""
        sent = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            sent = JSON | sent
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        connection = kept or self.connection()
        try:
            connection.request(method, f"/api/v1{path}", body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            if kept is None:
                connection.close()

    def connection(self) -> http.client.HTTPConnection:
        """Return a connection that is made when it is needed."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def get(self, path: str, **more: Any) -> Answer:
        return self.request("GET", path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> Answer:
        return self.request("POST", path, body, **more)

    def put(self, path: str, body: bytes = b"", **more: Any) -> Answer:
        return self.request("PUT", path, body, **more)

    def store(self, word: str, **body: Any) -> Any:
        """Call the store and return the answer's JSON; it must succeed."""
        answer = self.post(f"/store/{word}", body)
        assert answer.status == 200, answer.body
        return answer.json

    def script(self, name: str = "job.py", content: bytes = b"print('ok')") -> str:
        """Put a file into the registry, so that jobs may name it; return the name."""
        assert self.put(f"/registry/{name}", content).status == 200
        return name

    def submit(self, *jobs: Any, name: str = "run", token: str = TOKEN, **more: Any) -> Any:
        """Submit jobs (ids or dicts) that run the registry's job.py; return the run's view."""
        body = {"name": name, "jobs": [job(each) for each in jobs], **more}
        answer = self.post("/runs", body, token=token)
        assert answer.status == 201, answer.body
        return answer.json["run"]

    def on_loop(self, function: Callable[[], T]) -> T:
        """Call `function` on the Master's loop."""

        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(60)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the Master's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def events(self, path: str = "/events", token: str = TOKEN, headers: dict[str, str] | None = None) -> "Events":
        """Open a feed."""
        return Events(self.port, path, token, headers or {})

    def worker(self, **more: Any) -> "Worker":
        """Connect a worker."""
        return Worker(self.port, **more)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            database = Database.open(f"sqlite:///{self.home / 'titan.db'}", self.home)
            blobs, logs = BlobFiles(self.home / "blobs"), LogFiles(self.home / "logs")
            artifacts = ArtifactFiles(self.home / "artifacts")
            self.engine = Engine(database, Journal(database, blobs, logs, self.limits), self.limits)
            await self.engine.start()
            self.gate = build_app(self.engine, blobs, logs, artifacts, TOKEN, hosts=["titan.test"])
            listener = socket.create_server(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
            server = Server(self.gate, self.limits, self._ready.set)
        except BaseException as error:
            self._failure = error
            self._ready.set()
            raise
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await self._stop.wait()
        await self.engine.stop()
        server.should_exit = True
        await serving
        listener.close()
        database.close()


class Events:
    """A feed of server-sent events, read one at a time."""

    def __init__(self, port: int, path: str, token: str, headers: dict[str, str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        sent = {"Authorization": f"Bearer {token}", **headers}
        self._connection.request("GET", f"/api/v1{path}", headers=sent)
        self.answer = self._connection.getresponse()

    def __enter__(self) -> Self:
        assert self.answer.status == 200, self.answer.read()
        assert self.answer.readline() == b": titan\n"
        assert self.answer.readline() == b"\n"
        return self

    def __exit__(self, *_: object) -> None:
        self.answer.close()
        self._connection.close()

    def block(self) -> dict[str, str]:
        """Return the fields of the next block; {} at the end of the feed."""
        fields: dict[str, str] = {}
        while line := self.answer.readline().decode():
            if line == "\n":
                return fields
            name, _, value = line.rstrip("\n").partition(": ")
            fields[name] = value
        return fields

    def __iter__(self) -> Iterator[tuple[str, str, Any]]:
        """Yield (id, event, data)."""
        while fields := self.block():
            if "data" in fields:
                yield fields["id"], fields["event"], json.loads(fields["data"])


class Worker:
    """A worker's end of the link. It runs nothing: the test says what its attempts do.

    It offers nothing but its own name, so that it gets the jobs of its own test.
    """

    def __init__(
        self,
        port: int,
        name: str = "",
        slots: int = 4,
        capabilities: tuple[str, ...] = (),
        token: str = TOKEN,
        incarnation: str = "1",
        predecessor: str = "",
        attempts: tuple[Held, ...] = (),
    ) -> None:
        self.name = name or f"worker-{next(_names)}"
        offered = capabilities or (self.name,)
        self._hello = Hello(
            self.name, incarnation, "boot", PROTOCOL, "0", offered, slots, attempts, predecessor=predecessor
        )  # fmt: skip
        self._heard: list[MasterMessage] = []
        self._connecting = connect(
            f"ws://127.0.0.1:{port}/api/v1/worker",
            additional_headers={"Authorization": f"Bearer {token}"},
            compression=None,
            open_timeout=30,
        )

    def __enter__(self) -> Self:
        self.link: ClientConnection = self._connecting.__enter__()
        self.say(self._hello)
        self.hear()
        return self

    def __exit__(self, *_: object) -> None:
        self._connecting.__exit__(None, None, None)

    def job(self, one: Any) -> dict[str, Any]:
        """Return a job that only this worker runs."""
        return {**job(one), "requirement": [self.name]}

    def say(self, *messages: WorkerMessage) -> None:
        self.link.send(encode_frame(list(messages)))

    def hear(self) -> list[MasterMessage]:
        """Return the next frame's messages."""
        frame = self.link.recv(WAIT_S)
        assert isinstance(frame, bytes)
        messages = decode_master_frame(frame)
        self._heard += messages
        return messages

    def closed(self) -> tuple[int, str]:
        """Listen until the Master closes the link; return with which code and words."""

        def listen() -> None:
            while True:
                self.hear()

        with pytest.raises(ConnectionClosed) as end:
            listen()
        assert end.value.rcvd is not None
        return end.value.rcvd.code, end.value.rcvd.reason

    def heard(self, kind: type[Heard]) -> Iterator[Heard]:
        """Take out what was heard of one kind and not asked for yet, in order."""
        for message in [each for each in self._heard if isinstance(each, kind)]:
            self._heard.remove(message)
            yield message

    def grant(self) -> Grant:
        """Return the next grant."""
        while True:
            for message in self._heard:
                if isinstance(message, Grant):
                    self._heard.remove(message)
                    return message
            self.hear()

    def start(self) -> Grant:
        """Take the next grant and report its start."""
        grant = self.grant()
        self.say(Started(grant.fence))
        return grant

    def end(self, grant: Grant, exit_code: int = 0, log: bytes = b"") -> None:
        """Report an attempt's log and end."""
        if log:
            self.say(Output(grant.fence, 0, log))
        self.say(Ended(grant.fence, exit_code, log_bytes=len(log)))


def job(one: Any) -> dict[str, Any]:
    """Return a job's JSON: an id becomes a job that runs job.py of the registry."""
    return {"job_id": one, "filename": "job.py"} if isinstance(one, str) else {"filename": "job.py", **one}


def lines(*documents: Any) -> bytes:
    """Return NDJSON."""
    return b"".join(msgspec.json.encode(document) + b"\n" for document in documents)
