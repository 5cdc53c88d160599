"""Batches on their way to the database: what is open, what is in flight, who waits, what is thrown away.

The engine feeds decisions to the scheduler one at a time, and each leaves an `Entry` here: rows to write,
and a ticket (callers to answer, messages to send) that nobody may see before those rows are durable. The
argument for that promise is this file, so it is pure: reports come in, orders go out, and a test can run
every interleaving of good, failed, unknown and fenced-off commits against a model of the database.

One batch is in flight at most. Entries wait in the order they were decided; when the writer is free, the
longest prefix that fits a transaction becomes the next batch. An entry that writes nothing (an answer from
memory, a refusal, a renewal) keeps its place in the queue all the same: what it says rests on decisions
made before it, so it is released with the last of them, and at once when there are none.

How a batch can end, and why that is all:

- committed: its entries are released, in order.
- failed (certainly rolled back): the scheduler's memory already holds what the database refused, and all
  that waits was decided on that memory. Everything is refused and the core is loaded anew. Nothing is
  repaired in place: a repair would be a second, rarely run way of computing the state.
- unknown (COMMIT was sent, no answer came): the leader row is part of every batch, so it tells. It shows
  this batch: committed. The one before: the same rows are sent again, a few times, then it has failed.
  Another epoch: somebody else leads, and this process must go.
- fenced off (the leader row did not match): the row is read as well, because a batch sent twice fences
  itself off when its first sending did arrive.

When the scheduler itself raises, a batch may be in flight. It was decided before the fault and its outcome
is a fact, so it is awaited and released or refused like any other; only what waits behind it is refused at
once. `Reload` and `StepDown` are ordered when nothing is in flight any more; after them this machine is
over, refuses whatever still comes, and a new one (of a new epoch) takes its place.
"""

import enum
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from titan.core.changes import Change, fold

BATCH_COST_MAX = 1_000  # 10 to 20 ms of SQLite on two busy cores (measured: 50,000 to 100,000 rows/s)
COST_BYTES = 4_096  # log and blob bytes weigh as many rows as pages they fill
RESENDS_MAX = 3


class LogChunk(msgspec.Struct, frozen=True, gc=False):
    """Log bytes of the attempt `fence`, which go into its log at `offset`.

    Or a hole, without data: `dropped` bytes are missing from there on, for the reason `why`. One that grows comes
    again from the same offset.
    """

    fence: int
    offset: int
    data: bytes
    dropped: int = 0
    why: str = ""

    @property
    def end(self) -> int:
        """The first offset behind it."""
        return self.offset + (self.dropped or len(self.data))


class Batch(msgspec.Struct, frozen=True):
    """One transaction: number `number` of `epoch`. `changes` are folded: a row is written once.

    `operations` are conditional (structs of `titan.model.store`); each has a result, in this order.
    """

    epoch: int
    number: int
    changes: list[Change]
    operations: list[Any]
    chunks: list[LogChunk]


class Entry(msgspec.Struct):
    """What one decision leaves behind. `ticket` is the engine's own; `cost` is its share of a batch's bound."""

    changes: Sequence[Change] = ()
    operations: Sequence[Any] = ()
    chunks: Sequence[LogChunk] = ()
    ticket: Any = None
    cost: int = 0

    def writes(self) -> bool:
        """Say whether the database has to hear of this entry at all."""
        return bool(self.changes or self.operations or self.chunks)


def cost_of(
    changes: Sequence[Change], operations: Sequence[Any], chunks: Sequence[LogChunk], data_bytes: int = 0
) -> int:
    """Return what an entry weighs, in rows. `data_bytes` are those of blobs and values in its operations."""
    size = data_bytes
    for chunk in chunks:
        size += len(chunk.data)
    return len(changes) + len(operations) + len(chunks) + size // COST_BYTES


class Write(msgspec.Struct, frozen=True):
    """Commit this batch; report committed, failed, unknown or deposed."""

    batch: Batch


class ReadLeader(msgspec.Struct, frozen=True):
    """Read the leader row; report it, or that it cannot be read."""


class Release(msgspec.Struct, frozen=True):
    """Durable as batch `number`: answer and send, in this order. Each entry comes with its operations' results."""

    number: int
    entries: list[tuple[Entry, list[Any]]]


class Refuse(msgspec.Struct, frozen=True):
    """Nothing of these was, or ever will be, released: tell the callers why."""

    entries: list[Entry]
    error: Exception


class Reload(msgspec.Struct, frozen=True):
    """Drop the core and this machine; load both from the database."""

    error: Exception


class StepDown(msgspec.Struct, frozen=True):
    """Somebody else leads, or nobody can tell: this process must end."""

    reason: str


Order = Write | ReadLeader | Release | Refuse | Reload | StepDown


class State(enum.Enum):
    """Where the one batch in flight is."""

    IDLE = enum.auto()
    WRITING = enum.auto()
    ASKING = enum.auto()
    OVER = enum.auto()


class Commit:
    """The machine. Every method is a report and returns the orders that follow, to be carried out in order."""

    def __init__(self, epoch: int, number: int = 0) -> None:
        self.epoch = epoch
        self.number = number
        self.state = State.IDLE
        self.cost_waiting = 0
        self._waiting: deque[Entry] = deque()
        self._flight: list[Entry] = []
        self._batch: Batch | None = None
        self._results: list[Any] | None = None
        self._resends = 0
        self._doubt: Exception | None = None
        self._fault: Exception | None = None

    def add(self, entry: Entry) -> list[Order]:
        """Take an entry in: refused while the core is being dropped, released at once when it waits for nothing."""
        if self._fault is not None:
            return [Refuse([entry], self._fault)]
        if self.state is State.IDLE and not self._waiting and not entry.writes():
            return [Release(self.number, [(entry, [])])]
        self._waiting.append(entry)
        self.cost_waiting += entry.cost
        return []

    def turn(self) -> list[Order]:
        """Write the next batch if the writer is free. Once a turn, so that what arrived together goes together."""
        if self.state is not State.IDLE or not self._waiting:
            return []
        taken = self._take()
        try:
            changes = fold([change for entry in taken for change in entry.changes])
        except ValueError as error:
            self._flight = taken
            return self._end(error, Reload(error))
        self._flight = taken
        self._batch = Batch(
            self.epoch,
            self.number + 1,
            changes,
            [operation for entry in taken for operation in entry.operations],
            [chunk for entry in taken for chunk in entry.chunks],
        )
        self.state = State.WRITING
        self._results = None
        self._resends = 0
        return [Write(self._batch)]

    def committed(self, number: int, results: list[Any]) -> list[Order]:
        """The batch is durable. `results` are those of its operations, in order."""
        self._expect(number)
        return self._settle(results)

    def failed(self, number: int, error: Exception) -> list[Order]:
        """The batch was certainly rolled back."""
        self._expect(number)
        return self._end(error, Reload(self._fault or error))

    def unknown(self, number: int, results: list[Any], error: Exception) -> list[Order]:
        """COMMIT was sent and not answered. `results` hold if it turns out to have arrived."""
        self._results = results
        return self._ask(number, error)

    def deposed(self, number: int, error: Exception) -> list[Order]:
        """The leader row did not match: somebody else leads, or an earlier sending of this batch did arrive."""
        return self._ask(number, error)

    def leader_row(self, epoch: int, number: int) -> list[Order]:
        """The answer to `ReadLeader`."""
        batch, doubt = self._asked()
        if epoch != self.epoch:
            return self._end(doubt, StepDown(f"epoch {epoch} leads now, this process was epoch {self.epoch}"))
        if number == batch.number and self._results is not None:
            return self._settle(self._results)
        if number == batch.number - 1 and self._results is not None and self._resends < RESENDS_MAX:
            self._resends += 1
            self.state = State.WRITING
            return [Write(batch)]
        return self._end(doubt, Reload(self._fault or doubt))

    def leader_unread(self, error: Exception) -> list[Order]:
        """The leader row cannot be read: nothing can be said about the batch, now or later, by this process."""
        _, doubt = self._asked()
        return self._end(doubt, StepDown(f"the leader row cannot be read after a commit without an answer: {error}"))

    def raised(self, error: Exception) -> list[Order]:
        """The scheduler raised: what waits is refused at once, the batch in flight is still awaited."""
        if self._fault is not None:
            return []
        if self.state is State.IDLE:
            return self._end(error, Reload(error))
        self._fault = error
        return self._refuse_waiting(error)

    def _take(self) -> list[Entry]:
        taken: list[Entry] = []
        cost = 0
        while self._waiting and (not taken or cost + self._waiting[0].cost <= BATCH_COST_MAX):
            entry = self._waiting.popleft()
            cost += entry.cost
            taken.append(entry)
        self.cost_waiting -= cost
        return taken

    def _settle(self, results: list[Any]) -> list[Order]:
        self.number += 1
        released: list[tuple[Entry, list[Any]]] = []
        at = 0
        for entry in self._flight:
            count = len(entry.operations)
            released.append((entry, results[at : at + count] if count else []))
            at += count
        while self._waiting and not self._waiting[0].writes():
            entry = self._waiting.popleft()
            self.cost_waiting -= entry.cost
            released.append((entry, []))
        self._clear(State.IDLE)
        orders: list[Order] = [Release(self.number, released)]
        if self._fault is not None:
            self.state = State.OVER
            orders.append(Reload(self._fault))
        return orders

    def _end(self, error: Exception, last: Order) -> list[Order]:
        refused = self._flight
        self._clear(State.OVER)
        self._fault = self._fault or error
        orders: list[Order] = [Refuse(refused, error)] if refused else []
        return [*orders, *self._refuse_waiting(error), last]

    def _refuse_waiting(self, error: Exception) -> list[Order]:
        refused = list(self._waiting)
        self._waiting.clear()
        self.cost_waiting = 0
        return [Refuse(refused, error)] if refused else []

    def _clear(self, state: State) -> None:
        self.state = state
        self._flight = []
        self._batch = None
        self._results = None

    def _expect(self, number: int) -> None:
        if self._batch is None or self.state is not State.WRITING or self._batch.number != number:
            raise ValueError(f"a report about batch {number} while {self.state.name} after {self.number}")

    def _ask(self, number: int, error: Exception) -> list[Order]:
        self._expect(number)
        self.state = State.ASKING
        self._doubt = error
        return [ReadLeader()]

    def _asked(self) -> tuple[Batch, Exception]:
        if self._batch is None or self._doubt is None or self.state is not State.ASKING:
            raise ValueError(f"a leader row nobody asked for, while {self.state.name} after {self.number}")
        return self._batch, self._doubt
