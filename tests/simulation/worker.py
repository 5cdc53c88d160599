"""A worker: a host that keeps a disk and processes, and on it the worker process with the real link machine.

The host outlives the worker process: jobs run below the launcher, which notes each end on disk before it tells,
kills every job when the worker is gone, and kills each at the deadline that the last answered renewal gave it. The
worker process says what `WorkerLink` has it say. What it does around that is what `titan.worker` does.
"""

from collections.abc import Sequence

from tests.simulation.ground import Ground
from tests.simulation.master import Master
from tests.simulation.network import Link
from tests.simulation.programs import Process
from tests.simulation.world import Node
from titan.core.link import (
    RENEW_EVERY_MS,
    Abandon,
    Forget,
    Kill,
    Order,
    Prepare,
    WorkerLink,
    lease_margins_ms,
)
from titan.core.pieces import Piece
from titan.model.spec import JobSpec, decode_spec
from titan.model.wire import (
    CAUSE_LEASE,
    CAUSE_LOST,
    PROTOCOL,
    Ack,
    Drain,
    Ended,
    Grant,
    Hello,
    Lend,
    MasterMessage,
    Output,
    Recall,
    RenewAck,
    Stop,
    Welcome,
    WorkerMessage,
)

WELCOME_MS_MAX = 10_000
RETRY_MS_MAX = 5_000
ACK_WAIT_MS = 2_000
LAUNCHER_NOTICES_MS = 400
RESUMED_DIES_MS = 1_000
PATTERN = bytes(range(251)) * 1_100


class Kept:
    """What the disk of a host has of one attempt: begun, its end once there is one, and its log."""

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.ended: Ended | None = None
        self.over = False
        self.log_bytes = 0


class Host(Node):
    """A machine: its boot id, disk and processes. Pausing it stops all of that, pausing the worker does not."""

    def __init__(self, ground: Ground, name: str, slots: int, capabilities: tuple[str, ...], devices: int) -> None:
        super().__init__(ground.world, f"host-{name}")
        self.ground = ground
        self.worker_name = name
        self.slots, self.capabilities = slots, capabilities
        self.devices = tuple(f"GPU-{number}" for number in range(devices))
        self.boot_id = ground.draw_id()
        self.kept: dict[int, Kept] = {}
        self.claim = ""
        self.processes: dict[int, Process] = {}
        self.answered_ms = 0
        self.up = True
        self.resumed_at = 0
        self.worker = Worker(self)
        self.start_wanted = True

    # Processes, as the launcher sees to them

    def launch(self, grant: Grant, spec: JobSpec) -> None:
        """Start the job's process, and the watch over its lease and its time."""
        process = self.processes[grant.fence] = Process(self, grant, spec)
        self.ground.oracle.process_started(self, process)
        term_ms, _ = lease_margins_ms(spec)
        if term_ms:
            self.watch_lease(process)
        if spec.timeout_s:
            self.after_quietly(int(spec.timeout_s * 1000), self.time_out, process)
        process.begin()

    def watch_lease(self, process: Process) -> None:
        """TERM it when the last answered renewal is too long ago, and KILL it 5 s later."""
        if self.processes.get(process.fence) is not process:
            return
        term_ms, kill_ms = lease_margins_ms(process.spec)
        age_ms = self.mono_ms() - self.answered_ms
        if age_ms < term_ms:
            self.after_quietly(self.on_my_clock(term_ms - age_ms), self.watch_lease, process)
        elif process.cause:
            # It ends for another cause, but may not take longer for that.
            self.after_quietly(max(0, kill_ms - age_ms), process.end, 137, 9, process.cause)
        else:
            self.world.hits["lease_term"] += 1
            self.ground.oracle.lease_over(process)
            process.terminate(CAUSE_LEASE, max(0, kill_ms - age_ms))

    def time_out(self, process: Process) -> None:
        """Its own time is up."""
        if self.processes.get(process.fence) is process:
            self.world.hits["timeout"] += 1
            process.terminate("timeout", 10_000)

    def over(self, process: Process, exit_code: int, signal: int, cause: str) -> None:
        """A process and its tree are gone; noted on disk before anybody hears."""
        del self.processes[process.fence]
        self.ground.oracle.process_ended(self, process, exit_code, cause)
        kept = self.kept.get(process.fence)
        if kept is not None:
            kept.log_bytes = process.log_bytes
            kept.ended = Ended(process.fence, exit_code, signal, cause, at_ms=self.clocks().wall_ms)
        self.worker.after(self.world.between(0, 3), self.worker.launcher_told_end, process.fence)

    def kill_all(self, why: str, processes: Sequence[Process] | None = None) -> None:
        """Every process of every job dies, or those given, and nobody notes how."""
        for process in list(self.processes.values()) if processes is None else processes:
            if process.gone:
                continue
            del self.processes[process.fence]
            kept = self.kept.get(process.fence)
            if kept is not None:
                kept.log_bytes = process.log_bytes
            process.gone = True
            self.ground.oracle.process_ended(self, process, 137, why)

    # What befalls it

    def crash_worker(self) -> None:
        """SIGKILL of the worker process: the launcher sees its end of file and kills what runs."""
        if not self.worker.up:
            return
        self.worker.crash()
        running = tuple(self.processes.values())
        self.after(self.world.between(0, LAUNCHER_NOTICES_MS), self.kill_all, "worker gone", running)

    def crash_launcher(self) -> None:
        """SIGKILL of the launcher: its jobs die with it, and the worker reports them lost."""
        fences = sorted(self.processes)
        self.kill_all("launcher gone")
        if self.worker.up:
            self.worker.launcher_gone(fences)

    def lose_disk(self) -> None:
        """What was kept of attempts is gone."""
        self.ground.oracle.disk_lost(self)
        self.kept.clear()
        self.claim = ""

    def crash(self, keep_disk: bool) -> None:
        """Power loss: everything stops; the record on disk may lack its end."""
        self.worker.crash()
        self.kill_all("machine gone")
        if not keep_disk:
            self.lose_disk()
        self.die()
        self.up = True
        self.boot_id = self.ground.draw_id()

    def start_worker(self) -> None:
        """Start the worker process, after what its predecessor left has been swept away."""
        if not self.worker.up and self.start_wanted:
            self.kill_all("swept")
            self.worker.start()

    def pause(self) -> None:
        """The whole machine stands still."""
        super().pause()
        self.worker.pause()
        for process in self.processes.values():
            process.frozen = True

    def resume(self) -> None:
        """It goes on; clocks have moved, and deadlines that passed meanwhile are seen to within a second."""
        super().resume()
        self.resumed_at = self.world.now
        self.worker.resume()
        for process in list(self.processes.values()):
            process.thaw()


class Worker(Node):
    """The worker process of a host."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.ground.world, host.worker_name)
        self.host = host
        self.ground = host.ground
        self.link = WorkerLink(host.slots)
        self.incarnation = ""
        self.wire: Link | None = None
        self.preparing: dict[int, Grant] = {}

    def mono_ms(self) -> int:
        """Return the boot clock, which is the host's."""
        host = self.host
        return host.mono_offset_ms + int(self.world.now * host.rate)

    def resume(self) -> None:
        """It goes on, unless its whole machine stands still."""
        if not self.host.paused:
            super().resume()

    # Life and death

    def start(self) -> None:
        """Start the process: what its predecessor owed is its own first."""
        self.die()
        host = self.host
        self.up = True
        self.incarnation = self.ground.draw_id()
        self.predecessor = host.claim
        self.link = WorkerLink(host.slots)
        self.wire = None
        self.turn = self.world.between(0, 1)
        self.window_ms = 250
        self.preparing = {}
        self.stopping = self.flushing = self.welcomed = False
        self.ground.oracle.worker_started(self)
        for fence, kept in sorted(host.kept.items()):
            ended = kept.ended or Ended(fence, 137, 9, CAUSE_LOST, at_ms=self.host.clocks().wall_ms)
            kept.ended = Ended(fence, ended.exit_code, ended.signal, ended.cause, kept.log_bytes, ended.at_ms)
            kept.over = True
            self.link.restore(fence)
            self.obey(self.link.ended(kept.ended))
        self.say(f"starts, and owes {len(host.kept)} attempts")
        self.after(self.world.between(1, 50), self.connect)

    def crash(self) -> None:
        """SIGKILL."""
        if not self.up:
            return
        self.say("is killed")
        wire, self.wire = self.wire, None
        self.die()
        if wire is not None:
            wire.reset()

    def stop(self) -> None:
        """SIGTERM: say so, end what runs, and go when the Master knows."""
        if self.up and not self.stopping:
            self.say("stops in order")
            self.stopping = True
            self.obey(self.link.leave())
            self.leave_when_done()

    def leave_when_done(self) -> None:
        """Go once nothing runs and nothing is owed, or it takes too long."""
        if self.host.processes or self.preparing:
            self.after_quietly(100, self.leave_when_done)
        elif self.link.owes:
            self.after_quietly(ACK_WAIT_MS, self.crash)
        else:
            self.crash()

    # The connection

    def connect(self) -> None:
        """Try the next Master."""
        if self.wire is not None:
            return
        masters = self.ground.masters
        master: Master = masters[self.turn % len(masters)]
        self.turn += 1
        network = self.ground.network
        if not master.up or (self.name, master.name) in network.cuts or (master.name, self.name) in network.cuts:
            self.retry()
            return
        wire = self.wire = network.connect(self, master, (self, master))
        self.welcomed = False
        host = self.host
        hello = Hello(
            name=self.name, incarnation=self.incarnation, boot_id=host.boot_id, protocol=PROTOCOL, version="1",
            capabilities=host.capabilities, slots=host.slots, attempts=self.link.hello(self.mono_ms()),
            epoch_seen=self.link.epoch_seen, predecessor=self.predecessor, devices=host.devices,
            draining=self.link.draining,
        )  # fmt: skip
        self.ground.oracle.greets(self, hello)
        wire.to_master([hello])
        self.after_quietly(WELCOME_MS_MAX, self.no_welcome, wire)

    def no_welcome(self, wire: Link) -> None:
        """Nobody answers the hello."""
        if self.wire is wire and not self.welcomed:
            self.drop_wire()

    def drop_wire(self) -> None:
        """Give this connection up and make a new one."""
        wire, self.wire = self.wire, None
        self.link.disconnected()
        if wire is not None:
            wire.close_at_worker()
        self.retry()

    def hung_up(self, wire: Link, reason: str) -> None:
        """The Master, or the network, has closed the link."""
        if self.wire is not wire:
            return
        self.wire = None
        self.link.disconnected()
        if reason == "replaced":
            self.crash()
        else:
            self.retry()

    def retry(self) -> None:
        """Come back after a while, drawn from a growing window."""
        self.after(int(self.world.chance() * self.window_ms), self.connect)
        self.window_ms = min(RETRY_MS_MAX, self.window_ms * 2)

    def heard(self, wire: Link, frame: list[MasterMessage]) -> None:
        """A frame arrived."""
        if self.wire is not wire:
            return
        for message in frame:
            if self.wire is not wire:
                return
            if not self.welcomed:
                if isinstance(message, RenewAck):
                    continue
                if not isinstance(message, Welcome):
                    self.drop_wire()
                    return
                self.take_welcome(wire, message)
            else:
                self.take(message)

    def take_welcome(self, wire: Link, message: Welcome) -> None:
        """We are in."""
        self.welcomed = True
        self.window_ms = 250
        self.turn -= 1
        self.host.claim = self.incarnation
        self.ground.oracle.welcomed(self, message)
        self.host.answered_ms = self.link.answered_ms
        self.obey(self.link.welcome(message))
        self.renew(wire)

    def take(self, message: MasterMessage) -> None:
        """Do what the Master says."""
        link = self.link
        match message:
            case RenewAck():
                self.ground.oracle.renewal_answered(self, message.seq)
                if link.renewed(message, self.mono_ms()):
                    self.host.answered_ms = link.answered_ms
            case Grant():
                self.obey(link.grant(message))
            case Ack():
                self.ground.oracle.acknowledged(self, message)
                self.obey(link.ack(message, self.mono_ms()))
            case Recall():
                self.obey(link.recall(message))
            case Stop():
                self.obey(link.stop(message))
            case Lend():
                self.ground.oracle.lent(self, message)
                self.obey(link.lend(message))
            case Drain():
                if not link.draining:
                    self.obey(link.drain())
            case Welcome():
                self.drop_wire()

    def renew(self, wire: Link) -> None:
        """Renew every period; give a silent link up."""
        if self.wire is not wire:
            return
        now_ms = self.mono_ms()
        if self.link.silent(now_ms):
            self.say("hears nothing and makes a new connection")
            self.drop_wire()
            return
        message = self.link.renew(now_ms)
        self.ground.oracle.renews(self, message.seq)
        wire.to_master([message], 0)
        self.after_quietly(self.host.on_my_clock(RENEW_EVERY_MS), self.renew, wire)

    def flush_soon(self) -> None:
        """Send what there is in the next turn."""
        if not self.flushing:
            self.flushing = True
            self.after_quietly(0, self.flush)

    def flush(self) -> None:
        """Send frame after frame while there is something, and room."""
        self.flushing = False
        if self.wire is None:
            return
        now_ms = self.mono_ms()
        while self.wire is not None and (items := self.link.next_frame(now_ms)):
            self.ground.oracle.says(self, items)
            self.wire.to_master([_filled(item) for item in items])

    # Attempts

    def obey(self, orders: list[Order]) -> None:
        """Carry out what the link decided."""
        for order in orders:
            match order:
                case Prepare():
                    self.ground.oracle.prepares(self, order.grant)
                    self.preparing[order.grant.fence] = order.grant
                    self.after(self.world.between(1, 30), self.hand_over, order.grant)
                case Abandon():
                    self.preparing.pop(order.fence, None)
                case Kill():
                    process = self.host.processes.get(order.fence)
                    if process is not None:
                        process.terminate(order.cause, order.grace_ms)
                case Forget():
                    self.ground.oracle.forgets(self, order.fence)
                    self.host.kept.pop(order.fence, None)
        self.flush_soon()

    def hand_over(self, grant: Grant) -> None:
        """Hand an attempt to the launcher, unless it was taken back or contact was lost for too long."""
        fence = grant.fence
        if self.preparing.get(fence) is not grant:
            return
        spec = decode_spec(grant.spec)
        term_ms, _ = lease_margins_ms(spec)
        if term_ms and self.mono_ms() >= self.link.answered_ms + term_ms:
            if self.link.online:
                self.after_quietly(200, self.hand_over, grant)
                return
            del self.preparing[fence]
            self.obey(self.link.returned(fence, "no contact with the Master for too long"))
            return
        del self.preparing[fence]
        if self.ground.strikes("start_fails"):
            self.after(1_000, self.give_back, fence)
            return
        self.host.kept[fence] = Kept(grant)
        if not self.link.hand_over(fence):
            del self.host.kept[fence]
            return
        self.host.launch(grant, spec)
        self.after(self.world.between(1, 3), self.launcher_told_start, fence)

    def give_back(self, fence: int) -> None:
        """It cannot be started here."""
        self.obey(self.link.returned(fence, "it cannot be started here"))

    def launcher_told_start(self, fence: int) -> None:
        """The launcher runs it."""
        kept = self.host.kept.get(fence)
        if kept is not None and not kept.over:
            self.link.started(fence, self.host.clocks().wall_ms)
            self.flush_soon()

    def log_grew(self, process: Process) -> None:
        """A job printed something."""
        if self.up:
            self.link.log_grew(process.fence, process.log_bytes)
            self.flush_soon()

    def launcher_told_end(self, fence: int) -> None:
        """The launcher saw the end of a job; all it printed is in the spool."""
        kept = self.host.kept.get(fence)
        if kept is None or kept.over or kept.ended is None:
            return
        self.finish(kept, kept.ended)

    def launcher_gone(self, fences: list[int]) -> None:
        """What ran below it is lost, unless its record tells an end."""
        self.say(f"lost its launcher and {len(fences)} jobs")
        for kept in list(self.host.kept.values()):
            if not kept.over:
                fence = kept.grant.fence
                self.finish(kept, kept.ended or Ended(fence, 137, 9, CAUSE_LOST, at_ms=self.host.clocks().wall_ms))

    def finish(self, kept: Kept, ended: Ended) -> None:
        """An attempt is over, with its log."""
        kept.over = True
        kept.ended = Ended(ended.fence, ended.exit_code, ended.signal, ended.cause, kept.log_bytes, ended.at_ms)
        self.obey(self.link.ended(kept.ended))


def _filled(item: WorkerMessage | Piece) -> WorkerMessage:
    if isinstance(item, Piece):
        begin = item.offset % 251
        return Output(item.fence, item.offset, PATTERN[begin : begin + item.length])
    return item
