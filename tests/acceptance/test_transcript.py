"""The first five minutes, word for word: what a person types, and what they see in one terminal.

Only what differs from run to run is read loosely: ids, times, and the name of the worker.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.cluster import TITAN, Cluster, bare_environment
from titan_sdk import TitanClient, TitanJob

WAIT_S = 60
ID = "([0-9a-f]{4,32})"
TIME = "(?:[0-9]+\\.[0-9]+ s|[0-9]+ ms)"
NAME = "[A-Za-z0-9._-]+"
BROKEN = "import sys\n\nif sys.argv[1] == 'us':\n    sys.exit(\"KeyError: 'price'\")\nprint('clean')\n"


def terminal(cluster: Cluster, *arguments: str, cwd: Path) -> tuple[int, str]:
    """Run one command as in a terminal: stdout and stderr in one place, in the order they were written."""
    done = subprocess.run(
        [TITAN, *arguments],
        env=bare_environment(cluster.home),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "extract.py").write_text("print('rows')\n")
    (tmp_path / "clean.py").write_text(BROKEN)
    (tmp_path / "report.py").write_text("print('report')\n")
    return tmp_path


@pytest.fixture
def etl(client: TitanClient, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The run of the transcript: a diamond whose one side fails."""
    monkeypatch.chdir(folder)
    jobs = [
        TitanJob("extract", "extract.py"),
        TitanJob("clean-eu", "clean.py", args=["eu"], parents=["extract"]),
        # The sides end in the order of the transcript on one slot and on four.
        TitanJob("clean-us", "clean.py", args=["us"], parents=["extract"], delay=1),
        TitanJob("report", "report.py", parents=["clean-eu", "clean-us"]),
    ]
    return client.submit_dag("etl", jobs).id


def test_run_streams_the_log_and_closes(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text("import sys\nprint('hello', sys.argv[-1])\n")
    code, shown = terminal(cluster, "run", "hello.py", "--", "--name", "Ada", cwd=tmp_path)
    closing = f"\\1 COMPLETED in {TIME} \\(queued {TIME}, started in {TIME}\\)"
    assert re.fullmatch(f"run {ID} hello\nhello Ada\n{closing}\n", shown), shown
    assert code == 0


def test_a_run_is_followed_to_its_failure(cluster: Cluster, etl: str, folder: Path) -> None:
    code, shown = terminal(cluster, "show", "--follow", etl, cwd=folder)
    rows, closing = shown.split("clean-us, last lines:\n")
    expected = [
        f" extract    COMPLETED {TIME}",
        f" clean-eu   COMPLETED {TIME}",
        f" clean-us   FAILED    {TIME} {{3,4}}exit 1, attempt 1 of 1, worker {NAME}",
        " report     CANCELLED         its parent clean-us failed",
    ]
    found = rows.splitlines()
    assert len(found) == 4, shown
    for line in expected:
        assert any(re.fullmatch(line, each) for each in found), shown
    assert re.fullmatch(
        "    KeyError: 'price'\n"
        f"{ID} FAILED after {TIME}\\.   "
        "Fix clean\\.py, then: titan retry \\1 --failed      whole log: titan logs \\1/clean-us\n",
        closing,
    ), closing
    assert code == 1


PIPELINE = """
name: etl
jobs:
  - id: extract
    file: extract.py
  - id: clean-eu
    file: clean.py
    args: [eu]
    depends_on: [extract]
  - id: clean-us
    file: clean.py
    args: [us]
    depends_on: [extract]
  - id: report
    file: report.py
    depends_on: [clean-eu, clean-us]
"""


def test_a_pipeline_is_submitted_fixed_and_retried(cluster: Cluster, folder: Path) -> None:
    (folder / "etl.yaml").write_text(PIPELINE)
    code, shown = terminal(cluster, "submit", "etl.yaml", "--follow", cwd=folder)
    first, *_ = shown.splitlines()
    begun = re.fullmatch(f"run {ID} etl   4 jobs", first)
    assert begun, shown
    assert code == 1
    run = begun[1]
    command = re.search(f"Fix clean\\.py, then: (titan retry {run} --failed) ", shown)
    assert command, shown
    (folder / "clean.py").write_text("print('mended')\n")
    code, shown = terminal(cluster, *command[1].split()[1:], "--follow", cwd=folder)
    assert code == 0, shown
    assert f"run {run} etl   2 jobs again, generation 2\n" in shown


def test_retry_keeps_what_is_done_and_uses_the_edited_file(
    cluster: Cluster, client: TitanClient, etl: str, folder: Path
) -> None:
    assert client.wait(etl, WAIT_S) == "FAILED"
    (folder / "clean.py").write_text("print('mended')\n")
    code, shown = terminal(cluster, "retry", etl, "--failed", "--follow", cwd=folder)
    expected = (
        f"{re.escape(str(folder / 'clean.py'))} was edited since it was submitted: it is sent anew\n"
        f"run {ID} etl   2 jobs again, generation 2\n"
        f" clean-us   COMPLETED {TIME} {{3,4}}attempt 2\n"
        f" report     COMPLETED {TIME}\n"
        f"\\1 COMPLETED in {TIME}\n"
    )
    assert re.fullmatch(expected, shown), shown
    assert code == 0
    assert client.fetch_logs(f"{etl}/clean-us") == "mended\n"
    assert client.lookup(f"{etl}/clean-eu")["job"]["attempt"] == 1, "what was done is kept"


def test_ps_feeds_a_filter(cluster: Cluster, client: TitanClient, etl: str, folder: Path) -> None:
    client.wait(etl, WAIT_S)
    code, shown = terminal(cluster, "ps", "--json", "--name", "etl", cwd=folder)
    assert (code, json.loads(shown)["runs"][0]["state"]) == (0, "FAILED")
