"""The four blocks of the documentation page, unedited, run with plain `python` against a real cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import PAGE, Cluster
from tests.acceptance.memory_limit import memory_limit
from titan_sdk import Run, TitanClient, TitanJob

WAIT_S = 60
LAUNCHES_MAX = 60
MEMORY_BYTES = 64 * 1024 * 1024
FLAKY = "flaky_training_run"

# The page calls get_current_traffic() "your custom monitoring logic": this is ours, put where the block finds it.
WITH_TRAFFIC = """
import builtins, runpy, sys
builtins.get_current_traffic = lambda: int(sys.argv[2])
runpy.run_path(sys.argv[1], run_name="__main__")
"""
SEGFAULT = """
import ctypes
print("epoch 1", flush=True)
ctypes.string_at(0)
"""
HUNGRY = """
import os, sys
with open(sys.argv[1], "w") as procs:
    procs.write(str(os.getpid()))
print("epoch 1", flush=True)
hoard = [os.urandom(1024 * 1024) for _ in range(512)]
print("nobody stopped me")
"""


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def newest(client: TitanClient, name: str) -> Run:
    """The newest run of that name, ended."""
    return client.list_runs(name=name, limit=1)[0].wait(WAIT_S)


def states(run: Run) -> dict[str, str]:
    return {job["id"]: job["state"] for job in run.jobs}


class TestBlock1:
    """A DAG of two on port 9090, where the block says the Master is."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write(tmp_path, "etl/extract.py", "print('extracted 100 rows')\n")
        write(tmp_path, "ml/train.py", "print('trained')\n")
        return tmp_path

    def test_the_dag_runs_in_order_on_the_gpu_worker(self, page_cluster: Cluster, folder: Path) -> None:
        done = page_cluster.python(PAGE / "block1.py", cwd=folder)
        assert (done.returncode, done.stdout, done.stderr) == (0, "DAG Submitted Successfully!\n", "")
        with page_cluster.client() as client:
            run = newest(client, "nightly_pipeline")
            extract, train = run.jobs
            assert states(run) == {"extract_data": "COMPLETED", "train_model": "COMPLETED"}
            assert client.fetch_logs("extract_data") == "extracted 100 rows\n"
            assert client.fetch_logs("train_model") == "trained\n"
            assert train["parents"] == ["extract_data"]
            assert train["requirement"] == ["GPU"]
            assert extract["priority"] == 5
            assert extract["ended_at"] <= train["started_at"]

    def test_a_missing_script_is_one_error_that_names_both_places(self, page_cluster: Cluster, folder: Path) -> None:
        (folder / "ml" / "train.py").unlink()
        with page_cluster.client() as client:
            before = [run.id for run in client.list_runs()]
            done = page_cluster.python(PAGE / "block1.py", cwd=folder)
            assert done.returncode == 1
            told = done.stderr.rpartition("FileMissing: ")[2]
            assert str(folder / "ml" / "train.py") in told
            assert "registry" in told
            assert [run.id for run in client.list_runs()] == before


class TestBlock2:
    """The switch takes the branch that the traffic asks for."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write(tmp_path, "with_traffic.py", WITH_TRAFFIC)
        write(tmp_path, "fast_path.py", "print('fast')\n")
        write(tmp_path, "deep_path.py", "import os\nprint('deep', os.environ['TITAN_JOB_ID'])\n")
        return tmp_path

    def test_high_traffic_takes_the_fast_path(self, cluster: Cluster, client: TitanClient, folder: Path) -> None:
        done = cluster.python("with_traffic.py", PAGE / "block2.py", "95", cwd=folder)
        assert done.stdout == "[HIGH] High Traffic. Switching to lightweight 'FAST' pipeline.\n"
        assert done.returncode == 0
        assert states(newest(client, "fast_scan")) == {"fast_scan": "COMPLETED"}
        assert client.fetch_logs("fast_scan") == "fast\n"

    def test_low_traffic_runs_ten_in_parallel(self, cluster: Cluster, client: TitanClient, folder: Path) -> None:
        done = cluster.python("with_traffic.py", PAGE / "block2.py", "10", cwd=folder)
        assert done.stdout == "[LOW] Normal Traffic. Generating distributed 'DEEP' analysis DAG.\n"
        run = newest(client, "DEEP_PIPELINE")
        assert states(run) == {f"deep_{number}": "COMPLETED" for number in range(10)}
        assert [run.logs(f"deep_{number}") for number in range(10)] == [f"deep deep_{number}\n" for number in range(10)]


class TestBlock3:
    """The healer reads the cause of a real crash from the log, and its `if` is the page's own."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write(tmp_path, "scripts/safe_mode_patch.py", "print('patched')\n")
        return tmp_path

    @pytest.fixture
    def segfaulted(self, client: TitanClient) -> Run:
        run = client.submit_job(TitanJob(job_id=FLAKY, filename="flaky.py", script_content=SEGFAULT)).wait(WAIT_S)
        assert client.fetch_logs(FLAKY) == "epoch 1\n[titan] killed by SIGSEGV (Segfault)\n"
        assert run.jobs[0]["exit_code"] == 128 + 11
        return run

    def heal(self, cluster: Cluster, client: TitanClient, folder: Path) -> None:
        done = cluster.python(PAGE / "block3.py", cwd=folder)
        assert done.stdout == f"[ERROR] CRITICAL ERROR in {FLAKY}. Agent is deploying a patch...\n", done.stderr
        assert done.returncode == 0
        assert states(newest(client, f"{FLAKY}_fix")) == {f"{FLAKY}_fix": "COMPLETED"}
        assert client.fetch_logs(f"{FLAKY}_fix") == "patched\n"

    @pytest.mark.usefixtures("segfaulted")
    def test_it_heals_a_segfault(self, cluster: Cluster, client: TitanClient, folder: Path) -> None:
        self.heal(cluster, client, folder)

    def test_it_heals_a_job_killed_for_memory(self, cluster: Cluster, client: TitanClient, folder: Path) -> None:
        with memory_limit(MEMORY_BYTES) as procs:
            job = TitanJob(job_id=FLAKY, filename="hungry.py", script_content=HUNGRY, args=[str(procs)])
            run = client.submit_job(job).wait(WAIT_S)
            assert client.fetch_logs(FLAKY) == "epoch 1\n[titan] killed: OutOfMemory\n"
            assert run.jobs[0]["exit_code"] == 128 + 9
            self.heal(cluster, client, folder)

    @pytest.mark.usefixtures("segfaulted")
    def test_it_heals_as_a_job_with_its_patch_from_the_registry(self, client: TitanClient, folder: Path) -> None:
        client.upload_file(folder / "scripts" / "safe_mode_patch.py")
        healer = client.submit_job(TitanJob(job_id="healer", filename=str(PAGE / "block3.py"))).wait(WAIT_S)
        assert states(healer) == {"healer": "COMPLETED"}
        assert f"[ERROR] CRITICAL ERROR in {FLAKY}. Agent is deploying a patch...\n" in healer.logs("healer")
        fix = newest(client, f"{FLAKY}_fix")
        assert (fix.info["parent_run_id"], fix.info["parent_job_id"]) == (healer.id, "healer")
        assert states(fix) == {f"{FLAKY}_fix": "COMPLETED"}
        assert client.fetch_logs(f"{FLAKY}_fix") == "patched\n"

    def test_a_healthy_run_is_left_alone(self, cluster: Cluster, client: TitanClient, folder: Path) -> None:
        client.submit_job(TitanJob(job_id=FLAKY, filename="flaky.py", script_content="print('epoch 9')")).wait(WAIT_S)
        before = client.list_runs(limit=1)[0].id
        done = cluster.python(PAGE / "block3.py", cwd=folder)
        assert (done.returncode, done.stdout) == (0, "[SUCCESS] Run healthy. Agent sequence complete.\n")
        assert client.list_runs(limit=1)[0].id == before


class TestBlock4:
    """The recursive agent: each launch ends in success or, after three failures in a row, in an escalation."""

    def test_it_recurses_until_a_real_escalation(self, cluster: Cluster, client: TitanClient) -> None:
        client.store_delete("agent_retry_count")
        for _ in range(LAUNCHES_MAX):
            first = cluster.python("autonomous_agent.py", cwd=PAGE)
            assert first.returncode == 0, first.stderr
            clones = list(ended_runs(client, client.list_runs(limit=1)[0])) if "[WARNING]" in first.stdout else []
            logs = [first.stdout, *(run.logs(run.jobs[0]["id"]) for run in clones)]
            check_chain(clones, logs)
            assert client.store_get("agent_retry_count") == "0", "success and escalation both reset the counter"
            if "[ESCALATION]" in logs[-1]:
                assert len(logs) == 4
                return
        pytest.fail(f"no escalation in {LAUNCHES_MAX} launches; by chance that happens once in 3,000 times: try again")

    def test_submitted_once_it_manages_its_own_life(self, client: TitanClient) -> None:
        client.store_delete("agent_retry_count")
        agent = client.submit_job(TitanJob(job_id="agent_retry_0", filename=str(PAGE / "autonomous_agent.py")))
        runs = list(ended_runs(client, agent))
        check_chain(runs, [run.logs(run.jobs[0]["id"]) for run in runs], begin=0)
        assert client.store_get("agent_retry_count") == "0"


def check_chain(clones: list[Run], logs: list[str], begin: int = 1) -> None:
    """Each agent of a chain knew how many failed before it, and only the last one ended the recursion."""
    for number, run in enumerate(clones, start=begin):
        assert [job["id"] for job in run.jobs] == [f"agent_retry_{number}"]
        assert run.info["parent_run_id"] == (clones[number - begin - 1].id if number > begin else None)
    for attempt, log in enumerate(logs, start=1):
        assert log.startswith(f"[INFO] Agent Booting... (Attempt {attempt} of 3)\n")
    assert all(log.endswith("[WARNING] Task failed. Agent logging failure and respawning...\n") for log in logs[:-1])
    escalated = logs[-1].endswith("[ESCALATION] Task failed 3 times. Halting recursion and alerting human.\n")
    assert escalated or logs[-1].endswith("[SUCCESS] Task completed! Agent terminating.\n")
    ends = ["COMPLETED"] * len(clones)
    if escalated:
        assert clones[-1].jobs[0]["exit_code"] == 1
        ends[-1] = "FAILED"
    assert [run.status for run in clones] == ends


def ended_runs(client: TitanClient, root: Run) -> Iterator[Run]:
    """Yield the runs of an agent run, each ended, first to last; a child is submitted before its parent ends."""
    seen = 0
    while True:
        runs = client.list_runs(agent_run_id=root.info["agent_run_id"])[::-1]
        if len(runs) == seen:
            return
        for run in runs[seen:]:
            yield run.wait(WAIT_S)
        seen = len(runs)
