"""What is asked, in the order of asking: each section writes one file of texts."""

from pathlib import Path

from tests.golden import calls, frames, lines, requests
from tests.golden.process import RealMaster
from tests.golden.table import Section


def sections(master: RealMaster, folder: Path) -> list[Section]:
    """Return all sections; `folder` is where the calls and command lines are made."""
    requests.prepare(master)

    def fresh(name: str) -> Path:
        (folder / name).mkdir()
        return folder / name

    return [
        Section("submission", lambda: requests.entries(master, requests.SUBMISSIONS)),
        Section("ids", lambda: requests.entries(master, requests.IDS)),
        Section("store", lambda: requests.entries(master, requests.STORE)),
        Section("artifacts", lambda: requests.entries(master, requests.ARTIFACTS)),
        Section("wire", lambda: frames.entries(master)),
        Section("sdk", lambda: calls.entries(master, fresh("sdk"))),
        Section("cli", lambda: lines.entries(master, fresh("cli"), lines.CLI)),
        Section("config", lambda: lines.entries(master, fresh("config"), lines.CONFIG)),
        Section("start", lambda: lines.entries(master, fresh("start"), lines.STARTS)),
    ]
