"""The reader of pipeline files: what it understands, what it refuses, and that nothing makes it hang or break."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titan.model.ids import job_id_problem
from titan_sdk import FileMissing, Invalid, TitanJob
from titan_sdk.job import LATER
from titan_sdk.pipeline import Pipeline, read_pipeline
from titan_sdk.pipeline_fields import ID, JOB, TYPES_OF_JOB
from titan_sdk.pipeline_nodes import ALIASES_MAX, FILE_BYTES_MAX

ONE = "jobs:\n  - id: extract\n    file: extract.py\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "extract.py").write_text("")
    return tmp_path


def read(text: str | bytes) -> Pipeline:
    Path("etl.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_pipeline("etl.yaml")


def only(text: str) -> TitanJob:
    jobs = read(ONE + text).jobs
    assert len(jobs) == 1
    return jobs[0]


def messages(text: str | bytes) -> list[str]:
    with pytest.raises(Invalid) as caught:
        read(text)
    return [problem["message"] for problem in caught.value.problems]


# What it understands.


def test_every_field_reaches_the_job() -> None:
    text = """
    type: run
    depends_on: []
    args: --name "Ada L"
    requirement: [GPU, HIGH_MEM]
    priority: 5
    delay: 2
    affinity: true
    affinity_wait_s: 30
    retries: 2
    retry_backoff_s: .5
    timeout_s: 60
    lease_s: 90
    on_lost: fail
    env: {DEBUG: no, RATE: 1.10, EMPTY: ""}
    reap: yes
    warm: no
"""
    job = only(text)
    assert vars(job) == vars(
        TitanJob(
            "extract", "extract.py", args=["--name", "Ada L"], parents=[], requirement=["GPU", "HIGH_MEM"], priority=5,
            delay=2000, affinity=True, affinity_wait_s=30, retries=2, retry_backoff_s=0.5, timeout_s=60, lease_s=90,
            on_lost="fail", env={"DEBUG": "no", "RATE": "1.10", "EMPTY": ""}, reap=True, warm=False,
        )
    )  # fmt: skip
    assert set(JOB) - {"id", "file"} == {line.split(":")[0].strip() for line in text.splitlines() if line}


def test_the_names_of_python_are_understood() -> None:
    job = read("jobs: [{job_id: a, filename: b.py, parents: [], job_type: TASK}]").jobs[0]
    assert (job.job_id, job.filename, job.parents, job.job_type) == ("a", "b.py", [], "TASK")


@pytest.mark.parametrize(
    ("written", "ms"),
    [("2", 2000), ("0.25", 250), ('"2"', 2000), ("2s", 2000), ("500ms", 500), ("1.5 m", 90_000), ("1h", 3_600_000)],
)
def test_a_delay_is_in_seconds_unless_it_says_otherwise(written: str, ms: int) -> None:
    assert only(f"    delay: {written}\n").delay == ms


def test_text_is_what_was_written() -> None:
    job = only("    args: [1.10, no, 0x1F, 2024-01-01, 1_000, 'a b', \"\\u00e9\"]\n")
    assert job.args == ["1.10", "no", "0x1F", "2024-01-01", "1_000", "a b", "\u00e9"]


def test_a_single_parent_needs_no_list() -> None:
    assert read(ONE + "  - {id: b, file: b.py, depends_on: extract}\n").jobs[1].parents == ["extract"]


def test_the_name_is_said_or_that_of_the_file() -> None:
    assert read(ONE).name == "etl"
    assert read("name: nightly\n" + ONE).name == "nightly"


def test_scripts_are_beside_the_file(folder: Path) -> None:
    (folder / "below").mkdir()
    (folder / "below" / "etl.yaml").write_text(ONE)
    assert read_pipeline("below/etl.yaml").jobs[0].filename == "below/extract.py"
    assert read_pipeline(folder / "below" / "etl.yaml").jobs[0].filename == str(folder / "below" / "extract.py")
    (folder / "below" / "extract.py").write_text("")
    assert read_pipeline("below/etl.yaml", scripts_are_here=True).missing == []


def test_anchors_and_merges_save_typing() -> None:
    pipeline = read(
        "x-common: &common {retries: 2, env: {A: b}}\n"
        "jobs:\n"
        "  - {<<: *common, id: a, file: a.py}\n"
        "  - {id: b, file: b.py, <<: [{priority: 7}, *common], retries: 5}\n"
    )
    assert [(job.retries, job.priority, job.env) for job in pipeline.jobs] == [(2, 1, {"A": "b"}), (5, 7, {"A": "b"})]


def test_a_project_is_read_with_a_warning() -> None:
    assert read("version: 1.0\nproject: false\n" + ONE).warnings == []
    assert "etl.yaml:1:10: project: true sends no folder" in read("project: true\n" + ONE).warnings[0]


def test_a_byte_order_mark_and_windows_lines_do_not_matter() -> None:
    assert read(b"\xef\xbb\xbf" + ONE.replace("\n", "\r\n").encode()).jobs[0].filename == "extract.py"


def test_what_is_not_available_is_refused_by_name_when_it_is_set() -> None:
    for field, feature in LATER.items():
        assert messages(f"{ONE}    {field}: 5\n") == [
            f"{field}: {feature}, not available in this version; leave {field} out"
        ]
    assert only("    port: 0\n    is_archive: false\n    max_wait_seconds: 172800\n").port == 0


@given(st.text(alphabet=st.sampled_from("aZ9._- /é"), max_size=6) | st.just("a" * 128) | st.just("a" * 129))
def test_an_id_is_what_the_master_takes_for_one(text: str) -> None:
    assert bool(ID.fullmatch(text)) == (job_id_problem(text) is None)


def test_the_fields_are_those_of_a_job() -> None:
    known = set(vars(TitanJob("", "")))
    assert {field.job_field for field in JOB.values()} | set(LATER) == known - {"script_content"}
    assert set(TYPES_OF_JOB.values()) == {"RUN_PAYLOAD", "TASK"}


# What it says.


def test_all_problems_of_a_file_are_told_together() -> None:
    said = messages(
        "jobs:\n"
        "  - {id: a, file: gone.py, depends_on: b}\n"
        "  - {id: b, file: gone.py, depends_on: [a, nowhere]}\n"
        "  - {id: c, file: gone.py, priority: high}\n"
    )
    assert "there is no file 'gone.py'" in said
    assert "jobs wait for each other in a circle: b -> a -> b" in said
    assert "'nowhere' is no job of this pipeline: give the id of a job in this file" in said
    assert "priority is 'high': give a whole number, 0 or more" in said


def test_a_script_that_is_not_here_may_be_at_the_master() -> None:
    Path("extract.py").unlink()
    assert read(ONE).missing == [("extract.py", (3, 11), "extract")]
    with pytest.raises(FileMissing) as caught:
        read_pipeline("etl.yaml", scripts_are_here=True)
    assert isinstance(caught.value, FileNotFoundError)


def test_what_the_master_refuses_gets_its_place() -> None:
    pipeline = read("name: x\n" + ONE + "    delay: 1000000000000\n")
    problems = [
        {"code": "invalid", "message": "delay_ms is much", "job_id": "extract", "field": "delay_ms"},
        {"code": "file_not_found", "message": "nowhere", "job_id": "extract", "field": "script"},
        {"code": "invalid", "message": "of a job", "job_id": "extract"},
        {"code": "invalid", "message": "of the whole"},
    ]
    error = pipeline.placed(Invalid("no", problems=problems))
    assert isinstance(error, FileMissing)
    assert [problem["place"] for problem in error.problems] == [
        "etl.yaml:5:12", "etl.yaml:4:11", "etl.yaml:3:5", "etl.yaml:1:1",
    ]  # fmt: skip
    assert pipeline.placed(Invalid("alone")).problems[0]["message"] == "alone"


@pytest.mark.parametrize("path", ["no.yaml", "no/etl.yaml", ".", "a\0b", "/dev/zero", "x" * 5000, b"etl.yaml", 7, None])
def test_a_path_that_is_no_file(path: object) -> None:
    with pytest.raises(Invalid) as caught:
        read_pipeline(path)  # type: ignore[arg-type]
    assert isinstance(caught.value, FileMissing) == (path in ("no.yaml", "no/etl.yaml"))


def test_a_misspelt_file_is_answered_with_the_nearest(folder: Path) -> None:
    (folder / "nightly.yaml").write_text(ONE)
    with pytest.raises(FileMissing, match=r"did you mean nightly\.yaml\?"):
        read_pipeline("nightli.yaml")


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.yaml")
    with pytest.raises(Invalid, match="not a regular file"):
        read_pipeline("pipe.yaml")


def test_without_pyyaml_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(Invalid) as caught:
        read(ONE)
    assert "pip install pyyaml" in caught.value.hint


# What it refuses.


def test_s30_no_tag_makes_an_object() -> None:
    for tag in ("!!python/object/apply:os.system", "!!python/name:os.system", "!!str", "!mine", "!<tag:x,2000:y>", "!"):
        assert any("is not allowed" in said for said in messages(f"jobs:\n  - id: {tag} [echo]\n    file: a.py\n")), tag


def test_s30_a_key_twice_is_refused() -> None:
    assert messages(ONE + "    file: other.py\n") == ["'file' is here twice: it has a value in line 3 already"]


def aliases(count: int) -> str:
    return f"x-a: &a x\n{ONE}    args: [{', '.join(['*a'] * count)}]\n"


def test_s30_as_many_aliases_as_allowed_and_no_more() -> None:
    assert read(aliases(ALIASES_MAX)).jobs[0].args == ["x"] * ALIASES_MAX
    assert messages(aliases(ALIASES_MAX + 1)) == ["more than 100 aliases: write the values out, or build it in Python"]


def bomb(item: str) -> str:
    lines = [f"x-0: &b0 {item.replace('*', '').replace('@', '1')}"]
    lines += [f"x-{n}: &b{n} {item.replace('@', f'*b{n - 1}')}" for n in range(1, 11)]
    return "\n".join([*lines, ONE])


@pytest.mark.parametrize(
    "text",
    [
        bomb("[@, @, @, @, @, @, @, @, @]"),
        bomb("{a: @, b: @, c: @, d: @, e: @, f: @, g: @, h: @, i: @}"),
        bomb("[[@, @, @], [@, @, @], [@, @, @]]"),
    ],
)
def test_s30_a_bomb_of_aliases_is_refused_before_it_is_followed(text: str) -> None:
    assert messages(text) == ["it stands for more than 500000 values once its aliases are followed"]


def test_s30_a_bomb_of_merges_is_refused() -> None:
    keys = ", ".join(f"k{n}: 1" for n in range(8_000))
    text = f"x-a: &a {{{keys}}}\nx-b: {{<<: [{', '.join(['*a'] * 90)}]}}\n{ONE}"
    assert messages(text) == ["it stands for more than 500000 values once its aliases are followed"]


def test_a_file_that_is_too_long_is_refused() -> None:
    said = messages(ONE.encode() + b"#" * FILE_BYTES_MAX)
    assert said == ["the file is longer than 1048576 bytes: build a DAG that large in Python, with submit_dag"]


def test_a_circle_of_thousands_is_found_without_recursion() -> None:
    lines = [f"  - {{id: j{n}, file: a.py, depends_on: j{(n + 1) % 2000}}}" for n in range(2000)]
    said = messages("\n".join(["jobs:", *lines]))
    assert any("in a circle" in line for line in said)
