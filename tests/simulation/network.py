"""What lies between the nodes: frames of worker links in order, requests of clients in none.

A link is like a TCP connection: what arrives, arrives in the order it was sent. Faults make it worse than that:
a frame may be lost, come twice, or overtake another, which no TCP connection does. Such a link is bad until it is
closed, and no promise may break on it; that everything gets done is only promised once links are good again.

A cut stands for a direction between two nodes. What was sent into it is held and comes late, or is gone and takes the
connection with it. Requests have no order: each may be lost, or come twice, and the client asks again.
"""

from collections.abc import Callable
from typing import Any, Protocol

from tests.simulation.world import Node, World
from titan.model.wire import MasterMessage, WorkerMessage

LATE_MS_MAX = 30_000


class MasterEnd(Protocol):
    """What a link needs of the Master's end."""

    def heard(self, link: "Link", frame: list[WorkerMessage]) -> None:
        """A frame arrived."""

    def hung_up(self, link: "Link") -> None:
        """The link is closed."""


class WorkerEnd(Protocol):
    """What a link needs of the worker's end."""

    def heard(self, link: "Link", frame: list[MasterMessage]) -> None:
        """A frame arrived."""

    def hung_up(self, link: "Link", reason: str) -> None:
        """The link is closed."""


class Way:
    """One direction of one link: from which node to which, who takes a frame there, when the last one arrives."""

    __slots__ = ("arrive", "dead", "last_ms", "names", "target")

    def __init__(self, source: Node, target: Node, arrive: Callable[[Any], None]) -> None:
        self.names = (source.name, target.name)
        self.target = target
        self.arrive = arrive
        self.last_ms = 0
        self.dead = False


class Link:
    """One connection of a worker process to a Master. Each end is told once that it is over."""

    def __init__(self, network: "Network", worker: Node, master: Node, ends: tuple[WorkerEnd, MasterEnd]) -> None:
        self.network = network
        self.worker, self.master = worker, master
        self.worker_end, self.master_end = ends
        self.up = Way(worker, master, self._at_master)
        self.down = Way(master, worker, self._at_worker)
        self.open_at_worker = self.open_at_master = True
        self.bad = False

    def to_master(self, frame: list[WorkerMessage], count: int = 1) -> None:
        """Send a frame up; `count` 0: its arrival is no event worth counting."""
        if self.open_at_worker:
            self.network.carry(self, self.up, frame, count)

    def to_worker(self, frame: list[MasterMessage], count: int = 1) -> None:
        """Send a frame down."""
        if self.open_at_master:
            self.network.carry(self, self.down, frame, count)

    def close_at_worker(self) -> None:
        """The worker hangs up; the Master hears of it if anything gets through."""
        if self.open_at_worker:
            self.open_at_worker = False
            self.network.carry(self, self.up, None)

    def close_at_master(self, reason: str) -> None:
        """The Master hangs up."""
        if self.open_at_master:
            self.open_at_master = False
            self.network.carry(self, self.down, reason)

    def reset(self) -> None:
        """Both ends learn that the connection is gone."""
        for way in (self.up, self.down):
            way.dead = True
        if self.open_at_worker:
            self.open_at_worker = False
            self.network.world.plan_for(self.worker, 0, 1, self.worker_end.hung_up, (self, "reset"))
        if self.open_at_master:
            self.open_at_master = False
            self.network.world.plan_for(self.master, 0, 1, self.master_end.hung_up, (self,))

    def _at_master(self, frame: list[WorkerMessage] | None) -> None:
        if not self.open_at_master:
            return
        if frame is None:
            self.open_at_master = False
            self.master_end.hung_up(self)
        else:
            self.master_end.heard(self, frame)

    def _at_worker(self, frame: list[MasterMessage] | str) -> None:
        if not self.open_at_worker:
            return
        if isinstance(frame, str):
            self.open_at_worker = False
            self.worker_end.hung_up(self, frame)
        else:
            self.worker_end.heard(self, frame)


class Network:
    """All that is on its way. The rates are chances a frame or request; 0: the fault is off.

    `bad_at` says when a link of a worker last lost a frame, or mixed some up.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.delay_ms = world.between(1, 8)
        self.slow_rate = self.loss_rate = self.twice_rate = self.overtake_rate = 0.0
        self.request_loss_rate = self.request_twice_rate = 0.0
        self.cuts: dict[tuple[str, str], bool] = {}
        self.links: list[Link] = []
        self.bad_at: dict[str, int] = {}
        self._held: dict[tuple[str, str], list[tuple[Link, Way, Any, int]]] = {}

    def connect(self, worker: Node, master: Node, ends: tuple[WorkerEnd, MasterEnd]) -> Link:
        """Return a new link; nothing was said on it yet."""
        self.links = [link for link in self.links if link.open_at_worker or link.open_at_master]
        link = Link(self, worker, master, ends)
        self.links.append(link)
        return link

    def carry(self, link: Link, way: Way, frame: Any, count: int = 1) -> None:
        """Take a frame along `way`, or lose it."""
        if way.dead:
            return
        if self.cuts and way.names in self.cuts:
            self._into_cut(link, way, frame, count)
            return
        world = self.world
        delay_ms = 1 + int(world.chance() * self.delay_ms)
        if self.slow_rate and world.chance() < self.slow_rate:
            world.hits["net_slow"] += 1
            delay_ms += world.between(50, 3_000)
        if self.loss_rate and world.chance() < self.loss_rate:
            world.hits["net_loss"] += 1
            self.spoil(link)
            return
        due_ms = world.now + delay_ms
        if self.overtake_rate and world.chance() < self.overtake_rate and due_ms < way.last_ms:
            world.hits["net_reorder"] += 1
            self.spoil(link)
        elif due_ms < way.last_ms:
            delay_ms = way.last_ms - world.now
        else:
            way.last_ms = due_ms
        world.plan_for(way.target, delay_ms, count, way.arrive, (frame,))
        if self.twice_rate and frame is not None and world.chance() < self.twice_rate:
            world.hits["net_twice"] += 1
            self.spoil(link)
            world.plan_for(way.target, delay_ms + world.between(0, 500), count, way.arrive, (frame,))

    def spoil(self, link: Link) -> None:
        """It did what no connection does."""
        link.bad = True
        self.bad_at[link.worker.name] = self.world.now

    def _into_cut(self, link: Link, way: Way, frame: Any, count: int) -> None:
        if self.cuts[way.names]:
            self._held.setdefault(way.names, []).append((link, way, frame, count))
        else:
            way.dead = True

    def cut(self, source: str, target: str, held: bool) -> None:
        """Let nothing through from `source` to `target`; `held`: it comes when the cut is over, else it never does."""
        self.cuts[source, target] = held

    def mend(self, source: str, target: str) -> None:
        """The cut is over."""
        cut = (source, target)
        if self.cuts.pop(cut, None) is None:
            return
        for link, way, frame, count in self._held.pop(cut, ()):
            self.carry(link, way, frame, count)

    def request(self, source: str, target: Node, count: int, call: Callable[..., None], *args: Any) -> None:
        """Have `call(*args)` happen at `target`, later, perhaps never, perhaps twice."""
        world = self.world
        if (source, target.name) in self.cuts:
            return
        if self.request_loss_rate and world.chance() < self.request_loss_rate:
            world.hits["request_loss"] += 1
            return
        delay_ms = 1 + int(world.chance() * self.delay_ms)
        if self.slow_rate and world.chance() < self.slow_rate:
            delay_ms += world.between(50, 3_000)
        world.plan_for(target, delay_ms, count, call, args)
        if self.request_twice_rate and world.chance() < self.request_twice_rate:
            world.hits["request_twice"] += 1
            world.plan_for(target, delay_ms + world.between(0, 3_000), count, call, args)

    def heal(self) -> None:
        """All is well from here on: no fault, no cut, and links that lost or mixed up anything are made anew."""
        self.slow_rate = self.loss_rate = self.twice_rate = self.overtake_rate = 0.0
        self.request_loss_rate = self.request_twice_rate = 0.0
        for source, target in list(self.cuts):
            self.mend(source, target)
        for link in self.links:
            if link.bad or link.up.dead or link.down.dead:
                link.reset()
