"""Nothing of a job outlives it, and nothing outlives its worker."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.worker.conftest import StartWorker, WorkerProcess
from tests.worker.double import MasterDouble
from tests.worker.processes import FAMILY, HEAD, IGNORE_TERM, STAY, Death, alive, pids_in
from titan.model.wire import CAUSE_CANCELLED, CAUSE_LOST

FAMILY_NAMES = {"plain", "session", "daemon", "stranger"}
KEEP_UP = IGNORE_TERM + FAMILY + "name = 'main'\n" + STAY


def family_up(master: MasterDouble, fence: int) -> dict[str, int]:
    for name in (*FAMILY_NAMES, "main"):
        master.wait_log(fence, f"{name} ")
    master.wait_log(fence, "main ")
    return master.wait(lambda: _whole(pids_in(bytes(master.logs[fence]).decode())), "five pids")


def _whole(pids: dict[str, int]) -> dict[str, int] | None:
    return pids if len(pids) == len(FAMILY_NAMES) + 1 else None


def test_f29_what_a_job_leaves_behind_is_gone_before_its_end_is_told(
    master: MasterDouble, worker: WorkerProcess
) -> None:
    ended, log = master.run(IGNORE_TERM + FAMILY + "print('main leaves')\n")
    assert (ended.exit_code, ended.signal, ended.cause) == (0, 0, "")
    pids = pids_in(log)
    assert set(pids) == FAMILY_NAMES
    assert alive(pids) == {}
    assert log.endswith("\n[titan] killed 4 processes the job left behind\n")


def test_the_line_of_what_was_left_follows_the_line_of_the_end(master: MasterDouble, worker: WorkerProcess) -> None:
    script = HEAD + "if os.fork() == 0:\n    while True: signal.pause()\nos.abort()\n"
    lines = "[titan] killed by SIGABRT (Aborted)\n[titan] killed 1 process the job left behind\n"
    assert master.run(script)[1] == lines


def test_leftovers_may_end_by_themselves(master: MasterDouble, worker: WorkerProcess) -> None:
    # The child ends only once its parent's end has given it to the launcher, and has its say.
    script = HEAD + (
        "main = os.pidfd_open(os.getpid())\n"
        "if os.fork() == 0:\n"
        "    import select\n"
        "    select.select([main], [], [])\n"
        "    print('the last word', flush=True)\n"
        "    os._exit(0)\n"
        "os._exit(4)\n"
    )
    ended, log = master.run(script)
    assert (ended.exit_code, log) == (4, "the last word\n")


def test_the_neighbours_keep_their_processes(master: MasterDouble, worker: WorkerProcess) -> None:
    fence = master.grant(KEEP_UP)
    neighbours = family_up(master, fence)
    for _ in range(3):
        _, log = master.run(IGNORE_TERM + FAMILY)
        assert alive(pids_in(log)) == {}
    assert alive(neighbours) == neighbours


@pytest.mark.parametrize("always", ["pass", "os.setsid()"])
def test_f29_a_tree_that_forks_while_it_is_killed(master: MasterDouble, worker: WorkerProcess, always: str) -> None:
    # Each of twenty chains is always a new process whose parent is gone, in one session or always in a new one.
    script = IGNORE_TERM + (
        "print('going', flush=True)\n"
        "for _ in range(20):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        while True:\n"
        "            if os.fork():\n"
        "                os._exit(0)\n"
        f"            {always}\n"
        "os._exit(9)\n"
    )
    ended, log = master.run(script, env={"MARK": "of-the-forking-tree"})
    assert ended.exit_code == 9
    assert re.fullmatch(r"going\n\[titan\] killed \d+ processes the job left behind\n", log)
    assert [pid for pid in os.listdir("/proc") if pid.isdigit() and _marked(pid, b"of-the-forking-tree")] == []


def _marked(pid: str, mark: bytes) -> bool:
    try:
        return b"MARK=" + mark in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def test_f31_a_grandchild_that_holds_the_pipe_holds_nobody(
    master: MasterDouble, worker: WorkerProcess, tmp_path: Path
) -> None:
    # The holder is not of the job's tree at all: the test itself takes the job's stdout and keeps it.
    os.mkfifo(tmp_path / "meeting")
    script = "import os, sys\nprint('main', os.getpid(), flush=True)\nopen(sys.argv[1]).read()\nprint('bye')\n"
    fence = master.grant(script, args=(str(tmp_path / "meeting"),))
    pid = pids_in(master.wait_log(fence, "\n"))["main"]
    with open(f"/proc/{pid}/fd/1", "wb") as held:
        os.close(os.open(tmp_path / "meeting", os.O_WRONLY))
        ended, log = master.end(fence)
        assert (ended.exit_code, log.splitlines()[1:]) == (0, ["bye"])
        # Nobody listens any more.
        with pytest.raises(BrokenPipeError):
            os.write(held.fileno(), b"late\n")


def test_f32_a_job_that_closes_its_output_goes_on(master: MasterDouble, worker: WorkerProcess, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "meeting")
    script = (
        "import os, sys\n"
        "print('before')\n"
        "sys.stdout.close(); sys.stderr.close(); os.close(1); os.close(2)\n"
        "open(sys.argv[1]).read()\n"
        "os._exit(6)\n"
    )
    fence = master.grant(script, args=(str(tmp_path / "meeting"),))
    # Opening for writing returns once the job, whose output is closed, reads.
    os.close(os.open(tmp_path / "meeting", os.O_WRONLY))
    ended, log = master.end(fence)
    assert (ended.exit_code, log) == (6, "before\n")


def test_f27_a_killed_worker_leaves_no_process(master: MasterDouble, worker: WorkerProcess) -> None:
    fence = master.grant(KEEP_UP)
    pids = family_up(master, fence)
    deaths = [Death(pid) for pid in (*pids.values(), worker.launcher_pid)]
    worker.process.send_signal(signal.SIGKILL)
    assert all(death.wait() for death in deaths)


def test_the_end_of_the_parent_is_the_end_of_all(master: MasterDouble, worker: WorkerProcess) -> None:
    fence = master.grant(KEEP_UP)
    pids = family_up(master, fence)
    worker.leave_parent()
    assert worker.process.wait(30) == 1
    # The worker left last.
    assert alive(pids) == {}


def test_a_signal_for_the_whole_group_spares_the_one_that_cleans_up(
    master: MasterDouble, start_worker: StartWorker
) -> None:
    worker = start_worker()
    fence = master.grant(KEEP_UP)
    pids = family_up(master, fence)
    assert os.getpgid(worker.launcher_pid) == worker.launcher_pid
    assert os.getsid(worker.launcher_pid) == worker.launcher_pid
    assert os.getpgid(worker.process.pid) == os.getpgid(0)
    deaths = [Death(pid) for pid in pids.values()]
    worker.process.kill()
    assert all(death.wait() for death in deaths)


def test_f52_a_job_that_kills_the_launcher_is_lost_and_nothing_else_is(
    master: MasterDouble, worker: WorkerProcess
) -> None:
    fence = master.grant(KEEP_UP)
    pids = family_up(master, fence)
    killer = master.grant("import os\nos.kill(os.getppid(), 9)\nwhile True:\n    pass\n")
    for lost in (fence, killer):
        ended, _ = master.end(lost)
        assert (ended.exit_code, ended.signal, ended.cause) == (137, 9, CAUSE_LOST)
        assert alive(pids) == {}
    assert master.run("print('goes on')\n")[1] == "goes on\n"
    master.wait_hellos(1)
    assert "the launcher was killed" in worker.close()


def test_cancel_of_a_family_leaves_none(master: MasterDouble, worker: WorkerProcess) -> None:
    fence = master.grant(HEAD + FAMILY + "name = 'main'\n" + STAY)
    pids = family_up(master, fence)
    master.cancel(fence)
    ended, _ = master.end(fence)
    assert (ended.cause, ended.signal) == (CAUSE_CANCELLED, signal.SIGTERM)
    assert alive(pids) == {}
