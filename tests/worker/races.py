"""A job that changes its folder between any two steps of the worker: .venv/bin/python -m tests.worker.races [RACES]

The most hostile job there can be: before a system call of the worker on a name below its own folder, that name is
taken away, or becomes a link out of there, a file, a folder nobody may read, a full one. Half of the time, by a seed.
"""

import contextlib
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from titan.model.spec import JobSpec
from titan.worker import workspace
from titan.worker.workspace import Workspaces

SPEC = JobSpec(job_id="j", filename="job.py")
RACES = 10_000
STRUCK = frozenset({"stat", "open", "mkdir", "rename", "unlink", "rmdir", "utime", "chmod"})


class Outside:
    """What a job would like the worker to touch: contents, modes and times, all of which must stay."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "etc" / "deep").mkdir(parents=True)
        for name in ("passwd", "deep/shadow", "job.py"):
            (folder / "etc" / name).write_text("precious")
        for path in (folder / "etc" / "deep", folder / "etc"):
            path.chmod(0o500)
        self._before = self._state()

    def changes(self) -> list[str]:
        """Say what is not as it was; nothing is right."""
        return sorted({entry[0] for entry in self._before ^ self._state()})

    def _state(self) -> set[tuple[str, int, int, str]]:
        if not self.folder.is_dir():
            return set()
        return {
            (str(path), path.stat().st_mode, path.stat().st_mtime_ns, path.read_text() if path.is_file() else "")
            for path in [self.folder, *self.folder.rglob("*")]
        }


class HostileOs:
    """`os` for the worker, with the job's move before each call."""

    def __init__(self, outside: Outside, attic: Path, seed: int) -> None:
        self._random = random.Random(seed)
        self._targets = [str(outside.folder / "etc"), str(outside.folder / "etc" / "passwd"), "/no/such/thing", ".."]
        attic.mkdir()
        self._attic = os.open(attic, os.O_RDONLY)
        self.races = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._raced(real) if name in STRUCK else real

    def _raced(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: str | Path, *arguments: Any, **options: Any) -> Any:
            parent = options.get("dir_fd", options.get("src_dir_fd"))
            if parent is not None and self._random.random() < 0.5:
                self._strike(str(path), parent)
            return real(path, *arguments, **options)

        return call

    def _strike(self, name: str, parent: int) -> None:
        self.races += 1
        with contextlib.suppress(OSError):
            os.rename(name, f"{self.races}", src_dir_fd=parent, dst_dir_fd=self._attic)
        move = self._random.randrange(8)
        with contextlib.suppress(OSError):
            if move < 4:
                os.symlink(self._targets[move], name, dir_fd=parent)
            elif move == 4:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL, 0, dir_fd=parent))
            elif move < 7:
                os.mkdir(name, mode=0o300 if move == 5 else 0, dir_fd=parent)
                for inner in ("file", "folder"):
                    os.symlink(self._targets[0], f"{name}/{inner}", dir_fd=parent)


def race(root: Path, races: int, seed: int = 1) -> tuple[int, list[str]]:
    """Return how many folders the worker made and removed over so many races, and what changed outside."""
    outside = Outside(root / "outside")
    script = root / "script"
    script.write_text("print('x')\n")
    workspaces = Workspaces(root / "w")
    hostile = HostileOs(outside, root / "attic", seed)
    rounds = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace, "os", hostile)
        while hostile.races < races:
            rounds += 1
            with contextlib.suppress(OSError):
                folder = Path(workspaces.make(rounds, SPEC, script))
                (folder / "sub" / "deep").mkdir(parents=True)
                (folder / "sub" / "deep" / "file").write_text("x")
            for step in (workspaces.keep, lambda fence: workspaces.shared(fence, "a"), workspaces.remove):
                with contextlib.suppress(OSError):
                    step(rounds)
            with contextlib.suppress(OSError):
                workspaces.remove_unused_shared()
    return rounds, outside.changes()


def main() -> int:
    races = int(sys.argv[1]) if len(sys.argv) > 1 else RACES
    with tempfile.TemporaryDirectory() as folder:
        rounds, changes = race(Path(folder), races)
    print(f"{races} races over {rounds} folders, changed outside: {changes or 'nothing'}")
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())
