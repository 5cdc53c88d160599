"""The commands as a person and as a script use them, on a real cluster."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.acceptance.cluster import TITAN, Cluster, bare_environment
from titan import __version__
from titan_sdk import TitanClient, TitanJob

WAIT_S = 60
ID = "[0-9a-f]{4,32}"
TIME = "(?:[0-9]+(?:\\.[0-9]+)? s|[0-9]+ ms)"
HELLO = "import sys\nprint('hello', sys.argv[-1])\n"
# Says that it runs through one pipe and ends when the other is opened.
WAITING = """
import os, sys
print("begun", flush=True)
with open(sys.argv[1], "w") as told:
    told.write("running")
with open(sys.argv[2]) as may_go:
    may_go.read()
print("done")
"""


class Gate:
    """A job that runs until it is let go."""

    def __init__(self, folder: Path) -> None:
        self.told, self.may_go = folder / "told", folder / "may_go"
        os.mkfifo(self.told)
        os.mkfifo(self.may_go)
        (folder / "waiting.py").write_text(WAITING)
        self.arguments = [str(self.told), str(self.may_go)]

    def wait_running(self) -> None:
        assert self.told.read_text() == "running"

    def let_go(self) -> None:
        self.may_go.write_text("")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@contextlib.contextmanager
def started(cluster: Cluster, *arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on while the test does something else."""
    command = [TITAN, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=bare_environment(cluster.home), cwd=cwd, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said_until(process: subprocess.Popen[str], word: str) -> str:
    """Read stderr up to the line with `word`."""
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return line
    raise AssertionError(f"it ended without saying {word!r}")


def document(done: subprocess.CompletedProcess[bytes], code: int = 0) -> Any:
    assert done.returncode == code, done.stderr
    assert done.stdout.count(b"\n") == 1
    return json.loads(done.stdout)


class TestRun:
    """`titan run`: the script's output here, its exit code as ours."""

    def test_it_is_shaped_as_the_first_five_minutes_show(self, cluster: Cluster, tmp_path: Path) -> None:
        (tmp_path / "hello.py").write_text(HELLO)
        done = cluster.titan("run", "hello.py", "--", "--name", "Ada", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, b"hello Ada\n")
        closing = f"\\1 COMPLETED in {TIME} \\(queued {TIME}, started in {TIME}\\)"
        assert re.fullmatch(f"run ({ID}) hello\n{closing}\n", done.stderr.decode()), done.stderr

    @pytest.mark.parametrize("code", [1, 2, 8, 77, 125, 255])
    def test_the_scripts_own_code_is_passed(self, cluster: Cluster, tmp_path: Path, code: int) -> None:
        (tmp_path / "code.py").write_text(f"raise SystemExit({code})")
        done = cluster.titan("run", "code.py", cwd=tmp_path)
        assert done.returncode == code
        assert re.search(f"{ID} FAILED after {TIME}: exit {code}\\. .* titan logs {ID}\n", done.stderr.decode())

    def test_a_signal_is_128_and_its_number(self, cluster: Cluster, tmp_path: Path) -> None:
        (tmp_path / "abort.py").write_text("import os\nos.abort()\n")
        assert cluster.titan("run", "abort.py", cwd=tmp_path).returncode == 128 + signal.SIGABRT

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("--retries 2 args.py --epochs 3", "--: titan run args.py -- --epochs ..."),
            ("args.py -x", "--: titan run args.py -- -x ..."),
            ("-x 1 args.py", "No such option '-x'.\n"),
        ],
    )
    def test_an_option_of_the_script_is_told_apart_from_ours(
        self, cluster: Cluster, tmp_path: Path, words: str, said: str
    ) -> None:
        (tmp_path / "args.py").write_text("")
        refused = cluster.titan("run", *words.split(), cwd=tmp_path)
        assert refused.returncode == 125
        assert said in refused.stderr.decode()

    def test_a_timeout_is_said_at_the_end(self, cluster: Cluster, tmp_path: Path) -> None:
        (tmp_path / "hang.py").write_text("import time\nwhile True:\n    time.sleep(60)\n")
        done = cluster.titan("run", "hang.py", "--timeout", "0.2", cwd=tmp_path)
        assert re.search(f"{ID} FAILED after {TIME}: timeout, exit 143\\. ", done.stderr.decode()), done.stderr

    def test_every_try_is_shown(self, cluster: Cluster, tmp_path: Path) -> None:
        (tmp_path / "third.py").write_text(
            "import os\ntried = int(os.environ['TITAN_ATTEMPT'])\nprint('try', tried)\nraise SystemExit(tried < 3)\n"
        )
        done = cluster.titan("run", "third.py", "--retries", "2", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, b"try 1\ntry 2\ntry 3\n")
        assert b"attempt 2:\n" in done.stderr
        assert cluster.titan("logs", "third", "--attempt", "1").stdout == b"try 1\n"
        assert cluster.titan("logs", "third").stdout == b"try 3\n"

    def test_options_reach_the_job(self, cluster: Cluster, client: TitanClient, tmp_path: Path) -> None:
        (tmp_path / "any name.py").write_text("import os\nprint(os.environ['COLOUR'])\n")
        options = ["-e", "COLOUR=blue=green", "--priority", "7", "--retries", "2", "--timeout", "30"]
        done = cluster.titan("run", "any name.py", *options, "--agent-run", "tuesday", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, b"blue=green\n")
        found = client.lookup("any-name")
        assert found["run"]["agent_run_id"] == "tuesday"
        job = found["job"]
        assert (job["priority"], job["retries"], job["timeout_s"]) == (7, 2, 30.0)

    def test_json_is_one_document_at_the_end(self, cluster: Cluster, tmp_path: Path) -> None:
        (tmp_path / "hello.py").write_text("print('hello')\nraise SystemExit(3)")
        told = document(cluster.titan("run", "hello.py", "--json", cwd=tmp_path), code=3)
        assert told["run"]["state"] == "FAILED"
        assert told["job"]["exit_code"] == 3

    def test_json_with_follow_is_a_line_for_each_thing(self, cluster: Cluster, tmp_path: Path) -> None:
        (tmp_path / "hello.py").write_text("print('hello')")
        done = cluster.titan("run", "hello.py", "--json", "-f", cwd=tmp_path)
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert [each["kind"] for each in told] == ["run", "log", "end"]
        assert told[1]["text"] == "hello\n"
        assert told[2]["state"] == "COMPLETED"

    def test_quiet_prints_the_id_and_nothing_else(self, cluster: Cluster, client: TitanClient, tmp_path: Path) -> None:
        (tmp_path / "hello.py").write_text("print('hello')")
        done = cluster.titan("run", "hello.py", "-q", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
        assert client.get_run(done.stdout.decode().strip()).status == "COMPLETED"

    def test_detached_it_goes_on(self, cluster: Cluster, tmp_path: Path, gate: Gate) -> None:
        done = cluster.titan("run", "-d", "waiting.py", "--", *gate.arguments, cwd=tmp_path)
        run = done.stdout.decode().strip()
        assert done.returncode == 0
        gate.wait_running()
        assert document(cluster.titan("status", run, "--json"))["state"] == "RUNNING"
        gate.let_go()
        assert cluster.titan("wait", run).returncode == 0
        assert cluster.titan("logs", run).stdout == b"begun\ndone\n"

    def test_why_it_waits_is_said_while_it_waits(self, cluster: Cluster, tmp_path: Path) -> None:
        (tmp_path / "hello.py").write_text("print('hello')")
        with started(cluster, "run", "--requirement", "QUANTUM", "hello.py", cwd=tmp_path) as process:
            assert "warning: no connected worker offers QUANTUM" in said_until(process, "QUANTUM")
            assert "QUEUED" in said_until(process, "QUEUED")
            cluster.titan("cancel", "@last")
            assert process.wait(WAIT_S) == 8


class TestCtrlC:
    """The first one leaves the run alone and says how to come back; the second cancels it."""

    def test_one_detaches(self, cluster: Cluster, tmp_path: Path, gate: Gate) -> None:
        with started(cluster, "run", "waiting.py", "--", *gate.arguments, cwd=tmp_path) as process:
            run = said_until(process, "run ").split()[1]
            gate.wait_running()
            process.send_signal(signal.SIGINT)
            assert f"titan logs -f {run}" in said_until(process, "detached")
            assert process.wait(WAIT_S) == 130
        assert document(cluster.titan("status", run, "--json"))["state"] == "RUNNING"
        gate.let_go()
        done = cluster.titan("logs", "-f", run)
        assert (done.returncode, done.stdout) == (0, b"begun\ndone\n")

    def test_two_cancel(self, cluster: Cluster, tmp_path: Path, gate: Gate) -> None:
        with started(cluster, "run", "waiting.py", "--", *gate.arguments, cwd=tmp_path) as process:
            run = said_until(process, "run ").split()[1]
            gate.wait_running()
            process.send_signal(signal.SIGINT)
            said_until(process, "detached")
            process.send_signal(signal.SIGINT)
            assert said_until(process, "cancelled") == f"run {run} is being cancelled\n"
            assert process.wait(WAIT_S) == 130
        assert cluster.titan("wait", run).returncode == 8


@pytest.fixture(scope="module")
def fan(cluster: Cluster) -> str:
    """A run of three: one completed, one failed, one cancelled with its parent."""
    jobs = [
        TitanJob("good", "good.py", script_content="print('good')"),
        TitanJob("bad", "bad.py", script_content="raise SystemExit(3)"),
        TitanJob("after", "after.py", script_content="pass", parents=["bad"]),
    ]
    with cluster.client() as client:
        return client.submit_dag("fan of three", jobs).wait(WAIT_S).id


class TestLooking:
    """status, ps, explain, wait: for people in lines, for programs in documents."""

    def test_status_of_the_cluster(self, cluster: Cluster) -> None:
        first, second = cluster.titan("status").stdout.decode().splitlines()
        assert first == f"Titan {__version__}   {cluster.url}   1 worker, 4 slots"
        assert re.fullmatch("  [0-9]+ runs? under way.*", second)
        assert cluster.titan("status", "-q").stdout.decode() == f"{cluster.url}\n"

    def test_status_of_a_run(self, cluster: Cluster, fan: str) -> None:
        told = document(cluster.titan("status", fan, "--json"))
        assert (told["state"], told["name"]) == ("FAILED", "fan of three")
        assert document(cluster.titan("status", "@last-failed", "--json"))["id"] == fan
        lines = cluster.titan("status", fan[:12]).stdout.decode().splitlines()
        line = f"run {ID} fan of three   FAILED   1 of 3 jobs completed, 1 failed, 1 cancelled   {TIME}"
        assert re.fullmatch(line, lines[0])
        assert [re.split(" {2,}", line)[:2] for line in lines[1:]] == [
            ["good", "COMPLETED"],
            ["bad", "FAILED"],
            ["after", "CANCELLED"],
        ]
        assert "exit 3" in lines[2]
        assert lines[3].endswith("its parent bad failed")

    def test_status_of_a_job(self, cluster: Cluster, fan: str) -> None:
        told = document(cluster.titan("status", f"{fan}/bad", "--json"))
        assert (told["state"], told["exit_code"], told["run_id"]) == ("FAILED", 3, fan)
        assert re.match(f"{ID}/bad   FAILED   {TIME}   exit 3", cluster.titan("status", f"{fan}/bad").stdout.decode())
        for command in ("status", "show", "wait"):
            told = cluster.titan(command, f"{fan}/after").stdout.decode().splitlines()[0]
            assert re.fullmatch(f"{ID}/after   CANCELLED   its parent bad failed", told), command

    def test_ps_lists_runs_and_the_jobs_of_one(self, cluster: Cluster, fan: str) -> None:
        runs = document(cluster.titan("ps", "--json", "--name", "fan of three"))["runs"]
        assert runs[0]["state"] == "FAILED"
        line = cluster.titan("ps", "--limit", "1", "--state", "failed", "--name", "fan").stdout.decode()
        assert re.fullmatch(f"{ID}  FAILED  1/3  {TIME}  [0-9]+ (s|min) ago  fan of three\n", line)
        assert cluster.titan("ps", "-q", "--name", "fan of three").stdout.decode().split()[0] == fan
        for known_as in (fan[:8], f"{fan[:8]}/bad", "fan of three"):
            assert cluster.titan("ps", "-q", "--agent-run", known_as).stdout.decode() == f"{fan}\n", known_as
        assert cluster.titan("ps", "-q", "--agent-run", "nobody's").stdout == b""
        jobs = document(cluster.titan("ps", fan, "--json", "--state", "failed"))["jobs"]
        assert [job["id"] for job in jobs] == ["bad"]
        assert cluster.titan("ps", fan, "-q").stdout.decode().split() == [
            f"{fan}/{job}" for job in ("good", "bad", "after")
        ]

    def test_ps_goes_on_with_the_next_page(self, cluster: Cluster, fan: str) -> None:
        first = document(cluster.titan("ps", fan, "--json", "--limit", "2"))
        second = document(cluster.titan("ps", fan, "--json", "--limit", "2", "--next", str(first["next"])))
        pages = [[job["id"] for job in page["jobs"]] for page in (first, second)]
        assert (pages, second["next"]) == ([["good", "bad"], ["after"]], None)
        assert b"add --next" in cluster.titan("ps", fan, "--limit", "2").stderr

    def test_logs_of_several_jobs_names_those_that_failed(self, cluster: Cluster, fan: str) -> None:
        refused = cluster.titan("logs", fan)
        assert refused.returncode == 6
        assert re.search(f"\nNext: titan logs {ID}/bad, which failed\n", refused.stderr.decode()), refused.stderr

    def test_wait_tells_the_end_by_its_exit_code(self, cluster: Cluster, fan: str, tmp_path: Path, gate: Gate) -> None:
        codes = [cluster.titan("wait", name).returncode for name in (fan, f"{fan}/good", f"{fan}/bad", f"{fan}/after")]
        assert codes == [1, 0, 1, 8]
        assert document(cluster.titan("wait", f"{fan}/bad", "--json"), code=1)["exit_code"] == 3
        cluster.titan("run", "-d", "waiting.py", "--", *gate.arguments, cwd=tmp_path)
        gate.wait_running()
        late = cluster.titan("wait", "@last", "--timeout", "0")
        assert late.returncode == 7
        gate.let_go()
        assert cluster.titan("wait", "@last").returncode == 0

    def test_explain_names_the_reason_and_the_remedy(self, cluster: Cluster, client: TitanClient) -> None:
        jobs = [
            TitanJob("needs", "x.py", script_content="pass", requirement="QUANTUM"),
            TitanJob("later", "y.py", script_content="pass", parents=["needs"]),
        ]
        run = client.submit_dag("waits", jobs)
        told = document(cluster.titan("explain", f"{run.id}/needs", "--json"))
        assert (told["reason"], told["state"]) == ("NO_WORKER_WITH_CAPABILITY", "QUEUED")
        both = document(cluster.titan("explain", run.id, "--json"))["explanations"]
        assert [each["reason"] for each in both] == ["NO_WORKER_WITH_CAPABILITY", "PARENTS_UNFINISHED"]
        lines = cluster.titan("explain", run.id).stdout.decode()
        assert "needs   QUEUED   NO_WORKER_WITH_CAPABILITY: " in lines
        assert f"titan worker --join {cluster.url} --capability QUANTUM\n" in lines
        assert cluster.titan("cancel", f"{run.id}/needs").returncode == 0
        assert run.wait(WAIT_S).status == "CANCELLED"

    def test_cancel_of_what_has_ended_says_so(self, cluster: Cluster, client: TitanClient) -> None:
        run = client.submit_job(TitanJob("over", "o.py", script_content="")).wait(WAIT_S)
        done = cluster.titan("cancel", run.id)
        assert (done.returncode, done.stdout) == (0, b"")
        assert re.fullmatch(f"{ID} is COMPLETED: it had ended before\n", done.stderr.decode())

    def test_cancel_ends_several_at_once(self, cluster: Cluster, client: TitanClient) -> None:
        runs = [client.submit_job(TitanJob(f"q{n}", "q.py", script_content="", requirement="QUANTUM")) for n in (1, 2)]
        told = document(cluster.titan("cancel", runs[0].id, "q2", "--json"))["cancelled"]
        assert [each["kind"] for each in told] == ["run", "job"]
        assert [run.wait(WAIT_S).status for run in runs] == ["CANCELLED"] * 2

    def test_logs_of_a_retried_and_a_waiting_job_as_json(self, cluster: Cluster, fan: str) -> None:
        told = document(cluster.titan("logs", f"{fan}/good", "--json"))
        assert told == {"run_id": fan, "job_id": "good", "attempt": 1, "text": "good\n", "complete": True}
        lines = cluster.titan("logs", "-f", f"{fan}/good", "--json").stdout.splitlines()
        assert [json.loads(line)["kind"] for line in lines] == ["log", "end"]


class TestStore:
    """`titan store`: every word of it."""

    def test_put_get_incr_ls_del(self, cluster: Cluster) -> None:
        assert cluster.titan("store", "put", "words/a", "ä").returncode == 0
        assert cluster.titan("store", "get", "words/a").stdout == "ä".encode()
        assert document(cluster.titan("store", "get", "words/a", "--json")) == {
            "key": "words/a",
            "value": "ä",
            "kind": "text",
        }
        assert cluster.titan("store", "incr", "words/n").stdout == b"1\n"
        assert document(cluster.titan("store", "incr", "words/n", "-5", "--json")) == {"key": "words/n", "value": -4}
        assert cluster.titan("store", "ls", "words/").stdout == b"words/a\nwords/n\n"
        assert document(cluster.titan("store", "ls", "words/", "--json")) == {"keys": ["words/a", "words/n"]}
        deleted = document(cluster.titan("store", "del", "words/a", "words/x", "--json"))
        assert deleted == {"deleted": {"words/a": True, "words/x": False}}
        assert cluster.titan("store", "get", "words/a").returncode == 3

    def test_a_ttl_is_kept_by_the_master(self, cluster: Cluster, client: TitanClient) -> None:
        assert cluster.titan("store", "put", "brief", "x", "--ttl", "0.001").returncode == 0
        assert client.store_get("brief") is None
        assert cluster.titan("store", "put", "brief", "x", "--ttl", "3600").returncode == 0
        assert client.store_get("brief") == "x"

    def test_watch_prints_each_write_as_it_happens(self, cluster: Cluster, client: TitanClient, tmp_path: Path) -> None:
        with started(cluster, "store", "watch", "seen/", "--json", cwd=tmp_path) as process:
            assert process.stdout is not None
            heard = threading.Event()
            lines: list[str] = []

            def listen(stdout: IO[str]) -> None:
                lines.append(stdout.readline())
                heard.set()

            listener = threading.Thread(target=listen, args=[process.stdout])
            listener.start()
            while not heard.is_set():  # it says nothing when it begins to listen, so write until it hears
                client.store_put("unseen/a", "1")
                client.store_put("seen/a", "1")
            listener.join()
            assert json.loads(lines[0])["key"] == "seen/a"
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT_S) == 130


class TestTerminal:
    """On a terminal a stranger's log cannot do more than be read."""

    def on_terminal(self, cluster: Cluster, *arguments: str, **more: str) -> str:
        master, slave = pty.openpty()
        env = bare_environment(cluster.home, TERM="xterm", **more)
        with subprocess.Popen([TITAN, *arguments], env=env, stdout=slave, stderr=slave, stdin=slave) as process:
            os.close(slave)
            shown = b""
            with contextlib.suppress(OSError):  # the end of a terminal is an error
                while piece := os.read(master, 4096):
                    shown += piece
            assert process.wait(WAIT_S) == 0
        os.close(master)
        return shown.decode()

    def test_s40_escapes_are_shown_and_colours_stay(self, cluster: Cluster, client: TitanClient) -> None:
        script = "print('\\x1b[31mred\\x1b[0m \\x1b]52;c;AAAA\\x07 \\x1b[2J rm\\rls')"
        client.submit_job(TitanJob("attack", "attack.py", script_content=script)).wait(WAIT_S)
        shown = self.on_terminal(cluster, "logs", "attack")
        assert shown.startswith("\x1b[31mred\x1b[0m \\x1b]52;c;AAAA\\x07 \\x1b[2J rm\\rls\r\n")
        plain = self.on_terminal(cluster, "logs", "attack", NO_COLOR="1")
        assert plain == "red \\x1b]52;c;AAAA\\x07 \\x1b[2J rm\\rls\r\n"

    def test_tables_have_a_header_and_colour_for_people(self, cluster: Cluster, client: TitanClient) -> None:
        client.submit_job(TitanJob("fine", "fine.py", script_content="")).wait(WAIT_S)
        header, row, *_ = self.on_terminal(cluster, "ps", "--limit", "1").splitlines()
        assert header.split() == ["RUN", "STATE", "DONE", "TIME", "SUBMITTED", "NAME"]
        assert "\x1b[32mCOMPLETED\x1b[0m" in row
        assert "\x1b" not in self.on_terminal(cluster, "ps", "--limit", "1", NO_COLOR="1")


def test_a_reader_that_goes_away_is_no_error(cluster: Cluster, client: TitanClient, tmp_path: Path) -> None:
    long = "for number in range(200_000):\n    print(number)\n"
    client.submit_job(TitanJob("long", "long.py", script_content=long)).wait(WAIT_S)
    with started(cluster, "logs", "long", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.wait(WAIT_S) == 141
        assert process.stderr.read() == ""


def test_s34_the_command_line_expands_nothing(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text("import os, sys\nprint(sys.argv[1:], os.environ['WORD'])\n")
    words = ["@/etc/passwd", "$(id)", "~root", "`id`", "$HOME", "*"]
    done = cluster.titan("run", "--env", "WORD=@/etc/passwd", "show.py", *words, cwd=tmp_path)
    assert done.stdout.decode().startswith(f"{words} @/etc/passwd\n"), done.stderr
