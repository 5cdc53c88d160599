"""A program behaves under Titan as it does without: output, exit code and files are the same."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.as_without import HEAD, SCRIPTS
from tests.worker.conftest import WorkerProcess
from tests.worker.double import TOKEN, MasterDouble


@pytest.fixture(scope="module")
def double() -> Iterator[MasterDouble]:
    double = MasterDouble()
    double.start()
    yield double
    double.close()


@pytest.fixture(scope="module")
def one_worker(double: MasterDouble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    home = tmp_path_factory.mktemp("home")
    (home / "token").touch(0o600)
    (home / "token").write_text(f"{TOKEN}\n")
    worker = WorkerProcess(home, double)
    yield worker
    assert "Traceback" not in worker.close()


def bare(folder: Path, script: str, out: Path) -> tuple[int, str]:
    """Run it as `python job.py OUT` with what docs/containment.md lists as different made the same."""
    path = folder / "job.py"
    path.write_text(script)
    kept = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR")
    env = {name: value for name, value in os.environ.items() if name in kept or name.startswith("LC_")}
    done = subprocess.run(
        [sys.executable, "job.py", str(out)],
        check=False,
        cwd=folder,
        env=env | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        umask=0o077,
        timeout=60,
        start_new_session=True,
    )
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return code, plain(done.stdout.decode("utf-8", "surrogateescape"))


def plain(text: str) -> str:
    """Return `text` without Titan's own lines and without the folder a traceback names."""
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith("[titan] ")]
    return "".join('  File "job.py"\n' if line.startswith('  File "') and "job.py" in line else line for line in lines)


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        content = os.fsencode(os.readlink(path)) if path.is_symlink() else b"" if path.is_dir() else path.read_bytes()
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, content)
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_behaves_as_without_titan(
    double: MasterDouble, one_worker: WorkerProcess, tmp_path: Path, name: str
) -> None:
    script = HEAD + SCRIPTS[name] + "\n"
    outs = [tmp_path / "out-without", tmp_path / "out-with"]
    for out in outs:
        out.mkdir()
    fence = double.grant(script, args=(str(outs[1]),), reap=len(name) % 2 == 0)
    without = bare(tmp_path, script, outs[0])
    ended, log = double.end(fence)
    assert (ended.exit_code, plain(log)) == without
    assert files(outs[1]) == files(outs[0])


def test_there_are_enough_of_them() -> None:
    assert len(SCRIPTS) >= 60
