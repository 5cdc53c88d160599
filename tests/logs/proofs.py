"""What a real cluster does with logs, at any size: `./dev logs` runs the large ones, the test beside it small ones."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec

from tests.acceptance.cluster import Cluster, bare_environment
from titan.cli.ask import Master
from titan_sdk import TitanClient, TitanJob

LINES_BYTES = 4096
PERIOD_S = 5.0
RSS_MIB_MAX = 150
END_S = 900.0

# Prints SIZE bytes that tell their place, without a newline; says what was seen of the time it took.
FLOOD = """
import sys
size = int(sys.argv[1])
chunk = b"".join(b"%015d " % number for number in range(65536))
left = size
while left:
    left -= sys.stdout.buffer.write(chunk[:left])
sys.stdout.flush()
"""
# Prints RATE bytes a second for SECONDS, whatever becomes of them, and how long it took into a file.
STEADY = """
import sys, time
rate, seconds, told = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
line = b"x" * 1023 + b"\\n"
begun, count = time.monotonic(), 0
while (now := time.monotonic() - begun) < seconds:
    while count * 1024 < now * rate:
        sys.stdout.buffer.write(line)
        count += 1
    sys.stdout.flush()
    time.sleep(0.02)
open(told, "w").write(str(count * 1024))
"""


class Seen(msgspec.Struct):
    """What was measured: peak resident memory, and the longest time between two renewals that were answered."""

    master_mib: float
    worker_mib: float
    renewal_gap_s: float = 0.0


# A worker that notes when the renewals were sent that the Master has answered.
NOTING_WORKER = """
import os, runpy
from titan.core.link import WorkerLink

renewed = WorkerLink.renewed
noted = open(os.environ["NOTED_RENEWALS"], "a", buffering=1)

def note(self, message, now_ms):
    moved = renewed(self, message, now_ms)
    noted.write(f"{self.answered_ms}\\n")
    return moved

WorkerLink.renewed = note
runpy.run_module("titan.worker", run_name="__main__", alter_sys=True)
"""


@contextlib.contextmanager
def cluster_at(home: Path, cap: int, *flags: str) -> Iterator[tuple[Cluster, TitanClient]]:
    """A cluster whose logs are capped at `cap` bytes, and a client of it."""
    environ = {"TITAN_LIMIT_LOG_JOB_BYTES_MAX": str(cap)}
    cluster = Cluster(home, "--port", "0", *flags, environ=environ)
    try:
        with cluster.start().client() as client:
            yield cluster, client
    finally:
        cluster.stop()


def pids(cluster: Cluster) -> tuple[int, int]:
    """Return the process ids of the Master and its worker."""
    master = json.loads((cluster.home / "endpoint.json").read_text())["pid"]
    with asked(cluster) as titan:
        (worker,) = titan.page("workers")["workers"]
    return master, worker["pid"]


def asked(cluster: Cluster) -> Master:
    """Return a client that gives documents."""
    return Master(url=cluster.url, token=(cluster.home / "token").read_text().strip())


def peak_mib(pid: int) -> float:
    """Return the most memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def script(folder: Path, name: str, text: str) -> str:
    """Write a job's script and return where."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return str(folder / name)


def flood(folder: Path, size: int, cap: int) -> Seen:
    """One job prints `size` bytes in one line into a log of `cap`: both ends are there, and exactly the rest is not."""
    with cluster_at(folder / "home", cap, "--slots", "2") as (cluster, client):
        file = script(folder, "flood.py", FLOOD)
        run = client.submit_job(TitanJob(job_id="flood", filename=file, args=[str(size)])).wait(END_S)
        assert run.status == "COMPLETED", run.status
        head = (cap - LINES_BYTES) // 2
        tail = cap - LINES_BYTES - head
        why = f"a log keeps its first {head} and its last {tail} bytes"
        told = f"\n[titan] {size - head - tail} bytes dropped here: {why}\n"
        shown = cluster.titan("logs", f"{run.id}/flood", timeout_s=END_S).stdout
        chunk = b"".join(b"%015d " % number for number in range(65536))
        assert len(shown) == head + len(told) + tail
        _same(shown[:head], chunk, 0)
        assert shown[head : head + len(told)].decode() == told
        _same(shown[head + len(told) :], chunk, size - tail)
        seen = Seen(*(peak_mib(pid) for pid in pids(cluster)))
    assert seen.worker_mib < RSS_MIB_MAX, seen
    return seen


def _same(data: bytes, chunk: bytes, offset: int) -> None:
    at = offset % len(chunk)
    copies = (at + len(data)) // len(chunk) + 1
    assert data == (chunk * copies)[at : at + len(data)]


@contextlib.contextmanager
def noting_worker(cluster: Cluster, slots: int, noted: Path) -> Iterator[None]:
    """One more worker of `cluster`, whose answered renewals are noted in the file `noted`."""
    argv = ["--home", str(cluster.home), "--join", cluster.url, "--name", "noting", "--slots", str(slots)]
    environ = bare_environment(cluster.home, NOTED_RENEWALS=str(noted))
    with subprocess.Popen([sys.executable, "-P", "-c", NOTING_WORKER, *argv], env=environ) as worker:
        try:
            yield
        finally:
            worker.terminate()


def many(folder: Path, jobs: int, rate: int, seconds: float) -> Seen:
    """`jobs` jobs print `rate` bytes a second each: no lease is lost, no job either, nothing grows, nothing is missing.

    A job is not slowed down by what becomes of its output beyond what the machine's cores allow: it says itself
    what it has printed, and that is what is there.
    """
    noted = folder / "renewals"
    with (
        cluster_at(folder / "home", 1 << 30, "--workers", "0") as (cluster, client),
        noting_worker(cluster, jobs, noted),
    ):
        file = script(folder, "steady.py", STEADY)
        (folder / "told").mkdir()
        runs = []
        for n in range(jobs):
            args = [str(rate), str(seconds), str(folder / "told" / str(n))]
            runs.append(client.submit_job(TitanJob(job_id=f"job-{n}", filename=file, args=args)))
        for run in runs:
            assert run.wait(END_S).status == "COMPLETED", run.status
        with asked(cluster) as titan:
            for n, run in enumerate(runs):
                (tried,) = titan.attempts({"run_id": run.id, "id": f"job-{n}"})
                assert tried["log_bytes"] == int((folder / "told" / str(n)).read_text())
        seen = Seen(*(peak_mib(pid) for pid in pids(cluster)))
    sent_ms = [int(line) for line in noted.read_text().split()]
    seen.renewal_gap_s = max((later - sooner for sooner, later in pairwise(sent_ms)), default=0) / 1000
    assert seen.renewal_gap_s <= 2 * PERIOD_S, seen
    assert seen.worker_mib < RSS_MIB_MAX, seen
    return seen
