"""Holes planted around the Master and the worker: the address, certificates, files, logs, the chain of the audit.

By the same rule as the others: one defence is out, and a named test, given a folder, must fail.
"""

import dataclasses
import ipaddress
import os
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.api import test_joining
from tests.api import test_tls as test_door
from tests.api.master import ROOMY, Master
from tests.cli import test_certificates, test_home, test_listening
from tests.sdk import test_tls
from tests.security import test_audit, test_compares, test_leaks
from tests.security.holes import _judges, setting
from tests.security.worker_holes import WorkerHole
from tests.worker import test_environment
from tests.worker.conftest import WorkerProcess
from tests.worker.double import TOKEN as WORKER_TOKEN
from tests.worker.double import MasterDouble
from titan.cli import certificates, home
from titan.master import auth, voice
from titan.master.api import audit as api_audit
from titan.master.api import jobs, runs
from titan.master.server import tls_context
from titan.model import audit
from titan.storage import audit as stored
from titan.worker import joining
from titan_sdk import TitanClient, trust
from titan_sdk.errors import Unauthenticated


class _OtherOs:
    """`os` as a module sees it, with files that others may read."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @staticmethod
    def open(path: Any, flags: int, mode: int) -> int:
        descriptor = os.open(path, flags, mode)
        os.fchmod(descriptor, 0o644)
        return descriptor


def _unverified(_: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _repeats_the_token(gate: Any, scope: Any, judge: Any) -> Any:
    try:
        return judge(gate, scope)
    except Unauthenticated as error:
        raise Unauthenticated(f"{error.message}: {dict(scope['headers']).get(b'authorization', b'')!r}") from None


def _by_url(gate: Any, scope: Any, judge: Any) -> Any:
    query = scope.get("query_string", b"").decode().partition("token=")[2]
    more = [(b"authorization", f"Bearer {query}".encode())] if query else []
    return judge(gate, {**scope, "headers": [*scope["headers"], *more]})


def _to_a_client(test: Callable[..., None], **more: Any) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        clients: list[TitanClient] = []

        def connect(**arguments: Any) -> TitanClient:
            clients.append(TitanClient(**arguments, timeout_s=5))
            return clients[-1]

        trust._contexts.clear()
        try:
            test(folder, connect, **more)
        finally:
            trust._contexts.clear()
            for client in clients:
                client.close()

    return run


def _to_a_master(test: Callable[..., None], *arguments: Any) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        with Master(folder / "home") as master:
            master.script()
            test(master, *arguments)

    return run


def _to_a_fresh_master(test: Callable[..., None], *arguments: Any) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        masters: list[Master] = []

        def own(**changed: Any) -> Master:
            made = Master(folder / "home", dataclasses.replace(ROOMY, **changed)).__enter__()
            masters.append(made)
            made.script()
            return made

        try:
            test(own, *arguments)
        finally:
            for master in masters:
                master.__exit__()

    return run


def _blind(row: audit.AuditRow) -> audit.AuditRow:
    """Return the row with the hash that its fields would have."""
    told = (row.seq, row.at_ms, row.actor, row.role, row.action, row.object, row.address)
    return msgspec.structs.replace(row, hash=audit.row_hash(row.previous, *told))


def _touched(change: str, fault: str) -> Callable[[Path], None]:
    return _to_a_fresh_master(test_audit.test_s52_a_row_that_was_touched_is_named, change, fault)


def _old_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    context = tls_context(certificate, key)
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    return context


def _door(folder: Path) -> None:
    with test_door.Door(folder) as door:
        test_door.test_s11_nothing_older_than_tls_1_2_is_spoken(door)


def _listening(folder: Path) -> None:
    """Start a worker whose interpreter opens a port at its start, as a library might."""
    (folder / "sitecustomize.py").write_text(
        "import os, socket, sys\n"
        "if 'titan.worker' in sys.orig_argv and os.environ.pop('TITAN_HOLE', ''):\n"
        "    kept = socket.create_server(('127.0.0.1', 0))\n"
    )
    (folder / "home").mkdir(mode=0o700)
    (folder / "home" / "token").touch(0o600)
    (folder / "home" / "token").write_text(f"{WORKER_TOKEN}\n")
    double = MasterDouble()
    double.start()
    try:
        worker = WorkerProcess(folder / "home", double, environ={"PYTHONPATH": str(folder)})
        try:
            test_environment.test_s46_a_worker_listens_on_nothing(double, worker)
        finally:
            worker.close()
    finally:
        double.close()


def _lost_answer(folder: Path) -> None:
    with Master(folder / "home") as master, pytest.MonkeyPatch.context() as monkeypatch:
        try:
            test_joining.test_s16_an_enrolment_whose_answer_is_lost_is_not_lost(master, folder, monkeypatch)
        except Unauthenticated as error:
            pytest.fail(str(error))


def _first_slice(_: Any, after: int, previous: bytes, __: int) -> tuple[audit.Walked, bool]:
    return audit.Walked(after, previous), False


def _slices(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        _to_a_fresh_master(
            lambda own: test_audit.test_s52_a_walk_in_slices_finds_what_one_walk_finds(own, monkeypatch)
        )(folder)


_walk = audit.walk
_ROUTES = _to_a_master(test_audit.test_s52_every_route_that_changes_something_is_audited_or_has_a_reason)
HOLES = [
    WorkerHole("s1: every address counts as this machine", setting(ipaddress.IPv4Address, "is_loopback", True),
               lambda _: test_listening.test_s1_a_public_address_without_tls_is_refused_with_the_way_out("0.0.0.0")),
    WorkerHole("s10: the name is not compared", setting(trust, "_from_file", _unverified),
               _to_a_client(test_tls.test_s10_another_name_than_the_certificates_is_refused, pinned=False)),
    WorkerHole("s10: an expired certificate is taken", setting(trust, "_trusting", lambda *_: _unverified("")),
               _to_a_client(test_tls.test_s10_a_certificate_that_has_expired_is_refused, pinned=True)),
    WorkerHole("s11: TLS 1.0 is spoken", setting(test_door, "tls_context", _old_tls), _door),
    WorkerHole("s46: a worker listens", lambda monkeypatch: monkeypatch.setenv("TITAN_HOLE", "1"), _listening),
    WorkerHole("s16: a lost answer is a lost enrolment", setting(joining, "_counts", lambda *_: False), _lost_answer),
    WorkerHole("s17: no name is that of a secret", setting(test_compares, "SECRET", test_leaks.re.compile("$^")),
               lambda _: test_compares.test_s17_a_careless_comparison_is_found("row.hash != digest")),
    WorkerHole("s23: keys are written for everybody", setting(certificates, "os", _OtherOs()),
               test_certificates.test_s23_keys_are_for_their_owner_alone),
    WorkerHole("s24: a token that others know starts", setting(home, "refuse_exposed", lambda *_: None),
               test_home.test_the_token_is_256_bits_private_and_kept),
    WorkerHole("s24: a key that others know starts", setting(certificates, "refuse_exposed", lambda *_: None),
               test_certificates.test_s23_keys_are_for_their_owner_alone),
    WorkerHole("s18: an answer repeats the token", _judges(_repeats_the_token),
               _to_a_master(test_leaks.answers_repeat_none, test_leaks.WRONG)),
    WorkerHole("s18: a token may stand in the URL", _judges(_by_url),
               _to_a_master(test_leaks.test_s18_a_token_in_a_url_or_a_cookie_lets_nobody_in, "token")),
    WorkerHole("s40: the Master's log says it as it is", setting(voice, "one_line", str),
               lambda _: test_leaks.test_s40_nothing_that_others_say_makes_a_line_of_the_master_s_log()),
    WorkerHole("s52: a submission is not told", setting(runs, "trail", lambda *_: ()), _ROUTES),
    WorkerHole("s52: the cancel of a job is not told", setting(jobs, "trail", lambda *_: ()), _ROUTES),
    WorkerHole("s52: everybody is admin", setting(auth.Principal, "actor", "admin"), _ROUTES),
    WorkerHole("s52: hashes are not looked at", setting(
        stored, "walk", lambda rows, *more: _walk([_blind(row) for row in rows], *more)),
        _touched("UPDATE audit SET address = '10.0.0.1' WHERE seq = 5", "row 5 was changed")),
    WorkerHole("s52: rows may be missing", setting(
        stored, "walk", lambda _, seq, previous: audit.Walked(seq, previous)),
        _touched("DELETE FROM audit WHERE seq = 3", "row 3 is missing")),
    WorkerHole("s52: one slice is all", setting(
        api_audit.audit, "verify", _first_slice),
        _slices),
]  # fmt: skip
