"""What goes wrong, a class a kind and a row a kind. A seed switches a random half of them on.

To add one: write a class with `begin` (called once, when the chaos begins) and give it a row in KINDS; what it does
is over at `ground.world.now + CHAOS_MS`, when `heal` is called. A kind that only strikes where something asks for it
(`ground.strikes`) needs no class of its own: a row with `Rate` will do.
"""

from collections.abc import Callable

from tests.simulation.ground import Ground

CHAOS_MS = 90_000


class Rate:
    """It strikes with this chance wherever it is asked for."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def begin(self, ground: Ground, kind: str) -> None:
        """Draw how often."""
        ground.rates[kind] = self.low + ground.world.chance() * (self.high - self.low)


class NetRate(Rate):
    """A rate of the network's own, which counts under the name of the kind."""

    def __init__(self, rate: str, low: float, high: float) -> None:
        super().__init__(low, high)
        self.rate = rate

    def begin(self, ground: Ground, kind: str) -> None:
        """Draw how often."""
        setattr(ground.network, self.rate, self.low + ground.world.chance() * (self.high - self.low))


class Times:
    """It befalls something `low` to `high` times, at random moments. Subclasses say what in `strike`."""

    def __init__(self, low: int, high: int, strike: Callable[[Ground], bool]) -> None:
        self.low, self.high, self.strike = low, high, strike

    def begin(self, ground: Ground, kind: str) -> None:
        """Draw when."""
        for _ in range(ground.world.between(self.low, self.high)):
            ground.world.plan(ground.world.between(1_000, CHAOS_MS), self.happen, ground, kind)

    def happen(self, ground: Ground, kind: str) -> None:
        """The moment has come."""
        if not ground.healing and self.strike(ground):
            ground.world.hits[kind] += 1


def kill_master(ground: Ground) -> bool:
    up = [master for master in ground.masters if master.up]
    for master in up[:1]:
        master.crash()
    return bool(up)


def stop_master(ground: Ground) -> bool:
    up = [master for master in ground.masters if master.up and master.scheduler is not None]
    for master in up[:1]:
        master.stop()
    return bool(up)


def pause_master(ground: Ground) -> bool:
    up = [master for master in ground.masters if master.up and not master.paused]
    for master in up[:1]:
        master.say("is stopped by a signal")
        master.pause()
        ground.world.plan(ground.world.between(500, 25_000), master.resume)
    return bool(up)


def fail_over(ground: Ground) -> bool:
    down = [master for master in ground.masters if not master.up]
    for master in down[:1]:
        master.start()
    return bool(down)


def replace_leader(ground: Ground) -> bool:
    """It is stopped, the other one takes over, and it goes on as if nothing had been."""
    leading = [master for master in ground.masters if master.up and not master.paused and master.scheduler is not None]
    down = [master for master in ground.masters if not master.up]
    if not leading or not down:
        return False
    leading[0].say("is stopped by a signal, and somebody starts the other one")
    leading[0].pause()
    ground.world.plan(ground.world.between(1_000, 12_000), leading[0].resume)
    down[0].start()
    return True


def jump_master_clock(ground: Ground) -> bool:
    world = ground.world
    for master in ground.masters:
        master.wall_offset_ms += world.pick((-3_600_000, -5_000, 4_000, 60_000, 86_400_000))
        master.say("has its wall clock set")
    return True


def kill_worker(ground: Ground) -> bool:
    host = ground.world.pick(ground.hosts)
    if not host.worker.up:
        return False
    host.crash_worker()
    return True


def kill_launcher(ground: Ground) -> bool:
    host = ground.world.pick(ground.hosts)
    if not host.worker.up or host.paused:
        return False
    host.crash_launcher()
    return True


def kill_both(ground: Ground) -> bool:
    host = ground.world.pick(ground.hosts)
    if not host.worker.up:
        return False
    host.worker.crash()
    host.kill_all("both gone")
    return True


def lose_spool(ground: Ground) -> bool:
    host = ground.world.pick(ground.hosts)
    if not host.worker.up:
        return False
    host.worker.crash()
    host.kill_all("both gone")
    host.lose_disk()
    return True


def kill_machine(ground: Ground) -> bool:
    host = ground.world.pick(ground.hosts)
    host.crash(keep_disk=ground.world.chance() < 0.5)
    return True


def stop_worker(ground: Ground) -> bool:
    host = ground.world.pick(ground.hosts)
    if not host.worker.up or host.worker.stopping or host.worker.paused:
        return False
    host.worker.stop()
    return True


def pause_worker(ground: Ground) -> bool:
    host = ground.world.pick(ground.hosts)
    if not host.worker.up or host.worker.paused:
        return False
    host.worker.say("is stopped by a signal")
    host.worker.pause()
    ground.world.plan(ground.world.between(500, 70_000), host.worker.resume)
    return True


def pause_machine(ground: Ground) -> bool:
    host = ground.world.pick(ground.hosts)
    if host.paused:
        return False
    host.say("stands still")
    host.pause()
    ground.world.plan(ground.world.between(500, 70_000), host.resume)
    return True


def cut_up(ground: Ground) -> bool:
    return _cut(ground, True, False)


def cut_down(ground: Ground) -> bool:
    return _cut(ground, False, True)


def cut_both(ground: Ground) -> bool:
    return _cut(ground, True, True)


def reset_link(ground: Ground) -> bool:
    links = [link for link in ground.network.links if link.open_at_worker]
    if links:
        ground.world.pick(links).reset()
    return bool(links)


def drift(ground: Ground) -> bool:
    node = ground.world.pick([*ground.masters, *ground.hosts])
    rate = 0.96 + ground.world.chance() * 0.08
    # The clock goes on from where it is.
    elapsed = int(ground.world.now * node.rate)
    node.rate = rate
    shift = elapsed - int(ground.world.now * rate)
    node.mono_offset_ms += shift
    node.wall_offset_ms += shift
    return True


def _cut(ground: Ground, up: bool, down: bool) -> bool:
    world, network = ground.world, ground.network
    worker = world.pick(ground.hosts).worker.name
    held = world.chance() < 0.6
    for master in ground.masters:
        ways = [(worker, master.name)] * up + [(master.name, worker)] * down
        for source, target in ways:
            network.cut(source, target, held)
    lasts_ms = world.pick((2_000, 8_000, 14_000, 25_000, 60_000))
    if world.tell is not None:
        world.tell(world.now, "network", f"is cut for {worker}: up {up}, down {down}, {lasts_ms} ms")

    def mend() -> None:
        for master in ground.masters:
            network.mend(worker, master.name)
            network.mend(master.name, worker)

    world.plan(lasts_ms, mend)
    return True


KINDS: dict[str, Rate | Times] = {
    "master_killed": Times(1, 3, kill_master),
    "master_stopped": Times(1, 1, stop_master),
    "master_paused": Times(1, 2, pause_master),
    "failed_over": Times(1, 2, fail_over),
    "leader_replaced": Times(1, 2, replace_leader),
    "clock_jumped": Times(1, 3, jump_master_clock),
    "clock_drifted": Times(1, 4, drift),
    "crash_before_commit": Rate(0.002, 0.02),
    "crash_after_commit": Rate(0.002, 0.02),
    "crash_before_answer": Rate(0.002, 0.01),
    "core_raises": Rate(0.0005, 0.004),
    "disk_slow": Rate(0.01, 0.05),
    "disk_fails": Rate(0.002, 0.03),
    "disk_full": Rate(0.002, 0.03),
    "commit_unknown_done": Rate(0.002, 0.03),
    "commit_unknown_lost": Rate(0.002, 0.03),
    "leader_unread": Rate(0.1, 0.6),
    "load_fails": Rate(0.1, 0.6),
    "net_slow": NetRate("slow_rate", 0.005, 0.05),
    "net_loss": NetRate("loss_rate", 0.001, 0.01),
    "net_twice": NetRate("twice_rate", 0.002, 0.05),
    "net_reorder": NetRate("overtake_rate", 0.005, 0.1),
    "request_loss": NetRate("request_loss_rate", 0.02, 0.3),
    "request_twice": NetRate("request_twice_rate", 0.02, 0.3),
    "link_reset": Times(1, 6, reset_link),
    "cut_up": Times(1, 2, cut_up),
    "cut_down": Times(1, 2, cut_down),
    "cut_both": Times(1, 2, cut_both),
    "worker_killed": Times(1, 3, kill_worker),
    "launcher_killed": Times(1, 2, kill_launcher),
    "both_killed": Times(1, 2, kill_both),
    "machine_killed": Times(1, 2, kill_machine),
    "spool_lost": Times(1, 2, lose_spool),
    "worker_stopped": Times(1, 2, stop_worker),
    "worker_paused": Times(1, 2, pause_worker),
    "machine_paused": Times(1, 2, pause_machine),
    "start_fails": Rate(0.01, 0.1),
}
