"""What a decision writes, as data: inserts and guarded updates, folded to one write a row a batch.

Every update says what it believes (`expect`). The storage sums the rows a batch touched; one too few and
the whole batch rolls back, because then memory and database disagree.
"""

from typing import Any, Literal

import msgspec

Table = Literal["runs", "jobs", "edges", "attempts", "idempotency", "blobs", "registry"]
PRIMARY_KEYS: dict[str, tuple[str, ...]] = {
    "runs": ("run_id",),
    "jobs": ("run_id", "job_id"),
    "edges": ("run_id", "job_id", "parent_id"),
    "attempts": ("fence",),
    "idempotency": ("key",),
    "blobs": ("sha256",),
    "registry": ("name",),
}
# Rows that are their key: writing one again changes nothing, so two submissions may bring the same script.
CONTENT_ADDRESSED = frozenset({"blobs"})


class Insert(msgspec.Struct, gc=False):
    """A new row. `values` holds every column."""

    table: Table
    values: dict[str, Any]


class Update(msgspec.Struct, gc=False):
    """New values for the row with primary key `key`, if it still is as `expect` says (asserted)."""

    table: Table
    key: tuple[Any, ...]
    expect: dict[str, Any]
    values: dict[str, Any]


Change = Insert | Update


def fold(changes: list[Change]) -> list[Change]:
    """Return `changes` with every row written once: expectations of the first, last values, order of first touch.

    Shape in and out: a list in commit order. An update of a row inserted in the same list becomes part of
    the insert. What is given stays as it is. Raises ValueError when a row that is not content-addressed is
    inserted twice, and when an update expects something else than what was written before it: the database cannot
    see that, since the row is written once.
    """
    folded: dict[tuple[Any, ...], Change] = {}
    for change in changes:
        if isinstance(change, Insert):
            values = change.values
            identity = (change.table, *[values[column] for column in PRIMARY_KEYS[change.table]])
            if identity in folded:
                if change.table in CONTENT_ADDRESSED:
                    continue
                raise ValueError(f"row {identity} is inserted twice in one batch")
            folded[identity] = change
            continue
        identity = (change.table, *change.key)
        earlier = folded.get(identity)
        if earlier is None:
            folded[identity] = change
            continue
        _check_follows(identity, earlier, change)
        if isinstance(earlier, Insert):
            folded[identity] = Insert(earlier.table, earlier.values | change.values)
        else:
            folded[identity] = Update(earlier.table, earlier.key, earlier.expect, earlier.values | change.values)
    return list(folded.values())


def _check_follows(identity: tuple[Any, ...], earlier: Change, change: Update) -> None:
    for column, expected in change.expect.items():
        if column in earlier.values and earlier.values[column] != expected:
            raise ValueError(f"row {identity}: {column} is {earlier.values[column]} by now, not {expected}")
