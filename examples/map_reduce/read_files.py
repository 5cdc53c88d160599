"""Parse the files of one shard; put what was counted into the store."""

import ast
import json
import os
import sys
from collections import Counter
from pathlib import Path

from titan_sdk import TitanClient

shard = sys.argv[1]
prefix = f"survey/{os.environ['TITAN_RUN_ID']}"
imported: Counter[str] = Counter()
longest: list[tuple[int, str]] = []
lines = 0

with TitanClient() as client:
    paths = json.loads(client.store_get(f"{prefix}/files/{shard}"))
    for path in paths:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        lines += text.count("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                imported.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported[node.module.split(".")[0]] += 1
            elif isinstance(node, ast.FunctionDef) and node.end_lineno:
                longest.append((node.end_lineno - node.lineno + 1, f"{Path(path).name}: {node.name}"))
    found = {
        "files": len(paths),
        "lines": lines,
        "functions": len(longest),
        "imported": imported,
        "longest": sorted(longest)[-3:],
    }
    client.store_put(f"{prefix}/found/{shard}", json.dumps(found))
print(f"shard {shard}: {len(paths)} files, {lines} lines")
