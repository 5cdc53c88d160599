"""The examples do what their first lines say; the demo is what a stranger runs first."""

import subprocess
import sys
from pathlib import Path

from tests.unit.sources import ROOT


def test_the_demo_runs_its_dag_and_leaves_nothing(tmp_path: Path) -> None:
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(ROOT / "examples" / "demo.py")]
    answer = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.count("COMPLETED") >= 6, answer.stdout
    assert "most imported: " in answer.stdout
    assert list(tmp_path.iterdir()) == []
