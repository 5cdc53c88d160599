"""The fork that is made ahead: a job takes it, another is made, and nothing that happens to one is felt by a job."""

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.warm.starting import WarmLauncher
from tests.warm.test_mutants import planted
from tests.worker.double import PATIENCE_S
from tests.worker.launching import ended, read_all
from tests.worker.processes import Death
from titan.worker.launcher import frames

WHO = "import os\nprint(os.getpid(), os.getppid(), os.getsid(0))\n"


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[WarmLauncher]:
    launcher = WarmLauncher(tmp_path)
    yield launcher
    launcher.close()


def files_of(pid: int) -> list[str]:
    return sorted(os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd"))


def test_a_job_takes_it_and_another_one_is_made(launcher: WarmLauncher) -> None:
    pids = []
    for fence in range(1, 4):
        spare = launcher.spare()
        seen = read_all(launcher.start(fence, WHO)).split()
        assert [int(number) for number in seen] == [spare, launcher.process.pid, spare]
        assert ended(launcher) == (0, 0)
        pids.append(spare)
    assert len({*pids, launcher.spare()}) == 4


def test_jobs_that_come_at_once_are_forked_at_once(launcher: WarmLauncher) -> None:
    spare = launcher.spare()
    said = [launcher.start(fence, WHO) for fence in range(8)]
    pids = [int(read_all(reading).split()[0]) for reading in said]
    ends = [launcher.report() for _ in range(16)]
    assert spare in pids
    assert len(set(pids)) == 8
    assert [report.a for report in ends if report.kind == frames.ENDED] == [0] * 8


def test_one_is_made_beside_a_job_that_goes_on(launcher: WarmLauncher) -> None:
    launcher.start(1, "import signal\nsignal.pause()")
    long = launcher.report().a
    first = launcher.spare()
    assert int(read_all(launcher.start(2, WHO)).split()[0]) == first
    assert ended(launcher) == (0, 0)
    spare = launcher.spare()
    assert sorted(launcher.children()) == sorted([long, spare])


def test_it_holds_nothing_of_the_launchers(launcher: WarmLauncher) -> None:
    spare = launcher.spare()
    with Path(f"/proc/{spare}/environ").open("rb") as file:
        assert b"TITAN_" not in file.read()
    own = [file for file in files_of(spare) if file.startswith(("socket:", "pipe:"))]
    # Its end of the line, and of the pipe for failures; stdout and stderr are the launcher's until it is a job.
    outputs = {os.readlink(f"/proc/{launcher.process.pid}/fd/{number}") for number in (1, 2)}
    assert len([file for file in own if file not in outputs]) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGSEGV])
def test_one_that_a_signal_ends_is_no_jobs_loss(launcher: WarmLauncher, number: int) -> None:
    before = launcher.files()
    spare = launcher.spare()
    death = Death(spare)
    os.kill(spare, number)
    if number != signal.SIGCHLD:  # nothing to it
        assert death.wait()
    assert read_all(launcher.start(1, "print('here')")) == "here\n"
    assert ended(launcher) == (0, 0)
    assert launcher.files() == before


def test_one_that_dies_unused_is_not_made_again_before_the_next_job(launcher: WarmLauncher) -> None:
    spare = launcher.spare()
    death = Death(spare)
    os.kill(spare, signal.SIGKILL)
    assert death.wait()
    launcher.order(frames.Ping())
    assert launcher.report().kind == frames.ALIVE
    # Much longer than it would wait to make one.
    assert not select.select([launcher.socket], [], [], 0.1)[0]
    assert launcher.children() == []


@pytest.mark.parametrize("way", ["killed", "told to leave"])
def test_it_ends_with_the_launcher(launcher: WarmLauncher, way: str) -> None:
    death = Death(launcher.spare())
    if way == "killed":
        launcher.process.kill()
    else:
        launcher.socket.close()
    assert death.wait()


def test_it_is_nobodys_leftover(launcher: WarmLauncher) -> None:
    launcher.spare()
    leaves = "import os, signal\nif os.fork() == 0:\n    os.setsid()\n    signal.pause()\n"
    # The first takes the spare, and while its leftover has its grace another is made.
    os.close(launcher.start(1, leaves))
    assert launcher.report().kind == frames.STARTED
    spare = launcher.spare()
    report = launcher.report()
    assert (report.kind, report.a, report.killed) == (frames.ENDED, 0, 1)
    assert launcher.children() == [spare]


def test_one_that_was_stopped_holds_up_a_long_order_for_a_moment_only(tmp_path: Path) -> None:
    launcher = WarmLauncher(tmp_path, source=planted(tmp_path / "source", "spare", "_READ_S = 5.0", "_READ_S = 0.05"))
    launcher.env["LARGE"] = "x" * 1_000_000
    spare = launcher.spare()
    os.kill(spare, signal.SIGSTOP)
    assert read_all(launcher.start(1, "import os\nprint(len(os.environ['LARGE']))")) == "1000000\n"
    report = launcher.report()
    assert (report.kind, report.a != spare) == (frames.STARTED, True)
    assert ended(launcher) == (0, 0)
    launcher.close()


def test_a_shim_is_not_waited_for_at_one_that_was_stopped(launcher: WarmLauncher) -> None:
    os.kill(launcher.spare(), signal.SIGSTOP)
    assert read_all(launcher.start(1, "print('here')", reap=True)) == "here\n"
    assert ended(launcher) == (0, 0)


def test_many_jobs_leave_no_descriptor(launcher: WarmLauncher) -> None:
    before = launcher.files()
    for fence in range(60):
        if fence % 3:
            launcher.spare()
        os.close(launcher.start(fence, "pass", reap=fence % 2 == 0))
        assert ended(launcher) == (0, 0)
    assert launcher.files() == before


def test_a_launcher_that_is_not_warm_makes_none(tmp_path: Path) -> None:
    launcher = WarmLauncher(tmp_path)
    for fence, reap in enumerate((False, True)):
        spare = launcher.spare()
        (tmp_path / "job.py").write_text(WHO)
        code, said = launcher.run(tmp_path, warm=False, reap=reap)
        assert (code, str(spare) in said.split()) == (0, False), fence
        assert launcher.children() == [spare]
    launcher.close()


def test_what_it_is_told_to_become_may_be_impossible(launcher: WarmLauncher) -> None:
    launcher.spare()
    reading, writing = os.pipe()
    launcher.order(frames.Start(1, b"/no/such/folder", [b"python", b"job.py"], [b"A=1"], warm=True), writing)
    os.close(writing)
    report = launcher.report()
    assert (report.kind, report.b) == (frames.NOT_STARTED, frames.STAGE_FOLDER)
    assert select.select([reading], [], [], PATIENCE_S)[0]
    assert os.read(reading, 1) == b""
    os.close(reading)
    assert read_all(launcher.start(2, "print('here')")) == "here\n"
