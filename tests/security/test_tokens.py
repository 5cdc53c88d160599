"""What a token is worth: S2, S4, S14, S20 and S43."""

import asyncio
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.api.master import TOKEN, Master, Worker
from tests.api.test_runs import waiting
from tests.security.walk import LINK, Ids, ask, real_ids, send, token_of, told, upgrade
from titan.cli.home import ensure_token
from titan.master.auth import Gate, Keys, Knocks
from titan.master.buckets import Buckets
from titan.model.limits import Limits
from titan.model.roles import Role

BODY_BYTES = 50_000_000
# What lies unread when the refusal is written: uvicorn pauses at 64 KiB, and one read of uvloop brings 250 KiB at most.
READ_BYTES_MAX = 64 * 1024 + 256_000


def test_s2_the_home_s_token_is_made_once_of_256_random_bits_for_its_owner_alone(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        home = tmp_path / name
        home.mkdir()
        ensure_token(home)
        assert stat.S_IMODE((home / "token").stat().st_mode) == 0o600
        token = (home / "token").read_text().strip()
        ensure_token(home)
        assert (home / "token").read_text().strip() == token
        assert stat.S_IMODE((home / "token").stat().st_mode) == 0o600
        assert [each.name for each in home.iterdir()] == ["token"]
        made.append(bytes.fromhex(token))
    assert [len(token) for token in made] == [32, 32]
    assert made[0] != made[1]
    assert len(set(made[0])) > 16


def test_s4_a_large_body_without_a_token_is_not_read(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = HttpToolsProtocol.data_received

    def counted(self: Any, data: bytes) -> None:
        read.append(len(data))
        original(self, data)

    monkeypatch.setattr(HttpToolsProtocol, "data_received", counted)
    for path in ("/api/v1/runs", "/api/v1/store/put", "/api/v1/blobs/" + "0" * 64, "/api/v1/nothing"):
        read.clear()
        pushed = push(master, path)
        assert pushed < BODY_BYTES
        assert sum(read) <= READ_BYTES_MAX, path


def push(master: Master, path: str) -> int:
    """Send a head without a token and then the body, as much of it as the other side lets pass; return how much."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {BODY_BYTES}"
    sent = 0
    with socket.create_connection(("127.0.0.1", master.port), timeout=30) as connection:
        try:
            connection.sendall(f"{head}\r\n\r\n".encode())
            while sent < BODY_BYTES:
                sent += connection.send(bytes(64 * 1024))
        except (ConnectionError, TimeoutError):
            return sent
    return sent


def test_s4_nothing_asks_for_the_body_before_the_token_is_known() -> None:
    """Not even what has arrived already is looked at: the refusal comes without one call of `receive`."""
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was asked for")

    async def send_(message: Any) -> None:
        sent.append(message)

    gate = bare_gate()
    for token in (None, "wrong", "tt.0123456789ab." + "x" * 43):
        sent.clear()
        asyncio.run(gate(scope(token), receive, send_))
        assert [message.get("status") for message in sent] == [401, None]


def bare_gate(limits: Limits | None = None) -> Gate:
    """Return a gate in front of nothing."""
    from titan.master.book import Book
    from titan.master.origins import Origins
    from titan.master.sessions import Sessions

    class NoAttempts:
        token_key = b"k" * 32

        def holds(self, fence: int) -> bool:
            return False

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    sessions = Sessions()
    keys = Keys(TOKEN, Book(sessions, lambda: 0), NoAttempts())
    return Gate(app, keys, Origins(()), sessions, lambda _: None, None, limits or Limits())


def scope(token: str | None, address: str = "127.0.0.1") -> dict[str, Any]:
    headers = [(b"host", b"localhost"), (b"content-length", b"2"), (b"content-type", b"application/json")]
    if token is not None:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    return {"type": "http", "method": "POST", "path": "/api/v1/runs", "headers": headers, "client": (address, 1)}


async def status(gate: Gate, token: str | None, address: str = "127.0.0.1") -> int:
    seen: list[Any] = []

    async def receive() -> Any:
        raise AssertionError

    async def send_(message: Any) -> None:
        seen.append(message)

    await gate(scope(token, address), receive, send_)
    return int(seen[0]["status"])


def test_s14_a_job_s_token_is_no_good_for_anything_but_its_own_attempt(master: Master) -> None:
    with Worker(master.port) as worker:
        run = master.submit({**worker.job("a"), "retries": 1, "retry_backoff_s": 0.01}, worker.job("a.b"))["id"]
        other = master.submit(waiting("a"))["id"]
        grants = {grant.job_id: grant for grant in (worker.start(), worker.start())}
        first, token = grants["a"], grants["a"].token
        kept, _, mac = token.rpartition(".")
        forged = [
            token[:-1], token + "0", kept, f"{kept}.", f"{kept}.{mac[::-1]}", f"{kept}.{'0' * 64}", token.upper(),
            token.replace(run, other), token.replace(run, run[:8]), token.replace(".a.", ".a.b."),
            token.replace(".a.", ".."), token.replace(".1.", ".2."),
            token.replace(str(first.fence), str(first.fence + 1)),
            token.replace(str(first.fence), str(grants["a.b"].fence)), f"tj.{run}.a.1.{first.fence}.",
            grants["a.b"].token.rpartition(".")[0] + "." + mac, token.replace("tj.", "tt."), f" {token}", f"{token}\t.",
        ]  # fmt: skip
        assert master.get(f"/runs/{run}", token=token).status == 200
        for wrong in forged:
            assert ask(master, "GET", f"/api/v1/runs/{run}", wrong).status == 401, wrong

        for method, path, body in (
            ("POST", f"/runs/{other}/cancel", None),
            ("POST", f"/runs/{other}/jobs/a/cancel", None),
            ("POST", f"/runs/{other}/extend", {"jobs": [waiting("more")]}),
            ("POST", f"/runs/{run}/retry", {}),
            ("PUT", "/registry/job.py", b"import os"),
            ("POST", "/tokens", {"name": "mine", "role": "admin"}),
            ("GET", "/tokens", None),
            ("POST", f"/tokens/{'0' * 12}/revoke", None),
            ("POST", f"/workers/{worker.name}/drain", None),
        ):
            refused = master.request(method, path, body, token=token)
            assert (refused.status, refused.code) == (403, "denied"), path
        assert upgrade(master, LINK, token) == 403
        assert master.get(f"/runs/{other}").json["state"] not in ("CANCELLED", "CANCELLING")

        child = master.submit(waiting("below"), token=token)["id"]
        assert master.get(f"/runs/{child}").json["parent_job_id"] == "a"
        worker.end(first, exit_code=1)
        second = worker.start()
        assert (second.job_id, second.attempt) == ("a", 2)
        assert ask(master, "GET", f"/api/v1/runs/{run}", token).status == 401
        assert master.post(f"/runs/{child}/cancel", token=token).status == 401
        assert master.get(f"/runs/{run}", token=second.token).status == 200
        worker.end(second)
        worker.end(grants["a.b"])
        assert master.get(f"/runs/{run}/wait").json["done"]
        for ended in (token, second.token, grants["a.b"].token):
            assert ask(master, "GET", f"/api/v1/runs/{run}", ended).status == 401


def test_s14_a_child_s_token_is_no_good_for_the_run_above_it(master: Master) -> None:
    with Worker(master.port) as worker:
        above = master.submit(worker.job("parent"), waiting("sibling"))["id"]
        parent = worker.start()
        master.submit(worker.job("child"), token=parent.token)
        child = worker.start()
        for path in (f"/runs/{above}/cancel", f"/runs/{above}/jobs/sibling/cancel"):
            refused = master.post(path, token=child.token)
            assert (refused.status, refused.code) == (403, "denied"), path
        worker.end(child)
        worker.end(parent)
        master.post(f"/runs/{above}/cancel")


def test_s20_a_thousand_wrong_tokens_meet_a_limit_and_a_good_one_does_not(tmp_path: Path) -> None:
    with Master(tmp_path / "home", Limits()) as master:
        seen = {401: 0, 429: 0}
        for number in range(1_000):
            answer = ask(master, "GET", "/api/v1/runs", f"wrong-{number}")
            seen[answer.status] += 1
            if answer.status == 429:
                assert answer.code == "unauthenticated"
                assert 1 <= int(answer.headers["retry-after"]) <= 20
                assert answer.headers["connection"] == "close"
            if number % 100 == 99:
                assert ask(master, "GET", "/api/v1/runs", TOKEN).status == 200
                assert upgrade(master, LINK, TOKEN) == 101
        assert seen[401] < 500 < seen[429]
        assert upgrade(master, LINK, "wrong") == 429
        assert ask(master, "GET", "/api/v1/runs", None).status == 429
        assert ask(master, "GET", "/api/v1/healthz", None).status == 200


def test_s20_each_address_has_its_limit_and_all_together_have_one() -> None:
    async def story() -> None:
        gate = bare_gate()
        assert [await status(gate, "wrong", "10.0.0.1") for _ in range(21)] == [401] * 20 + [429]
        assert await status(gate, "wrong", "10.0.0.2") == 401
        assert await status(gate, TOKEN, "10.0.0.1") == 204
        street = [await status(gate, "wrong", f"2001:db8::{host:x}") for host in range(25)]
        assert street.count(429) == 5
        many = [await status(gate, "wrong", f"10.1.{number // 250}.{number % 250}") for number in range(400)]
        assert 150 < many.count(401) < 190
        assert await status(gate, TOKEN, "10.1.0.1") == 204

    asyncio.run(story())


def test_s20_that_somebody_is_told_to_wait_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [1_000.0]
    knocks = Knocks(Limits(address_refusals_max=1), lambda: now[0])

    def said(knocks_now: int) -> list[str]:
        caplog.clear()
        for _ in range(knocks_now):
            knocks.refusal("no", "10.0.0.7")
        return [record.getMessage() for record in caplog.records]

    assert said(1) == []
    assert said(5) == ["too many requests without a good token: 1 refused, last from 10.0.0.7"]
    now[0] += 59
    assert said(3) == []
    now[0] += 1
    assert said(2) == ["too many requests without a good token: 8 refused, last from 10.0.0.7"]


def test_s20_a_bucket_fills_again_with_time_and_with_nothing_else() -> None:
    now = [1_000.0]
    buckets = Buckets(2, 0.5, keys_max=3, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 2.0]
    assert buckets.take("a") == 2.0
    now[0] += 1
    assert buckets.take("a") == 1.0
    now[0] += 1
    assert [buckets.take("a"), buckets.take("a")] == [0, 2.0]
    now[0] += 1_000
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 2.0]
    assert [buckets.take(key) for key in "bcde"] == [0, 0, 0, 0]
    assert len(buckets._levels) == 3


def test_s20_what_is_wrong_with_a_token_is_not_told(master: Master) -> None:
    with Worker(master.port) as worker:
        master.submit(worker.job("a"))
        grant = worker.start()
        living, revoked = token_of(master, Role.VIEWER), token_of(master, Role.VIEWER)
        expired = token_of(master, Role.ADMIN, expires_s=0.001)
        master.post(f"/tokens/{revoked.split('.')[1]}/revoke")
        worker.end(grant)
        master.get(f"/runs/{grant.run_id}/wait")
    wrong = [
        "wrong", TOKEN[:-1], "tt.0123456789ab." + "x" * 43, living[:-1] + ("A" if living[-1] != "A" else "B"), revoked,
        expired, grant.token, "tj.a.b.1.1.00", "x" * 2_000,
    ]  # fmt: skip
    answers = [ask(master, "GET", "/api/v1/runs", token) for token in wrong]
    assert {answer.status for answer in answers} == {401}
    words = [{**answer.json, "request_id": ""} for answer in answers]
    assert all(each == words[0] for each in words)
    names = [sorted(answer.headers) for answer in answers]
    assert all(each == names[0] for each in names)


def test_s43_ids_of_runs_are_128_random_bits(master: Master) -> None:
    ids = [int(master.submit(waiting("a"))["id"], 16) for _ in range(64)]
    assert len(set(ids)) == 64
    for bit in range(128):
        assert 0 < sum(number >> bit & 1 for number in ids) < 64, bit


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_s43_who_may_not_learns_nothing_from_an_id_that_is_there(master: Master, method: str) -> None:
    there = real_ids(master)
    for token in (token_of(master, Role.WORKER), None, "wrong"):
        real, made_up = (list(told(master, token, method, ids)) for ids in (there, Ids()))
        assert real == made_up
        assert {status for _, status, _ in real} == ({401} if token in (None, "wrong") else {403})


def test_a_request_with_no_address_is_counted_too(own_master: Callable[..., Master]) -> None:
    knocks = Knocks(Limits(address_refusals_max=1))
    assert [knocks.refusal("no", "").status for _ in range(2)] == [401, 429]
    assert [knocks.refusal("no", "fe80::1%eth0").status for _ in range(2)] == [401, 429]


def test_two_authorization_headers_are_none(master: Master) -> None:
    lines = (f"Authorization: Bearer {TOKEN}", f"Authorization: Bearer {TOKEN}")
    assert send(master, "GET /api/v1/runs HTTP/1.1", "Host: localhost", *lines).status == 401
