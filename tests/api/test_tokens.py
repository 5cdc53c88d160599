"""Stored tokens end to end: what they let in, what ends them, and that nothing but their maker ever sees one."""

import hashlib
import json
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.api.master import TOKEN, Answer, Master, Worker
from tests.api.test_runs import waiting
from titan.model.roles import STORED_ROLES, Role
from titan.model.store import KeepToken
from titan.model.tokens import TokenRow
from titan.model.wire import CLOSE_DENIED


def create(master: Master, role: str = "viewer", **more: Any) -> tuple[str, Any]:
    """Make a token; return it and what is told about it."""
    body = {"name": "a test", "role": role, **({"worker": "box-1"} if role == "worker" else {}), **more}
    answer = master.post("/tokens", body)
    assert answer.status == 201, answer.body
    return answer.json["token"], answer.json["about"]


def revoke(master: Master, about: Any, **more: Any) -> Answer:
    return master.post(f"/tokens/{about['id']}/revoke", **more)


@pytest.mark.parametrize("role", sorted(STORED_ROLES))
def test_a_token_has_the_role_it_was_made_with(master: Master, role: str) -> None:
    token, about = create(master, role)
    assert (about["role"], about["state"], about["created_by"]) == (role, "living", "admin")
    assert master.get("/runs", token=token).status == (403 if role == "worker" else 200)
    assert master.get("/tokens", token=token).status == (200 if role == "admin" else 403)
    assert master.get("/blobs/" + "0" * 64, token=token).status == 404


def test_a_token_is_256_random_bits_and_only_its_hash_is_kept(master: Master) -> None:
    made = [create(master) for _ in range(50)]
    for token, about in made:
        assert re.fullmatch(rf"tt\.{about['id']}\.[A-Za-z0-9_-]{{43}}", token)
    assert len({token.rpartition(".")[2] for token, _ in made}) == len({about["id"] for _, about in made}) == 50
    token, about = made[0]
    kept = master.engine.look(
        lambda connection: connection.run(f"SELECT hash FROM tokens WHERE token_id = '{about['id']}'")
    )
    assert kept == [(hashlib.sha256(token.encode()).digest(),)]
    secret = token.rpartition(".")[2].encode()
    for file in [each for each in master.home.rglob("*") if each.is_file()]:
        assert secret not in file.read_bytes(), file
    listed = master.get("/tokens?limit=1000").body
    assert about["id"].encode() in listed
    assert secret not in listed


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"role": "viewer"}, "name"),
        ({"name": "", "role": "viewer"}, "name of the token has 0 characters"),
        ({"name": "x" * 101, "role": "viewer"}, "101 characters"),
        ({"name": "a\nb", "role": "viewer"}, "control character"),
        ({"name": "n", "role": "root"}, "'root' is no role of a token"),
        ({"name": "n", "role": "job"}, "'job' is no role of a token"),
        ({"name": "n", "role": "ADMIN"}, "'ADMIN' is no role"),
        ({"name": "n", "role": "worker"}, "name a worker with role worker, and with no other"),
        ({"name": "n", "role": "viewer", "worker": "box-1"}, "name a worker with role worker, and with no other"),
        ({"name": "n", "role": "worker", "worker": "../box"}, "worker name"),
        ({"name": "n", "role": "viewer", "expires_s": 0}, "expires_s is 0"),
        ({"name": "n", "role": "viewer", "expires_s": -1}, "expires_s is -1"),
        ({"name": "n", "role": "viewer", "expires_s": 1e300}, "expires_s is 1e+300"),
        ({"name": "n", "role": "viewer", "colour": "red"}, "colour"),
    ],
)
def test_a_token_that_cannot_be_is_refused_with_the_reason(master: Master, body: Any, words: str) -> None:
    answer = master.post("/tokens", body)
    assert (answer.status, answer.code) == (422, "invalid")
    assert words in answer.json["detail"]


def test_every_change_of_a_token_is_in_the_audit(master: Master) -> None:
    token, about = create(master, "admin")
    other = master.post("/tokens", {"name": "second", "role": "viewer"}, token=token).json["about"]
    revoke(master, other, token=token)
    revoke(master, other, token=token)
    rows = master.engine.look(
        lambda connection: connection.run("SELECT actor, role, action, object, address FROM audit ORDER BY seq")
    )
    assert rows[-3:] == [
        ("admin", "admin", "tokens.create", f"{about['id']} admin", "127.0.0.1"),
        (about["id"], "admin", "tokens.create", f"{other['id']} viewer", "127.0.0.1"),
        (about["id"], "admin", "tokens.revoke", other["id"], "127.0.0.1"),
    ]
    assert other["created_by"] == about["id"]
    assert token.encode() not in json.dumps(rows).encode()


def test_tokens_are_listed_page_by_page_with_their_state(own_master: Callable[..., Master]) -> None:
    master = own_master()
    made = sorted(create(master, name=f"token {number}")[1]["id"] for number in range(5))
    revoke(master, {"id": made[0]})
    create(master, expires_s=0.001)
    seen: list[Any] = []
    after: str | None = ""
    while after is not None:
        page = master.get(f"/tokens?limit=2&after={after}").json
        seen, after = [*seen, *page["tokens"]], page["next"]
    assert [token["id"] for token in seen] == sorted(token["id"] for token in seen)
    states = {token["id"]: token["state"] for token in seen}
    assert [states.pop(token_id) for token_id in made] == ["revoked", *["living"] * 4]
    assert list(states.values()) == ["expired"]


def test_no_more_tokens_than_the_limit_and_an_expired_one_makes_room(own_master: Callable[..., Master]) -> None:
    master = own_master(tokens_max=2)
    first = create(master)[1]
    create(master, expires_s=0.001)
    create(master)
    refused = master.post("/tokens", {"name": "n", "role": "viewer"})
    assert (refused.status, refused.code) == (409, "conflict")
    assert "TITAN_LIMIT_TOKENS_MAX" in refused.json["hint"]
    revoke(master, first)
    create(master)


def test_revoking_again_or_nothing(master: Master) -> None:
    _, about = create(master)
    first = revoke(master, about).json
    assert first["state"] == "revoked"
    assert revoke(master, about).json == first
    missing = revoke(master, {"id": about["id"][:6]})
    assert (missing.status, missing.code) == (404, "not_found")


def test_a_token_may_revoke_itself_and_hears_that_it_did(master: Master) -> None:
    token, about = create(master, "admin")
    assert revoke(master, about, token=token).json["state"] == "revoked"
    assert master.get("/runs", token=token).status == 401


def test_s19_a_revoked_token_is_nobody_s_and_what_it_had_open_is_cut(master: Master) -> None:
    token, about = create(master)
    run = master.submit(waiting("a"))["id"]
    held: list[Answer] = []

    def ask_for(path: str) -> None:
        held.append(master.get(path, token=token))

    paths = (f"/runs/{run}/jobs/a/log?follow_s=25", f"/runs/{run}/wait")
    asks = [threading.Thread(target=ask_for, args=[path]) for path in paths]
    with master.events(token=token) as feed, master.events("/store/watch", token=token) as watch:
        for ask in asks:
            ask.start()
        until_open(master, about["id"], 4)
        revoke(master, about)
        assert feed.block() == watch.block() == {}
        for ask in asks:
            ask.join(60)
    assert [answer.status for answer in held] == [401, 401]
    assert master.get("/runs", token=token).status == 401
    assert master.on_loop(master.engine.sessions.keys) == ()


def test_s19_a_worker_whose_token_is_revoked_is_cut_off(master: Master) -> None:
    token, about = create(master, "worker")
    with Worker(master.port, "box-1", token=token) as worker, Worker(master.port) as other:
        revoke(master, about)
        with pytest.raises(ConnectionClosed) as closed:
            worker.hear()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == CLOSE_DENIED
        run = master.submit(other.job("b"))["id"]
        other.end(other.start())
        assert master.get(f"/runs/{run}/wait").json["done"]


def test_s19_a_token_that_expires_ends_what_it_had_open(master: Master) -> None:
    token, _ = create(master, expires_s=1)
    with master.events(token=token) as feed:
        assert feed.block() == {}
    assert master.get("/runs", token=token).status == 401


def test_s19_the_end_of_an_attempt_ends_what_its_token_had_open(master: Master) -> None:
    with Worker(master.port) as worker:
        master.submit(worker.job("a"), worker.job("b"))
        ending, living = worker.start(), worker.start()
        with master.events("/store/watch", token=ending.token) as cut, master.events(
            "/store/watch", token=living.token
        ) as kept:  # fmt: skip
            worker.end(ending)
            assert cut.block() == {}
            master.store("put", key="k", value="1")
            assert kept.block()["event"] == "store"
        worker.end(living)


def test_s19_a_change_that_only_a_load_shows_cuts_too(own_master: Callable[..., Master]) -> None:
    """A revoke whose commit nobody heard of is in the rows that are loaded next."""
    master = own_master()
    token, about = create(master)
    with master.events(token=token) as feed:
        until_open(master, about["id"], 1)
        master.on_loop(lambda: master.engine.book.load([]))
        assert feed.block() == {}


def test_tokens_live_over_a_restart_and_revoked_ones_stay_revoked(tmp_path: Any) -> None:
    with Master(tmp_path / "home") as master:
        kept, _ = create(master)
        gone, about = create(master)
        revoke(master, about)
    with Master(tmp_path / "home") as master:
        assert master.get("/runs", token=kept).status == 200
        assert master.get("/runs", token=gone).status == 401


def until_open(master: Master, token_id: str, count: int) -> None:
    """Return when so many requests of a token are being served."""
    while len(master.on_loop(lambda: master.engine.sessions.of(token_id))) < count:
        pass


def test_a_row_made_by_hand_lets_in_what_has_its_hash(master: Master) -> None:
    token = "tt.0123456789ab." + "x" * 43
    digest = hashlib.sha256(token.encode()).digest()
    row = TokenRow("0123456789ab", "n", Role.VIEWER, "", digest, 1, "admin")
    assert master.get("/runs", token=token).status == 401
    master.on_loop(lambda: master.engine.book.committed(KeepToken(row), None))
    assert master.get("/runs", token=token).status == 200
    for wrong in (token[:-1], token + "x", token.replace("tt.", "tj."), token[:-1] + "y", TOKEN[:-1]):
        assert master.get("/runs", token=wrong).status == 401
