"""`import titan_sdk` is cheap: it is paid by every job that Titan runs.

Only the standard library, and of it only what is listed; http.client and what it drags in (ssl, email,
socket) are imported by the first call that talks to a Master.
"""

import subprocess
import sys
from pathlib import Path

from tests.unit.sources import SRC

# What a bare `import titan_sdk` may load, by top-level name; C accelerators (`_json`) follow their module.
ALLOWED = {
    "__future__", "abc", "builtins", "codecs", "collections", "contextlib", "copyreg", "dataclasses", "encodings",
    "enum", "functools", "genericpath", "io", "itertools", "keyword", "operator", "os", "posix", "posixpath", "re",
    "reprlib", "stat", "sys", "titan_sdk", "types", "typing", "warnings", "weakref",
}  # fmt: skip

PROBE = """
import sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
__import__(sys.argv[2])
print("\\n".join(set(sys.modules) - before))
"""


def loaded_by(module: str, folder: Path) -> set[str]:
    """Return the top-level names of the modules that importing `module` loads into a fresh interpreter."""
    # -S: no site, whose .pth files may import things first and so hide them from the difference.
    command = [sys.executable, "-I", "-S", "-c", PROBE, str(folder), module]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return {line.split(".")[0] for line in answer.stdout.split()}


def surprises(loaded: set[str]) -> set[str]:
    return {name for name in loaded - ALLOWED if not name.startswith("_")}


def test_importing_the_sdk_loads_only_the_listed_modules() -> None:
    loaded = loaded_by("titan_sdk", SRC)
    assert "titan_sdk" in loaded
    assert surprises(loaded) == set()


def test_a_heavy_or_foreign_import_is_found(tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text("import http.client\n")
    (tmp_path / "neighbour.py").write_text("")
    (tmp_path / "foreign.py").write_text("import neighbour\n")
    assert {"http", "ssl", "email", "socket"} <= surprises(loaded_by("heavy", tmp_path))
    assert "neighbour" in surprises(loaded_by("foreign", tmp_path))
