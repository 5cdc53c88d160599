"""Machines that join and leave: an enrolment is good once, its credential speaks for one name and for what it holds."""

import itertools
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.api.master import TOKEN, Answer, Master, Worker
from tests.api.test_gate import raw, served
from titan.model.tokens import credential_id, hash_of, make
from titan.model.wire import CLOSE_DENIED, Ended, Held, Output, Returned, Started
from titan.worker import joining
from titan_sdk.errors import Unauthenticated, Unavailable, Unreachable
from titan_sdk.transport import Transport


def invited(master: Master, **body: Any) -> str:
    answer = master.post("/workers/join-tokens", body)
    assert answer.status == 201, answer.body
    token: str = answer.json["token"]
    return token


def enrol(master: Master, name: str, token: str | None = None) -> Answer:
    """Enrol with a credential made here; it is put into the answer, which is the worker's only way to tell."""
    enrolment = token or invited(master)
    made = make(credential_id((enrolment.split(".") * 2)[1])).text
    body = {"name": name, "sha256": hash_of(made).hex()}
    answer = master.post("/workers/enrol", body, token=enrolment)
    if answer.status == 201:
        assert answer.json == {"worker": name, "token_id": made.split(".")[1]}
        answer.body = json.dumps({**answer.json, "token": made}).encode()
    return answer


def credential(master: Master, name: str) -> str:
    answer = enrol(master, name)
    assert answer.status == 201, answer.body
    assert answer.json["worker"] == name
    token: str = answer.json["token"]
    return token


def refused(master: Master, name: str, token: str) -> tuple[int, str]:
    """Return with what a hello of `name` is refused."""
    worker = Worker(master.port, name, token=token)
    with pytest.raises(ConnectionClosed) as end:
        worker.__enter__()
    worker.__exit__()
    assert end.value.rcvd is not None
    return end.value.rcvd.code, end.value.rcvd.reason


def test_s16_an_enrolment_becomes_the_credential_of_one_worker(master: Master) -> None:
    token = credential(master, "box-a")
    with Worker(master.port, "box-a", token=token) as worker:
        run = master.submit(worker.job("a"))["id"]
        worker.end(worker.start())
        assert master.get(f"/runs/{run}/wait").json["done"]
    assert master.get("/runs", token=token).status == 403
    about = next(each for each in master.get("/tokens?limit=1000").json["tokens"] if each["worker"] == "box-a")
    assert (about["role"], about["state"], about["expires_at"]) == ("worker", "living", None)


def test_s16_an_enrolment_is_good_once_however_many_use_it_at_once(master: Master) -> None:
    token = invited(master)
    begin = threading.Barrier(8)
    answers: list[Answer] = []

    def use(name: str) -> None:
        begin.wait(60)
        answers.append(enrol(master, name, token))

    threads = [threading.Thread(target=use, args=(f"once-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answer.status for answer in answers) == [201] + [401] * 7
    assert enrol(master, "once-more", token).status == 401
    assert len([each for each in master.get("/tokens?limit=1000").json["tokens"] if "once-" in each["worker"]]) == 1


def test_s16_an_enrolment_may_enrol_and_do_nothing_else(master: Master) -> None:
    token, digest = invited(master), master.put("/registry/enrolments.py", b"secret").json["sha256"]
    asked = [("GET", f"/api/v1/blobs/{digest}"), *((m, p) for m, p, _ in served(master))]
    for method, path in asked:
        if path not in ("/api/v1/healthz", "/api/v1/workers/enrol"):
            assert raw(master, method, path, token)[0] == 403, (method, path)
    answer = master.get(f"/blobs/{digest}", token=token)
    assert (answer.code, "enrolment" in answer.json["detail"]) == ("denied", True)
    with pytest.raises(InvalidStatus) as end:
        Worker(master.port, "box-e", token=token)
    assert end.value.response.status_code == 403
    own = enrol(master, "box-i", token).json["token"]
    assert master.get(f"/blobs/{digest}", token=own).body == b"secret"


def test_s16_an_enrolment_that_gave_no_credential_is_still_good(master: Master) -> None:
    """Whatever the Master does not get to write: the enrolment is used up with its credential, or not at all."""
    for written in range(4):
        token, name = invited(master), f"cut-{written}"
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(master.engine, "mutate", failing(master.engine.mutate, after=written))
            answer = enrol(master, name, token)
        assert answer.status in (201, 503)
        used = answer.status == 201
        assert enrol(master, name, token).status == (401 if used else 201)
        listed = [each for each in master.get("/tokens?limit=1000").json["tokens"] if each["worker"] == name]
        assert len(listed) == 1


def failing(mutate: Any, after: int) -> Any:
    """Return `mutate` as it is when the Master goes down after so many calls."""
    calls = itertools.count()

    async def instead(*operations: Any) -> Any:
        if next(calls) >= after:
            raise Unavailable("the Master is down")
        return await mutate(*operations)

    return instead


def joined(master: Master, folder: Path, name: str, enrolment: str) -> str:
    """Have a worker's own code join, and return the credential that it goes on with."""
    folder.mkdir(exist_ok=True)
    admission = joining.admit(folder, name, [master.url], enrolment, "", folder / "none", lambda _: None)
    assert admission.is_own
    return admission.token_file.read_text().strip()


def answers_are_lost(monkeypatch: pytest.MonkeyPatch, *, resent: bool) -> None:
    """Have the first answer to an enrolment get lost; the request is sent again by the transport or not at all."""
    call = Transport.call
    lost = iter([True])

    def losing(self: Transport, method: str, path: str, **more: Any) -> Any:
        reply = call(self, method, path, **more)
        if path == "workers/enrol" and next(lost, False):
            if not resent:
                raise Unreachable("nobody answered")
            return call(self, method, path, **more)
        return reply

    monkeypatch.setattr(Transport, "call", losing)


def test_s16_an_enrolment_whose_answer_is_lost_is_not_lost(
    master: Master, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, resent in (("lost-a", True), ("lost-b", False)):
        enrolment = invited(master)
        with monkeypatch.context() as patched:
            answers_are_lost(patched, resent=resent)
            if not resent:
                with pytest.raises(Unreachable):
                    joined(master, tmp_path / name, name, enrolment)
                assert not (tmp_path / name / "credential").exists()
            made = joined(master, tmp_path / name, name, enrolment)
        with Worker(master.port, name, token=made):
            pass
        assert [path.name for path in (tmp_path / name).iterdir()] == ["credential"]
        assert joined(master, tmp_path / name, name, enrolment) == made  # the line may be pasted again
        with pytest.raises(Unauthenticated, match="it was used"):
            joined(master, tmp_path / "elsewhere", name, enrolment)
        assert not [*(tmp_path / "elsewhere").iterdir()]
        assert enrol(master, name, enrolment).status == 401


@pytest.mark.parametrize("digest", ["", "abc", "0" * 63, "g" * 64, "A" * 64, "0" * 65])
def test_what_is_no_hash_of_a_credential_is_refused_and_uses_nothing_up(master: Master, digest: str) -> None:
    enrolment = invited(master)
    answer = master.post("/workers/enrol", {"name": "box-n", "sha256": digest}, token=enrolment)
    assert (answer.status, "SHA-256 of a credential" in answer.json["detail"]) == (422, True)
    assert master.get("/blobs/" + "0" * 64, token=enrolment).status == 403


def test_s16_an_enrolment_ends(master: Master) -> None:
    token = invited(master, expires_s=0.001)
    while enrol(master, "../is looked at later", token).status == 422:
        pass
    assert enrol(master, "late", token).status == 401
    for expires_s in (0, -1, 1e9):
        assert master.post("/workers/join-tokens", {"expires_s": expires_s}).status == 422


def test_s16_a_token_of_another_role_is_no_enrolment_and_is_not_used_up(master: Master) -> None:
    made = master.post("/tokens", {"name": "boss", "role": "admin"}).json
    answer = enrol(master, "box-n", made["token"])
    assert (answer.status, "no enrolment" in answer.json["detail"]) == (409, True)
    assert master.get("/tokens", token=made["token"]).status == 200
    assert enrol(master, "box-n").status == 201


def test_s16_one_name_is_given_once(master: Master) -> None:
    token = credential(master, "box-b")
    second = invited(master)
    for answer in (enrol(master, "box-b", second), enrol(master, "box-b")):
        assert answer.status == 409
        assert "titan worker remove" in answer.json["hint"]
    with Worker(master.port) as local:
        assert enrol(master, local.name).status == 409
    assert enrol(master, "box-c", second).status == 201  # a refusal does not use it up
    with Worker(master.port, "box-b", token=token):
        pass


def test_s16_a_credential_speaks_for_no_other_name(master: Master) -> None:
    token = credential(master, "box-d")
    with Worker(master.port) as other:
        code, reason = refused(master, other.name, token)
        assert (code, "its token is that of worker box-d" in reason) == (CLOSE_DENIED, True)
        run = master.submit(other.job("a"))["id"]
        other.end(other.start())
        assert master.get(f"/runs/{run}/wait").json["done"]
    assert enrol(master, "box-e", token).status == 409


@pytest.mark.parametrize("name", ["", ".", "../x", "a b", "a/b", "x" * 200, "a\n"])
def test_a_name_that_can_be_none_is_refused_and_uses_nothing_up(master: Master, name: str) -> None:
    token = invited(master)
    assert enrol(master, name, token).status == 422
    assert enrol(master, f"good-{abs(hash(name))}", token).status == 201


@pytest.mark.parametrize("after_a_load", [False, True])
def test_s16_a_worker_reports_nothing_about_the_attempts_of_another(master: Master, *, after_a_load: bool) -> None:
    name = f"thief-{after_a_load}"
    token = credential(master, name)
    with Worker(master.port) as holder:
        run = master.submit(holder.job("a"))["id"]
        grant = holder.start()
        holder.say(Output(grant.fence, 0, b"mine"))
        assert master.get(f"/runs/{run}/jobs/a/log?follow_s=25").body == b"mine"
        if after_a_load:  # the Master does not know any more whose log it is, until the holder is back
            master.on_loop(master.engine.links._offsets.end_all)
        thief = Worker(master.port, name, token=token, attempts=(Held(grant.fence, started=True),))
        with thief._connecting as link:
            thief.link = link
            thief.say(thief._hello, Output(grant.fence, 4, b"yours"))
            assert f"the log of {grant.fence} is not that of {name}" in thief.closed()[1]
        with Worker(master.port, name, token=token) as thief:
            thief.say(Started(grant.fence), Ended(grant.fence, 7), Returned(grant.fence))
            thief.hear()
        job = master.get(f"/runs/{run}/jobs/a").json
        assert (job["state"], job["worker"]) == ("RUNNING", holder.name)
        assert master.get(f"/runs/{run}/jobs/a/log").body == b"mine"
        if not after_a_load:
            holder.say(Ended(grant.fence, 0, log_bytes=4))
            assert master.get(f"/runs/{run}/wait").json["run"]["state"] == "COMPLETED"


def test_s16_a_worker_that_is_removed_is_cut_off_and_its_name_is_free(master: Master) -> None:
    token = credential(master, "box-f")
    with Worker(master.port, "box-f", token=token) as worker:
        answer = master.post("/workers/box-f/remove")
        assert (answer.status, len(answer.json["revoked"])) == (200, 1)
        assert worker.closed()[0] == CLOSE_DENIED
    assert master.post("/workers/enrol", {"name": "box-g", "sha256": "0" * 64}, token=token).status == 401
    assert credential(master, "box-f") != token


def test_what_cannot_be_removed_is_said(master: Master) -> None:
    assert master.post("/workers/nobody/remove").status == 404
    with Worker(master.port) as local:
        answer = master.post(f"/workers/{local.name}/remove")
        assert (answer.status, "drain" in answer.json["hint"]) == (409, True)


def test_only_an_admin_lets_machines_in(master: Master) -> None:
    operator = master.post("/tokens", {"name": "o", "role": "operator"}).json["token"]
    assert master.post("/workers/join-tokens", {}, token=operator).status == 403
    assert master.post("/workers/nobody/remove", token=operator).status == 404
    assert enrol(master, "box-h", TOKEN).status == 409
