"""Each command leaves with the code that docs/reference/cli.md names, in each situation, on a real cluster."""

import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster
from tests.acceptance.inside import Shell
from tests.cli.exit_rows import ASKING, OTHERWISE, ROWS
from tests.cli.test_reference import ALL, LOCAL, WITHOUT_JSON
from titan.cli.exits import Exit
from titan_sdk import TitanJob

WAIT_S = 60
# Sets what a doctor finds bad or asks nobody; both have tests of their own.
ASKS_NOBODY = LOCAL | WITHOUT_JSON | {"titan config ls"}


@pytest.fixture(scope="module")
def words(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the rows' words in braces stand for."""
    folder = tmp_path_factory.mktemp("exits")
    (folder / "good.py").write_text("")
    (folder / "bad.py").write_text("raise SystemExit(3)\n")
    (folder / "good.yaml").write_text("name: good\njobs:\n  - id: a\n    file: good.py\n")
    (folder / "bad.yaml").write_text("name: bad\njobs:\n  - id: a\n    file: good.py\n    nonsense: 1\n")

    def job(name: str, content: str = "", *, anywhere: bool = True) -> TitanJob:
        requirement = "GENERAL" if anywhere else "QUANTUM"
        return TitanJob(name, f"{name}.py", script_content=content, requirement=requirement)

    with cluster.client() as client:
        runs = {
            "done": client.submit_job(job("done")),
            "failed": client.submit_job(job("failed", "raise SystemExit(1)")),
            "mixed": client.submit_dag("mixed", [job("one"), job("two")]),
            "cancelled": client.submit_job(job("cancelled", anywhere=False)).cancel(),
        }
        for run in runs.values():
            run.wait(WAIT_S)
        runs["waits"] = client.submit_job(job("waits", anywhere=False))
        files = {path.name.replace(".py", "").replace(".yaml", "_yaml"): str(path) for path in folder.iterdir()}
        yield {**files, **{name: run.id for name, run in runs.items()}}
        runs["waits"].cancel().wait(WAIT_S)


@pytest.fixture
def shell(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(monkeypatch, cluster.home, tmp_path)


def typed(line: str, words: dict[str, str]) -> list[str]:
    return shlex.split(line.format(**words))


@pytest.mark.parametrize(("line", "situation", "code"), [row for row in ROWS if row[0] != "down"])
def test_each_situation_has_its_code(
    shell: Shell, words: dict[str, str], line: str, situation: str, code: Exit
) -> None:
    done = shell(*typed(line, words))
    assert done.code == code, f"{situation}: {done.err}"
    assert (done.code in (0, 1, 3, 8)) or "Next: " in done.err or "titan: " in done.err
    assert "Traceback" not in done.err


def test_where_nothing_is_up_there_is_nothing_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Shell(monkeypatch, tmp_path, tmp_path)("down").code == Exit.OK


@pytest.mark.parametrize("path", ALL)
def test_a_wrong_word_is_2_and_is_answered_with_a_near_one(shell: Shell, path: str) -> None:
    done = shell(*path.split()[1:], "--jsom")
    assert done.code == (Exit.OURS if path == "titan run" else Exit.USAGE), done.err
    assert "No such option" in done.err
    assert "--json" in done.err or path in ("titan worker start", "titan run")


def test_every_command_that_asks_a_master_is_tried_without_one() -> None:
    assert ASKING.keys() == ALL.keys() - ASKS_NOBODY


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address where nobody listens and nobody else can, and no patience with it."""
    monkeypatch.setattr("titan_sdk.transport.NEVER_REACHED_S", 0.0)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.mark.parametrize("path", ASKING)
def test_no_master_is_4(shell: Shell, words: dict[str, str], nobody: str, path: str) -> None:
    done = shell(*typed(ASKING[path], words), TITAN_URL=nobody)
    assert done.code == OTHERWISE.get(path, Exit.UNREACHABLE), done.err
    assert "no Titan Master answered" in done.out + done.err
    assert "titan up" in done.out + done.err, "it says what to do"


@pytest.mark.parametrize("path", ASKING)
def test_a_token_that_is_none_is_5(shell: Shell, cluster: Cluster, words: dict[str, str], path: str) -> None:
    done = shell(*typed(ASKING[path], words), TITAN_URL=cluster.url, TITAN_TOKEN="nonsense")
    assert done.code == OTHERWISE.get(path, Exit.DENIED), done.err


def test_a_role_that_may_not_is_5(shell: Shell, words: dict[str, str]) -> None:
    token = shell("token", "create", "looks", "--role", "viewer").out.strip()
    for line in ("run {good}", "cancel {done}", "retry {failed}", "store put a b", "worker drain w", "token ls"):
        done = shell(*typed(line, words), TITAN_TOKEN=token)
        assert done.code == (Exit.OURS if line.startswith("run") else Exit.DENIED), line
    assert shell("ps", TITAN_TOKEN=token).code == Exit.OK
