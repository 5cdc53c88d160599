"""The source tree as data: modules, what they import, and the checks' common way to name a place."""

import ast
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
# The documentation page's blocks are somebody else's text, kept unedited as data.
PAGE = ROOT / "tests" / "acceptance" / "page"
# What the healer mends is broken on purpose.
BROKEN = ROOT / "examples" / "code_healer" / "broken"


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported module, absolute; for `from a import b` `module` is a and `name` is b."""

    module: str
    name: str
    line: int
    only_for_types: bool


@dataclasses.dataclass(frozen=True)
class Source:
    """One parsed file. `module` is its dotted name, packages without `.__init__`."""

    module: str
    path: str
    text: str
    tree: ast.Module
    is_package: bool = False

    def at(self, node: ast.AST) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


def parse(text: str, module: str = "sample", path: str = "sample.py") -> Source:
    return Source(module, path, text, ast.parse(text))


def read_tree(*folders: str) -> list[Source]:
    """Return every Python file below the repository's `folders`; module names count from there or from src."""
    sources = []
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            if {PAGE, BROKEN} & set(file.parents):
                continue
            base = SRC if SRC in file.parents else ROOT
            parts = file.relative_to(base).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            module = ".".join(parts[:-1] if is_package else parts)
            text = file.read_text(encoding="utf-8")
            path = str(file.relative_to(ROOT))
            sources.append(Source(module, path, text, ast.parse(text, filename=path), is_package))
    assert sources, f"no Python file below {folders}"
    return sources


def imports(source: Source) -> Iterator[Import]:
    """Yield everything `source` imports, at the top, in functions and for type checkers."""
    for_types = {id(node) for block in ast.walk(source.tree) if _is_type_checking(block) for node in ast.walk(block)}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, "", node.lineno, id(node) in for_types)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(source, node)
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, id(node) in for_types)


def report(violations: Iterable[str]) -> str:
    return "\n" + "\n".join(violations)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _absolute(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = source.module.split(".")
    kept = parts[: len(parts) - node.level + source.is_package]
    return ".".join([*kept, node.module] if node.module else kept)
