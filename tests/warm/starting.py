"""A warm launcher without a worker, and one script run three ways: bare, as a fork made ahead, and as one made then."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.worker.double import PATIENCE_S
from tests.worker.launching import SOURCE, Launcher
from tests.worker.test_as_without import files, plain
from titan.model.spec import JobSpec
from titan.worker.environment import install_site
from titan.worker.launcher import frames
from titan.worker.launcher.frames import Ping, Renewed, Report, Start, boot_ms
from titan.worker.launching import WARM_PROGRAM
from titan.worker.warmth import WARM, Warmth

SPARE = b"titan-spare\0"
TAKER = 1 << 40  # the fence of a job that is there to take a spare
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

    def children(self) -> list[int]:
        """Return the launcher's children."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def spare(self) -> int:
        """Return the fork that waits for the next job, once there is one and it has rehearsed."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            for pid in self.children():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                    if state == "S" and Path(f"/proc/{pid}/cmdline").read_bytes() == SPARE:
                        return pid
            os.sched_yield()
        raise AssertionError(f"none was made within {PATIENCE_S} s")

    def files(self) -> int:
        """Return how many files the launcher has open while nothing happens but that it has a spare."""
        self.spare()
        # What it does after a fork is done when it answers.
        self.order(Ping())
        assert self.report().kind == frames.ALIVE
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def start(self, fence: int, script: str, **more: int) -> int:
        """Start a Python script, warm, and return the read end of its pipe."""
        folder = self.site.parent / f"job-{fence}"
        folder.mkdir(exist_ok=True)
        (folder / "job.py").write_text(script)
        reading, writing = os.pipe()
        env = self.env | {"TITAN_FENCE": str(fence), "TITAN_WORKDIR": str(folder)}
        entries = [os.fsencode(f"{name}={value}") for name, value in env.items()]
        argv = [os.fsencode(sys.executable), b"job.py"]
        self.order(Start(fence, os.fsencode(folder), argv, entries, warm=True, **more), writing)
        os.close(writing)
        return reading

    def run(
        self, folder: Path, *args: str, warm: bool = True, reap: bool = False, ahead: bool | None = None
    ) -> tuple[int, str]:
        """Run `job.py` in `folder` and return its exit code, as a shell counts it, and its output.

        `ahead`: whether it is to become of a fork that was made ahead; None: whichever comes.
        """
        if ahead is not None:
            self.spare()
        if ahead is False:
            # Takes that one just before.
            os.close(self.start(TAKER, "pass"))
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
        while (report := self.report()).kind == frames.STARTED or report.fence == TAKER:
            pass
        assert report.kind == frames.ENDED
        code = os.waitstatus_to_exitcode(report.a)
        return (code if code >= 0 else 128 - code), output.decode("utf-8", "surrogateescape")


def all_ways(launcher: WarmLauncher, folder: Path, script: str, beside: str = "") -> list[tuple[object, ...]]:
    """Return exit code, output, files made and files left in the working folder.

    Of a fresh start, of one that takes a fork that was made ahead, and of one whose fork is made then. `beside` names a
    module that lies beside the script.
    """
    seen = []
    for way, (warm, ahead) in enumerate(((False, None), (True, True), (True, False))):
        place, out = folder / "place", folder / "out"
        place.mkdir()
        out.mkdir()
        (place / "job.py").write_text(script)
        if beside:
            (place / f"{beside}.py").write_text("MINE = True\n")
        code, said = launcher.run(place, str(out), warm=warm, ahead=ahead)
        assert beside or launcher.start_word == WARM
        left = sorted(path.name for path in place.rglob("*"))
        seen.append((code, re.sub("0x[0-9a-f]+", "0x", plain(said)), files(out), left))
        place.rename(folder / f"place-{way}")
        out.rename(folder / f"out-{way}")
    return seen
