"""The worker's end of its link: connects outward, says what `WorkerLink` has to say, comes back for ever.

Renewals are written straight to the socket every period, whatever else waits to be sent, and a link whose
renewals are not answered for three periods is dropped. Waits between attempts are drawn from a growing,
capped window from the first one on, so that a thousand workers do not knock at once. Where a Master has several
addresses, the next is taken after a try that ended without a welcome, and the one that welcomed is kept.
"""

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from titan.core.link import RENEW_EVERY_MS, Order, WorkerLink
from titan.core.pieces import Piece
from titan.model.wire import (
    CLOSE_BAD_FRAME,
    CLOSE_DENIED,
    CLOSE_REPLACED,
    Ack,
    Drain,
    Grant,
    Hello,
    Lend,
    MasterMessage,
    Output,
    Recall,
    RenewAck,
    Stop,
    Welcome,
    WorkerMessage,
    decode_master_frame,
    encode_frame,
)
from titan.worker.launcher.frames import boot_ms
from titan_sdk.discovery import PORTS
from titan_sdk.errors import TitanError
from titan_sdk.trust import context_for, not_verified

OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
RETRY_S_START = 0.25
RETRY_S_MAX = 5.0
# A herd needs many machines; on one, what counts is to be back soon.
RETRY_S_MAX_LOOPBACK = 0.25
STABLE_MS = 60_000
# A Master that is started beside us needs a moment; that it was not there at once is no news.
QUIET_START_MS = 3_000
# Before a welcome, that many different lines about why there is none yet.
SAID_MAX = 100
# A single grant may be larger than a frame of many: a job may have 10,000 parents.
# A Master that asks and does not read the answers; each is small.
UNSAID_MAX = 100_000
RECEIVE_BYTES_MAX = 4 * 1024 * 1024


class Replaced(Exception):
    """Another process with this worker's name is connected now; this one is no longer wanted."""


class Removed(Exception):
    """The Master lets this worker in no more; the text says why."""


class Refused(ConnectionError):
    """The Master answered and does not let us in; the text says why."""


class Unreachable(Exception):
    """No connection came about; the text says why."""


class Handler:
    """What the connection needs of its worker; all calls come from the event loop."""

    def __init__(
        self,
        hello: Callable[[], Hello],
        obey: Callable[[list[Order]], None],
        read_log: Callable[[int, int, int], bytes],
        answered: Callable[[int], None],
        say: Callable[[str], None],
    ) -> None:
        self.hello = hello
        self.obey = obey
        self.read_log = read_log
        self.answered = answered
        self.say = say


class Connection:
    """One worker's link to its Master at any of `urls`, over and over.

    `url` is where the last welcome came from, the first of `urls` before any. `beside`: the Master was started with
    us, so the first connection is worth a word only when it takes long. `ca` is whom to trust behind https.
    `has_credential`: the token is this worker's own, so a Master that knows it no more has removed us.
    """

    def __init__(
        self,
        urls: Sequence[str],
        token_file: Path,
        link: WorkerLink,
        handler: Handler,
        *,
        ca: str = "",
        beside: bool = False,
        has_credential: bool = False,
    ) -> None:
        self._has_credential = has_credential
        self._ca = ca
        self._urls = deque(urls)
        self.url = urls[0]
        self._token_file = token_file
        self._link = link
        self._handler = handler
        self._wake = asyncio.Event()
        self._said: set[tuple[str, str]] = set()
        self._quiet_until_ms = boot_ms() + QUIET_START_MS if beside else 0
        self.welcomed = asyncio.Event()

    async def run(self) -> NoReturn:
        """Stay connected until cancelled.

        Raises Replaced when another process has taken our name, Removed when the Master wants us no more.

        What the handler raises is a fault of ours and not of the link, so it ends this as well.
        """
        window_s = RETRY_S_START
        while True:
            begun_ms = boot_ms()
            url = self._urls[0]
            # Put behind the others until it welcomes us.
            self._urls.rotate(-1)
            try:
                await self._connect_once(url)
            except (InvalidHandshake, ConnectionClosed, Refused, Unreachable) as error:
                self._tell(url, error)
            finally:
                self._link.disconnected()
            if boot_ms() - begun_ms > STABLE_MS:
                window_s = RETRY_S_START
            await asyncio.sleep(random.uniform(0, min(window_s, _retry_s_max(self._urls[0]))))  # noqa: S311 - jitter
            window_s = min(window_s * 2, RETRY_S_MAX)

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    def token(self) -> str:
        """Return the token of the worker. Raises Refused while its file is missing."""
        try:
            return self._token_file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"no token to show: {self._token_file}: {error}") from error

    async def _open(self, url: str) -> ClientConnection:
        headers = {"Authorization": f"Bearer {self.token()}"}
        scheme = "wss" if url.startswith("https:") else "ws"
        try:
            return await connect(
                f"{scheme}://{urlsplit(url).netloc}/api/v1/worker",
                ssl=await self._trusted(url) if scheme == "wss" else None,
                additional_headers=headers,
                user_agent_header="titan-worker",
                compression=None,
                proxy=None,
                open_timeout=OPEN_TIMEOUT_S,
                ping_interval=None,
                close_timeout=CLOSE_TIMEOUT_S,
                max_size=RECEIVE_BYTES_MAX,
            )
        except InvalidStatus as error:
            if self._has_credential and error.response.status_code == 401:
                raise Removed("the Master does not take its credential (any more)") from error
            raise
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(not_verified(url, error).message) from error
        except (OSError, TitanError) as error:
            raise Unreachable(getattr(error, "message", str(error))) from error

    async def _trusted(self, url: str) -> ssl.SSLContext:
        parts = urlsplit(url)
        where = (self._ca, parts.hostname or "", parts.port or PORTS["https"], OPEN_TIMEOUT_S)
        return await asyncio.get_running_loop().run_in_executor(None, context_for, *where)

    async def _connect_once(self, url: str) -> None:
        socket = await self._open(url)
        try:
            await self._serve(socket, url)
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code == CLOSE_REPLACED:
                raise Replaced from closed
            if closed.rcvd is not None and closed.rcvd.code == CLOSE_DENIED:
                raise Removed(f"the Master lets it in no more: {closed.rcvd.reason}") from closed
            raise
        except Refused as refused:
            await socket.close(CLOSE_BAD_FRAME, str(refused)[:100])
            raise
        finally:
            await socket.close()

    async def _serve(self, socket: ClientConnection, url: str) -> None:
        await socket.send(_frame(self._handler.hello()))
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                first, *others = await self._receive(socket)
        except TimeoutError as error:
            raise Refused("no welcome came") from error
        if not isinstance(first, Welcome):
            raise Refused("the first message was not a welcome")
        self._keep(url)
        self._handler.obey(self._link.welcome(first))
        self._handler.answered(self._link.answered_ms)
        self._said.clear()
        if not self._quiet():
            self._handler.say(f"connected to {url}")
        self.welcomed.set()
        self._wake.set()
        helpers = [asyncio.create_task(self._send(socket)), asyncio.create_task(self._renew(socket))]
        for helper in helpers:
            # One that we cancel must not: the code with which the link is refused would never leave.
            helper.add_done_callback(lambda done: None if done.cancelled() else socket.transport.abort())
        try:
            self._take(others)
            while True:
                self._take(await self._receive(socket))
        finally:
            for helper in helpers:
                helper.cancel()
            results = await asyncio.gather(*helpers, return_exceptions=True)
            for result in results:
                # What they raise for a lost connection, `_receive` raises as well.
                if isinstance(result, Exception) and not isinstance(result, ConnectionClosed):
                    raise result

    async def _receive(self, socket: ClientConnection) -> list[MasterMessage]:
        data = await socket.recv(decode=False)
        try:
            messages = decode_master_frame(data)
        except msgspec.DecodeError as error:
            raise Refused(f"the Master does not speak our protocol: {error}") from error
        if not messages:
            raise Refused("the Master sent a frame without a message")
        return messages

    def _take(self, messages: list[MasterMessage]) -> None:
        link, obey = self._link, self._handler.obey
        for message in messages:
            match message:
                case RenewAck():
                    if link.renewed(message, boot_ms()):
                        self._handler.answered(link.answered_ms)
                case Grant():
                    obey(link.grant(message))
                case Ack():
                    obey(link.ack(message, boot_ms()))
                case Recall():
                    obey(link.recall(message))
                case Stop():
                    obey(link.stop(message))
                case Lend():
                    obey(link.lend(message))
                case Drain():
                    self._drain()
                case Welcome():
                    raise Refused("the Master welcomed us twice")
        if link.unsaid > UNSAID_MAX:
            raise Refused(f"the Master does not take our answers: {link.unsaid} wait")
        self._wake.set()

    def _drain(self) -> None:
        link = self._link
        if not link.draining:
            self._handler.obey(link.drain())
            self._handler.say(f"the Master drains this worker: {link.running} jobs run to their end, no more begin")

    async def _send(self, socket: ClientConnection) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while items := self._link.next_frame(boot_ms()):
                await socket.send(_frame(*[self._filled(item) for item in items]))

    def _filled(self, item: WorkerMessage | Piece) -> WorkerMessage:
        if not isinstance(item, Piece):
            return item
        return Output(item.fence, item.offset, self._handler.read_log(item.fence, item.offset, item.length))

    async def _renew(self, socket: ClientConnection) -> None:
        sends: set[asyncio.Task[None]] = set()
        while not self._link.silent(boot_ms()):
            # `send` writes at once and then waits for room, which we do not wait for. If it fails, so does `recv`.
            send = asyncio.create_task(socket.send(_frame(self._link.renew(boot_ms()))))
            sends.add(send)
            send.add_done_callback(sends.discard)
            send.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.sleep(RENEW_EVERY_MS / 1000)
        self._handler.say("the Master does not answer; making a new connection")

    def _keep(self, url: str) -> None:
        self.url = url
        while self._urls[0] != url:
            self._urls.rotate(1)

    def _tell(self, url: str, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if isinstance(error, ConnectionClosed) and (error.rcvd is None or error.rcvd.reason):
            text = error.rcvd.reason if error.rcvd else "the connection was cut"
        if isinstance(error, InvalidStatus) and error.response.status_code in (401, 403):
            text = f"the Master does not take the token in {self._token_file}"
        # While it is away there is one line for each way in which it is, not one a second.
        if (url, text) not in self._said and len(self._said) < SAID_MAX and not self._quiet():
            self._said.add((url, text))
            self._handler.say(f"{url}: {text}; trying {'again' if url == self._urls[0] else self._urls[0]}")

    def _quiet(self) -> bool:
        return not self.welcomed.is_set() and boot_ms() < self._quiet_until_ms


def _retry_s_max(url: str) -> float:
    host = urlsplit(url).hostname or ""
    return RETRY_S_MAX_LOOPBACK if host in ("localhost", "::1") or host.startswith("127.") else RETRY_S_MAX


def _frame(*messages: WorkerMessage) -> bytes:
    return encode_frame(list(messages))
