"""Hostile trees that grow from a warm start end as any other: none of their processes outlives the told end."""

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.warm.starting import WarmLauncher
from tests.worker.double import PATIENCE_S
from tests.worker.test_hostile_trees import NAMES, Tree, wait_end
from titan.worker.launcher import frames
from titan.worker.launcher.frames import Stop


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[WarmLauncher]:
    launcher = WarmLauncher(tmp_path)
    yield launcher
    launcher.close()


def test_f29_none_of_the_trees_lives_when_its_end_is_told(launcher: WarmLauncher, tmp_path: Path) -> None:
    # Twelve at once of each shape in turn: ended by itself, cancelled, and with a shim above it.
    left = []
    for first in range(0, 36, 12):
        trees = {}
        for fence in range(first, first + 12):
            folder = tmp_path / str(fence)
            folder.mkdir()
            before = "signal.signal(signal.SIGUSR1, lambda *_: os._exit(3))"
            trees[fence] = Tree(folder, NAMES[fence % len(NAMES)], before=before)
            launcher.start(fence, trees[fence].script, reap=fence % 3 == 2)
        for tree in trees.values():
            tree.wait_up()
        mains = {}
        while len(mains) < len(trees):
            report = launcher.report()
            mains[report.fence] = report.a
        for fence in trees:
            if fence % 2:
                launcher.order(Stop(fence, frames.CAUSE_CANCELLED, 0))
            else:
                os.kill(mains[fence], signal.SIGUSR1)
        for _ in trees:
            fence = wait_end(launcher).fence
            left += [] if trees[fence].gone() else [fence]
            trees[fence].close()
    assert left == []


def test_f27_none_lives_when_the_worker_is_gone(launcher: WarmLauncher, tmp_path: Path) -> None:
    trees = [Tree(tmp_path, name) for name in NAMES]
    for fence, tree in enumerate(trees):
        launcher.start(fence, tree.script, reap=bool(fence % 2))
    for tree in trees:
        tree.wait_up()
    launcher.socket.close()
    assert launcher.process.wait(PATIENCE_S) == 0
    assert [tree.name for tree in trees if not tree.gone()] == []
    for tree in trees:
        tree.close()


def test_the_main_process_dies_with_the_server(launcher: WarmLauncher) -> None:
    launcher.start(1, "import signal\nsignal.pause()")
    watch = os.pidfd_open(launcher.report().a)
    launcher.process.kill()
    assert select.select([watch], [], [], PATIENCE_S)[0]
    os.close(watch)
