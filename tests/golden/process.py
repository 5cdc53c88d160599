"""A real Master as a process of its own, and how much memory it has."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.acceptance.cluster import bare_environment

TOKEN = "the-admin-token-of-the-golden-texts-0123456789"
STOP_S = 40
# One client sends in a minute what a thousand would not: what is counted by time is not the matter here.
ROOMY = {
    "TITAN_LIMIT_REFUSALS_MAX": "1000000000",
    "TITAN_LIMIT_ADDRESS_REFUSALS_MAX": "1000000000",
}


class RealMaster:
    """Use with `with`. What it says on stderr lies in `log`."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.home = folder / "home"
        self.log = folder / "master.log"
        self.url = ""
        self.port = 0
        self.token = TOKEN
        self._environ = environ

    def __enter__(self) -> Self:
        self.home.mkdir(mode=0o700)
        (self.home / "token").write_text(f"{TOKEN}\n")
        (self.home / "token").chmod(0o600)
        ready, told = os.pipe()
        words = ["--home", str(self.home), "--port", "0", "--ready-fd", str(told)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "titan.master", *words],
                env=bare_environment(self.home) | ROOMY | self._environ,
                stderr=log,
                pass_fds=[told],
            )
        os.close(told)
        with open(ready, "rb") as pipe:
            assert pipe.readline() == b"ready\n", self.log.read_text()
        self.url = json.loads((self.home / "endpoint.json").read_text())["url"]
        self.port = int(self.url.rpartition(":")[2])
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        assert self.process.wait(STOP_S) == 0, self.log.read_text()

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def rss_bytes(self) -> int:
        """Return how much memory it has now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the Master is gone")

    def tracebacks(self) -> str:
        """Return what it logged of errors of its own, "" when nothing."""
        said = self.log.read_text(errors="replace")
        return said if "Traceback" in said or " ERROR " in said else ""
