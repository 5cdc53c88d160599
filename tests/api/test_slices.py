"""Large work gives way: while one request is worked on for long, others are answered."""

import asyncio
import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api.master import NDJSON, Master, job, lines
from titan.core.events import NewRun
from titan.master import turns
from titan.master.engine import Engine
from titan.master.turns import Turns


def test_a_slice_that_is_over_lets_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(turns.time, "monotonic", lambda: now[0])

    async def work() -> list[int]:
        others: list[int] = []
        task = asyncio.create_task(count(others))
        mine = Turns()
        await mine.give()
        assert others == [], "the slice has only begun"
        now[0] = turns.SLICE_S
        await mine.give()
        await mine.give()
        assert others == [1], "one turn for the others, then a new slice"
        assert await mine.through(steps()) == "done"
        await task
        return others

    assert asyncio.run(work()) == [1]


async def count(others: list[int]) -> None:
    others.append(1)


def steps():  # type: ignore[no-untyped-def]
    yield
    yield
    return "done"


def test_others_are_answered_while_a_large_run_is_accepted_cancelled_and_tried_again(master: Master) -> None:
    count = 20_000
    far = {"requirement": ["NOWHERE"]}
    text = lines({"name": "large", "jobs": count}, *[{**job(f"j{n}"), **far} for n in range(count)])
    requests = [
        ("POST", "/runs", text, NDJSON),
        ("POST", "/runs/@last/cancel", None, {}),
        ("GET", "/runs/@last/wait", None, {}),
        ("POST", "/runs/@last/retry", {}, {}),
    ]
    with ThreadPoolExecutor(1) as thread:
        for request in requests:
            answer = thread.submit(master.request, *request)
            answered = 0
            while not answer.done():
                assert master.get("/healthz").status == 200
                answered += 1
            assert answer.result().status in (200, 201)
            assert answered
            if request[1].endswith("/wait"):
                assert master.get("/runs/@last").json["jobs"]["cancelled"] == count
    run = master.get("/runs/@last").json
    assert (run["state"], run["generation"], run["jobs"]["cancelled"]) == ("QUEUED", 2, 0)
    assert master.get("/runs/@last/jobs?state=CANCELLED").json["jobs"] == []
    assert {each["generation"] for each in master.get("/runs/@last/jobs").json["jobs"]} == {2}


def test_few_jobs_with_many_parents_come_in_slices_too(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = []
    submit_staged = Engine.submit_staged

    async def spy(engine: Engine, run: NewRun, *rest: Any) -> None:
        staged.append(run.run_id)
        await submit_staged(engine, run, *rest)

    monkeypatch.setattr(Engine, "submit_staged", spy)
    first = [job(f"a{n}") for n in range(60)]
    parents = [each["job_id"] for each in first]
    few = master.submit(*first, *[{**job(f"b{n}"), "parents": parents} for n in range(10)])
    many = master.submit(*first, *[{**job(f"b{n}"), "parents": parents} for n in range(60)])
    assert staged == [many["id"]]
    assert few["jobs"]["total"] == 70
    assert many["jobs"]["total"] == 120


def test_files_in_lines_of_their_own_belong_to_the_jobs_around_them(master: Master) -> None:
    contents = [b"print(%d)" % number for number in range(3)]
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    sent = {digest: base64.b64encode(content).decode() for digest, content in zip(digests, contents, strict=True)}
    jobs = [{"job_id": f"j{n}", "filename": "x.py", "script": digest} for n, digest in enumerate(digests)]
    parts = [{"blobs": {digest: text}} for digest, text in sent.items()]
    whole = lines({"name": "n", "jobs": 2, **parts[0]}, jobs[0], parts[1], jobs[1])
    made = master.post("/runs", whole, headers=NDJSON)
    assert (made.status, made.json["run"]["jobs"]["total"]) == (201, 2)
    extended = master.post(
        f"/runs/{made.json['run']['id']}/extend", lines({"jobs": 1}, parts[2], jobs[2]), headers=NDJSON
    )
    assert (extended.status, extended.json["run"]["jobs"]["total"]) == (201, 3)
    for digest, content in zip(digests, contents, strict=True):
        assert master.get(f"/blobs/{digest}").body == content
    for wrong in ([], {digests[0]: 5}):
        refused = master.post("/runs", lines({"name": "n", "jobs": 0}, {"blobs": wrong}), headers=NDJSON)
        assert (refused.status, "line 2: blobs is no object of texts" in refused.body.decode()) == (422, True)
