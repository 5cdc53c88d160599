"""Who has heard of whom, and since when not: the ground truth behind every lease.

Two clocks run. That of a host counts from the send of the last renewal its worker had an answer to: ten seconds before
the lease is over no process of a job that may be granted again lives there (28). That of a Master counts from the last
renewal it heard: nothing is given up before the lease and five seconds have passed since.

The network knows both: nothing here asks the code under test. What the kernel had stopped, it cannot have killed: such
a process has RESUMED_MS from when it goes on.
"""

from typing import TYPE_CHECKING

from tests.simulation.world import Broken

if TYPE_CHECKING:
    from tests.simulation.ground import Ground
    from tests.simulation.master import Master
    from tests.simulation.programs import Process
    from tests.simulation.worker import Host, Worker

RESUMED_MS = 2_000
KILL_BEFORE_MS = 10_000
GRACE_MS = 5_000
# A timer set before a clock began to drift is late by that much, and so is the way from TERM to KILL.
LATE_MS = 500
# Clocks go up to 4 % wrong here.
RATE_MAX = 1.05
LEASE_MS_MIN = 30_000


class Contact:
    """`sent`: renewals of each worker process without an answer, by number; `base` when the last answered was sent."""

    def __init__(self, ground: "Ground") -> None:
        self.ground = ground
        self.world = ground.world
        self.sent: dict[str, dict[int, int]] = {}
        self.base: dict[str, int] = {}
        self.heard_at: dict[tuple[str, str], int] = {}

    # At the host

    def worker_started(self, worker: "Worker") -> None:
        """A worker process begins: its clock will count from its first hello."""
        self.sent[worker.name] = {}
        self.base.pop(worker.name, None)

    def greeted(self, worker: "Worker") -> None:
        """It says hello."""
        self.base.setdefault(worker.name, worker.host.mono_ms())

    def sends(self, worker: "Worker", number: int) -> None:
        """It renews."""
        self.sent[worker.name][number] = worker.host.mono_ms()

    def answered(self, worker: "Worker", number: int) -> None:
        """A renewal of it is answered: the silence before, if there was one, must have ended what ran."""
        sent_ms = self.sent[worker.name].pop(number, None)
        if sent_ms is None:
            return
        host = worker.host
        if self.age_ms(host) > LEASE_MS_MIN - KILL_BEFORE_MS:
            for process in host.processes.values():
                self.judge(process, LATE_MS)
        self.base[worker.name] = max(sent_ms, self.base[worker.name])

    def age_ms(self, host: "Host") -> int:
        """Return for how long on the host's clock nobody is known to have heard of it."""
        now_ms = host.mono_ms()
        return now_ms - self.base.get(host.worker_name, now_ms)

    def judge(self, process: "Process", late_ms: int = 0) -> None:
        """A process lives: it must not, if the silence has lasted too long."""
        spec, host = process.spec, process.host
        if spec.on_lost == "fail" or stood_still(process):
            return
        age_ms = self.age_ms(host)
        if age_ms > spec.lease_s * 1000 - KILL_BEFORE_MS + late_ms:
            text = f"attempt {process.fence} lives on {host.name} after {age_ms} ms without contact"
            raise Broken("i28", f"{text}; its lease is {spec.lease_s} s")

    def was_silent(self, process: "Process") -> bool:
        """Say whether its host had reason to end it for want of contact."""
        return self.age_ms(process.host) >= process.spec.lease_s * 1000 - 3 * GRACE_MS

    # At a Master

    def loaded(self, master: "Master") -> None:
        """It leads: all leases begin anew."""
        for host in self.ground.hosts:
            self.heard_at[master.name, host.worker_name] = self.world.now

    def heard(self, master: "Master", name: str) -> None:
        """It heard a renewal."""
        self.heard_at[master.name, name] = self.world.now

    def may_give_up(self, master: "Master", process: "Process") -> bool:
        """Say whether that Master heard nothing for so long that it may presume a process dead."""
        silent_ms = self.world.now - self.heard_at.get((master.name, process.host.worker_name), 0)
        return silent_ms * RATE_MAX >= process.spec.lease_s * 1000 + GRACE_MS


def stood_still(process: "Process") -> bool:
    """Say whether the kernel had stopped it until a moment ago, or has still."""
    host = process.host
    since_ms = host.world.now - host.resumed_at
    return process.frozen or (host.resumed_at > process.begun_ms and since_ms <= RESUMED_MS)
