"""Logs: every byte in order, a cap that says so, memory that does not grow, nobody who waits."""

import fcntl
import hashlib
import os
import queue
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.conftest import StartWorker, WorkerProcess
from tests.worker.double import MasterDouble
from titan.worker.logs import Logs


class Loop:
    """Stands for the event loop: what the thread hands over is run in `turn`."""

    def __init__(self) -> None:
        self._calls: queue.Queue[tuple[Callable[..., object], tuple[Any, ...]]] = queue.Queue()
        self.totals: dict[int, int] = {}
        self.threads: set[int] = set()

    def call(self, function: Callable[..., object], *args: Any) -> None:
        self.threads.add(threading.get_ident())
        self._calls.put((function, args))

    def turn(self) -> None:
        function, args = self._calls.get(timeout=30)
        function(*args)

    def grew(self, totals: dict[int, int]) -> None:
        self.totals |= totals


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def logs(tmp_path: Path, loop: Loop) -> Iterator[Logs]:
    logs = Logs(tmp_path / "spool", loop.call, loop.grew, cap_bytes=100_000)
    yield logs
    logs.close()


def begin(logs: Logs, fence: int) -> int:
    reading, writing = os.pipe()
    logs.add(fence, reading)
    return writing


def finish(logs: Logs, loop: Loop, fence: int, line: str = "") -> bytes:
    totals: list[int] = []
    logs.finish(fence, line, totals.append)
    while not totals:
        loop.turn()
    return logs.read(fence, 0, totals[0])


def test_what_is_written_is_read_by_offset_while_it_comes(logs: Logs, loop: Loop) -> None:
    writing = begin(logs, 1)
    os.write(writing, b"hello ")
    while loop.totals.get(1) != 6:
        loop.turn()
    os.write(writing, b"world")
    while loop.totals.get(1) != 11:
        loop.turn()
    assert logs.read(1, 0, 11) == b"hello world"
    assert logs.read(1, 4, 3) == b"o w"
    os.close(writing)
    assert finish(logs, loop, 1) == b"hello world"
    assert threading.get_ident() not in loop.threads


def test_a_pipe_that_others_hold_is_not_waited_for(logs: Logs, loop: Loop) -> None:
    writing = begin(logs, 1)
    os.write(writing, b"before")
    assert finish(logs, loop, 1, "killed by SIGKILL (Killed)") == b"before\n[titan] killed by SIGKILL (Killed)\n"
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"after")
    os.close(writing)


def test_all_that_was_written_before_the_end_is_there(tmp_path: Path, loop: Loop) -> None:
    logs = Logs(tmp_path / "spool", loop.call, loop.grew)
    reading, writing = os.pipe()
    # More than one turn of the thread takes.
    size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.write(writing, b"x" * size)
    logs.add(1, reading)
    assert finish(logs, loop, 1) == b"x" * size
    os.close(writing)
    logs.close()


def test_a_log_without_a_pipe_has_our_line_only(logs: Logs, loop: Loop) -> None:
    logs.add(1, None)
    assert finish(logs, loop, 1, "could not start: no") == b"[titan] could not start: no\n"


def test_a_job_without_output_makes_no_file(logs: Logs, loop: Loop, tmp_path: Path) -> None:
    os.close(begin(logs, 1))
    assert finish(logs, loop, 1) == b""
    assert list((tmp_path / "spool").iterdir()) == []


def test_the_cap_is_told_and_blocks_nobody(logs: Logs, loop: Loop) -> None:
    writing = begin(logs, 1)
    for _ in range(30):
        os.write(writing, b"x" * 10_000)
    os.close(writing)
    log = finish(logs, loop, 1, "killed: OutOfMemory")
    assert log == (
        b"x" * 100_000
        + b"\n[titan] log capped: 200000 bytes after the first 100000 were dropped\n[titan] killed: OutOfMemory\n"
    )


def test_f9_a_full_disk_is_told_and_blocks_nobody(logs: Logs, loop: Loop, tmp_path: Path) -> None:
    writing = begin(logs, 1)
    (tmp_path / "spool" / "1").symlink_to("/dev/full")
    for _ in range(30):
        os.write(writing, b"x" * 10_000)
    os.close(writing)
    assert finish(logs, loop, 1) == b""
    other = begin(logs, 2)
    os.write(other, b"fine")
    os.close(other)
    assert finish(logs, loop, 2) == b"fine"


def test_bytes_that_were_lost_are_counted(logs: Logs, loop: Loop) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    writing = begin(logs, 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, before[1]))
    try:
        os.write(writing, b"123456789")
        while 1 not in loop.totals:
            loop.turn()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    os.close(writing)
    assert finish(logs, loop, 1) == (b"12345\n[titan] log incomplete: 4 bytes could not be kept (File too large)\n")


def test_what_was_taken_from_the_file_is_nul(logs: Logs, loop: Loop, tmp_path: Path) -> None:
    writing = begin(logs, 1)
    os.write(writing, b"123456")
    os.close(writing)
    finish(logs, loop, 1)
    os.truncate(tmp_path / "spool" / "1", 3)
    assert logs.read(1, 0, 6) == b"123\0\0\0"


def test_forgetting_removes_the_file_and_is_no_error_twice(logs: Logs, loop: Loop, tmp_path: Path) -> None:
    writing = begin(logs, 1)
    os.write(writing, b"x")
    finish(logs, loop, 1)
    logs.forget(1)
    logs.forget(1)
    logs.forget(2)
    # Requests are done in order, so the file is gone when the next one is done.
    logs.add(3, None)
    finish(logs, loop, 3)
    assert list((tmp_path / "spool").iterdir()) == []
    os.close(writing)


def test_files_of_a_predecessor_are_removed(tmp_path: Path, loop: Loop) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "17").write_text("old")
    Logs(tmp_path / "spool", loop.call, loop.grew).close()
    assert list((tmp_path / "spool").iterdir()) == []


def test_f34_any_bytes_and_lines_of_any_length_arrive(master: MasterDouble, worker: WorkerProcess) -> None:
    script = (
        "import hashlib, os, random, sys\n"
        "noise = random.Random(1)\n"
        "digest = hashlib.sha256()\n"
        "for _ in range(40):\n"
        "    data = noise.randbytes(1 << 20).replace(b'\\n', b'\\0')\n"
        "    digest.update(data)\n"
        "    sys.stdout.buffer.write(data)\n"
        "sys.stdout.flush()\n"
        "open(os.environ['TITAN_SHARED_DIR'] + '/digest', 'w').write(digest.hexdigest())\n"
    )
    fence = master.grant(script)
    master.wait(lambda: fence in master.ended, "the end")
    log = bytes(master.logs[fence])
    assert len(log) == 40 << 20
    (shared,) = (worker.folder / "shared").iterdir()
    assert hashlib.sha256(log).hexdigest() == (shared / "digest").read_text()


def test_f33_a_flood_is_capped_and_memory_stays(master: MasterDouble, start_worker: StartWorker) -> None:
    cap = 3_000_000
    worker = start_worker(environ={"TITAN_LIMIT_LOG_JOB_BYTES_MAX": str(cap)})
    script = "import sys\nfor _ in range(20_000):\n    print('x' * 9_999)\nprint('END')\nraise SystemExit(4)\n"
    fences = [master.grant(script) for _ in range(4)]
    for fence in fences:
        ended, log = master.end(fence)
        assert ended.exit_code == 4
        assert cap - 4096 < len(log) <= cap
        assert log.endswith("[titan] log capped: 197004100 bytes after the first 2995904 were dropped\n")
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    peak_kib = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    assert peak_kib < 150 * 1024


def test_output_comes_while_the_job_runs(master: MasterDouble, worker: WorkerProcess, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "meeting")
    fence = master.grant("import sys\nprint('first')\nopen(sys.argv[1]).read()\n", args=(str(tmp_path / "meeting"),))
    master.wait_log(fence, "first\n")
    assert fence not in master.ended
    os.close(os.open(tmp_path / "meeting", os.O_WRONLY))
    assert master.end(fence)[1] == "first\n"


def test_acknowledged_logs_leave_the_spool(master: MasterDouble, worker: WorkerProcess) -> None:
    for _ in range(3):
        master.run("print('x')\n")
    worker.stop()
    assert list((worker.folder / "spool").iterdir()) == []
