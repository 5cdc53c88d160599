"""Every hole planted in a worker, or around it and the Master, is caught by the test that is named with it."""

from pathlib import Path

import pytest

from tests.security import home_holes
from tests.security.worker_holes import HOLES, WorkerHole
from tests.worker import bench

# A file that should have stayed and did not is a failure too.
FAILURES = (AssertionError, pytest.fail.Exception, TimeoutError, FileNotFoundError)


@pytest.mark.parametrize("hole", [*HOLES, *home_holes.HOLES], ids=lambda hole: hole.name)
def test_a_planted_hole_is_caught(hole: WorkerHole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What should end, and with the hole does not, is waited for no longer.
    monkeypatch.setattr(bench, "WAIT_S", 1.0)
    hole.patch(monkeypatch)
    with pytest.raises(FAILURES):
        hole.caught_by(tmp_path)
