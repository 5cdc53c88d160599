"""One worker process's connection: what is said to it leaves as one frame a turn of the loop.

That something is kept is no hurry: whoever waits for an end is answered first.
"""

import asyncio
import logging
from typing import Protocol

import msgspec

from titan.model.ids import job_id_problem
from titan.model.limits import change
from titan.model.wire import (
    CAUSES,
    CLOSE_BAD_FRAME,
    CLOSE_PROTOCOL,
    PROTOCOL,
    Ack,
    Ended,
    Hello,
    MasterMessage,
    RenewAck,
    WorkerMessage,
    decode_worker_frame,
    encode_frame,
)
from titan.model.wording import reworded

CLOSE_S_MAX = 2.0
UNKEPT_BYTES_MAX = 2 * 1024 * 1024
OUTBOX_MAX = 100_000
SLOTS_MAX = 10_000
CAPABILITIES_MAX = 64
DEVICES_MAX = 1_000
TEXT_CHARS_MAX = 256
DETAIL_CHARS_MAX = 4_096
FENCE_MAX = 2**63 - 1
NUMBER_MAX = 2**53
_AT_MOST_TEXT = f"{TEXT_CHARS_MAX} characters at most"
LOG = logging.getLogger("titan.master")


class Socket(Protocol):
    """One accepted WebSocket, frame by frame."""

    async def receive(self) -> bytes | None:
        """Return the next frame; None when the peer is gone. Raises LinkFault for a frame that is not bytes."""

    async def send(self, frame: bytes) -> None:
        """Send one frame; returns when the transport takes more."""

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye."""


class LinkFault(Exception):
    """The link cannot go on: close it with `code`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason[:120]  # a close frame holds 123 bytes


class Link:
    """One worker process's connection."""

    def __init__(
        self, socket: Socket, name: str, incarnation: str, held: tuple[int, ...], frame_bytes_max: int
    ) -> None:
        self.socket = socket
        self.name = name
        self.incarnation = incarnation
        self.held = held
        self.open = False
        self.fault: LinkFault | None = None
        self.unkept_bytes = 0
        self._farewell: LinkFault | None = None
        self._frame_bytes_max = frame_bytes_max
        self._renewals: list[MasterMessage] = []
        self._ended: list[int] = []
        self._offsets: dict[int, int] = {}
        self._messages: list[MasterMessage] = []
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self.task = _this_task()
        self._loop = asyncio.get_running_loop()
        self._sender = asyncio.create_task(self._send())

    def welcome(self) -> None:
        """Its hello is durable: from here on the link hears."""
        self.open = True

    def say(self, message: MasterMessage) -> None:
        """Send `message` with the next frame."""
        if isinstance(message, RenewAck):
            self._renewals.append(message)
        elif isinstance(message, Ack):
            self._ended.extend(message.ended)
            self._offsets.update(message.log_offsets)
            self._loop.call_soon(self._wake.set)
            return
        else:
            self._messages.append(message)
            if len(self._messages) > OUTBOX_MAX:
                self.close(LinkFault(CLOSE_BAD_FRAME, "the worker does not read what it is sent"))
        self._wake.set()

    def kept(self, size: int) -> None:
        """`size` bytes of log are durable: there is room for as many more."""
        self.unkept_bytes -= size
        self._room.set()

    async def room(self) -> None:
        """Return when the disk has caught up with this worker's logs."""
        while self.unkept_bytes > UNKEPT_BYTES_MAX:
            self._room.clear()
            await self._room.wait()

    def close(self, fault: LinkFault) -> None:
        """End the link from our side."""
        if self.fault is None:
            self.fault = fault
            self.open = False
            self.task.cancel()

    def close_when_said(self, fault: LinkFault) -> None:
        """End the link from our side as soon as what was said is on its way."""
        self._farewell = fault
        self._wake.set()

    async def end(self) -> None:
        """Stop sending, and say why if we were the ones to end it."""
        self._sender.cancel()
        self.task.uncancel()
        if self.fault is not None:
            await say_goodbye(self.socket, self.fault)

    async def _send(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for frame in self._frames(self._take()):
                    await self.socket.send(frame)
                if self._farewell is not None:
                    self.close(self._farewell)
        except (OSError, RuntimeError) as error:
            LOG.debug("worker %s cannot be reached: %s", self.name, error)

    def _take(self) -> list[MasterMessage]:
        taken = self._renewals
        if self._ended or self._offsets:
            taken.append(Ack(tuple(self._ended), self._offsets))
        taken += self._messages
        self._renewals, self._ended, self._offsets, self._messages = [], [], {}, []
        return taken

    def _frames(self, messages: list[MasterMessage]) -> list[bytes]:
        if not messages:
            return []
        frame = encode_frame(messages)
        if len(frame) <= self._frame_bytes_max or len(messages) == 1:
            return [frame]
        half = len(messages) // 2
        return self._frames(messages[:half]) + self._frames(messages[half:])


async def say_goodbye(socket: Socket, fault: LinkFault) -> None:
    """Close `socket` and say why; never longer than CLOSE_S_MAX, and whether or not anybody is there to hear."""
    try:
        await asyncio.wait_for(socket.close(fault.code, fault.reason), CLOSE_S_MAX)
    except (OSError, RuntimeError, TimeoutError) as error:
        LOG.debug("a worker was gone before it was told that %s: %s", fault.reason, error)


def decode(frame: bytes, bytes_max: int) -> list[WorkerMessage]:
    """Return the messages of one frame. Raises LinkFault for anything that is not one."""
    if len(frame) > bytes_max:
        most = f"{bytes_max} ({change('frame_bytes_max')})"
        raise LinkFault(CLOSE_BAD_FRAME, f"a frame of {len(frame)} bytes: send at most {most}")
    try:
        messages = decode_worker_frame(frame)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise LinkFault(CLOSE_BAD_FRAME, reworded(str(error), "frame")) from None
    for message in messages:
        if isinstance(message, Ended):
            _check_ended(message)
    return messages


def check_hello(hello: WorkerMessage | None) -> Hello:
    """Return the first message of a link. Raises LinkFault when it is no hello that can be taken."""
    if not isinstance(hello, Hello):
        raise LinkFault(CLOSE_BAD_FRAME, "the first message is no hello: say hello first")
    if hello.protocol != PROTOCOL:
        text = f"the worker speaks protocol {hello.protocol}, this Master {PROTOCOL}: install the same version"
        raise LinkFault(CLOSE_PROTOCOL, text)
    problem = job_id_problem(hello.name, "worker name")
    for tag in hello.capabilities:
        problem = problem or job_id_problem(tag, "capability")
    if problem:
        raise LinkFault(CLOSE_BAD_FRAME, problem)
    fences = [held.fence for held in hello.attempts]
    texts = {name: getattr(hello, name) for name in ("incarnation", "predecessor", "boot_id", "version", "host")}
    fits = {name: (len(text) <= TEXT_CHARS_MAX, _AT_MOST_TEXT) for name, text in texts.items()} | {
        "devices": (
            len(hello.devices) <= DEVICES_MAX and max(map(len, hello.devices), default=0) <= TEXT_CHARS_MAX,
            f"{DEVICES_MAX} of {TEXT_CHARS_MAX} characters at most",
        ),
        "capabilities": (len(hello.capabilities) <= CAPABILITIES_MAX, f"{CAPABILITIES_MAX} at most"),
        "slots": (0 <= hello.slots <= SLOTS_MAX, f"0 to {SLOTS_MAX}"),
        "pid": (0 <= hello.pid <= NUMBER_MAX, f"0 to {NUMBER_MAX}"),
        "epoch_seen": (0 <= hello.epoch_seen <= NUMBER_MAX, f"0 to {NUMBER_MAX}"),
        "attempts": (
            all(0 < fence <= FENCE_MAX for fence in fences) and len(set(fences)) == len(fences),
            f"each once, with a fence of 1 to {FENCE_MAX}",
        ),
    }
    _require("the hello", fits)
    return hello


def _check_ended(ended: Ended) -> None:
    fits = {
        "exit_code": (abs(ended.exit_code) < 2**31, "31 bits and a sign"),
        "signal": (0 <= ended.signal < 256, "0 to 255"),
        "log_bytes": (0 <= ended.log_bytes <= NUMBER_MAX, f"0 to {NUMBER_MAX}"),
        "cause": (ended.cause == "" or ended.cause in CAUSES, "a known one, or none"),
        "detail": (len(ended.detail) <= DETAIL_CHARS_MAX, f"{DETAIL_CHARS_MAX} characters at most"),
    }
    _require(f"the end of {ended.fence}", fits)


def _require(what: str, fits: dict[str, tuple[bool, str]]) -> None:
    for name, (does, allowed) in fits.items():
        if not does:
            raise LinkFault(CLOSE_BAD_FRAME, f"{what} has {name} out of range: give {allowed}")


def _this_task() -> "asyncio.Task[None]":
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a link is served by a task")
    return task
