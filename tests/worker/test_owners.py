"""Whose leftover a process is, when it cannot be asked any more: no end is told before it is known.

The moments are those of a launcher that looks between two deaths, so they are made by hand, in a process of
its own: two jobs, each a child that has died, and strangers that fell to it.
"""

import subprocess
import sys

import pytest

from tests.worker.launching import SOURCE

PROGRAM = """
import os, signal, socket, sys
sys.path.insert(0, sys.argv[1])
from titan.worker.launcher import main as module
from titan.worker.launcher.frames import ENDED, Start, take_reports

def stranger(leaves):
    # A session of its own, and no environment: nothing says whose it is.
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.setsid()
        if not leaves:
            program = 'import os, signal; os.close({}); signal.pause()'.format(writing)
            os.set_inheritable(writing, True)
            os.execve(sys.executable, [sys.executable, '-S', '-c', program], {})
        os._exit(0)
    os.close(writing)
    os.read(reading, 1)
    if leaves:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid

def job(fence, shim=0):
    pid = os.fork() or os._exit(0)
    made = module.Job(Start(fence, b'/', [], []), pid, shim, -1, 0)
    made.running = made.hard = True
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    launcher._living[fence] = launcher._mains[pid] = made
    return made

def ends(made):
    del launcher._mains[made.pid]
    launcher._main_ended(made, os.waitpid(made.pid, 0)[1])

def told():
    launcher._clear_leftovers(0)
    return [report.fence for report in take_reports(launcher._reports) if report.kind == ENDED]

ours, theirs = socket.socketpair()
launcher = module.Launcher(theirs.detach())
"""


def said(moments: str) -> str:
    program = [sys.executable, "-c", PROGRAM + moments, SOURCE]
    done = subprocess.run(program, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_f29_one_that_leaves_untold_holds_back_a_job_that_ends_after_it_was_seen() -> None:
    moments = (
        "first, second = job(1), job(2)\ndead = stranger(leaves=True)\nends(first)\nprint(told())\n"
        "ends(second)\nprint(told())\nos.waitpid(dead, 0)\nlauncher._strays.pop(dead)\nprint(told())"
    )
    assert said(moments) == "[]\n[]\n[1, 2]\n"


@pytest.mark.parametrize("shim", [0, 4_000_000])
def test_f29_one_that_stays_untold_holds_back_whoever_may_have_left_it(shim: int) -> None:
    # The main process of the second is dead and not reaped, or its shim is gone: its orphans come here already.
    moments = (
        f"first, second = job(1), job(2, shim={shim})\nalive = stranger(leaves=False)\nends(first)\nprint(told())\n"
        "ends(second)\nprint(told())\nprint(os.waitpid(alive, 0)[1])\nlauncher._strays.pop(alive)\nprint(told())"
    )
    assert said(moments) == "[]\n[]\n9\n[1, 2]\n"


def test_one_that_nothing_was_left_of_is_not_held_back_for_good() -> None:
    moments = (
        "first, second = job(1), job(2)\nalive = stranger(leaves=False)\nends(first)\nprint(told())\n"
        "second.failure = (2, 3)\nends(second)\nprint(told())\nprint(os.waitpid(alive, 0)[1])\n"
        "launcher._strays.pop(alive)\nprint(told())"
    )
    assert said(moments) == "[]\n[]\n9\n[1]\n"
