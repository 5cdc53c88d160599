"""What a warm start costs by itself: the launcher as fork server, without a worker, a Master or a disk."""

import asyncio
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from bench.cluster import PYTHON, clean_environment
from bench.measures import NOOP, REPEATS, timed
from bench.report import Figure, median_and_spread
from titan.worker.environment import install_site
from titan.worker.launcher import frames
from titan.worker.launcher.frames import Report, Start
from titan.worker.launching import LauncherProcess, Warming

AT_ONCE = 2
HEAVY = "numpy"


class Server:
    """One warm launcher that runs a script many times, `AT_ONCE` at a time."""

    def __init__(self, folder: Path, preload: tuple[str, ...]) -> None:
        site = folder / "python"
        install_site(site)
        environ = {**clean_environment(), "PYTHONPATH": str(site)}
        self._env = [os.fsencode(f"{name}={value}") for name, value in environ.items()]
        self.ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        warming = Warming(environ, preload, lambda _, problem: self.ready.set_result(problem))
        self._launcher = LauncherProcess(self._report, lambda: None, warming=warming)
        self._null = os.open(os.devnull, os.O_WRONLY)
        self._left = self._running = 0
        self._script = b""
        self._done = asyncio.Event()

    async def run(self, script: Path, times: int) -> None:
        """Return when it has run `times` times."""
        self._script, self._left = os.fsencode(script), times
        self._done.clear()
        for _ in range(AT_ONCE):
            self._start()
        await self._done.wait()

    def close(self) -> None:
        """End it."""
        self._launcher.close()
        self._launcher.wait(10)
        os.close(self._null)

    def _start(self) -> None:
        if not self._left:
            if not self._running:
                self._done.set()
            return
        self._left -= 1
        self._running += 1
        argv = [os.fsencode(sys.executable), self._script]
        order = Start(self._left, b"/", argv, self._env, warm=True)
        self._launcher.send(order, os.dup(self._null))

    def _report(self, report: Report) -> None:
        if report.kind == frames.ENDED:
            self._running -= 1
            self._start()


def warm_starts(folder: Path, jobs: int) -> list[Figure]:
    """No-op scripts, and scripts that import numpy, as forks of one server, against `xargs -P2` of the interpreter."""
    found = []
    scripts = (
        ("no-op scripts", NOOP, "", ">= 3x"),
        (f"scripts that import {HEAVY}", f"import {HEAVY}\n", HEAVY, ">= 3.3x"),
    )
    for number, (name, text, preload, goal) in enumerate(scripts):
        title = f"fork server alone, {jobs} {name}"
        if preload and importlib.util.find_spec(preload) is None:
            found.append(Figure(title, f"not measured: {preload} is not installed here", "-", "-", goal))
            continue
        place = folder / f"warm-{number}"
        place.mkdir()
        script = place / "job.py"
        script.write_text(text)
        ours, bare = asyncio.run(_rates(place, script, (preload,) if preload else (), jobs))
        (rate, spread), (yardstick, bare_spread) = median_and_spread(ours), median_and_spread(bare)
        found.append(
            Figure(
                title,
                f"{rate:.0f} jobs/s ({spread})",
                f"xargs -P2: {yardstick:.0f} jobs/s ({bare_spread})",
                f"{rate / yardstick:.2f}x",
                goal,
                "worker, Master, logs",
            )
        )
    return found


async def _rates(place: Path, script: Path, preload: tuple[str, ...], jobs: int) -> tuple[list[float], list[float]]:
    server = Server(place, preload)
    problem = await server.ready
    if problem:
        raise SystemExit(f"no warm starts here: {problem}")
    many = "\n".join([str(script)] * jobs).encode()
    command = ["xargs", f"-P{AT_ONCE}", "-n1", PYTHON]
    quiet = {"stdout": subprocess.DEVNULL, "env": clean_environment()}
    ours, bare = [], []
    loop = asyncio.get_running_loop()
    for _ in range(REPEATS):
        bare.append(jobs / timed(lambda: subprocess.run(command, input=many, check=True, **quiet)))
        begun = loop.time()
        await server.run(script, jobs)
        ours.append(jobs / (loop.time() - begun))
    server.close()
    return ours, bare
