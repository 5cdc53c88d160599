"""Stored tokens: kept as they are, revoked once, listed page by page, forgotten a month after their end."""

import msgspec

from tests.storage.backend import NOW_MS, Storage
from titan.model.roles import Role
from titan.model.store import AppendAudit, KeepToken, Prune, RevokeToken, UseEnrolment
from titan.model.tokens import TokenRow
from titan.storage import tokens
from titan.storage.tokens import ENDED_KEPT_MS


def row(number: int, **more: object) -> TokenRow:
    made = TokenRow(f"{number:012x}", f"ci {number}", Role.VIEWER, "", bytes(32), NOW_MS, "admin")
    return msgspec.structs.replace(made, **more)


def living(storage: Storage, now_ms: int = NOW_MS) -> list[TokenRow]:
    return storage.database.read(lambda connection: tokens.living(connection, now_ms))


def test_a_token_comes_back_as_it_was_kept(storage: Storage) -> None:
    kept = [row(1, expires_ms=NOW_MS + 5), row(2, role=Role.WORKER, worker="box-1"), row(3, role=Role.ADMIN)]
    storage.do(*map(KeepToken, kept))
    storage.reopen()
    assert living(storage) == kept
    assert [type(each.role) for each in living(storage)] == [Role, Role, Role]
    assert living(storage, NOW_MS + 5) == kept[1:]


def test_a_token_is_revoked_once(storage: Storage) -> None:
    storage.do(KeepToken(row(1)), KeepToken(row(2)))
    assert storage.do(RevokeToken(row(1).token_id, 7), RevokeToken(row(1).token_id, 8), RevokeToken("f" * 12, 9)) == [
        True, False, False,
    ]  # fmt: skip
    assert living(storage) == [row(2)]
    page = storage.database.read(lambda connection: tokens.page(connection, "", 10))
    assert page.rows == [row(1, revoked_ms=7), row(2)]


def test_an_enrolment_is_used_up_with_its_credential_and_its_row_of_the_audit_or_nothing_is_done(
    storage: Storage,
) -> None:
    enrolment = row(1, role=Role.WORKER, expires_ms=NOW_MS + 5)
    storage.do(KeepToken(enrolment))
    entry = AppendAudit(NOW_MS, enrolment.token_id, "worker", "workers.enrol", "box", "")
    uses = [
        UseEnrolment(enrolment.token_id, row(n, role=Role.WORKER, worker=f"box-{n}"), entry, NOW_MS) for n in (2, 3)
    ]
    assert storage.do(*uses) == [True, False]
    assert living(storage) == [uses[0].row]
    assert len(storage.database.read(lambda connection: list(connection.run("SELECT * FROM audit")))) == 1


def test_a_list_goes_on_where_the_page_before_ended(storage: Storage) -> None:
    storage.do(*(KeepToken(row(number)) for number in range(5)))
    seen: list[TokenRow] = []
    after: str | None = ""
    while after is not None:
        page = storage.database.read(lambda connection, after=after: tokens.page(connection, after, 2))
        assert len(page.rows) <= 2
        seen, after = [*seen, *page.rows], page.next
    assert seen == [row(number) for number in range(5)]


def test_what_ended_long_ago_is_forgotten(storage: Storage) -> None:
    old_ms = NOW_MS - ENDED_KEPT_MS
    storage.do(
        KeepToken(row(1, created_ms=1, revoked_ms=old_ms)),
        KeepToken(row(2, created_ms=1, expires_ms=old_ms)),
        KeepToken(row(3, created_ms=1, revoked_ms=old_ms + 1)),
        KeepToken(row(4, created_ms=1, expires_ms=old_ms + 1)),
        KeepToken(row(5, created_ms=1)),
    )
    assert storage.do(Prune(NOW_MS), Prune(NOW_MS)) == [2, 0]
    assert [each[0] for each in storage.rows("tokens")] == [row(number).token_id for number in (3, 4, 5)]
