"""Planted holes: each takes one defence out, and the test that is named with it must then fail.

A test that passes whether or not its defence is there proves nothing. A hole patches the running program; `caught_by`
is the test's own function, called as pytest would call it. `fresh`: what is patched is only looked at by a new Master.
"""

import os
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.api import test_joining
from tests.api import test_tokens as stored
from tests.api.master import Master
from tests.security import test_origins, test_tokens, test_walk
from titan.cli import home
from titan.master import accepting, asgi, auth, bodies, finding, origins, roles, server, tokens
from titan.master.api import jobs, joining, runs, site, store
from titan.master.auth import Gate, Keys, Knocks, Principal
from titan.master.book import Book
from titan.master.buckets import Buckets
from titan.master.engine import Engine
from titan.master.links import WorkerLinks
from titan.master.origins import Origins
from titan.master.sessions import Sessions
from titan.model.roles import Role
from titan.model.store import KeepToken, RevokeToken, UseEnrolment
from titan.storage import tokens as rows

Patch = Callable[[pytest.MonkeyPatch], None]
VIEWER = (Principal(Role.VIEWER), None)


class Hole(msgspec.Struct, frozen=True):
    """One defence taken out, and the test that has to notice."""

    name: str
    patch: Patch
    caught_by: Callable[[Master], object]
    fresh: bool = False


def setting(owner: Any, name: str, value: Any) -> Patch:
    return lambda monkeypatch: monkeypatch.setattr(owner, name, value)


def allowed(route: str, *more: Role) -> Patch:
    return lambda monkeypatch: monkeypatch.setitem(roles.ALLOWED, route, roles.ALLOWED[route] | set(more))


def _judges(instead: Callable[[Gate, Any, Callable[[Gate, Any], Any]], Any]) -> Patch:
    """Stand in front of the gate's judgement."""
    original = Gate._judge
    return setting(Gate, "_judge", lambda gate, scope: instead(gate, scope, original))


def _no_token_is_a_viewer(gate: Gate, scope: Any, judge: Any) -> Any:
    return judge(gate, scope) if any(name == b"authorization" for name, _ in scope["headers"]) else VIEWER


def _probes_are_let_in(gate: Gate, scope: Any, judge: Any) -> Any:
    return VIEWER if (b"user-agent", b"kube-probe/1.29") in scope["headers"] else judge(gate, scope)


def _websockets_are_let_in(gate: Gate, scope: Any, judge: Any) -> Any:
    return (Principal(Role.WORKER), None) if scope["type"] == "websocket" else judge(gate, scope)


def _websockets_have_any_host(gate: Gate, scope: Any, judge: Any) -> Any:
    if scope["type"] == "websocket":
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"host"]
        scope["headers"].append((b"host", b"localhost"))
    return judge(gate, scope)


def _counted_before_the_token(gate: Gate, scope: Any, judge: Any) -> Any:
    refusal = gate.knocks.refusal("", scope["client"][0])
    if refusal.status == 429:
        raise refusal
    return judge(gate, scope)


def _reads_first(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Gate.__call__

    async def reading(gate: Gate, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] in ("POST", "PUT"):
            while (await receive()).get("more_body"):
                pass
        await original(gate, scope, receive, send)

    monkeypatch.setattr(Gate, "__call__", reading)


def _cuts_only(kind: type) -> Any:
    return lambda self, key: [session.cut() for session in self.of(key) if isinstance(key, kind)]


async def _everybody_owns(*_: object) -> None:
    """Let a job act on any run."""


def _owns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "must_own", _everybody_owns)
    monkeypatch.setattr(jobs, "must_own", _everybody_owns)


def _any_type(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (store, site, bodies):
        monkeypatch.setattr(module, "require_type", lambda *_: "application/json")


def _counted_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted:
        at = 0

        @classmethod
        def token_hex(cls, size: int) -> str:
            cls.at += 1
            return f"{cls.at:0{2 * size}x}"

    monkeypatch.setattr(accepting, "secrets", Counted)


def _forgets_the_secret(self: Book, token: bytes) -> Any:
    return self._rows.get(token[3:15].decode("latin-1"))


def _ignores_the_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless:
        digest = staticmethod(tokens.hmac.digest)

        @staticmethod
        def compare_digest(*_: object) -> bool:
            return True

    monkeypatch.setattr(tokens, "hmac", Careless)


def _without_header(name: bytes) -> Patch:
    kept = [pair for pair in asgi.SECURITY_HEADERS if pair[0] != name]
    return setting(server, "SECURITY_HEADERS", kept)


def _with_cors(monkeypatch: pytest.MonkeyPatch) -> None:
    more = [*asgi.SECURITY_HEADERS, (b"access-control-allow-origin", b"*")]
    monkeypatch.setattr(server, "SECURITY_HEADERS", more)


def _says_why(self: Keys, token: bytes, address: str) -> Any:
    """An answer of its own for a token that was good once."""
    if token.startswith(b"tt.") and self._stored.find(token) is None:
        raise auth.Unauthenticated("the token was revoked")
    return _principal(self, token, address)


def _by_address_only(self: Knocks, message: str, address: str) -> Exception:
    over = self._by_address.take(auth.street(address))
    return auth.HttpError(429, message) if over else auth.Unauthenticated(message)


def _s2(master: Master) -> None:
    folder = master.home / "s2"
    folder.mkdir()
    test_tokens.test_s2_the_home_s_token_is_made_once_of_256_random_bits_for_its_owner_alone(folder)


def _s4(master: Master) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        test_tokens.test_s4_a_large_body_without_a_token_is_not_read(master, monkeypatch)


class _OtherOs:
    """`os` as a module sees it, with one function changed."""

    def __init__(self, **changed: Any) -> None:
        self._changed = changed

    def __getattr__(self, name: str) -> Any:
        return self._changed.get(name) or getattr(os, name)


def _open_to_all(path: Any, flags: int, mode: int) -> int:
    descriptor = os.open(path, flags, mode)
    os.fchmod(descriptor, 0o644)
    return descriptor


def _any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = WorkerLinks.serve
    monkeypatch.setattr(WorkerLinks, "serve", lambda links, socket, _: serve(links, socket, None))


def _never_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "UseEnrolment", lambda _, *rest: UseEnrolment("000000000000", *rest))
    monkeypatch.setattr(rows, "revoke", lambda *_: True)


async def _in_two_steps(engine: Engine, operation: Any, *more: Any) -> Any:
    if not isinstance(operation, UseEnrolment):
        return await _mutate(engine, operation, *more)
    if used := await engine.mutate(RevokeToken(operation.token_id, operation.now_ms)):
        await engine.mutate(KeepToken(operation.row), operation.entry)
    return used


_principal = Keys.principal
_mutate = Engine.mutate
_walk = test_walk
HOLES = [
    Hole("s2: the home's token is always the same", setting(home, "os", _OtherOs(urandom=bytes)), _s2, fresh=True),
    Hole("s2: others may read the home's token", setting(home, "os", _OtherOs(open=_open_to_all)), _s2, fresh=True),
    Hole("s3: a caller without a token is a viewer", _judges(_no_token_is_a_viewer),
         lambda it: _walk.test_s3_no_route_answers_without_a_token_but_the_public_one(it, "GET")),
    Hole("s3: one more public path", setting(auth, "PUBLIC_PATH", "/api/v1/stats"),
         lambda it: _walk.test_s3_no_route_answers_without_a_token_but_the_public_one(it, "GET")),
    Hole("s3: WebSockets pass by the token", _judges(_websockets_are_let_in),
         lambda it: _walk.test_s3_no_websocket_opens_without_a_good_token(it, None)),
    Hole("s3: the id of a token is enough", setting(Book, "find", _forgets_the_secret),
         stored.test_a_row_made_by_hand_lets_in_what_has_its_hash),
    Hole("s4: the body is read first", _reads_first, _s4),
    Hole("s5: any host", setting(Origins, "_knows", lambda *_: True),
         lambda it: test_origins.test_s5_a_host_that_is_not_ours_is_refused(it, "evil.example")),
    Hole("s5: a host that begins like ours", setting(Origins, "_is_ours", lambda _, name: name.startswith("localhost")),
         lambda it: test_origins.test_s5_a_host_that_is_not_ours_is_refused(it, "localhost.evil.com")),
    Hole("s5: a host that ends like ours", setting(Origins, "_is_ours", lambda _, name: name.endswith("localhost")),
         lambda it: test_origins.test_s5_a_host_that_is_not_ours_is_refused(it, "evil.com.localhost")),
    Hole("s5: WebSockets have any host", _judges(_websockets_have_any_host),
         lambda it: test_origins.test_s5_a_host_that_is_not_ours_is_refused(it, "evil.example")),
    Hole("s6: any page", setting(origins, "_of_our_page", lambda *_: True),
         lambda it: test_origins.test_s6_a_page_that_is_not_ours_is_refused_whatever_it_has(it, ("Origin: null",))),
    Hole("s6: a page of the same site", setting(origins, "_OUR_SITE", (b"same-origin", b"none", b"same-site")),
         lambda it: test_origins.test_s6_a_page_that_is_not_ours_is_refused_whatever_it_has(
             it, ("Sec-Fetch-Site: same-site",))),
    Hole("s7: forms are taken", setting(auth, "FORM_TYPES", frozenset()),
         lambda it: _walk.test_s7_no_route_takes_what_any_page_may_send(it, "text/plain")),
    Hole("s7: JSON by any name", _any_type,
         lambda it: _walk.test_s7_a_route_that_reads_json_reads_nothing_else(it, "Content-Type: text/json")),
    Hole("s8: a probe needs no token", _judges(_probes_are_let_in),
         lambda it: _walk.test_s8_every_program_needs_a_token_and_none_is_kept_out_with_one(it, "kube-probe/1.29")),
    Hole("s9: every origin may read", _with_cors, _walk.test_s9_our_own_page_needs_no_such_header_either, fresh=True),
    *(Hole(f"s12: no {name.decode()}", _without_header(name), _walk.test_s12_the_security_headers_are_on_every_answer,
           fresh=True) for name, _ in asgi.SECURITY_HEADERS),
    Hole("s13: no role is looked at", setting(auth, "allows", lambda *_: True),
         lambda it: _walk.test_s13_each_role_may_use_its_routes_and_no_other_by_any_method(it, Role.VIEWER)),
    Hole("s13: a viewer may cancel", allowed("runs.cancel", Role.VIEWER, Role.APPROVER),
         _walk.test_s13_a_viewer_changes_nothing_by_whatever_it_may_use),
    Hole("s13: an operator may make tokens", allowed("tokens.create", Role.OPERATOR),
         lambda _: _walk.test_s13_what_the_table_may_never_say()),
    Hole("s14: the attempt need not live", setting(Engine, "holds", lambda *_: True),
         test_tokens.test_s14_a_job_s_token_is_no_good_for_anything_but_its_own_attempt),
    Hole("s14: the signature is not looked at", _ignores_the_signature,
         test_tokens.test_s14_a_job_s_token_is_no_good_for_anything_but_its_own_attempt),
    Hole("s14: a job acts on any run", _owns,
         test_tokens.test_s14_a_job_s_token_is_no_good_for_anything_but_its_own_attempt),
    Hole("s14: a job acts on the run above it", setting(finding, "_is_below", lambda *_: True),
         test_tokens.test_s14_a_child_s_token_is_no_good_for_the_run_above_it),
    Hole("s14: a job may make tokens", allowed("tokens.create", Role.JOB),
         test_tokens.test_s14_a_job_s_token_is_no_good_for_anything_but_its_own_attempt),
    Hole("s16: a link may have any name", _any_name,
         test_joining.test_s16_a_credential_speaks_for_no_other_name),
    Hole("s16: a name is given twice", setting(Book, "of_worker", lambda *_: []),
         test_joining.test_s16_one_name_is_given_once),
    Hole("s16: an enrolment stays good", _never_used_up,
         test_joining.test_s16_an_enrolment_is_good_once_however_many_use_it_at_once),
    Hole("s16: an enrolment is a worker", setting(Principal, "is_enrolment", False),
         test_joining.test_s16_an_enrolment_may_enrol_and_do_nothing_else),
    Hole("s16: a crash takes the enrolment and gives nothing", setting(Engine, "mutate", _in_two_steps),
         test_joining.test_s16_an_enrolment_that_gave_no_credential_is_still_good),
    Hole("s16: a log is his who speaks first", setting(Engine, "worker_of", lambda *_: "thief-True"),
         lambda it: test_joining.test_s16_a_worker_reports_nothing_about_the_attempts_of_another(
             it, after_a_load=True)),
    Hole("s16: who is removed stays linked", setting(Sessions, "cut", lambda *_: None),
         test_joining.test_s16_a_worker_that_is_removed_is_cut_off_and_its_name_is_free),
    Hole("s19: a revoked token is not cut off", setting(Sessions, "cut", lambda *_: None),
         stored.test_s19_a_worker_whose_token_is_revoked_is_cut_off),
    Hole("s19: a token that expires is not cut off", setting(Book, "left_s", lambda *_: None),
         stored.test_s19_a_token_that_expires_ends_what_it_had_open),
    Hole("s19: the end of an attempt cuts nothing", setting(Sessions, "of", lambda *_: ()),
         stored.test_s19_the_end_of_an_attempt_ends_what_its_token_had_open),
    Hole("s20: nobody is told to wait", setting(Buckets, "take", lambda *_: 0.0),
         lambda it: test_tokens.test_s20_a_thousand_wrong_tokens_meet_a_limit_and_a_good_one_does_not(it.home / "s20")),
    Hole("s20: a good token is counted too", _judges(_counted_before_the_token),
         lambda _: test_tokens.test_s20_each_address_has_its_limit_and_all_together_have_one()),
    Hole("s20: only addresses are counted", setting(Knocks, "refusal", _by_address_only),
         lambda _: test_tokens.test_s20_each_address_has_its_limit_and_all_together_have_one()),
    Hole("s20: a revoked token is told so", setting(Keys, "principal", _says_why),
         test_tokens.test_s20_what_is_wrong_with_a_token_is_not_told),
    Hole("s43: ids are counted", _counted_ids, test_tokens.test_s43_ids_of_runs_are_128_random_bits),
    Hole("s43: random ids stand in for the check of roles", setting(auth, "allows", lambda *_: True),
         lambda it: test_tokens.test_s43_who_may_not_learns_nothing_from_an_id_that_is_there(it, "GET")),
]  # fmt: skip
