"""Machines for the pages: one that many share, and two for those that speak of two."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.networks import Networks, why_not
from tests.docs.reader import Machine, Started


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Started]]:
    """A plain `titan up` for all pages that need no other."""
    machine = Machine(tmp_path_factory.mktemp("shared"))
    up = machine.start("titan up --port 0 --slots 2")
    try:
        up.wait_said("Ready in")
        yield machine, up
    finally:
        up.stop()


@pytest.fixture
def two_machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Two network namespaces; where none can be made, two homes on this machine."""
    if why_not():
        yield Machine(tmp_path / "near"), Machine(tmp_path / "far")
        return
    with Networks(9090) as networks:
        yield (
            Machine(tmp_path / "near", networks.inside(networks.near)),
            Machine(tmp_path / "far", networks.inside(networks.far)),
        )
