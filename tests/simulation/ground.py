"""What everybody in a simulation shares: world, network, database, judge, and who is there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tests.simulation.network import Network
from tests.simulation.store import DictStore
from tests.simulation.world import World
from titan.core.commit import Batch

if TYPE_CHECKING:
    from tests.simulation.master import Master
    from tests.simulation.oracle import Oracle
    from tests.simulation.worker import Host


class Ground:
    """One simulated cluster. `rates` are the chances of faults that strike where they are asked for, by name.

    `store` is the database the Masters use, `mirror` the same rows as dicts, for the judge and for whoever chooses a
    run or a job: the store itself where that is made of dicts.
    """

    def __init__(self, world: World, store: Any = None) -> None:
        self.world = world
        self.mirror = DictStore()
        self.store = store or self.mirror
        self.network = Network(world)
        self.rates: dict[str, float] = {}
        self.masters: list[Master] = []
        self.hosts: list[Host] = []
        self.programs: list[Any] = []
        self.oracle: Oracle
        self.healing = False
        self.runs = 0

    def strikes(self, kind: str) -> bool:
        """Say whether the fault `kind` strikes now."""
        rate = self.rates.get(kind)
        if rate is None or self.world.chance() >= rate:
            return False
        self.world.hits[kind] += 1
        return True

    def first_strike(self, kinds: Sequence[str]) -> str:
        """Return the first of the faults that strikes now; "" when none does."""
        for kind in kinds if self.rates else ():
            if kind in self.rates and self.strikes(kind):
                return kind
        return ""

    def commit(self, batch: Batch) -> list[Any]:
        """Have the database take a batch, and the mirror after it."""
        results: list[Any] = self.store.commit(batch)
        if self.store is not self.mirror:
            self.mirror.apply(batch)
        return results

    def draw_run_id(self) -> str:
        """Draw a run's id; its first six digits count, so that a person can tell one run from another."""
        self.runs += 1
        return f"{self.runs:06d}{self.world.random.getrandbits(104):026x}"

    def draw_id(self) -> str:
        """Draw an incarnation or a boot id."""
        return f"{self.world.random.getrandbits(128):032x}"
