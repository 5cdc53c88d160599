"""The whole surface against a real cluster: one Master, one worker with four slots."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cluster import Cluster
from titan_sdk import (
    Conflict,
    FileMissing,
    Invalid,
    NotFound,
    RunFailed,
    TimedOut,
    TitanClient,
    TitanJob,
    Unauthenticated,
)

WAIT_S = 60
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("sdk-home"), "--port", "0", "--slots", "4") as one:
        yield one


@pytest.fixture
def client(cluster: Cluster) -> Iterator[TitanClient]:
    with cluster.client() as made:
        yield made


def script(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


def result(client: TitanClient, job: TitanJob) -> str:
    """Run one job to its good end and return its log."""
    run = client.submit_job(job).wait(WAIT_S)
    assert run.info["state"] == "COMPLETED", run.logs(job.job_id)
    return run.logs(job.job_id)


# Found by itself.


def test_the_home_is_all_a_client_needs(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITAN_HOME", str(cluster.home))
    with TitanClient() as client:
        assert client.url == cluster.url
        assert client.stats()["workers"] == 1
    host, port = cluster.url.removeprefix("http://").split(":")
    with TitanClient(host="localhost", port=int(port)) as client:
        assert client.list_workers()[0]["capabilities"] == ["GENERAL"]
    with TitanClient(host=host, port=int(port), token="f" * 64) as client, pytest.raises(Unauthenticated):
        client.stats()


def test_a_stranger_without_the_home_is_told_how_to_get_in(cluster: Cluster) -> None:
    with TitanClient(url=cluster.url) as client, pytest.raises(Unauthenticated) as caught:
        client.stats()
    assert "TITAN_TOKEN" in caught.value.hint


# Jobs.


def test_a_dag_from_submission_to_logs(client: TitanClient) -> None:
    first = TitanJob("extract", script("extract.py", "print('extracted')"))
    second = TitanJob("train", script("train.py", "print('trained')"), parents=["extract"])
    run = client.submit_dag("nightly ✓", [first, second], agent_run_id="agent 7")
    assert run.wait(WAIT_S).raise_for_status().status == "COMPLETED"
    assert (run.name, run.info["agent_run_id"]) == ("nightly ✓", "agent 7")
    assert [(job["id"], job["state"], job["parents"]) for job in run.jobs] == [
        ("extract", "COMPLETED", []),
        ("train", "COMPLETED", ["extract"]),
    ]
    assert run.logs("train") == client.fetch_logs("train") == client.fetch_logs("DAG-train") == "trained\n"
    assert client.fetch_logs(f"{run.id}/extract") == "extracted\n"
    assert client.get_job_status("train") == client.get_job_status(run.id) == "COMPLETED"
    assert client.get_run(run.id[:12]).id == run.id
    assert client.lookup("extract")["run_id"] == run.id
    assert [each.id for each in client.list_runs(agent_run_id="agent 7")] == [run.id]
    assert client.list_runs(state="FAILED", agent_run_id="agent 7") == []
    assert client.wait("train", WAIT_S) == "COMPLETED"


ARGUMENTS = [
    "plain",
    "",
    "two words",
    "'",
    '"',
    "\\",
    "a|b;c&d",
    "$HOME",
    "`x`",
    "*",
    "🐙 ünïcode",
    "line\nbreak",
    "\t",
    "-",
    "--x=1",
]


def test_arguments_arrive_byte_for_byte(client: TitanClient) -> None:
    show = script("args.py", "import sys; print(ascii(sys.argv[1:]))")
    assert result(client, TitanJob("args-list", show, args=ARGUMENTS)) == f"{ARGUMENTS!a}\n"
    text = r"""one 'two words' "a \"b\"" c\ d '' '🐙'"""
    expected = ["one", "two words", 'a "b"', "c d", "", "🐙"]
    assert result(client, TitanJob("args-text", show, args=text)) == f"{expected!a}\n"


def test_env_content_and_unusual_output(client: TitanClient) -> None:
    text = (
        "import os, sys\nprint(os.environ['GREETING'])\nsys.stdout.flush()\nos.write(1, b'\\xff\\xfe \\xc3\\xbc\\r\\n')"
    )
    job = TitanJob("env", "made-up.py", script_content=text, env={"GREETING": "grüß dich"})
    assert result(client, job) == "grüß dich\n\ufffd\ufffd ü\r\n"


def test_a_large_script_is_sent_apart(client: TitanClient) -> None:
    padding = "#" * (200 * 1024)
    assert result(client, TitanJob("large", script("large.py", f"{padding}\nprint('still here')"))) == "still here\n"


def test_1500_jobs_travel_as_lines(client: TitanClient) -> None:
    script("noop.py", "")
    jobs = [
        TitanJob(f"many-{n}", "noop.py", parents=["many-0"] if n else None, requirement="NOBODY") for n in range(1500)
    ]
    run = client.submit_dag("many", jobs)
    assert run.info["jobs"]["total"] == 1500
    assert [job["id"] for job in run.jobs] == [job.job_id for job in jobs]
    assert "NOBODY" in run.warnings[0]
    assert run.cancel().wait(WAIT_S).status == "CANCELLED"
    assert len(client.list_jobs(run, state="CANCELLED")) == 1500
    assert client.list_jobs(run, state="PENDING") == []


def test_one_error_lists_every_problem(client: TitanClient) -> None:
    script("f.py", "")
    jobs = [
        TitanJob("gone", "etl/nowhere.py"), TitanJob("bad id", "f.py"), TitanJob("quote", "f.py", args="it's"),
        TitanJob("later", "f.py", hitl_message="ok?"), TitanJob("orphan", "f.py", parents=["nobody"]),
        TitanJob("twice", "f.py"), TitanJob("twice", "f.py"),
    ]  # fmt: skip
    with pytest.raises(FileMissing) as caught:
        client.submit_dag("wrong", jobs)
    text = str(caught.value)
    place = str(Path("etl/nowhere.py").absolute())
    for word in (place, "registry", "bad id", "it's", "hitl_message", "nobody", "twice"):
        assert word in text, f"{word!r} is not in:\n{text}"
    assert client.list_runs(name="wrong") == []
    circle = [TitanJob("a", "f.py", parents=["b"]), TitanJob("b", "etl/nowhere.py", parents=["a"])]
    with pytest.raises(FileNotFoundError, match=r"2 problems(.|\n)*circle"):
        client.submit_dag("wrong", circle)


def test_a_failed_run_is_raised_explained_and_tried_again(client: TitanClient, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    fail_once = script("once.py", f"import os, sys\nsys.exit(0 if os.path.exists({str(mark)!r}) else 3)")
    run = client.submit_dag("flaky", [TitanJob("flaky", fail_once), TitanJob("after", fail_once, parents=["flaky"])])
    with pytest.raises(RunFailed, match=r"'flaky' is FAILED: 1 failed, 1 cancelled of 2"):
        run.wait(WAIT_S).raise_for_status()
    assert client.lookup("flaky")["job"]["exit_code"] == 3
    assert client.explain("after")["state"] == "CANCELLED"
    mark.touch()
    assert run.retry().wait(WAIT_S).raise_for_status().info["generation"] == 2
    with pytest.raises(Conflict):
        client.cancel(run.id) and client.extend_run(run, [TitanJob("late", fail_once)])
    assert run.retry(failed=False).wait(WAIT_S).info["generation"] == 3


def test_a_job_that_waits_is_explained_and_cancelled(client: TitanClient) -> None:
    run = client.submit_job(TitanJob("wants-gpu", script("f.py", ""), requirement="GPU"))
    assert "GPU" in run.warnings[0]
    told = client.explain("wants-gpu")
    assert (told["state"], told["run_id"]) == ("QUEUED", run.id)
    assert "GPU" in told["message"]
    assert told["remedy"]
    with pytest.raises(TimedOut):
        run.wait(timeout=0.01)
    with pytest.raises(TimedOut):
        client.wait("wants-gpu", timeout=0)
    assert client.cancel("wants-gpu")["state"] == "CANCELLED"
    assert run.wait(WAIT_S).status == "CANCELLED"


def test_a_living_run_is_extended(client: TitanClient) -> None:
    script("f.py", "print('more')")
    run = client.submit_job(TitanJob("gate", "f.py", requirement="NOBODY"))
    more = client.extend_run(run, [TitanJob("more", "f.py"), TitanJob("most", "f.py", parents=["more"])])
    assert more.id == run.id
    assert client.wait(f"{run.id}/most", WAIT_S) == "COMPLETED"
    with pytest.raises(Invalid, match="nobody"):
        client.extend_run(run.id, [TitanJob("bad", "f.py", parents=["nobody"])])
    run.cancel().wait(WAIT_S)


def test_a_key_of_the_callers_gives_the_same_run(client: TitanClient) -> None:
    script("f.py", "")
    first = client.submit_dag("keyed", [TitanJob("a", "f.py")], idempotency_key="nightly 2026-01-31")
    again = client.submit_dag("keyed", [TitanJob("a", "f.py")], idempotency_key="nightly 2026-01-31")
    assert first.id == again.id
    with pytest.raises(Conflict) as caught:
        client.submit_dag("keyed", [TitanJob("b", "f.py")], idempotency_key="nightly 2026-01-31")
    assert caught.value.code == "key_reused"
    assert client.submit_dag("keyed", [TitanJob("a", "f.py")]).id != first.id


AGENT = """
import os, sys
from titan_sdk import TitanClient, TitanJob
with TitanClient() as client:
    client.store_incr("agent-counted")
    child = client.submit_job(TitanJob("agent-child", filename=__file__, args=["child"]))
    client.store_sadd("agent-children", child.id)
    client.store_sadd("agent-attempts", os.environ["TITAN_ATTEMPT"])
sys.exit(0 if os.environ["TITAN_ATTEMPT"] == "3" else 1)
"""


def test_a_job_that_is_tried_again_submits_and_counts_once(client: TitanClient) -> None:
    text = AGENT.replace("import os, sys\n", "import os, sys\nif sys.argv[1:]: sys.exit()\n", 1)
    run = client.submit_job(TitanJob("agent", script("agent.py", text), retries=2, retry_backoff_s=0.01))
    run.wait(WAIT_S)
    assert run.status == "COMPLETED", run.logs("agent")
    assert client.store_smembers("agent-attempts") == {"1", "2", "3"}
    assert client.store_get("agent-counted") == "1"
    assert len(client.store_smembers("agent-children")) == 1
    [child_id] = client.store_smembers("agent-children")
    child = client.get_run(child_id).wait(WAIT_S)
    assert (child.info["state"], child.info["parent_job_id"]) == ("COMPLETED", "agent")


def test_following_a_log_and_a_second_attempt(client: TitanClient) -> None:
    text = "import os, sys\nprint('attempt', os.environ['TITAN_ATTEMPT'])\nsys.exit(os.environ['TITAN_ATTEMPT'] == '1')"
    client.submit_job(TitanJob("followed", script("f.py", text), retries=1, retry_backoff_s=0.01))
    assert "".join(client.follow_logs("followed")) == "attempt 1\nattempt 2\n"
    assert client.fetch_logs("followed") == "attempt 2\n"


def test_a_log_of_several_megabytes(client: TitanClient) -> None:
    text = "import sys\nfor n in range(300_000): sys.stdout.write(f'line {n}\\n')"
    expected = "".join(f"line {n}\n" for n in range(300_000))
    client.submit_job(TitanJob("chatty", script("f.py", text)))
    assert "".join(client.follow_logs("chatty")) == expected
    assert client.fetch_logs("chatty") == expected


def test_what_is_not_there(client: TitanClient) -> None:
    for call in (client.fetch_logs, client.get_job_status, client.explain, client.cancel, client.get_run, client.wait):
        with pytest.raises(NotFound, match="nowhere-to-be-found"):
            call("nowhere-to-be-found")
    with pytest.raises(NotFound):
        next(client.follow_logs("nowhere-to-be-found"))


# Files.


def test_a_file_of_the_registry_runs_when_no_disk_has_it(client: TitanClient) -> None:
    Path("agents").mkdir()
    script("agents/patch.py", "print('patched')")
    entry = client.upload_file("agents/patch.py")
    assert (entry["name"], entry["size"]) == ("patch.py", 16)
    Path("agents/patch.py").unlink()
    run = client.submit_job(TitanJob("patch", "scripts/patch.py"))
    assert run.resolved == {"scripts/patch.py": "registry"}
    assert run.wait(WAIT_S).logs("patch") == "patched\n"
    script("new.py", "print('newer')")
    client.deploy_script("new.py", name="patch.py")
    assert result(client, TitanJob("patch", "patch.py")) == "newer\n"


def test_a_script_that_no_job_could_run_is_not_deployed(client: TitanClient) -> None:
    script("notes.txt", "just text")
    with pytest.raises(Invalid, match=r"neither \.py nor begins with #!"):
        client.deploy_script("notes.txt")
    assert client.upload_file("notes.txt")["size"] == 9
    script("tool", "#!/bin/sh\necho from a shell\n")
    client.deploy_script("tool")


# Store.


@pytest.mark.parametrize(
    "value",
    ["", "0", "grüße 🐙 \x00 \r\n\u2028", b"", b"\x00\xff\xfe text", "é" * (MIB // 2), b"\xff" * MIB, '"\\' * 1000],
)
def test_values_come_back_as_they_were_put(client: TitanClient, value: str | bytes) -> None:
    client.store_put("exact", value)
    back = client.store_get("exact")
    assert type(back) is type(value)
    assert back == value


def test_a_value_over_the_limit_is_refused(client: TitanClient) -> None:
    for value in ("x" * (MIB + 1), b"x" * (MIB + 1)):
        with pytest.raises(Invalid) as caught:
            client.store_put("exact", value)
        assert caught.value.code == "too_large"


def test_keys_are_any_text(client: TitanClient) -> None:
    for key in ("a/b c", "ключ", "x" * 512, "..", "%2F", "new\nline"):
        client.store_put(key, key)
        assert client.store_get(key) == key
        assert client.store_delete(key) is True
        assert client.store_delete(key) is False
        assert client.store_get(key) is None
    for key in ("", "x" * 513, "é" * 257):
        with pytest.raises(Invalid):
            client.store_get(key)


def test_counting(client: TitanClient) -> None:
    assert client.store_incr("count") == 1
    assert client.store_incr("count", by=-3) == -2
    assert client.store_get("count") == "-2"
    client.store_put("count", "41")
    assert client.store_incr("count") == 42
    client.store_put("count", "many")
    with pytest.raises(Invalid):
        client.store_incr("count")
    assert client.store_get("count") == "many"


def test_compare_and_swap(client: TitanClient) -> None:
    assert client.store_cas("leader", None, "me") is True
    assert client.store_cas("leader", None, "you") is False
    assert client.store_cas("leader", "me", b"you") is True
    assert client.store_cas("leader", "you", "x") is False
    assert client.store_cas("leader", b"you", None) is True
    assert client.store_get("leader") is None


def test_sets(client: TitanClient) -> None:
    assert client.store_smembers("seen") == set()
    assert client.store_sadd("seen", "a") is True
    assert client.store_sadd("seen", "a") is False
    assert client.store_sadd("seen", "ü") is True
    assert client.store_smembers("seen") == {"a", "ü"}
    assert client.store_srem("seen", "a") is True
    assert client.store_srem("seen", "a") is False
    assert client.store_smembers("seen") == {"ü"}


def test_a_key_with_a_time_to_live_goes(client: TitanClient) -> None:
    client.store_put("brief", "x", ttl_s=0.001)
    while client.store_get("brief") is not None:
        pass
    client.store_put("long", "x", ttl_s=3600)
    assert client.store_get("long") == "x"


def test_listing_keys_by_prefix(client: TitanClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("titan_sdk.store.PAGE_KEYS", 2)
    for key in ("l:a", "l:b", "l:c%", "l:ü", "m:a"):
        client.store_put(key, "")
    assert client.store_list("l:") == ["l:a", "l:b", "l:c%", "l:ü"]
    assert client.store_list("l:c%") == ["l:c%"]
    assert client.store_list("%") == []
    assert {"l:a", "m:a"} <= set(client.store_list())


def test_many_threads_count_together(client: TitanClient) -> None:
    threads = [threading.Thread(target=lambda: [client.store_incr("together") for _ in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert client.store_get("together") == "160"


# Feeds.


def test_many_threads_do_everything_through_one_client(client: TitanClient, tmp_path: Path) -> None:
    script("mine.py", "import sys; print('I am', sys.argv[1])")
    faults: list[str] = []

    def work(number: int) -> None:
        mine = f"thread-{number}"
        for turn in range(2):
            run = client.submit_dag(mine, [TitanJob(mine, "mine.py", args=[f"{mine} {turn}"])]).wait(WAIT_S)
            client.store_put(mine, run.id)
            Path(tmp_path / mine).write_text(mine * 20_000)
            client.publish_artifact(mine, tmp_path / mine)
            seen = (
                run.info["state"],
                run.logs(mine),
                client.store_get(mine),
                b"".join(client.read_artifact(mine)).decode(),
                client.get_run(run.id).name,
            )
            wanted = ("COMPLETED", f"I am {mine} {turn}\n", run.id, mine * 20_000, mine)
            if seen != wanted:
                faults.append(f"{mine}: {seen[:3]}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert faults == []


def test_watching_keys(client: TitanClient, cluster: Cluster) -> None:
    heard: list[dict[str, Any]] = []
    done = threading.Event()

    def listen() -> None:
        with cluster.client() as listener:
            for event in listener.store_watch("watched:"):
                heard.append(event)
                break
        done.set()

    threading.Thread(target=listen, daemon=True).start()
    while not done.is_set():
        client.store_put("elsewhere", "x")
        client.store_put("watched:a", "x")
    assert (heard[0]["key"], heard[0]["op"], heard[0]["kind"]) == ("watched:a", "put", "store")


def test_events_of_a_run_from_any_point(client: TitanClient, cluster: Cluster) -> None:
    stale = next(client.events(after="1.1.1"))
    assert stale["kind"] == "resync"
    run = client.submit_job(TitanJob("eventful", script("f.py", "")))
    told: list[tuple[str, str]] = []
    for event in client.events(after=stale["id"]):
        if event.get("run_id") == run.id:
            told.append((event["kind"], event["state"]))
            if told[-1] == ("run", "COMPLETED"):
                break
    states = [state for kind, state in told if kind == "job"]
    assert states[-1] == "COMPLETED"
    assert states == [state for state in ("QUEUED", "ASSIGNED", "RUNNING", "COMPLETED") if state in states]
