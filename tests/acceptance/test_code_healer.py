"""The healer mends by its rules alone, asks a model when there is one, and never says that what fails is well."""

import shutil
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster
from tests.acceptance.examples import EXAMPLES, Model, run

SHARED = """class Stack:
    items = []

    def push(self, x):
        self.items.append(x)

    def pop():
        return self.items.pop()

a, b = Stack(), Stack()
a.push(1)
b.push(2)
print(len(a.items), a.pop())
"""
UNKNOWN = """import this_module_is_nowhere

print(this_module_is_nowhere.answer())
"""
MENDED = 'print("forty-two")\n'
ANSWER = f"Here it is:\n```python\n{MENDED}```\nGood luck!"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "broken"
    folder.mkdir()
    return folder


def test_two_faults_of_one_script_are_mended_by_rules_and_the_original_stays(
    examples: Cluster, folder: Path, tmp_path: Path
) -> None:
    (folder / "stack.py").write_text(SHARED)
    (folder / "stack.expected").write_text("1 1\n")
    healed = tmp_path / "healed"
    code, said = run(examples, "code_healer/heal.py", str(folder), "--out", str(healed))
    assert code == 0, said
    assert "1 of 1 healed" in said
    assert (folder / "stack.py").read_text() == SHARED
    agent_run = said.split()[-1]
    with examples.client() as client:
        runs = client.list_runs(agent_run_id=agent_run)
        tests = {job["id"]: run.logs(job["id"]) for run in runs for job in run.jobs}
        assert "TypeError: Stack.pop() takes 0 positional arguments" in tests["test_0"]
        assert "1 1\n" in tests.values()
    again = tmp_path / "again"
    again.mkdir()
    (again / "stack.py").write_text((healed / "stack.py").read_text())
    (again / "stack.expected").write_text("1 1\n")
    code, said = run(examples, "code_healer/heal.py", str(again), "--out", str(healed))
    assert (code, "HEALED after 1 tests" in said) == (0, True), said


def test_a_model_is_asked_first_and_its_answer_is_tested(
    examples: Cluster, folder: Path, tmp_path: Path, model: Model
) -> None:
    model.answer = ANSWER
    (folder / "lost.py").write_text(UNKNOWN)
    (folder / "lost.expected").write_text("forty-two\n")
    environ = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "sk-1", "OPENAI_MODEL": "small"}
    code, said = run(examples, "code_healer/heal.py", str(folder), "--out", str(tmp_path), **environ)
    assert code == 0, said
    assert (tmp_path / "lost.py").read_text() == MENDED
    path, key, body = model.asked[0]
    assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer sk-1", "small")
    question = body["messages"][0]["content"]
    assert "No module named 'this_module_is_nowhere'" in question
    assert "forty-two" in question


def test_without_an_answer_the_rules_go_on_and_what_fails_is_not_called_well(
    examples: Cluster, folder: Path, tmp_path: Path
) -> None:
    (folder / "lost.py").write_text(UNKNOWN)
    (folder / "lost.expected").write_text("forty-two\n")
    options = ["--out", str(tmp_path / "healed"), "--jobs", "20"]
    code, said = run(
        examples,
        "code_healer/heal.py",
        str(folder),
        *options,
        OPENAI_BASE_URL="http://127.0.0.1:9/v1",
        OPENAI_MODEL="x",
    )
    assert code == 1, said
    assert "the model did not answer" in said
    assert "NOT HEALED after 20 tests" in said
    assert not (tmp_path / "healed").exists()


def test_scripts_that_it_had_not_seen_are_mended_within_twenty_tests_each(
    examples: Cluster, folder: Path, tmp_path: Path
) -> None:
    """Two of them; the scores of all are in broken/README.md."""
    for name in ("cards.py", "cards.expected", "roman.py", "roman.expected"):
        shutil.copy(EXAMPLES / "code_healer" / "broken" / "third" / name, folder)
    code, said = run(examples, "code_healer/heal.py", str(folder), "--out", str(tmp_path), "--jobs", "20")
    assert (code, "2 of 2 healed" in said) == (0, True), said
