"""The life of `titan up`: start, kill -9, start again, down, and what a second one is told."""

import json
import os
import re
import signal
import stat
import subprocess
from pathlib import Path

from tests.acceptance.cluster import TITAN, Cluster, bare_environment, titan
from titan import __version__
from titan.cli import home as homes
from titan.cli.ask import Master
from titan_sdk import TitanJob

WAIT_S = 60

# Writes a line into the ledger, tells the test through one pipe, and waits for its word on another.
WAITING = """
import os, sys
ledger, told, may_go = sys.argv[1:]
with open(ledger, "a") as file:
    file.write(f"{os.environ['TITAN_JOB_ID']} {os.environ['TITAN_ATTEMPT']}\\n")
with open(told, "w") as pipe:
    pipe.write("running")
with open(may_go) as pipe:
    pipe.read()
"""
NOTING = """
import os, sys
with open(sys.argv[1], "a") as file:
    file.write(f"{os.environ['TITAN_JOB_ID']} {os.environ['TITAN_ATTEMPT']}\\n")
"""


def test_the_home_is_private_and_says_where_titan_is(own_cluster: Cluster) -> None:
    home = own_cluster.home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "token").stat().st_mode) == 0o600
    endpoint = json.loads((home / "endpoint.json").read_text())
    assert endpoint["url"] == own_cluster.url
    assert endpoint["pid"] != own_cluster.pid
    readable = [path for path in home.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    assert readable == []


def test_the_first_screen_is_two_lines_and_the_last_is_one(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    home = tmp_path / "home"
    command = [TITAN, "up", "--port", "0", "--slots", "2", "--capability", "BIG"]
    with subprocess.Popen(command, env=bare_environment(home, HOME=str(tmp_path)), stdout=pipe, stderr=pipe) as up:
        assert up.stdout is not None
        assert up.stderr is not None
        first, second = up.stdout.readline().decode(), up.stdout.readline().decode()
        assert re.fullmatch(
            f"Titan {__version__}   http://127.0.0.1:[0-9]+   1 worker, 2 slots, GENERAL, BIG   data ~/home\n", first
        )
        assert re.fullmatch("  Ctrl\\+C stops everything\\.  Ready in [0-9]+\\.[0-9] s\\.\n", second)
        up.send_signal(signal.SIGINT)
        assert up.wait(WAIT_S) == 0
        assert up.stdout.read() == b""
        # On a machine with much to do the worker may have had to connect twice, and says so.
        said = [line for line in up.stderr if not line.startswith(b"worker ")]
        assert said == [b"titan: stopping; Ctrl+C again: without waiting for the jobs\n"]


def test_where_nothing_is_the_next_command_is_taught_and_titan_down_is_named_in_the_other_terminal(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    command = [TITAN, "up", "--port", "0", "--workers", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=bare_environment(home), stdout=pipe, stderr=pipe) as up:
        assert up.stdout is not None
        assert up.stderr is not None
        up.stdout.readline()
        for words, teaches in (
            ("ps", "no runs yet: titan run hello.py"),
            ("status", "no workers, so jobs wait: titan worker --join http://127.0.0.1:"),
            ("worker ls", "no workers: titan worker --join http://127.0.0.1:"),
            ("store ls", "no keys yet: titan store put KEY VALUE"),
            ("artifacts ls", "no artifacts yet: titan artifacts put KEY FILE"),
            ("token ls", "titan token create NAME --role ROLE"),
            ("audit ls", "nothing was done yet"),
        ):
            done = titan(home, *words.split(), cwd=tmp_path)
            assert (done.returncode, teaches in done.stderr.decode()) == (0, True), (words, done.stderr)
        assert titan(home, "show", "@last", cwd=tmp_path).stderr.endswith(b"Next: titan run hello.py makes one\n")
        assert titan(home, "down", cwd=tmp_path).returncode == 0
        assert up.wait(WAIT_S) == 0
        assert up.stderr.read() == b"titan: stopping, as titan down asked; Ctrl+C: without waiting for the jobs\n"


def test_status_is_zero_as_soon_as_up_says_ready(own_cluster: Cluster) -> None:
    done = own_cluster.titan("status", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["state"], told["workers"], told["slots"]) == ("READY", 1, 2)


def test_a_second_up_is_refused_with_pid_and_url(own_cluster: Cluster) -> None:
    done = own_cluster.titan("up", "--port", "0")
    assert done.returncode == 6
    assert done.stdout == b""
    assert f"pid {own_cluster.pid} at {own_cluster.url}".encode() in done.stderr
    assert b"titan down" in done.stderr
    assert own_cluster.titan("status").returncode == 0


def test_down_stops_everything_and_says_so_once(own_cluster: Cluster) -> None:
    pids = [json.loads((own_cluster.home / "endpoint.json").read_text())["pid"], own_cluster.pid]
    done = own_cluster.titan("down", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"stopped": True, "pid": own_cluster.pid, "home": str(own_cluster.home)}
    assert own_cluster.gone() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    again = own_cluster.titan("down")
    assert (again.returncode, again.stdout) == (0, b"")
    assert again.stderr == f"nothing is up on {own_cluster.home}\n".encode()


def test_ctrl_c_of_the_whole_group_is_an_orderly_stop(own_cluster: Cluster, tmp_path: Path) -> None:
    """A terminal sends SIGINT to supervisor, Master and worker alike; the worker still reports what it stopped."""
    ledger, told, may_go = (str(tmp_path / name) for name in ("ledger", "told", "may_go"))
    os.mkfifo(told)
    os.mkfifo(may_go)
    with own_cluster.client() as client:
        run = client.submit_job(TitanJob("waits", "w.py", script_content=WAITING, args=[ledger, told, may_go]))
        assert Path(told).read_text() == "running"
    os.killpg(own_cluster.pid, signal.SIGINT)
    assert own_cluster.gone() == 0
    own_cluster.start()
    assert Path(told).read_text() == "running"
    Path(may_go).write_text("go")
    with Master(url=own_cluster.url, token=(own_cluster.home / "token").read_text().strip()) as master:
        assert master.get_run(run.id).wait(WAIT_S).status == "COMPLETED"
        first, second = master.attempts({"run_id": run.id, "id": "waits"})
    assert first["cause"] == "worker_stop"
    assert (second["state"], second["cause"], second["exit_code"]) == ("ENDED", "", 0)
    assert Path(ledger).read_text().splitlines() == ["waits 1", "waits 2"]


def test_a_killed_group_goes_on_from_where_it_was(own_cluster: Cluster, tmp_path: Path) -> None:
    """kill -9 of everything while the middle of a chain runs: the first ran once, the rest is done after `up`."""
    ledger, told, may_go = (str(tmp_path / name) for name in ("ledger", "told", "may_go"))
    os.mkfifo(told)
    os.mkfifo(may_go)
    jobs = [
        TitanJob("first", "first.py", script_content=NOTING, args=[ledger]),
        TitanJob("middle", "middle.py", script_content=WAITING, args=[ledger, told, may_go], parents=["first"]),
        TitanJob("last", "last.py", script_content=NOTING, args=[ledger], parents=["middle"]),
    ]
    with own_cluster.client() as client:
        run = client.submit_dag("chain", jobs)
        client.store_put("kept", "before the kill")
        assert Path(told).read_text() == "running"
    own_cluster.kill_group()
    own_cluster.start()
    with own_cluster.client() as client:
        assert client.store_get("kept") == "before the kill"
        assert Path(told).read_text() == "running"
        Path(may_go).write_text("go")
        assert client.get_run(run.id).wait(WAIT_S).status == "COMPLETED"
    assert Path(ledger).read_text().splitlines() == ["first 1", "middle 1", "middle 2", "last 1"]


def test_a_killed_master_is_started_again_and_clients_do_not_notice(own_cluster: Cluster, tmp_path: Path) -> None:
    ledger, told, may_go = (str(tmp_path / name) for name in ("ledger", "told", "may_go"))
    os.mkfifo(told)
    os.mkfifo(may_go)
    with own_cluster.client() as client:
        run = client.submit_job(TitanJob("waits", "w.py", script_content=WAITING, args=[ledger, told, may_go]))
        assert Path(told).read_text() == "running"
        own_cluster.kill_master()
        client.store_put("after", "the kill")
        Path(may_go).write_text("go")
        assert run.wait(WAIT_S).status == "COMPLETED"
    assert Path(ledger).read_text().splitlines() == ["waits 1"]


def test_a_killed_worker_is_started_again_and_so_is_its_job(own_cluster: Cluster, tmp_path: Path) -> None:
    """The successor has the same name, sweeps what was left and reports it: no waiting for a lease."""
    ledger, told, may_go = (str(tmp_path / name) for name in ("ledger", "told", "may_go"))
    os.mkfifo(told)
    os.mkfifo(may_go)
    with own_cluster.client() as client:
        run = client.submit_job(TitanJob("waits", "w.py", script_content=WAITING, args=[ledger, told, may_go]))
        assert Path(told).read_text() == "running"
        (worker,) = client.list_workers()
        os.kill(worker["pid"], signal.SIGKILL)
        assert Path(told).read_text() == "running"
        Path(may_go).write_text("go")
        assert run.wait(WAIT_S).status == "COMPLETED"
        (successor,) = client.list_workers()
        assert (successor["name"], successor["pid"] != worker["pid"]) == (worker["name"], True)
    assert Path(ledger).read_text().splitlines() == ["waits 1", "waits 2"]


def test_of_two_started_together_one_is_up_and_one_is_told(tmp_path: Path) -> None:
    command = [TITAN, "up", "--port", "0", "--workers", "0", "--json"]
    env = bare_environment(tmp_path / "home")
    ups = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    screens = [up.stdout.readline() for up in ups if up.stdout is not None]  # the refused one ends without a word
    for up in ups:
        up.terminate()
    told = [up.communicate(timeout=WAIT_S)[1] for up in ups]
    assert sorted(up.returncode for up in ups) == [0, 6]
    refused = 0 if ups[0].returncode == 6 else 1
    assert screens[refused] == b""
    assert f"pid {ups[1 - refused].pid} ".encode() in told[refused]


def test_a_closed_terminal_is_an_orderly_stop(own_cluster: Cluster) -> None:
    os.kill(own_cluster.pid, signal.SIGHUP)
    assert own_cluster.gone() == 0


def test_down_says_when_it_takes_longer_than_asked(own_cluster: Cluster) -> None:
    os.kill(own_cluster.pid, signal.SIGSTOP)
    done = own_cluster.titan("down", "--timeout", "0")
    assert done.returncode == 7
    assert f"(pid {own_cluster.pid}) is still stopping after 0 s".encode() in done.stderr
    os.kill(own_cluster.pid, signal.SIGCONT)
    assert own_cluster.gone() == 0


def test_down_signals_nobody_when_the_lock_is_a_strangers(tmp_path: Path) -> None:
    lock = homes.take(tmp_path)
    try:
        done = titan(tmp_path, "down")
        assert done.returncode == 6
        assert f"a process holds {tmp_path}/lock and does not say which it is".encode() in done.stderr
    finally:
        lock.release()
    lock = homes.take(tmp_path)
    lock.record(homes.Holder(os.getpid(), "http://127.0.0.1:1"))
    lock.release()
    assert titan(tmp_path, "down").returncode == 0  # the pid that stands there is believed under the lock only


def test_up_alone_killed_leaves_nothing_running(tmp_path: Path) -> None:
    """The pipe's end of file tells the children; a new `up` on the same home and port waits for their end."""
    cluster = Cluster(tmp_path / "home", "--port", "0").start()
    cluster.flags = ("--port", cluster.url.rpartition(":")[2])
    os.kill(cluster.pid, signal.SIGKILL)
    assert cluster.gone() == -signal.SIGKILL
    try:
        assert cluster.start().titan("status").returncode == 0
    finally:
        cluster.stop()


def test_a_master_alone_then_a_worker_of_its_own(tmp_path: Path) -> None:
    """`--workers 0`, and `titan worker` with a tag that a job requires."""
    cluster = Cluster(tmp_path / "home", "--port", "0", "--workers", "0").start()
    try:
        assert (cluster.first_screen["workers"], cluster.first_screen["capabilities"]) == (0, [])
        with cluster.client() as client:
            run = client.submit_job(
                TitanJob("fast", "fast.py", script_content="print('on the GPU')", requirement="GPU")
            )
            assert any("GPU" in warning for warning in run.warnings)
            worker = subprocess.Popen(
                [TITAN, "worker", "--join", cluster.url, "--name", "gpu1", "--capability", "GPU", "HIGH_MEM"],
                env=bare_environment(cluster.home),
            )
            try:
                assert run.wait(WAIT_S).jobs[0]["worker"] == "gpu1"
                listed = json.loads(cluster.titan("worker", "ls", "--json").stdout)["workers"]
                assert [(each["name"], each["capabilities"]) for each in listed] == [
                    ("gpu1", ["GENERAL", "GPU", "HIGH_MEM"])
                ]
            finally:
                worker.terminate()
                assert worker.wait(WAIT_S) == 0
    finally:
        cluster.stop()


def test_a_taken_port_names_the_way_out(cluster: Cluster, tmp_path: Path) -> None:
    port = cluster.url.rpartition(":")[2]
    done = titan(tmp_path, "up", "--port", port)
    assert done.returncode == 6
    assert f"port {port} on 127.0.0.1 is taken".encode() in done.stderr
    assert f"titan up --port {int(port) + 1}".encode() in done.stderr
