"""`reap=True`: a shim above the main process reaps strangers, and nothing else about the job is different."""

import os
import signal
from pathlib import Path

import pytest

from tests.worker.conftest import WorkerProcess
from tests.worker.double import MasterDouble
from tests.worker.processes import AWAITS_SIGNAL, FAMILY, HEAD, IGNORE_TERM, STAY, Death, alive, pids_in
from titan.model.wire import CAUSE_CANCELLED, CAUSE_TIMEOUT
from titan.worker.launcher import shim

# A grandchild whose parent is gone, dead before the main process looks.
STRANGER = """
import os, select
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    if os.fork() == 0:
        os.write(writing, b'%d ' % os.getpid())
        os._exit(5)
    os._exit(0)
os.waitpid(child, 0)
os.close(writing)
stranger = int(open(reading).read())
"""
WAIT = """
try:
    pid, status = os.wait()
    print('waited for', 'the stranger' if pid == stranger else pid, os.waitstatus_to_exitcode(status))
except ChildProcessError:
    print('no child of mine')
"""
PARENT = """
def parent_of(pid):
    return int(open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[1])
"""


@pytest.mark.parametrize(("reap", "said"), [(False, "waited for the stranger 5\n"), (True, "no child of mine\n")])
def test_only_without_reap_a_job_waits_for_strangers(
    master: MasterDouble, worker: WorkerProcess, reap: bool, said: str
) -> None:
    ended, log = master.run(STRANGER + WAIT, reap=reap)
    assert (ended.exit_code, log) == (0, said)


def test_strangers_are_reaped_at_once(master: MasterDouble, worker: WorkerProcess) -> None:
    # The end of its pidfd comes before it is reaped; that its number is gone says that it was.
    script = STRANGER + (
        "while True:\n"
        "    try:\n"
        "        os.kill(stranger, 0)\n"
        "    except ProcessLookupError:\n"
        "        print('reaped')\n"
        "        break\n"
    )
    assert master.run(script, reap=True, timeout_s=20.0)[1] == "reaped\n"


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [
        ("raise SystemExit(3)", 3, 0),
        ("raise SystemExit(255)", 255, 0),
        ("import os; os.abort()", 134, 6),
        ("import os; os.kill(os.getpid(), 9)", 137, 9),
        ("import os; os.kill(os.getpid(), 15)", 143, 15),
    ],
)
def test_the_status_passes_through(
    master: MasterDouble, worker: WorkerProcess, script: str, code: int, number: int
) -> None:
    ended, _ = master.run(script, reap=True)
    assert (ended.exit_code, ended.signal, ended.cause) == (code, number, "")


def test_the_job_sees_itself_as_without(master: MasterDouble, worker: WorkerProcess) -> None:
    script = (
        "import os\nme = os.getpid()\n"
        "print(os.environ['TITAN_MAIN_PID'] == str(me), os.getsid(0) == me, os.getpgid(0) == me)\n"
        "print(sorted(os.listdir('/proc/self/fd'))[:3], len(os.listdir(f'/proc/{os.getppid()}/fd')))\n"
    )
    assert master.run(script, reap=True)[1] == "True True True\n['0', '1', '2'] 0\n"


def test_a_file_that_cannot_be_started_says_why(master: MasterDouble, worker: WorkerProcess) -> None:
    ended, log = master.run("#!/no/such/program\n", "job.sh", reap=True)
    assert (ended.exit_code, ended.cause) == (127, "start_failed")
    assert log.startswith("[titan] could not start job.sh")


def test_term_goes_to_the_main_process_and_what_it_answers_counts(master: MasterDouble, worker: WorkerProcess) -> None:
    script = HEAD + (
        "def leave(*_):\n    print('asked to leave', flush=True)\n    os._exit(7)\n"
        "signal.signal(signal.SIGTERM, leave)\nprint('up', flush=True)\n" + AWAITS_SIGNAL
    )
    fence = master.grant(script, reap=True)
    master.wait_log(fence, "up")
    master.cancel(fence)
    ended, log = master.end(fence)
    assert (ended.exit_code, ended.cause) == (7, CAUSE_CANCELLED)
    assert log == "up\nasked to leave\n[titan] killed: cancelled\n"


def _family(master: MasterDouble, **spec: object) -> tuple[int, dict[str, int]]:
    """Start a family that ignores TERM; return its pids and that of its shim once all are up."""
    script = (
        IGNORE_TERM + FAMILY + "print('shim', os.getppid())\nname = 'main'\n" + STAY + "while True: signal.pause()\n"
    )
    fence = master.grant(script, reap=True, **spec)
    for name in ("plain", "session", "daemon", "stranger", "shim", "main"):
        master.wait_log(fence, f"{name} ")
    text = master.wait_log(fence, "main ")
    while not text.endswith("\n") or len(pids_in(text)) < 6:
        text = master.wait_log(fence, "\n")
    return fence, pids_in(text)


def test_orphans_fall_to_the_shim_and_none_is_left_after_it(master: MasterDouble, worker: WorkerProcess) -> None:
    ended, log = master.run(IGNORE_TERM + FAMILY + PARENT + "import re\nprint('shim', os.getppid())\n", reap=True)
    pids = pids_in(log)
    assert len(pids) == 5
    assert alive(pids) == {}
    assert log.endswith("[titan] killed 4 processes the job left behind\n")
    assert ended.exit_code == 0


def test_a_timeout_kills_the_tree(master: MasterDouble, worker: WorkerProcess) -> None:
    fence, pids = _family(master, timeout_s=1.0)
    ended, _ = master.end(fence)
    assert (ended.signal, ended.cause) == (9, CAUSE_TIMEOUT)
    assert alive(pids) == {}


@pytest.mark.parametrize("victim", ["worker", "launcher"])
def test_the_chain_of_deaths_reaches_the_job(master: MasterDouble, worker: WorkerProcess, victim: str) -> None:
    _, pids = _family(master)
    deaths = [Death(pid) for pid in pids.values()]
    os.kill(worker.process.pid if victim == "worker" else worker.launcher_pid, signal.SIGKILL)
    assert all(death.wait() for death in deaths)


def test_a_job_that_kills_its_shim_has_killed_itself_and_nobody_else(
    master: MasterDouble, worker: WorkerProcess
) -> None:
    neighbour, _ = _family(master)
    fence, pids = _family(master)
    os.kill(pids["shim"], signal.SIGTERM)
    assert alive(pids) == pids
    os.kill(pids["shim"], signal.SIGKILL)
    ended, log = master.end(fence)
    assert (ended.exit_code, ended.signal, ended.cause) == (137, 9, "")
    assert alive(pids) == {}
    assert neighbour not in master.ended
    assert "[titan] killed by SIGKILL" in log


def test_many_in_a_row_and_side_by_side(master: MasterDouble, worker: WorkerProcess) -> None:
    for _ in range(8):
        fences = [master.grant("raise SystemExit(4)\n", reap=bool(number % 2)) for number in range(4)]
        assert {master.end(fence)[0].exit_code for fence in fences} == {4}
    children = Path(f"/proc/{worker.launcher_pid}/task/{worker.launcher_pid}/children")
    assert children.read_text() == ""


def test_a_machine_without_processes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> int:
        raise BlockingIOError(11, "no process left")

    told, telling = os.pipe()
    monkeypatch.setattr(shim.os, "fork", full)
    monkeypatch.setattr(shim.os, "_exit", lambda code: (_ for _ in ()).throw(SystemExit(code)))
    with pytest.raises(SystemExit):
        shim.split(telling)
    with pytest.raises(BlockingIOError):
        shim.read_main(told)
    os.close(telling)
    with pytest.raises(BlockingIOError):
        shim.read_main(told)
    os.close(told)
