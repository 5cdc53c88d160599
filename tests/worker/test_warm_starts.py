"""Which jobs a worker starts warm, what it says of the others, and what it does when it cannot."""

from pathlib import Path

import pytest

from tests.worker.bench import Bench, bench
from tests.worker.conftest import StartWorker
from tests.worker.double import MasterDouble
from titan.model.wire import CAUSE_LOST, Ended
from titan.worker.attempts import UNANSWERED_MAX
from titan.worker.launcher import frames
from titan.worker.warmth import WARM, named

SAYS = "import sys\nprint('decimal' in sys.modules, 'zipfile' in sys.modules)\n"


def start_of(master: MasterDouble, fence: int) -> str:
    master.end(fence)
    return master.started[fence].start


def test_a_python_file_starts_warm_and_another_does_not(master: MasterDouble, start_worker: StartWorker) -> None:
    start_worker()
    warm = master.grant("print('hello')\n")
    assert start_of(master, warm) == WARM
    shell = master.grant("#!/bin/sh\necho hello\n", filename="job.sh")
    assert start_of(master, shell) == "exec: not a Python file"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"warm": False}, "warm=False"),
        ({"env": {"PYTHONHASHSEED": "0"}}, "PYTHONHASHSEED in its environment"),
        ({"env": {"PYTHONPATH": "/x"}}, "PYTHONPATH in its environment"),
        ({"env": {"OMP_NUM_THREADS": "1"}}, "OMP_NUM_THREADS in its environment"),
        ({"env": {"MALLOC_ARENA_MAX": "1"}}, "MALLOC_ARENA_MAX in its environment"),
        ({"env": {"HOME": "/elsewhere"}}, "HOME in its environment"),
        ({"env": {"LC_ALL": "de_DE"}}, "LC_ALL in its environment"),
        ({"filename": "struct.py"}, "struct.py stands in front of a module that is imported already"),
    ],
)
def test_what_a_fork_could_not_be_is_executed_and_says_why(
    master: MasterDouble, worker: object, spec: dict[str, object], why: str
) -> None:
    assert start_of(master, master.grant("print('hello')\n", **spec)) == f"exec: {why}"


def test_preloaded_modules_are_there_and_their_variables_ask_for_a_fresh_start(
    master: MasterDouble, start_worker: StartWorker
) -> None:
    start_worker("--preload", "decimal,zipfile")
    assert master.run(SAYS)[1] == "True True\n"
    assert start_of(master, master.grant(SAYS, env={"DECIMAL_MODE": "x"})) == "exec: DECIMAL_MODE in its environment"


def test_a_preload_that_fails_is_said_and_done_without(master: MasterDouble, start_worker: StartWorker) -> None:
    worker = start_worker("--preload", "decimal,no_such_module,nor.this")
    fence = master.grant(SAYS)
    assert start_of(master, fence) == WARM
    assert master.end(fence)[1] == "True False\n", "what can be preloaded is"
    said = worker.close()
    why = "ModuleNotFoundError: No module named"
    one = f"no_such_module cannot be preloaded: import no_such_module: {why} 'no_such_module'; going on with "
    other = f"nor.this cannot be preloaded: import nor.this: {why} 'nor'; going on with decimal\n"
    assert f"{one}decimal, nor.this\n" in said
    assert other in said


@pytest.mark.parametrize(
    ("problem", "bad"),
    [
        ("import b.c: ImportError: no", ("b.c",)),
        ("import b.c changes the umask", ("b.c",)),
        ("import titan_sdk: ImportError: no", ("a", "b.c")),
        ("import b.c ends the interpreter, with signal 11", ("b.c",)),
        ("not ready after 120 s", ("a", "b.c")),
        ("", ("a", "b.c")),
    ],
)
def test_only_the_module_that_a_problem_names_is_left_out(problem: str, bad: tuple[str, ...]) -> None:
    assert named(problem, ("a", "b.c")) == bad


def test_without_warm_starts_every_job_is_executed(master: MasterDouble, start_worker: StartWorker) -> None:
    start_worker("--no-warm")
    assert start_of(master, master.grant("print('hello')\n")) == "exec: the worker was started without warm starts"


def test_a_launcher_that_does_not_answer_is_ended_and_its_jobs_are_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def story(here: Bench) -> None:
        here.grant(1)
        here.report(frames.STARTED, 1, a=4242)
        for _ in range(2 * UNANSWERED_MAX):
            here.attempts.tend_record()
        here.launcher.hangs = True
        for _ in range(UNANSWERED_MAX):
            here.attempts.tend_record()
        assert not here.said
        here.attempts.tend_record()
        assert here.said[0] == "the launcher does not answer"
        assert (await here.next(Ended)).cause == CAUSE_LOST

    bench(monkeypatch, tmp_path, story)
