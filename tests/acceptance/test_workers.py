"""Several workers under one Master, as the processes they are: which job runs where, and what their deaths change.

Everything is judged from what the jobs wrote themselves: who they are, whose folder they stand in, which GPU they see.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.acceptance.cluster import PAGE, Cluster, JoinedWorker
from tests.worker.gpus import UUIDS, gpus
from titan.cli.ask import Master
from titan_sdk import TitanClient, TitanJob

WAIT_S = 90
JOBS = 120
DEVICES = 2

# Says where it runs, and holds its GPU as a program on it would: a second holder fails.
WHERE = """
import fcntl, os, sys
folder = sys.argv[1]
device = os.environ.get("CUDA_VISIBLE_DEVICES", "unset")
worker = os.environ["TITAN_WORKDIR"].split("/")[-3]
if device.startswith("GPU-"):
    lock = open(f"{folder}/{device}", "w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
sum(range(300_000))
with open(f"{folder}/ledger", "a") as file:
    file.write(f"{os.environ['TITAN_JOB_ID']} {os.environ['TITAN_ATTEMPT']} {worker} {device or 'none'}\\n")
"""
# Tells the test through one pipe and waits for its word on another.
PAUSE = """
import os
with open({told!r}, "w") as pipe:
    pipe.write(os.environ["TITAN_JOB_ID"] + "\\n")
with open({go!r}, "rb", buffering=0) as pipe:
    pipe.read(1)
"""


class Pipes:
    """Two pipes between jobs that wait and the test. Both stay open here, so that no word is lost between readers."""

    def __init__(self, folder: Path) -> None:
        for name in ("told", "go"):
            os.mkfifo(folder / name)
        self._told = os.open(folder / "told", os.O_RDWR)
        self._go = os.open(folder / "go", os.O_RDWR)
        self.script = PAUSE.format(told=str(folder / "told"), go=str(folder / "go"))

    def told(self, count: int) -> set[str]:
        """Wait until `count` jobs have said that they wait, and return which."""
        text = b""
        while text.count(b"\n") < count:
            text += os.read(self._told, 4096)
        return set(text.decode().split())

    def go(self, count: int) -> None:
        """Let `count` jobs go on."""
        os.write(self._go, b"." * count)

    def close(self) -> None:
        os.close(self._told)
        os.close(self._go)


class Entry(NamedTuple):
    """One line of the ledger."""

    job: str
    attempt: int
    worker: str
    device: str


class Site:
    """A cluster of three workers, and the folder that the jobs of one test write to.

    The Master's own worker offers GPU and has two devices; `big` takes only what asks for HIGH_MEM; `plain` is plain.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environ = gpus(folder / "bin", DEVICES)
        self.cluster = Cluster(
            folder / "home", "--port", "0", "--slots", "3", "--capability", "GPU", "HERE", environ=environ
        )
        self.workers: dict[str, JoinedWorker] = {}

    def begin(self, folder: Path) -> None:
        """Have all three workers, and an empty ledger in `folder`."""
        self.folder = folder
        self.pipes = Pipes(folder)
        for name, flags in {"big": ("--no-general", "--capability", "HIGH_MEM"), "plain": ()}.items():
            if name not in self.workers:
                self.start_worker(name, *flags)
        for worker in self.workers.values():
            worker.wait_connected()

    def end(self) -> None:
        """Stop what the test started, and forget what it stopped."""
        for name, worker in list(self.workers.items()):
            if name not in ("big", "plain"):
                worker.stop()
            if worker.process.returncode is not None:
                del self.workers[name]
        self.pipes.close()

    def start_worker(self, name: str, *flags: str) -> JoinedWorker:
        self.workers[name] = JoinedWorker(self.cluster.home, self.cluster.url, name, "--slots", "2", *flags)
        return self.workers[name]

    def job(self, job_id: str, *, waits: bool = False, **options: Any) -> TitanJob:
        script = WHERE + self.pipes.script if waits else WHERE
        return TitanJob(job_id, "job.py", script_content=script, args=[str(self.folder)], **options)

    def ledger(self) -> list[Entry]:
        lines = (self.folder / "ledger").read_text().splitlines()
        return [Entry(job, int(attempt), worker, device) for job, attempt, worker, device in map(str.split, lines)]

    @property
    def home_worker(self) -> str:
        """The name of the worker that `titan up` started."""
        with self.cluster.client() as client:
            (name,) = {worker["name"] for worker in client.list_workers() if "HERE" in worker["capabilities"]}
        return str(name)

    def stop(self) -> None:
        for worker in self.workers.values():
            worker.stop()
        self.cluster.stop()


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    try:
        site.cluster.start()
        yield site
    finally:
        site.stop()


@pytest.fixture
def site(shared_site: Site, tmp_path: Path) -> Iterator[Site]:
    shared_site.begin(tmp_path)
    yield shared_site
    shared_site.end()


@pytest.fixture
def client(site: Site) -> Iterator[TitanClient]:
    with site.cluster.client() as client:
        yield client


def test_every_job_runs_where_it_may_and_no_two_on_one_gpu(site: Site, client: TitanClient) -> None:
    gpu, big, plain = site.home_worker, "big", "plain"
    may: dict[tuple[str, ...], set[str]] = {
        ("GENERAL",): {gpu, plain},
        ("GPU",): {gpu},
        ("HIGH_MEM",): {big},
        ("GENERAL", "GPU"): {gpu},
    }
    kinds = list(may)
    jobs = [site.job(f"j{number}", requirement=kinds[number % len(kinds)]) for number in range(JOBS)]
    run = client.submit_dag("everywhere", jobs).wait(WAIT_S)
    assert run.status == "COMPLETED", [
        (job["id"], run.logs(job["id"])) for job in run.jobs if job["state"] != "COMPLETED"
    ]
    ledger = site.ledger()
    assert sorted(entry.job for entry in ledger) == sorted(f"j{number}" for number in range(JOBS))
    for entry in ledger:
        kind = kinds[int(entry.job[1:]) % len(kinds)]
        assert entry.worker in may[kind], entry
        assert entry.attempt == 1
        if "GPU" in kind:
            assert entry.device in UUIDS[:DEVICES]
        else:
            assert entry.device == ("none" if entry.worker == gpu else "unset")
    assert {entry.worker for entry in ledger} == {gpu, big, plain}


def test_gpu_jobs_run_side_by_side_one_a_device_and_the_next_keeps_no_slot(site: Site, client: TitanClient) -> None:
    """Three slots, two devices: two GPU jobs run, the third waits for a device, and another job takes its slot."""
    run = client.submit_dag("gpus", [site.job(f"g{number}", waits=True, requirement="GPU") for number in range(3)])
    first = site.pipes.told(2)
    assert {entry.device for entry in site.ledger()} == set(UUIDS[:DEVICES])
    (third,) = {"g0", "g1", "g2"} - first
    told = client.explain(f"{run.id}/{third}")
    assert (told["state"], told["reason"]) == ("QUEUED", "ALL_DEVICES_BUSY")
    assert client.submit_job(site.job("beside", requirement="HERE")).wait(WAIT_S).status == "COMPLETED"
    site.pipes.go(1)
    last = site.pipes.told(1)
    site.pipes.go(2)
    assert first | last == {"g0", "g1", "g2"}
    assert run.wait(WAIT_S).status == "COMPLETED"


def test_a_child_runs_on_its_parents_worker_until_that_worker_is_stopped(site: Site, client: TitanClient) -> None:
    children = [site.job(f"child{number}", parents=[f"parent{number}"], affinity=True) for number in range(6)]
    parents = [site.job(f"parent{number}") for number in range(6)]
    assert client.submit_dag("families", [*parents, *children]).wait(WAIT_S).status == "COMPLETED"
    where = {entry.job: entry.worker for entry in site.ledger()}
    assert [where[f"child{number}"] for number in range(6)] == [where[f"parent{number}"] for number in range(6)]
    # A child that waits for a place on its parent's worker goes elsewhere when that one leaves.
    busy = [
        site.job(f"busy{number}", waits=True, parents=["root"], affinity=True, on_lost="fail") for number in range(2)
    ]
    pinned = site.job("pinned", parents=["root"], affinity=True, affinity_wait_s=3600, priority=0)
    run = client.submit_dag("pinned", [site.job("root"), *busy, pinned])
    assert site.pipes.told(2) == {"busy0", "busy1"}
    assert {entry.worker for entry in site.ledger() if entry.job in ("root", "busy0", "busy1")} == {"plain"}
    assert client.explain(f"{run.id}/pinned")["state"] == "QUEUED"
    assert site.workers["plain"].stop() == 0
    run.wait(WAIT_S)
    (entry,) = (entry for entry in site.ledger() if entry.job == "pinned")
    assert entry.worker == site.home_worker


def test_a_worker_stopped_in_order_gives_back_what_it_did_not_begin_as_good_as_new(
    site: Site, client: TitanClient
) -> None:
    leaver = site.start_worker("leaver", "--slots", "1", "--no-general", "--capability", "LEAVE").wait_connected()
    # After jobs that were short enough on this machine, one more than there are slots is sent ahead and comes back.
    short = client.submit_dag("short", [site.job(f"short{number}", requirement="LEAVE") for number in range(8)])
    assert short.wait(WAIT_S).status == "COMPLETED"
    held = site.job("held", waits=True, requirement="LEAVE", priority=2)
    behind = [f"behind{number}" for number in range(5)]
    run = client.submit_dag("left", [held, *(site.job(name, requirement="LEAVE") for name in behind)])
    site.pipes.told(1)
    assert leaver.stop() == 0
    assert re.search("^leaver +stopped ", site.cluster.titan("worker", "ls").stdout.decode(), re.MULTILINE)
    for name in behind:
        said = client.explain(f"{run.id}/{name}")
        assert (said["state"], said["reason"]) == ("QUEUED", "NO_WORKER_WITH_CAPABILITY"), said
    site.start_worker("heir", "--no-general", "--capability", "LEAVE")
    site.pipes.told(1)
    site.pipes.go(1)
    assert run.wait(WAIT_S).status == "COMPLETED"
    ran = [entry for entry in site.ledger() if not entry.job.startswith("short")]
    assert sorted(entry[:3] for entry in ran) == [
        *((name, 1, "heir") for name in behind),
        ("held", 1, "leaver"),
        ("held", 2, "heir"),
    ]


def test_a_job_waits_with_a_reason_for_a_capability_and_runs_when_a_worker_joins(
    site: Site, client: TitanClient
) -> None:
    run = client.submit_job(site.job("needs", requirement=["HIGH_MEM", "DISK"]))
    assert run.warnings == ("no connected worker offers DISK: 1 job waits until one does",)
    told = client.explain(f"{run.id}/needs")
    assert (told["state"], told["reason"]) == ("QUEUED", "NO_WORKER_WITH_CAPABILITY")
    assert "titan worker" in told["remedy"]
    site.start_worker("disk", "--no-general", "--capability", "HIGH_MEM", "DISK").wait_connected()
    assert run.wait(WAIT_S).status == "COMPLETED"
    assert [entry.worker for entry in site.ledger()] == ["disk"]


def test_what_is_urgent_goes_first_and_the_rest_in_order(site: Site, client: TitanClient) -> None:
    site.start_worker("only", "--slots", "1", "--capability", "ONE")
    first = client.submit_job(site.job("first", waits=True, requirement="ONE"))
    site.pipes.told(1)
    priorities = {"low": 0, "usual": 1, "high": 500, "usual2": 1, "highest": 1000}
    jobs = [site.job(name, requirement="ONE", priority=priority) for name, priority in priorities.items()]
    rest = client.submit_dag("in order", jobs)
    site.pipes.go(1)
    assert [run.wait(WAIT_S).status for run in (first, rest)] == ["COMPLETED"] * 2
    assert [entry.job for entry in site.ledger()] == ["first", "highest", "high", "usual", "usual2", "low"]


# Kills the worker: the parent of its parent, which is the launcher.
POISON = """
import os, signal
with open(f"/proc/{os.getppid()}/stat") as file:
    worker = int(file.read().rpartition(")")[2].split()[1])
os.kill(worker, signal.SIGKILL)
signal.pause()
"""


def test_f52_a_job_that_kills_its_worker_three_times_is_dead_and_others_go_on(own_cluster: Cluster) -> None:
    with Master(url=own_cluster.url, token=(own_cluster.home / "token").read_text().strip()) as master:
        run = master.submit_job(TitanJob("poison", "poison.py", script_content=POISON)).wait(WAIT_S)
        assert [(job["state"], job["reason"]) for job in run.jobs] == [("DEAD", "TOOK_WORKERS_DOWN")]
        attempts = master.attempts({"run_id": run.id, "id": "poison"})
        assert [attempt["cause"] for attempt in attempts] == ["lost"] * 3
        assert run.status == "FAILED"
        after = master.submit_job(TitanJob("after", "after.py", script_content="print('still here')")).wait(WAIT_S)
        assert (after.status, after.logs("after")) == ("COMPLETED", "still here\n")


# The page's agent, held before its first store call in its very first attempt, and never lucky.
HELD = """
import os, random
if os.environ["TITAN_ATTEMPT"] == "1" and os.environ["TITAN_JOB_ID"] == "agent_retry_0":
    exec({pause!r})
random.choice = lambda _: False
"""
COUNTS_ONCE = """
import os
from titan_sdk import TitanClient
print("counted", TitanClient().store_incr("counted"))
if os.environ["TITAN_ATTEMPT"] == "1":
    exec({pause!r})
"""


def test_the_pages_agent_survives_its_worker_and_counts_right(tmp_path: Path) -> None:
    """Two workers; the one on which the agent stands before its first store call is killed, and a counting job with it.

    Nobody starts that worker again, so its lease has to run out; then both go on at the other worker.
    """
    cluster = Cluster(tmp_path / "home", "--port", "0", "--workers", "0")
    pipes = Pipes(tmp_path)
    workers = []
    try:
        cluster.start()
        workers.append(JoinedWorker(cluster.home, cluster.url, "first", "--slots", "2"))
        page = (PAGE / "autonomous_agent.py").read_text()
        scripts = {
            "agent_retry_0": ("autonomous_agent.py", HELD.format(pause=pipes.script) + page),
            "counter": ("counter.py", COUNTS_ONCE.format(pause=pipes.script)),
        }
        with cluster.client() as client:
            client.store_put("counted", "0")
            agent, counter = (
                client.submit_job(TitanJob(job_id, filename, script_content=text, lease_s=30), agent_run_id=job_id)
                for job_id, (filename, text) in scripts.items()
            )
            assert pipes.told(2) == set(scripts)
            workers.append(JoinedWorker(cluster.home, cluster.url, "second", "--slots", "2").wait_connected())
            workers[0].kill()
            assert counter.wait(WAIT_S).status == "COMPLETED"
            assert counter.logs("counter") == "counted 1\n"
            assert client.store_get("counted") == "1"
            chain = []
            while len(chain) < len(runs := client.list_runs(agent_run_id="agent_retry_0")[::-1]):
                chain = [run.wait(WAIT_S) for run in runs]
            assert [run.jobs[0]["id"] for run in chain] == [f"agent_retry_{number}" for number in range(4)]
            assert [run.status for run in chain] == ["COMPLETED"] * 3 + ["FAILED"]
            logs = [run.logs(run.jobs[0]["id"]) for run in chain]
            assert [log.splitlines()[0] for log in logs] == [
                f"[INFO] Agent Booting... (Attempt {number} of 3)" for number in (1, 2, 3, 4)
            ]
            assert logs[-1].endswith("[ESCALATION] Task failed 3 times. Halting recursion and alerting human.\n")
            assert client.store_get("agent_retry_count") == "0"
            assert [run.jobs[0]["attempt"] for run in (agent.wait(), counter)] == [2, 2]
    finally:
        for worker in workers:
            worker.stop()
        cluster.stop()
        pipes.close()


def test_worker_ls_says_who_is_there_and_what_each_offers(site: Site) -> None:
    done = site.cluster.titan("worker", "ls", "--json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)["workers"]
    workers = {worker["name"]: worker for worker in listed if worker["connected"]}
    assert set(workers) == {site.home_worker, "big", "plain"}
    assert workers["big"]["capabilities"] == ["HIGH_MEM"]
    assert workers[site.home_worker]["capabilities"] == ["GENERAL", "GPU", "HERE"]
    assert {name: worker["devices"] for name, worker in workers.items()} == {site.home_worker: 2, "big": 0, "plain": 0}


def test_a_worker_with_a_dead_address_joins_at_its_next(site: Site, client: TitanClient) -> None:
    flags = ("--join", site.cluster.url, "--no-general", "--capability", "FAR")
    worker = site.workers["far"] = JoinedWorker(site.cluster.home, "http://127.0.0.1:1", "far", *flags)
    worker.wait_said(f"connected to {site.cluster.url}")
    assert worker.said[0].endswith(f"; trying {site.cluster.url}\n")
    asks = "import os\nprint(os.environ['TITAN_URL'])\n"
    run = client.submit_job(TitanJob("asks", "asks.py", script_content=asks, requirement=["FAR"]))
    assert run.wait(WAIT_S).status == "COMPLETED"
    assert client.fetch_logs("asks") == f"{site.cluster.url}\n"


def test_s23_everything_in_the_home_is_private(site: Site, client: TitanClient) -> None:
    run = client.submit_dag("all", [site.job(f"j{tag}", requirement=tag) for tag in ("GENERAL", "GPU", "HIGH_MEM")])
    assert run.wait(WAIT_S).status == "COMPLETED"
    failed = client.submit_job(TitanJob("fails", "fails.py", script_content="open('evidence', 'w')\nexit(3)"))
    assert failed.wait(WAIT_S).status == "FAILED"
    root = site.cluster.home
    client.store_put("a", "b")
    paths = [root, *(path for path in root.rglob("*") if not path.is_symlink())]
    assert [str(path) for path in paths if path.lstat().st_mode & 0o077] == []
    assert {path.name for path in paths} >= {".gpu", "big", "plain", "evidence", "shared", "lock"}
