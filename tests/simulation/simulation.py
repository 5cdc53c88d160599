"""One seed from start to end: chaos, then healing, then the verdict."""

import gc
from collections.abc import Callable
from typing import Any

import msgspec

from tests.simulation.faults import CHAOS_MS, KINDS
from tests.simulation.ground import Ground
from tests.simulation.master import Master
from tests.simulation.oracle import Oracle
from tests.simulation.sql_store import SqlStore
from tests.simulation.worker import Host
from tests.simulation.workload import Workload
from tests.simulation.world import Broken, World
from titan.model.spec import GENERAL, GPU

HEAL_MS_MAX = 1_200_000
LOOK_MS = 1_000
WATCH_MS = 2_000


class Outcome(msgspec.Struct):
    """What came of a seed. `broken` "": every promise was kept."""

    seed: int
    events: int
    commits: int
    simulated_ms: int
    hits: dict[str, int]
    broken: str = ""


class Simulation:
    """A cluster made from a seed."""

    def __init__(self, seed: int, store: Any = None, tell: Callable[[int, str, str], None] | None = None) -> None:
        world = self.world = World(seed, tell)
        ground = self.ground = Ground(world, store)
        ground.oracle = Oracle(ground)
        ground.masters = [Master(ground, "master-a"), Master(ground, "master-b")]
        for number in range(1, world.pick((1, 2, 2, 3, 3, 4, 6, 8)) + 1):
            tags = (GENERAL,) if number == 1 else world.pick(((GENERAL,), (GENERAL,), (GENERAL, "BIG"), (GENERAL, GPU)))
            devices = world.between(0, 2) if GPU in tags else 0
            ground.hosts.append(Host(ground, f"worker-{number}", world.pick((1, 1, 2, 4)), tags, devices))
        self.workload = Workload(ground)
        self.faults = sorted(kind for kind in KINDS if world.chance() < 0.5)

    def run(self) -> Outcome:
        """Let it happen."""
        world, ground = self.world, self.ground
        broken = ""
        try:
            self.begin()
            world.run(CHAOS_MS)
            self.heal()
            while world.now < CHAOS_MS + HEAL_MS_MAX:
                world.run(world.now + LOOK_MS)
                left = self.left()
                if not left:
                    break
            else:
                raise Broken("i13", f"after {HEAL_MS_MAX // 1000} s without faults: {left}")
            ground.oracle.finish()
        except Broken as error:
            broken = str(error)
        except Exception as error:
            if tell_errors(world):
                raise
            broken = f"raised: {type(error).__name__}: {error}"
        return Outcome(world.seed, world.events, ground.oracle.commits, world.now, dict(world.hits), broken)

    def begin(self) -> None:
        """Start everything, and plan the chaos."""
        world, ground = self.world, self.ground
        if world.tell is not None:
            world.tell(0, "seed", f"{world.seed}: {len(ground.hosts)} workers; faults: {', '.join(self.faults)}")
        ground.masters[0].start()
        for host in ground.hosts:
            world.plan(world.between(0, 2_000), host.start_worker)
        self.watch()
        self.workload.begin()
        for kind in self.faults:
            KINDS[kind].begin(ground, kind)

    def watch(self) -> None:
        """Somebody who starts again what has ended, sooner or later."""
        world, ground = self.world, self.ground
        for master in ground.masters:
            if master.up:
                break
        else:
            if ground.healing or world.chance() < 0.3:
                world.pick(ground.masters).start()
        for host in ground.hosts:
            if not host.worker.up and not host.paused and (ground.healing or world.chance() < 0.3):
                host.start_worker()
            if ground.healing and host.worker.link.draining:
                # It was asked to drain after whoever asked had already started it anew.
                host.worker.stop()
        world.plan_quietly(WATCH_MS, self.watch)

    def heal(self) -> None:
        """Every fault ends; what stood still goes on, what was cut is mended, what is down comes up."""
        world, ground = self.world, self.ground
        if world.tell is not None:
            world.tell(world.now, "seed", "all faults end")
        ground.healing = True
        ground.rates.clear()
        ground.network.heal()
        for master in ground.masters:
            if master.poisoned:
                # What it failed on once it does not take again: somebody restarts it.
                master.crash()
        for node in (*ground.masters, *ground.hosts, *[host.worker for host in ground.hosts]):
            node.resume()

    def left(self) -> str:
        """Return what is not done yet."""
        if self.workload.open:
            return f"{self.workload.open} requests are open"
        return self.ground.oracle.everything_done()


def tell_errors(world: World) -> bool:
    """Say whether somebody listens, who wants the traceback."""
    return world.tell is not None


def run_seed(seed: int, level: int = 0) -> Outcome:
    """Run one seed on dicts (level 0) or on the real storage (level 1), and return what came of it."""
    # All that a seed makes dies with it: one look at what is young frees it, and costs less than many on the way.
    gc.disable()
    try:
        return _run_seed(seed, level)
    finally:
        gc.enable()
        gc.collect(0)


def _run_seed(seed: int, level: int) -> Outcome:
    if level == 0:
        return Simulation(seed).run()
    store = SqlStore()
    try:
        return Simulation(seed, store).run()
    finally:
        store.close()
