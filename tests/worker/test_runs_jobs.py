"""What a job gets and gives: its script, its arguments to the byte, its output in order."""

import os
import sys
from pathlib import Path

import pytest

from tests.worker.conftest import StartWorker, WorkerProcess
from tests.worker.double import MasterDouble
from tests.worker.processes import AWAITS_SIGNAL
from titan.model.wire import CAUSE_CANCELLED, CAUSE_START_FAILED

HOSTILE_ARGS = (
    "plain", "", "two words", 'double"quote', "single'quote", "a|b", "a;b", "$HOME `id` $(id)", "new\nline", "tab\t",
    "*", "~", "-", "--flag=x", "\\", "emoji 😀", "e\u0301", "\x01", "@/etc/passwd", "%s{}",
)  # fmt: skip


def test_a_script_runs_and_its_end_is_reported(master: MasterDouble, worker: WorkerProcess) -> None:
    ended, log = master.run("print('hello')\n")
    assert (ended.exit_code, ended.signal, ended.cause) == (0, 0, "")
    assert log == "hello\n"
    assert worker.ready == b"ready\n"


def test_arguments_arrive_byte_for_byte(master: MasterDouble, worker: WorkerProcess) -> None:
    # A NUL, which no argument can hold, parts them.
    python = "import os, sys\nsys.stdout.buffer.write(b'\\0'.join(os.fsencode(word) for word in sys.argv[1:]))\n"
    shell = "#!/bin/sh\nprintf '%s\\0' \"$@\"\n"
    assert master.run(python, args=HOSTILE_ARGS)[1] == "\0".join(HOSTILE_ARGS)
    assert master.run(shell, "job.sh", args=HOSTILE_ARGS)[1] == "\0".join(HOSTILE_ARGS) + "\0"


def test_sixteen_files_of_one_name_run_side_by_side(
    master: MasterDouble, home: Path, start_worker: StartWorker
) -> None:
    # Each waits until all sixteen run, so they really are side by side.
    gate = home / "gate"
    os.mkfifo(gate)
    start_worker("--slots", "16")
    script = "import sys\nprint('ready', flush=True)\nopen({gate!r}).read()\nprint('I am number {number}')\n"
    fences = [master.grant(script.format(gate=str(gate), number=n), "same.py") for n in range(16)]
    for fence in fences:
        master.wait_log(fence, "ready\n")
    os.close(os.open(gate, os.O_WRONLY))
    ends = [master.end(fence) for fence in fences]
    assert [log for _, log in ends] == [f"ready\nI am number {n}\n" for n in range(16)]


def test_a_grant_beyond_the_slots_waits_for_one(master: MasterDouble, worker: WorkerProcess, tmp_path: Path) -> None:
    left = tmp_path / "left"
    leaves = (
        "import signal\n"
        f"signal.signal(signal.SIGTERM, lambda *_: exit(open({str(left)!r}, 'w').close()))\n"
        "print('up')\n" + AWAITS_SIGNAL
    )
    fences = [master.grant(leaves) for _ in range(4)]
    for fence in fences:
        master.wait_log(fence, "up\n")
    fifth = master.grant(f"import os\nprint(os.path.exists({str(left)!r}))\n")
    master.cancel(fences[0])
    assert master.end(fifth)[1] == "True\n"
    for fence in fences[1:]:
        master.cancel(fence)
    assert [master.end(fence)[0].cause for fence in fences] == [CAUSE_CANCELLED] * 4
    assert master.returned == {}


def test_stdout_and_stderr_keep_their_order(master: MasterDouble, worker: WorkerProcess) -> None:
    script = "import sys\nfor n in range(500):\n    print(n, file=(sys.stdout, sys.stderr)[n % 2])\n"
    assert master.run(script)[1] == "".join(f"{n}\n" for n in range(500))


def test_output_is_line_buffered_utf8_in_every_way_of_starting(master: MasterDouble, worker: WorkerProcess) -> None:
    # Dies by SIGKILL, so only what has left the buffers is seen.
    child = "import os\nprint('smörgås 😀')\nos.kill(os.getpid(), 9)"
    script = (
        "import subprocess, sys\n"
        f"child = {child!r}\n"
        "subprocess.run([sys.executable, '-c', child])\n"
        "open('module.py', 'w').write(child)\n"
        "subprocess.run([sys.executable, '-m', 'module'])\n"
        "exec(child)\n"
    )
    ended, log = master.run(script, env={"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"})
    assert log == "smörgås 😀\n" * 3 + "[titan] killed by SIGKILL (Killed)\n"
    assert (ended.exit_code, ended.signal) == (137, 9)


def test_a_python_file_runs_by_the_workers_interpreter_in_its_folder(
    master: MasterDouble, worker: WorkerProcess
) -> None:
    script = (
        "import os, sys\n"
        "workdir = os.environ['TITAN_WORKDIR']\n"
        "print(sys.executable, sys.argv, sys.stdin.read() == '')\n"
        "print(os.getcwd() == workdir, sys.path[0] == workdir, os.listdir() == ['my job.py'])\n"
        "print(os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid())\n"
        "print(os.environ['TITAN_MAIN_PID'] == str(os.getpid()))\n"
    )
    _, log = master.run(script, "etl/steps/my job.py")
    assert log == f"{sys.executable} ['my job.py'] True\nTrue True True\nTrue True\nTrue\n"


def test_a_file_name_is_never_an_option(master: MasterDouble, worker: WorkerProcess) -> None:
    assert master.run("print(__file__[-5:])\n", "-c.py")[1] == "-c.py\n"


def test_a_script_with_a_first_line_runs_by_itself(master: MasterDouble, worker: WorkerProcess) -> None:
    ended, log = master.run("#!/bin/sh\npwd\ncat\nexit 7\n", "report.sh")
    assert ended.exit_code == 7
    assert log == f"{worker.folder}/jobs/1\n"


@pytest.mark.parametrize(
    ("content", "exit_code", "line"),
    [
        ("echo hi\n", 126, "could not start tool: it has no first line like #!/bin/sh that names its interpreter"),
        (
            "#!/no/such/interpreter\n",
            127,
            "could not start tool: the interpreter named in its first line is not on this machine",
        ),
        ("#!/\n", 126, "could not start tool: Permission denied"),
    ],
)
def test_a_file_that_cannot_be_executed_fails_like_in_a_shell(
    master: MasterDouble, worker: WorkerProcess, content: str, exit_code: int, line: str
) -> None:
    ended, log = master.run(content, "tool")
    assert (ended.exit_code, ended.cause, ended.detail) == (exit_code, CAUSE_START_FAILED, line)
    assert log == f"[titan] {line}\n"


def test_one_script_is_fetched_once_for_many_jobs(master: MasterDouble, worker: WorkerProcess) -> None:
    fences = [master.grant("print('x')\n") for _ in range(4)]
    for fence in fences:
        assert master.end(fence)[1] == "x\n"
    for _ in range(10):
        master.run("print('x')\n")
    assert len(master.fetches) == 1
    assert master.tokens == {"Bearer the-token-of-the-home"}


def test_a_script_that_the_master_no_longer_has_fails_the_job(master: MasterDouble, worker: WorkerProcess) -> None:
    fence = master.grant("print('x')\n")
    master.end(fence)
    content = "print('gone')\n"
    sha256 = master.add_blob(content)
    master.blobs.clear()
    master.blobs[sha256] = b"print('something else')\n"
    message = master.grant_message(100, master.job_of(sha256))
    master.send(message)
    ended, log = master.end(100)
    assert ended.cause == CAUSE_START_FAILED
    assert log == f"[titan] could not start: the Master sent something else for its file {sha256[:12]}\n"
    master.blobs.clear()
    master.send(master.grant_message(101, master.job_of(sha256)))
    assert master.end(101)[1] == f"[titan] could not start: the Master no longer has its file {sha256[:12]}\n"


def test_a_description_that_cannot_be_read_fails_the_job(master: MasterDouble, worker: WorkerProcess) -> None:
    good = master.grant_message(9, master.job_of("0" * 64))
    master.send(type(good)(**{name: getattr(good, name) for name in good.__struct_fields__} | {"spec": b"\x01"}))
    ended, log = master.end(9)
    assert ended.cause == CAUSE_START_FAILED
    assert log.startswith("[titan] could not start: ")
