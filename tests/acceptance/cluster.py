"""A real cluster for the acceptance tests: `titan up` as a person types it, in a home of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from titan_sdk import TitanClient

TITAN = str(Path(sys.executable).with_name("titan"))
PAGE = Path(__file__).parent / "page"
STOP_S = 40


def bare_environment(home: Path, **more: str) -> dict[str, str]:
    """What a stranger's shell has, and which Titan is meant."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    coverage = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
    return {**kept, **coverage, "TITAN_HOME": str(home), "XDG_CONFIG_HOME": str(home), **more}


def titan(
    home: Path, *arguments: str, cwd: Path | None = None, stdin: bytes = b"", timeout_s: float = 60, **more: str
) -> subprocess.CompletedProcess[bytes]:
    """Run one command line to its end; stdout and stderr as bytes."""
    return subprocess.run(
        [TITAN, *arguments],
        env=bare_environment(home, **more),
        cwd=cwd or home,
        input=stdin,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )


class Cluster:
    """One `titan up` with its flags. Start it, use it, stop it; it may be started again on the same home."""

    def __init__(self, home: Path, *flags: str, environ: dict[str, str] | None = None, command: str = "up") -> None:
        self.home = home
        self.flags = flags
        self.command = command
        self.environ = environ or {}
        self.url = ""
        self.first_screen: dict[str, Any] = {}
        self._up: subprocess.Popen[str] | None = None
        self._killed = 0

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Return once it says that it is ready. It leads a process group of its own, as under a shell."""
        self.first_screen = json.loads(self._launch("--json"))
        self.url = self.first_screen["url"]
        return self

    def start_as_a_person(self) -> str:
        """The same without --json; return the first screen."""
        first = self._launch()
        self.url = first.split()[2]
        assert self._up is not None
        assert self._up.stdout is not None
        return first + self._up.stdout.readline()

    def _launch(self, *flags: str) -> str:
        self._up = subprocess.Popen(
            [TITAN, self.command, *flags, *self.flags],
            env=bare_environment(self.home) | self.environ,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._up.stdout is not None
        line = self._up.stdout.readline()
        if not line:
            raise AssertionError(f"titan up {' '.join(self.flags)} ended with {self.gone()}; stderr above says why")
        return line

    @property
    def pid(self) -> int:
        assert self._up is not None
        return self._up.pid

    def kill_group(self) -> None:
        """kill -9 of everything that shares the process group."""
        os.killpg(self.pid, signal.SIGKILL)
        self.gone()

    def kill_master(self) -> None:
        """kill -9 of the Master, also when its predecessor was killed a moment ago and it has yet to say who it is."""
        with self.client() as client:
            while (pid := json.loads((self.home / "endpoint.json").read_text())["pid"]) == self._killed:
                client.stats()
        os.kill(pid, signal.SIGKILL)
        self._killed = pid

    def stop(self) -> int:
        """Ctrl+C for a program: SIGTERM; return the exit code."""
        if self._up is None:
            return 0
        self._up.terminate()
        return self.gone()

    def gone(self) -> int:
        """Wait for its end by whatever was done to it, and return the exit code."""
        assert self._up is not None
        with self._up as up:
            code = up.wait(STOP_S)
        self._up = None
        return code

    def titan(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run `titan ARGUMENTS` against this cluster."""
        return titan(self.home, *arguments, **options)

    def python(self, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run `python ARGUMENTS` in `cwd`, as a person would run a script that uses the SDK."""
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=bare_environment(self.home),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def client(self) -> TitanClient:
        """Return a client of this cluster; the environment of the tests names none."""
        return TitanClient(url=self.url, token=(self.home / "token").read_text().strip())


class JoinedWorker:
    """One `titan worker` as a person starts it on another machine in the home of the Master."""

    def __init__(self, home: Path, url: str, name: str, *flags: str, environ: dict[str, str] | None = None) -> None:
        self.name = name
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [TITAN, "worker", "--join", url, "--name", name, *flags],
            env=bare_environment(home) | (environ or {}),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._url = url

    def wait_connected(self) -> "JoinedWorker":
        """Return once the Master has welcomed it."""
        self.wait_said(f"connected to {self._url}")
        return self

    def wait_said(self, text: str) -> None:
        """Return once it has said so on stderr."""
        assert self.process.stderr is not None
        while not any(text in line for line in self.said):
            line = self.process.stderr.readline()
            if not line:
                raise AssertionError(f"worker {self.name} ended with {self.process.wait()}: {self.said}")
            self.said.append(line)

    def stop(self) -> int:
        """The orderly end: TERM; return the exit code."""
        self.process.terminate()
        return self.gone()

    def kill(self) -> None:
        """kill -9 of the worker process alone."""
        self.process.kill()
        self.gone()

    def gone(self) -> int:
        """Wait for its end and return the exit code; a second time says the same."""
        if self.process.returncode is None:
            self.said += self.process.communicate(timeout=STOP_S)[1].splitlines(keepends=True)
        return self.process.returncode


def port_is_free(port: int) -> bool:
    """Whether a program could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
