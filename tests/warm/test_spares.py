"""The fork that is made ahead: a job takes it, another is made, and nothing that happens to one is felt by a job."""

import os
import resource
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.warm.starting import WarmLauncher
from tests.warm.test_mutants import planted
from tests.worker.double import PATIENCE_S
from tests.worker.launching import SOURCE, ended, read_all
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


@pytest.mark.parametrize("length", [10, 1_000_000])
def test_one_that_was_stopped_goes_on(launcher: WarmLauncher, length: int) -> None:
    launcher.env["LARGE"] = "x" * length
    spare = launcher.spare()
    os.kill(spare, signal.SIGSTOP)
    assert read_all(launcher.start(1, "import os\nprint(len(os.environ['LARGE']))", timeout_ms=20_000)) == f"{length}\n"
    assert launcher.report().a == spare
    assert ended(launcher) == (0, 0)


def test_one_that_does_not_read_its_long_order_is_given_up(tmp_path: Path) -> None:
    source = planted(tmp_path / "source", "spare", "_READ_S = 5.0", "_READ_S = 0.05")
    path = Path(source) / "titan" / "worker" / "launcher" / "spare.py"
    path.write_text(path.read_text().replace("_signal.SIGCONT", "0"))
    launcher = WarmLauncher(tmp_path, source=source)
    launcher.env["LARGE"] = "x" * 1_000_000
    spare = launcher.spare()
    os.kill(spare, signal.SIGSTOP)
    assert read_all(launcher.start(1, "import os\nprint(len(os.environ['LARGE']))")) == "1000000\n"
    report = launcher.report()
    assert (report.kind, report.a != spare) == (frames.STARTED, True)
    assert ended(launcher) == (0, 0)
    launcher.close()


# What a program that the job executes has for its environment is what the job has.
SAME_BELOW = """
import os, subprocess
said = subprocess.run(["/usr/bin/env", "-0"], capture_output=True, check=True).stdout
print(sorted(said.rstrip(b"\\0").split(b"\\0")) == sorted(b"%s=%s" % pair for pair in os.environb.items()))
"""


@pytest.mark.parametrize("fault", [False, True])
@pytest.mark.parametrize("way", ["less than the launcher's", "less than what an import set"])
def test_a_small_environment_ends_where_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, fault: bool
) -> None:
    source = planted(tmp_path / "source", "place", "self._pointers[row] = 0", "pass") if fault else SOURCE
    setter = {"setter": "import os\nfor number in range(40):\n    os.environ[f'SET_{number}'] = 'x' * 20\n"}
    if way == "less than the launcher's":
        monkeypatch.setenv("PATH", os.environ["PATH"] + ":/no/such/folder" * 400)
        setter = {}
    launcher = WarmLauncher(tmp_path, tuple(setter), source, setter)
    launcher.env["PATH"] = "/usr/bin:/bin"
    (tmp_path / "job.py").write_text(SAME_BELOW)
    seen = launcher.run(tmp_path, ahead=True)
    launcher.close()
    assert (seen == (0, "True\n")) is not fault


@pytest.mark.parametrize("reap", [False, True])
def test_a_table_that_is_full_in_the_fork_makes_no_second_launcher(launcher: WarmLauncher, reap: bool) -> None:
    pid = launcher.process.pid
    launcher.files()
    os.close(launcher.start(100, "pass"))  # takes the spare
    assert ended(launcher) == (0, 0)
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    full = 0
    for number in range(3, 40):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (number, hard))
        os.close(launcher.start(number, "pass", reap=reap))
        report = launcher.report()
        if report.kind == frames.NOT_STARTED:
            full += 1
        else:
            assert report.kind == frames.STARTED
            report = launcher.report()
        assert report.fence == number
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert full > 0
    for number in range(50, 58):
        assert read_all(launcher.start(number, "print('here')", reap=reap)) == "here\n"
        assert ended(launcher) == (0, 0)
    spare = launcher.spare()
    assert launcher.children() == [spare]


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


def test_an_executed_job_does_not_take_it(tmp_path: Path) -> None:
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
