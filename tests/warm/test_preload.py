"""A module that cannot be forked is refused before the first job, with the reason, and ends nobody but its launcher."""

import asyncio
import os
import platform
import signal
from pathlib import Path

import pytest

from tests.warm.starting import WarmLauncher, all_ways
from tests.warm.test_mutants import planted
from titan.worker import launching
from titan.worker.launching import LauncherProcess, Warming
from titan.worker.warmth import Warmth

UPWARD = 0x800 if platform.machine() == "x86_64" else 0x400000  # FE_UPWARD
AT_FORK = "import os\nos.register_at_fork(after_in_child={})\n"
REFUSED = {
    "raises": ("raise RuntimeError('no licence')", ": RuntimeError: no licence"),
    "exits": ("raise SystemExit(3)", ": SystemExit: 3"),
    "keeps a file": ("f = open('/dev/null')", " keeps 1 files or sockets open"),
    "keeps a socket": ("import socket\ns = socket.socket()", " keeps 1 files or sockets open"),
    "writes its output elsewhere": ("import os\nos.dup2(os.open('/dev/zero', 1), 1)", " keeps 2 files or sockets open"),
    "closes its input": ("import os\nos.close(0)", " closes 1 files that are not its own"),
    "starts a thread": (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
        " starts 1 threads, which a fork would not have",
    ),
    "starts a program": (
        "import subprocess\np = subprocess.Popen(['sleep', '600'])",
        " starts 1 processes that it does not wait for",
    ),
    "forks": ("import os\nos.fork()", " starts 1 processes that it does not wait for"),
    "forks and its child exits": (
        "import os\nif os.fork() == 0:\n    raise SystemExit",
        " starts 1 processes that it does not wait for",
    ),
    "umask": ("import os\nos.umask(0)", " changes the umask"),
    "folder": ("import os\nos.chdir('/proc')", " changes the working folder"),
    "a handler": ("import signal\nsignal.signal(signal.SIGTERM, print)", " changes the handling of signals"),
    "deaths of children": (
        "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        " changes the handling of signals",
    ),
    "interrupts": ("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)", " changes the handling of signals"),
    "a blocked signal": (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])",
        " changes the handling of signals",
    ),
    "a handler of C": ("import faulthandler\nfaulthandler.enable()", " changes the handling of signals"),
    "a timer": ("import signal\nsignal.setitimer(signal.ITIMER_PROF, 600)", " changes timers"),
    "limits": ("import resource as r\nr.setrlimit(r.RLIMIT_CORE, (0, 0))", " changes resource limits"),
    "its name": ("open('/proc/self/comm', 'w').write('x')", " changes the process's name"),
    "its priority": ("import os\nos.nice(1)", " changes the priority or the processors it has"),
    "locale": (
        "import locale\nlocale.setlocale(locale.LC_NUMERIC, 'C' if locale.setlocale(1) != 'C' else 'C.UTF-8')",
        " changes the locale",
    ),
    "rounding": ("import ctypes\nctypes.CDLL('libm.so.6').fesetround({})", " changes floating-point arithmetic"),
    "path": ("import sys\nsys.path.insert(0, '/opt/mine')", " changes the front of sys.path"),
    "a hook": ("import sys\nsys.excepthook = print", " changes hooks of the interpreter"),
    "a hook of threads": ("import threading\nthreading.excepthook = print", " changes hooks of the interpreter"),
    "recursion": ("import sys\nsys.setrecursionlimit(77_777)", " changes settings of the interpreter"),
    "a builtin": ("import builtins\nbuiltins.print = len", " changes builtins"),
    "environ": ("import os\nos.environ = dict(os.environ)", " changes os.environ, by another object"),
    "sockets": ("import socket\nsocket.setdefaulttimeout(3)", " changes the timeout of new sockets"),
    "logging": ("import logging\nlogging.basicConfig()", " changes the root logger"),
    "start method": (
        "import multiprocessing\nmultiprocessing.set_start_method('spawn')",
        " changes the start method of multiprocessing",
    ),
    "two things": ("import os, signal\nos.umask(0)\nos.chdir('/proc')", " changes the umask, the working folder"),
}
IN_THE_FORK = {
    "a thread": (
        "import threading\n"
        + AT_FORK.format("lambda: threading.Thread(target=threading.Event().wait, daemon=True).start()"),
        "!a fork of it has more than one thread\n",
    ),
    "dies": (AT_FORK.format("os.abort"), "!a fork of it does not run (it ended with -6)\n"),
}
# It cannot say why any more: the worker does, from how it ended.
ENDS = {
    "aborts": ("import os\nos.abort()", -signal.SIGABRT),
    "reads where nothing is": ("import ctypes\nctypes.string_at(0)", -signal.SIGSEGV),
    "exits at once": ("import os\nos._exit(0)", 0),
    "closes all files": ("import os\nos.closerange(3, 1000)", 0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    text, said = REFUSED[name]
    launcher = WarmLauncher(tmp_path, ("culprit",), modules={"culprit": text.replace("{}", str(UPWARD))})
    assert launcher.said == f"!import culprit{said}\n"
    launcher.close()


@pytest.mark.parametrize("name", IN_THE_FORK)
def test_it_is_refused_for_what_its_fork_does(tmp_path: Path, name: str) -> None:
    text, said = IN_THE_FORK[name]
    launcher = WarmLauncher(tmp_path, ("culprit",), modules={"culprit": text})
    assert launcher.said == said
    launcher.close()


@pytest.mark.parametrize("name", ENDS)
def test_it_ends_nobody_but_its_launcher(tmp_path: Path, name: str) -> None:
    text, code = ENDS[name]
    launcher = WarmLauncher(tmp_path, ("culprit",), modules={"culprit": text})
    assert (launcher.importing, launcher.said) == (["?culprit\n"], "")
    launcher.close()
    assert launcher.process.returncode == code


def test_one_that_hangs_ends_by_itself(tmp_path: Path) -> None:
    # Also one that had set the timer for itself before.
    source = planted(tmp_path / "source", "server", "PREPARE_S = 120", "PREPARE_S = 1")
    modules = {"timed": "import signal\nsignal.alarm(0)\n", "hanging": "import select\nselect.select([], [], [])\n"}
    launcher = WarmLauncher(tmp_path, tuple(modules), source, modules)
    assert launcher.said == ""
    launcher.close()
    assert launcher.process.returncode == -signal.SIGALRM


def test_one_that_hangs_and_takes_the_timer_away_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "READY_S_MAX", 0.5)
    text = "import select, signal\nsignal.alarm(0)\nselect.select([], [], [])\n"
    problem = problem_of(tmp_path, text)
    # So little time may be over before the first word.
    assert problem in ("import culprit goes on after 120 s", "not ready after 120 s")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import os\nos.kill(os.getpid(), 11)", "import culprit ends the interpreter, with signal 11"),
        ("import os\nos._exit(3)", "import culprit ends the interpreter, with exit code 3"),
        ("import signal\nsignal.raise_signal(signal.SIGALRM)", "import culprit goes on after 120 s"),
        ("raise ValueError('one\\ntwo')", "import culprit: ValueError: one"),
        ("import os\nos.register_at_fork(before=os.abort)", "its interpreter ended with signal 6"),
    ],
)
def test_the_worker_says_which_import_ended_it(tmp_path: Path, text: str, why: str) -> None:
    assert problem_of(tmp_path, text) == why


def problem_of(folder: Path, text: str) -> str:
    """Return what a worker is told of a launcher that preloads a module with this text."""
    (folder / "culprit.py").write_text(text)

    async def story() -> str:
        told: asyncio.Future[tuple[list[str], str]] = asyncio.get_running_loop().create_future()
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder)}
        warming = Warming(environ, ("json", "culprit"), lambda *said: told.set_result(said))
        launcher = LauncherProcess(print, print, warming=warming)
        names, problem = await told
        assert launcher.wait(30)
        assert names == []
        return problem

    return asyncio.run(story())


SEES = """import gc, os, signal, sys
print(sys.argv[0], len(sys.argv), sys.stdin.read() == "", gc.isenabled(), signal.getitimer(signal.ITIMER_REAL))
print(sys.stdout is sys.__stdout__, type(sys.stdout).__name__, type(sys.stdin).__name__, os.getenv("MADE"))
sys.stdout.write("no end of line")
"""
UNDONE = {
    "arguments": "import sys\nsys.argv[:] = ['of the import', '1', '2']\n",
    "no input": "import sys\nsys.stdin = None\n",
    "closed output": "import sys\nsys.stdout.close()\n",
    "detached output": "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.detach())\n",
    "an output of no kind": "import sys\nsys.stdout = sys.stderr = 7\n",
    "no output": "import sys\nsys.stdout = sys.stderr = None\n",
    "a lot of output": "import sys\nfor _ in range(1000):\n    sys.stdout.write('x' * 1000)\n",
    "warnings": "import warnings\nwarnings.warn('of the import')\nwarnings.warn('old', DeprecationWarning, 2)\n",
    "no collector": "import gc\ngc.disable()\n",
}


@pytest.mark.parametrize("name", UNDONE)
def test_what_a_job_has_of_its_own_is_its_own(tmp_path: Path, name: str) -> None:
    launcher = WarmLauncher(tmp_path, ("culprit",), modules={"culprit": UNDONE[name]})
    assert not launcher.said.startswith("!"), launcher.said
    fresh, *warm = all_ways(launcher, tmp_path, SEES)
    launcher.close()
    assert warm == [fresh, fresh]


def test_a_timer_that_an_import_left_does_not_end_the_server(tmp_path: Path) -> None:
    launcher = WarmLauncher(tmp_path, ("timed",), modules={"timed": "import signal\nsignal.alarm(1)\n"})
    (tmp_path / "job.py").write_text(
        "import os, select\nprint(select.select([os.pidfd_open(os.getppid())], [], [], 1.5)[0])"
    )
    assert launcher.run(tmp_path) == (0, "[]\n")
    launcher.close()


def test_a_seed_and_a_key_that_an_import_set_are_no_jobs(tmp_path: Path) -> None:
    text = (
        "import random, multiprocessing as m\nrandom.seed(1)\nm.current_process().authkey = b'1'\n"
        "try:\n    import numpy as np\n    np.random.seed(1)\nexcept ImportError:\n    pass\n"
    )
    launcher = WarmLauncher(tmp_path, ("seeder",), modules={"seeder": text})
    (tmp_path / "job.py").write_text(
        "import random, multiprocessing as m, numpy as np\nprint(random.random(), np.random.rand())\n"
        "print(bytes(m.current_process().authkey).hex())"
    )
    said = [launcher.run(tmp_path)[1].split() for _ in range(2)]
    launcher.close()
    assert [len(words) for words in said] == [3, 3], said
    assert len({*said[0], *said[1]}) == 6


def test_what_an_import_registered_for_the_end_is_done_at_the_end_of_each_job(tmp_path: Path) -> None:
    text = "import atexit, os\natexit.register(lambda: print('the end of', os.environ['TITAN_FENCE']))\n"
    launcher = WarmLauncher(tmp_path, ("ending",), modules={"ending": text})
    (tmp_path / "job.py").write_text("print('job')")
    assert [launcher.run(tmp_path) for _ in range(2)] == [(0, "job\nthe end of 1\n"), (0, "job\nthe end of 2\n")]
    launcher.close()


def test_folders_that_an_import_adds_at_the_end_of_the_path_stay(tmp_path: Path) -> None:
    launcher = WarmLauncher(tmp_path, ("adder",), modules={"adder": "import sys\nsys.path.append('/opt/mine')\n"})
    (tmp_path / "job.py").write_text("import sys\nprint(sys.path[-1])")
    assert launcher.run(tmp_path) == (0, "/opt/mine\n")
    launcher.close()


def test_what_an_import_printed_is_in_no_job(tmp_path: Path) -> None:
    text = "import ctypes, sys\nsys.stdout.write('half')\nctypes.CDLL(None).printf(b'of C')\n"
    launcher = WarmLauncher(tmp_path, ("noisy",), modules={"noisy": text})
    (tmp_path / "job.py").write_text("print('job')")
    assert launcher.run(tmp_path) == (0, "job\n")
    launcher.close()


def test_what_is_written_to_a_stream_that_a_module_kept_is_not_lost(tmp_path: Path) -> None:
    launcher = WarmLauncher(tmp_path, ("keeper",), modules={"keeper": "import sys\nout = sys.stdout\n"})
    (tmp_path / "job.py").write_text("import keeper\nkeeper.out.write('no end of line')")
    assert launcher.run(tmp_path) == (0, "no end of line")
    launcher.close()


def test_what_an_import_did_to_the_environment_is_done_in_the_job(tmp_path: Path) -> None:
    text = "import os\nos.environ.update(MADE='import', OWN='import')\nos.environ.pop('USER', 0)\n"
    launcher = WarmLauncher(tmp_path, ("setter",), modules={"setter": text})
    launcher.env["OWN"] = "job"
    (tmp_path / "job.py").write_text("import os\nprint(*map(os.getenv, ('MADE', 'OWN', 'USER')))")
    assert launcher.run(tmp_path) == (0, "import job None\n")
    launcher.close()


def test_the_random_state_of_torch_is_each_jobs_own(tmp_path: Path) -> None:
    text = (
        "import os\nclass Generator:\n    state = b'of the server'\n    def seed(self): self.state = os.urandom(16)\n"
        "default_generator = Generator()\n"
    )
    launcher = WarmLauncher(tmp_path, ("torch",), modules={"torch": text})
    (tmp_path / "job.py").write_text("import torch\nprint(torch.default_generator.state)")
    said = {"b'of the server'\n", *(launcher.run(tmp_path)[1] for _ in range(2))}
    launcher.close()
    assert len(said) == 3


def test_what_libraries_read_at_their_import_is_a_reason_only_where_something_is_preloaded() -> None:
    entry = [b"HF_HOME=/data"]
    assert Warmth({}, (), ("transformers",), "")._environment_problem(entry) == "HF_HOME in its environment"
    assert not Warmth({}, (), (), "")._environment_problem(entry)
