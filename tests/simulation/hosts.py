"""Judges what really runs: every process of every attempt, where, how often, and what is known of its end."""

from typing import TYPE_CHECKING

from tests.simulation.world import Broken
from titan.model.wire import Ack, Lend, Welcome

if TYPE_CHECKING:
    from tests.simulation.ground import Ground
    from tests.simulation.programs import Process
    from tests.simulation.worker import Host, Worker

JobKey = tuple[str, str]
# What the kernel had stopped dies within this after it goes on; until then it can commit nothing.
RESUMED_MS = 2_000


class Hosts:
    """The judge of the processes. `ends`: exit code and cause of each attempt whose process is gone."""

    def __init__(self, ground: "Ground") -> None:
        self.ground = ground
        self.world = ground.world
        self.started: dict[int, Process] = {}
        self.ends: dict[int, tuple[int, str]] = {}
        self.live: dict[JobKey, list[Process]] = {}

    def worker_gone(self, worker: "Worker") -> None:
        """A worker process is gone."""

    def disk_lost(self, host: "Host") -> None:
        """What a host kept of its attempts is gone."""

    def welcomed(self, worker: "Worker", message: Welcome) -> None:
        """A worker was let in."""

    def acknowledged(self, worker: "Worker", message: Ack) -> None:
        """A worker hears what is durable."""

    def lent(self, worker: "Worker", message: Lend) -> None:
        """A worker hears whose slot is lent."""

    def process_started(self, host: "Host", process: "Process") -> None:
        """A job's process begins."""
        fence = process.fence
        if fence in self.started:
            raise Broken("i8", f"attempt {fence} is started twice")
        self.started[fence] = process
        key = (process.grant.run_id, process.grant.job_id)
        others = self.live.setdefault(key, [])
        for other in others:
            if not other.frozen and self.world.now - other.host.resumed_at > RESUMED_MS:
                raise Broken("i10", f"{key}: {other.fence} still runs on {other.host.name} as {fence} starts")
        others.append(process)
        if self.world.tell is not None:
            host.say(f"starts {key[0][:6]}/{key[1]} {fence}")

    def process_ended(self, host: "Host", process: "Process", exit_code: int, cause: str) -> None:
        """It is gone."""
        self.ends[process.fence] = (exit_code, cause)
        key = (process.grant.run_id, process.grant.job_id)
        self.live[key].remove(process)
        if self.world.tell is not None:
            host.say(f"ends {key[0][:6]}/{key[1]} {process.fence}: {exit_code} {cause}")

    def left(self) -> str:
        """Return what is left to do."""
        for host in self.ground.hosts:
            if not host.worker.up:
                return f"{host.name} has no worker"
            if host.worker.link.owes:
                return f"{host.worker.name} owes an attempt"
        return ""

    def finish(self) -> None:
        """Judge the whole."""
