"""`titan ps --json` starts quickly: it loads what is listed here and nothing else, and that is all a test can hold."""

import subprocess
import sys
from pathlib import Path

from tests.acceptance.cluster import Cluster, bare_environment

PROBE = """
import sys
before = set(sys.modules)
from titan.cli import main
code = main(["ps", "--json"])
print(*sorted(set(sys.modules) - before), file=sys.stderr)
sys.exit(code)
"""
# Of the standard library; C accelerators (`_json`) follow their module. click alone brings most of them.
LIBRARY = {
    "array", "ast", "base64", "binascii", "collections", "contextlib", "copy", "copyreg", "dataclasses", "datetime",
    "dis", "encodings", "enum", "errno", "functools", "gettext", "heapq", "importlib", "inspect", "itertools", "json",
    "keyword", "linecache", "locale", "math", "opcode", "operator", "platform", "re", "reprlib", "select", "selectors",
    "socket", "string", "stringprep", "struct", "textwrap", "threading", "token", "tokenize", "types", "typing",
    "unicodedata", "uuid", "warnings", "weakref",
}  # fmt: skip
OURS = {
    "titan", "titan.cli", "titan.cli.ask", "titan.cli.exits", "titan.cli.main", "titan.cli.options", "titan.cli.output",
    "titan.cli.ps", "titan.cli.tell", "titan.model", "titan.model.ids", "titan.model.states",
}  # fmt: skip


def test_listing_runs_loads_only_the_listed_modules(cluster: Cluster, tmp_path: Path) -> None:
    # In a project of others, whose pyproject.toml says nothing of Titan and so is not decoded either.
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "titanic"\n')
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=bare_environment(cluster.home),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(done.stderr.split())
    assert "titan_sdk.transport" in loaded, "it has asked the Master"
    assert {name for name in loaded if name.partition(".")[0] == "titan"} <= OURS
    others = {name.partition(".")[0] for name in loaded if not name.startswith("_")}
    assert others - LIBRARY == {"click", "titan", "titan_sdk"}
