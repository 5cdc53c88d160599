"""How a job can end, and what its log then says."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.conftest import WorkerProcess
from tests.worker.double import MasterDouble
from tests.worker.processes import AWAITS_SIGNAL, FAMILY, HEAD, IGNORE_TERM, STAY, Death, alive, pids_in
from titan.model.wire import CAUSE_CANCELLED, CAUSE_OUT_OF_MEMORY, CAUSE_TIMEOUT, CAUSE_WORKER_STOP

SEGFAULT = "import ctypes\nprint('about to')\nctypes.string_at(0)\n"


@pytest.mark.parametrize("code", [0, 1, 2, 42, 126, 127, 255])
def test_exit_codes_pass_through(master: MasterDouble, worker: WorkerProcess, code: int) -> None:
    ended, log = master.run(f"raise SystemExit({code})\n")
    assert (ended.exit_code, ended.signal, ended.cause, log) == (code, 0, "", "")


def test_a_real_segfault_is_named(master: MasterDouble, worker: WorkerProcess) -> None:
    ended, log = master.run(SEGFAULT)
    assert (ended.exit_code, ended.signal, ended.cause) == (139, 11, "")
    assert log == "about to\n[titan] killed by SIGSEGV (Segfault)\n"


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (signal.SIGABRT, "killed by SIGABRT (Aborted)"),
        (signal.SIGTERM, "killed by SIGTERM (Terminated)"),
        (signal.SIGPIPE, "killed by SIGPIPE (Broken pipe)"),
        (signal.SIGRTMIN + 3, f"killed by signal {signal.SIGRTMIN + 3} (Real-time signal 3)"),
    ],
)
def test_other_signals_are_named(master: MasterDouble, worker: WorkerProcess, number: int, line: str) -> None:
    script = f"import os, signal\nsignal.signal({number:d}, signal.SIG_DFL)\nos.kill(os.getpid(), {number:d})\n"
    ended, log = master.run(script)
    assert (ended.exit_code, ended.signal) == (128 + number, number)
    assert log == f"[titan] {line}\n"


def test_a_line_of_ours_begins_a_line(master: MasterDouble, worker: WorkerProcess) -> None:
    script = "import os, sys\nsys.stdout.write('half a li')\nsys.stdout.flush()\nos.abort()\n"
    assert master.run(script)[1] == "half a li\n[titan] killed by SIGABRT (Aborted)\n"


def test_output_that_python_did_not_flush_before_a_crash(master: MasterDouble, worker: WorkerProcess) -> None:
    # Whole lines have left; what C and Python buffers still held is gone in any shell as well.
    script = "import os\nprint('a whole line')\nprint('a part', end='')\nos.kill(os.getpid(), 9)\n"
    assert master.run(script)[1] == "a whole line\n[titan] killed by SIGKILL (Killed)\n"


def test_i25_a_timeout_ends_a_tree_that_ignores_term(master: MasterDouble, worker: WorkerProcess) -> None:
    script = IGNORE_TERM + FAMILY + "print('main', os.getpid(), flush=True)\nwhile True:\n    signal.pause()\n"
    ended, log = master.run(script, timeout_s=0.5)
    assert (ended.cause, ended.signal, ended.exit_code) == (CAUSE_TIMEOUT, 9, 137)
    assert log.endswith("[titan] killed: timeout after 0.5 s\n")
    pids = pids_in(log)
    assert set(pids) == {"plain", "session", "daemon", "stranger", "main"}
    assert alive(pids) == {}


def test_a_job_that_leaves_at_term_keeps_its_exit_code(master: MasterDouble, worker: WorkerProcess) -> None:
    script = HEAD + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\nprint('up')\n" + AWAITS_SIGNAL
    ended, log = master.run(script, timeout_s=0.5)
    assert (ended.cause, ended.signal, ended.exit_code) == (CAUSE_TIMEOUT, 0, 5)
    assert log == "up\n[titan] killed: timeout after 0.5 s\n"


def test_cancel_sends_term_to_the_whole_group_of_the_main_process(master: MasterDouble, worker: WorkerProcess) -> None:
    script = (
        "import os, signal, sys\n"
        "child = os.fork()\n"
        "name = 'main' if child else 'child'\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print(name, 'got TERM', flush=True), os._exit(0)))\n"
        "print(name, 'is up', flush=True)\n" + AWAITS_SIGNAL
    )
    fence = master.grant(script)
    master.wait_log(fence, "main is up\n")
    master.wait_log(fence, "child is up\n")
    master.cancel(fence)
    ended, log = master.end(fence)
    assert (ended.exit_code, ended.cause) == (0, CAUSE_CANCELLED)
    assert sorted(log.splitlines()[2:4]) == ["child got TERM", "main got TERM"]
    assert log.endswith("\n[titan] killed: cancelled\n")


def test_cancel_reaches_a_stopped_job(master: MasterDouble, worker: WorkerProcess) -> None:
    fence = master.grant(HEAD + "print('main', os.getpid(), flush=True)\nos.kill(os.getpid(), signal.SIGSTOP)\n")
    master.wait_log(fence, "\n")
    master.cancel(fence)
    ended, _ = master.end(fence)
    assert (ended.signal, ended.cause) == (signal.SIGTERM, CAUSE_CANCELLED)


def test_a_cancel_before_the_start_gives_the_attempt_back(master: MasterDouble, worker: WorkerProcess) -> None:
    # Its script is on the way, so it cannot have started.
    sha256 = master.add_blob("print('never')\n")
    master.holds_fetches = True
    master.send(master.grant_message(50, master.job_of(sha256)))
    master.wait(lambda: master.fetches, "the fetch")
    master.cancel(50)
    returned = master.wait(lambda: master.returned.get(50), "it to come back")
    assert returned.reason == "stopped before its start"
    master.holds_fetches = False
    master.release_fetches()
    assert master.run("print('next')\n")[1] == "next\n"
    assert 50 not in master.started


def test_an_orderly_stop_ends_jobs_and_waits_for_the_answer(master: MasterDouble, worker: WorkerProcess) -> None:
    fence = master.grant(HEAD + "name = 'main'\n" + STAY)
    pids = pids_in(master.wait_log(fence, "\n"))
    assert worker.stop() == 0
    ended, log = master.end(fence)
    assert (ended.cause, ended.signal) == (CAUSE_WORKER_STOP, signal.SIGTERM)
    assert log.endswith("[titan] killed: its worker was stopped\n")
    assert alive(pids) == {}


def test_an_orderly_stop_with_nothing_to_do_is_quick_and_clean(master: MasterDouble, worker: WorkerProcess) -> None:
    launcher = Death(worker.launcher_pid)
    assert worker.stop() == 0
    assert launcher.wait()


@pytest.fixture
def memory_cgroup() -> Iterator[Path]:
    """A memory cgroup of 48 MiB that a process can move itself into."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next((line.split(":", 2)[2] for line in lines if "memory" in line.split(":")[1].split(",")), None)
    if own is not None:
        group, limit = Path(f"/sys/fs/cgroup/memory{own}/titan-test-{os.getpid()}"), "memory.limit_in_bytes"
    else:
        own = next(line.split(":", 2)[2] for line in lines if line.startswith("0::"))
        group, limit = Path(f"/sys/fs/cgroup{own}/titan-test-{os.getpid()}"), "memory.max"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"NO REAL MEMORY KILL WAS TESTED: {group} cannot be made: {error}")
    try:
        (group / limit).write_text(str(48 << 20))
    except OSError as error:
        group.rmdir()
        pytest.skip(f"NO REAL MEMORY KILL WAS TESTED: {group} takes no limit: {error}")
    yield group
    group.rmdir()


def test_f38_a_job_killed_for_memory_says_so(master: MasterDouble, worker: WorkerProcess, memory_cgroup: Path) -> None:
    script = (
        "import os, sys\n"
        "open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "print('eating', flush=True)\n"
        "pile = []\n"
        "while True:\n    pile.append(bytearray(b'x' * (1 << 20)))\n"
    )
    ended, log = master.run(script, args=(str(memory_cgroup),))
    assert (ended.cause, ended.signal, ended.exit_code) == (CAUSE_OUT_OF_MEMORY, 9, 137)
    assert log == "eating\n[titan] killed: OutOfMemory\n"
    # A SIGKILL of somebody else's is not blamed on memory, though the count has risen before.
    ended, log = master.run("import os\nos.kill(os.getpid(), 9)\n")
    assert (ended.cause, log) == ("", "[titan] killed by SIGKILL (Killed)\n")
