"""Judges room: slots, slots that are lent, devices and tags.

Kept twice, because both sides decide. At a worker: what runs or is made ready there, and the `Lend`s that reached it;
nothing more is begun while those that have not lent their slot fill the slots. At a Master, in the order of its
decisions: what it has granted to a process and lent there; a grant is for a free slot, or for one sent ahead of it.
"""

from typing import TYPE_CHECKING, Any

from tests.simulation.world import Broken
from titan.core.events import Send
from titan.model.spec import GPU, decode_spec
from titan.model.wire import Grant, Lend

if TYPE_CHECKING:
    from tests.simulation.ground import Ground
    from tests.simulation.master import Master
    from tests.simulation.programs import Process
    from tests.simulation.worker import Host, Worker

Holder = tuple[str, str]
NONE: frozenset[int] = frozenset()


class Slots:
    """`lent_at`: the attempts that have lent their slot, as far as each worker heard."""

    def __init__(self, ground: "Ground") -> None:
        self.ground = ground
        self.lent_at: dict[str, set[int]] = {}
        self.ledgers: dict[str, Ledger] = {}
        self.named: dict[str, Host] = {}

    # At a worker

    def welcomed(self, worker: "Worker") -> None:
        """It is let in, and will be told anew what is lent."""
        self.lent_at[worker.name] = set()

    def lent(self, worker: "Worker", message: Lend) -> None:
        """It hears whose slot is lent, or is so no more."""
        lent = self.lent_at.setdefault(worker.name, set())
        if message.on and message.fence in worker.host.processes:
            lent.add(message.fence)
        else:
            lent.discard(message.fence)

    def prepares(self, worker: "Worker", grant: Grant) -> None:
        """It makes one more ready."""
        host = worker.host
        lent = self.lent_at.get(worker.name)
        taken = len(host.processes)
        if lent:
            taken = len([fence for fence in host.processes if fence not in lent])
        if taken + len(worker.preparing) >= host.slots:
            text = f"{worker.name} prepares {grant.fence}, but {taken} run without having lent their slot"
            raise Broken("slots", f"{text}, {len(worker.preparing)} will, and it has {host.slots}")

    def process_started(self, host: "Host", process: "Process") -> None:
        """A process begins."""
        tags = process.spec.requirement
        for tag in tags:
            if tag not in host.capabilities:
                raise Broken("tags", f"attempt {process.fence} needs {tags}, {host.name} offers {host.capabilities}")
        if host.devices and GPU in tags:
            users = sum(GPU in other.spec.requirement for other in host.processes.values())
            if users > len(host.devices):
                raise Broken("devices", f"{users} jobs on {len(host.devices)} devices of {host.name}")

    def process_ended(self, host: "Host", process: "Process") -> None:
        """It is gone."""
        lent = self.lent_at.get(host.worker_name)
        if lent:
            lent.discard(process.fence)

    # At a Master

    def loaded(self, master: "Master") -> None:
        """It leads, and knows what the database shows to live."""
        ledger = self.ledgers[master.name] = Ledger()
        for fence, row in self.ground.mirror.living.items():
            ledger.hold(fence, (row["worker"], row["incarnation"]))

    def sends(self, ledger: "Ledger", sends: list[Send], leads: bool) -> None:
        """It has decided on messages to workers; `leads` False: it was deposed, and can grant nothing."""
        granted: dict[str, Grant] = {}
        for send in sends:
            message: Any = send.message
            kind = type(message)
            if kind is Grant:
                granted[send.worker] = message
            elif kind is Lend:
                lent = ledger.lent.setdefault(send.worker, set())
                (lent.add if message.on else lent.discard)(message.fence)
        if leads:
            for name, grant in granted.items():
                self._judge(ledger, name, grant)

    def _judge(self, ledger: "Ledger", name: str, grant: Grant) -> None:
        if not self.named:
            self.named = {host.worker_name: host for host in self.ground.hosts}
        host = self.named[name]
        held = ledger.held.get((name, ledger.current[name]), NONE)
        lent = ledger.lent.get(name, NONE)
        needing = len(held - lent) if lent else len(held)
        has_gpu = host.devices or GPU in host.capabilities
        if needing > (host.slots if lent or has_gpu else 2 * host.slots):
            raise Broken("slots", f"{grant.fence} is granted to {name}: {needing} need a slot of {host.slots}")
        if host.devices and GPU in decode_spec(grant.spec).requirement:
            ledger.on_device.add(grant.fence)
            if len(held & ledger.on_device) > len(host.devices):
                raise Broken("devices", f"{grant.fence} is granted to {name} beyond its {len(host.devices)} devices")


class Ledger:
    """What one Master has granted and lent, by the process that holds it. `current`: the process of each worker."""

    def __init__(self) -> None:
        self.current: dict[str, str] = {}
        self.held: dict[Holder, set[int]] = {}
        self.lent: dict[str, set[int]] = {}
        self.holder: dict[int, Holder] = {}
        self.on_device: set[int] = set()

    def hold(self, fence: int, holder: Holder) -> None:
        """An attempt is granted."""
        self.holder[fence] = holder
        self.held.setdefault(holder, set()).add(fence)

    def drop(self, fence: int) -> None:
        """It lives no more. A Master that was replaced while it loaded knows of some that have ended since."""
        holder = self.holder.pop(fence, None)
        if holder is None:
            return
        self.held[holder].discard(fence)
        self.lent.get(holder[0], set()).discard(fence)

    def adopt(self, fence: int, incarnation: str) -> None:
        """The next process of its worker answers for it."""
        if fence in self.holder:
            name = self.holder[fence][0]
            self.drop(fence)
            self.hold(fence, (name, incarnation))
