"""Pipeline files given to a real cluster, from Python and from the command line."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster
from tests.acceptance.test_commands import Gate, said_until, started
from tests.unit.sources import ROOT
from titan.cli.main import main
from titan_sdk import FileMissing, Invalid, TimedOut, TitanClient
from titan_sdk.pipeline_fields import JOB, TOP
from titan_sdk.pipeline_nodes import ALIASES_MAX, DEPTH_MAX, FILE_BYTES_MAX, VALUES_MAX

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
    with Cluster(tmp_path_factory.mktemp("yaml-home"), "--port", "0", "--slots", "2") as one:
        yield one


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


# From the command line.

ETL = """\
name: etl
jobs:
  - {id: extract, file: ok.py}
  - {id: clean-eu, file: ok.py, depends_on: [extract]}
  - {id: clean-us, file: clean.py, depends_on: [extract]}
  - {id: report, file: ok.py, depends_on: [clean-eu, clean-us]}
"""
ID = "[0-9a-f]{4,32}"
TIME = "(?:[0-9]+\\.[0-9]+ s|[0-9]+ ms)"


Titan = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def titan(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Titan:
    """Runs a command line in this process; returns its exit code and the lines of stdout and stderr."""
    monkeypatch.setenv("TITAN_HOME", str(cluster.home))

    def run(*words: str) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        code = main(words)
        told = capsys.readouterr()
        return code, told.out.splitlines(), told.err.splitlines()

    return run


@pytest.fixture
def etl(folder: Path) -> Path:
    (folder / "etl.yaml").write_text(ETL)
    (folder / "ok.py").write_text("")
    (folder / "clean.py").write_text("{}['price']\n")
    return folder


def test_a_run_is_followed_to_its_failure_and_the_next_command_is_said(titan: Titan, etl: Path) -> None:
    code, rows, said = titan("submit", "etl.yaml", "--follow")
    assert code == 1
    expected = {
        "extract": f" extract    COMPLETED {TIME}",
        "clean-eu": f" clean-eu   COMPLETED {TIME}",
        "clean-us": f" clean-us   FAILED    {TIME} {{3,4}}exit 1, attempt 1 of 1, worker [^ ]+",
        "report": " report     CANCELLED         its parent clean-us failed",
    }
    assert sorted(row.split()[0] for row in rows) == sorted(expected)
    for row in rows:
        assert re.fullmatch(expected[row.split()[0]], row), row
    assert re.fullmatch(f"run {ID} etl   4 jobs", said[0])
    assert said[1:3] == ["clean-us, last lines:", "    Traceback (most recent call last):"]
    assert said[-2] == "    KeyError: 'price'"
    again = f"titan retry ({ID}) --failed      whole log: titan logs ({ID})/clean-us"
    assert re.fullmatch(f"{ID} FAILED after {TIME}.   Fix clean.py, then: {again}", said[-1])
    (etl / "clean.py").write_text("")
    code, rows, _ = titan(*said[-1].split("then: titan ")[1].split("   ")[0].split(), "--follow")
    assert (code, len(rows)) == (0, 2)


def test_follow_speaks_json_line_by_line(titan: Titan, etl: Path) -> None:
    code, lines, _ = titan("submit", "etl.yaml", "-f", "--json")
    told = [json.loads(line) for line in lines]
    assert [each["kind"] for each in told] == ["run", "job", "job", "job", "job", "end"]
    assert told[0]["run"]["name"] == "etl"
    assert (told[-1]["state"], code) == ("FAILED", 1)


def test_submit_returns_at_once_or_waits(titan: Titan, client: TitanClient, etl: Path) -> None:
    (etl / "clean.py").write_text("")
    code, [label], said = titan("submit", "etl.yaml", "--agent-run", "night")
    assert (code, said) == (0, [f"run {label} etl   4 jobs; how it goes: titan show -f {label}"])
    assert client.get_run(label).info["agent_run_id"] == "night"
    code, [run_id], said = titan("submit", "etl.yaml", "--wait", "-q")
    assert (code, said, client.get_run(run_id).status) == (0, [], "COMPLETED")
    document = json.loads(titan("submit", "etl.yaml", "--wait", "--json")[1][0])
    assert (document["run"]["state"], document["warnings"], document["resolved"]) == ("COMPLETED", [], {})
    (etl / "clean.py").write_text("raise SystemExit(9)")
    code, [line], said = titan("submit", "etl.yaml", "--wait")
    assert code == 1
    assert re.fullmatch(f"run {ID} etl   FAILED   2 of 4 jobs completed, 1 failed, 1 cancelled   .*", line)
    assert re.fullmatch(f"what became of each job: titan show {ID}", said[-1])


def test_a_wait_may_time_out_and_the_run_goes_on(titan: Titan, client: TitanClient, etl: Path) -> None:
    (etl / "slow.yaml").write_text("jobs: [{id: slow, file: ok.py, delay: 1h}]")
    assert titan("submit", "slow.yaml", "--wait", "--timeout", "0.01")[0] == 7
    run = client.list_runs(name="slow")[0]
    assert run.status in ("QUEUED", "RUNNING")
    run.cancel()


def test_what_is_refused_has_its_exit_code(titan: Titan, etl: Path) -> None:
    (etl / "bad.yaml").write_text("jobs:\n  - id: a\n    file: ok.py\n    priority: high\n")
    (etl / "gone.yaml").write_text("jobs:\n  - id: a\n    file: gone.py\n")
    code, _, said = titan("submit", "bad.yaml")
    assert (code, said[1]) == (6, "  - bad.yaml:4:15: a: priority is 'high': give a whole number, 0 or more")
    assert json.loads(titan("submit", "bad.yaml", "--json")[2][0])["error"]["problems"][0]["field"] == "priority"
    assert [titan("submit", name)[0] for name in ("gone.yaml", "none.yaml")] == [3, 3]
    code, _, said = titan("submit", "ok.py")
    assert (code, "titan run ok.py" in said[0]) == (2, True)
    for words in (["--wait", "--follow"], ["--timeout", "3"]):
        assert titan("submit", "etl.yaml", *words)[0] == 2


def test_a_run_is_drawn_with_its_states(titan: Titan, etl: Path) -> None:
    titan("submit", "etl.yaml", "--wait")
    assert titan("graph", "@last")[1] == [
        "● extract    COMPLETED",
        "├─╮",
        "● │ clean-eu   COMPLETED",
        "│ ● clean-us   FAILED",
        "├─╯",
        "● report     CANCELLED",
    ]


def test_ctrl_c_leaves_the_run_alone_and_says_how_to_come_back(
    cluster: Cluster, client: TitanClient, folder: Path
) -> None:
    gate = Gate(folder)
    arguments = json.dumps(gate.arguments)
    (folder / "gate.yaml").write_text(f"jobs: [{{id: gate, file: waiting.py, args: {arguments}}}]")
    with started(cluster, "submit", "gate.yaml", "--follow", cwd=folder) as process:
        said_until(process, "run ")
        gate.wait_running()
        process.send_signal(signal.SIGINT)
        assert "titan show -f" in said_until(process, "detached")
        assert process.wait(WAIT_S) == 130
    gate.let_go()
    assert client.list_runs(name="gate")[0].wait(WAIT_S).info["state"] == "COMPLETED"


# The page.

PAGE = ROOT / "docs" / "how-to" / "pipeline-files.md"


def test_the_table_of_the_page_is_that_of_the_reader() -> None:
    rows = re.findall(r"^\| `([a-z_.-]+)` \| (.*?) \| (.*?) \| .+ \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    top = [name for name, _, _ in rows[: len(TOP) + 1]]
    assert sorted(top) == sorted([*TOP, "x-..."])
    assert rows[len(TOP) + 1 :] == [(field.name, field.takes, field.default) for field in JOB.values()]


def test_the_limits_of_the_page_are_those_of_the_reader() -> None:
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    limits = f"at most {FILE_BYTES_MAX >> 20} MiB, {ALIASES_MAX} aliases, {DEPTH_MAX} levels, and {VALUES_MAX:,} values"
    assert limits in page
