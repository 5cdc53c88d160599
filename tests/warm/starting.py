"""A warm launcher without a worker, and one script run both ways: bare, and as a fork of it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.worker.launching import SOURCE, Launcher
from titan.worker.environment import install_site
from titan.worker.launcher import frames
from titan.worker.launcher.frames import Renewed, Report, Start, boot_ms

PROGRAM = (
    "import sys; sys.path.insert(0, {0!r}); from titan.worker.launcher.main import main; "
    "job = main({1}, -1, {2}, {3!r}, {0!r}); job and job()"
)
KEPT = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR")


class WarmLauncher(Launcher):
    """The worker's end of a launcher grown warm; `said` is what it told about itself."""

    def __init__(self, folder: Path, preload: tuple[str, ...] = (), before: str = "") -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(60)
        self.site = folder / "python"
        install_site(self.site)
        self.env = {name: os.environ[name] for name in os.environ if name in KEPT or name.startswith("LC_")}
        self.env["PYTHONPATH"] = str(self.site)
        reading, writing = os.pipe()
        with theirs:
            program = before + PROGRAM.format(SOURCE, theirs.fileno(), writing, list(preload))
            self.process = subprocess.Popen(
                [sys.executable, "-c", program],
                pass_fds=[theirs.fileno(), writing],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                env=self.env,
            )
        os.close(writing)
        with open(reading, encoding="utf-8") as told:
            self.said = told.read()
        self._buffer = bytearray()
        self._reports: list[Report] = []
        self._fence = 0
        if not self.said.startswith("!"):
            self.order(Renewed(boot_ms()))

    def start(self, fence: int, script: str, **margins: int) -> int:
        """Start a Python script, warm, and return the read end of its pipe."""
        folder = self.site.parent / f"job-{fence}"
        folder.mkdir()
        (folder / "job.py").write_text(script)
        reading, writing = os.pipe()
        env = self.env | {"TITAN_FENCE": str(fence), "TITAN_WORKDIR": str(folder)}
        entries = [os.fsencode(f"{name}={value}") for name, value in env.items()]
        argv = [os.fsencode(sys.executable), b"job.py"]
        self.order(Start(fence, os.fsencode(folder), argv, entries, warm=True, **margins), writing)
        os.close(writing)
        return reading

    def run(self, folder: Path, *args: str, warm: bool = True, reap: bool = False) -> tuple[int, str]:
        """Run `job.py` in `folder` and return its exit code, as a shell counts it, and its output."""
        self._fence += 1
        reading, writing = os.pipe()
        env = self.env | {"TITAN_FENCE": str(self._fence), "TITAN_WORKDIR": str(folder)}
        self.order(
            Start(
                self._fence,
                os.fsencode(folder),
                [os.fsencode(word) for word in (sys.executable, "job.py", *args)],
                [os.fsencode(f"{name}={value}") for name, value in env.items()],
                reap=reap,
                warm=warm,
            ),
            writing,
        )
        os.close(writing)
        with open(reading, "rb") as pipe:
            output = pipe.read()
        while (report := self.report()).kind == frames.STARTED:
            pass
        assert report.kind == frames.ENDED
        code = os.waitstatus_to_exitcode(report.a)
        return (code if code >= 0 else 128 - code), output.decode("utf-8", "surrogateescape")
