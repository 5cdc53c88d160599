"""A few seeds of the simulator in every run of the tests; many more: ./dev sim."""

import pytest

from tests.simulation.simulation import run_seed


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_the_promises_hold_on_dicts(first: int) -> None:
    outcomes = [run_seed(seed) for seed in range(first, first + 25)]
    assert [(outcome.seed, outcome.broken) for outcome in outcomes if outcome.broken] == []


def test_the_promises_hold_on_the_real_storage() -> None:
    outcomes = [run_seed(seed, level=1) for seed in range(1_000, 1_020)]
    assert [(outcome.seed, outcome.broken) for outcome in outcomes if outcome.broken] == []
