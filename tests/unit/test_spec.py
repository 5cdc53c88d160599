"""A job as submitted: what is accepted, what is refused and in which words, and that nothing is lost on the way."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from titan.model.limits import Limits
from titan.model.spec import (
    LATER,
    JobSpec,
    Problem,
    decode_spec,
    encode_spec,
    read_job,
    spec_problems,
    utf8_bytes,
)

LIMITS = Limits()
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)


def read(**fields: Any) -> tuple[JobSpec | None, list[Problem]]:
    problems: list[Problem] = []
    return read_job({"job_id": "extract", "filename": "etl/extract.py", **fields}, LIMITS, problems), problems


def refusal(**fields: Any) -> Problem:
    """Return the one problem of a job that is right but for `fields`."""
    spec, problems = read(**fields)
    assert spec is None
    assert len(problems) == 1, problems
    return problems[0]


def test_a_job_needs_an_id_and_a_file_and_nothing_else() -> None:
    spec, problems = read()
    assert problems == []
    assert spec == JobSpec(job_id="extract", filename="etl/extract.py")
    assert (spec.requirement, spec.priority, spec.retries, spec.timeout_s, spec.on_lost) == (
        ("GENERAL",), 1, 0, None, "retry"
    )  # fmt: skip


def test_all_fields_arrive() -> None:
    spec, _ = read(
        script="ab" * 32, job_type="TASK", args=["--name", "Ada"], parents=["first"], requirement=["GPU", "HIGH_MEM"],
        priority=5, delay_ms=1_500, affinity=True, affinity_wait_s=5.0, retries=3, retry_backoff_s=0.5, timeout_s=60.0,
        lease_s=30, on_lost="fail", env={"MODE": "deep"}, reap=True, source_path="/home/ada/etl/extract.py",
    )  # fmt: skip
    assert spec is not None
    assert spec.reap
    assert spec.args == ("--name", "Ada")
    assert spec.requirement == ("GPU", "HIGH_MEM")
    assert spec.env == {"MODE": "deep"}


@given(args=st.lists(TEXT, max_size=5), env=st.dictionaries(TEXT.filter(lambda name: name and "=" not in name), TEXT))
def test_arguments_and_environment_come_back_exactly(args: list[str], env: dict[str, str]) -> None:
    env = {name: value for name, value in env.items() if not name.startswith("TITAN_")}
    spec, problems = read(args=args, env=env)
    assert problems == []
    assert spec is not None
    kept = decode_spec(encode_spec(spec))
    assert kept == spec
    assert list(kept.args) == args
    assert kept.env == env


def test_defaults_cost_no_bytes_in_storage() -> None:
    assert msgspec.msgpack.decode(encode_spec(JobSpec("a", "a.py"))) == {"job_id": "a", "filename": "a.py"}


def test_what_is_stored_must_be_a_spec() -> None:
    for data in (b"", b"\xc1", msgspec.msgpack.encode({"job_id": "a"}), msgspec.msgpack.encode([1])):
        with pytest.raises(msgspec.DecodeError):
            decode_spec(data)


@pytest.mark.parametrize(
    ("field", "value", "code", "words"),
    [
        ("job_id", "a b", "invalid", "has the character ' '"),
        ("job_id", 7, "invalid", "job_id is 7: give text"),
        ("filename", "", "invalid", "names no file"),
        ("filename", "etl/", "invalid", "names no file"),
        ("filename", "..", "invalid", "names no file"),
        ("filename", "C:\\jobs\\..", "invalid", "names no file"),
        ("filename", "a\x00.py", "invalid", "names no file"),
        ("filename", "ü" * 128, "invalid", "255 bytes"),
        ("filename", "d/" * 2048 + "a.py", "invalid", "4096 with its folders"),
        ("source_path", "/" + "x" * 4096, "invalid", "is no path"),
        ("source_path", "/a\x00", "invalid", "is no path"),
        ("script", "AB" * 32, "invalid", "64 hex digits in lower case"),
        ("job_type", "GATE", "unsupported", "use RUN_PAYLOAD or TASK"),
        ("requirement", [], "invalid", "requirement is empty"),
        ("requirement", ["GPU", "a b"], "invalid", "' '"),
        ("requirement", [f"T{n}" for n in range(17)], "invalid", "17 tags: give at most 16"),
        ("requirement", "GPU", "invalid", "requirement is 'GPU': give a list"),
        ("priority", -1, "invalid", "give 0 to 1000"),
        ("priority", 1_001, "invalid", "priority is 1001"),
        ("priority", True, "invalid", "priority is true: give a whole number"),
        ("delay_ms", 366 * 86_400_000 + 1, "invalid", "give 0 to 31622400000"),
        ("affinity_wait_s", float("inf"), "invalid", "give 0 to 31622400"),
        ("retries", 1_001, "invalid", "give 0 to 1000"),
        ("retry_backoff_s", 300.1, "invalid", "give 0 to 300"),
        ("timeout_s", 0, "invalid", "give 0.001 to"),
        ("timeout_s", float("nan"), "invalid", "timeout_s is nan"),
        ("lease_s", 29, "invalid", "give 30 to 86400"),
        ("lease_s", 86_401, "invalid", "give 30 to 86400"),
        ("on_lost", "panic", "invalid", "on_lost is 'panic': give retry or fail"),
        ("job_type", "x" * 100, "unsupported", "xxx...'"),
        ("args", ["a\x00b"], "invalid", "NUL"),
        ("args", ["x" * 131_072], "too_large", "args: 131073 bytes"),
        ("args", "a b", "invalid", "args is 'a b': give a list"),
        ("env", {"": "x"}, "invalid", "not empty"),
        ("env", {"A=B": "x"}, "invalid", "without '=' and NUL"),
        ("env", {"A": "x\x00"}, "invalid", "without '=' and NUL"),
        ("env", {"TITAN_TOKEN": "x"}, "invalid", "Titan's own"),
        ("env", {"A": "é" * 16_384}, "too_large", "env: 32771 bytes"),
        ("env", {"A": 1}, "invalid", "one value of it, is a whole number: give text"),
        ("parents", ["p"] * 10_001, "too_large", "10001 parents"),
    ],
)
def test_one_wrong_field_is_one_problem_that_names_it(field: str, value: object, code: str, words: str) -> None:
    problem = refusal(**{field: value})
    assert (problem.code, problem.field) == (code, field)
    assert words in problem.message
    assert problem.message.isprintable()
    assert len(problem.message) < 500


def test_the_value_at_each_limit_is_accepted() -> None:
    spec, problems = read(
        args=["x" * 131_071], env={"A": "x" * 32_765}, priority=1_000, retries=1_000, retry_backoff_s=300.0,
        timeout_s=366 * 86_400.0, delay_ms=366 * 86_400_000, lease_s=86_400, parents=["p"] * 10_000,
        requirement=[f"T{n}" for n in range(16)], filename="d/" * 1_920 + "/" + "x" * 255,
        source_path="/" + "x" * 4_095,
    )  # fmt: skip
    assert problems == []
    assert spec is not None


def test_every_problem_of_a_job_is_told_at_once() -> None:
    _, problems = read(job_id="a b", priority=-1, lease_s=1)
    assert [problem.field for problem in problems] == ["job_id", "priority", "lease_s"]
    _, problems = read(priority="high", lease_s=None, colour="red")
    assert [problem.field for problem in problems] == ["priority", "lease_s", "colour"]


@pytest.mark.parametrize("field", LATER)
def test_a_feature_that_does_not_exist_yet_is_refused_by_name(field: str) -> None:
    problem = refusal(**{field: "anything"})
    assert (problem.code, problem.field) == ("unsupported", field)
    assert "not available in this version" in problem.message


def test_an_unknown_field_is_refused_with_the_known_ones() -> None:
    problem = refusal(retires=3)
    assert "'retires' is not a field of a job" in problem.message
    assert "retries" in problem.message


@pytest.mark.parametrize("raw", [None, 7, "job", [], [{"job_id": "a"}]])
def test_what_is_no_object_is_no_job(raw: object) -> None:
    problems: list[Problem] = []
    assert read_job(raw, LIMITS, problems) is None
    assert "give a JSON object" in problems[0].message


def test_a_missing_field_is_named() -> None:
    problems: list[Problem] = []
    assert read_job({"args": []}, LIMITS, problems) is None
    assert [problem.message for problem in problems] == [
        "job_id is missing: give it as text",
        "filename is missing: give it as text",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=10),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*JobSpec.__struct_fields__, *LATER, "odd"]), JSON, max_size=6))
def test_no_input_raises_and_a_refused_job_always_has_a_reason(raw: dict[str, object]) -> None:
    problems: list[Problem] = []
    spec = read_job(raw, LIMITS, problems)
    assert (spec is None) == bool(problems)


@given(st.text(st.characters(), max_size=20), st.lists(st.text(st.characters(), max_size=20), max_size=3))
def test_no_text_makes_the_checks_raise(text: str, many: list[str]) -> None:
    spec = JobSpec(
        job_id=text, filename=text, script=text, job_type=text, args=tuple(many), parents=tuple(many),
        requirement=tuple(many), env={text: text}, source_path=text,
    )  # fmt: skip
    for problem in spec_problems(spec, LIMITS):
        assert problem.message.isprintable()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_bytes_are_counted_as_utf8(text: str) -> None:
    assert utf8_bytes(text) == len(text.encode())
