"""Writes docs/reference/json.md from the shapes of what commands print: .venv/bin/python -m tests.cli.json_page"""

import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from tests.cli.json_shapes import SHAPES, Failed, JobCancelled, RunCancelled
from tests.unit.sources import ROOT

PAGE = ROOT / "docs" / "reference" / "json.md"

HEAD = """# JSON of the command line

<!-- Made by tests/cli/json_page.py from the shapes that a test holds real output to. -->

With `--json` a command prints one JSON document on stdout, as one line; where it follows something (`-f`, `events`,
`store watch`, `submit -f`) one document a line. Fields are only ever added. Times are ISO-8601 text in UTC with
milliseconds, or null. An error is one document of the shape `Failed` on stderr, and stdout then has no document; the
exit code is [what it is without `--json`](cli.md#exit-codes).

Where several shapes stand in one row, `kind` says which one a document is; a RUN gives the one, a JOB the other.

| command | prints |
|---|---|
"""


def render() -> str:
    """Return the page."""
    rows = [
        f"| `{' '.join(filter(None, (path, how)))}` | {', '.join(map(_link, shapes))} |\n"
        for path, ways in SHAPES.items()
        for how, shapes in ways.items()
    ]
    tops = [shape for ways in SHAPES.values() for shapes in ways.values() for shape in shapes]
    return HEAD + "".join(rows) + "\n" + "\n".join(map(_section, _all([*tops, RunCancelled, JobCancelled, Failed])))


def _all(shapes: list[Any]) -> list[Any]:
    """Return the shapes and those their fields are of, each once, by name."""
    found: dict[str, Any] = {}
    left = list(shapes)
    while left:
        shape = left.pop()
        if shape.__name__ not in found:
            found[shape.__name__] = shape
            left += [each for field in msgspec.structs.fields(shape) for each in _structs(field.type)]
    return [found[name] for name in sorted(found)]


def _structs(kind: Any) -> Iterator[Any]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for part in typing.get_args(kind):
        yield from _structs(part)


def _section(shape: Any) -> str:
    fields = "".join(f"| `{field.encode_name}` | {_kind(field.type)} |\n" for field in msgspec.structs.fields(shape))
    doc = " ".join((shape.__doc__ or "").split())
    return f"## {shape.__name__}\n\n{doc}\n\n| field | |\n|---|---|\n{fields}"


def _link(shape: Any) -> str:
    return f"[{shape.__name__}](#{shape.__name__.lower()})"


def _kind(kind: Any) -> str:
    """Return a type in the words of JSON."""
    words = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        type(None): "null",
        Any: "anything",
    }
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _link(kind)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (list, tuple):
        return f"list of {_kind(parts[0])}"
    if origin is dict:
        return f"object of {_kind(parts[1])} by name"
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(_kind, parts))
    return words[kind]


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render(), encoding="utf-8")
