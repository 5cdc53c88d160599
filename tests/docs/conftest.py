"""Two machines for the pages that speak of two."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.networks import Networks, why_not
from tests.docs.reader import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A home and a folder on this machine."""
    return Machine(tmp_path / "near")


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
