"""A few seeds of the simulator in every run of the tests; many more: ./dev sim."""

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from tests.simulation import faults
from tests.simulation.ground import Ground
from tests.simulation.simulation import Simulation, run_seed
from tests.simulation.sql_store import SqlStore

ROOT = Path(__file__).parent.parent.parent
PRINT_A_STORY = "import sys; from tests.simulation.test_seeds import story_of; print(story_of(int(sys.argv[1])))"


@pytest.mark.parametrize("first", range(1, 201, 50))
def test_the_promises_hold_on_dicts(first: int) -> None:
    outcomes = [run_seed(seed) for seed in range(first, first + 50)]
    assert [(outcome.seed, outcome.broken) for outcome in outcomes if outcome.broken] == []


def test_the_promises_hold_on_the_real_storage() -> None:
    outcomes = [run_seed(seed, level=1) for seed in range(1_000, 1_020)]
    assert [(outcome.seed, outcome.broken) for outcome in outcomes if outcome.broken] == []


def story_of(seed: int, store: SqlStore | None = None) -> str:
    """Return a hash of all that happens in a seed: the story, what came of it, the rows and every draw of chance."""
    story = sha256()

    def tell(at_ms: int, who: str, what: str) -> None:
        story.update(f"{at_ms} {who} {what}\n".encode())

    simulation = Simulation(seed, store, tell)
    outcome = simulation.run()
    story.update(repr((outcome, simulation.world.random.getstate())).encode())
    story.update(repr(simulation.ground.mirror.tables()).encode())
    return story.hexdigest()


@pytest.mark.parametrize("seed", [3, 4])
def test_a_seed_is_the_same_story_each_time(seed: int) -> None:
    assert story_of(seed) == story_of(seed) != story_of(seed + 1)


def test_a_seed_is_the_same_story_on_the_real_storage_each_time() -> None:
    stories = []
    for _ in range(2):
        store = SqlStore()
        try:
            stories.append(story_of(3, store))
        finally:
            store.close()
    assert stories[0] == stories[1]


def test_a_seed_is_the_same_story_whatever_strings_hash_to() -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    stories = [
        subprocess.run(
            [sys.executable, "-c", PRINT_A_STORY, "5"],
            cwd=ROOT, env={**environment, "PYTHONHASHSEED": each}, capture_output=True, text=True, check=True,
        ).stdout.strip()
        for each in ("0", "1")
    ]  # fmt: skip
    assert stories == [story_of(5)] * 2


def test_a_kind_of_fault_is_one_class_and_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hiccup:
        def begin(self, ground: Ground, kind: str) -> None:
            ground.world.plan(10_000, self.strike, ground, kind)

        def strike(self, ground: Ground, kind: str) -> None:
            ground.world.hits[kind] += 1
            for link in list(ground.network.links):
                link.reset()

    monkeypatch.setitem(faults.KINDS, "hiccup", Hiccup())
    outcomes = [run_seed(seed) for seed in range(1, 11)]
    struck = [outcome for outcome in outcomes if outcome.hits.get("hiccup") == 1]
    assert 1 <= len(struck) < len(outcomes)
    assert not any(outcome.broken for outcome in outcomes)
