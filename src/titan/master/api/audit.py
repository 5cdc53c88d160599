"""The audit as admins read it: rows newest first, and a walk along the chain that tells whether it is whole."""

import contextlib

from litestar import get
from litestar.params import FromQuery

from titan.master.api.site import Http, engine_of, page_rows
from titan.model.audit import BEGINNING, AuditRow
from titan.model.ids import SHA256_PATTERN
from titan.model.views import AuditCheck, AuditEntry, AuditList, iso_time
from titan.storage import audit
from titan_sdk.errors import Invalid

VERIFY_ROWS = 5_000


@get("/audit", name="audit.list")
async def list_audit(
    request: Http,
    actor: FromQuery[str] = "",
    action: FromQuery[str] = "",
    object: FromQuery[str] = "",  # noqa: A002 - the row's own word
    limit: FromQuery[int] = 100,
    before: FromQuery[int] = audit.SEQ_MAX,
) -> AuditList:
    """List who did what, newest first; `actor` and `action` whole, `object` a part of it."""
    engine = engine_of(request)
    rows = page_rows(limit, engine.limits)
    if not 0 <= before <= audit.SEQ_MAX:
        raise Invalid("before is no cursor: take it from `next` of the page before")
    page = await engine.read(
        lambda connection: audit.page(connection, before, rows, actor=actor, action=action, part=object)
    )
    return AuditList([_view(row) for row in page.rows], page.next)


@get("/audit/verify", name="audit.verify")
async def verify(request: Http, after: FromQuery[int] = 0, hash: FromQuery[str] = "") -> AuditCheck:  # noqa: A002
    """Walk along up to 5,000 rows behind row `after`, whose hash is `hash`; go on with what the answer says.

    It begins behind the rows that were let go.
    """
    if not 0 <= after < audit.SEQ_MAX or not (SHA256_PATTERN.fullmatch(hash) or (after == 0 and not hash)):
        raise Invalid("after and hash name no row: begin without them, and go on with `seq` and `hash` of the answer")
    previous = bytes.fromhex(hash) or BEGINNING
    let_go, (walked, more) = await engine_of(request).read(
        lambda connection: (audit.anchor(connection)[0], audit.verify(connection, after, previous, VERIFY_ROWS))
    )
    return AuditCheck(walked.seq, walked.hash.hex(), walked.fault, more and not walked.fault, let_go)


def _view(row: AuditRow) -> AuditEntry:
    at = None
    with contextlib.suppress(ValueError, OverflowError, OSError):  # a row that was tampered with is shown too
        at = iso_time(row.at_ms)
    return AuditEntry(row.seq, at, row.actor, row.role, row.action, row.object, row.address, row.hash.hex())


HANDLERS = [list_audit, verify]
