"""A job that acts between any two steps of its worker changes nothing outside its folder."""

from pathlib import Path

from tests.worker.races import RACES, race


def test_s48_ten_thousand_races_touch_nothing_outside(tmp_path: Path) -> None:
    rounds, changes = race(tmp_path, RACES)
    assert changes == []
    assert rounds > 100
