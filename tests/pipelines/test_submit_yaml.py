"""Pipeline files given to a real cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster
from titan_sdk import FileMissing, Invalid, TimedOut, TitanClient

WAIT_S = 60
DIAMOND = """\
name: diamond
jobs:
  - id: root
    type: run
    file: scripts/say.py
    args: "root"
  - id: left
    file: scripts/say.py
    args: ["left", "a b"]
    depends_on: [root]
  - id: right
    file: scripts/say.py
    args: right
    depends_on: [root]
    delay: 10ms
  - id: sink
    file: scripts/say.py
    depends_on: [left, right]
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    one = Cluster(tmp_path_factory.mktemp("yaml-home"), "--port", "0", "--slots", "2")
    try:
        yield one.start()
    finally:
        one.stop()


@pytest.fixture
def client(cluster: Cluster) -> Iterator[TitanClient]:
    with cluster.client() as made:
        yield made


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline in a folder below the one where the caller is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flow" / "scripts").mkdir(parents=True)
    (tmp_path / "flow" / "scripts" / "say.py").write_text("import sys\nprint(sys.argv[1:])\n")
    (tmp_path / "flow" / "diamond.yaml").write_text(DIAMOND)
    return tmp_path


def test_a_diamond_runs_in_order_from_another_folder(client: TitanClient) -> None:
    run = client.submit_yaml("flow/diamond.yaml", agent_run_id="yaml", wait=True, poll_interval=1, timeout=WAIT_S)
    assert (run.name, run.info["state"], run.info["agent_run_id"]) == ("diamond", "COMPLETED", "yaml")
    assert {job["id"]: job["parents"] for job in run.jobs} == {
        "root": [], "left": ["root"], "right": ["root"], "sink": ["left", "right"],
    }  # fmt: skip
    assert run.logs("left") == "['left', 'a b']\n"
    assert run.logs("sink") == "[]\n"


def test_without_wait_it_returns_at_once_and_a_failed_run_is_returned(client: TitanClient, folder: Path) -> None:
    (folder / "flow" / "scripts" / "say.py").write_text("raise SystemExit(3)")
    assert client.submit_yaml("flow/diamond.yaml").wait(WAIT_S).info["state"] == "FAILED"
    assert client.submit_yaml("flow/diamond.yaml", wait=True).info["state"] == "FAILED"


def test_a_wait_that_ends_first_leaves_the_run_alone(client: TitanClient, folder: Path) -> None:
    (folder / "late.yaml").write_text("jobs: [{id: late, file: flow/scripts/say.py, delay: 1h}]")
    with pytest.raises(TimedOut):
        client.submit_yaml("late.yaml", wait=True, timeout=0)
    assert client.list_runs(name="late")[0].cancel().wait(WAIT_S).info["state"] == "CANCELLED"


def test_what_only_the_master_knows_has_its_place_too(client: TitanClient, folder: Path) -> None:
    (folder / "flow" / "far.yaml").write_text("jobs:\n  - id: far\n    file: scripts/say.py\n    priority: 5000\n")
    with pytest.raises(Invalid) as caught:
        client.submit_yaml("flow/far.yaml")
    assert caught.value.problems[0]["place"] == "flow/far.yaml:4:15"
    assert "    priority: 5000\n" in str(caught.value)


def test_a_script_may_be_at_the_master(client: TitanClient, folder: Path) -> None:
    (folder / "kept.yaml").write_text("project: true\njobs: [{id: kept, file: kept_script.py}]")
    with pytest.raises(FileMissing) as caught:
        client.submit_yaml("kept.yaml")
    assert caught.value.problems[0]["place"] == "kept.yaml:2:25"
    assert "nor, as 'kept_script.py', in the Master's registry" in str(caught.value)
    (folder / "elsewhere.py").write_text("print('from the Master')\n")
    client.deploy_script("elsewhere.py", "kept_script.py")
    run = client.submit_yaml("kept.yaml", wait=True, timeout=WAIT_S)
    assert run.logs("kept") == "from the Master\n"
    assert run.resolved == {"kept_script.py": "registry"}
    assert "project: true sends no folder" in run.warnings[0]
