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

BATCH_COST_MAX = 2_000  # about 20 ms of SQLite on two cores (performance.md: 100,000 rows/s in large batches)
COST_BYTES = 4_096  # log and blob bytes weigh as many rows as pages they fill
RESENDS_MAX = 3


class LogChunk(msgspec.Struct, frozen=True, gc=False):
    """Log bytes of the attempt `fence`, which go into its log at `offset`."""

    fence: int
    offset: int
    data: bytes


class Batch(msgspec.Struct, frozen=True):
    """One transaction: number `number` of `epoch`. `changes` are folded: a row is written once.

    `operations` are conditional (structs of `titan.model.store`); each has a result, in this order.
    """

    epoch: int
    number: int
    changes: list[Change]
    operations: list[Any]
    chunks: list[LogChunk]
