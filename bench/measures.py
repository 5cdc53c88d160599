"""The measurements. Each takes the run's folder and returns its figures; none asserts anything."""

import json
import os
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.cluster import PYTHON, TITAN, Cluster, clean_environment, rss_bytes
from bench.report import Figure, median_and_spread
from titan_sdk import TitanJob

NOOP = "print('ok')\n"
REPEATS = 3
MIB = 1024 * 1024


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that `action` takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def noop_script(folder: Path) -> Path:
    """Write the no-op script that is the job of every figure here."""
    script = folder / "noop.py"
    script.write_text(NOOP)
    return script


def bare_s(script: Path) -> float:
    """Return the median seconds of one bare `python noop.py`."""
    command = [PYTHON, str(script)]
    quiet = {"stdout": subprocess.DEVNULL, "env": clean_environment()}
    return median_and_spread([timed(lambda: subprocess.run(command, check=True, **quiet)) for _ in range(20)])[0]


def fan_out(folder: Path, jobs: int) -> list[Figure]:
    """No-op script jobs a second, one DAG end to end, against `xargs -P2 python noop.py`."""
    script = noop_script(folder)
    many = "\n".join([str(script)] * jobs).encode()
    command = ["xargs", "-P2", "-n1", PYTHON]
    yardstick = []
    ours = []
    with Cluster(folder / "fan") as cluster, cluster.client() as client:
        client.submit_dag("warm", [TitanJob(job_id=f"w{at}", filename=str(script)) for at in range(20)]).wait()
        for _ in range(REPEATS):
            yardstick.append(
                jobs
                / timed(
                    lambda: subprocess.run(
                        command, input=many, check=True, stdout=subprocess.DEVNULL, env=clean_environment()
                    )
                )
            )
            dag = [TitanJob(job_id=f"j{at}", filename=str(script)) for at in range(jobs)]
            ours.append(jobs / timed(lambda dag=dag: client.submit_dag("fan", dag).wait().raise_for_status()))
    (rate, spread), (bare, bare_spread) = median_and_spread(ours), median_and_spread(yardstick)
    return [
        Figure(
            f"fan-out of {jobs} no-op scripts",
            f"{rate:.0f} jobs/s ({spread})",
            f"xargs -P2: {bare:.0f} jobs/s ({bare_spread})",
            f"{rate / bare:.2f}x",
            ">= 2x",
            "cold start",
        )
    ]


def chain_and_single(folder: Path, hops: int) -> list[Figure]:
    """Milliseconds a hop of a chain, and of one job from submit to observed end, against a bare start."""
    script = noop_script(folder)
    with Cluster(folder / "chain") as cluster, cluster.client() as client:
        client.submit_job(TitanJob(job_id="warm", filename=str(script))).wait()
        hop, single, bare = [], [], []
        for _ in range(REPEATS):
            bare.append(bare_s(script) * 1000)
            dag = [
                TitanJob(job_id=f"j{at}", filename=str(script), parents=[f"j{at - 1}"] if at else [])
                for at in range(hops)
            ]
            hop.append(timed(lambda dag=dag: client.submit_dag("chain", dag).wait()) / hops * 1000)
            for _ in range(10):
                job = TitanJob(job_id="one", filename=str(script))
                single.append(timed(lambda job=job: client.submit_job(job).wait()) * 1000)
    (hop_ms, hop_spread), (one_ms, one_spread) = median_and_spread(hop), median_and_spread(single)
    bare_ms = median_and_spread(bare)[0]
    return [
        Figure(
            f"chain of {hops}", f"{hop_ms:.1f} ms a hop ({hop_spread})", f"python noop.py: {bare_ms:.1f} ms",
            f"{hop_ms / bare_ms:.2f}x", "<= 0.5x", "",
        ),
        Figure(
            "one job, submit to observed end", f"{one_ms:.1f} ms ({one_spread})", f"python noop.py: {bare_ms:.1f} ms",
            f"{one_ms / bare_ms:.2f}x", "<= 0.6x", "client start",
        ),
    ]  # fmt: skip


def store(folder: Path, calls: int) -> list[Figure]:
    """Store puts and gets a second of one client, against SQLite alone and Redis where it is installed."""
    with Cluster(folder / "store", "--workers", "0") as cluster, cluster.client() as client:
        client.store_put("warm", "1")
        puts = calls / timed(lambda: [client.store_put(f"k{at}", "value") for at in range(calls)])
        gets = calls / timed(lambda: [client.store_get(f"k{at}") for at in range(calls)])
    commits = calls / timed(lambda: sqlite_commits(folder / "yard.db", calls))
    figures = [
        Figure("store put, durable", f"{puts:.0f}/s", f"SQLite FULL, in process: {commits:.0f} commits/s",
               f"{puts / commits:.2f}x", "-", "other clients"),
    ]  # fmt: skip
    redis = redis_rates(folder, calls)
    if redis is None:
        figures.append(Figure("store get", f"{gets:.0f}/s", "redis-server is not installed here", "-", ">= 0.6x"))
        return figures
    sets, redis_gets = redis
    return [
        *figures,
        Figure("store put, durable", f"{puts:.0f}/s", f"Redis, appendfsync always: {sets:.0f}/s",
               f"{puts / sets:.2f}x", ">= 1.0x", "a bare socket speaks to Redis, not redis-py"),
        Figure("store get", f"{gets:.0f}/s", f"Redis: {redis_gets:.0f}/s", f"{gets / redis_gets:.2f}x", ">= 0.6x",
               "a bare socket speaks to Redis, not redis-py"),
    ]  # fmt: skip


def sqlite_commits(path: Path, rows: int) -> None:
    """Commit `rows` single rows with WAL and synchronous=FULL."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT)")
    for at in range(rows):
        connection.execute("INSERT INTO kv VALUES (?, ?)", (f"k{at}", "value"))
    connection.close()


def redis_rates(folder: Path, calls: int) -> tuple[float, float] | None:
    """Return sets and gets a second of a local Redis that fsyncs always; None when it is not installed."""
    data = Path(tempfile.mkdtemp(dir=folder))
    address = data / "socket"
    settings = ["--port", "0", "--unixsocket", str(address), "--dir", str(data)]
    settings += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    try:
        server = subprocess.Popen(["redis-server", *settings], stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        return None
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if "ready to accept" in line.lower():
                break
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(address))
            call = redis_caller(link)
            sets = calls / timed(lambda: [call(b"SET", b"k%d" % at, b"value") for at in range(calls)])
            gets = calls / timed(lambda: [call(b"GET", b"k%d" % at) for at in range(calls)])
    finally:
        server.terminate()
        server.communicate()
    return sets, gets


def redis_caller(link: socket.socket) -> Callable[..., bytes]:
    """Return a function that sends one command and reads its short answer."""

    def call(*words: bytes) -> bytes:
        link.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
        return link.recv(4096)

    return call


def footprint(folder: Path) -> list[Figure]:
    """Start-up time and idle memory."""
    ready = []
    for at in range(REPEATS):
        with Cluster(folder / f"foot{at}") as cluster:
            ready.append(cluster.ready_s)
            pids = cluster.processes()
            total = sum(rss_bytes(pid) for pid in pids) / 1e6
    ready_s, spread = median_and_spread(ready)
    return [
        Figure("cold start, titan up to ready", f"{ready_s:.2f} s ({spread})", "-", "-", "<= 1.5 s"),
        Figure(f"idle memory of all {len(pids)} processes", f"{total:.0f} MB", "-", "-", "<= 165 MB"),
    ]


def client_start(folder: Path) -> list[Figure]:
    """What a shell waits for `titan ps --json`, and a script for the SDK, beyond the start of Python itself.

    The three take turns, so that whatever else the machine does meanwhile is in all of them; CPU time is told as well,
    which a busy machine lengthens less.
    """
    empty, imports = folder / "empty.py", folder / "imports.py"
    empty.write_text("")
    imports.write_text("import titan_sdk\n")
    took: dict[str, list[tuple[float, float]]] = {"bare": [], "sdk": [], "ps": []}
    with Cluster(folder / "start", "--workers", "0") as cluster, cluster.client() as client:
        client.stats()
        environ = clean_environment(TITAN_HOME=str(cluster.home))
        commands = {"bare": [PYTHON, str(empty)], "sdk": [PYTHON, str(imports)], "ps": [TITAN, "ps", "--json"]}
        for _ in range(21):
            for name, command in commands.items():
                took[name].append(started(command, environ))
    bare_ms, bare_cpu_ms = map(statistics.median, zip(*took["bare"], strict=True))
    figures = []
    for name, what, goal in (("sdk", "import titan_sdk", "<= 15 ms"), ("ps", "titan ps --json", "<= 120 ms")):
        ms, spread = median_and_spread([one - bare_ms for one, _ in took[name]])
        cpu_ms = statistics.median(cpu for _, cpu in took[name]) - bare_cpu_ms
        told = f"{ms:.1f} ms ({spread}), {cpu_ms:.1f} ms of CPU"
        figures.append(Figure(f"{what}, over bare Python", told, f"python: {bare_ms:.1f} ms", "-", goal))
    return figures


def started(command: list[str], environ: dict[str, str]) -> tuple[float, float]:
    """Run a command and return the milliseconds that it took, by the clock and of CPU."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environ)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return (time.perf_counter() - begun) * 1000, (used.ru_utime + used.ru_stime) * 1000


def copied(source: Path, target: Path) -> None:
    """Copy a file and make it durable."""
    subprocess.run(["cp", str(source), str(target)], check=True)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def artifact(folder: Path, mib: int) -> list[Figure]:
    """MiB a second of one artifact published and fetched, against `cp` and fsync, and what it costs the Master."""
    content = folder / "content"
    with content.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
    copying = timed(lambda: copied(content, folder / "copy"))
    with Cluster(folder / "artifact", "--workers", "0") as cluster, cluster.client() as client:
        client.stats()
        before = rss_bytes(cluster.master_pid())
        put = timed(lambda: client.publish_artifact("bench", content))
        growth = (rss_bytes(cluster.master_pid()) - before) / 1e6
        got = timed(lambda: client.get_artifact("bench", folder / "back"))
    yard = f"cp and fsync: {mib / copying:.0f} MiB/s"
    name = f"artifact of {mib} MiB"
    return [
        Figure(f"{name}, published", f"{mib / put:.0f} MiB/s", yard, f"{copying / put:.2f}x", "-"),
        Figure(f"{name}, fetched", f"{mib / got:.0f} MiB/s", yard, f"{copying / got:.2f}x", "-"),
        Figure(f"{name}, Master's memory", f"{growth:.1f} MB more", "-", "-", "<= 16 MB"),
    ]


def large_dag(folder: Path, jobs: int) -> list[Figure]:
    """One DAG of `jobs`: time to the durable answer, the Master's growth, and the slowest other request meanwhile."""
    script = noop_script(folder)
    with Cluster(folder / "large", "--workers", "0") as cluster, cluster.client() as client:
        before = rss_bytes(cluster.master_pid())
        watch = subprocess.Popen(
            [PYTHON, "-c", WATCH, cluster.url, str(cluster.home / "token")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment(),
        )  # fmt: skip
        dag = [TitanJob(job_id=f"j{at}", filename=str(script), parents=["j0"] if at else []) for at in range(jobs)]
        runs = []
        accepted_s = timed(lambda: runs.append(client.submit_dag("large", dag)))
        growth = rss_bytes(cluster.master_pid()) - before
        cancelled_s = timed(lambda: (runs[0].cancel(), runs[0].wait()))
        answer, _ = watch.communicate("stop\n")
        slowest = json.loads(answer)
    return [
        Figure(f"submit one DAG of {jobs}", f"{accepted_s:.2f} s", "-", "-", "<= 5 s", "building it in the client"),
        Figure("Master memory a job, pending", f"{growth / jobs:.0f} B", "-", "-", "<= 1500 B"),
        Figure(f"cancel all {jobs} until ended", f"{cancelled_s:.2f} s", "-", "-", "-"),
        Figure(
            f"other requests meanwhile ({slowest['count']})",
            f"median {slowest['median_ms']:.1f} ms, slowest {slowest['slowest_ms']:.0f} ms", "-", "-", "-",
        ),
    ]  # fmt: skip


WATCH = """
import json, select, statistics, sys, time
from titan_sdk import TitanClient
client = TitanClient(url=sys.argv[1], token=open(sys.argv[2]).read().strip())
took = []
while not select.select([sys.stdin], [], [], 0.01)[0]:
    begun = time.perf_counter()
    client.stats()
    took.append((time.perf_counter() - begun) * 1000)
print(json.dumps({"count": len(took), "median_ms": statistics.median(took), "slowest_ms": max(took)}))
"""
