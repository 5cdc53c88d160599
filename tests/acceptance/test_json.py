"""Every command's --json has the shape that docs/reference/json.md promises, on a real cluster."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cluster import Cluster, titan
from tests.acceptance.inside import Shell
from tests.cli import json_page
from tests.cli.json_shapes import SHAPES, Failed, JobCancelled, RunCancelled, fits
from tests.cli.test_reference import ALL, WITHOUT_JSON
from titan_sdk import TitanClient, TitanJob

WAIT_S = 60
PIPELINE = """
name: small
jobs:
  - id: fine
    file: fine.py
"""
# Ways of asking that other tests of the same shapes, or processes that do not end, have.
ELSEWHERE = {("titan up", ""), ("titan master", ""), ("titan down", "")}


@pytest.fixture
def shell(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    (tmp_path / "fine.py").write_text("print('fine')\n")
    (tmp_path / "small.yaml").write_text(PIPELINE)
    return Shell(monkeypatch, cluster.home, tmp_path)


@pytest.fixture(scope="module")
def mixed(cluster: Cluster) -> str:
    """A run with a job that completed, one that failed, and one that was cancelled for it."""
    jobs = [
        TitanJob("good", "good.py", script_content="print('good')"),
        TitanJob("bad", "bad.py", script_content="raise SystemExit(3)"),
        TitanJob("after", "good.py", script_content="", parents=["bad"]),
    ]
    with cluster.client() as client:
        return client.submit_dag("mixed", jobs).wait(WAIT_S).id


@pytest.fixture
def waiting(client: TitanClient) -> Any:
    run = client.submit_job(TitanJob("wants", "w.py", script_content="", requirement="QUANTUM"))
    yield run.id
    run.cancel().wait(WAIT_S)


def test_the_page_is_made_from_the_shapes() -> None:
    assert json_page.PAGE.read_text(encoding="utf-8") == json_page.render(), (
        "run: .venv/bin/python -m tests.cli.json_page"
    )


def test_every_command_has_its_shape() -> None:
    assert SHAPES.keys() == ALL.keys() - WITHOUT_JSON


def lines_to_try(mixed: str, waiting: str) -> list[tuple[str, str, list[str]]]:
    """Return command, way of asking, and arguments; a way may be there several times."""
    return [
        ("titan status", "", []),
        ("titan status", "ID", [mixed]),
        ("titan status", "ID", [f"{mixed}/bad"]),
        ("titan doctor", "", []),
        ("titan run", "FILE", ["fine.py"]),
        ("titan run", "FILE", ["-d", "fine.py"]),
        ("titan run", "FILE -f", ["-f", "fine.py"]),
        ("titan submit", "FILE", ["small.yaml"]),
        ("titan submit", "FILE", ["small.yaml", "--wait"]),
        ("titan submit", "FILE -f", ["-f", "small.yaml"]),
        ("titan validate", "FILE...", ["small.yaml", "fine.py"]),
        ("titan graph", "FILE or RUN", ["small.yaml"]),
        ("titan graph", "FILE or RUN", [mixed]),
        ("titan ps", "", ["--limit", "1"]),
        ("titan ps", "RUN", [mixed]),
        ("titan top", "", []),
        ("titan show", "ID", [mixed]),
        ("titan show", "ID", [f"{mixed}/bad"]),
        ("titan show", "ID", [f"{waiting}/wants"]),
        ("titan show", "RUN -f", ["-f", mixed]),
        ("titan explain", "JOB", [f"{waiting}/wants"]),
        ("titan explain", "RUN", [mixed]),
        ("titan logs", "ID", [f"{mixed}/good"]),
        ("titan logs", "ID -f", ["-f", f"{mixed}/good"]),
        ("titan wait", "ID", [mixed]),
        ("titan wait", "ID", [f"{mixed}/after"]),
        ("titan cancel", "ID...", [waiting, f"{waiting}/wants"]),
        ("titan retry", "ID -f", ["-f", mixed]),
        ("titan retry", "ID", [mixed]),
        ("titan events", "", ["--after", "0.0.0", "--count", "1"]),
        ("titan store put", "KEY VALUE", ["shapes/a", "1"]),
        ("titan store get", "KEY", ["shapes/a"]),
        ("titan store incr", "KEY", ["shapes/a"]),
        ("titan store ls", "", ["shapes/"]),
        ("titan store del", "KEY...", ["shapes/a", "shapes/b"]),
        ("titan artifacts put", "KEY PATH", ["shapes", "fine.py"]),
        ("titan artifacts ls", "", ["shapes"]),
        ("titan artifacts get", "KEY", ["shapes", "copy.py"]),
        ("titan artifacts rm", "KEY", ["shapes"]),
        ("titan worker ls", "", []),
        ("titan worker join-token", "", []),
        ("titan token create", "NAME", ["shapes", "--role", "viewer"]),
        ("titan token ls", "", ["--all"]),
        ("titan audit ls", "", []),
        ("titan audit verify", "", []),
        ("titan config ls", "", []),
        ("titan completion", "SHELL", ["fish"]),
    ]


def test_what_is_printed_is_what_is_promised(shell: Shell, mixed: str, waiting: str) -> None:
    tried = set()
    for path, way, arguments in lines_to_try(mixed, waiting):
        done = shell(*path.split()[1:], *arguments, "--json")
        assert done.documents, f"{path} {arguments}: {done.err}"
        shapes = SHAPES[path][way]
        for document in done.documents:
            assert any(fits(document, shape) for shape in shapes), f"{path} {arguments}: {document}"
        if way.endswith("-f") and path != "titan logs":
            assert {document["kind"] for document in done.documents} >= {"end"}
        tried.add((path, way))
    later = {("titan store watch", ""), ("titan worker drain", "NAME..."), ("titan worker remove", "NAME...")}
    every = {(path, way) for path, ways in SHAPES.items() for way in ways}
    assert every - tried - ELSEWHERE == later | {("titan token revoke", "ID...")}


def test_tokens_and_workers_that_go(shell: Shell, client: TitanClient) -> None:
    made = shell("token", "create", "gone", "--role", "worker", "--worker", "gone-1", "--json").documents[0]
    [revoked] = shell("token", "revoke", made["about"]["id"], "--json").documents
    assert fits(revoked, SHAPES["titan token revoke"]["ID..."][0])
    shell("token", "create", "again", "--role", "worker", "--worker", "gone-1")
    [removed] = shell("worker", "remove", "gone-1", "--json").documents
    assert fits(removed, SHAPES["titan worker remove"]["NAME..."][0])


def test_every_event_and_write(shell: Shell, client: TitanClient) -> None:
    [start] = shell("events", "--after", "0.0.0", "--count", "1", "--json").documents
    run = client.submit_job(TitanJob("brief", "b.py", script_content="")).wait(WAIT_S)
    told = shell("events", "--after", start["id"], "--run", run.id, "--count", "4", "--json").documents
    assert {event["kind"] for event in told} == {"run", "job"}
    for event in told:
        assert any(fits(event, shape) for shape in SHAPES["titan events"][""]), event


def test_what_was_asked_to_end_has_the_fields_of_what_it_is(shell: Shell, waiting: str) -> None:
    [told] = shell("cancel", waiting, f"{waiting}/wants", "--json").documents
    assert fits(told["cancelled"][0], RunCancelled)
    assert fits(told["cancelled"][1], JobCancelled)


def test_a_fault_is_a_document_on_stderr(shell: Shell) -> None:
    for arguments in (["show", "ffffffff"], ["ps", "--nonsense"], ["logs"], ["cancel", "x/y", "z"]):
        done = shell(*arguments, "--json")
        assert (done.out, done.err.count("\n")) == ("", 1)
        assert fits(json.loads(done.err), Failed), done.err
        assert json.loads(done.err)["error"]["exit_code"] == done.code


def test_starting_and_stopping(cluster: Cluster, tmp_path: Path) -> None:
    assert fits(cluster.first_screen, SHAPES["titan up"][""][0])
    alone = Cluster(tmp_path / "home", "--port", "0", command="master").start()
    assert fits(alone.first_screen, SHAPES["titan master"][""][0])
    assert alone.first_screen["workers"] == 0
    down = titan(alone.home, "down", "--json")
    assert alone.gone() == 0
    assert fits(json.loads(down.stdout), SHAPES["titan down"][""][0])


def test_a_shape_finds_what_is_missing_and_what_is_new() -> None:
    fault = {"error": {"code": "c", "message": "m", "hint": "", "problems": [], "exit_code": 6}}
    assert fits(fault, Failed)
    assert not fits({**fault, "more": 1}, Failed)
    assert not fits({"error": {**fault["error"], "exit_code": "6"}}, Failed)
    del fault["error"]["hint"]
    assert not fits(fault, Failed)
