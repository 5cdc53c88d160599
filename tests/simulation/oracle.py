"""The judge: sees what is decided, committed, told and done, and knows nothing of how the code under test decides.

It has three parts, each with books of its own: `Rows` watches the database, `Hosts` what really runs where, and
`Callers` what clients and watchers were told. The simulation calls the methods here; each raises Broken.
"""

from typing import TYPE_CHECKING, Any

from tests.simulation.callers import Callers
from tests.simulation.hosts import Hosts
from tests.simulation.rows import Rows
from titan.core.commit import Batch, Commit, Entry, Refuse, Release
from titan.core.events import Decision, Event, News, Now, Send
from titan.core.rows import Snapshot
from titan.model.wire import Ack, Grant, Hello, Lend, Welcome

if TYPE_CHECKING:
    from tests.simulation.ground import Ground
    from tests.simulation.master import Master
    from tests.simulation.programs import Process
    from tests.simulation.worker import Host, Worker


class Oracle:
    """One simulation's judge."""

    def __init__(self, ground: "Ground") -> None:
        self.ground = ground
        self.commits = 0
        self.hosts = Hosts(ground)
        self.rows = Rows(ground, self.hosts)
        self.callers = Callers(ground)

    # Masters

    def took_over(self, master: "Master", epoch: int) -> None:
        """A Master has begun an epoch."""
        self.rows.took_over(master, epoch)
        self.hosts.took_over(epoch)
        self.callers.took_over(epoch)

    def loaded(self, master: "Master", epoch: int, now: Now, snapshot: Snapshot) -> None:
        """It has loaded `snapshot` and leads; nothing that follows from the load is committed yet."""
        self.rows.loaded(master, epoch, now, snapshot)
        self.hosts.loaded(master)

    def master_gone(self, master: "Master") -> None:
        """It was killed, or ended."""

    def decided(self, master: "Master", event: Event, decision: Decision) -> None:
        """Its scheduler took an event; nothing of the decision is committed yet."""
        self.rows.decided(master, event, decision)
        self.hosts.decided(master, event, decision)

    def added(self, master: "Master", machine: Commit, entry: Entry) -> None:
        """What a decision leaves behind waits for its batch."""
        self.rows.added(master, machine, entry)

    def writes(self, master: "Master", machine: Commit, batch: Batch) -> None:
        """A batch is on its way to the disk, perhaps not for the first time."""
        self.rows.writes(master, machine, batch)

    def unlearned(self, master: "Master", machine: Commit) -> None:
        """Whether its last batch arrived cannot be learned any more."""
        self.rows.unlearned(master, machine)

    def committed(self, master: "Master", batch: Batch, results: list[Any]) -> None:
        """A batch is in the database, whether or not anybody hears of it."""
        self.commits += 1
        self.rows.committed(master, batch)
        self.hosts.committed(batch)
        self.callers.committed(master, batch, results)

    def failed(self, master: "Master", error: Exception) -> None:
        """A batch was not taken."""
        self.rows.failed(master, error)

    def released(self, master: "Master", machine: Commit, order: Release) -> None:
        """What follows is told now, as durable with that batch."""
        self.rows.released(master, machine, order)

    def refused(self, master: "Master", machine: Commit, order: Refuse) -> None:
        """The callers of these entries are told that they were not kept."""
        self.rows.refused(master, machine, order)

    def told(self, master: "Master", number: int, news: list[News]) -> None:
        """Watchers are told."""
        self.callers.told(master, number, news)

    def all_told(self, epoch: int, number: int) -> None:
        """That was all that follows from the batch."""
        self.callers.watchers.all_told(epoch, number)

    def renewed(self, master: "Master", name: str, incarnation: str, heard: bool) -> None:
        """A renewal is answered; `heard`: a scheduler is there to hear of it."""
        self.rows.renewed(master, name, incarnation, heard)
        self.hosts.renewed(master, name, heard)

    def sends(self, master: "Master", send: Send) -> None:
        """A message to a worker is let go, whether or not there is a link."""
        self.rows.sends(master, send)
        self.hosts.sends(master, send)

    # Clients

    def answers(self, master: "Master", request: Any, code: str, answer: Any, asked_ms: int) -> None:
        """A Master answers a request that came to it at `asked_ms`; the answer may be lost."""
        self.rows.answers(request, code)
        self.callers.answers(master, request, code, answer, asked_ms)

    def answered(self, request: Any, code: str, answer: Any) -> None:
        """A client has its answer."""
        self.ground.world.hits[f"{request.name} {code}"] += 1
        self.callers.answered(request, code, answer)

    def counts(self, cell: str, key: str) -> None:
        """A job counts itself in `cell`, under a key that is the same in all its attempts."""
        self.callers.counts(cell, key)

    # Workers

    def worker_started(self, worker: "Worker") -> None:
        """A worker process was started."""
        self.hosts.worker_started(worker)

    def worker_gone(self, worker: "Worker") -> None:
        """A worker process is gone."""
        self.hosts.worker_gone(worker)

    def disk_lost(self, host: "Host") -> None:
        """What a host kept of its attempts is gone."""
        self.hosts.disk_lost(host)

    def welcomed(self, worker: "Worker", message: Welcome) -> None:
        """A worker was let in."""
        self.hosts.welcomed(worker, message)

    def acknowledged(self, worker: "Worker", message: Ack) -> None:
        """A worker hears what is durable."""
        self.hosts.acknowledged(worker, message)

    def lent(self, worker: "Worker", message: Lend) -> None:
        """A worker hears whose slot is lent."""
        self.hosts.lent(worker, message)

    def prepares(self, worker: "Worker", grant: Grant) -> None:
        """A worker has a slot for an attempt and makes it ready."""
        self.hosts.prepares(worker, grant)

    def greets(self, worker: "Worker", hello: Hello) -> None:
        """A worker says hello to a Master, which may not hear it."""
        self.hosts.greets(worker, hello)

    def says(self, worker: "Worker", items: list[Any]) -> None:
        """A worker sends a frame: messages, and pieces of logs."""
        self.hosts.says(worker, items)

    def renews(self, worker: "Worker", number: int) -> None:
        """A worker sends a renewal."""
        self.hosts.contact.sends(worker, number)

    def renewal_answered(self, worker: "Worker", number: int) -> None:
        """A worker hears the answer to it."""
        self.hosts.contact.answered(worker, number)

    def lease_over(self, process: "Process") -> None:
        """A launcher ends a process because nobody has heard of its host."""
        self.hosts.lease_over(process)

    def forgets(self, worker: "Worker", fence: int) -> None:
        """A worker removes what it kept of an attempt."""
        self.hosts.forgets(worker, fence)

    def process_started(self, host: "Host", process: "Process") -> None:
        """A job's process begins."""
        self.hosts.process_started(host, process)

    def process_ended(self, host: "Host", process: "Process", exit_code: int, cause: str) -> None:
        """It is gone; `cause` "" when it ended by itself."""
        self.hosts.process_ended(host, process, exit_code, cause)

    # The end

    def everything_done(self) -> str:
        """Return what is left to do; "" when all runs are over and nothing is owed."""
        return self.rows.left() or self.hosts.left()

    def finish(self) -> None:
        """Judge the whole."""
        self.rows.finish()
        self.hosts.finish()
        self.callers.finish()
