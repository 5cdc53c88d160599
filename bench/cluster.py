"""A Titan of its own for a measurement: `titan up` in a temporary home."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from titan_sdk import TitanClient

PYTHON = os.path.join(sys.prefix, "bin", "python")
TITAN = os.path.join(sys.prefix, "bin", "titan")


class Cluster:
    """One `titan up` on a free port. A context manager; `ready_s` is the time from exec to its first screen."""

    def __init__(self, home: Path, *flags: str) -> None:
        self.home = home
        self.flags = flags

    def __enter__(self) -> Self:
        begun = time.perf_counter()
        self.up = subprocess.Popen(
            [TITAN, "up", "--json", "--port", "0", *self.flags],
            env=clean_environment(TITAN_HOME=str(self.home)),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self.up.stdout is not None
        line = self.up.stdout.readline()
        self.ready_s = time.perf_counter() - begun
        self.url = json.loads(line)["url"]
        return self

    def __exit__(self, *_: object) -> None:
        self.up.terminate()
        self.up.wait()

    def client(self) -> TitanClient:
        """Return a client with this cluster's token."""
        return TitanClient(url=self.url, token=(self.home / "token").read_text().strip())

    def master_pid(self) -> int:
        """Return the Master's process id."""
        return int(json.loads((self.home / "endpoint.json").read_text())["pid"])

    def processes(self) -> list[int]:
        """Return the ids of all processes of this cluster: supervisor, Master, workers, launchers."""
        found, at = [self.up.pid], 0
        while at < len(found):
            for task in Path(f"/proc/{found[at]}/task").iterdir():
                found.extend(int(pid) for pid in (task / "children").read_text().split())
            at += 1
        return found


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment without what would slow or change Python (PYTHON*, a developer's PATH)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TITAN_", "VIRTUAL"))}
    return {**kept, **more}


def rss_bytes(pid: int) -> int:
    """Return the resident memory of one process in bytes."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
