"""A short campaign of each kind with a fixed seed; `./dev fuzz` runs as long as it is told, from any."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.documents import DocumentFuzzer
from tests.fuzz.frames import FrameFuzzer
from tests.fuzz.hostile import WorkerTarget
from tests.fuzz.master_frames import MasterFrameFuzzer
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


def test_s47_whatever_a_master_says_its_worker_lives_answers_and_touches_nothing_else(tmp_path: Path) -> None:
    with WorkerTarget(tmp_path) as target:
        before = target.rss_bytes()
        found = MasterFrameFuzzer(target, SEED, Stop(cases=60)).run()
        assert found.findings == []
        assert set(found.answers) == {"a new link", "the link lasts"}
        assert target.rss_bytes() - before < GROWTH_BYTES_MAX
