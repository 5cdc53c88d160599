"""The error tree: drawn as it is, one table of codes, the same thing on both sides of HTTP."""

import copy
import inspect
import re
from typing import Any

import pytest

from tests.sdk import errors_page
from titan_sdk import errors
from titan_sdk.errors import BY_CODE, FileMissing, Internal, Invalid, TitanError, error_of, from_problem, to_problem

CLASSES = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, TitanError)}


def full(code: str) -> TitanError:
    problems = [{"code": "invalid", "message": "args are long", "job_id": "a", "field": "args"}]
    return error_of(code, "it is so", hint="do this", problems=problems, request_id="r-1", retry_after_s=1.5)


def test_the_page_is_made_from_the_table() -> None:
    page = errors_page.PAGE.read_text(encoding="utf-8")
    assert page == errors_page.render(), "run: .venv/bin/python -m tests.sdk.errors_page"


def test_the_tree_is_drawn_as_it_is() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in errors_page.tree().splitlines():
        found = re.match(r"([ |`-]*)(\w+)", line)
        assert found, line
        depth = len(found[1]) // 4
        path[depth:] = [found[2]]
        drawn[found[2]] = path[depth - 1] if depth else "Exception"
        for builtin in re.findall(r"builtin (\w+)", line):
            assert builtin in errors_page.parents(CLASSES[found[2]])
    assert drawn == {name: kind.__bases__[0].__name__ for name, kind in CLASSES.items()}


def test_each_class_has_its_code_and_each_code_its_class() -> None:
    for name, kind in CLASSES.items():
        if kind is not TitanError:
            assert BY_CODE[kind.code][0] is kind, name
    for code, (kind, status, meaning) in BY_CODE.items():
        assert type(error_of(code, "x")) is kind
        assert (error_of(code, "x").code, error_of(code, "x").status) == (code, status)
        assert 400 <= status < 600
        assert meaning
    assert set(BY_CODE) > errors.BY_THE_CLIENT


@pytest.mark.parametrize("code", [*BY_CODE, "from_the_future"])
def test_an_error_is_the_same_after_its_way_through_http(code: str) -> None:
    error = full(code)
    back = from_problem(to_problem(error))
    assert type(back) is type(error)
    assert vars(back) == vars(error)
    assert str(back) == str(error)


@pytest.mark.parametrize("code", BY_CODE)
def test_an_error_can_be_copied(code: str) -> None:
    """As it is when an exception crosses to another process."""
    error = full(code)
    twin = copy.copy(error)
    assert (type(twin), vars(twin), str(twin)) == (type(error), vars(error), str(error))


def test_an_unknown_code_is_still_an_error_of_ours() -> None:
    error = error_of("from_the_future", "x")
    assert (type(error), error.code, error.status) == (TitanError, "from_the_future", 500)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"code": 5, "detail": None, "problems": "x", "hint": [], "retry_after_s": "soon"},
        {"problems": [1, {"a": 2}]},
    ],
)
def test_a_strange_document_is_still_an_error(document: dict[str, Any]) -> None:
    assert str(from_problem(document))


def test_what_why_and_next() -> None:
    problems = [{"code": "invalid", "message": "args are long", "job_id": "a"}, {"message": "a cycle"}]
    text = str(Invalid("2 problems", hint="split the DAG", problems=problems))
    assert text == "2 problems\n  - a: args are long\n  - a cycle\nNext: split the DAG"
    assert str(Invalid("one", problems=[{"message": "one"}])) == "one"
    assert str(Internal("oh", request_id="r-1")) == "oh\n(request r-1)"
    assert str(Invalid("oh", request_id="r-1")) == "oh"


def test_a_hundred_problems_do_not_fill_the_screen() -> None:
    error = Invalid("many", problems=[{"message": f"p{n}"} for n in range(100)])
    assert len(str(error).splitlines()) == 22
    assert "and 80 more: see error.problems" in str(error)
    assert len(error.problems) == 100


def test_a_missing_file_is_caught_as_python_does() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        raise FileMissing("no x.py", hint="make one")
    assert str(caught.value) == "no x.py\nNext: make one"
