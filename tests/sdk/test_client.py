"""Waits, handles, feeds and logs against a scripted Master: what a real one does too seldom to be tested on it."""

import json
import os
import socket
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.sdk.conftest import Connect, pauses_of
from tests.sdk.double import Double, Last, Request, answer, raw, refusal
from titan_sdk import Invalid, NotFound, Run, RunFailed, TimedOut, TitanClient, TitanJob, Unavailable
from titan_sdk.feeds import follow, parse

RUN_ID = "ab" * 16


def run(state: str = "RUNNING", generation: int = 1, **fields: Any) -> dict[str, Any]:
    counts = {"total": 2, "completed": 0, "failed": 0, "cancelled": 0, "dead": 0}
    return {"id": RUN_ID, "name": "n", "state": state, "generation": generation, "jobs": counts, **fields}


def query(request: Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(request.target).query).items()}


def handle(client: TitanClient, **fields: Any) -> Run:
    return Run(client, run(**fields))


def waited(done: bool, **fields: Any) -> bytes:
    return answer({"done": done, "run": run(**fields)})


# Waits.


def test_a_wait_asks_again_until_its_generation_has_ended(connect: Connect) -> None:
    replies = [waited(False), waited(False), waited(True, state="RUNNING", generation=2)]
    with Double(*replies) as master:
        client = connect(url=master.url)
        mine = handle(client)
        assert mine.wait() is mine
        assert [query(request).get("generation") for request in master.requests] == [None, "1", "1"]
        assert all(query(request)["timeout_s"] == "25.0" for request in master.requests)
        mine.wait()
        assert query(master.requests[-1])["generation"] == "1", "the handle keeps its generation"


def test_retry_moves_the_handle_on(connect: Connect) -> None:
    replies = [
        waited(True, state="FAILED"),
        answer({"run": run(generation=2)}),
        waited(True, state="COMPLETED", generation=2),
    ]
    with Double(*replies) as master:
        mine = handle(connect(url=master.url)).wait()
        assert mine.retry() is mine
        assert mine.info["generation"] == 2
        assert mine.wait().info["state"] == "COMPLETED"
        assert master.requests[1].json() == {"job_ids": []}
        assert "generation" not in query(master.requests[2])


def test_a_wait_ends_when_its_time_is_up(connect: Connect) -> None:
    with Double(waited(False)) as master:
        client = connect(url=master.url)
        clock = client._transport.clock
        reply = master.replies[0]

        def slow(request: Request) -> Any:
            clock.pause(float(query(request)["timeout_s"]))
            return reply

        master.replies = [slow]
        with pytest.raises(TimedOut, match="run abababab is RUNNING after 60 s") as caught:
            handle(client).wait(timeout=60)
        assert [query(request)["timeout_s"] for request in master.requests] == ["25.0", "25.0", "10.0"]
    assert isinstance(caught.value, TimeoutError)


def test_a_wait_of_no_time_looks_once(connect: Connect) -> None:
    with Double(waited(True, state="COMPLETED")) as master:
        assert handle(connect(url=master.url)).wait(timeout=0).info["state"] == "COMPLETED"
        assert query(master.requests[0])["timeout_s"] == "0.0"


def test_a_wait_outlives_a_restart_of_the_master(connect: Connect) -> None:
    replies = [waited(False), refusal(Unavailable("stopping", retry_after_s=0.5)), None, waited(True, state="FAILED")]
    with Double(*replies) as master:
        client = connect(url=master.url)
        assert handle(client).wait().info["state"] == "FAILED"
        assert pauses_of(client) == [0.5, 0.1]


def test_wait_takes_a_job_or_a_run(connect: Connect) -> None:
    job = {"id": "j", "state": "DEAD"}
    with Double(
        answer({"run_id": RUN_ID, "job_id": "j", "run": run(), "job": job}), answer({"done": True, "job": job})
    ) as master:
        assert connect(url=master.url).wait("DAG-j") == "DEAD"
        assert master.requests[1].path == f"runs/{RUN_ID}/jobs/j/wait"
    with Double(
        answer({"run_id": RUN_ID, "job_id": None, "run": run(), "job": None}), waited(True, state="COMPLETED")
    ) as master:
        assert connect(url=master.url).wait("abab") == "COMPLETED"


# The handle.


def test_status_asks_anew_and_raise_for_status_judges_it(connect: Connect) -> None:
    counts = {"total": 9, "completed": 3, "failed": 1, "cancelled": 2, "dead": 0}
    replies = [
        answer(run("QUEUED")),
        answer(run("RUNNING")),
        answer(run("COMPLETED")),
        answer(run("FAILED", jobs=counts)),
    ]
    with Double(*replies) as master:
        mine = handle(connect(url=master.url))
        assert mine.status == "QUEUED"
        assert mine.raise_for_status() is mine
        assert mine.raise_for_status() is mine
        with pytest.raises(RunFailed, match=r"'n' is FAILED: 3 completed, 1 failed, 2 cancelled of 9"):
            mine.raise_for_status()


def test_a_handle_shows_itself(connect: Connect) -> None:
    mine = handle(connect(url="http://127.0.0.1:1"), name="<b>&", state="RUNNING")
    assert repr(mine) == "<Run abababab '<b>&' RUNNING>"
    html = mine._repr_html_()
    assert "&lt;b&gt;&amp;" in html
    assert "<b>" not in html
    assert "<td>titan show abababab</td>" in html
    assert repr(connect(url="http://127.0.0.1:1")) == "<TitanClient http://127.0.0.1:1>"
    assert repr(connect(url="ftp://x")) == "<TitanClient>"


@pytest.mark.parametrize("port", ["abc", -1, 65536, 1.5, "", True])
def test_a_port_that_is_none_is_refused_at_once(port: object) -> None:
    with pytest.raises(Invalid, match="port is "):
        TitanClient(port=port)  # type: ignore[arg-type]


def test_what_is_no_text_is_refused_before_anything_is_asked(connect: Connect) -> None:
    client: Any = connect(url="http://127.0.0.1:1")
    for call in (
        lambda: client.fetch_logs(5), lambda: client.cancel([]), lambda: client.explain(None),
        lambda: next(client.follow_logs(5)), lambda: client.get_job_status(5),
        lambda: client.store_get(5), lambda: client.store_put(5, "v"), lambda: client.store_sadd("s", 5),
        lambda: client.store_list(5), lambda: client.store_watch(5), lambda: client.store_incr(None),
    ):  # fmt: skip
        with pytest.raises(Invalid, match=r" is no (id or name|key|prefix|member of a set): it is of type "):
            call()


def test_a_warning_is_said_and_kept(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    warning = "train: no worker offers GPU"
    with Double(answer({"run": run(), "warnings": [warning], "resolved": {"a.py": "registry"}})) as master:
        made = connect(url=master.url).submit_job(TitanJob("train", "a.py"))
    assert made.warnings == (warning,)
    assert made.resolved == {"a.py": "registry"}
    assert [record.message for record in caplog.records] == [warning]


# Pages and names.


def test_pages_are_followed_to_the_end_or_the_limit(connect: Connect) -> None:
    pages = [
        answer({"runs": [run()] * 2, "next": "c1"}),
        answer({"runs": [run()] * 2, "next": "c2"}),
        answer({"runs": [run()], "next": None}),
    ]
    with Double(*pages) as master:
        assert len(connect(url=master.url).list_runs(state="RUNNING", name="é &")) == 5
        first, second, third = map(query, master.requests)
        assert first == {"state": "RUNNING", "name": "é &", "limit": "100"}
        assert (second["before"], third["before"]) == ("c1", "c2")
    with Double(*pages) as master:
        assert len(connect(url=master.url).list_runs(limit=3)) == 4
        assert [query(request)["limit"] for request in master.requests] == ["3", "1"]


@pytest.mark.parametrize("text", ["a/b", "ü x", "a?b#c", "%2e"])
def test_an_id_is_one_segment_whatever_it_holds(connect: Connect, text: str) -> None:
    with Double(refusal(NotFound("no such run"))) as master:
        with pytest.raises(NotFound):
            connect(url=master.url).get_run(text)
        assert master.requests[0].target.count("/") == 4


@pytest.mark.parametrize("text", ["", ".", "..", "\ud800"])
def test_what_can_be_no_id_is_refused_here(connect: Connect, text: str) -> None:
    with pytest.raises(Invalid):
        connect(url="http://127.0.0.1:1").get_run(text)


def test_a_run_of_one_job_stands_for_it(connect: Connect) -> None:
    one = run() | {"jobs": {"total": 1}}
    found = answer({"run_id": RUN_ID, "job_id": None, "run": one, "job": None})
    with Double(found, answer({"jobs": [{"id": "only"}], "next": None})) as master:
        assert connect(url=master.url).find_job("abab") == (RUN_ID, "only")
    with (
        Double(answer({"run_id": RUN_ID, "job_id": None, "run": run(), "job": None})) as master,
        pytest.raises(NotFound, match="a run of several jobs") as caught,
    ):
        connect(url=master.url).find_job("abab")
    assert "abababab/JOB" in caught.value.hint


def test_retry_of_everything_names_the_jobs_that_wait_for_nobody(connect: Connect) -> None:
    jobs = [{"id": "a", "parents": []}, {"id": "b", "parents": ["a"]}, {"id": "c", "parents": []}]
    with Double(answer({"jobs": jobs, "next": None}), answer({"run": run(generation=2)})) as master:
        client = connect(url=master.url)
        client.retry(RUN_ID, failed=False)
        assert master.requests[-1].json() == {"job_ids": ["a", "c"]}
        client.retry(RUN_ID, jobs=["b"])
        assert master.requests[-1].json() == {"job_ids": ["b"]}


# Logs.


def log(
    data: bytes, offset: int = 0, total: int | None = None, complete: bool = True, attempt: int = 1, **dropped: str
) -> bytes:
    return raw(
        data,
        titan_log_offset=str(offset),
        titan_log_next=str(offset + len(data) + int(dropped.get("titan_log_dropped", 0))),
        titan_log_total=str(len(data) if total is None else total),
        titan_log_complete=str(complete).lower(),
        titan_log_attempt=str(attempt),
        **dropped,
    )


LOOKED_UP = answer({"run_id": RUN_ID, "job_id": "j", "run": run(), "job": {"id": "j"}})


def test_a_log_is_text_whatever_the_bytes(connect: Connect) -> None:
    with Double(LOOKED_UP, log("grün\r\n".encode() + b"\xff\xfe end")) as master:
        assert connect(url=master.url).fetch_logs("j") == "grün\r\n\ufffd\ufffd end"
        assert query(master.requests[1]) == {"offset": "-16777216", "limit": "16777216"}


def test_the_tail_of_a_long_log_begins_with_a_whole_character(connect: Connect) -> None:
    with Double(LOOKED_UP, log("ü tail".encode()[1:], offset=1_000_001, total=1_000_007)) as master:
        assert connect(url=master.url).fetch_logs("j") == " tail"


def test_i32_what_was_dropped_is_said_where_it_is_missing(connect: Connect) -> None:
    hole = {"titan_log_dropped": "7", "titan_log_dropped_why": "the disk was full"}
    with Double(LOOKED_UP, log(b"head", total=15, **hole), log(b"tail", offset=11, total=15)) as master:
        said = "head\n[titan] 7 bytes dropped here: the disk was full\ntail"
        assert connect(url=master.url).fetch_logs("j") == said
        assert query(master.requests[2]) == {"offset": "11", "limit": "4", "attempt": "1"}


def test_following_a_log_through_all_attempts(connect: Connect) -> None:
    bytes_of = "grün".encode()
    replies = [
        LOOKED_UP,
        answer({"attempt": 0, "ended_at": None}),
        log(b"", complete=False),
        log(bytes_of[:3], total=3, complete=False),
        log(bytes_of[3:], total=5, offset=3, complete=True),
        answer({"attempt": 1, "ended_at": None}),
        log(b"\xc3", attempt=2),
        answer({"attempt": 2, "ended_at": "now"}),
    ]
    with Double(*replies) as master:
        assert "".join(connect(url=master.url).follow_logs("j")) == "grün\ufffd"
        asked = [query(request) for request in master.requests if request.path.endswith("/log")]
        assert [(each["attempt"], each["offset"]) for each in asked] == [("1", "0"), ("1", "0"), ("1", "3"), ("2", "0")]


# Feeds.


def event(event_id: str, kind: str, data: Any) -> bytes:
    return f"id: {event_id}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def feed(*events: bytes) -> bytes:
    """Return an answer that streams `events`, then breaks off."""
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in events)
    return Last(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + chunks)


def test_a_feed_goes_on_behind_the_last_event_it_saw(connect: Connect) -> None:
    first = feed(b": titan\n\n", event("7.1.1", "job", {"state": "RUNNING"}), b"id: 7.1.2\nevent: job\nda")
    second = feed(event("7.1.2", "run", {"kind": "odd"}), b"retry: 1000\n\n")
    with Double(
        first, refusal(Unavailable("stopping", retry_after_s=1)), second, feed(event("8.0.0", "resync", {}))
    ) as master:
        client = connect(url=master.url)
        assert list(islice(client.events(after="7.1.0"), 3)) == [
            {"state": "RUNNING", "kind": "job", "id": "7.1.1"},
            {"kind": "run", "id": "7.1.2"},
            {"kind": "resync", "id": "8.0.0"},
        ]
        assert [query(request)["after"] for request in master.requests] == ["7.1.0", "7.1.1", "7.1.1", "7.1.2"]


def test_a_feed_that_is_read_first_says_so_once_it_is_open(connect: Connect) -> None:
    with Double(feed(b": titan\n\n", event("7.1.1", "job", {})), feed(event("7.1.2", "job", {}))) as master:
        client = connect(url=master.url)
        told = follow(client._transport, "events", {}, None, read_first=True)
        assert next(told) == {"id": "", "kind": "resync"}
        assert len(master.requests) == 1, "it is open: what comes from now on is not missed"
        assert [next(told)["id"], next(told)["id"]] == ["7.1.1", "7.1.2"], "and that is said only once"


def test_a_feed_cut_before_its_first_event_says_that_some_may_be_missing(connect: Connect) -> None:
    with Double(feed(b": titan\n\n"), feed(event("1.1.1", "store", {"key": "k"}))) as master:
        client = connect(url=master.url)
        assert list(islice(client.store_watch("a&b"), 2)) == [
            {"id": "", "kind": "resync"},
            {"key": "k", "kind": "store", "id": "1.1.1"},
        ]
        assert pauses_of(client) == [1.0], "a Master that ends feeds at once is not asked in a tight loop"
        assert query(master.requests[0]) == {"prefix": "a&b"}


def test_a_feed_that_is_dropped_closes_its_connection(connect: Connect) -> None:
    ended = threading.Event()

    class Watching(Double):
        def _serve(self, connected: socket.socket, number: int) -> None:
            assert number == 0
            connected.sendall(bytes(feed(event("1.1.1", "job", {}))))
            while connected.recv(65536):
                pass
            ended.set()

    with Watching() as master:
        events = connect(url=master.url).events()
        assert next(events)["kind"] == "job"
        events.close()  # type: ignore[attr-defined]
        assert ended.wait(10)


def test_server_sent_events_in_all_their_shapes() -> None:
    lines = [b": c\n", b"\n", b"data:x\r\n", b"data: y\n", b"\r\n", b"event: e\n", b"\n", b"id: 5\n", b"data\n", b"\n",
             b"event: resync\n", b"\n", b"data: cut"]  # fmt: skip
    assert list(parse(lines)) == [("message", "", "x\ny"), ("message", "5", ""), ("resync", "5", "")]


# Values of the store.


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.store_put("k", 5),
        lambda client: client.store_put("k", None),
        lambda client: client.store_cas("k", 5, "x"),
        lambda client: client.store_cas("k", "x", ["x"]),
    ],
)
def test_a_value_that_is_neither_text_nor_bytes_is_refused_here(
    connect: Connect, call: Callable[[TitanClient], Any]
) -> None:
    with pytest.raises(Invalid, match="the store keeps text or bytes"):
        call(connect(url="http://127.0.0.1:1"))


@pytest.mark.parametrize("value", ["\ud800", "ok\udcff"])
def test_a_lone_surrogate_is_refused_here(connect: Connect, value: str) -> None:
    with pytest.raises(Invalid, match="lone surrogate"):
        connect(url="http://127.0.0.1:1").store_put("k", value)


# Files.


def test_a_file_that_is_not_there(connect: Connect) -> None:
    client = connect(url="http://127.0.0.1:1")
    for call in (client.upload_file, client.deploy_script):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.py cannot be read: No such file"):
            call("nowhere.py")


def test_what_is_no_file_is_refused_before_it_is_opened(connect: Connect, tmp_path: Path) -> None:
    """To open a pipe without a writer would wait for ever."""
    os.mkfifo(tmp_path / "pipe.py")
    client = connect(url="http://127.0.0.1:1")
    for call in (client.upload_file, client.deploy_script):
        for path in (tmp_path / "pipe.py", tmp_path):
            with pytest.raises(Invalid, match="cannot be read: it is not a regular file"):
                call(path)
        for name in ("a\0b", "a\udc00b\0"):
            with pytest.raises(Invalid, match="names no file"):
                call(name)


@pytest.mark.parametrize("wrong", [None, 5, b"7f3a", [], ""])
def test_an_id_that_can_be_none_never_leaves_here(connect: Connect, wrong: Any) -> None:
    client = connect(url="http://127.0.0.1:1")
    for call in (client.get_run, client.list_jobs, client.retry):
        with pytest.raises(Invalid, match="id or name"):
            call(wrong)


def test_a_submission_of_the_wrong_types_is_told_in_the_words_of_the_call(connect: Connect) -> None:
    client = connect(url="http://127.0.0.1:1")
    job = TitanJob(job_id="a", filename="a.py", script_content="")
    wrong: Any = None
    with pytest.raises(Invalid, match="the name of the DAG is None, of type NoneType: give text"):
        client.submit_dag(wrong, [job])
    with pytest.raises(Invalid, match="job_id is 5, of type int"):
        client.submit_job(TitanJob(job_id=5, filename="a.py"))  # type: ignore[arg-type]
    either: list[Any] = [wrong, job]
    for jobs in either:
        with pytest.raises(Invalid, match=r"jobs is of type \w+: give a list of TitanJob objects"):
            client.submit_dag("d", jobs)
        with pytest.raises(Invalid, match=r"jobs is of type \w+: give a list of TitanJob objects"):
            client.extend_run(RUN_ID, jobs)


def test_one_job_id_given_as_text_is_not_taken_for_its_letters(connect: Connect) -> None:
    with pytest.raises(Invalid, match="the text 'train': give a list of job ids"):
        connect(url="http://127.0.0.1:1").retry(RUN_ID, jobs="train")


def test_a_file_that_goes_while_it_is_sent(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("titan_sdk.files.begin_of", lambda _: b"#!")
    with Double() as master:
        client = connect(url=master.url)
        with pytest.raises(FileNotFoundError, match=r"gone\.py cannot be read"):
            client.upload_file("gone.py")
        assert client.stats() == {}
        assert [request.path for request in master.requests] == ["stats"], "half a request is not left on the line"
