"""A script cannot tell a warm start from a fresh one: what it prints, its exit code and its files are the same."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.warm.scripts import SCRIPTS
from tests.warm.starting import WarmLauncher, all_ways
from tests.worker.launching import ended, read_all
from titan.worker.launcher import frames


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmLauncher]:
    launcher = WarmLauncher(tmp_path_factory.mktemp("launcher"))
    yield launcher
    launcher.close()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_warm_start_is_as_a_fresh_one(launcher: WarmLauncher, tmp_path: Path, name: str) -> None:
    fresh, ahead, at_once = all_ways(launcher, tmp_path, SCRIPTS[name])
    assert ahead == fresh, "made ahead"
    assert at_once == fresh, "made then"


def test_there_are_enough_of_them() -> None:
    assert len(SCRIPTS) >= 80


def test_an_environment_is_whole_however_large_and_one_that_is_too_large_is_told(tmp_path: Path) -> None:
    launcher = WarmLauncher(tmp_path)
    launcher.env["LARGE"] = "x" * 3_000_000
    script = "import os\nprint(len(os.environ['LARGE']), len(open('/proc/self/environ').read()) > 3_000_000)"
    assert read_all(launcher.start(1, script)) == "3000000 True\n"
    assert ended(launcher) == (0, 0)
    launcher.env["LARGE"] = "x" * 5_000_000
    os.close(launcher.start(2, script))
    report = launcher.report()
    launcher.close()
    assert (report.kind, report.a, report.b) == (frames.NOT_STARTED, errno.E2BIG, frames.STAGE_EXEC)
