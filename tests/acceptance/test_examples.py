"""Every example, run as its README says, on one cluster."""

import os
import re
import shlex
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster, JoinedWorker
from tests.acceptance.conftest import EXAMPLES_SLOTS
from tests.acceptance.examples import EXAMPLES, WAIT_S, Example, run
from titan_sdk import TitanJob


def test_dynamic_switch_goes_deep_on_an_idle_cluster(examples: Cluster) -> None:
    code, said = run(examples, "dynamic_switch/switch.py")
    assert (code, said.splitlines()[0]) == (0, "[LOW] load 0 %: generating the DEEP pipeline, 10 jobs side by side")
    assert len(re.findall(r"^deep_\d +COMPLETED +\d+ files, \d+ open remarks$", said, re.MULTILINE)) == 10


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
