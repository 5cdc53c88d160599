"""Submitting: what is accepted, and every way in which it is not."""

import asyncio
import base64
import hashlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api.master import JSON, NDJSON, TOKEN, Answer, Master, Worker, job, lines
from titan.core.changes import Change


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sent(*contents: bytes) -> dict[str, str]:
    return {sha(content): base64.b64encode(content).decode() for content in contents}


def problems(answer: Answer) -> list[tuple[str, str, str]]:
    """Return (code, job, field) of every problem."""
    return [(each["code"], each.get("job_id", ""), each.get("field", "")) for each in answer.json["problems"]]


def body(*jobs: Any, **more: Any) -> dict[str, Any]:
    return {"name": "run", "jobs": [job(each) for each in jobs], **more}


# Teach


def test_a_run_is_accepted_shown_and_found(master: Master) -> None:
    jobs = [
        {"job_id": "first", "requirement": ["NOWHERE"], "args": ["a b", "", "|;'\"", "😀\n"]},
        {"job_id": "second", "parents": ["first"]},
    ]
    answer = master.post("/runs", body(*jobs, agent_run_id="agent 7"))
    assert answer.status == 201
    run = answer.json["run"]
    assert (run["name"], run["state"], run["generation"], run["agent_run_id"]) == ("run", "QUEUED", 1, "agent 7")
    assert run["root_run_id"] == run["id"]
    assert run["jobs"] == {"total": 2, "completed": 0, "failed": 0, "cancelled": 0, "dead": 0}
    assert answer.json["resolved"] == {"job.py": "registry"}
    assert answer.json["warnings"] == ["no connected worker offers NOWHERE: 1 job waits until one does"]
    first = master.get(f"/runs/{run['id']}/jobs/first").json
    assert (first["state"], first["args"], first["script"]) == ("QUEUED", jobs[0]["args"], sha(b"print('ok')"))
    assert master.get(f"/runs/{run['id']}/jobs/second").json["state"] == "BLOCKED"


def test_contents_ride_along_once_per_hash(master: Master) -> None:
    ours, unused = b"print('ours')", b"nobody names me"
    jobs = [
        {"job_id": f"j{n}", "filename": f"{n}/x.py", "script": sha(ours), "requirement": ["NOWHERE"]} for n in range(3)
    ]
    answer = master.post("/runs", body(*jobs, blobs=sent(ours, unused)))
    assert answer.status == 201
    assert answer.json["resolved"] == {}
    assert master.get(f"/blobs/{sha(ours)}").body == ours
    assert master.get(f"/blobs/{sha(unused)}").status == 404
    again = master.post("/runs", body(*jobs))
    assert again.status == 201, "a content that is here need not be sent"


def test_ndjson_takes_what_one_document_does_not(master: Master) -> None:
    count = 3_000
    header = {"name": "many", "jobs": count, "blobs": sent(b"many")}
    rows = [
        {
            "job_id": f"j{n}",
            "filename": "m.py",
            "script": sha(b"many"),
            "requirement": ["NOWHERE"],
            "parents": [f"j{n - 1}"] if n % 10 else [],
        }
        for n in range(count)
    ]
    answer = master.post("/runs", lines(header, *rows), headers=NDJSON)
    assert answer.status == 201, answer.body
    run = answer.json["run"]
    assert run["jobs"]["total"] == count
    page = master.get(f"/runs/{run['id']}/jobs?limit=1000").json
    assert [each["id"] for each in page["jobs"]] == [f"j{n}" for n in range(1_000)]
    assert master.post(f"/runs/{run['id']}/cancel").status == 200
    assert master.get(f"/runs/{run['id']}/wait").json["run"]["jobs"]["cancelled"] == count


def test_blank_lines_and_a_missing_last_newline_do_no_harm(master: Master) -> None:
    text = lines({"name": "n", "jobs": 1}) + b"\r\n \n" + lines({**job("a"), "requirement": ["NOWHERE"]})[:-1]
    assert master.post("/runs", text, headers=NDJSON).status == 201


def test_a_warning_counts_the_jobs_that_nobody_can_run_now(master: Master) -> None:
    jobs = [{"job_id": f"j{n}", "requirement": ["NOWHERE", "GPU"]} for n in range(2)]
    assert master.post("/runs", body(*jobs)).json["warnings"] == [
        "no connected worker offers GPU: 2 jobs wait until one does",
        "no connected worker offers NOWHERE: 2 jobs wait until one does",
    ]
    with master.worker() as worker:
        assert master.post("/runs", body(worker.job("a"))).json["warnings"] == []


# Prove: the same twice is done once


def test_i3_a_resent_submission_is_the_same_run(master: Master) -> None:
    key = {"Idempotency-Key": "resent-1"}
    first = master.post("/runs", body({"job_id": "a", "requirement": ["NOWHERE"]}), headers=key)
    second = master.post("/runs", body({"job_id": "a", "requirement": ["NOWHERE"]}), headers=key)
    assert (first.status, second.status) == (201, 200)
    assert second.json["run"]["id"] == first.json["run"]["id"]
    assert second.json["warnings"] == first.json["warnings"]
    assert second.json["resolved"] == first.json["resolved"]
    other = master.post("/runs", body("b"), headers=key)
    assert (other.status, other.code) == (409, "key_reused")


def test_a_refused_submission_does_not_use_its_key(master: Master) -> None:
    key = {"Idempotency-Key": "mended-1"}
    assert master.post("/runs", body({"job_id": "a", "filename": "mended.py"}), headers=key).status == 422
    master.script("mended.py")
    assert master.post("/runs", body({"job_id": "a", "filename": "mended.py"}), headers=key).status == 201


def test_the_same_key_at_the_same_time_makes_one_run(master: Master) -> None:
    key = {"Idempotency-Key": "racing-1"}
    document = json.dumps(body(*[{"job_id": f"j{n}", "requirement": ["NOWHERE"]} for n in range(200)]))
    gate = threading.Barrier(8)

    def send() -> Answer:
        gate.wait(30)
        return master.post("/runs", document, headers=key | JSON)

    with ThreadPoolExecutor(8) as threads:
        answers = [future.result() for future in [threads.submit(send) for _ in range(8)]]
    assert [answer.status for answer in answers].count(201) == 1
    runs = {answer.json["run"]["id"] for answer in answers if answer.status in (200, 201)}
    assert len(runs) == 1
    for answer in answers:
        assert answer.status in (200, 201) or (answer.code == "in_progress" and "retry-after" in answer.headers)
    assert master.post("/runs", document, headers=key | JSON).json["run"]["id"] in runs


def test_a_key_is_in_progress_while_a_large_run_is_received(own_master: Callable[..., Master]) -> None:
    """Held with the first copy between two of its chunks: the second copy must not begin anything."""
    master = own_master(submit_jobs_inline_max=2)
    text = lines({"name": "n", "jobs": 3}, *[{**job(f"j{n}"), "requirement": ["NOWHERE"]} for n in range(3)])
    headers = NDJSON | {"Idempotency-Key": "large-1"}
    seen: list[Answer] = []
    entered, go_on = threading.Event(), threading.Event()

    def second() -> None:
        assert entered.wait(30)
        seen.append(master.post("/runs", text, headers=headers))
        go_on.set()

    apply = master.engine.apply

    async def held(event: Any, extra: tuple[Change, ...] = (), operations: Any = ()) -> dict[str, Any]:
        if type(event).__name__ == "FlipRun":
            entered.set()
            await asyncio.to_thread(go_on.wait, 30)
        return await apply(event, extra, operations)

    master.engine.apply = held  # type: ignore[method-assign]
    other = threading.Thread(target=second)
    other.start()
    first = master.post("/runs", text, headers=headers)
    other.join(30)
    assert first.status == 201
    assert seen[0].code == "in_progress"
    assert seen[0].headers["retry-after"]
    assert master.get("/runs").json["runs"][0]["id"] == first.json["run"]["id"]
    assert len(master.get("/runs").json["runs"]) == 1
    assert master.post("/runs", text, headers=headers).status == 200


@pytest.mark.parametrize("key", ["", "x" * 201, "tab\tkey", "é"])
def test_a_key_that_is_none_is_refused(master: Master, key: str) -> None:
    answer = master.post("/runs", body("a"), headers={"Idempotency-Key": key})
    assert (answer.status, answer.code) == (422, "invalid")
    assert "Idempotency-Key" in answer.json["detail"]


# Prove: files, and who is whose child


def test_a_job_finds_its_own_script_then_the_registry(master: Master) -> None:
    own = b"print('me again')"
    with Worker(master.port) as worker:
        parent = {"job_id": "agent", "filename": "tools/autonomous_agent.py", "script": sha(own)}
        master.post("/runs", body(worker.job(parent), blobs=sent(own)))
        token = worker.start().token
        master.script("autonomous_agent.py", b"print('an impostor')")
        for name in ("autonomous_agent.py", "tools/autonomous_agent.py"):
            answer = master.post(
                "/runs", body({"job_id": "again", "filename": name, "requirement": ["NOWHERE"]}), token=token
            )
            assert answer.json["resolved"] == {name: "own script"}
            run = answer.json["run"]
            assert master.get(f"/runs/{run['id']}/jobs/again").json["script"] == sha(own)
        other = {"job_id": "x", "filename": "elsewhere/autonomous_agent.py", "requirement": ["NOWHERE"]}
        assert master.post("/runs", body(other), token=token).json["resolved"] == {other["filename"]: "registry"}
        person = master.post(
            "/runs", body({"job_id": "again", "filename": "autonomous_agent.py", "requirement": ["NOWHERE"]})
        )
        assert person.json["resolved"] == {"autonomous_agent.py": "registry"}


def test_the_registry_is_asked_under_the_base_name_and_the_newest_wins(master: Master) -> None:
    master.script("newest.py", b"1")
    master.script("newest.py", b"2")
    run = master.submit({"job_id": "a", "filename": "deep\\in/newest.py", "requirement": ["NOWHERE"]})
    assert master.get(f"/runs/{run['id']}/jobs/a").json["script"] == sha(b"2")


def test_the_agent_run_is_inherited_unless_named(master: Master) -> None:
    with Worker(master.port) as worker:
        top = master.submit(worker.job("a"), agent_run_id="the agent")
        token = worker.start().token
        below = master.submit({"job_id": "b", "requirement": ["NOWHERE"]}, token=token)
        named = master.submit({"job_id": "b", "requirement": ["NOWHERE"]}, token=token, agent_run_id="another")
        assert (below["agent_run_id"], below["root_run_id"]) == ("the agent", top["id"])
        assert (named["agent_run_id"], named["root_run_id"]) == ("another", top["id"])


def test_a_later_attempt_gets_its_child_run_and_opens_it_again_when_it_had_failed(master: Master) -> None:
    """The child fails, then its parent fails and is tried again: the child of the second attempt starts anew."""
    key = {"Idempotency-Key": "child-of-attempts"}
    with Worker(master.port) as worker:
        master.submit(worker.job({"job_id": "parent", "retries": 1, "retry_backoff_s": 0}))
        first = worker.start()
        child = master.post("/runs", body(worker.job("child")), headers=key, token=first.token).json["run"]
        worker.end(worker.start(), exit_code=1)
        assert master.get(f"/runs/{child['id']}/wait").json["run"]["state"] == "FAILED"
        same = master.post("/runs", body(worker.job("child")), headers=key, token=first.token)
        assert (same.json["run"]["id"], same.json["run"]["generation"]) == (child["id"], 1)
        worker.end(first, exit_code=1)
        second = worker.start()
        assert second.attempt == 2
        reopened = master.post("/runs", body(worker.job("child")), headers=key, token=second.token)
        assert (reopened.status, reopened.json["run"]["id"], reopened.json["run"]["generation"]) == (
            200,
            child["id"],
            2,
        )
        again = master.post("/runs", body(worker.job("child")), headers=key, token=second.token)
        assert again.json["run"]["generation"] == 2
        worker.end(worker.start())
        worker.end(second)
        assert master.get(f"/runs/{child['id']}/wait?generation=2").json["run"]["state"] == "COMPLETED"


# Break: everything that is wrong is told at once


def test_all_problems_are_listed_at_once(master: Master) -> None:
    jobs = [
        {"job_id": "bad id", "filename": "lost too.py"},
        {"job_id": "a", "filename": "nowhere/lost.py"},
        {"job_id": "b", "parents": ["nobody"], "priority": 1001, "timeout_s": -1},
        {"job_id": "c", "hitl_message": "ok?"},
        {"job_id": "d", "colour": "red"},
        {"job_id": "d", "args": "not a list"},
        {"job_id": "e", "script": "0" * 64},
        {"job_id": "f"},
        {"job_id": "f"},
        {"job_id": "g", "parents": ["bad id", "d"]},
        7,
    ]
    answer = master.post(
        "/runs",
        {"name": "", "jobs": [job(each) if isinstance(each, dict) else each for each in jobs], "blobs": {"x": ""}},
    )
    assert (answer.status, answer.code) == (422, "file_not_found")
    assert set(problems(answer)) == {
        ("invalid", "bad id", "job_id"),
        ("file_not_found", "bad id", "filename"),
        ("file_not_found", "a", "filename"),
        ("invalid", "b", "priority"),
        ("invalid", "b", "timeout_s"),
        ("invalid", "b", "parents"),
        ("unsupported", "c", "hitl_message"),
        ("invalid", "d", "colour"),
        ("invalid", "d", "args"),
        ("file_not_found", "e", "script"),
        ("invalid", "f", "job_id"),
        ("invalid", "d", "job_id"),
        ("invalid", "", ""),
        ("invalid", "", "name"),
        ("invalid", "", "blobs"),
    }
    where = next(each["message"] for each in answer.json["problems"] if each["code"] == "file_not_found")
    assert "lost.py" in where
    assert "registry" in where
    assert any(each["message"].startswith("job 11: a job is 7: give a JSON object") for each in answer.json["problems"])


def test_an_unknown_parent_and_a_cycle_are_named(master: Master) -> None:
    answer = master.post("/runs", body({"job_id": "a", "parents": ["b"]}, {"job_id": "b", "parents": ["a"]}))
    assert answer.status == 422
    assert "in a circle, so leave out one of these parents: b -> a -> b" in answer.json["detail"]
    # A job with another problem is part of the circle all the same.
    bad = {"job_id": "a", "parents": ["b"], "priority": -1}
    answer = master.post("/runs", body(bad, {"job_id": "b", "parents": ["a", "nobody"]}))
    assert [(each.get("job_id"), each["field"]) for each in answer.json["problems"]] == [
        ("a", "priority"),
        ("b", "parents"),
        ("a", "parents"),
    ]
    assert "in a circle, so leave out one of these parents: a -> b -> a" in answer.json["problems"][2]["message"]
    answer = master.post("/runs", body({"job_id": "a", "parents": ["nobody"]}))
    assert problems(answer) == [("invalid", "a", "parents")]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"   ",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"name": "\xed\xa0\x80", "jobs": []}',
        b'{"name": "x"}',
        b'{"jobs": []}',
        b'{"name": 7, "jobs": []}',
        b'{"name": "x", "jobs": {}}',
        b'{"name": "x", "jobs": [], "surprise": 1}',
        b'{"name": "x", "jobs": [], "blobs": []}',
        b'{"name": "x", "jobs": []}',
        b'{"name": "x", "jobs": [{}]}',
        b'{"name": "x", "jobs": [null]}',
        b'{"name": "x", "jobs": [{"job_id": "a", "filename": "job.py", "priority": 1e400}]}',
        b'{"name": "x", "jobs": [{"job_id": "a", "filename": "job.py", "priority": ' + b"9" * 5000 + b"}]}",
        b'{"name": "x", "jobs": [{"job_id": "a", "filename": "\\u0000"}]}',
        b'{"name": "x", "jobs": [{"job_id": "a", "filename": ".."}]}',
        b'{"name": "x\\u0000", "jobs": [{"job_id": "a", "filename": "job.py"}]}',
        b'{"name": "x\\u202e", "jobs": [{"job_id": "a", "filename": "job.py"}]}',
        b'{"name": "x", "jobs": [{"job_id": "a", "filename": "job.py"}], "agent_run_id": ""}',
        b'{"name": "x", "jobs": [{"job_id": "../a", "filename": "job.py"}]}',
        b'{"name": "x", "jobs": [{"job_id": "a", "filename": "job.py", "env": {"TITAN_TOKEN": "x"}}]}',
        b'{"name": "x", "jobs": [{"job_id": "a", "filename": "job.py", "env": {"A=B": "x"}}]}',
        b'{"name": "x", "jobs": [{"job_id": "a", "filename": "job.py", "args": ["\\u0000"]}]}',
    ],
)
def test_garbage_is_the_caller_s_fault_and_never_ours(master: Master, text: bytes) -> None:
    for kind in (JSON, NDJSON):
        answer = master.post("/runs", text, headers=kind)
        assert answer.status == 422, (kind, answer.body)
        assert answer.code


@pytest.mark.parametrize(
    "kind", [{}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}]
)
def test_s7_another_content_type_is_refused(master: Master, kind: dict[str, str]) -> None:
    answer = master.post("/runs", json.dumps(body("a")), headers=kind)
    assert answer.status == 415
    assert "application/json" in answer.json["hint"]


def test_a_content_type_may_have_parameters(master: Master) -> None:
    text = json.dumps(body({"job_id": "a", "requirement": ["NOWHERE"]}))
    assert master.post("/runs", text, headers={"Content-Type": "Application/JSON; charset=utf-8"}).status == 201


@pytest.mark.parametrize(
    ("announced", "count", "told"),
    [
        (2, 1, "1 jobs arrived of the 2"),
        (1, 2, "more lines than the 1 jobs"),
        (0, 1, "more lines than the 0 jobs"),
        (-1, 0, "-1 jobs"),
        (100_001, 1, "100001 jobs"),
    ],
)
def test_ndjson_must_bring_what_its_header_announced(master: Master, announced: int, count: int, told: str) -> None:
    text = lines({"name": "n", "jobs": announced}, *[job(f"j{n}") for n in range(count)])
    answer = master.post("/runs", text, headers=NDJSON)
    assert answer.status in (413, 422)
    assert told in answer.json["detail"]


def test_a_bad_line_is_named_by_its_number(master: Master) -> None:
    good = lines({"name": "n", "jobs": 2}, job("a"))
    assert "line 3" in master.post("/runs", good + b"{oops}\n", headers=NDJSON).json["detail"]
    assert (
        "line 3: a job is 7: give a JSON object" in master.post("/runs", good + b"7\n", headers=NDJSON).json["detail"]
    )
    assert "the first line" in master.post("/runs", b"nonsense\n", headers=NDJSON).json["detail"]


@pytest.mark.parametrize(
    ("blobs", "word"),
    [
        ({"nothex": ""}, "SHA-256"),
        ({sha(b"a"): "!!!"}, "base64"),
        ({sha(b"a"): base64.b64encode(b"b").decode()}, "other content"),
        ({sha(b"a"): base64.b64encode(b"x" * 65_537).decode()}, "PUT it"),
        ({sha(b"a"): "A" * 1_000_000}, "PUT it"),
    ],
)
def test_a_content_that_cannot_be_taken_says_why(master: Master, blobs: dict[str, str], word: str) -> None:
    answer = master.post("/runs", body("a", blobs=blobs))
    assert answer.status in (413, 422)
    assert word in answer.json["detail"]


def test_a_content_of_exactly_64_kib_rides_along(master: Master) -> None:
    content = b"#" * 65_536
    job_with = {"job_id": "a", "script": sha(content), "requirement": ["NOWHERE"]}
    assert master.post("/runs", body(job_with, blobs=sent(content))).status == 201
    assert master.get(f"/blobs/{sha(content)}").body == content


# Break: one over each limit


def over(answer: Answer, variable: str) -> None:
    assert (answer.status, answer.code) == (413, "too_large"), answer.body
    assert f"TITAN_LIMIT_{variable}" in answer.json["detail"] + answer.json["hint"]


def test_one_over_each_limit_of_a_body(own_master: Callable[..., Master]) -> None:
    master = own_master(submit_body_bytes_max=4_000, json_bytes_max=2_000)
    fits = json.dumps(body({"job_id": "a", "requirement": ["NOWHERE"]}, name="n"))
    assert master.post("/runs", fits.ljust(2_000), headers=JSON).status == 201
    over(master.post("/runs", fits.ljust(2_001), headers=JSON), "JSON_BYTES_MAX")
    over(master.post("/runs", fits.ljust(4_001), headers=JSON), "SUBMIT_BODY_BYTES_MAX")
    over(master.post("/runs", chunked(fits.ljust(3_000).encode()), headers=JSON), "JSON_BYTES_MAX")
    over(master.post("/runs", lines({"name": "n", "jobs": 1}) + b" " * 2_001, headers=NDJSON), "JSON_BYTES_MAX")
    over(master.post("/runs", lines({"name": "n", "jobs": 1}) + b" " * 2_001 + b"\n", headers=NDJSON), "JSON_BYTES_MAX")
    over(
        master.post("/runs", chunked(lines({"name": "n", "jobs": 1}) + b"\n" * 4_001), headers=NDJSON),
        "SUBMIT_BODY_BYTES_MAX",
    )
    assert master.post("/runs", fits, headers=JSON).status == 201, "the Master is as well as before"


def chunked(content: bytes) -> Any:
    """Return content that is sent in pieces, with no length announced."""
    return (content[at : at + 1_000] for at in range(0, len(content), 1_000))


def test_one_over_the_limit_of_jobs(own_master: Callable[..., Master]) -> None:
    master = own_master(submit_jobs_inline_max=2, dag_jobs_max=3)
    jobs = [{"job_id": f"j{n}", "requirement": ["NOWHERE"]} for n in range(4)]
    assert master.post("/runs", body(*jobs[:2])).status == 201
    refused = master.post("/runs", body(*jobs[:3]))
    assert (refused.status, refused.code) == (413, "too_large")
    assert "x-ndjson" in refused.json["hint"]
    assert master.post("/runs", lines({"name": "n", "jobs": 3}, *map(job, jobs[:3])), headers=NDJSON).status == 201
    over(master.post("/runs", lines({"name": "n", "jobs": 4}, *map(job, jobs)), headers=NDJSON), "DAG_JOBS_MAX")


def test_json_may_nest_32_deep_and_no_deeper(master: Master) -> None:
    def nested(depth: int) -> bytes:
        return (
            b'{"name":"x","jobs":[{"job_id":"a","filename":"job.py","args":'
            + b"[" * (depth - 3)
            + b"]" * (depth - 3)
            + b"}]}"
        )

    assert "nested deeper" not in master.post("/runs", nested(32), headers=JSON).body.decode()
    over(master.post("/runs", b"[" * 33 + b"]" * 33, headers=JSON), "JSON_DEPTH_MAX")
    for depth in (33, 300, 3_000, 300_000):
        assert "TITAN_LIMIT_JSON_DEPTH_MAX" in master.post("/runs", nested(depth), headers=JSON).body.decode(), depth


def test_a_job_of_a_run_that_is_cancelled_submits_nothing(master: Master) -> None:
    with Worker(master.port) as worker:
        run = master.submit(worker.job("a"))
        grant = worker.start()
        master.post(f"/runs/{run['id']}/cancel")
        answer = master.post("/runs", body("b"), token=grant.token)
        assert (answer.status, answer.code) == (409, "conflict")
        assert TOKEN not in answer.body.decode()
