"""The audit: who did what, from where, in rows that are only ever added (`titan.model.audit` has the chain).

The oldest rows are let go for their age, or when there are too many. What stays hangs on the anchor, the number and
hash of the last row that went, and a row of its own tells which went. A slice of the chain that is not whole stays:
letting it go would take the trace of whoever touched it along.
"""

from functools import cache

from sqlalchemy import bindparam, delete, func, insert, select, text

from titan.model.audit import BEGINNING, AuditRow, Walked, row_hash, walk
from titan.model.limits import Limits
from titan.model.store import AppendAudit
from titan.storage.connection import Connection, Statement
from titan.storage.queries import Page
from titan.storage.tables import audit, audit_anchor

DAY_MS = 86_400_000
PRUNED = "audit.prune"
MASTER = "titan"
_newest = select(func.max(audit.alias().c.seq)).scalar_subquery()
_NEWEST = Statement(select(audit.c.seq, audit.c.hash).where(audit.c.seq == _newest))
_COLUMNS = AuditRow.__struct_fields__
_ROWS = select(*(audit.c[name] for name in _COLUMNS))
_APPEND = Statement(insert(audit).values({name: bindparam(name) for name in _COLUMNS}), *_COLUMNS)
_WALK = Statement(
    _ROWS.where(audit.c.seq > bindparam("after")).order_by(audit.c.seq).limit(bindparam("rows")), "after", "rows"
)
_ANCHOR = Statement(select(audit_anchor.c.seq, audit_anchor.c.hash).where(audit_anchor.c.id == bindparam("one")), "one")
_MOVE = Statement(
    text(
        "INSERT INTO audit_anchor (id, seq, hash) VALUES (1, :seq, :hash)"
        " ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash"
    ),
    "seq",
    "hash",
)
_DROP = Statement(delete(audit).where(audit.c.seq <= bindparam("seq")), "seq")
SEQ_MAX = 2**63 - 1


def append(connection: Connection, entry: AppendAudit) -> int:
    """Add one row and return its number."""
    last = connection.row(_NEWEST)
    seq, previous = (last[0] + 1, last[1]) if last else (1, BEGINNING)
    told = (entry.now_ms, entry.actor, entry.role, entry.action, entry.object, entry.address)
    connection.change(_APPEND, seq, *told, previous, row_hash(previous, seq, *told))
    return seq


def anchor(connection: Connection) -> tuple[int, bytes]:
    """Return number and hash of the last row that was let go; 0 and BEGINNING when none was."""
    row = connection.row(_ANCHOR, 1)
    return (0, BEGINNING) if row is None else (row[0], row[1])


def prune(connection: Connection, now_ms: int, rows_max: int, limits: Limits) -> int:
    """Let up to `rows_max` of the oldest rows go, if they are too old or too many; return how many went.

    Beyond a limit a hundredth of it goes too, so that the row that tells of it is not one for each that comes.
    """
    begin, previous = anchor(connection)
    last, first = connection.row(_NEWEST), _walked(connection, begin, 1)
    if last is None or not first:
        return 0
    over = last[0] - begin - limits.audit_rows_max
    count = over + 1 + limits.audit_rows_max // 100 if over > 0 else 0
    kept_ms = limits.audit_days_max * DAY_MS
    if not count and first[0].at_ms >= now_ms - kept_ms:
        return 0
    rows = _walked(connection, begin, rows_max)
    old = next((at for at, row in enumerate(rows) if row.at_ms >= now_ms - kept_ms * 99 // 100), len(rows))
    going = rows[: max(count, old)]
    if not going or walk(going, begin, previous).fault:
        return 0
    append(connection, AppendAudit(now_ms, MASTER, "", PRUNED, f"rows {begin + 1} to {going[-1].seq}", ""))
    connection.change(_MOVE, going[-1].seq, going[-1].hash)
    return connection.change(_DROP, going[-1].seq)


def page(
    connection: Connection, before: int, rows_max: int, *, actor: str = "", action: str = "", part: str = ""
) -> Page[AuditRow]:
    """Return rows below `before`, the newest first: those of an actor, of an action, with `part` in their object."""
    values = [value for value in (actor, action) if value]
    statement = listing(bool(actor), bool(action))
    found = [AuditRow(*row) for row in connection.rows(statement, before, *values, part, rows_max + 1)]
    more = len(found) > rows_max
    return Page(found[:rows_max], str(found[rows_max - 1].seq) if more else None)


def verify(connection: Connection, after: int, previous: bytes, rows_max: int) -> tuple[Walked, bool]:
    """Walk along up to `rows_max` rows behind row `after`; return how far that was right, and whether more follow.

    Where row `after` was let go, it begins behind the anchor.
    """
    begin = anchor(connection)
    if after < begin[0]:
        after, previous = begin
    found = _walked(connection, after, rows_max)
    return walk(found, after, previous), len(found) == rows_max


@cache
def listing(by_actor: bool, by_action: bool) -> Statement:
    """Return the statement that lists rows, newest first: each has an index to walk along."""
    query, names = _ROWS.where(audit.c.seq < bindparam("before")), ["before"]
    for wanted, column in ((by_actor, audit.c.actor), (by_action, audit.c.action)):
        if wanted:
            names.append(column.name)
            query = query.where(column == bindparam(column.name))
    query = query.where(func.instr(audit.c.object, bindparam("object")) > 0)
    return Statement(query.order_by(audit.c.seq.desc()).limit(bindparam("rows")), *names, "object", "rows")


def _walked(connection: Connection, after: int, rows_max: int) -> list[AuditRow]:
    return [AuditRow(*row) for row in connection.rows(_WALK, after, rows_max)]
