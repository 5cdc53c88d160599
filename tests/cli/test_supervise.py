"""The supervisor with real child processes: started together, kept up, stopped in order, never outlived."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from titan.cli import supervise
from titan.cli.exits import Exit
from titan.cli.supervise import DOWN_SIGNAL, Child, Program, Supervisor, clean_environment

# A child writes what happens to it into a file opened for appending; the last arguments are the supervisor's.
CHILD = """
import os, signal, sys
ledger, name, behaviour = sys.argv[1:4]
parent, ready = int(sys.argv[5]), int(sys.argv[7])
def note(text):
    with open(ledger, "a") as file:
        file.write(f"{name} {text}\\n")
def leave(*_):
    note("stopped")
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "stubborn" else leave)
signal.signal(signal.SIGINT, signal.SIG_IGN)
note("started")
times = open(ledger).read().count(f"{name} started")
if behaviour == "refuses":
    sys.exit(6)
if behaviour == "crashes" or (behaviour == "crashes once" and times == 1):
    os.kill(os.getpid(), signal.SIGKILL)
os.write(ready, b"ready\\n")
os.close(ready)
if behaviour == "crashes when ready" and times == 1:
    sys.exit(3)
if behaviour == "crashes when ready":
    os.kill(os.getppid(), signal.SIGTERM)
os.read(parent, 1)
note("orphaned")
"""


class Fleet:
    """A supervisor over fake children, and the ledger they write."""

    def __init__(self, folder: Path) -> None:
        self.ledger = folder / "ledger"
        self.said: list[str] = []
        self.started: list[tuple[int, ...]] = []
        self.ready = 0

    def program(self, name: str, behaviour: str = "", grace_s: float = 30.0) -> Program:
        return Program(name, ("-c", CHILD, str(self.ledger), name, behaviour), grace_s)

    def run(self, master: Program, *workers: Program, when_ready: Callable[[], None]) -> int:
        def on_ready() -> None:
            self.ready += 1
            when_ready()

        return Supervisor(master, workers, on_ready, self.started.append, self.said.append).run()

    def lines(self) -> list[str]:
        return self.ledger.read_text().splitlines()


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


@pytest.fixture
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "BACKOFF_S_MIN", 0.001)


def stop_self() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_all_are_ready_before_it_says_so_and_workers_stop_before_the_master(fleet: Fleet) -> None:
    code = fleet.run(fleet.program("master"), fleet.program("w1"), fleet.program("w2"), when_ready=stop_self)
    assert code == Exit.OK
    assert fleet.ready == 1
    lines = fleet.lines()
    assert sorted(lines[:3]) == ["master started", "w1 started", "w2 started"]
    assert sorted(lines[3:5]) == ["w1 stopped", "w2 stopped"]
    assert lines[5:] == ["master stopped"]


def test_a_master_alone_is_enough(fleet: Fleet) -> None:
    assert fleet.run(fleet.program("master"), when_ready=stop_self) == Exit.OK
    assert fleet.lines() == ["master started", "master stopped"]


def test_a_child_that_ends_is_started_again_and_ready_is_said_once(fleet: Fleet, quick_backoff: None) -> None:
    crashing = fleet.program("w1", "crashes when ready")
    assert fleet.run(fleet.program("master"), crashing, when_ready=lambda: None) == Exit.OK
    assert fleet.lines().count("w1 started") == 2
    assert fleet.ready == 1
    assert [len(pids) for pids in fleet.started] == [1, 2, 2]
    assert fleet.started[1][0] == fleet.started[2][0]
    assert fleet.started[1][1] != fleet.started[2][1]
    assert any(line.startswith("w1 ended with exit code 3; starting it again in") for line in fleet.said)


def test_a_kill_during_the_start_is_survived(fleet: Fleet, quick_backoff: None) -> None:
    assert fleet.run(fleet.program("master", "crashes once"), when_ready=stop_self) == Exit.OK
    assert fleet.lines() == ["master started", "master started", "master stopped"]
    assert fleet.said[0].startswith("master was killed by SIGKILL; starting it again")


def test_a_refused_start_ends_everything_with_6(fleet: Fleet) -> None:
    code = fleet.run(fleet.program("master", "refuses"), fleet.program("w1"), when_ready=lambda: None)
    assert code == Exit.INVALID
    assert fleet.ready == 0
    assert fleet.said == ["master ended with exit code 6 before Titan was ready: stopping"]
    assert fleet.lines().count("master started") == 1


def test_a_child_that_never_gets_up_is_given_up(fleet: Fleet, quick_backoff: None) -> None:
    code = fleet.run(fleet.program("master", "crashes"), when_ready=lambda: None)
    assert code == Exit.INVALID
    assert fleet.lines() == ["master started"] * supervise.START_ENDS_MAX


def test_a_child_that_ignores_term_is_killed_after_its_grace(fleet: Fleet) -> None:
    code = fleet.run(fleet.program("master"), fleet.program("w1", "stubborn", grace_s=0.05), when_ready=stop_self)
    assert code == Exit.OK
    assert fleet.lines()[-1] == "master stopped"
    assert "w1 stopped" not in fleet.lines()


def test_a_second_ctrl_c_kills_at_once(fleet: Fleet) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    stubborn = fleet.program("w1", "stubborn", grace_s=100.0)
    assert fleet.run(fleet.program("master"), stubborn, when_ready=twice) == Exit.OK
    assert "w1 stopped" not in fleet.lines()


@pytest.mark.parametrize(("number", "who"), [(DOWN_SIGNAL, "as titan down asked"), (signal.SIGTERM, "after SIGTERM")])
def test_the_other_terminal_says_who_stopped_it(fleet: Fleet, number: signal.Signals, who: str) -> None:
    def stopped() -> None:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGINT)

    stubborn = fleet.program("w1", "stubborn", grace_s=100.0)
    assert fleet.run(fleet.program("master"), stubborn, when_ready=stopped) == Exit.OK
    assert fleet.said == [f"stopping, {who}; Ctrl+C: without waiting for the jobs"]
    assert "w1 stopped" not in fleet.lines(), "and so it is"


def test_titan_down_reaches_one_that_was_started_with_the_signal_ignored(fleet: Fleet) -> None:
    before = signal.signal(DOWN_SIGNAL, signal.SIG_IGN)
    try:
        down = lambda: os.kill(os.getpid(), DOWN_SIGNAL)  # noqa: E731
        assert fleet.run(fleet.program("master"), when_ready=down) == Exit.OK
    finally:
        signal.signal(DOWN_SIGNAL, before)


def test_signals_and_descriptors_are_put_back(fleet: Fleet) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGCHLD)
    descriptors = len(os.listdir("/proc/self/fd"))
    fleet.run(fleet.program("master"), when_ready=stop_self)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGCHLD)) == before
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_children_of_a_killed_supervisor_leave(tmp_path: Path) -> None:
    """Both hold the other end of this pipe, so its end of file says that both are gone."""
    watching, held = os.pipe()
    code = f"""
import os, sys
from titan.cli.supervise import Program, Supervisor
child = '''
import os, sys
os.write(int(sys.argv[4]), b"ready")
os.close(int(sys.argv[4]))
os.read(int(sys.argv[2]), 1)
'''
program = Program("child", ("-c", child), 10.0)
supervisor = Supervisor(program, [program], lambda: os.write({held}, b"up"), lambda pids: None, print)
import subprocess
popen = subprocess.Popen
subprocess.Popen = lambda *args, **named: popen(*args, **{{**named, "pass_fds": (*named["pass_fds"], {held})}})
supervisor.run()
"""
    process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[held])
    os.close(held)
    assert os.read(watching, 2) == b"up"
    process.kill()
    process.wait()
    assert os.read(watching, 1) == b""
    os.close(watching)


def test_the_backoff_doubles_to_its_limit_and_forgets_after_a_stable_time() -> None:
    child = Child(Program("w", (), 1.0))
    waits = []
    for _ in range(8):
        child.started_s = 100.0
        child.ended(now_s=100.0)
        assert child.due_s is not None
        waits.append(round(child.due_s - 100.0, 3))
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    child.ended(now_s=100.0 + supervise.STABLE_S)
    assert child.due_s == 100.0 + supervise.STABLE_S + supervise.BACKOFF_S_MIN


def test_children_do_not_inherit_what_points_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONSTARTUP", "TITAN_TOKEN", "TITAN_URL", "TITAN_RUN_ID"):
        monkeypatch.setenv(name, "elsewhere")
    for name in ("TITAN_LIMIT_WAITS_MAX", "TITAN_HOME", "LANG"):
        monkeypatch.setenv(name, "kept")
    environment = clean_environment()
    assert "elsewhere" not in environment.values()
    assert [environment[name] for name in ("TITAN_LIMIT_WAITS_MAX", "TITAN_HOME", "LANG")] == ["kept"] * 3
