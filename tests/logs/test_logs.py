"""Logs from a job's print to a person's eyes, through real processes."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.cluster import TITAN, Cluster, bare_environment
from tests.logs.proofs import cluster_at, flood, many, script
from titan_sdk import TitanJob

MIB = 1024 * 1024

# Prints a third, says so through one pipe, waits for a word on another; twice. Then the rest.
IN_THIRDS = """
import sys
told, may_go = sys.argv[1:]
size = 5_000_000
whole = b"".join(b"%07d\\n" % number for number in range(size // 8))
for third in range(3):
    sys.stdout.buffer.write(whole[third * size // 3 : (third + 1) * size // 3])
    sys.stdout.flush()
    if third < 2:
        open(told, "w").write("written")
        open(may_go).read()
"""
ANY_BYTES = """
import os
os.write(1, bytes(range(256)) * 3 + "\\x1b[31mred\\x1b]0;title\\x07 caf\u00e9".encode() + b"\\xff\\x00end")
"""
CLOSES_EARLY = """
import os
os.write(1, b"said before")
os.close(1)
os.close(2)
raise SystemExit(4)
"""
WAITS = """
import sys
print("first line")
open(sys.argv[1]).read()
print("last line")
"""


@pytest.mark.timeout(300)
def test_i31_a_log_is_whole_and_in_order_though_the_master_is_killed_twice_meanwhile(own_cluster: Cluster) -> None:
    home = own_cluster.home
    told, may_go = home / "told", home / "may-go"
    for pipe in (told, may_go):
        os.mkfifo(pipe)
    with own_cluster.client() as client:
        file = script(home / "scripts", "thirds.py", IN_THIRDS)
        run = client.submit_job(TitanJob(job_id="thirds", filename=file, args=[str(told), str(may_go)]))
        for _ in range(2):
            assert told.read_text() == "written"
            own_cluster.kill_master()
            may_go.write_text("go")
        assert run.wait(120).status == "COMPLETED"
        whole = "".join(f"{number:07d}\n" for number in range(5_000_000 // 8))
        assert client.fetch_logs(f"{run.id}/thirds") == whole
        assert "".join(client.follow_logs(f"{run.id}/thirds")) == whole


@pytest.mark.timeout(300)
def test_f33_a_line_larger_than_its_log_blocks_nobody_and_what_is_missing_is_shown(tmp_path: Path) -> None:
    flood(tmp_path, 48 * MIB, 8 * MIB)


@pytest.mark.timeout(300)
def test_i33_many_jobs_that_print_at_once_cost_little_memory_and_no_lease(tmp_path: Path) -> None:
    many(tmp_path, 8, MIB, 2.0)


@pytest.mark.timeout(300)
def test_f34_a_log_is_byte_for_byte_what_was_printed(own_cluster: Cluster) -> None:
    with own_cluster.client() as client:
        file = script(own_cluster.home / "scripts", "any.py", ANY_BYTES)
        run = client.submit_job(TitanJob(job_id="any", filename=file)).wait(120)
        data = bytes(range(256)) * 3 + "\x1b[31mred\x1b]0;title\x07 caf\u00e9".encode() + b"\xff\x00end"
        assert own_cluster.titan("logs", f"{run.id}/any").stdout == data
        assert client.fetch_logs(f"{run.id}/any") == data.decode("utf-8", "replace")


@pytest.mark.timeout(300)
def test_f32_a_job_that_closes_its_output_ends_with_what_it_said(own_cluster: Cluster) -> None:
    with own_cluster.client() as client:
        file = script(own_cluster.home / "scripts", "closes.py", CLOSES_EARLY)
        run = client.submit_job(TitanJob(job_id="closes", filename=file)).wait(120)
        assert (run.status, client.fetch_logs(f"{run.id}/closes")) == ("FAILED", "said before")
        # Both streams in one pipe: our closing line does not continue the job's last one.
        joined = subprocess.run(
            [TITAN, "run", file], env=bare_environment(own_cluster.home), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=120, check=False,
        )  # fmt: skip
        assert joined.returncode == 4
        lines = joined.stdout.decode().splitlines()
        assert lines[1] == "said before"
        assert " FAILED " in lines[2]


@pytest.mark.timeout(300)
def test_a_follower_sees_a_line_while_the_job_still_runs(own_cluster: Cluster) -> None:
    may_go = own_cluster.home / "may-go"
    os.mkfifo(may_go)
    with own_cluster.client() as client:
        file = script(own_cluster.home / "scripts", "waits.py", WAITS)
        run = client.submit_job(TitanJob(job_id="waits", filename=file, args=[str(may_go)]))
        argv = [TITAN, "logs", "-f", f"{run.id}/waits"]
        with subprocess.Popen(argv, env=bare_environment(own_cluster.home), stdout=subprocess.PIPE) as follower:
            assert follower.stdout is not None
            assert follower.stdout.readline() == b"first line\n"
            assert client.get_run(run.id).status == "RUNNING"
            may_go.write_text("go")
            assert follower.stdout.read() == b"last line\n"
            assert follower.wait(120) == 0


@pytest.mark.timeout(300)
def test_i32_where_bytes_were_dropped_every_reader_is_told(tmp_path: Path) -> None:
    with cluster_at(tmp_path / "home", 4096 + 20, "--slots", "2") as (cluster, client):
        file = script(tmp_path, "digits.py", "print('0123456789' * 10)\n")
        run = client.submit_job(TitanJob(job_id="digits", filename=file)).wait(120)
        why = "a log keeps its first 10 and its last 10 bytes"
        told = f"0123456789\n[titan] 81 bytes dropped here: {why}\n123456789\n"
        name = f"{run.id}/digits"
        assert client.fetch_logs(name) == told
        assert "".join(client.follow_logs(name)) == told
        assert cluster.titan("logs", name).stdout.decode() == told
        assert cluster.titan("logs", "-f", name).stdout.decode() == told
        assert json.loads(cluster.titan("logs", "--json", name).stdout)["text"] == told
        followed = [json.loads(line) for line in cluster.titan("logs", "-f", "--json", name).stdout.splitlines()]
        assert "".join(each["text"] for each in followed if each["kind"] == "log") == told
