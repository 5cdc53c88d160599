"""`titan validate` and `titan graph`, which need no Master for a file."""

import json
from pathlib import Path

import pytest

from titan.cli.draw import LANES_MAX, drawing, mermaid
from titan.cli.main import main

GOOD = """\
name: etl
jobs:
  - {id: extract, file: ok.py}
  - {id: clean-eu, file: ok.py, depends_on: [extract], requirement: GPU}
  - {id: clean-us, file: ok.py, depends_on: [extract]}
  - {id: report, file: ok.py, depends_on: [clean-eu, clean-us]}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TITAN_URL", "http://127.0.0.1:1")  # nobody may be asked
    (tmp_path / "ok.py").write_text("")
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text("name: x\njobs:\n  - {id: a, file: ok.py, priority: high, depends_on: b}\n")
    (tmp_path / "gone.yaml").write_text("jobs:\n  - {id: a, file: gone.py}\n")
    return tmp_path


def test_good_files_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "good.yaml"]) == 0
    assert capsys.readouterr() == ("good.yaml   ok   etl, 4 jobs\n", "")
    assert main(["validate", "good.yaml", "-q"]) == 0
    assert capsys.readouterr() == ("good.yaml\n", "")


def test_all_files_are_looked_at_and_told_about(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "bad.yaml", "gone.yaml", "good.yaml"]) == 6
    stdout, stderr = capsys.readouterr()
    assert stdout == "good.yaml   ok   etl, 4 jobs\n"
    for place in (
        "bad.yaml:3:36: a: priority is 'high'",
        "bad.yaml:3:54: a: 'b' is no job",
        "gone.yaml:2:19: a: there is",
    ):
        assert place in stderr
    assert main(["validate", "gone.yaml"]) == 3
    assert main(["validate", "gone.yaml", "none.yaml"]) == 3
    assert main(["validate", "gone.yaml", "--no-scripts"]) == 0


def test_what_a_master_would_refuse_has_its_place(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "high.yaml").write_text("jobs:\n  - id: a\n    file: ok.py\n    priority: 1001\n    delay: 99999d\n")
    assert main(["validate", "high.yaml"]) == 6
    said = capsys.readouterr().err
    assert "high.yaml:4:15: a: priority is 1001: give 0 to 1000" in said
    assert "high.yaml:5:12: a: delay_ms is" in said
    monkeypatch.setenv("TITAN_LIMIT_PRIORITY_MAX", "5000")
    main(["validate", "high.yaml"])
    assert "priority" not in capsys.readouterr().err.split("\n", 1)[1].split("delay_ms")[0]
    (folder / "name.yaml").write_text(f"name: {'x' * 201}\n" + GOOD.split("\n", 1)[1])
    assert main(["validate", "name.yaml"]) == 6
    assert "name.yaml:1:7: DAG name has 201 characters" in capsys.readouterr().err


def test_validate_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "good.yaml", "bad.yaml", "--json"]) == 6
    stdout, stderr = capsys.readouterr()
    good, bad = json.loads(stdout)["files"]
    assert good == {"file": "good.yaml", "valid": True, "name": "etl", "jobs": 4, "warnings": [], "problems": []}
    assert (bad["valid"], [problem["place"] for problem in bad["problems"]]) == (
        False,
        ["bad.yaml:3:36", "bad.yaml:3:54"],
    )
    assert stderr == ""


def test_a_file_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", "good.yaml"]) == 0
    stdout, stderr = capsys.readouterr()
    assert stderr == "etl   4 jobs\n"
    assert stdout.splitlines() == [
        "● extract    ok.py",
        "├─╮",
        "● │ clean-eu   ok.py   GPU",
        "│ ● clean-us   ok.py",
        "├─╯",
        "● report     ok.py",
    ]


def test_a_file_becomes_a_mermaid_chart_ids_or_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", "good.yaml", "--mermaid"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "flowchart TD", '    j0["extract ok.py"]', '    j1["clean-eu ok.py GPU"]', '    j2["clean-us ok.py"]',
        '    j3["report ok.py"]', "    j0 --> j1", "    j0 --> j2", "    j1 --> j3", "    j2 --> j3",
    ]  # fmt: skip
    assert main(["graph", "good.yaml", "-q"]) == 0
    assert capsys.readouterr().out.split() == ["extract", "clean-eu", "clean-us", "report"]
    assert main(["graph", "good.yaml", "--json"]) == 0
    first, second, *_ = json.loads(capsys.readouterr().out)["jobs"]
    assert first == {"id": "extract", "depends_on": [], "file": "ok.py", "requirement": ["GENERAL"]}
    assert (second["depends_on"], second["requirement"]) == (["extract"], ["GPU"])


def test_titan_run_points_to_titan_submit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "good.yaml"]) == 125
    assert "titan submit good.yaml --follow" in capsys.readouterr().err


def test_a_broken_file_is_not_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", "bad.yaml"]) == 6
    assert "bad.yaml:3:36" in capsys.readouterr().err
    assert main(["graph", "gone.yaml"]) == 0
    assert main(["graph", "none.yaml"]) == 3


def test_lines_pass_a_lane_and_join_another() -> None:
    parents = {"a": [], "b": ["a"], "c": ["a"], "d": ["a"], "e": ["b", "d"], "f": [], "g": ["e", "f", "c"]}
    assert drawing(parents, {}) == [
        "● a", "├─┬─╮", "● │ │ b", "│ ● │ c", "│ │ ● d", "├─│─╯", "● │ e", "╰─┤", "● │ f", "╰─┤", "  ● g",
    ]  # fmt: skip


def test_jobs_that_do_not_wait_for_each_other_are_not_drawn_as_a_chain() -> None:
    assert drawing({"a": [], "b": ["a"], "c": ["b"]}, {}) == ["● a", "● b", "● c"]
    assert drawing({"a": [], "b": [], "c": []}, {}) == ["● a", "", "● b", "", "● c"]
    parents = {"a": [], "b": ["a"], "c": ["a"], "d": [], "e": ["c", "d"]}
    assert drawing(parents, {}) == ["● a", "├─╮", "● │ b", "  ● c", "● │ d", "╰─┤", "  ● e"]


def test_every_job_and_every_edge_is_in_the_drawing() -> None:
    parents = {f"j{n}": [f"j{m}" for m in range(n) if (n * 7 + m * 3) % 5 == 0] for n in range(20)}
    rows = drawing(parents, {}, plain=True)
    assert [row.split()[-1] for row in rows if "o" in row] != []
    assert {row.split()[-1] for row in rows if "o" in row} == set(parents)


def test_a_wide_dag_is_a_list_of_steps() -> None:
    parents: dict[str, list[str]] = {"a": [], **{f"m{n}": ["a"] for n in range(LANES_MAX + 1)}}
    parents["end"] = [f"m{n}" for n in range(LANES_MAX + 1)]
    rows = drawing(parents, {"a": "first.py"})
    assert rows[0] == "  1  a  first.py"
    assert rows[1:3] == ["  2  m0    after a", "     m1    after a"]
    assert rows[-1] == "  3  end    after m0, m1, m2, m3, m4, m5 and 19 more"


def test_what_would_break_a_chart_is_quoted() -> None:
    assert mermaid({"end": []}, {"end": 'a "b" & c'})[1] == '    j0["end a &quot;b&quot; &amp; c"]'
