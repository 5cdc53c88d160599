"""The judge: sees what is decided, committed, told and done, and knows nothing of how the code under test decides.

It has three parts, each with books of its own: `Rows` watches the database, `Hosts` what really runs where, and
`Callers` what clients and watchers were told. The simulation calls what stands here; each raises Broken. What concerns
one part alone is that part's own method, so nothing is passed on.
"""

from typing import TYPE_CHECKING, Any

from tests.simulation.callers import Callers
from tests.simulation.hosts import Hosts
from tests.simulation.rows import Rows
from titan.core.commit import Batch
from titan.core.events import Now
from titan.core.rows import Snapshot

if TYPE_CHECKING:
    from tests.simulation.ground import Ground
    from tests.simulation.master import Master


class Oracle:
    """One simulation's judge."""

    def __init__(self, ground: "Ground") -> None:
        self.ground = ground
        self.commits = 0
        self.hosts = Hosts(ground)
        self.callers = Callers(ground)
        self.rows = Rows(ground, self.hosts, self.callers)
        self.hear_of_masters()
        self.hear_of_workers()

    def hear_of_masters(self) -> None:
        """Have the part that judges it hear of what a Master does."""
        # An event, and what was decided on it; what waits for a batch; a batch on its way to the disk.
        self.decided = self.rows.decided
        self.added = self.rows.added
        self.writes = self.rows.writes
        # Whether the last batch arrived cannot be learned any more; it was not taken.
        self.unlearned = self.rows.unlearned
        self.failed = self.rows.failed
        # What is told to be durable, or not to be kept; messages let go to workers; renewals answered.
        self.released = self.rows.released
        self.refused = self.rows.refused
        self.sends = self.rows.sends
        self.renewed = self.rows.renewed

    def hear_of_workers(self) -> None:
        """Have the part that judges it hear of what a worker hears, says and does."""
        hosts = self.hosts
        self.worker_started = hosts.contact.worker_started
        self.renews = hosts.contact.sends
        self.renewal_answered = hosts.contact.answered
        self.disk_lost = hosts.disk_lost
        self.greets = hosts.greets
        self.says = hosts.says
        self.welcomed = hosts.welcomed
        self.acknowledged = hosts.acknowledged
        self.lent = hosts.slots.lent
        self.prepares = hosts.slots.prepares
        self.forgets = hosts.forgets
        self.process_started = hosts.process_started
        self.process_ended = hosts.process_ended
        self.lease_over = hosts.lease_over

    # Masters

    def took_over(self, master: "Master", epoch: int) -> None:
        """A Master has begun an epoch."""
        self.rows.took_over(master, epoch)
        self.callers.took_over(epoch)

    def loaded(self, master: "Master", epoch: int, now: Now, snapshot: Snapshot) -> None:
        """It has loaded `snapshot` and leads; nothing that follows from the load is committed yet."""
        self.hosts.loaded(master)
        self.rows.loaded(master, epoch, now, snapshot)

    def committed(self, master: "Master", batch: Batch, results: list[Any]) -> None:
        """A batch is in the database, whether or not anybody hears of it."""
        self.commits += 1
        for chunk in batch.chunks:
            self.hosts.logs.took(chunk)
        if batch.operations:
            self.callers.cells.committed(batch.operations, results)
        self.rows.committed(master, batch)

    # Clients

    def answers(self, master: "Master", request: Any, code: str, answer: Any, asked_ms: int) -> None:
        """A Master answers a request that came to it at `asked_ms`; the answer may be lost."""
        self.rows.answers(request, code)
        self.callers.answers(master, request, code, answer, asked_ms)

    def answered(self, request: Any, code: str, answer: Any) -> None:
        """A client has its answer."""
        self.ground.world.hits[f"{request.name} {code}"] += 1

    # The end

    def everything_done(self) -> str:
        """Return what is left to do; "" when all runs are over and nothing is owed."""
        return self.rows.left() or self.hosts.left()

    def finish(self) -> None:
        """Judge the whole."""
        self.rows.finish()
        self.hosts.finish()
        self.callers.finish()
