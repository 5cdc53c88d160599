"""`titan retry` with files that were edited: sent, and told, but not hundreds of them one by one."""

import hashlib
import io
from pathlib import Path
from typing import cast

from titan.cli.ask import Master
from titan.cli.output import Output
from titan.cli.retry import SENT_TOLD_MAX, _send_edited


class Taking:
    def __init__(self) -> None:
        self.sent: list[str] = []

    def send_file(self, _digest: str, path: str) -> None:
        self.sent.append(path)


def test_many_edited_files_are_all_sent_and_told_in_short(tmp_path: Path) -> None:
    jobs = []
    for number in range(SENT_TOLD_MAX + 3):
        path = tmp_path / f"{number:03d}.py"
        path.write_text(f"print({number})")
        jobs.append({"source_path": str(path), "script": hashlib.sha256(b"before").hexdigest()})
    master, out = Taking(), Output()
    out.stderr = told = io.StringIO()
    sent = _send_edited(out, cast(Master, master), jobs)
    assert master.sent == [job["source_path"] for job in jobs] == [*sent]
    lines = told.getvalue().splitlines()
    assert len(lines) == SENT_TOLD_MAX + 1
    assert lines[0] == f"{tmp_path}/000.py was edited since it was submitted: it is sent anew"
    assert lines[-1] == "and 3 files more"
