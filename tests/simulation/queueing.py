"""Judges the order in which decisions become batches, and who is told what of them (contract 11.4).

Every entry is followed from the moment it is decided: into the one batch that is in flight, and out again as durable
or as not kept. What a batch holds is recomputed here from its entries.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from operator import is_
from typing import Any

from tests.simulation.world import Broken
from titan.core.changes import PRIMARY_KEYS, Change, Insert
from titan.core.commit import Batch, Entry, Refuse, Release

Merged = dict[tuple[Any, ...], dict[str, Any]]


class Line:
    """The entries of one commit machine: those that are `waiting`, and those of the batch that is in `flight`.

    `number`: its last batch; `kept`: the last in the database; `known`: whether its outcome could be learned.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.number = 0
        self.kept = 0
        self.known = True
        self.flight: deque[Entry] = deque()
        self.waiting: deque[Entry] = deque()

    def writes(self, batch: Batch) -> None:
        """A batch goes to the disk, perhaps again: it must be the next of what waits, whole."""
        if self.flight:
            if batch.number != self.number:
                raise Broken("c11.4", f"batch {batch.number} is written while {self.number} is in flight")
            return
        if batch.number != self.number + 1:
            raise Broken("i21", f"batch {batch.number} of epoch {self.epoch} after {self.number}")
        self.number = batch.number
        entries = list(self.waiting)
        while entries and not is_made_of(batch, entries):
            entries.pop()
        count = len(entries)
        if not count:
            raise Broken("c11.4", f"batch {batch.number} of epoch {self.epoch} is not what was decided")
        for _ in range(count):
            self.flight.append(self.waiting.popleft())

    def released(self, order: Release) -> None:
        """These are told to be durable: all of the batch in flight, then what wrote nothing and waited behind it."""
        flight = self.flight
        if (flight and order.number != self.number) or order.number > self.kept:
            raise Broken("c11.4", f"batch {order.number} is released, {self.kept} is the last in the database")
        for entry, _ in order.entries:
            if flight:
                expected: Entry | None = flight.popleft()
            else:
                expected = self.waiting.popleft() if self.waiting else None
                if entry.writes():
                    raise Broken("c11.4", f"what is in no batch is released with {order.number}")
            if entry is not expected:
                raise Broken("c11.4", f"released out of order with batch {order.number}")
        if flight:
            raise Broken("c11.4", f"batch {order.number} is released in part")

    def refused(self, order: Refuse) -> None:
        """These are told not to be kept."""
        for entry in order.entries:
            if self.flight and entry is self.flight[0]:
                self.flight.popleft()
                if self.kept == self.number and self.known and entry.writes():
                    raise Broken("c11.4", f"batch {self.number} of epoch {self.epoch} is kept and refused")
            elif self.waiting and entry is self.waiting[0]:
                self.waiting.popleft()
            else:
                raise Broken("c11.4", "refused out of order")


def is_made_of(batch: Batch, entries: Sequence[Entry]) -> bool:
    """Say whether `batch` holds just what `entries` write."""
    if len(entries) == 1:
        entry = entries[0]
        chunks, operations, changes = entry.chunks, entry.operations, entry.changes
    else:
        chunks = [chunk for entry in entries for chunk in entry.chunks]
        operations = [operation for entry in entries for operation in entry.operations]
        changes = [change for entry in entries for change in entry.changes]
    if (chunks or batch.chunks) and not is_same(chunks, batch.chunks):
        return False
    if (operations or batch.operations) and not is_same(operations, batch.operations):
        return False
    if len(changes) == len(batch.changes) and (not changes or changes == batch.changes):
        return True
    return merged(changes) == merged(batch.changes)


def is_same(these: Sequence[Any], those: Sequence[Any]) -> bool:
    """Say whether both hold the same things in the same order."""
    return len(these) == len(those) and all(map(is_, these, those))


def merged(changes: Iterable[Change]) -> Merged:
    """Return what `changes` leave behind, by row."""
    rows: Merged = {}
    for change in changes:
        values = change.values
        if type(change) is Insert:
            key = (change.table, *[values[column] for column in PRIMARY_KEYS[change.table]])
        else:
            key = (change.table, *change.key)
        before = rows.get(key)
        rows[key] = values if before is None else {**before, **values}
    return rows
