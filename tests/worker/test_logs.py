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
from titan.model.wire import Dropped
from titan.worker import spool as spool_module
from titan.worker.logs import Logs
from titan.worker.spool import HEADER_BYTES, Spool


class Loop:
    """Stands for the event loop: what the thread hands over is run in `turn`."""

    def __init__(self) -> None:
        self._calls: queue.Queue[tuple[Callable[..., object], tuple[Any, ...]]] = queue.Queue()
        self.totals: dict[int, int] = {}
        self.holes: list[tuple[int, int, int, str]] = []
        self.threads: set[int] = set()

    def call(self, function: Callable[..., object], *args: Any) -> None:
        self.threads.add(threading.get_ident())
        self._calls.put((function, args))

    def turn(self) -> None:
        function, args = self._calls.get(timeout=30)
        function(*args)

    def grew(self, totals: dict[int, int]) -> None:
        self.totals |= totals

    def skipped(self, fence: int, offset: int, length: int, why: str) -> None:
        assert offset >= self.totals.get(fence, 0), "told too late"
        self.holes.append((fence, offset, length, why))


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def logs(tmp_path: Path, loop: Loop) -> Iterator[Logs]:
    logs = Logs(tmp_path / "spool", loop.call, loop.grew, loop.skipped, cap_bytes=100_000)
    yield logs
    logs.close()


def begin(logs: Logs, fence: int) -> int:
    reading, writing = os.pipe()
    logs.add(fence, reading)
    return writing


def finish(logs: Logs, loop: Loop, fence: int, line: str = "") -> bytes:
    """Finish it and return all that is kept of it; `loop.holes` says where something is missing."""
    totals: list[int] = []
    logs.finish(fence, line, totals.append)
    while not totals:
        loop.turn()
    return kept(logs, loop, fence, totals[0])


def kept(logs: Logs, loop: Loop, fence: int, total: int) -> bytes:
    parts, at = [], 0
    for _, offset, length, _ in [hole for hole in loop.holes if hole[0] == fence]:
        parts.append(logs.read(fence, at, offset - at))
        at = offset + length
    return b"".join([*parts, logs.read(fence, at, total - at)])


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


def test_i31_all_that_was_written_before_the_end_is_there(tmp_path: Path, loop: Loop) -> None:
    logs = Logs(tmp_path / "spool", loop.call, loop.grew, loop.skipped)
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


CAP = "a log keeps its first 50000 and its last 50000 bytes"


def test_the_cap_keeps_both_ends_and_blocks_nobody(logs: Logs, loop: Loop) -> None:
    writing = begin(logs, 1)
    whole = b"".join(b"%09d\n" % number for number in range(30_000))
    for at in range(0, len(whole), 9_999):
        os.write(writing, whole[at : at + 9_999])
    os.close(writing)
    log = finish(logs, loop, 1, "killed: OutOfMemory")
    assert log == whole[:50_000] + whole[-50_000:] + b"[titan] killed: OutOfMemory\n"
    assert loop.holes == [(1, 50_000, 200_000, CAP)]


def test_of_a_log_over_its_head_nothing_is_missing_and_what_is_live_is_its_head(logs: Logs, loop: Loop) -> None:
    writing = begin(logs, 1)
    whole = os.urandom(100_000)
    os.write(writing, whole[:60_000])
    while loop.totals.get(1) != 50_000:
        loop.turn()
    os.write(writing, whole[60_000:])
    os.close(writing)
    assert finish(logs, loop, 1) == whole
    assert loop.totals == {1: 50_000}
    assert loop.holes == []


def test_f9_a_full_disk_is_told_and_blocks_nobody(logs: Logs, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_new_file", lambda _: os.open("/dev/full", os.O_RDWR))
    writing = begin(logs, 1)
    for _ in range(30):
        os.write(writing, b"x" * 10_000)
    os.close(writing)
    assert finish(logs, loop, 1, "exit 1") == b"\n[titan] exit 1\n"
    assert loop.holes == [(1, 0, 300_000, "the worker's disk: No space left on device")]
    monkeypatch.undo()
    other = begin(logs, 2)
    os.write(other, b"fine")
    os.close(other)
    assert finish(logs, loop, 2) == b"fine"


def test_bytes_that_were_lost_are_a_hole_and_the_log_goes_on_behind_it(logs: Logs, loop: Loop) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    writing = begin(logs, 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HEADER_BYTES + 5, before[1]))
    try:
        os.write(writing, b"123456789")
        while 1 not in loop.totals:
            loop.turn()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert loop.totals == {1: 5}
    os.write(writing, b"and on")
    while loop.totals != {1: 15}:
        loop.turn()
    assert loop.holes == [(1, 5, 4, "the worker's disk: File too large")]
    os.close(writing)
    assert finish(logs, loop, 1) == b"12345and on"
    assert len(loop.holes) == 1


def test_what_was_taken_from_the_file_is_nul(logs: Logs, loop: Loop, tmp_path: Path) -> None:
    writing = begin(logs, 1)
    os.write(writing, b"123456")
    os.close(writing)
    finish(logs, loop, 1)
    os.truncate(tmp_path / "spool" / "1", HEADER_BYTES + 3)
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


def test_of_a_predecessor_only_the_spools_that_are_wanted_stay(tmp_path: Path, loop: Loop) -> None:
    (tmp_path / "spool").mkdir()
    for fence in (17, 18):
        spool = Spool(tmp_path / "spool" / str(fence), 10)
        spool.append(memoryview(b"abcdefghijkl"))
        spool.close()
    logs = Logs(tmp_path / "spool", loop.call, loop.grew, loop.skipped, kept=[17, 99])
    assert [file.name for file in (tmp_path / "spool").iterdir()] == ["17"]
    assert kept(logs, loop, 17, logs.restore(17, "killed by SIGKILL (Killed)")) == (
        b"abcdehijkl\n[titan] killed by SIGKILL (Killed)\n"
    )
    assert loop.holes == [(17, 5, 2, "a log keeps its first 5 and its last 5 bytes")]
    assert logs.restore(99, "") == 0
    logs.forget(17)
    logs.forget(99)
    assert list((tmp_path / "spool").iterdir()) == []
    logs.close()


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
    script = "import sys\nfor _ in range(5_000):\n    print('x' * 9_999)\nprint('END')\nraise SystemExit(4)\n"
    fences = [master.grant(script) for _ in range(4)]
    for fence in fences:
        ended, log = master.end(fence)
        assert ended.exit_code == 4
        assert len(log) == cap - 4096
        assert log.endswith("x\nEND\n")
        half = (cap - 4096) // 2
        why = f"a log keeps its first {half} and its last {half} bytes"
        assert master.dropped[fence] == [Dropped(fence, half, 50_000_004 - (cap - 4096), why)]
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
