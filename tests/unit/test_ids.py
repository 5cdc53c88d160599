"""Ids: one strict pattern, and every refusal names the character."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from titan.model.ids import (
    RUN_ID_PATTERN,
    RUN_PREFIX_PATTERN,
    SHA256_PATTERN,
    job_id_problem,
    name_problem,
    shown,
)

GOOD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@pytest.mark.parametrize("job_id", ["a", "0", "extract_data", "DAG-deep.7", "x" * 128, "A-._-"])
def test_an_ordinary_id_has_no_problem(job_id: str) -> None:
    assert job_id_problem(job_id) is None


@pytest.mark.parametrize(
    ("job_id", "named"),
    [
        ("", "is empty"),
        ("x" * 129, "129 characters: give at most 128"),
        ("-rf", "begins with '-'"),
        ("..", "begins with '.'"),
        ("a/b", "'/'"),
        ("a|b", "'|'"),
        ("a b", "' '"),
        ("tidy\n", r"'\n'"),
        ("naïve", r"'\xef'"),
        ("a\x00", r"'\x00'"),
        ("\ud800", r"'\ud800'"),
        ("٣", r"'\u0663'"),
    ],
)
def test_a_bad_id_is_refused_by_the_character(job_id: str, named: str) -> None:
    assert named in (job_id_problem(job_id) or "")


@given(st.text(max_size=140))
@example("a\n")
@example("x" * 128 + "y")
def test_an_id_is_accepted_exactly_when_it_fits_the_pattern(text: str) -> None:
    problem = job_id_problem(text, "tag")
    assert (problem is None) == bool(GOOD_ID.fullmatch(text))
    if problem is not None:
        assert problem.startswith("tag")
        assert problem.isascii(), "an error must be printable on any terminal"
        assert problem.isprintable()


def test_a_display_name_is_free_text() -> None:
    for name in ("nightly_pipeline", "Отчёт 7", "日次バッチ", "🐍 deep", "a/b|c;d"):
        assert name_problem(name, 200) is None


@pytest.mark.parametrize(
    "name", ["a\nb", "\x1b[31mred", "\x00", "a\u2028b", "evil\u202egnp", "\u2066x", "\x85", "\ud800"]
)
def test_a_name_that_could_forge_a_line_is_refused(name: str) -> None:
    assert "control character" in (name_problem(name, 200) or "")


def test_a_name_has_its_length_checked() -> None:
    assert name_problem("x" * 200, 200) is None
    assert name_problem("x" * 201, 200) == "DAG name has 201 characters: give 1 to 200"
    assert name_problem("", 200, "name") == "name has 0 characters: give 1 to 200"


@given(st.text())
def test_a_shown_text_is_short_and_printable(text: str) -> None:
    answer = shown(text, 20)
    assert answer.isascii()
    assert answer.isprintable()
    # The longest escape of one character is \U0001f40d, and the quotes are two more.
    assert len(answer) <= 20 * 10 + 2


def test_run_ids_and_hashes_are_lower_case_hex_and_nothing_more() -> None:
    run_id = "0123456789abcdef" * 2
    assert RUN_ID_PATTERN.fullmatch(run_id)
    assert SHA256_PATTERN.fullmatch(run_id * 2)
    assert RUN_PREFIX_PATTERN.fullmatch(run_id[:4])
    for bad in (run_id[:-1], run_id.upper(), run_id + "\n", run_id + "0"):
        assert not RUN_ID_PATTERN.fullmatch(bad)
    for bad in ("abc", "xyz1", run_id + "0", "ABCD"):
        assert not RUN_PREFIX_PATTERN.fullmatch(bad)
