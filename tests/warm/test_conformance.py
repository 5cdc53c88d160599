"""A script cannot tell a warm start from a fresh one: what it prints, its exit code and its files are the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.warm.scripts import SCRIPTS
from tests.warm.starting import WarmLauncher, both_ways


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmLauncher]:
    launcher = WarmLauncher(tmp_path_factory.mktemp("launcher"))
    yield launcher
    launcher.close()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_warm_start_is_as_a_fresh_one(launcher: WarmLauncher, tmp_path: Path, name: str) -> None:
    fresh, warm = both_ways(launcher, tmp_path, SCRIPTS[name])
    assert warm == fresh


def test_there_are_enough_of_them() -> None:
    assert len(SCRIPTS) >= 80
