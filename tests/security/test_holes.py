"""Every planted hole is caught by the test that is named with it, and that test passes without the hole."""

from collections.abc import Callable

import pytest
from websockets.exceptions import WebSocketException

from tests.api import master as api
from tests.api.master import Master
from tests.security.holes import HOLES, Hole
from tests.security.input_holes import INPUT_HOLES

ALL = [*HOLES, *INPUT_HOLES]
FAILURES = (AssertionError, pytest.fail.Exception, OSError, WebSocketException)


@pytest.mark.parametrize("hole", ALL, ids=lambda hole: hole.name)
def test_a_planted_hole_is_caught(
    master: Master, own_master: Callable[..., Master], hole: Hole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "WAIT_S", 1.0)  # what should be cut, and with the hole is not, is waited for no longer
    hole.patch(monkeypatch)
    with pytest.raises(FAILURES):
        hole.caught_by(own_master() if hole.fresh else master)


def test_the_list_names_every_requirement_it_is_about() -> None:
    assert {hole.name.partition(":")[0] for hole in ALL} == {
        "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s12", "s13", "s14", "s16", "s19", "s20", "s25", "s28", "s29",
        "s31", "s32", "s33", "s35", "s36", "s43", "s53", "s54",
    }  # fmt: skip
    assert len({hole.name for hole in ALL}) == len(ALL) >= 70
