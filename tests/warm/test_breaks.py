"""What breaks beside a warm job, or cannot be forked, harms no other job and leaves the server as it was."""

import errno
import os
import platform
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.warm.starting import WarmLauncher
from tests.worker.conftest import StartWorker
from tests.worker.double import MasterDouble
from tests.worker.launching import ended
from titan.model.wire import CAUSE_LOST
from titan.worker.launcher import frames
from titan.worker.warmth import WARM

WAITS = "print('up', flush=True)\nopen({!r}).read()\nprint('went on')\n"
DEATHS = {
    "reads where nothing is": ("import ctypes\nctypes.string_at(0)", signal.SIGSEGV),
    "aborts": ("import os\nos.abort()", signal.SIGABRT),
    "is killed": ("import os\nos.kill(os.getpid(), 9)", signal.SIGKILL),
    "kills its group": ("import os\nos.killpg(0, 9)", signal.SIGKILL),
    "runs out of memory": (
        "import resource as r\nr.setrlimit(r.RLIMIT_AS, (1 << 29, 1 << 29))\nb'x' * (1 << 30)",
        None,
    ),
    "leaves without a word": ("import os\nos._exit(3)", None),
}
# Refuses forks, as a machine does that has no room, while the file says where: in the server, or in a shim below it.
REFUSING = """
import errno, os, pathlib
real, server, order = os.fork, os.getpid(), pathlib.Path({!r})
def fork():
    if order.exists():
        where, code = order.read_text().split()
        if (where == "server") is (os.getpid() == server):
            raise OSError(getattr(errno, code), "no room")
    return real()
os.fork = fork
"""
# The same by the kernel, once for all: a filter of system calls that knows `clone` and its two kin.
FILTERING = """
import ctypes, errno, os, pathlib, struct
order, libc = pathlib.Path({!r}), ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
def refuse():
    if order.exists():
        code = getattr(errno, order.read_text().split()[1])
        order.unlink()
        steps = [(0x20, 0, 0, 0)] + [(0x15, 2 - at, int(at == 2), n) for at, n in enumerate({!r})]
        steps += [(0x06, 0, 0, 0x50000 | code), (0x06, 0, 0, 0x7FFF0000)]
        program = Program(len(steps), b"".join(struct.pack("HBBI", *step) for step in steps))
        assert libc.prctl(38, 1, 0, 0, 0) == 0
        assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0
os.register_at_fork(before=refuse)
"""
CLONES = {"x86_64": (56, 57, 435), "aarch64": (220, 1079, 435)}
# A worker that gives its launcher some seconds to answer, not a minute.
IMPATIENT = """
import runpy
from titan.worker import attempts, process
attempts.UNANSWERED_MAX, process.TEND_EVERY_S = 40, 0.1
runpy.run_module("titan.worker", run_name="__main__")
"""

Refuse = Callable[[str, str], WarmLauncher]


class Neighbour:
    """A job that waits, and goes on when it is told to."""

    def __init__(self, launcher: WarmLauncher, folder: Path, fence: int) -> None:
        self._launcher = launcher
        self._gate = folder / "gate"
        os.mkfifo(self._gate)
        self._said = open(launcher.start(fence, WAITS.format(str(self._gate))), encoding="utf-8")  # noqa: SIM115
        assert launcher.report().kind == frames.STARTED
        assert self._said.readline() == "up\n"

    def goes_on(self) -> bool:
        """Let it, and say whether it ended as if nothing had been."""
        os.close(os.open(self._gate, os.O_WRONLY))
        with self._said:
            return ended(self._launcher)[0] == 0 and self._said.read() == "went on\n"


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmLauncher]:
    launcher = WarmLauncher(tmp_path_factory.mktemp("launcher"))
    yield launcher
    launcher.close()


def test_how_one_dies_is_told_and_nobody_else_is_harmed(launcher: WarmLauncher, tmp_path: Path) -> None:
    neighbour = Neighbour(launcher, tmp_path, 1)
    before = launcher.files()
    for fence, (script, number) in enumerate(DEATHS.values(), 2):
        os.close(launcher.start(fence, script))
        status, _ = ended(launcher)
        assert (os.WTERMSIG(status) if os.WIFSIGNALED(status) else None) == number, script
        assert status != 0
    assert launcher.files() == before
    assert neighbour.goes_on()
    launcher.order(frames.Ping())
    assert launcher.report().kind == frames.ALIVE


@pytest.mark.parametrize("code", ["EAGAIN", "ENOMEM"])
@pytest.mark.parametrize("where", ["server", "shim"])
def test_f40_a_fork_that_fails_is_told_and_the_next_is_made(tmp_path: Path, where: str, code: str) -> None:
    order = tmp_path / "order"
    launcher = WarmLauncher(tmp_path, ("refusing",), modules={"refusing": REFUSING.format(str(order))})
    neighbour = Neighbour(launcher, tmp_path, 1)
    before = launcher.files()
    order.write_text(f"{where} {code}")
    # There is a fork still that was made before, for one that needs no shim.
    os.close(launcher.start(5, "pass"))
    assert ended(launcher) == (0, 0)
    for fence in (2, 3):
        os.close(launcher.start(fence, "pass", reap=where == "shim"))
        report = launcher.report()
        assert (report.kind, report.fence, report.b) == (frames.NOT_STARTED, fence, frames.STAGE_FORK)
        assert report.a == getattr(errno, code)
    order.unlink()
    os.close(launcher.start(4, "pass", reap=where == "shim"))
    assert ended(launcher) == (0, 0)
    assert launcher.files() == before
    assert neighbour.goes_on()
    launcher.close()


@pytest.mark.skipif(platform.machine() not in CLONES, reason="the numbers of its system calls are not known here")
@pytest.mark.parametrize("code", ["EAGAIN", "ENOMEM"])
def test_f40_a_kernel_that_forks_no_more_ends_no_job_and_no_server(tmp_path: Path, code: str) -> None:
    order = tmp_path / "order"
    text = FILTERING.format(str(order), CLONES[platform.machine()])
    launcher = WarmLauncher(tmp_path, ("filtering",), modules={"filtering": text})
    neighbour = Neighbour(launcher, tmp_path, 1)
    launcher.spare()
    order.write_text(f"server {code}")
    os.close(launcher.start(4, "pass"))  # by the fork that was made before
    assert ended(launcher) == (0, 0)
    for fence, reap in ((2, False), (3, True)):
        os.close(launcher.start(fence, "pass", reap=reap))
        report = launcher.report()
        assert (report.kind, report.a, report.b) == (frames.NOT_STARTED, getattr(errno, code), frames.STAGE_FORK)
    assert neighbour.goes_on()
    launcher.close()


def test_a_server_that_was_stopped_is_replaced_and_its_jobs_are_lost(
    master: MasterDouble, start_worker: StartWorker
) -> None:
    worker = start_worker(program=("-c", IMPATIENT))
    fence = master.grant("import signal\nprint('up')\nsignal.pause()\n")
    master.wait_log(fence, "up\n")
    assert master.started[fence].start == WARM
    os.kill(worker.launcher_pid, signal.SIGSTOP)
    lost, log = master.end(fence)
    assert (lost.exit_code, lost.signal, lost.cause, log) == (137, 9, CAUSE_LOST, "up\n")
    after = master.grant("print('goes on')\n")
    assert master.end(after)[1] == "goes on\n"
    assert master.started[after].start == WARM
    assert master.returned == {}
    said = worker.close()
    assert said.index("the launcher does not answer") < said.index("the launcher was killed, and its jobs with it")
