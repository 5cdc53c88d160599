"""The audit: who did what, from where, in rows that are only ever added (`titan.model.audit` has the chain)."""

from sqlalchemy import bindparam, func, insert, or_, select

from titan.model.audit import BEGINNING, AuditRow, Walked, row_hash, walk
from titan.model.store import AppendAudit
from titan.storage.connection import Connection, Statement
from titan.storage.queries import Page
from titan.storage.tables import audit

_newest = select(func.max(audit.alias().c.seq)).scalar_subquery()
_NEWEST = Statement(select(audit.c.seq, audit.c.hash).where(audit.c.seq == _newest))
_COLUMNS = AuditRow.__struct_fields__
_ROWS = select(*(audit.c[name] for name in _COLUMNS))
_APPEND = Statement(insert(audit).values({name: bindparam(name) for name in _COLUMNS}), *_COLUMNS)
_LIST = Statement(
    _ROWS.where(
        audit.c.seq < bindparam("before"),
        or_(bindparam("actor") == "", audit.c.actor == bindparam("actor")),
        or_(bindparam("action") == "", audit.c.action == bindparam("action")),
        func.instr(audit.c.object, bindparam("object")) > 0,
    )
    .order_by(audit.c.seq.desc())
    .limit(bindparam("rows")),
    "before",
    "actor",
    "action",
    "object",
    "rows",
)
_WALK = Statement(
    _ROWS.where(audit.c.seq > bindparam("after")).order_by(audit.c.seq).limit(bindparam("rows")), "after", "rows"
)
SEQ_MAX = 2**63 - 1


def append(connection: Connection, entry: AppendAudit) -> int:
    """Add one row and return its number."""
    last = connection.row(_NEWEST)
    seq, previous = (last[0] + 1, last[1]) if last else (1, BEGINNING)
    told = (entry.now_ms, entry.actor, entry.role, entry.action, entry.object, entry.address)
    connection.change(_APPEND, seq, *told, previous, row_hash(previous, seq, *told))
    return seq


def page(
    connection: Connection, before: int, rows_max: int, *, actor: str = "", action: str = "", part: str = ""
) -> Page[AuditRow]:
    """Return rows below `before`, the newest first: those of an actor, of an action, with `part` in their object."""
    found = [AuditRow(*row) for row in connection.rows(_LIST, before, actor, action, part, rows_max + 1)]
    more = len(found) > rows_max
    return Page(found[:rows_max], str(found[rows_max - 1].seq) if more else None)


def verify(connection: Connection, after: int, previous: bytes, rows_max: int) -> tuple[Walked, bool]:
    """Walk along up to `rows_max` rows behind row `after`; return how far that was right, and whether more follow."""
    found = [AuditRow(*row) for row in connection.rows(_WALK, after, rows_max)]
    return walk(found, after, previous), len(found) == rows_max
