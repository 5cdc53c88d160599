"""Jobs that submit jobs and wait for them, on fewer slots than parents; and what a second attempt inherits."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster
from titan_sdk import TitanClient, TitanJob

# The first argument says how many levels are below; every level submits its own file again and waits for it.
NESTED = """
import sys
from titan_sdk import TitanClient, TitanJob
levels = int(sys.argv[1])
client = TitanClient()
if levels:
    run = client.submit_job(TitanJob(job_id=f"level{levels - 1}", filename="nested.py", args=[str(levels - 1)]))
    run.wait().raise_for_status()
client.store_incr("ended")
"""

# Its first attempt fails after its child did; both attempts submit and count the same.
TRIED_TWICE = """
import os
from titan_sdk import TitanClient, TitanJob
client = TitanClient()
client.store_incr("counted")
failing = client.submit_job(TitanJob(job_id="child", filename="child.py"))
good = client.submit_job(TitanJob(job_id="good", filename="good.py"))
print(failing.id, good.id)
good.wait().raise_for_status()
failing.wait().raise_for_status()
"""
CHILD = """
from titan_sdk import TitanClient
raise SystemExit(1 if TitanClient().store_incr("tries") == 1 else 0)
"""
GOOD = """
from titan_sdk import TitanClient
TitanClient().store_incr("good")
"""


@pytest.fixture
def one_slot(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path / "home", "--port", "0", "--slots", "1")
    try:
        yield cluster.start()
    finally:
        cluster.stop()


def script(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def parents(client: TitanClient, filename: str, count: int, levels: int) -> None:
    jobs = [TitanJob(job_id=f"p{number}", filename=filename, args=[str(levels)]) for number in range(count)]
    run = client.submit_dag("parents", jobs)
    run.wait(timeout=500).raise_for_status()


@pytest.mark.timeout(560)
def test_three_levels_and_a_crowd_of_parents_finish_on_one_slot(one_slot: Cluster, tmp_path: Path) -> None:
    filename = script(tmp_path, "nested.py", NESTED)
    with one_slot.client() as client:
        parents(client, filename, 1, 2)
        assert client.store_get("ended") == "3"
        parents(client, filename, 100, 1)
        assert client.store_get("ended") == "203"


def test_a_second_attempt_gets_its_child_runs_and_opens_the_failed_one_again(one_slot: Cluster, tmp_path: Path) -> None:
    with one_slot.client() as client:
        for name, text in (("child.py", CHILD), ("good.py", GOOD)):
            client.deploy_script(script(tmp_path, name, text))
        filename = script(tmp_path, "parent.py", TRIED_TWICE)
        run = client.submit_job(TitanJob(job_id="parent", filename=filename, retries=1, retry_backoff_s=0))
        run.wait(timeout=100).raise_for_status()
        assert [client.store_get(key) for key in ("counted", "tries", "good")] == ["1", "2", "1"]
        failed, good = client.fetch_logs(f"{run.id}/parent").split()
        assert client.get_run(failed).info["generation"] == 2
        assert client.get_run(good).info["generation"] == 1
        client.retry(run, jobs=["parent"])
        again = client.get_run(run.id).wait(timeout=100).raise_for_status()
        new = client.fetch_logs(f"{again.id}/parent").split()
        assert not {failed, good} & set(new), "a new generation makes new children"
        assert client.store_get("counted") == "2"
