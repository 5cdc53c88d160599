"""What the examples do beyond their READMEs, each of which tests/docs follows; on one cluster."""

import os
import re
import shlex
from pathlib import Path

from tests.acceptance.cluster import Cluster, JoinedWorker
from tests.acceptance.conftest import EXAMPLES_SLOTS
from tests.acceptance.examples import EXAMPLES, WAIT_S, Example, Model, run
from titan_sdk import TitanJob


def test_dynamic_switch_takes_the_fast_way_on_a_full_one(examples: Cluster, tmp_path: Path) -> None:
    gates = [tmp_path / f"gate_{n}" for n in range(EXAMPLES_SLOTS)]
    for gate in gates:
        os.mkfifo(gate)
    hold = "import sys; print('here', flush=True); open(sys.argv[1]).read()"
    with examples.client() as client:
        jobs = [TitanJob(gate.name, "hold.py", script_content=hold, args=[str(gate)]) for gate in gates]
        held = client.submit_dag("hold", jobs)
        for job in jobs:
            assert next(client.follow_logs(f"{held.id}/{job.job_id}")) == "here\n"
        example = Example(examples, "dynamic_switch/switch.py")
        example.wait_said("[HIGH] load 100 %: switching to the lightweight FAST pipeline")
        for gate in gates:
            gate.open("w").close()  # it opens when its job does, which then reads the end
        code, said = example.ended()
        assert code == 0, said
        assert re.search(r"^fast_scan +COMPLETED +\d+ files of json, \d+ open remarks$", said, re.MULTILINE)
        assert held.wait(WAIT_S).status == "COMPLETED"


def test_recursive_agent_that_meets_no_failure_does_not_respawn(examples: Cluster) -> None:
    ended, said = run(examples, "recursive_agent/start.py", "--failures", "0")
    assert ended == 0, said
    assert said.count("agent awake") == 1
    assert "[SUCCESS]" in said


def test_gpu_routing_waits_with_a_reason_until_a_worker_joins(examples: Cluster) -> None:
    example = Example(examples, "gpu_routing/route.py")
    example.wait_said("multiply waits: no connected worker offers GPU")
    example.wait_said("titan worker --join ")
    line = re.search(r"titan worker (--join \S+ --capability GPU)$", example.lines[-1], re.MULTILINE)
    assert line, example.lines
    join, url, *flags = shlex.split(line[1])
    assert (join, url) == ("--join", examples.url)
    worker = JoinedWorker(examples.home, url, "with-gpu", *flags)
    try:
        code, said = example.ended()
    finally:
        worker.stop()
    assert code == 0, said
    assert re.search(r"^COMPLETED: prepare ran on (?!with-gpu)\S+, multiply on with-gpu$", said, re.MULTILINE)


def test_every_example_has_a_readme_and_a_line_in_the_index() -> None:
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for folder in sorted(path for path in EXAMPLES.iterdir() if path.is_dir()):
        if list(folder.rglob("*.py")):
            assert (folder / "README.md").is_file(), folder
            assert f"({folder.name}/README.md)" in index, folder


def test_nightly_pipeline_trains_on_the_worker_that_offers_gpu(examples: Cluster) -> None:
    worker = JoinedWorker(examples.home, examples.url, "trainer", "--capability", "GPU").wait_connected()
    try:
        code, said = run(examples, "nightly_pipeline/submit.py")
    finally:
        worker.stop()
    assert code == 0, said
    assert "train_model COMPLETED on trainer" in said
    assert re.search(r"^measured \d{2,} modules$", said, re.MULTILINE)
    assert re.search(r"^R squared on rows that it had not seen: -?\d\.\d\d$", said, re.MULTILINE)
    assert re.search(r"^model: \{'weights': \[", said, re.MULTILINE)


AREA = '''def area(side: float) -> float:
    """Return the area of a square."""
    return side * side
'''
CHECK = """def check(x):
    if x < 0:
        raise ValueError(x)
    return x


def _hidden():
    pass
"""
SOURCE = {"shapes/area.py": AREA, "bare.py": CHECK, "broken.py": "def (:\n"}


def test_doc_generator_writes_a_page_for_each_file(examples: Cluster, tmp_path: Path) -> None:
    for name, text in SOURCE.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(text)
    out = tmp_path / "pages.md"
    code, said = run(examples, "doc_generator/generate.py", str(tmp_path / "tree"), "--out", str(out))
    assert code == 0, said
    assert "3 pages" in said
    pages = out.read_text()
    assert "## area(side: float) -> float\n\nReturn the area of a square." in pages
    assert "## check(x)\n\nReturns `x` and raises `ValueError`." in pages
    assert "_hidden" not in pages
    assert "# broken.py\n\nIt cannot be read as Python" in pages
    with examples.client() as client:
        fanned = client.list_runs(name="document tree")[0]
        assert [job["id"] for job in fanned.jobs] == ["page_0", "page_1", "page_2", "collect"]


def test_doc_generator_has_a_model_write_when_there_is_one(examples: Cluster, tmp_path: Path, model: Model) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "bare.py").write_text(SOURCE["bare.py"])
    model.answer = "# bare.py\n\nChecks a number."
    out = tmp_path / "pages.md"
    environ = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "sk-1", "OPENAI_MODEL": "small"}
    code, said = run(examples, "doc_generator/generate.py", str(tmp_path / "tree"), "--out", str(out), **environ)
    assert code == 0, said
    assert "Checks a number." in out.read_text()
    path, key, body = model.asked[0]
    assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer sk-1", "small")
    assert "raise ValueError(x)" in body["messages"][0]["content"]
