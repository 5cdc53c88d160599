"""The tail is what makes a codebase hard: no file over 500 lines, no function over 70."""

import ast

from tests.unit.sources import Source, parse, read_tree, report

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70


def too_long(source: Source) -> list[str]:
    found = []
    lines = len(source.text.splitlines())
    if lines > FILE_LINES_MAX:
        found.append(f"{source.path}: {lines} lines, at most {FILE_LINES_MAX}; it hides two subjects")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                found.append(f"{source.at(node)}: {node.name} has {length} lines, at most {FUNCTION_LINES_MAX}")
    return found


def test_files_and_functions_are_short() -> None:
    found = [line for source in read_tree("src", "tests", "bench", "examples") for line in too_long(source)]
    assert not found, report(found)


def test_the_first_line_too_many_is_found() -> None:
    body = "    pass\n" * (FUNCTION_LINES_MAX - 1)
    assert too_long(parse(f"def f():\n{body}")) == []
    assert too_long(parse(f"class A:\n  async def f():\n    pass\n{body}")) == [
        "sample.py:2: f has 71 lines, at most 70"
    ]
    assert too_long(parse("x = 1\n" * FILE_LINES_MAX)) == []
    assert too_long(parse("x = 1\n" * (FILE_LINES_MAX + 1))) != []
