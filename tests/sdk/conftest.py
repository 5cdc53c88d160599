"""A home of its own for each test, and a client whose time the test controls."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.double import FakeClock
from titan_sdk import TitanClient

Connect = Callable[..., TitanClient]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and an empty working folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "cwd").mkdir()
    monkeypatch.setenv("TITAN_HOME", str(folder))
    monkeypatch.chdir(tmp_path / "cwd")
    return folder


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients with a fake clock, and closes them."""
    made: list[TitanClient] = []

    def make(**arguments: Any) -> TitanClient:
        client = TitanClient(**arguments)
        client._transport.clock = FakeClock()
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


def pauses_of(client: TitanClient) -> list[float]:
    clock = client._transport.clock
    assert isinstance(clock, FakeClock)
    return clock.pauses
