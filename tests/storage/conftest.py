"""Every test of the storage runs on every backend."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.backend import BACKENDS, Storage


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def storage(backend: str, tmp_path: Path) -> Iterator[Storage]:
    opened = Storage(tmp_path / "home")
    yield opened
    opened.close()
