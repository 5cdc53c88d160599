"""A warm launcher without a worker, and one script run both ways: bare, and as a fork of it."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from tests.worker.launching import SOURCE, Launcher
from tests.worker.test_as_without import files, plain
from titan.model.spec import JobSpec
from titan.worker.environment import install_site
from titan.worker.launcher import frames
from titan.worker.launcher.frames import Renewed, Report, Start, boot_ms
from titan.worker.launching import WARM_PROGRAM
from titan.worker.warmth import WARM, Warmth

KEPT = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR")


class WarmLauncher(Launcher):
    """The worker's end of a launcher grown warm; `said` is what it told about itself."""

    def __init__(
        self, folder: Path, preload: tuple[str, ...] = (), source: str = SOURCE, modules: dict[str, str] | None = None
    ) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(60)
        self.site = folder / "python"
        install_site(self.site)
        for name, text in (modules or {}).items():
            (self.site / f"{name}.py").write_text(text)
        self.env = {name: os.environ[name] for name in os.environ if name in KEPT or name.startswith("LC_")}
        self.env["PYTHONPATH"] = str(self.site)
        reading, writing = os.pipe()
        with theirs:
            program = WARM_PROGRAM.format(theirs.fileno(), -1, writing)
            if source != SOURCE:
                # Before the installed one.
                program = program.replace("append(", "insert(0, ").replace("pop()", "pop(0)")
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, source, *preload],
                pass_fds=[theirs.fileno(), writing],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                env=self.env,
            )
        os.close(writing)
        with open(reading, encoding="utf-8") as told:
            lines = told.readlines()
        self.importing = [line for line in lines if line.startswith("?")]
        self.said = "".join(line for line in lines if not line.startswith("?"))
        self._buffer = bytearray()
        self._reports: list[Report] = []
        self._fence = 0
        self.warmth = Warmth(self.env, self.said.splitlines(), preload, "")
        if self.said and not self.said.startswith("!"):
            self.order(Renewed(boot_ms()))

    def start(self, fence: int, script: str, **more: int) -> int:
        """Start a Python script, warm, and return the read end of its pipe."""
        folder = self.site.parent / f"job-{fence}"
        folder.mkdir()
        (folder / "job.py").write_text(script)
        reading, writing = os.pipe()
        env = self.env | {"TITAN_FENCE": str(fence), "TITAN_WORKDIR": str(folder)}
        entries = [os.fsencode(f"{name}={value}") for name, value in env.items()]
        argv = [os.fsencode(sys.executable), b"job.py"]
        self.order(Start(fence, os.fsencode(folder), argv, entries, warm=True, **more), writing)
        os.close(writing)
        return reading

    def run(self, folder: Path, *args: str, warm: bool = True, reap: bool = False) -> tuple[int, str]:
        """Run `job.py` in `folder` and return its exit code, as a shell counts it, and its output."""
        self._fence += 1
        reading, writing = os.pipe()
        env = self.env | {"TITAN_FENCE": str(self._fence), "TITAN_WORKDIR": str(folder)}
        entries = [os.fsencode(f"{name}={value}") for name, value in env.items()]
        argv = [os.fsencode(word) for word in (sys.executable, "job.py", *args)]
        self.start_word = self.warmth.start_of(JobSpec("j", "job.py"), entries, str(folder))
        warm = warm and self.start_word == WARM
        self.order(Start(self._fence, os.fsencode(folder), argv, entries, reap=reap, warm=warm), writing)
        os.close(writing)
        with open(reading, "rb") as pipe:
            output = pipe.read()
        while (report := self.report()).kind == frames.STARTED:
            pass
        assert report.kind == frames.ENDED
        code = os.waitstatus_to_exitcode(report.a)
        return (code if code >= 0 else 128 - code), output.decode("utf-8", "surrogateescape")


def both_ways(launcher: WarmLauncher, folder: Path, script: str, beside: str = "") -> list[tuple[object, ...]]:
    """Return exit code, output, files made and files left in the working folder, of a fresh start and of a warm one.

    `beside` names a module that lies beside the script.
    """
    seen = []
    for warm in (False, True):
        place, out = folder / "place", folder / "out"
        place.mkdir()
        out.mkdir()
        (place / "job.py").write_text(script)
        if beside:
            (place / f"{beside}.py").write_text("MINE = True\n")
        code, said = launcher.run(place, str(out), warm=warm)
        assert beside or launcher.start_word == WARM
        left = sorted(path.name for path in place.rglob("*"))
        seen.append((code, re.sub("0x[0-9a-f]+", "0x", plain(said)), files(out), left))
        place.rename(folder / f"place-{warm}")
        out.rename(folder / f"out-{warm}")
    return seen
