"""Judges what really runs: every process of every attempt, where, how often, and what is known of its end.

The oracle for "exactly one run" (14) is here, since no other one would notice a needless run. Every process but the
last of a job and generation needs an excuse that the books here know of themselves: it failed and had retries left;
something killed it (its host, worker, launcher, its lease after real silence, an orderly stop); its record was on a
disk that was lost; or no Master could hear of it for its lease and five seconds. The excuse is asked for when a
scheduler decides that an attempt is over.
"""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tests.simulation.contact import LATE_MS, Contact, stood_still
from tests.simulation.logs import Logs
from tests.simulation.slots import Slots
from tests.simulation.worker import PATTERN
from tests.simulation.world import Broken
from titan.model.states import AttemptState, JobState
from titan.model.wire import CAUSE_LEASE, CAUSE_WORKER_STOP, Ack, Hello, Returned, Welcome

if TYPE_CHECKING:
    from tests.simulation.ground import Ground
    from tests.simulation.master import Master
    from tests.simulation.programs import Process
    from tests.simulation.worker import Host, Worker

JobKey = tuple[str, str]
# What a process is killed by for no fault of its own; the first is said by `Host.kill_all`.
KILLED = frozenset({
    "worker gone", "launcher gone", "both gone", "machine gone", "swept", CAUSE_LEASE, CAUSE_WORKER_STOP,
})  # fmt: skip


class Hosts:
    """The judge of the processes. `ends`: exit code and cause of each attempt whose process is gone.

    `owed`: by host, the attempts whose end its disk has to keep. `spoiled`: attempts whose end a Master acknowledged
    because its core had failed on it, which is the one case in which it may.
    """

    def __init__(self, ground: "Ground") -> None:
        self.ground = ground
        self.world = ground.world
        self.tables = ground.mirror.rows
        self.contact = Contact(ground)
        self.slots = Slots(ground)
        self.logs = Logs(ground, PATTERN)
        self.started: dict[int, Process] = {}
        self.ends: dict[int, tuple[int, str]] = {}
        self.live: dict[JobKey, list[Process]] = {}
        self.runs_of: dict[tuple[str, str, int], list[int]] = {}
        self.owed: defaultdict[str, set[int]] = defaultdict(set)
        self.disk_lost_at: dict[str, int] = {}
        self.returned: set[int] = set()
        self.spoiled: set[int] = set()

    # What workers hear and say

    def disk_lost(self, host: "Host") -> None:
        """What a host kept of its attempts is gone."""
        self.owed[host.name] = set()
        self.disk_lost_at[host.name] = self.world.now
        self.logs.disks_lost += 1

    def greets(self, worker: "Worker", hello: Hello) -> None:
        """A worker says what it holds: all that it has begun and that nobody told it to forget."""
        self.contact.greeted(worker)
        unsaid = self.owed[worker.host.name] - {held.fence for held in hello.attempts}
        if unsaid:
            raise Broken("i29", f"{worker.name} says hello without {min(unsaid)}, which it began and owes")

    def welcomed(self, worker: "Worker", message: Welcome) -> None:
        """A worker was let in."""
        self.slots.welcomed(worker)
        self.owed[worker.host.name].difference_update(message.stop)

    def says(self, worker: "Worker", items: list[Any]) -> None:
        """A worker sends a frame."""
        for item in items:
            if type(item) is Returned:
                if item.fence in self.owed[worker.host.name]:
                    raise Broken("i8", f"{worker.name} gives {item.fence} back, which it has started")
                self.returned.add(item.fence)

    def acknowledged(self, worker: "Worker", message: Ack) -> None:
        """A worker hears what is durable."""
        owed = self.owed[worker.host.name]
        for fence in message.ended:
            if fence in self.ends:
                owed.discard(fence)

    def forgets(self, worker: "Worker", fence: int) -> None:
        """A worker removes what it kept of an attempt."""
        if fence in self.owed[worker.host.name]:
            raise Broken("i29", f"{worker.name} forgets {fence} before it was told that its end is durable")

    # Processes

    def process_started(self, host: "Host", process: "Process") -> None:
        """A job's process begins."""
        fence, grant = process.fence, process.grant
        if fence in self.started:
            raise Broken("i8", f"attempt {fence} is started twice")
        self.started[fence] = process
        key = (grant.run_id, grant.job_id)
        self._may_start(key, process)
        live = self.live.setdefault(key, [])
        for other in live:
            if other.spec.on_lost != "fail" and not stood_still(other):
                raise Broken("i10", f"{key}: {other.fence} still runs on {other.host.name} as {fence} starts")
        live.append(process)
        self.owed[host.name].add(fence)
        self.contact.judge(process)
        self.slots.process_started(host, process)
        if self.world.tell is not None:
            host.say(f"starts {key[0][:6]}/{key[1]} {fence}")

    def _may_start(self, key: JobKey, process: "Process") -> None:
        fence, grant = process.fence, process.grant
        row = self.tables["attempts"][fence,]
        if row["state"] == AttemptState.RETURNED or fence in self.returned:
            raise Broken("i8", f"attempt {fence} was given back and starts on {process.host.name}")
        current = self.tables["jobs"][key]["fence"]
        if current != fence and process.spec.on_lost != "fail":
            raise Broken("i8", f"{key} was granted as {current} when {fence} starts on {process.host.name}")
        before = self.runs_of.setdefault((*key, grant.generation), [])
        failures = 0
        for other in before:
            state = self.tables["attempts"][other,]["state"]
            if self.ends.get(other) == (0, "") and state != AttemptState.LOST:
                raise Broken("i14", f"{key} ended well as {other} and runs again as {fence}")
            failures += state == AttemptState.ENDED
        if failures > process.spec.retries:
            raise Broken(
                "i14", f"{key} failed {failures} times and starts again; it has {process.spec.retries} retries"
            )
        before.append(fence)

    def process_ended(self, host: "Host", process: "Process", exit_code: int, cause: str) -> None:
        """It is gone."""
        self.ends[process.fence] = (exit_code, cause)
        key = (process.grant.run_id, process.grant.job_id)
        self.live[key].remove(process)
        self.contact.judge(process, LATE_MS)
        self.slots.process_ended(host, process)
        if self.world.tell is not None:
            host.say(f"ends {key[0][:6]}/{key[1]} {process.fence}: {exit_code} {cause}")

    def lease_over(self, process: "Process") -> None:
        """The launcher sends it TERM because nobody has heard of its host."""
        if not self.contact.was_silent(process):
            raise Broken("i14", f"{process.fence} is ended for its lease, though {process.host.name} is in contact")

    # Masters

    def loaded(self, master: "Master") -> None:
        """A Master leads."""
        self.contact.loaded(master)
        self.slots.loaded(master)

    def closes(self, master: "Master", fence: int, values: dict[str, Any]) -> None:
        """A scheduler has decided that an attempt is over, which needs a reason if it was begun."""
        process = self.started.get(fence)
        if process is not None:
            self._may_close(master, process, values)

    def _may_close(self, master: "Master", process: "Process", values: dict[str, Any]) -> None:
        """`process` was started, and its attempt is closed with `values`."""
        fence, state = process.fence, values["state"]
        if state == AttemptState.RETURNED:
            raise Broken("i8", f"attempt {fence} ran on {process.host.name} and counts as given back")
        end = self.ends.get(fence)
        if end is None and process.spec.on_lost != "fail" and not stood_still(process):
            raise Broken("i9", f"attempt {fence} is closed and runs on {process.host.name}")
        if state == AttemptState.ENDED:
            if end != (values["exit_code"], values["cause"]):
                raise Broken("i11", f"{fence} counts as ended with {values}, it ended with {end}")
        elif not self._may_be_lost(master, process):
            text = f"{fence} is given up; it ended with {end}, its record is kept and a Master hears of it"
            raise Broken("i14", text)

    def _may_be_lost(self, master: "Master", process: "Process") -> bool:
        end = self.ends.get(process.fence)
        if end is not None and end[1] in KILLED:
            return True
        if self.disk_lost_at.get(process.host.name, -1) >= process.begun_ms:
            return True
        if master.poisoned or process.fence in self.spoiled:
            return True
        return self.contact.may_give_up(master, process)

    def attempt_over(self, row: dict[str, Any], values: dict[str, Any]) -> None:
        """The end of an attempt is in the database; `values` were written."""
        if row["state"] == AttemptState.ENDED:
            self._ended(row)
        elif row["state"] == AttemptState.LOST and "log_bytes" in values:
            self._log_ended(row)

    def _ended(self, row: dict[str, Any]) -> None:
        """The end of an attempt is durable: its log is too, and what it did stands."""
        fence = row["fence"]
        self._log_ended(row)
        if self.ends[fence] != (0, ""):
            return
        job = self.tables["jobs"][row["run_id"], row["job_id"]]
        if job["fence"] != fence or job["state"] == JobState.COMPLETED:
            return
        wanted = job["cancel_requested"] or self.tables["runs"][row["run_id"],]["cancel_requested"]
        if job["state"] != JobState.CANCELLED or not wanted:
            raise Broken("i14", f"{fence} ended well and its job is {job['state']}")

    def _log_ended(self, row: dict[str, Any]) -> None:
        """An end is durable that tells how long the log is. Where a link lost frames and went on, no one knows."""
        process = self.started[row["fence"]]
        if self.ground.network.bad_at.get(process.host.worker_name, -1) < process.begun_ms:
            self.logs.ended(row["fence"], process.log_bytes, row["log_bytes"])

    # The end

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
        for name, owed in sorted(self.owed.items()):
            if owed:
                raise Broken("i29", f"nobody has told {name} that the end of {min(owed)} is durable")
        self.logs.finish()
