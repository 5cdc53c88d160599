"""Jobs: found by whatever a person types, explained, read, waited for, cancelled."""

import difflib
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.api.master import Answer, Master
from tests.api.test_runs import refused, waiting
from titan.core import reasons
from titan.master import finding
from titan.model.wire import Dropped, Output


def lookup(master: Master, text: str, **more: str) -> Any:
    query = "".join(f"&{name}={value}" for name, value in more.items())
    answer = master.get(f"/jobs/lookup?id={text}{query}")
    assert answer.status == 200, answer.body
    return answer.json


# Teach


def test_a_text_names_a_job_or_a_run(master: Master) -> None:
    run = master.submit(waiting("teach"))["id"]
    for text in ("teach", f"{run}/teach", f"{run[:8]}/teach", "@last/teach", "DAG-teach", f"{run}/DAG-teach"):
        found = lookup(master, text)
        assert (found["run_id"], found["job_id"]) == (run, "teach"), text
        assert found["job"]["id"] == "teach"
        assert found["run"]["id"] == run
    for text in (run, run[:8], "@last"):
        found = lookup(master, text)
        assert (found["run_id"], found["job_id"], found["job"]) == (run, None, None), text


def test_an_exact_job_id_goes_before_a_run_s_prefix_and_is_never_a_prefix(master: Master) -> None:
    run = master.submit(waiting("whole-id"))["id"]
    prefix = run[:6]
    newer = master.submit(waiting(prefix))["id"]
    assert lookup(master, prefix)["run_id"] == newer
    assert master.get("/jobs/lookup?id=whole").status == 404
    older = master.submit(waiting("DAG-kept"))["id"]
    assert lookup(master, "DAG-kept")["job_id"] == "DAG-kept"
    assert lookup(master, "DAG-kept")["run_id"] == older


def test_a_bare_id_is_looked_for_from_the_caller_s_run_upwards_then_in_the_newest(master: Master) -> None:
    with master.worker() as worker:
        top = master.submit(worker.job("agent"), waiting("shared"), waiting("only-on-top"))["id"]
        grant = worker.start()
        below = master.submit(worker.job("child"), waiting("shared"), token=grant.token)["id"]
        child = worker.start()
        newest = master.submit(waiting("shared"), waiting("only-on-top"))["id"]
        assert lookup(master, "shared")["run_id"] == newest
        assert lookup(master, "shared", run=top)["run_id"] == top
        assert lookup(master, "shared", run=below)["run_id"] == below
        answer = master.get("/jobs/lookup?id=shared", token=child.token)
        assert answer.json["run_id"] == below, "the job's own run, by its token"
        assert master.get("/jobs/lookup?id=only-on-top", token=child.token).json["run_id"] == top
        assert master.get("/jobs/lookup?id=shared", token=grant.token).json["run_id"] == top


def test_explain_says_why_and_what_would_help(master: Master) -> None:
    run = master.submit(waiting("a"), waiting("b", parents=["a"]))["id"]
    a = master.get(f"/runs/{run}/jobs/a/explain").json
    assert (a["state"], a["reason"]) in (("QUEUED", "NO_WORKER_WITH_CAPABILITY"), ("QUEUED", "NO_WORKER_CONNECTED"))
    assert "titan worker" in a["remedy"]
    b = master.get(f"/runs/{run}/jobs/b/explain").json
    assert (b["state"], b["reason"]) == ("BLOCKED", "PARENTS_UNFINISHED")
    master.post(f"/runs/{run}/jobs/a/cancel")
    assert master.get(f"/runs/{run}/wait").json["done"]
    a = master.get(f"/runs/{run}/jobs/a/explain").json
    assert (a["state"], a["reason"]) == ("CANCELLED", "CANCEL_REQUESTED")
    assert (a["message"], a["remedy"]) == (reasons.ENDS["CANCEL_REQUESTED"], reasons.AGAIN)


def test_explain_of_a_failure_says_how_it_ended_and_how_to_go_on(master: Master) -> None:
    with master.worker() as worker:
        run = master.submit(worker.job("breaks"), waiting("behind", parents=["breaks"]))["id"]
        worker.end(worker.start(), exit_code=3)
        assert master.get(f"/runs/{run}/wait").json["done"]
        told = master.get(f"/runs/{run}/jobs/breaks/explain").json
        assert (told["state"], told["reason"]) == ("FAILED", "EXIT_CODE")
        ended = f"it ended with an exit code other than 0 (exit 3, attempt 1, worker {told['details']['worker']})"
        assert (told["message"], told["remedy"]) == (ended, reasons.AFTER_A_FIX)
        behind = master.get(f"/runs/{run}/jobs/behind/explain").json
        assert (behind["message"], behind["remedy"]) == (reasons.ENDS["PARENT_FAILED"], reasons.AGAIN)


def test_cancelling_a_job_cancels_what_waits_for_it_and_nothing_else(master: Master) -> None:
    run = master.submit(waiting("a"), waiting("b", parents=["a"]), waiting("c"))["id"]
    cancelled = master.post(f"/runs/{run}/jobs/a/cancel").json["job"]
    assert (cancelled["state"], cancelled["reason"]) == ("CANCELLED", "CANCEL_REQUESTED")
    assert master.get(f"/runs/{run}/jobs/b/wait").json["job"]["state"] == "CANCELLED"
    assert master.get(f"/runs/{run}/jobs/c").json["state"] == "QUEUED"
    assert master.post(f"/runs/{run}/jobs/a/cancel").json["job"] == cancelled


def test_a_job_that_runs_is_shown_as_cancelling_until_its_end(master: Master) -> None:
    with master.worker() as worker:
        run = master.submit(worker.job("a"))["id"]
        grant = worker.start()
        assert master.post(f"/runs/{run}/jobs/a/cancel").json["job"]["cancelling"]
        assert master.get(f"/runs/{run}/jobs/a/explain").json["reason"] == "CANCELLING"
        worker.end(grant, exit_code=0)
        ended = master.get(f"/runs/{run}/jobs/a/wait").json["job"]
        assert (ended["state"], ended["cancelling"]) == ("CANCELLED", False)


def test_a_wait_ends_with_the_job_and_not_with_its_run(own_master: Callable[..., Master]) -> None:
    master = own_master(wait_s_max=3_600)
    with master.worker() as worker:
        run = master.submit(worker.job("a"), waiting("b"))["id"]
        grant = worker.start()
        assert not master.get(f"/runs/{run}/jobs/a/wait?timeout_s=0").json["done"]
        answers: list[Answer] = []
        waiter = threading.Thread(target=lambda: answers.append(master.get(f"/runs/{run}/jobs/a/wait?timeout_s=3600")))
        waiter.start()
        while not master.on_loop(lambda: master.engine.live._watches.get(("job", run, "a"))):
            pass
        worker.end(grant, exit_code=3)
        waiter.join(30)
        ended = answers[0].json
        assert (ended["done"], ended["job"]["state"], ended["job"]["exit_code"]) == (True, "FAILED", 3)


# Prove: what is read of logs


def read(master: Master, run: str, query: str = "") -> Answer:
    answer = master.get(f"/runs/{run}/jobs/a/log{query}")
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("application/octet-stream")
    return answer


def marks(answer: Answer) -> tuple[bytes, int, int, str]:
    headers = answer.headers
    return answer.body, int(headers["titan-log-offset"]), int(headers["titan-log-total"]), headers["titan-log-complete"]


def test_a_log_is_read_in_ranges_of_raw_bytes(master: Master) -> None:
    text = b"one\r\n\xfftwo\x00three"
    with master.worker() as worker:
        run = master.submit(worker.job("a"))["id"]
        assert marks(read(master, run)) == (b"", 0, 0, "false")
        grant = worker.start()
        worker.end(grant, log=text)
        assert master.get(f"/runs/{run}/wait").json["done"]
    size = len(text)
    assert marks(read(master, run)) == (text, 0, size, "true")
    assert marks(read(master, run, "?offset=4&limit=3")) == (text[4:7], 4, size, "true")
    assert marks(read(master, run, "?offset=-5")) == (text[-5:], size - 5, size, "true")
    assert marks(read(master, run, "?offset=-5000")) == (text, 0, size, "true")
    assert marks(read(master, run, "?limit=0")) == (b"", 0, size, "true")
    assert marks(read(master, run, f"?offset={size}&follow_s=25")) == (b"", size, size, "true")
    assert read(master, run, f"?offset={size + 9}").body == b""


def test_i32_an_answer_ends_where_bytes_are_missing_and_says_how_many(master: Master) -> None:
    with master.worker() as worker:
        run = master.submit(worker.job("a"))["id"]
        grant = worker.start()
        worker.say(
            Output(grant.fence, 0, b"head"), Dropped(grant.fence, 4, 90, "full\r\nx: y"), Output(grant.fence, 94, b"!")
        )
        worker.end(grant)
        assert master.get(f"/runs/{run}/wait").json["done"]
    first = read(master, run)
    assert marks(first) == (b"head", 0, 95, "true")
    said = [first.headers[f"titan-log-{name}"] for name in ("next", "dropped", "dropped-why")]
    assert said == ["94", "90", "full\\r\\nx: y"]
    last = read(master, run, "?offset=94")
    assert (marks(last), "titan-log-dropped" in last.headers) == ((b"!", 94, 95, "true"), False)
    assert read(master, run, "?offset=50").headers["titan-log-dropped"] == "44"
    assert marks(read(master, run, "?offset=-3")) == (b"ad", 2, 95, "true")


def test_each_attempt_has_its_own_log(master: Master) -> None:
    with master.worker() as worker:
        run = master.submit(worker.job({"job_id": "a", "retries": 1, "retry_backoff_s": 0}))["id"]
        worker.end(worker.start(), exit_code=1, log=b"first")
        worker.end(worker.start(), log=b"second")
        assert master.get(f"/runs/{run}/wait").json["done"]
    assert read(master, run).body == b"second"
    assert read(master, run).headers["titan-log-attempt"] == "2"
    assert read(master, run, "?attempt=1").body == b"first"
    tried = master.get(f"/runs/{run}/jobs/a/attempts").json["attempts"]
    assert [(each["attempt"], each["exit_code"], each["log_bytes"]) for each in tried] == [(1, 1, 5), (2, 0, 6)]
    refused(master.get(f"/runs/{run}/jobs/a/log?attempt=0"), 404, "not_found", "no attempt 0", "1, 2")


def test_a_log_is_followed_until_it_is_complete(own_master: Callable[..., Master]) -> None:
    master = own_master(wait_s_max=3_600)
    with master.worker() as worker:
        run = master.submit(worker.job("a"))["id"]
        grant = worker.start()
        heard: list[tuple[bytes, int, int, str]] = []
        done = threading.Event()

        def follow() -> None:
            offset = 0
            while not heard or heard[-1][3] == "false":
                heard.append(marks(read(master, run, f"?offset={offset}&follow_s=3600")))
                offset += len(heard[-1][0])
            done.set()

        threading.Thread(target=follow).start()
        for number in range(3):
            worker.say(Output(grant.fence, number * 4, b"abc\n"))
            while sum(len(each[0]) for each in heard) < (number + 1) * 4:
                pass
        worker.end(grant)
        assert done.wait(30)
    assert b"".join(each[0] for each in heard) == b"abc\n" * 3
    assert heard[-1] == (b"", 12, 12, "true") or heard[-1][0]


# Break


def test_what_is_not_there_is_named_with_the_nearest(master: Master) -> None:
    run = master.submit(waiting("extract_data"), waiting("train_model"))["id"]
    refused(master.get("/jobs/lookup?id=train_modle"), 404, "not_found", "train_modle", "did you mean train_model")
    refused(master.get(f"/jobs/lookup?id={run}/extract"), 404, "not_found", "did you mean extract_data")
    refused(master.get(f"/jobs/lookup?id={'0' * 32}/x"), 404, "not_found", "no run")
    refused(master.get("/jobs/lookup?id=@nothing"), 404, "not_found", "@nothing")
    refused(master.get(f"/runs/{run}/jobs/trainmodel"), 404, "not_found", "did you mean train_model")
    refused(master.get(f"/runs/{run}/jobs/zzz"), 404, "not_found", "titan ps")
    for path in ("explain", "log", "wait", "attempts"):
        refused(master.get(f"/runs/{run}/jobs/zzz/{path}"), 404, "not_found")
    refused(master.post(f"/runs/{run}/jobs/zzz/cancel"), 404, "not_found")


def test_what_is_nearest_is_looked_for_beside_the_loop_and_not_for_ever(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def get_close_matches(*arguments: Any) -> list[str]:
        looked.append(threading.current_thread().name)
        return difflib.get_close_matches(*arguments)

    monkeypatch.setattr(finding, "difflib", SimpleNamespace(get_close_matches=get_close_matches))
    loop = master.on_loop(lambda: threading.current_thread().name)
    run = master.submit(waiting("extract"))["id"]
    refused(master.get(f"/runs/{run}/jobs/extrac"), 404, "not_found", "did you mean extract")
    assert looked
    assert loop not in looked
    looked.clear()
    # Two letters alone: each comparison of such texts takes milliseconds.
    similar = master.submit(*(waiting(f"{number:0128b}".replace("0", "a").replace("1", "b")) for number in range(99)))
    refused(master.get(f"/runs/{similar['id']}/jobs/{'ab' * 64}"), 404, "not_found", "lists its jobs")
    assert not looked


@pytest.mark.parametrize("text", ["", "%00", "%FF", "a%20b", "..%2F..", "%F0%9F%98%80", "x" * 3000, "-"])
def test_no_text_breaks_the_lookup(master: Master, text: str) -> None:
    assert master.get(f"/jobs/lookup?id={text}").code in ("not_found", "invalid")
    assert master.get(f"/runs/{text}/jobs/{text}").status in (404, 405)


def test_a_lookup_without_a_text_is_refused(master: Master) -> None:
    refused(master.get("/jobs/lookup"), 422, "invalid", "id")


@pytest.mark.parametrize(
    "query", ["offset=x", "limit=-1", "limit=16777217", "attempt=x", "follow_s=-1", "follow_s=nan"]
)
def test_a_bad_range_is_refused(master: Master, query: str) -> None:
    run = master.submit(waiting("a"))["id"]
    refused(master.get(f"/runs/{run}/jobs/a/log?{query}"), 422, "invalid")


def test_an_offset_beyond_all_numbers_is_answered(master: Master) -> None:
    with master.worker() as worker:
        run = master.submit(worker.job("a"))["id"]
        worker.end(worker.start(), log=b"abc")
        assert master.get(f"/runs/{run}/wait").json["done"]
    assert read(master, run, f"?offset={2**63}").body == b""
    assert read(master, run, f"?offset=-{2**80}").body == b"abc"
