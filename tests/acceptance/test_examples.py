"""Every example, run as its README says, on one cluster."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster, JoinedWorker, bare_environment
from tests.unit.sources import ROOT
from titan_sdk import TitanJob

EXAMPLES = ROOT / "examples"
SLOTS = 2
WAIT_S = 60


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("examples-home"), "--port", "0", "--slots", str(SLOTS))
    try:
        yield cluster.start()
    finally:
        cluster.stop()


class Example:
    """`python examples/SCRIPT` in another terminal."""

    def __init__(self, cluster: Cluster, script: str, *arguments: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / script), *arguments],
            env=bare_environment(cluster.home),
            cwd=cluster.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_said(self, text: str) -> None:
        """Return once it has printed a line with this text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if text in line:
                return
        pytest.fail(f"it ended with {self.process.wait()} and never said {text!r}: {self.lines}")

    def ended(self) -> tuple[int, str]:
        """Return its exit code and all it printed."""
        with self.process as process:
            self.lines.append(process.communicate(timeout=WAIT_S)[0])
        return process.returncode, "".join(self.lines)


def run(cluster: Cluster, script: str, *arguments: str) -> tuple[int, str]:
    return Example(cluster, script, *arguments).ended()


def test_dynamic_switch_goes_deep_on_an_idle_cluster(examples: Cluster) -> None:
    code, said = run(examples, "dynamic_switch/switch.py")
    assert (code, said.splitlines()[0]) == (0, "[LOW] load 0 %: generating the DEEP pipeline, 10 jobs side by side")
    assert len(re.findall(r"^deep_\d +COMPLETED +\d+ files, \d+ open remarks$", said, re.MULTILINE)) == 10


def test_dynamic_switch_takes_the_fast_way_on_a_full_one(examples: Cluster, tmp_path: Path) -> None:
    gates = [tmp_path / f"gate_{n}" for n in range(SLOTS)]
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


def test_self_healing_goes_on_behind_the_crash(examples: Cluster) -> None:
    code, said = run(examples, "self_healing/heal.py")
    assert code == 0, said
    assert "[titan] killed by SIGSEGV (Segfault)" in said
    assert "safe mode: going on behind chunk 3" in said
    assert "[SUCCESS] flaky_training_run_fix COMPLETED" in said


@pytest.mark.parametrize(("failures", "clones", "code"), [(0, 1, 0), (2, 3, 0), (9, 3, 1)])
def test_recursive_agent_respawns_until_it_works_or_gives_up(
    examples: Cluster, failures: int, clones: int, code: int
) -> None:
    ended, said = run(examples, "recursive_agent/start.py", "--failures", str(failures))
    assert ended == code, said
    assert said.count("agent awake") == clones
    assert ("[SUCCESS]" in said, "[ESCALATION]" in said) == (code == 0, code == 1)


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
