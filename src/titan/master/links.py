"""All worker links of a Master: newest of a name wins.

Between a hello and the commit of what follows from it lies a gap: messages decided before it belong to the
link before, and a grant among them may be one that the hello has just given back. So a link is deaf to
everything until its own hello is durable, and the `Welcome` is the first it hears; except for renewals,
which need no commit, go ahead of everything, and could cost a job its lease when late.

While the Master loads its state anew, renewals are all that is answered; then every link is closed, and the
workers come back and say what they hold.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

import msgspec

from titan.core.commit import LogChunk
from titan.core.events import (
    AttemptEnded,
    AttemptReturned,
    AttemptStarted,
    Event,
    Send,
    WorkerConnected,
    WorkerDisconnected,
    WorkerDraining,
    WorkerRenewed,
)
from titan.master import tokens
from titan.master.buckets import Buckets
from titan.master.link import Link, LinkFault, Socket, check_hello, decode, say_goodbye
from titan.master.live import LiveEvents
from titan.master.offsets import Gap, Offsets
from titan.master.rates import burst
from titan.model.limits import Limits, change
from titan.model.wire import (
    CLOSE_BAD_FRAME,
    CLOSE_BUSY,
    CLOSE_DENIED,
    CLOSE_FAILED,
    CLOSE_REPLACED,
    CLOSE_STOPPING,
    Ack,
    Draining,
    Dropped,
    Ended,
    Grant,
    Hello,
    Output,
    Renew,
    RenewAck,
    Returned,
    Started,
    Welcome,
    WorkerMessage,
)
from titan.storage.connection import Connection
from titan.storage.logs import log_totals
from titan.storage.queries import epoch_led

HELLO_S_MAX = 10.0
LOGS_KNOWN_MIN = 1_000
REASON_CHARS_MAX = 256
OFFSET_MAX = 2**61
LOG = logging.getLogger("titan.master")
T = TypeVar("T")


class Core(Protocol):
    """What links need of the engine."""

    limits: Limits
    live: LiveEvents

    @property
    def open(self) -> bool:
        """Whether events are taken."""

    @property
    def epoch(self) -> int:
        """The epoch that this Master began."""

    @property
    def token_key(self) -> bytes:
        """The key that signs job tokens."""

    def holds(self, fence: int) -> bool:
        """Say whether the attempt lives."""

    def worker_of(self, fence: int) -> str:
        """Return whose attempt it is, "" for one that is over."""

    def report(self, event: Event, durable: Callable[[], None] | None = None) -> bool:
        """Have the core take a report; False when it has failed on it before."""

    def log(self, chunks: Sequence[LogChunk], durable: Callable[[], None]) -> None:
        """Keep log bytes."""

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on a reader thread."""


class WorkerLinks:
    """The links of one Master, by worker name."""

    def __init__(self, core: Core, clock: Callable[[], float] = time.monotonic) -> None:
        self._core = core
        limits, kind = core.limits, "link_messages_per_s_max"
        self._said = Buckets(burst(limits, kind), getattr(limits, kind), limits.workers_max, clock)
        self._links: dict[str, Link] = {}
        self._offsets = Offsets(core.limits.log_job_bytes_max)
        self._logs_known_max = LOGS_KNOWN_MIN
        self._muted = False

    async def serve(self, socket: Socket, only: str | None = None) -> None:
        """Serve one accepted connection until it ends; `only`: the one worker that its token speaks for."""
        try:
            link, more = await self._greet(socket, only)
        except LinkFault as fault:
            LOG.info("a worker link was refused: %s", fault.reason)
            await say_goodbye(socket, fault)
            return
        if link is None:
            return
        try:
            self._count(link.name, 1 + len(more))
            self._take(link, more)
            await self._listen(link)
        except LinkFault as fault:
            LOG.warning("the link of worker %s is closed: %s", link.name, fault.reason)
            link.fault = fault
        except asyncio.CancelledError:
            if link.fault is None:
                raise
        finally:
            self._part(link)
            await link.end()

    def deliver(self, send: Send) -> None:
        """Send a durable message to the process it is meant for; drop it when that is not connected."""
        link = self._links.get(send.worker)
        if link is None or not link.open or link.incarnation != send.incarnation:
            return
        message = send.message
        if isinstance(message, Grant):
            self._offsets.begin(send.worker, message.fence)
            key = self._core.token_key
            token = tokens.make(key, message.run_id, message.job_id, message.attempt, message.fence)
            message = msgspec.structs.replace(message, token=token)
        elif isinstance(message, Ack):
            for fence in message.ended:
                self._offsets.end(send.worker, fence)
        elif isinstance(message, Welcome):
            for fence in message.stop:
                self._offsets.end(send.worker, fence)
            held = {fence: self._offsets.durable(fence) for fence in link.held}
            message = msgspec.structs.replace(
                message, log_offsets={fence: durable for fence, durable in held.items() if durable is not None}
            )
        link.say(message)

    def mute(self) -> None:
        """Answer nothing but renewals from here on: whatever else is said meets no core, and is said again."""
        self._muted = True
        for link in self._links.values():
            link.kept(link.unkept_bytes)  # nobody will say it of these any more

    def reset(self) -> None:
        """Close all links, so that the workers come back and say what they hold."""
        self._muted = False
        self._offsets.end_all()
        self._close_all(LinkFault(CLOSE_STOPPING, "the Master has loaded its state anew: say hello again"))

    async def close_all(self, code: int, reason: str) -> None:
        """Close all links for good and wait until they are."""
        tasks = self._close_all(LinkFault(code, reason))
        if tasks:
            await asyncio.wait(tasks)

    def _close_all(self, fault: LinkFault) -> list["asyncio.Task[None]"]:
        links, self._links = list(self._links.values()), {}
        for link in links:
            link.close(fault)
        return [link.task for link in links]

    async def _greet(self, socket: Socket, only: str | None) -> tuple[Link | None, Sequence[WorkerMessage]]:
        """Take a worker in; return its link (None: it left before it said hello) and what else it said at once."""
        frame_bytes_max = self._core.limits.frame_bytes_max
        try:
            frame = await asyncio.wait_for(socket.receive(), HELLO_S_MAX)
        except TimeoutError:
            raise LinkFault(CLOSE_BAD_FRAME, f"no hello within {HELLO_S_MAX:.0f} s") from None
        if frame is None:
            return None, ()
        messages = decode(frame, frame_bytes_max)
        hello = check_hello(messages[0] if messages else None)
        if only is not None and hello.name != only:
            whose = f"is that of worker {only[:40]}"
            raise LinkFault(CLOSE_DENIED, f"its token {whose}: enrol this one by itself, titan worker join-token")
        if len(self._links) >= self._core.limits.workers_max and hello.name not in self._links:
            most = self._core.limits.workers_max
            raise LinkFault(CLOSE_BUSY, f"{most} workers are connected: {change('workers_max')}")
        if self._offsets.count() > self._logs_known_max and self._core.open:
            self._offsets.keep_only(self._core.holds)
            self._logs_known_max = max(LOGS_KNOWN_MIN, 2 * self._offsets.count())
        fences = tuple(held.fence for held in hello.attempts)
        if hello.epoch_seen > self._core.epoch and await self._core.read(epoch_led) != self._core.epoch:
            # A welcome may rest on memory alone, which nothing fences off: this one would end what another granted.
            raise LinkFault(CLOSE_STOPPING, "another Master leads and knows more of what you hold: ask that one")
        while unknown := self._offsets.unknown(fences):
            totals = await self._core.read(partial(_totals, unknown))
            if not self._core.open:
                break
            for fence, (total, kept) in totals.items():
                self._offsets.begin(self._core.worker_of(fence), fence, total, kept)
        if not self._core.open:
            raise LinkFault(CLOSE_STOPPING, "the Master is loading or stopping: come back")
        # From here on nothing is awaited: what is decided next is decided with this link in its place.
        link = Link(socket, hello.name, hello.incarnation, fences, frame_bytes_max)
        self._replace(link)
        if not self._core.report(_connected(hello), link.welcome):
            link.fault = LinkFault(CLOSE_FAILED, "the Master has failed on this hello before: restart the worker")
            self._part(link)
            await link.end()
            return None, ()
        return link, messages[1:]

    def _replace(self, link: Link) -> None:
        former = self._links.get(link.name)
        if former is not None:
            former.close(LinkFault(CLOSE_REPLACED, f"another process calls itself worker {link.name}"))
        self._links[link.name] = link

    def _part(self, link: Link) -> None:
        if self._links.get(link.name) is link:
            del self._links[link.name]
            self._core.report(WorkerDisconnected(link.name, link.incarnation))

    async def _listen(self, link: Link) -> None:
        while True:
            frame = await link.socket.receive()
            if frame is None:
                return
            messages = decode(frame, self._core.limits.frame_bytes_max)
            self._count(link.name, len(messages))
            self._take(link, messages)
            await link.room()

    def _count(self, name: str, messages: int) -> None:
        """Raise LinkFault for a worker that says more than one may; a new link of that name goes on being counted."""
        if self._said.take(name, messages):
            kind = "link_messages_per_s_max"
            text = f"over {getattr(self._core.limits, kind)} messages a second: {change(kind)}"
            raise LinkFault(CLOSE_BUSY, text)

    def _take(self, link: Link, messages: Sequence[WorkerMessage]) -> None:
        """Take what one frame says, in order. Log bytes that stand together are kept together."""
        chunks: list[LogChunk] = []
        try:
            for message in messages:
                if isinstance(message, (Output, Dropped)):
                    if not self._muted:
                        self._output(link, message, chunks)
                    continue
                if not self._muted:
                    self._keep(link, chunks)
                    chunks = []
                    if not self._report(link, message):
                        # A renewal that nobody heard of must not be answered, and for the rest the next hello is asked.
                        link.close_when_said(LinkFault(CLOSE_FAILED, "the Master has failed on this before"))
                        return
                if isinstance(message, Renew):
                    link.say(RenewAck(message.seq))
        finally:
            # What counts as received has to be kept, though the rest of the frame is no good.
            self._keep(link, chunks)

    def _report(self, link: Link, message: WorkerMessage) -> bool:
        """Tell the core; False when it has failed on that before and hears nothing of it."""
        name, incarnation, report = link.name, link.incarnation, self._core.report
        match message:
            case Ended():
                return report(AttemptEnded(name, incarnation, message, random.random()))  # noqa: S311
            case Started():
                return report(AttemptStarted(name, incarnation, message.fence, message.start[:REASON_CHARS_MAX]))
            case Draining():
                return report(WorkerDraining(name, incarnation))
            case Renew():
                return report(WorkerRenewed(name, incarnation))
            case Returned():
                return report(AttemptReturned(name, incarnation, message.fence, message.reason[:REASON_CHARS_MAX]))
            case _:
                raise LinkFault(CLOSE_BAD_FRAME, f"a second {type(message).__name__.lower()} came: say it once")

    def _output(self, link: Link, said: Output | Dropped, chunks: list[LogChunk]) -> None:
        length = _length(said, self._core.limits)
        try:
            new = self._offsets.receive(link.name, said)
        except Gap as gap:
            raise LinkFault(CLOSE_BAD_FRAME, str(gap)) from None
        if new:
            chunks += new
            return
        durable = self._offsets.durable(said.fence)
        # What nobody wants any more is acknowledged too, or the worker would keep it for ever.
        link.say(Ack(log_offsets={said.fence: said.offset + length if durable is None else durable}))

    def _keep(self, link: Link, chunks: list[LogChunk]) -> None:
        if chunks:
            link.unkept_bytes += sum(len(chunk.data) for chunk in chunks)
            self._core.log(chunks, partial(self._kept, link, chunks))

    def _kept(self, link: Link, chunks: list[LogChunk]) -> None:
        """Log bytes are durable: tell the worker, whichever link it has by now, and those who follow the log."""
        durable: dict[int, int] = {}
        size = 0
        for chunk in chunks:
            self._offsets.keep(chunk)
            known = self._offsets.durable(chunk.fence)
            durable[chunk.fence] = chunk.end if known is None else known
            size += len(chunk.data)
        link.kept(size)
        current = self._links.get(link.name)
        if current is not None and current.open:
            current.say(Ack(log_offsets=durable))
        for fence in durable:
            self._core.live.touch(("log", fence))


def _totals(fences: list[int], connection: Connection) -> dict[int, tuple[int, int]]:
    return log_totals(connection, fences)


def _length(said: Output | Dropped, limits: Limits) -> int:
    """Return how much of a log `said` is about. Raises LinkFault for more than can be."""
    if said.offset > OFFSET_MAX:
        raise LinkFault(CLOSE_BAD_FRAME, f"offset {said.offset} is no place in a log: give at most {OFFSET_MAX}")
    if isinstance(said, Dropped):
        if not 0 < said.length <= OFFSET_MAX:
            raise LinkFault(
                CLOSE_BAD_FRAME, f"{said.length} bytes dropped at {said.offset} are no part of a log: give what is"
            )
        return said.length
    size = len(said.data)
    if size > limits.output_bytes_max:
        most = f"{limits.output_bytes_max} ({change('output_bytes_max')})"
        raise LinkFault(CLOSE_BAD_FRAME, f"an output of {size} bytes: send at most {most}")
    return size


def _connected(hello: Hello) -> WorkerConnected:
    return WorkerConnected(
        name=hello.name,
        incarnation=hello.incarnation,
        boot_id=hello.boot_id,
        capabilities=hello.capabilities,
        slots=hello.slots,
        attempts=hello.attempts,
        host=hello.host,
        pid=hello.pid,
        version=hello.version,
        predecessor=hello.predecessor,
        devices=hello.devices,
        draining=hello.draining,
    )
