"""A script cannot tell a warm start from a fresh one: what it prints, its exit code and its files are the same."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.warm.scripts import SCRIPTS
from tests.warm.starting import WarmLauncher
from tests.worker.test_as_without import files, plain


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmLauncher]:
    launcher = WarmLauncher(tmp_path_factory.mktemp("launcher"))
    yield launcher
    launcher.close()


def both_ways(launcher: WarmLauncher, folder: Path, script: str) -> list[tuple[int, str, object, object]]:
    """Return exit code, output, files made and files left in the working folder, of a fresh start and of a warm one."""
    seen = []
    for warm in (False, True):
        place = folder / "place"
        place.mkdir()
        out = folder / "out"
        out.mkdir()
        (place / "job.py").write_text(script)
        code, said = launcher.run(place, str(out), warm=warm)
        left = sorted(path.name for path in place.rglob("*"))
        seen.append((code, re.sub("0x[0-9a-f]+", "0x", plain(said)), files(out), left))
        place.rename(folder / f"place-{warm}")
        out.rename(folder / f"out-{warm}")
    return seen


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_warm_start_is_as_a_fresh_one(launcher: WarmLauncher, tmp_path: Path, name: str) -> None:
    fresh, warm = both_ways(launcher, tmp_path, SCRIPTS[name])
    assert warm == fresh


def test_there_are_enough_of_them() -> None:
    assert len(SCRIPTS) >= 80
