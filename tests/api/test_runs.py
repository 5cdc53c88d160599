"""Runs: listed, looked at, waited for, cancelled, tried again, extended."""

import hashlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.master import JSON, NDJSON, Answer, Master, job, lines
from titan.model.spec import decode_spec

FAR = {"requirement": ["NOWHERE"]}


def waiting(job_id: str, **more: Any) -> dict[str, Any]:
    """Return a job that waits for ever."""
    return {"job_id": job_id, **FAR, **more}


def refused(answer: Answer, status: int, code: str, *words: str) -> None:
    assert (answer.status, answer.code) == (status, code), answer.body
    for word in words:
        assert word in answer.json["detail"] + answer.json["hint"], answer.body


# Teach


def test_runs_are_listed_newest_first_page_by_page(own_master: Callable[..., Master]) -> None:
    master = own_master()
    ids = [master.submit(waiting("a"), name=f"n{number}")["id"] for number in range(5)]
    found, cursor = [], ""
    for _ in range(3):
        page = master.get(f"/runs?limit=2{cursor}").json
        found += [run["id"] for run in page["runs"]]
        cursor = f"&before={page['next']}"
    assert found == ids[::-1]
    assert page["next"] is None


def test_runs_are_filtered_by_state_name_and_agent_run(own_master: Callable[..., Master]) -> None:
    master = own_master()
    first = master.submit(waiting("a"), name="Nightly 100%", agent_run_id="agent")["id"]
    second = master.submit(waiting("a"), name="other")["id"]
    master.post(f"/runs/{second}/cancel")

    def ids(query: str) -> list[str]:
        return [run["id"] for run in master.get(f"/runs?{query}").json["runs"]]

    assert ids("state=CANCELLED") == [second]
    assert ids("state=queued,running") == [first]
    assert ids("state=QUEUED,CANCELLED") == [second, first]
    assert ids("name=nightly") == [first]
    assert ids("name=100%25") == [first]
    assert ids("name=%25") == [first], "a percent sign is only a percent sign"
    assert ids("name=_") == []
    assert ids("agent_run_id=agent") == [first]


def test_a_run_is_named_by_its_id_a_prefix_or_a_word(own_master: Callable[..., Master]) -> None:
    master = own_master()
    run = master.submit(waiting("a"))["id"]
    for text in (run, run[:8], run[:4], "@last"):
        assert master.get(f"/runs/{text}").json["id"] == run
    refused(master.get("/runs/@last-failed"), 404, "not_found", "@last-failed")
    master.post(f"/runs/{run}/cancel")


def test_a_cancelled_run_ends_and_stays_as_it_is(master: Master) -> None:
    run = master.submit(waiting("a"), waiting("b", parents=["a"]))["id"]
    answer = master.post(f"/runs/{run}/cancel")
    assert answer.status == 200
    ended = master.get(f"/runs/{run}/wait").json
    assert ended["done"]
    assert (ended["run"]["state"], ended["run"]["jobs"]["cancelled"]) == ("CANCELLED", 2)
    assert master.post(f"/runs/{run}/cancel").json["run"] == ended["run"]


def test_cancelling_a_run_cancels_the_living_runs_below(master: Master) -> None:
    with master.worker() as worker:
        top = master.submit(worker.job("a"))["id"]
        grant = worker.start()
        below = master.submit(waiting("b"), token=grant.token)["id"]
        master.post(f"/runs/{top}/cancel")
        assert master.get(f"/runs/{below}/wait").json["run"]["state"] == "CANCELLED"
        assert master.get(f"/runs/{top}").json["cancelling"]
        worker.end(grant, exit_code=143)
        assert master.get(f"/runs/{top}/wait").json["run"]["state"] == "CANCELLED"


def test_a_wait_ends_with_the_run(own_master: Callable[..., Master]) -> None:
    master = own_master(wait_s_max=3_600)
    with master.worker() as worker:
        run = master.submit(worker.job("a"))["id"]
        grant = worker.start()
        assert not master.get(f"/runs/{run}/wait?timeout_s=0").json["done"]
        answers: list[Answer] = []
        waiter = threading.Thread(target=lambda: answers.append(master.get(f"/runs/{run}/wait?timeout_s=3600")))
        waiter.start()
        while not master.on_loop(lambda: master.engine.live._watches.get(("run", run))):
            pass
        worker.end(grant)
        waiter.join(30)
        assert answers[0].json["done"]
        assert answers[0].json["run"]["state"] == "COMPLETED"


def test_what_is_served_without_the_framework_is_answered_as_with_it(master: Master) -> None:
    """A parameter that nobody knows is ignored, and makes a query that the framework reads."""
    run = master.submit(waiting("a"))["id"]
    for which in (run, run[:12], "@last", "f" * 32, "nonsense", "%40last", ""):
        for query in (
            "timeout_s=0",
            "generation=1&timeout_s=0.0",
            "generation=0&timeout_s=0",
            "generation=01&timeout_s=0",
            "timeout_s=00.0",
        ):
            plain, other = (master.get(f"/runs/{which}/wait?{query}{more}") for more in ("", "&x=1"))
            assert (plain.status, unnumbered(plain.json)) == (other.status, unnumbered(other.json)), (which, query)
            assert plain.headers.keys() == other.headers.keys()
    viewer = master.post("/tokens", {"name": "v", "role": "viewer"}).json["token"]
    denied = master.post("/runs", {"name": "r", "jobs": []}, token=viewer)
    assert (denied.status, denied.code) == (403, "denied")
    assert master.get(f"/runs/{run}/wait?timeout_s=0", token=viewer).status == 200
    assert master.get(f"/runs/{run}/wait?timeout_s=0", token="nobody").status == 401
    assert master.request("PUT", "/runs").status == 405


def unnumbered(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("instance", "request_id")}


def test_a_wait_that_is_over_its_time_says_so(own_master: Callable[..., Master]) -> None:
    master = own_master(wait_s_max=0.05)
    run = master.submit(waiting("a"))["id"]
    answer = master.get(f"/runs/{run}/wait?timeout_s=1000000")
    assert (answer.json["done"], answer.json["run"]["state"]) == (False, "QUEUED")


def test_a_retry_opens_the_next_generation(master: Master) -> None:
    with master.worker() as worker:
        run = master.submit(worker.job("a"), worker.job({"job_id": "b", "parents": ["a"]}), worker.job("c"))["id"]
        for _ in range(2):
            grant = worker.start()
            worker.end(grant, exit_code=int(grant.job_id == "a"))
        first = master.get(f"/runs/{run}/wait").json["run"]
        assert (first["state"], first["generation"]) == ("FAILED", 1)
        again = master.post(f"/runs/{run}/retry").json["run"]
        assert (again["generation"], again["state"]) == (2, "RUNNING") or again["state"] == "QUEUED"
        assert again["jobs"]["completed"] == 1
        assert master.get(f"/runs/{run}/wait?generation=1").json["done"], "the generation waited for has ended"
        assert not master.get(f"/runs/{run}/wait?generation=2&timeout_s=0").json["done"]
        worker.end(worker.start())
        worker.end(worker.start())
        done = master.get(f"/runs/{run}/wait").json["run"]
        assert (done["state"], done["generation"], done["jobs"]["completed"]) == ("COMPLETED", 2, 3)
        named = master.post(f"/runs/{run}/retry", {"job_ids": ["b"]}).json["run"]
        assert (named["generation"], named["jobs"]["completed"]) == (3, 2)
        worker.end(worker.start())


def test_a_retry_runs_the_file_as_it_is_by_now(master: Master) -> None:
    old, new = b"print('old')", b"print('new')"
    hashes = [hashlib.sha256(content).hexdigest() for content in (old, new)]
    for digest, content in zip(hashes, (old, new), strict=True):
        assert master.put(f"/blobs/{digest}", content).status == 204
    here = {"filename": "x.py", "script": hashes[0]}
    with master.worker() as worker:
        edited = worker.job({"job_id": "a", "source_path": "/home/ada/x.py", **here})
        other = worker.job({"job_id": "b", "source_path": "/home/ada/y.py", **here})
        done = worker.job({"job_id": "c", "source_path": "/home/ada/x.py", **here})
        run = master.submit(edited, other, done)["id"]
        for _ in range(3):
            grant = worker.start()
            worker.end(grant, exit_code=int(grant.job_id != "c"))
        assert master.get(f"/runs/{run}/wait").json["done"]
        again = master.post(f"/runs/{run}/retry", {"scripts": {"/home/ada/x.py": hashes[1]}})
        assert again.json["run"]["generation"] == 2
        ran = {grant.job_id: grant for grant in (worker.start(), worker.start())}
        assert {name: master.get(f"/runs/{run}/jobs/{name}").json["script"] for name in "abc"} == {
            "a": hashes[1],
            "b": hashes[0],
            "c": hashes[0],
        }
        assert decode_spec(ran["a"].spec).script == hashes[1], "the worker is sent what the row says"
        assert decode_spec(ran["b"].spec).script == hashes[0]
        for grant in ran.values():
            worker.end(grant)


def test_a_live_run_grows(master: Master) -> None:
    with master.worker() as worker:
        run = master.submit(worker.job("a"), waiting("hold"))["id"]
        worker.end(worker.start())
        answer = master.post(
            f"/runs/{run}/extend",
            {"jobs": [job(worker.job({"job_id": "b", "parents": ["a"]})), job(waiting("c", parents=["b"]))]},
        )
        assert answer.status == 201
        assert answer.json["run"]["jobs"]["total"] == 4
        assert answer.json["resolved"] == {"job.py": "registry"}
        assert worker.start().job_id == "b"
        assert [each["id"] for each in master.get(f"/runs/{run}/jobs").json["jobs"]] == ["a", "hold", "b", "c"]


def test_jobs_are_listed_by_state_page_by_page(master: Master) -> None:
    run = master.submit(*[waiting(f"j{n}") for n in range(3)], waiting("k", parents=["j0"]))["id"]
    page = master.get(f"/runs/{run}/jobs?limit=3").json
    rest = master.get(f"/runs/{run}/jobs?limit=3&after={page['next']}").json
    assert [each["id"] for each in page["jobs"] + rest["jobs"]] == ["j0", "j1", "j2", "k"]
    assert rest["next"] is None
    for states, count in (("BLOCKED", 1), ("queued", 3), ("PENDING", 4), ("QUEUED,BLOCKED", 4), ("COMPLETED", 0)):
        assert len(master.get(f"/runs/{run}/jobs?state={states}").json["jobs"]) == count


# Prove


def test_a_resent_extension_or_retry_is_done_once(master: Master) -> None:
    run = master.submit(waiting("a"))["id"]
    key = {"Idempotency-Key": f"extend-{run}"}
    more = {"jobs": [job(waiting("b"))]}
    assert master.post(f"/runs/{run}/extend", more, headers=key).status == 201
    again = master.post(f"/runs/{run}/extend", more, headers=key)
    assert (again.status, again.json["run"]["jobs"]["total"]) == (200, 2)
    other = master.submit(waiting("a"))["id"]
    refused(master.post(f"/runs/{other}/extend", more, headers=key), 409, "key_reused")

    master.post(f"/runs/{run}/cancel")
    assert master.get(f"/runs/{run}/wait").json["done"]
    key = {"Idempotency-Key": f"retry-{run}"}
    assert master.post(f"/runs/{run}/retry", headers=key).json["run"]["generation"] == 2
    assert master.post(f"/runs/{run}/retry", headers=key).json["run"]["generation"] == 2
    refused(master.post(f"/runs/{run}/retry", {"job_ids": ["a"]}, headers=key), 409, "key_reused")


def test_an_extension_under_a_finished_and_a_failed_parent(master: Master) -> None:
    with master.worker() as worker:
        run = master.submit(worker.job("good"), worker.job("bad"), waiting("hold"))["id"]
        for _ in range(2):
            grant = worker.start()
            worker.end(grant, exit_code=int(grant.job_id == "bad"))
        for parent in ("good", "bad"):
            assert master.get(f"/runs/{run}/jobs/{parent}/wait").json["done"]
        jobs = [job(waiting("below-good", parents=["good"])), job(waiting("below-bad", parents=["bad"]))]
        assert master.post(f"/runs/{run}/extend", {"jobs": jobs}).status == 201
        assert master.get(f"/runs/{run}/jobs/below-good").json["state"] == "QUEUED"
        below_bad = master.get(f"/runs/{run}/jobs/below-bad").json
        assert (below_bad["state"], below_bad["reason"]) == ("CANCELLED", "PARENT_FAILED")


# Break


@pytest.mark.parametrize(
    "text", ["ffffffffffffffffffffffffffffffff", "fffffff", "no-such-run", "abc", "DAG-none", "@first", "%00"]
)
def test_an_unknown_run_is_named_in_the_error(master: Master, text: str) -> None:
    for path in ("", "/wait", "/jobs", "/jobs/a", "/jobs/a/log"):
        answer = master.get(f"/runs/{text}{path}")
        refused(answer, 404, "not_found", "titan ps" if text[0] != "@" else "@first")
    for path in ("/cancel", "/retry", "/jobs/a/cancel"):
        refused(master.post(f"/runs/{text}{path}"), 404, "not_found")
    refused(master.post(f"/runs/{text}/extend", {"jobs": []}), 404, "not_found")


def test_a_job_s_id_where_a_run_is_asked_for_says_so(master: Master) -> None:
    master.submit(waiting("a-job-and-no-run"))
    refused(
        master.get("/runs/a-job-and-no-run"),
        404,
        "not_found",
        "that is the id of a job",
        "titan explain a-job-and-no-run",
    )


def test_a_prefix_of_several_runs_is_refused_with_their_ids(
    own_master: Callable[..., Master], monkeypatch: pytest.MonkeyPatch
) -> None:
    master = own_master()
    ids = iter([digit * 2 + "0" * 30 for digit in "12"] + ["11" + "f" * 30])
    monkeypatch.setattr("titan.master.accepting.secrets.token_hex", lambda _: next(ids))
    runs = [master.submit(waiting("a"))["id"] for _ in range(3)]
    assert master.get("/runs/1100").json["id"] == runs[0]
    monkeypatch.setattr("titan.master.accepting.secrets.token_hex", lambda _: "1100" + "a" * 28)
    twin = master.submit(waiting("a"))["id"]
    refused(master.get("/runs/1100"), 409, "conflict", runs[0], twin, "more digits")


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("limit=0", "1 to 1000"),
        ("limit=1001", "1 to 1000"),
        ("limit=-1", "1 to 1000"),
        ("limit=x", "limit"),
        ("limit=99999999999999999999", "1 to 1000"),
        ("state=STAGED", "no state of a run"),
        ("state=SLEEPING", "QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED"),
        ("before=nonsense", "cursor"),
        ("before=%00", "cursor"),
        ("before=1.1.1.1", "cursor"),
    ],
)
def test_a_bad_list_query_is_refused(master: Master, query: str, word: str) -> None:
    refused(master.get(f"/runs?{query}"), 422, "invalid", word)


@pytest.mark.parametrize(
    ("query", "word"),
    [("limit=1001", "1 to 1000"), ("state=FOO", "no state of a job"), ("after=x", "cursor"), ("after=-1", "cursor")],
)
def test_a_bad_jobs_query_is_refused(master: Master, query: str, word: str) -> None:
    run = master.submit(waiting("a"))["id"]
    refused(master.get(f"/runs/{run}/jobs?{query}"), 422, "invalid", word)


@pytest.mark.parametrize("query", ["timeout_s=-1", "timeout_s=nan", "timeout_s=x", "generation=x", "generation=1.5"])
def test_a_bad_wait_is_refused(master: Master, query: str) -> None:
    run = master.submit(waiting("a"))["id"]
    refused(master.get(f"/runs/{run}/wait?{query}"), 422, "invalid")


def test_a_retry_that_cannot_be(master: Master) -> None:
    run = master.submit(waiting("a"), waiting("b", parents=["a"]))["id"]
    refused(master.post(f"/runs/{run}/retry"), 409, "conflict", "has not ended")
    master.post(f"/runs/{run}/cancel")
    assert master.get(f"/runs/{run}/wait").json["done"]
    refused(master.post(f"/runs/{run}/retry", {"job_ids": ["x"]}), 404, "not_found", "no job x")
    refused(master.post(f"/runs/{run}/retry", {"job_ids": ["b"]}), 409, "conflict", "b waits for a")
    refused(master.post(f"/runs/{run}/retry", {"job_ids": "b"}), 422, "invalid")
    refused(master.post(f"/runs/{run}/retry", {"jobs": []}), 422, "invalid", "jobs")
    assert master.post(f"/runs/{run}/retry", b"{}", headers={"Content-Type": "text/plain"}).status == 415


def test_a_retry_with_files_that_cannot_be(own_master: Callable[..., Master]) -> None:
    master = own_master(submit_jobs_inline_max=2)
    content = b"print('new')"
    digest = hashlib.sha256(content).hexdigest()
    source = {"source_path": "/home/ada/x.py"}
    run = master.submit(waiting("a", **source), waiting("b", **source))["id"]
    extension = {"jobs": [job(waiting("c", **source))]}
    assert master.post(f"/runs/{run}/extend", extension).status == 201
    master.post(f"/runs/{run}/cancel")
    assert master.get(f"/runs/{run}/wait").json["done"]

    def retry(sha256: Any) -> Answer:
        return master.post(f"/runs/{run}/retry", {"scripts": {"/home/ada/x.py": sha256}})

    refused(retry("x"), 422, "invalid", "not a SHA-256")
    refused(retry(7), 422, "invalid")
    refused(retry(digest), 422, "file_not_found", "was not sent")
    assert master.put(f"/blobs/{digest}", content).status == 204
    refused(retry(digest), 413, "too_large", "3 jobs would run an edited file")
    many = {"scripts": dict.fromkeys(("x", "y", "z"), digest)}
    refused(
        master.post(f"/runs/{run}/retry", many), 413, "too_large", "3 edited files came", "at most 2", "nothing was"
    )
    assert master.get(f"/runs/{run}").json["generation"] == 1


def test_a_retry_names_no_more_jobs_than_a_run_has(own_master: Callable[..., Master]) -> None:
    master = own_master(dag_jobs_max=2)
    run = master.submit(waiting("a"))["id"]
    refused(master.post(f"/runs/{run}/retry", {"job_ids": ["a"] * 3}), 413, "too_large", "3 jobs are named: at most 2")
    refused(master.post(f"/runs/{run}/retry", {"job_ids": ["a"] * 2}), 409, "conflict", "has not ended")


def test_a_completed_run_is_retried_only_by_name(master: Master) -> None:
    with master.worker() as worker:
        run = master.submit(worker.job("a"))["id"]
        worker.end(worker.start())
        assert master.get(f"/runs/{run}/wait").json["done"]
        refused(master.post(f"/runs/{run}/retry"), 409, "conflict", "every job has completed")


def test_an_extension_that_cannot_be(own_master: Callable[..., Master]) -> None:
    master = own_master(submit_jobs_inline_max=2, dag_jobs_max=4)
    run = master.submit(waiting("a"), waiting("b"))["id"]

    def extend(*jobs: Any, **more: Any) -> Answer:
        return master.post(f"/runs/{run}/extend", {"jobs": [job(each) for each in jobs], **more})

    refused(extend(), 422, "invalid", "at least one job")
    refused(extend(waiting("a")), 422, "invalid", "taken")
    refused(extend(waiting("x", parents=["nobody"])), 422, "invalid", "not a job of this run")
    refused(extend(waiting("x", parents=["y"]), waiting("y", parents=["x"])), 422, "invalid", "circle")
    refused(extend(waiting("x", filename="lost.py")), 422, "file_not_found", "lost.py")
    refused(extend(*[waiting(f"x{n}") for n in range(3)]), 413, "too_large", "at most 2")
    refused(extend(waiting("x"), surprise=1), 422, "invalid", "surprise")
    assert master.post(f"/runs/{run}/extend", b"{}", headers={"Content-Type": "text/xml"}).status == 415
    assert master.post(f"/runs/{run}/extend", lines({"jobs": 1, "name": "n"}), headers=NDJSON).status == 422
    refused(master.post(f"/runs/{run}/extend", b"[", headers=JSON), 422, "invalid")
    assert extend(waiting("c"), waiting("d", parents=["a"])).status == 201
    refused(extend(waiting("e")), 413, "too_large", "TITAN_LIMIT_DAG_JOBS_MAX")
    assert master.get(f"/runs/{run}").json["jobs"]["total"] == 4


def test_a_run_that_has_ended_is_not_extended(master: Master) -> None:
    run = master.submit(waiting("a"))["id"]
    master.post(f"/runs/{run}/cancel")
    assert master.get(f"/runs/{run}/wait").json["done"]
    refused(master.post(f"/runs/{run}/extend", {"jobs": [job(waiting("b"))]}), 409, "conflict", "ended")


def test_waits_are_limited(own_master: Callable[..., Master]) -> None:
    master = own_master(waits_max=1)
    run = master.submit(waiting("a"))["id"]
    with master.events() as feed:
        answer = master.get(f"/runs/{run}/wait")
        refused(answer, 503, "unavailable", "limit")
        assert int(answer.headers["retry-after"]) >= 1
        assert feed.answer.status == 200


def test_short_ids_are_the_shortest_that_name_one_run(master: Master) -> None:
    run = master.submit(waiting("a"))["id"]
    short = master.get(f"/runs/short-ids?ids={run}").json["short_ids"][run]
    assert run.startswith(short)
    assert master.get(f"/runs/{short}").json["id"] == run
    refused(master.get("/runs/short-ids?ids=abc"), 422, "invalid", "full run id")
    refused(master.get("/runs/short-ids"), 422, "invalid", "ids")


def test_a_word_that_is_none_is_told_from_a_run_that_is_not_there_yet(master: Master) -> None:
    refused(master.get("/runs/@lst"), 404, "not_found", "'@lst' means nothing", "@last-failed")
