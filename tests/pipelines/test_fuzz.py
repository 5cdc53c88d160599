"""Whatever a pipeline file holds: it is read, or refused with places, and it ends.

The examples are the same each time; EXAMPLES raises their number for a longer look, which also takes other ones.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titan_sdk import Invalid
from titan_sdk.job import LATER
from titan_sdk.pipeline import read_pipeline
from titan_sdk.pipeline_fields import JOB
from titan_sdk.pipeline_nodes import Node, Unreadable, decoded, tree_of

EXAMPLES = int(os.environ.get("EXAMPLES", "0"))
FUZZ = settings(max_examples=EXAMPLES or 100, derandomize=not EXAMPLES, deadline=None)
LONG = 100_000
NONSENSE = [
    "[" * LONG, "{" * LONG, "- " * LONG, "? " * LONG, "[a, " * LONG, "{a: " * LONG, '"' + "\\" * LONG, "&a " * LONG,
    "*a " * LONG, "!a " * LONG, "a\n" * LONG, " " * LONG + "a", "a: " * LONG, "'" + "a" * LONG, "#" * LONG, "\n" * LONG,
    "|" + "\n" * LONG, "? a\n" * 10_000, "x: y\n" * 10_000, "%TAG ! tag:x,2000:\n" * 5_000,
]  # fmt: skip
WORDS = st.sampled_from(
    [
        "jobs", "id", "file", "depends_on", "args", "env", "delay", "extract", "a.py", "- ", ": ", "\n", "\n  - ",
        "\n    ", "{", "}", "[", "]", ", ", "&a ", "*a", "<<", "!!str ", "!x", "|", ">", "'", '"', "#", "---", "...",
        "%", "\t", "~", "null", "yes", "1", "-1", "1e309", "9" * 400, "\x00", "\x85", "\u2028", "\ufeff", "\\", "? ",
        "@", "\U0001f600",
    ]
)  # fmt: skip
SCALARS = st.sampled_from(
    [None, True, False, 0, -1, 2**70, 1.5, float("nan"), "", "a", "b", "a.py", "retry", "2s", "\x1b"]
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(SCALARS.map(str), SCALARS, max_size=3)
FIELDS = st.sampled_from([*JOB, *LATER, "parents", "job_id", "filename", "nonsense"])
JOBS = st.lists(st.dictionaries(FIELDS, VALUES, max_size=8), max_size=5)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems_of(data: bytes) -> tuple[dict[str, str], ...]:
    Path("etl.yaml").write_bytes(data)
    try:
        jobs = read_pipeline("etl.yaml").jobs
    except Invalid as error:
        return error.problems
    assert jobs
    return ()


def survives(data: bytes) -> None:
    assert all(problem["place"].startswith("etl.yaml:") for problem in problems_of(data))


@pytest.mark.parametrize("text", NONSENSE, ids=lambda text: repr(text[:6]))
def test_long_nonsense_is_refused(text: str) -> None:
    assert problems_of(text.encode())


def test_the_words_make_files_that_can_be_read() -> None:
    assert problems_of(b"jobs: \n  - id: a\n    file: a.py") == ()


@FUZZ
@given(st.lists(WORDS, max_size=60))
def test_words_of_yaml_in_any_order_are_read_or_refused(words: list[str]) -> None:
    survives("".join(words).encode())


@FUZZ
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    survives(data)


@FUZZ
@given(JOBS)
def test_any_values_in_any_field_are_read_or_refused(jobs: list[dict[str, Any]]) -> None:
    survives(json.dumps({"jobs": jobs}).encode())


@FUZZ
@given(st.lists(WORDS, max_size=30))
def test_what_both_parsers_read_they_read_alike(words: list[str]) -> None:
    quick = outcome("".join(words))
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr("yaml.CSafeLoader", raising=False)
        slow = outcome("".join(words))
    assert quick == slow or isinstance(slow, str)


def outcome(text: str) -> Any:
    told: list[str] = []
    try:
        return shape(tree_of(decoded(text.encode()), lambda said, _: told.append(said))), told
    except Unreadable as error:
        return error.message


def shape(node: Node) -> Any:
    if node.kind == "map":
        return [(shape(key), shape(value)) for key, value in node.entries]
    return [shape(item) for item in node.items] if node.kind == "list" else (node.kind, node.text, node.is_null)
