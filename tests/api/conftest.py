"""One Master for the tests of a module; tests that stop it, fill it or need other limits make their own."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.api.master import ROOMY, Master


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    with Master(tmp_path_factory.mktemp("home")) as running:
        running.script()
        yield running


@pytest.fixture
def own_master(tmp_path: Path) -> Iterator[Callable[..., Master]]:
    """Return a function that starts a Master with the given limits changed."""
    with ExitStack() as running:

        def start(**changed: float) -> Master:
            limits = dataclasses.replace(ROOMY, **changed)  # type: ignore[arg-type]
            made = running.enter_context(Master(tmp_path / "home", limits))
            made.script()
            return made

        yield start
