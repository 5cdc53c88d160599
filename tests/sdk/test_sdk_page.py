"""docs/reference/sdk.md says what the docstrings say, of every call there is, with examples that are Python."""

import ast
import inspect

import pytest

from tests.sdk.sdk_page import GROUPS, HANDLE, PAGE, example, render
from titan_sdk import Run, TitanClient, TitanJob


def public(owner: type) -> set[str]:
    return {name for name in dir(owner) if not name.startswith("_")}


def test_the_page_is_made_from_the_docstrings() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: .venv/bin/python -m tests.sdk.sdk_page"


def test_every_call_is_on_the_page() -> None:
    named = [name for names in GROUPS.values() for name in names]
    assert sorted(named) == sorted(public(TitanClient))
    assert set(HANDLE) == public(Run)


def test_every_field_of_a_job_that_works_is_on_the_page() -> None:
    text = inspect.getdoc(TitanJob) or ""
    works = set(vars(TitanJob("j", "f.py"))) - {
        "port", "is_archive", "hitl_message", "max_wait_seconds", "inputs", "outputs", "secrets", "python",
        "packages",
    }  # fmt: skip
    assert {name for name in works if name not in text} == set()


@pytest.mark.parametrize(
    ("owner", "name"),
    [(TitanClient, name) for name in sorted(public(TitanClient))] + [(Run, name) for name in sorted(public(Run))],
)
def test_every_example_is_python(owner: type, name: str) -> None:
    text = example(inspect.getattr_static(owner, name))
    ast.parse(text)
    assert name in text
