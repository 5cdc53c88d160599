"""Trees that do everything to survive, each ended in every way a job can end; afterwards none of them lives.

Every process of a tree, descendants included, holds the write end of one FIFO, whatever else it closes,
clears or leaves. So end of file at its reading end is the proof that none is left, and no pid is looked at
that could be somebody else's. A process that is up writes one dot, and the tree is ended when all are up.
"""

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.conftest import StartWorker
from tests.worker.double import PATIENCE_S, MasterDouble
from tests.worker.launching import Launcher
from titan.model.wire import CAUSE_CANCELLED, CAUSE_LOST
from titan.worker.launcher import frames
from titan.worker.launcher.frames import Stop

PRELUDE = """
import os, signal, subprocess, sys, threading, time
MARK = 9
opened = os.open({mark!r}, os.O_WRONLY)
if opened != MARK:
    os.dup2(opened, MARK)
    os.close(opened)
os.set_inheritable(MARK, True)

def up():
    os.write(MARK, b'.')

def stay():
    up()
    while True:
        time.sleep(0.1)  # pause() would miss a signal that comes just before it

def child(*steps):
    if os.fork() == 0:
        for step in steps:
            step()
        stay()

def daemon():
    os.setsid()
    if os.fork():
        os._exit(0)

def deaf():
    for number in set(range(1, 65)) - {{signal.SIGCHLD}}:
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass

def chain():
    # Always another process whose parent is gone; the dot is of the first.
    up()
    while True:
        if os.fork():
            os._exit(0)

def roaming_chain():
    up()
    while True:
        if os.fork():
            os._exit(0)
        os.setsid()

def quick_children():
    up()
    while True:
        if os.fork() == 0:
            os._exit(0)
        os.waitpid(-1, os.WNOHANG)

def zombies():
    for _ in range(500):
        if os.fork() == 0:
            os._exit(0)

def on_term(*_):
    for _ in range(3):
        if os.fork() == 0:
            deaf()
            while True:
                signal.pause()

def forks_on_term():
    signal.signal(signal.SIGTERM, on_term)

def close_all():
    os.closerange(0, MARK)
    os.closerange(MARK + 1, 256)

def stop_myself():
    up()
    os.kill(os.getpid(), signal.SIGSTOP)

def without_environment():
    os.execve('/bin/sh', ['sh', '-c', 'trap "" TERM HUP; printf . >&9; while :; do sleep 1000; done'], {{}})

def run(*words, **options):
    subprocess.Popen(words, pass_fds=[MARK], **options)

def threads():
    def fork():
        child(deaf)
    for _ in range(4):
        threading.Thread(target=fork).start()

def keep_orphans():
    import ctypes
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    child(daemon)
"""
SHELL = "printf . >&9; exec sleep 1000"

# What the main process does, and how many dots there are once it has done it.
TREES = {
    "a child": ("child()", 1),
    "sessions": ("child(os.setsid); child(os.setsid, deaf)", 2),
    "daemons": ("child(daemon); child(daemon, daemon, deaf)", 2),
    "deaf": ("child(deaf); child(deaf, lambda: child(deaf))", 3),
    "forks on TERM": ("child(forks_on_term); child(os.setsid, forks_on_term)", 2),
    "chains": ("[child(deaf, chain) for _ in range(2)]", 2),
    "roaming chains": ("[child(deaf, roaming_chain) for _ in range(2)]", 2),
    "quick children": ("[child(deaf, quick_children) for _ in range(3)]", 3),
    "zombies": ("child(zombies); child(daemon, zombies)", 2),
    "closed descriptors": ("child(close_all); child(daemon, close_all, deaf)", 2),
    "stopped": ("child(stop_myself); child(daemon, stop_myself)", 2),
    "other groups": ("child(lambda: os.setpgid(0, 0)); child(deaf, lambda: os.setpgid(0, 0))", 2),
    "no environment": ("child(without_environment); child(daemon, without_environment)", 2),
    "nohup": ("run('nohup', 'sh', '-c', {shell!r}); run('setsid', 'sh', '-c', {shell!r})", 2),
    "vfork": ("run('sh', '-c', {shell!r}); run('sh', '-c', {shell!r}, start_new_session=True)", 2),
    "shell jobs": ("run('sh', '-mc', '(sleep 1000 & sleep 1000 & ' + {shell!r} + ') & ' + {shell!r})", 2),
    "threads": ("child(threads)", 5),
    "subreapers": ("child(os.setsid, keep_orphans); child(daemon, keep_orphans, deaf)", 4),
}
NAMES = sorted(TREES)


class Tree:
    """A FIFO, the script that makes a tree which holds it, and a look at who still does."""

    def __init__(self, folder: Path, name: str, before: str = "", after: str = "stay()") -> None:
        self.name = name
        path = folder / f"mark-{name.replace(' ', '-')}"
        os.mkfifo(path)
        self._reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        made, self._dots = TREES[name]
        prelude = PRELUDE.format(mark=str(path))
        shape = made.format_map({"shell": SHELL})
        self.script = f"{prelude}\n{before}\n{shape}\n{after}\n"
        self._dots += after == "stay()"

    def wait_up(self) -> None:
        """Wait until all its processes have been there."""
        seen = 0
        while seen < self._dots:
            assert select.select([self._reading], [], [], PATIENCE_S)[0], f"{self.name}: {seen} of {self._dots} came up"
            seen += len(os.read(self._reading, 4096))

    def gone(self, patience_s: float = 0.0) -> bool:
        """Say whether none of its processes lives, `patience_s` from now at the latest."""
        while select.select([self._reading], [], [], patience_s)[0]:
            if not os.read(self._reading, 4096):
                return True
        return False

    def close(self) -> None:
        os.close(self._reading)


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    launcher = Launcher()
    yield launcher
    launcher.close()


def wait_end(launcher: Launcher) -> frames.Report:
    while (report := launcher.report()).kind == frames.STARTED:
        pass
    assert report.kind == frames.ENDED
    return report


@pytest.mark.parametrize("reap", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_f29_none_lives_when_the_main_process_ends(launcher: Launcher, tmp_path: Path, name: str, reap: bool) -> None:
    tree = Tree(tmp_path, name, before="signal.signal(signal.SIGUSR1, lambda *_: os._exit(3))")
    launcher.start(1, tree.script, reap=reap)
    main = launcher.report().a
    tree.wait_up()
    os.kill(main, signal.SIGUSR1)
    end = wait_end(launcher)
    assert tree.gone()
    assert (os.waitstatus_to_exitcode(end.a), end.b) == (3, frames.CAUSE_NONE)
    assert end.killed > 0
    tree.close()


@pytest.mark.parametrize("name", NAMES)
def test_f29_none_lives_after_a_cancel(launcher: Launcher, tmp_path: Path, name: str) -> None:
    tree = Tree(tmp_path, name, before="signal.signal(signal.SIGTERM, lambda *_: None)")
    launcher.start(1, tree.script, reap=NAMES.index(name) % 2 == 1)
    tree.wait_up()
    launcher.order(Stop(1, frames.CAUSE_CANCELLED, 50))
    end = wait_end(launcher)
    assert tree.gone()
    assert (os.waitstatus_to_exitcode(end.a), end.b) == (-9, frames.CAUSE_CANCELLED)
    tree.close()


def test_i25_none_lives_after_a_timeout(launcher: Launcher, tmp_path: Path) -> None:
    trees = [Tree(tmp_path, name) for name in NAMES]
    for fence, tree in enumerate(trees):
        launcher.start(fence, tree.script, timeout_ms=5_000)
    ends = {}
    while len(ends) < len(trees):
        report = launcher.report()
        if report.kind == frames.ENDED:
            assert trees[report.fence].gone(), trees[report.fence].name
            ends[report.fence] = report.b
    assert set(ends.values()) == {frames.CAUSE_TIMEOUT}
    for tree in trees:
        tree.close()


def test_f27_none_lives_when_the_worker_is_gone(launcher: Launcher, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("victim", ["worker", "launcher"])
def test_f27_none_lives_after_a_kill_of(
    master: MasterDouble, start_worker: StartWorker, tmp_path: Path, victim: str
) -> None:
    worker = start_worker("--slots", str(len(NAMES)))
    trees = [Tree(tmp_path, name) for name in NAMES]
    fences = [master.grant(tree.script, reap=bool(number % 2)) for number, tree in enumerate(trees)]
    for tree in trees:
        tree.wait_up()
    os.kill(worker.process.pid if victim == "worker" else worker.launcher_pid, signal.SIGKILL)
    assert [tree.name for tree in trees if not tree.gone(PATIENCE_S)] == []
    if victim == "launcher":
        assert {master.end(fence)[0].cause for fence in fences} == {CAUSE_LOST}
        assert master.run("print('goes on')\n")[1] == "goes on\n"
    for tree in trees:
        tree.close()


def test_a_cancel_through_the_worker_leaves_none(
    master: MasterDouble, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker("--slots", str(len(NAMES)))
    trees = {master.grant((tree := Tree(tmp_path, name)).script): tree for name in NAMES}
    for tree in trees.values():
        tree.wait_up()
    for fence in trees:
        master.cancel(fence)
    for fence, tree in trees.items():
        ended, _ = master.end(fence)
        assert tree.gone(), tree.name
        assert ended.cause == CAUSE_CANCELLED
        tree.close()


def test_f29_a_hundred_of_a_hundred_chains_that_fork_while_they_are_killed(launcher: Launcher, tmp_path: Path) -> None:
    # Four at once: whose a dead link of a chain was cannot be told from its neighbours', and yet no end comes early.
    left = []
    for first in range(0, 100, 4):
        trees = {}
        for fence in range(first, first + 4):
            folder = tmp_path / str(fence)
            folder.mkdir()
            trees[fence] = Tree(folder, "chains" if fence % 4 == 0 else "roaming chains")
            launcher.start(fence, trees[fence].script, reap=fence % 4 == 1)
        for tree in trees.values():
            tree.wait_up()
        for fence in trees:
            launcher.order(Stop(fence, frames.CAUSE_CANCELLED, 0))
        for _ in trees:
            fence = wait_end(launcher).fence
            left += [] if trees[fence].gone() else [fence]
            trees[fence].close()
    assert left == []
