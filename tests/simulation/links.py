"""The Master's ends of its workers' links: what `titan.master.links` does around the scheduler, without a socket.

A link is deaf to all but renewals until its hello is durable; the newest process of a name wins; log bytes go by the
real `Offsets`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tests.simulation.ground import Ground
from tests.simulation.network import Link
from tests.simulation.ticket import Ticket
from tests.simulation.world import Node
from titan.core.commit import Entry, LogChunk, cost_of
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
from titan.core.scheduler import Scheduler
from titan.master.offsets import Gap, Offsets
from titan.model.limits import DEFAULT_LIMITS
from titan.model.wire import (
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


class MasterLink:
    """The Master's end of a worker's link: deaf to all but renewals until its hello is durable."""

    def __init__(self, link: Link, hello: Hello) -> None:
        self.link = link
        self.name, self.incarnation = hello.name, hello.incarnation
        self.held = tuple(each.fence for each in hello.attempts)
        self.open = False
        self.waiting: list[Any] = []


class WithLinks(Node):
    """The part of a Master that speaks with workers."""

    ground: Ground
    scheduler: Scheduler | None

    def forget_links(self) -> None:
        """Know no worker."""
        self.muted = False
        self.links: dict[str, MasterLink] = {}
        self.greeted: dict[Link, MasterLink] = {}
        self.offsets = Offsets(DEFAULT_LIMITS.log_job_bytes_max)

    def report(self, event: Event, durable: Callable[[], None] | None = None) -> bool:
        """Have the core take what a worker says, unless it has failed on that before."""
        raise NotImplementedError

    def add(self, entry: Entry) -> None:
        """Have an entry committed in its turn."""
        raise NotImplementedError

    def heard(self, link: Link, frame: list[WorkerMessage]) -> None:
        """A frame arrived."""
        known = self.greeted.get(link)
        if known is None:
            self.greet(link, frame)
        elif self.links.get(known.name) is known:
            self.take(known, frame)

    def hung_up(self, link: Link) -> None:
        """A link is closed."""
        known = self.greeted.pop(link, None)
        if known is not None and self.links.get(known.name) is known:
            del self.links[known.name]
            self.report(WorkerDisconnected(known.name, known.incarnation))

    def close_link(self, known: MasterLink, reason: str) -> None:
        """Close a link from this side."""
        known.open = False
        known.link.close_at_master(reason)
        self.hung_up(known.link)

    def greet(self, link: Link, frame: list[WorkerMessage]) -> None:
        """Take a worker in."""
        hello = frame[0]
        if not isinstance(hello, Hello) or self.scheduler is None:
            link.close_at_master("the Master is loading")
            return
        if hello.epoch_seen > self.machine.epoch != self.ground.store.leader()[0]:
            link.close_at_master("another Master leads")
            return
        fences = tuple(held.fence for held in hello.attempts)
        for fence, (total, kept) in self.ground.store.log_totals(self.offsets.unknown(fences)).items():
            self.offsets.begin(hello.name, fence, total, kept)
        known = MasterLink(link, hello)
        former = self.links.get(hello.name)
        if former is not None:
            former.open = False
            self.greeted.pop(former.link, None)
            former.link.close_at_master("replaced" if former.incarnation != hello.incarnation else "again")
        self.links[hello.name] = self.greeted[link] = known
        if not self.report(connected(hello), lambda: self.welcome(known)):
            self.close_link(known, "the core failed on this hello")
            return
        self.take(known, frame[1:])

    def welcome(self, known: MasterLink) -> None:
        """Its hello is durable."""
        known.open = True

    def reset_links(self) -> None:
        """Close all links, so that the workers say anew what they hold."""
        self.muted = False
        self.offsets.end_all()
        links, self.links = self.links, {}
        for known in links.values():
            self.greeted.pop(known.link, None)
            known.open = False
            known.link.close_at_master("loaded anew")

    def take(self, known: MasterLink, frame: Sequence[WorkerMessage]) -> None:
        """Take what one frame says, in order."""
        chunks: list[LogChunk] = []
        for message in frame:
            if isinstance(message, (Output, Dropped)):
                if not self.muted and not self.output(known, message, chunks):
                    break
            elif isinstance(message, Renew):
                if chunks:
                    self.keep(known, chunks)
                    chunks = []
                if not self.take_renewal(known, message):
                    return
            elif isinstance(message, Hello):
                self.close_link(known, "a second hello")
                return
            elif not self.muted:
                if chunks:
                    self.keep(known, chunks)
                    chunks = []
                if not self.take_report(known, message):
                    self.after_quietly(1, self.close_link, known, "the core has failed on this before")
                    return
        if chunks:
            self.keep(known, chunks)

    def take_renewal(self, known: MasterLink, message: Renew) -> bool:
        """Tell the core of a renewal and answer it; False when it has failed on that before."""
        if not self.muted:
            heard = self.scheduler is not None
            if not self.report(WorkerRenewed(known.name, known.incarnation)):
                self.close_link(known, "the core has failed on this before")
                return False
            self.ground.oracle.renewed(self, known.name, known.incarnation, heard)
        known.link.to_worker([RenewAck(message.seq)], 0)
        return True

    def take_report(self, known: MasterLink, message: WorkerMessage) -> bool:
        """Tell the core what a worker reports; False when it has failed on that before."""
        name, incarnation = known.name, known.incarnation
        match message:
            case Ended():
                return self.report(AttemptEnded(name, incarnation, message, self.world.chance()))
            case Started():
                return self.report(AttemptStarted(name, incarnation, message.fence))
            case Returned():
                return self.report(AttemptReturned(name, incarnation, message.fence, message.reason))
            case Draining():
                return self.report(WorkerDraining(name, incarnation))
        return True

    def output(self, known: MasterLink, said: Output | Dropped, chunks: list[LogChunk]) -> bool:
        """Take log bytes; False when they do not follow what came before."""
        try:
            new = self.offsets.receive(known.name, said)
        except Gap as gap:
            self.close_link(known, str(gap))
            return False
        if new:
            chunks += new
            return True
        durable = self.offsets.durable(said.fence)
        length = said.length if isinstance(said, Dropped) else len(said.data)
        self.say_to(known, Ack(log_offsets={said.fence: said.offset + length if durable is None else durable}))
        return True

    def keep(self, known: MasterLink, chunks: list[LogChunk]) -> None:
        """Have log bytes committed."""
        if self.scheduler is not None:
            self.add(Entry((), (), chunks, Ticket(durable=lambda: self.kept(known, chunks)), cost_of((), (), chunks)))

    def kept(self, known: MasterLink, chunks: list[LogChunk]) -> None:
        """Log bytes are durable: tell the worker, whichever link it has by now."""
        durable: dict[int, int] = {}
        for chunk in chunks:
            self.offsets.keep(chunk)
            end = self.offsets.durable(chunk.fence)
            durable[chunk.fence] = chunk.end if end is None else end
        current = self.links.get(known.name)
        if current is not None and current.open:
            self.say_to(current, Ack(log_offsets=durable))

    def deliver(self, send: Send) -> None:
        """Send what is durable to the process it is meant for, if that is connected."""
        self.ground.oracle.sends(self, send)
        known = self.links.get(send.worker)
        if known is None or not known.open or known.incarnation != send.incarnation:
            return
        message = send.message
        if isinstance(message, Grant):
            self.offsets.begin(send.worker, message.fence)
        elif isinstance(message, Ack):
            for fence in message.ended:
                self.offsets.end(send.worker, fence)
        elif isinstance(message, Welcome):
            for fence in message.stop:
                self.offsets.end(send.worker, fence)
            held = {fence: self.offsets.durable(fence) for fence in known.held}
            message = msgspec.structs.replace(
                message, log_offsets={fence: durable for fence, durable in held.items() if durable is not None}
            )
        self.say_to(known, message)

    def say_to(self, known: MasterLink, message: Any) -> None:
        """Send a message with the next frame."""
        known.waiting.append(message)
        if len(known.waiting) == 1:
            self.after_quietly(0, self.flush, known)

    def flush(self, known: MasterLink) -> None:
        """Send what waits as one frame: what may be forgotten first, as the real link does."""
        waiting, known.waiting = known.waiting, []
        if len(waiting) == 1:
            known.link.to_worker(waiting)
            return
        acks = [message for message in waiting if isinstance(message, Ack)]
        ended: list[int] = []
        offsets: dict[int, int] = {}
        for ack in acks:
            ended.extend(ack.ended)
            offsets.update(ack.log_offsets)
        frame: list[Any] = [Ack(tuple(ended), offsets)] if acks else []
        frame += [message for message in waiting if not isinstance(message, Ack)]
        known.link.to_worker(frame)


def connected(hello: Hello) -> WorkerConnected:
    """Return the event of a hello."""
    return WorkerConnected(
        name=hello.name, incarnation=hello.incarnation, boot_id=hello.boot_id, capabilities=hello.capabilities,
        slots=hello.slots, attempts=hello.attempts, host=hello.host, pid=hello.pid, version=hello.version,
        predecessor=hello.predecessor, devices=hello.devices, draining=hello.draining,
    )  # fmt: skip
