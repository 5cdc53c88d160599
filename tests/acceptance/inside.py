"""Command lines run inside the test's own process: a tenth of the time, and the same main() that a shell starts."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from titan.cli.main import main


class Done:
    """What one command line did: its exit code, and both streams as text."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        # As subprocess names them.
        self.returncode, self.stdout, self.stderr = code, out.encode(), err.encode()

    @property
    def documents(self) -> list[Any]:
        """Every line of stdout as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


class Shell:
    """A shell in a folder, with the home of a cluster in its environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path, folder: Path) -> None:
        self._patch = monkeypatch
        self._home, self._folder = home, folder

    def __call__(self, *arguments: str, **environ: str) -> Done:
        """Run `titan ARGUMENTS`. What flags leave in the environment is gone afterwards."""
        streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
        with self._patch.context() as patch:
            for name in ("TITAN_URL", "TITAN_TOKEN", "TITAN_CA", "TITAN_PROFILE"):
                patch.setenv(name, "")
            patch.setenv("TITAN_HOME", str(self._home))
            for name, value in environ.items():
                patch.setenv(name, value)
            patch.chdir(self._folder)
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
            code = main(list(arguments))
        out, err = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
        return Done(code, out, err)
