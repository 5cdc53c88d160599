"""Parse the files of one part; put what was measured into the store."""

import ast
import json
import os
import sys
import sysconfig
from collections import Counter
from pathlib import Path

from titan_sdk import TitanClient

BRANCHES = (ast.If, ast.For, ast.While, ast.Try, ast.With, ast.BoolOp, ast.IfExp, ast.comprehension, ast.ExceptHandler)
part = sys.argv[1]
prefix = f"survey/{os.environ['TITAN_RUN_ID']}"
library = Path(sysconfig.get_path("stdlib"))
modules: dict[str, Counter[str]] = {}
imported: Counter[str] = Counter()
functions: list[tuple[int, int, str]] = []


def look(node: ast.AST, path: str, counts: Counter[str]) -> int:
    """Count what is below a node, and return how many branches there are."""
    branches = sum(look(child, path, counts) for child in ast.iter_child_nodes(node)) + isinstance(node, BRANCHES)
    if isinstance(node, ast.Import):
        imported.update(alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        imported[node.module.partition(".")[0]] += 1
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        functions.append((branches, (node.end_lineno or node.lineno) - node.lineno + 1, f"{path}: {node.name}"))
        counts["functions"] += 1
        if not node.name.startswith("_"):
            counts.update(public=1, documented=int(ast.get_docstring(node, clean=False) is not None))
    return branches


def measure(path: str) -> None:
    """Add one file to what is known of its top-level module."""
    text = (library / path).read_text(encoding="utf-8", errors="replace")
    counts = modules.setdefault(path.partition("/")[0].removesuffix(".py"), Counter())
    counts.update(files=1, lines=text.count("\n"))
    look(ast.parse(text), path, counts)


with TitanClient() as client:
    paths = json.loads(client.store_get(f"{prefix}/files/{part}"))
    for path in paths:
        measure(path)
    found = {"modules": modules, "imported": imported, "functions": sorted(functions, reverse=True)[:12]}
    client.store_put(f"{prefix}/found/{part}", json.dumps(found))
print(f"part {part}: {len(paths)} files, {sum(counts['lines'] for counts in modules.values()):,} lines")
