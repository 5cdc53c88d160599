"""Every example in a docstring of the SDK does what it says, against a real cluster.

What an example cannot know is put in its place: the id of a run here for `7f3a`, the name of the worker here for
`host-1`. Where one goes on for ever, the first thing that it prints ends it.
"""

import inspect
import re
import runpy
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import titan_sdk
from tests.acceptance.cluster import Cluster
from tests.sdk.sdk_page import example
from tests.sdk.test_sdk_page import public
from titan_sdk import Run, TitanClient, TitanJob

WAIT_S = 60
ENDLESS = {"events", "store_watch"}
LAST = ("close", "drain_worker")
CALLS = [(TitanClient, name) for name in sorted(public(TitanClient) - set(LAST))]
HANDLES = [(Run, name) for name in sorted(public(Run))]


class Enough(Exception):
    """An endless example has shown what it does."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("hello.py", "more.py", "fast.py", "etl/extract.py", "ml/train.py", "scripts/patch.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("print('done')\n")
    (folder / "agents").mkdir()
    (folder / "agents" / "autonomous_agent.py").write_text("print('done')\n")
    (folder / "out").mkdir()
    (folder / "out" / "report.html").write_text("<p>done")
    (folder / "etl.yaml").write_text("name: etl\njobs:\n  - id: extract\n    file: etl/extract.py\n")
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("docstrings-home"), "--port", "0", "--slots", "4") as one:
        yield one


@pytest.fixture(scope="module")
def world(cluster: Cluster, folder: Path) -> Iterator[dict[str, Any]]:
    """The names that the examples use, among them a run that has ended."""
    with cluster.client() as client:
        jobs = [
            TitanJob(job_id="extract", filename=folder / "etl" / "extract.py"),
            TitanJob(job_id="train_model", filename=folder / "ml" / "train.py", parents=["extract"]),
        ]
        run = client.submit_dag("nightly", jobs).wait(WAIT_S)
        assert run.info["state"] == "COMPLETED"
        told = {name: getattr(titan_sdk, name) for name in titan_sdk.__all__}
        link = "https://example.org/"
        yield {**told, "client": client, "run": run, "jobs": jobs, "extract": jobs[0], "train": jobs[1], "url": link}


@pytest.fixture
def names(world: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The same for one test, with what others may have changed put back."""
    monkeypatch.chdir(folder)
    world["client"].store_put("attempts", "1")
    world["client"].publish_artifact("report", "out/report.html")
    return dict(world)


def follow(text: str, names: dict[str, Any]) -> None:
    """Run one example; a comparison that stands alone has to hold."""
    text = text.replace("7f3a", names["run"].id[:8]).replace("host-1", names["client"].list_workers()[0]["name"])
    if re.search(r" == ", text) and "\n" not in text:
        text = f"assert {text}"
    file = Path("example_under_test.py")
    file.write_text(text)
    runpy.run_path(str(file), init_globals=names)


@pytest.mark.parametrize(("owner", "name"), CALLS + HANDLES, ids=lambda part: getattr(part, "__name__", part))
def test_the_example_of_each_call_runs(owner: type, name: str, names: dict[str, Any]) -> None:
    text = example(inspect.getattr_static(owner, name))
    if name == "extend_run":
        # A run that goes on: its first job waits until it is cancelled.
        names["run"] = names["client"].submit_job(TitanJob("first", "hello.py", requirement="NOWHERE"))
    elif name == "retry":
        failing = TitanJob("fails", "fails.py", script_content="raise SystemExit(1)")
        names["run"] = names["client"].submit_job(failing).wait(WAIT_S)
    elif name == "store_cas":
        names["client"].store_delete("leader")
    elif name == "url" and owner is TitanClient:
        text = text.replace("http://127.0.0.1:9090", names["client"].url)
    if name in ENDLESS:
        endless(text, names)
    else:
        follow(text, names)


def endless(text: str, names: dict[str, Any]) -> None:
    """Run an example that waits for what happens, while something happens."""
    over = threading.Event()
    client: TitanClient = names["client"]

    def happen() -> None:
        while not over.wait(0.05):
            client.store_put("agent:1", "x")
            client.submit_job(TitanJob("hello", "hello.py")).wait(WAIT_S)

    def enough(*_: object) -> None:
        raise Enough

    happening = threading.Thread(target=happen)
    happening.start()
    try:
        with pytest.raises(Enough):
            follow(text, {**names, "print": enough})
    finally:
        over.set()
        happening.join(WAIT_S)


def blocks(thing: object) -> Iterator[str]:
    """Yield the indented examples of a docstring."""
    text = inspect.getdoc(thing) or ""
    for found in re.findall(r"Example::\n\n((?: {4}.*\n?|\n)+)", text):
        yield textwrap.dedent(found)


@pytest.mark.parametrize("thing", [titan_sdk, TitanClient, TitanJob, Run, titan_sdk.TitanError], ids=str)
def test_the_longer_examples_run(
    thing: object, names: dict[str, Any], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TITAN_HOME", str(cluster.home))
    found = list(blocks(thing))
    assert found
    for text in found:
        follow(text, {**names, "job": TitanJob("hello", "hello.py")})


@pytest.mark.parametrize(
    "error", [name for name in titan_sdk.__all__ if issubclass(getattr(titan_sdk, name), Exception)]
)
def test_each_error_says_when_it_comes(error: str) -> None:
    if error != "TitanError":
        assert "Example: " in (getattr(titan_sdk, error).__doc__ or "")


@pytest.mark.parametrize("name", LAST)
def test_the_examples_that_end_something_run_last(name: str, names: dict[str, Any]) -> None:
    follow(example(inspect.getattr_static(TitanClient, name)), names)
