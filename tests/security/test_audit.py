"""S52: what people, programs and workers change is in the audit, and whoever touches a row of it is found out."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.api.master import NDJSON, TOKEN, Master, Worker, lines
from tests.api.test_gate import served
from tests.api.test_joining import enrol, invited
from tests.api.test_runs import waiting
from tests.security.walk import SHA, ask, token_of
from tests.unit.sources import ROOT
from titan.master.roles import ALLOWED
from titan.model.limits import DEFAULT_LIMITS
from titan.model.roles import Role

# What changes something and has no row, with the reason; docs/security.md says the same.
NOT_AUDITED = {
    "store.put": "the store is data", "store.delete": "the store is data", "store.incr": "the store is data",
    "store.cas": "the store is data", "store.sadd": "the store is data", "store.srem": "the store is data",
    "store.many": "the store is data", "blobs.put": "a content under its own hash; what runs it is told",
    "worker.link": "events and the rows of attempts tell of workers",
}  # fmt: skip
READ_BY_POST = {"store.get", "store.smembers", "store.list"}
GUARDS = ("audit_no_update", "audit_no_delete", "audit_next")
Row = tuple[str, str, str, str, str]


def audit_rows(master: Master) -> list[Row]:
    """Return (actor, role, action, object, address) of all rows, in order."""
    query = "SELECT actor, role, action, object, address FROM audit ORDER BY seq"
    return master.on_loop(lambda: master.engine.look(lambda connection: connection.run(query)))


def changes(master: Master) -> set[str]:
    """Return the names of all routes that may change something."""
    return {name for method, _, name in served(master) if method != "GET"} - READ_BY_POST | {"worker.link"}


def done(master: Master, token: str, path: str, body: Any = None, method: str = "POST") -> Any:
    answer = master.request(method, path, body, token=token)
    assert answer.status in (200, 201, 204), (path, answer.body)
    return answer.json if answer.body else None


def doings(master: Master, worker: Worker, token: str) -> dict[str, Callable[[], str]]:
    """Return for each audited route a call that does it once and returns the object that has to stand in its row."""

    def submitted() -> str:
        return str(
            done(master, token, "/runs", {"name": "n", "jobs": [{"filename": "job.py", **waiting("a")}]})["run"]["id"]
        )

    def on_a_run(verb: str, body: Any = None) -> str:
        run = submitted()
        if verb == "retry":
            master.post(f"/runs/{run}/cancel")
        done(master, token, f"/runs/{run}/{verb}", body)
        return run

    def cancelled_job() -> str:
        run = submitted()
        done(master, token, f"/runs/{run}/jobs/a/cancel")
        return f"{run}/a"

    def registered() -> str:
        digest = done(master, token, "/registry/told.py", b"print(1)", "PUT")["sha256"]
        return f"told.py {digest}"

    def published() -> str:
        digest = done(master, token, "/artifacts?key=told&name=t", b"content", "PUT")["sha256"]
        return f"told {digest}"

    def deleted() -> str:
        published()
        done(master, token, "/artifacts?key=told", method="DELETE")
        return "told"

    def made() -> str:
        return done(master, token, "/tokens", {"name": "n", "role": "viewer"})["about"]["id"] + " viewer"

    def revoked() -> str:
        token_id = token_of(master, Role.VIEWER).split(".")[1]
        done(master, token, f"/tokens/{token_id}/revoke")
        return token_id

    def removed() -> str:
        assert enrol(master, "gone").status == 201
        done(master, token, "/workers/gone/remove")
        return "gone"

    def drained() -> str:
        done(master, token, f"/workers/{worker.name}/drain")
        return worker.name

    return {
        "runs.submit": submitted,
        "runs.cancel": lambda: on_a_run("cancel"),
        "runs.retry": lambda: on_a_run("retry", {}),
        "runs.extend": lambda: on_a_run("extend", {"jobs": [{"filename": "job.py", **waiting("b")}]}),
        "jobs.cancel": cancelled_job,
        "registry.put": registered,
        "artifacts.put": published,
        "artifacts.delete": deleted,
        "tokens.create": made,
        "tokens.revoke": revoked,
        "workers.invite": lambda: done(master, token, "/workers/join-tokens", {})["token"].split(".")[1],
        "workers.drain": drained,
        "workers.remove": removed,
    }


def test_s52_every_route_that_changes_something_is_audited_or_has_a_reason(master: Master) -> None:
    with Worker(master.port) as worker:
        token = token_of(master, Role.ADMIN)
        actor = token.split(".")[1]
        calls = doings(master, worker, token)
        assert calls.keys() | {"workers.enrol"} | NOT_AUDITED.keys() == changes(master)
        assert changes(master) <= ALLOWED.keys()
        for name, call in calls.items():
            what = call()
            assert audit_rows(master)[-1] == (actor, "admin", name, what, "127.0.0.1"), name
        enrolment = invited(master)
        assert enrol(master, "box-audited", enrolment).status == 201
        assert audit_rows(master)[-1] == (
            enrolment.split(".")[1], "worker", "workers.enrol", "box-audited", "127.0.0.1",
        )  # fmt: skip


def test_s52_what_is_refused_read_or_data_has_no_row(master: Master) -> None:
    with Worker(master.port) as worker:
        run = master.submit(worker.job("speaks"))["id"]
        job = worker.start().token
        viewer = token_of(master, Role.VIEWER)
        before = audit_rows(master)
        for word in ("put", "incr", "delete"):
            master.store(word, key="k", **({"value": "1"} if word == "put" else {}))
        assert master.put(f"/blobs/{SHA}", b"not this").status == 422
        assert master.post(f"/runs/{run}/cancel", token=viewer).status == 403
        assert master.post("/tokens", {"name": "", "role": "viewer"}).status == 422
        assert master.post("/workers/nobody/drain").status == 404
        assert master.request("DELETE", "/artifacts?key=nothing").status == 404
        assert ask(master, "GET", "/api/v1/audit", "wrong").status == 401
        assert master.get("/audit").status == 200
        master.submit(worker.job("child"), token=job)
        assert audit_rows(master) == before


def test_s52_a_submission_that_is_sent_again_or_comes_in_slices_has_one_row(own_master: Callable[..., Master]) -> None:
    master = own_master(submit_jobs_inline_max=10)
    jobs = [{"filename": "job.py", **waiting(f"j{number}")} for number in range(25)]
    body = lines({"name": "large", "jobs": len(jobs)}, *jobs)
    for status in (201, 200):
        answer = master.post("/runs", body, headers={**NDJSON, "Idempotency-Key": "once"})
        assert answer.status == status
    assert [row[2:4] for row in audit_rows(master)][1:] == [("runs.submit", answer.json["run"]["id"])]


def test_s52_a_publication_that_is_sent_again_or_refused_has_no_row(own_master: Callable[..., Master]) -> None:
    master = own_master(artifacts_max=1)
    for path in ("/artifacts?key=a&name=a", "/registry/again.py"):
        for _ in range(2):
            assert master.put(path, b"same", headers={"Idempotency-Key": path}).status == 200
    digest = master.get("/registry/again.py").json["sha256"]
    for _ in range(2):
        assert master.put(f"/registry/named.py?sha256={digest}", headers={"Idempotency-Key": "named"}).status == 200
    assert master.put("/artifacts?key=b&name=b", b"other").status == 409
    assert master.put("/artifacts?key=b&name=b", b"other", headers={"Idempotency-Key": path}).status == 409
    assert [row[2:4] for row in audit_rows(master)][1:] == [
        ("artifacts.put", f"a {digest}"),
        ("registry.put", f"again.py {digest}"), ("registry.put", f"named.py {digest}"),
    ]  # fmt: skip


def titan(master: Master, *words: str) -> "subprocess.CompletedProcess[str]":
    settings = {"TITAN_URL": master.url, "TITAN_TOKEN": TOKEN, "TITAN_HOME": str(master.home), "HOME": str(master.home)}
    return subprocess.run(
        [Path(sys.executable).with_name("titan"), *words],
        env=settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_s52_what_is_kept_is_whole_from_the_row_it_begins_with(own_master: Callable[..., Master]) -> None:
    master = own_master(audit_rows_max=4)
    for number in range(8):
        master.put(f"/registry/f{number}.py", b"x")
    master.run(master.engine.clean_up())
    check = master.get("/audit/verify").json
    rows = master.get("/audit").json["audit"]
    assert (check["fault"], check["seq"], check["let_go"]) == ("", rows[0]["seq"], rows[-1]["seq"] - 1)
    assert check["let_go"] >= 1
    assert (rows[0]["actor"], rows[0]["action"]) == ("titan", "audit.prune")
    told = titan(master, "audit", "verify")
    assert f"{len(rows)} rows from row {check['let_go'] + 1} on, each as it was written" in told.stderr
    assert told.stdout == f"{check['seq']}:{check['hash']}\n"
    assert titan(master, "audit", "verify", "--expect", told.stdout.strip()).returncode == 0
    gone = titan(master, "audit", "verify", "--expect", f"2:{SHA}")
    assert (gone.returncode, f"rows 1 to {check['let_go']} were let go" in gone.stderr) == (3, True)
    tamper(master, f"DELETE FROM audit WHERE seq = {check['let_go'] + 1}")
    assert master.get("/audit/verify").json["fault"].startswith(f"row {check['let_go'] + 1} is missing")


def test_s52_the_audit_holds_no_secret(master: Master) -> None:
    token = token_of(master, Role.ADMIN)
    done(master, token, "/tokens", {"name": "n", "role": "viewer"})
    enrolment = invited(master)
    credential = enrol(master, "box-secret", enrolment).json["token"]
    text = json.dumps(audit_rows(master)) + master.get("/audit?limit=1000").body.decode()
    for secret in (token, enrolment, credential, TOKEN):
        assert secret.split(".")[-1] not in text


def test_s52_only_admins_read_the_audit_and_page_by_page(own_master: Callable[..., Master]) -> None:
    master = own_master()
    for number in range(4):
        master.put(f"/registry/f{number}.py", b"x")
    operator = token_of(master, Role.OPERATOR)
    for path in ("/audit", "/audit/verify"):
        assert master.get(path, token=operator).status == 403
    seen: list[int] = []
    query = "limit=2"
    while query:
        page = master.get(f"/audit?{query}").json
        seen += [row["seq"] for row in page["audit"]]
        query = page["next"] and f"limit=2&before={page['next']}"
    assert seen == [6, 5, 4, 3, 2, 1]
    assert [row["object"][:5] for row in master.get("/audit?object=f2.py").json["audit"]] == ["f2.py"]
    assert len(master.get("/audit?action=registry.put&actor=admin").json["audit"]) == 5
    assert not master.get("/audit?action=registry&actor=%25").json["audit"]
    for query in ("limit=0", "limit=1001", "before=-1", f"before={2**64}", "before=x"):
        assert master.get(f"/audit?{query}").code == "invalid", query
    for query in ("after=-1", "after=3", "after=3&hash=00", f"after={2**63 - 1}&hash={SHA}", "hash=x"):
        assert master.get(f"/audit/verify?{query}").code == "invalid", query


TAMPERED = [
    ("UPDATE audit SET actor = 'somebody-else' WHERE seq = 3", "row 3 was changed"),
    ("UPDATE audit SET at_ms = 9000000000000000 WHERE seq = 3", "row 3 was changed"),
    ("UPDATE audit SET role = 'viewer' WHERE seq = 3", "row 3 was changed"),
    ("UPDATE audit SET action = 'runs.list' WHERE seq = 1", "row 1 was changed"),
    ("UPDATE audit SET object = 'x' WHERE seq = 5", "row 5 was changed"),
    ("UPDATE audit SET address = '10.0.0.1' WHERE seq = 3", "row 3 was changed"),
    ("UPDATE audit SET hash = zeroblob(32) WHERE seq = 3", "row 3 was changed"),
    ("UPDATE audit SET previous = zeroblob(32) WHERE seq = 3", "row 3 does not follow row 2"),
    ("DELETE FROM audit WHERE seq = 3", "row 3 is missing: row 4 comes next"),
    ("DELETE FROM audit WHERE seq = 1", "row 1 is missing"),
    ("UPDATE audit SET seq = 9 WHERE seq = 5", "row 5 is missing: row 9 comes next"),
]


def tamper(master: Master, change: str) -> None:
    """Change the database as somebody would who may write the file."""
    connection = sqlite3.connect(master.home / "titan.db", timeout=60)
    with connection:
        for name in GUARDS:
            connection.execute(f"DROP TRIGGER IF EXISTS {name}")
        assert connection.execute(change).rowcount == 1
    connection.close()


@pytest.mark.parametrize(("change", "fault"), TAMPERED)
def test_s52_a_row_that_was_touched_is_named(own_master: Callable[..., Master], change: str, fault: str) -> None:
    master = own_master()
    for number in range(4):
        master.put(f"/registry/f{number}.py", b"x")
    whole = master.get("/audit/verify").json
    assert (whole["seq"], whole["fault"], whole["more"]) == (5, "", False)
    tamper(master, change)
    found = master.get("/audit/verify").json
    assert found["fault"].startswith(fault)
    assert not found["more"]
    assert master.get("/audit").status == 200


def test_s52_a_walk_in_slices_finds_what_one_walk_finds(
    own_master: Callable[..., Master], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("titan.master.api.audit.VERIFY_ROWS", 2)
    master = own_master()
    for number in range(4):
        master.put(f"/registry/f{number}.py", b"x")
    tamper(master, "UPDATE audit SET object = 'x' WHERE seq = 4")
    check = master.get("/audit/verify").json
    assert (check["seq"], check["more"]) == (2, True)
    check = master.get(f"/audit/verify?after=2&hash={check['hash']}").json
    assert (check["seq"], check["more"], check["fault"][:17]) == (3, False, "row 4 was changed")


def test_s52_the_page_says_what_is_not_in_the_audit(master: Master) -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    for name in NOT_AUDITED:
        assert f"`{name}`" in page or f"`{name.partition('.')[0]}.*`" in page, name
    assert DEFAULT_LIMITS.page_rows_max == 1_000
