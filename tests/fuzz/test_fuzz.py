"""A short campaign of each kind with a fixed seed; `./dev fuzz` runs as long as it is told, from any."""

from collections.abc import Iterator

import pytest

from tests.fuzz.documents import DocumentFuzzer
from tests.fuzz.frames import FrameFuzzer
from tests.fuzz.raw import RawFuzzer
from tests.fuzz.target import GROWTH_BYTES_MAX, Fuzzer, Stop, Target

SEED = 1


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with Target(tmp_path_factory.mktemp("fuzz")) as running:
        yield running


@pytest.mark.parametrize(
    ("kind", "cases"),
    [(DocumentFuzzer, 250), (FrameFuzzer, 1_200), (RawFuzzer, 5_000)],
    ids=["documents", "frames", "raw"],
)
def test_no_input_hurts_the_master(target: Target, kind: type[Fuzzer], cases: int) -> None:
    before = target.rss_bytes()
    found = kind(target, SEED, Stop(cases=cases)).run()
    assert found.findings == []
    assert found.cases >= cases
    assert target.rss_bytes() - before < GROWTH_BYTES_MAX
