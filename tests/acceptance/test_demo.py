"""The demo is what a stranger runs first: it ends with a report, and leaves nothing else."""

import re
import subprocess
import sys
from pathlib import Path

from tests.unit.sources import ROOT


def test_the_demo_makes_its_report_on_two_workers_and_leaves_nothing_else(tmp_path: Path) -> None:
    report, rest = tmp_path / "report.html", tmp_path / "rest"
    rest.mkdir()
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(rest), "TMPDIR": str(rest)}
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "--out", str(report)]
    answer = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=110, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    table = re.findall(r"^(\w+) +COMPLETED +(\S+) +[\d.]+ s   \S", answer.stdout, re.MULTILINE)
    assert [job for job, _ in table] == ["list", *(f"analyse_{n}" for n in range(8)), "reduce", "draw"]
    assert dict(table)["draw"] == "second", "the job that requires GPU runs on the worker that offers it"
    assert "most imported: " in answer.stdout
    assert "11 of 11" in answer.stdout
    assert f"  {report.resolve()}\n" in answer.stdout
    assert list(rest.iterdir()) == []
    page = report.read_text(encoding="utf-8")
    assert page.count("<svg ") == 3
    assert "prefers-color-scheme:dark" in page
    assert ">encodings<" in page
    assert "<script" not in page
