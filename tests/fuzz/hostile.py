"""A worker process, and the Master that it believes: one that was broken into and says whatever it is told to say."""

import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from titan.model.spec import JobSpec, encode_spec
from titan.model.wire import (
    Ack,
    Ended,
    Grant,
    MasterMessage,
    Output,
    Renew,
    RenewAck,
    Returned,
    Stop,
    Welcome,
    decode_worker_frame,
    encode_frame,
)

WAIT_S = 60.0
TOKEN = "the-token-of-the-worker"
PROBES = 2**40  # fences of questions whether it still answers; no fuzzed one is there
CLOSES = {1002, 1007, 1009, 4400}  # with which a worker may end a link that is none
REFUSED = encode_spec(JobSpec("probe", "..", script="0" * 64))


class HostileMaster:
    """Listens, welcomes as `welcome` says, and answers what workers say as a Master would, or as `blob` says."""

    def __init__(self, blob: Callable[[str], tuple[int, bytes]]) -> None:
        self.welcome: Callable[[], bytes] = lambda: encode_frame([Welcome(1)])
        self.links = 0
        self.closes: list[int] = []
        self.answered: set[int] = set()
        self.link: ServerConnection | None = None
        self.changed = threading.Condition()
        self._blob = blob
        self._server = serve(
            self._serve, "127.0.0.1", 0, process_request=self._http, compression=None, ping_interval=None, max_size=None
        )
        self.url = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._thread.join()

    def wait(self, holds: Callable[[], bool]) -> bool:
        """Wait until something holds; return whether it came to hold."""
        with self.changed:
            return self.changed.wait_for(holds, WAIT_S)

    def _http(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return connection.respond(401, "who are you\n")
        if request.path == "/api/v1/worker":
            return None
        status, data = self._blob(request.path.rpartition("/")[2])
        return Response(status, "Told", Headers({"Content-Length": str(len(data)), "Connection": "close"}), data)

    def _serve(self, link: ServerConnection) -> None:
        try:
            link.recv(WAIT_S)
            link.send(self.welcome())
            with self.changed:
                self.link = link
                self.links += 1
                self.changed.notify_all()
            for frame in link:
                if answers := self._answers(decode_worker_frame(frame if isinstance(frame, bytes) else frame.encode())):
                    link.send(encode_frame(answers))
        except ConnectionClosed:
            pass
        finally:
            with self.changed:
                self.closes.append(link.protocol.close_rcvd.code if link.protocol.close_rcvd else 1006)
                if self.link is link:
                    self.link = None
                self.changed.notify_all()

    def _answers(self, messages: Any) -> list[MasterMessage]:
        answers: list[MasterMessage] = []
        with self.changed:
            for message in messages:
                if isinstance(message, Renew):
                    answers.append(RenewAck(message.seq))
                elif isinstance(message, Output):
                    answers.append(Ack((), {message.fence: message.offset + len(message.data)}))
                elif isinstance(message, Ended | Returned):
                    self.answered.add(message.fence)
                    if isinstance(message, Ended):
                        answers.append(Ack((message.fence,)))
            self.changed.notify_all()
        return answers


class WorkerTarget:
    """A worker that has joined a hostile Master, in a folder whose every other file is watched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.log = folder / "worker.log"
        self.master = HostileMaster(self._blob)
        self._probes = itertools.count(PROBES)
        self._blobs: dict[str, tuple[int, bytes]] = {}

    def __enter__(self) -> Self:
        for path in (self.home, self.folder / "cwd", self.folder / "user", self.folder / "outside"):
            path.mkdir(mode=0o700)
        (self.home / "token").touch(0o600)
        (self.home / "token").write_text(TOKEN)
        (self.folder / "outside" / "canary").write_text("untouched")
        self.start()
        self.before = self.outside()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.master.close()

    def start(self) -> None:
        """Start a worker; it has joined when this returns."""
        words = ["--home", str(self.home), "--name", "w", "--slots", "4", "--join", self.master.url]
        environ = os.environ | {"HOME": str(self.folder / "user"), "TMPDIR": str(self.folder / "user")}
        links = self.master.links
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "titan.worker", *words], env=environ, cwd=self.folder / "cwd", stderr=log
            )
        assert self.master.wait(lambda: self.master.links > links), self.log.read_text()

    def stop(self) -> None:
        """End it with its jobs."""
        self.process.kill()
        self.process.wait()
        self.master.wait(lambda: self.master.link is None)
        self.master.closes.clear()

    @property
    def lives(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def rss_bytes(self) -> int:
        """Return how much memory it has now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) * 1024

    def outside(self) -> dict[str, tuple[int, int]]:
        """Return what there is beside the worker's own folder, with sizes and times."""
        own = self.home / "workers"
        found = {}
        for path in self.folder.rglob("*"):
            if path != self.log and not path.is_relative_to(own):
                seen = path.lstat()
                found[str(path)] = (seen.st_size if path.is_file() else 0, seen.st_mtime_ns if path.is_file() else 0)
        return found

    def send(self, *frames: bytes | str) -> None:
        """Send frames on the link that is open, if one is."""
        link = self.master.link
        try:
            for frame in frames:
                if link is not None:
                    link.send(frame)
        except ConnectionClosed:
            pass

    def problem(self) -> str:
        """Say what is wrong with the worker now, "" when nothing is: it lives, answers, and has touched nothing."""
        if not self._answers() or not self.lives:
            return f"the worker does not answer ({self.process.poll()}): {self.log.read_text(errors='replace')[-4000:]}"
        said = self.log.read_text(errors="replace")
        if "Traceback" in said or "Error:" in said:
            return f"the worker said: {said[max(0, said.find('Traceback') - 500) :][:9000]}"
        if odd := set(self.master.closes) - CLOSES:
            return f"it closed links with {odd}"
        if (now := self.outside()) != self.before:
            return f"beside its folder there was {self.before}, there is {now}"
        return ""

    def _answers(self) -> bool:
        """Ask on each link in turn, until one lasts as long as an answer takes."""
        master, until_s = self.master, time.monotonic() + WAIT_S
        while self.lives and time.monotonic() < until_s:
            if not master.wait(lambda: master.link is not None or not self.lives):
                return False
            link, fence = master.link, next(self._probes)
            self.send(encode_frame([_probe(fence), Stop(fence)]))
            master.wait(lambda: fence in master.answered or master.link is not link)  # noqa: B023 - waited for here
            if fence in master.answered:
                return True
        return False

    def keep(self, sha256: str, status: int, data: bytes) -> None:
        """Say what is answered to who fetches that content."""
        self._blobs[sha256] = (status, data)

    def _blob(self, sha256: str) -> tuple[int, bytes]:
        return self._blobs.get(sha256, (404, b"no such blob\n"))


def _probe(fence: int) -> Grant:
    return Grant(fence, "0" * 32, "probe", 1, 1, REFUSED, "t", "k", "a")


def packed(value: Any) -> bytes:
    """Return msgpack of anything, or what stands for it where there is none."""
    try:
        return msgspec.msgpack.encode(value)
    except (RecursionError, OverflowError, ValueError):
        return b"\x91" * random.Random(0).randint(1_000, 3_000)
