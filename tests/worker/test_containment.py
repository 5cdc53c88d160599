"""Each difference that containment makes to a program, shown; docs/containment.md names a test for each line."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.worker.conftest import StartWorker, WorkerProcess
from tests.worker.double import PATIENCE_S, MasterDouble
from tests.worker.processes import HEAD, alive, pids_in
from tests.worker.test_hostile_trees import Tree
from titan.model.wire import CAUSE_CANCELLED

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "containment.md"


def test_f32_a_session_of_its_own_and_no_terminal(master: MasterDouble, worker: WorkerProcess) -> None:
    script = (
        "import os, sys\nme = os.getpid()\nprint(os.getsid(0) == me, os.getpgid(0) == me)\n"
        "print([os.isatty(n) for n in range(3)])\n"
        "try:\n    open('/dev/tty', 'w').write('hello')\nexcept OSError as error:\n    print('no tty')\n"
    )
    assert master.run(script)[1] == "True True\n[False, False, False]\nno tty\n"


def test_f32_stdin_is_empty(master: MasterDouble, worker: WorkerProcess) -> None:
    assert master.run("#!/bin/sh\ncat\nread line || echo at its end\n", "job.sh")[1] == "at its end\n"


def test_stdout_and_stderr_are_one_pipe(master: MasterDouble, worker: WorkerProcess) -> None:
    script = (
        "import os, stat, sys\na, b = os.fstat(1), os.fstat(2)\n"
        "print(stat.S_ISFIFO(a.st_mode), os.path.samestat(a, b))\nprint('second', file=sys.stderr)\nprint('third')\n"
    )
    assert master.run(script)[1] == "True True\nsecond\nthird\n"


def test_python_writes_line_by_line_in_utf8(master: MasterDouble, worker: WorkerProcess) -> None:
    # Without Titan the first line would stay in the buffer, and the second be an error in the C locale.
    script = "import os\nprint('a line')\nprint('\\u4e16')\nos._exit(0)\n"
    assert master.run(script, env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})[1] == "a line\n世\n"


def test_the_umask_is_077(master: MasterDouble, worker: WorkerProcess) -> None:
    assert master.run("import os\nprint(oct(os.umask(0)))\n")[1] == "0o77\n"


def test_signals_and_descriptors_are_fresh(master: MasterDouble, worker: WorkerProcess) -> None:
    script = (
        "#!/bin/sh\n"
        "grep -E '^Sig(Ign|Blk)' /proc/self/status | cut -f 2 | sort -u\nls /proc/self/fd | head -n 4 | wc -l\n"
    )
    # `ls` holds 0, 1, 2 and the folder it lists.
    assert master.run(script, "job.sh")[1] == "0000000000000000\n4\n"


def test_the_main_process_dies_with_its_parent(master: MasterDouble, worker: WorkerProcess) -> None:
    script = (
        "import ctypes, os\nset_to = ctypes.c_int()\nprctl = ctypes.CDLL(None).prctl\n"
        "prctl(2, ctypes.byref(set_to))\nprint(set_to.value)\n"
        "child = os.fork()\nif child == 0:\n"
        "    prctl(2, ctypes.byref(set_to))\n    print(set_to.value)\n    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
    )
    assert master.run(script)[1] == "9\n0\n"


def test_an_orphan_falls_to_the_main_process(master: MasterDouble, worker: WorkerProcess) -> None:
    script = (
        "import os\nreading, writing = os.pipe()\nmain = os.getpid()\nchild = os.fork()\n"
        "if child == 0:\n    if os.fork() == 0:\n        os.close(writing)\n        os.read(reading, 1)\n"
        "        print(os.getppid() == main)\n        os._exit(0)\n    os._exit(0)\n"
        "os.waitpid(child, 0)\nos.close(reading)\nos.close(writing)\nos.wait()\n"
    )
    assert master.run(script)[1] == "True\n"


def test_term_goes_to_the_group_of_the_main_process_only(master: MasterDouble, worker: WorkerProcess) -> None:
    script = HEAD + (
        "def told(name):\n"
        "    signal.signal(signal.SIGTERM, lambda *_: (print(name, 'was told', flush=True), os._exit(0)))\n"
        "    print(name, 'is up', flush=True)\n    import time\n    while True:\n        time.sleep(0.1)\n"
        "if os.fork() == 0:\n    os.setsid()\n    told('the session')\n"
        "if os.fork() == 0:\n    told('the group')\n"
        "told('main')\n"
    )
    fence = master.grant(script)
    for name in ("session is up", "group is up", "main is up"):
        master.wait_log(fence, name)
    master.cancel(fence)
    ended, log = master.end(fence)
    assert ended.cause == CAUSE_CANCELLED
    assert "main was told" in log
    assert "the group was told" in log
    assert "the session was told" not in log
    assert log.endswith("[titan] killed: cancelled\n[titan] killed 1 process the job left behind\n")


def test_f31_a_shell_that_leaves_a_sleeper_is_over(master: MasterDouble, worker: WorkerProcess) -> None:
    ended, log = master.run("#!/bin/sh\nsleep 600 &\nexit 5\n", "job.sh")
    assert (ended.exit_code, log) == (5, "[titan] killed 1 process the job left behind\n")


def test_a_daemon_does_not_outlive_its_job(master: MasterDouble, worker: WorkerProcess) -> None:
    script = HEAD + (
        "reading, writing = os.pipe()\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork():\n        os._exit(0)\n    os.chdir('/')\n"
        "    print('daemon', os.getpid(), flush=True)\n    os.closerange(0, 64)\n"
        "    while True:\n        signal.pause()\n"
        "os.close(writing)\nos.read(reading, 1)\n"
    )
    _, log = master.run(script)
    assert "daemon" in pids_in(log)
    assert alive(pids_in(log)) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only it can change its user")
def test_a_child_that_changed_its_user_is_ended_by_a_worker_that_may(
    master: MasterDouble, worker: WorkerProcess, tmp_path: Path
) -> None:
    script = HEAD + (
        "reading, writing = os.pipe()\n"
        "if os.fork() == 0:\n    os.setsid()\n    os.setuid(65534)\n    print('other', os.getpid(), flush=True)\n"
        "    os.closerange(reading, writing + 1)\n    while True:\n        signal.pause()\n"
        "os.close(writing)\nos.read(reading, 1)\n"
    )
    _, log = master.run(script)
    assert "other" in pids_in(log)
    assert alive(pids_in(log)) == {}


def test_what_is_no_process_stays(master: MasterDouble, worker: WorkerProcess, tmp_path: Path) -> None:
    master.run("import sys\nopen(sys.argv[1], 'w').write('kept')\n", args=(str(tmp_path / "file"),))
    assert (tmp_path / "file").read_text() == "kept"


def test_f35_a_worker_that_is_stopped_beyond_a_lease_ends_and_reports_nothing(
    master: MasterDouble, start_worker: StartWorker, tmp_path: Path
) -> None:
    # TERM 6 s and KILL 11 s after the last answered renewal; the launcher does it, the worker is asleep.
    worker = start_worker(environ={"TITAN_LIMIT_LEASE_S_MIN": "20"})
    tree = Tree(tmp_path, "deaf", before="deaf()")
    fence = master.grant(tree.script, lease_s=21)
    tree.wait_up()
    os.kill(worker.process.pid, signal.SIGSTOP)
    try:
        assert tree.gone(PATIENCE_S)
        # Meanwhile the Master gave it to another, and says so when the worker is back.
        master.stop()
        master.unwanted.add(fence)
        master.start()
    finally:
        os.kill(worker.process.pid, signal.SIGCONT)
    master.wait_hellos(2)
    assert master.run("print('goes on')\n")[1] == "goes on\n"
    assert fence not in master.ended
    tree.close()


def test_every_difference_on_the_page_has_its_test() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text("utf-8")))
    there = {
        name
        for path in HERE.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert named - there == set()
    mine = set(re.findall(r"^def (test_\w+)", Path(__file__).read_text("utf-8"), re.MULTILINE))
    assert mine - named == {"test_every_difference_on_the_page_has_its_test"}
    rows = [
        line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ") and "| held by |" not in line
    ]
    assert rows
    assert [row for row in rows if "`test_" not in row and "|---|" not in row] == []
