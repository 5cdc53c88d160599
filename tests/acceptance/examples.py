"""Run an example as its README says, with a stand-in for a language model where it wants one."""

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.acceptance.cluster import Cluster, bare_environment
from tests.unit.sources import ROOT

EXAMPLES = ROOT / "examples"
WAIT_S = 60


class Example:
    """`python examples/SCRIPT` in another terminal."""

    def __init__(self, cluster: Cluster, script: str, *arguments: str, **environ: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / script), *arguments],
            env=bare_environment(cluster.home, **environ),
            cwd=cluster.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_said(self, text: str) -> None:
        """Return once it has printed a line with this text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if text in line:
                return
        pytest.fail(f"it ended with {self.process.wait()} and never said {text!r}: {self.lines}")

    def ended(self) -> tuple[int, str]:
        """Return its exit code and all it printed."""
        with self.process as process:
            self.lines.append(process.communicate(timeout=WAIT_S)[0])
        return process.returncode, "".join(self.lines)


def run(cluster: Cluster, script: str, *arguments: str, **environ: str) -> tuple[int, str]:
    """Return its exit code and all it printed, both streams."""
    return Example(cluster, script, *arguments, **environ).ended()


class Model(ThreadingHTTPServer):
    """A stand-in for a language model: it answers with what it was given, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ModelHandler)
        self.answer = ""
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class ModelHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        model = self.server
        assert isinstance(model, Model)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model.asked.append((self.path, self.headers["Authorization"], body))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"choices": [{"message": {"content": model.answer}}]}).encode())

    def log_message(self, *_: object) -> None:
        pass
