"""show, retry and events as a person and as a script use them, on a real cluster."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cluster import Cluster
from tests.acceptance.inside import Done, Shell
from tests.acceptance.test_commands import Gate, started
from titan_sdk import TitanClient, TitanJob

WAIT_S = 60
TIME = "(?:[0-9]+(?:\\.[0-9]+)? s|[0-9]+ ms)"
WHEN = "[0-9-]{10} [0-9:.]{12} UTC"

MOTHER = """
from titan_sdk import TitanClient, TitanJob
client = TitanClient()
client.submit_job(TitanJob("one", "one.py", script_content="")).wait()
client.submit_job(TitanJob("two", "two.py", script_content="raise SystemExit(3)")).wait()
"""


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@pytest.fixture
def titan(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(monkeypatch, cluster.home, tmp_path)


@pytest.fixture(scope="module")
def failed(cluster: Cluster) -> str:
    """A run of two jobs whose first failed, from content without a path."""
    jobs = [
        TitanJob("first", "first.py", script_content="print('last words')\nraise SystemExit(3)"),
        TitanJob("second", "second.py", script_content="", parents=["first"]),
    ]
    with cluster.client() as client:
        return client.submit_dag("two", jobs).wait(WAIT_S).id


def document(done: Done, code: int = 0) -> Any:
    [found] = done.documents
    assert done.code == code, done.err
    return found


def lines_of(done: Done) -> list[Any]:
    return [json.loads(line) for line in done.stdout.splitlines()]


class TestShow:
    """`titan show`: a run with its jobs, a job with its attempts."""

    def test_a_run(self, cluster: Cluster, titan: Shell, failed: str) -> None:
        shown = titan("show", failed).stdout.decode()
        head, *facts = shown.splitlines()
        assert re.fullmatch(f"run [0-9a-f]+ two   FAILED   0 of 2 jobs completed, 1 failed, 1 cancelled   {TIME}", head)
        assert f"  id           {failed}" in facts
        assert [fact for fact in facts if re.fullmatch(f"  (created|started|ended) +{WHEN}", fact)] == facts[1:4]
        assert re.search(f"\nfirst   FAILED     1  [^ ]+  3  {TIME}  attempt 1 of 1\n", shown), shown
        assert re.search("\nsecond  CANCELLED .* its parent first failed\n", shown), shown
        told = document(titan("show", failed, "--json"))
        assert (told["kind"], told["run"]["id"], [job["id"] for job in told["jobs"]], told["next"]) == (
            "run",
            failed,
            ["first", "second"],
            None,
        )
        assert titan("show", failed, "-q").stdout.decode().split() == [f"{failed}/first", f"{failed}/second"]
        assert b"and 1 job more" in titan("show", failed, "--limit", "1").stderr

    def test_a_run_that_submitted_others(
        self, titan: Shell, client: TitanClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = client.submit_job(TitanJob("mother", "mother.py", script_content=MOTHER)).wait(WAIT_S)
        assert run.status == "COMPLETED", run.logs("mother")
        second, first = document(titan("show", run.id, "--json"))["children"]
        assert [(child["name"], child["state"]) for child in (first, second)] == [
            ("one", "COMPLETED"),
            ("two", "FAILED"),
        ]
        done = titan("show", run.id)
        assert re.search(
            f"\n\n{second['id'][:4]}[0-9a-f]*  FAILED     0/1  {TIME} +[0-9]+ (s|min) ago  mother  two\n"
            f"{first['id'][:4]}[0-9a-f]*  COMPLETED  1/1  {TIME} +[0-9]+ (s|min) ago  mother  one\n$",
            done.stdout.decode(),
        ), done.stdout
        assert b"--agent-run" not in done.stderr
        assert document(titan("show", first["id"], "--json"))["children"] == []
        monkeypatch.setattr("titan.cli.show.RUNS_MAX", 1)
        assert b"more than the 1 run looked at: titan ps --agent-run " in titan("show", run.id).stderr

    def test_a_job(self, cluster: Cluster, titan: Shell, failed: str) -> None:
        shown = titan("show", f"{failed}/first").stdout.decode()
        assert re.match(f"[0-9a-f]+/first   FAILED   {TIME}   exit 3, ", shown)
        assert re.search(f"\n1  ENDED  [^ ]+  3  {WHEN}  {TIME}  warm\n", shown), shown
        told = document(titan("show", f"{failed}/first", "--json"))
        assert (told["kind"], told["job"]["exit_code"], told["attempts"][0]["state"]) == ("job", 3, "ENDED")
        assert told["explanation"]["reason"] == "EXIT_CODE"

    def test_a_job_that_waits_says_why_and_what_next(self, cluster: Cluster, titan: Shell, client: TitanClient) -> None:
        run = client.submit_job(TitanJob("wants", "w.py", script_content="", requirement="QUANTUM"))
        shown = titan("show", f"{run.id}/wants").stdout.decode()
        assert "  requires     QUANTUM\n" in shown
        assert "  why          NO_WORKER_WITH_CAPABILITY: no connected worker offers QUANTUM\n" in shown
        assert "  next         " in shown
        run.cancel()

    def test_following_ends_as_the_run_does(self, cluster: Cluster, titan: Shell, failed: str) -> None:
        told = titan("show", "-f", failed, "--json")
        assert told.returncode == 1
        assert [each["kind"] for each in lines_of(told)] == ["job", "job", "end"]
        assert titan("show", "-f", failed, "-q").stdout == b""
        wrong = titan("show", "-f", f"{failed}/first")
        assert wrong.returncode == 2
        assert b"titan logs -f" in wrong.stderr

    def test_the_first_ctrl_c_detaches_and_says_how_to_come_back(
        self, cluster: Cluster, client: TitanClient, gate: Gate, tmp_path: Path
    ) -> None:
        run = client.submit_job(TitanJob("waiting", str(tmp_path / "waiting.py"), args=gate.arguments))
        gate.wait_running()
        with started(cluster, "show", "-f", run.id, "--json", cwd=tmp_path) as process:
            with cluster.client() as other:  # its feed is open when it tells of a job that ends
                jobs = [TitanJob("brief", "b.py", script_content="")]
                other.extend_run(run, jobs)
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["job"]["id"] == "brief"
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=WAIT_S)[1]
        assert process.returncode == 130
        assert f"titan show -f {run.id[:4]}" in said
        assert "cancel" not in said, "who only looks on ends nothing"
        assert run.status == "RUNNING"
        gate.let_go()
        assert run.wait(WAIT_S).status == "COMPLETED"

    def test_of_a_large_run_only_what_failed_is_told(self, cluster: Cluster, titan: Shell, client: TitanClient) -> None:
        jobs = [TitanJob(f"j{n}", "x.py", script_content="", requirement="QUANTUM") for n in range(100)]
        jobs.append(TitanJob("bad", "bad.py", script_content="raise SystemExit(1)"))
        run = client.submit_dag("large", jobs)
        client.wait(f"{run.id}/bad", WAIT_S)
        run.cancel()
        run.wait(WAIT_S)
        told = lines_of(titan("show", "-f", run.id, "--json"))
        assert [each["job"]["id"] if each["kind"] == "job" else each["state"] for each in told] == ["bad", "FAILED"]
        assert "0 of 101 jobs completed, 1 failed, 100 cancelled\n" in titan("show", "-f", run.id).err


class TestRetry:
    """`titan retry`: what did not complete, what was named, or all of it."""

    def test_what_failed_starts_again(self, cluster: Cluster, titan: Shell, client: TitanClient, failed: str) -> None:
        before = client.get_run(failed).info["generation"]
        told = document(titan("retry", failed, "--json"))
        assert (told["run"]["generation"], told["sent"]) == (before + 1, [])
        client.wait(failed, WAIT_S)
        done = titan("retry", f"{failed}/first", "--follow", "--json")
        assert done.returncode == 1
        assert [each["kind"] for each in lines_of(done)] == ["run", "job", "job", "end"]
        assert titan("retry", failed, "first", "-q").stdout.decode() == f"{failed}\n"
        client.wait(failed, WAIT_S)

    def test_every_job_of_a_run_that_completed(self, cluster: Cluster, titan: Shell, client: TitanClient) -> None:
        run = client.submit_job(TitanJob("fine", "fine.py", script_content="")).wait(WAIT_S)
        refused = titan("retry", run.id)
        assert refused.returncode == 6
        done = titan("retry", run.id, "--all", "-f")
        assert (done.returncode, client.get_run(run.id).info["generation"]) == (0, 2)
        assert titan("retry", run.id, "fine", "--all").returncode == 2
        assert titan("retry", f"{run.id}/fine", "fine").returncode == 2

    def test_a_file_as_it_was_submitted(
        self, cluster: Cluster, titan: Shell, client: TitanClient, tmp_path: Path
    ) -> None:
        script = tmp_path / "script.py"
        script.write_text("print('old')\nraise SystemExit(1)\n")
        run = client.submit_job(TitanJob("edited", str(script))).wait(WAIT_S)
        script.write_text("print('new')\n")
        assert titan("retry", run.id, "--as-submitted", "-f").returncode == 1
        assert client.fetch_logs(f"{run.id}/edited") == "old\n"
        assert titan("retry", run.id, "-f").returncode == 0
        assert client.fetch_logs(f"{run.id}/edited") == "new\n"

    def test_nothing_but_a_script_is_read_from_a_recorded_path(
        self, cluster: Cluster, titan: Shell, client: TitanClient, tmp_path: Path
    ) -> None:
        """Whoever submits writes the path down, and whoever retries may own other files."""
        script = tmp_path / "tool"
        script.write_text("#!/bin/sh\nexit 1\n")
        run = client.submit_job(TitanJob("tool", str(script))).wait(WAIT_S)
        for make in (lambda: script.write_text("secret"), lambda: (script.unlink(), script.mkdir()), script.rmdir):
            make()
            told = document(titan("retry", run.id, "--json"))
            assert told["sent"] == []
            client.wait(run.id, WAIT_S)


class TestEvents:
    """`titan events`: the feed as lines."""

    def test_a_run_is_told_from_its_begin_to_its_end(
        self, cluster: Cluster, titan: Shell, client: TitanClient, tmp_path: Path, gate: Gate
    ) -> None:
        run = client.submit_job(TitanJob("waiting", str(tmp_path / "waiting.py"), args=gate.arguments))
        gate.wait_running()
        first = document(titan("events", "--count", "1", "--json", "--after", "0.0.0"))
        with started(cluster, "events", "--run", run.id, "--after", first["id"], "--json", cwd=tmp_path) as process:
            gate.let_go()
            assert process.stdout is not None
            for line in process.stdout:
                event = json.loads(line)
                if event["kind"] == "run" and event["state"] == "COMPLETED":
                    break
            assert event["run_id"] == run.id
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT_S) == 130

    def test_lines_for_people_and_ids_for_scripts(self, cluster: Cluster, titan: Shell, client: TitanClient) -> None:
        start = document(titan("events", "--count", "1", "--json", "--after", "0.0.0"))["id"]
        run = client.submit_job(TitanJob("brief", "b.py", script_content="")).wait(WAIT_S)
        of_run = ["events", "--after", start, "--run", run.id]
        jobs = titan(*of_run, "--kind", "job", "--count", "1").stdout.decode()
        assert re.match(f"job     {run.id[:8]}/brief  (QUEUED|ASSIGNED)", jobs)
        runs = titan(*of_run, "--kind", "run", "--count", "1").stdout.decode()
        assert runs == f"run     {run.id[:8]}  QUEUED  0 of 1 completed\n"
        assert re.fullmatch("[0-9]+\\.[0-9]+\\.[0-9]+\n", titan(*of_run, "-q", "--count", "1").stdout.decode())
