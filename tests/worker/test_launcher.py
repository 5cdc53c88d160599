"""The launcher by itself: orders over its socket, deadlines of milliseconds, real processes."""

import errno
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.launching import Launcher, ended, line_of, read_all
from tests.worker.processes import FAMILY, HEAD, IGNORE_TERM, STAY, Death, alive, pids_in
from titan.worker.launcher import frames
from titan.worker.launcher.frames import Record, Renewed, Start, Stop, boot_ms
from titan.worker.launcher.oom import OomCounter


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    launcher = Launcher()
    yield launcher
    launcher.close()


def start_family(launcher: Launcher, fence: int) -> dict[str, int]:
    """Start a job whose processes all ignore TERM and are of every kind; return their pids once all are up."""
    reading = launcher.start(fence, IGNORE_TERM + FAMILY + "name = 'main'\n" + STAY + "signal.pause()\n" * 9)
    text = ""
    while len(pids_in(text)) < 5:
        text += line_of(reading)
    return pids_in(text)


def test_a_program_is_started_and_its_exact_status_reported(launcher: Launcher) -> None:
    reading = launcher.start(7, "import os\nprint(os.getpid(), flush=True)\nos._exit(3)\n")
    started = launcher.report()
    assert (started.kind, started.fence) == (frames.STARTED, 7)
    end = launcher.report()
    assert (end.kind, end.fence, os.waitstatus_to_exitcode(end.a), end.b) == (frames.ENDED, 7, 3, 0)
    assert read_all(reading) == f"{started.a}\n"


@pytest.mark.parametrize(
    ("cwd", "program", "code", "stage"),
    [
        (b"/no/such/folder", b"/bin/true", errno.ENOENT, frames.STAGE_FOLDER),
        (b"/", b"/no/such/program", errno.ENOENT, frames.STAGE_EXEC),
        (b"/", b"/etc", errno.EACCES, frames.STAGE_EXEC),
        (b"/", b"/etc/hostname/x", errno.ENOTDIR, frames.STAGE_EXEC),
    ],
)
def test_what_cannot_be_started_says_why(launcher: Launcher, cwd: bytes, program: bytes, code: int, stage: int) -> None:
    launcher.order(Start(1, cwd, [program], []), os.open("/dev/null", os.O_WRONLY))
    report = launcher.report()
    assert (report.kind, report.a, report.b) == (frames.NOT_STARTED, code, stage)


def test_arguments_that_are_no_utf8_arrive(launcher: Launcher) -> None:
    reading, writing = os.pipe()
    words = [b"\xff\xfe", b"", b"a\nb", b"x" * 100_000]
    launcher.order(Start(1, b"/", [b"/usr/bin/printf", b"%s\\0", *words], []), writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert pipe.read() == b"".join(word + b"\0" for word in words)


def test_f40_a_full_descriptor_table_is_the_machines_fault(launcher: Launcher) -> None:
    launcher.start(1, "pass")
    assert ended(launcher)[0] == 0
    before = resource.prlimit(launcher.process.pid, resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir(f"/proc/{launcher.process.pid}/fd")}
    free = [number for number in range(1000) if number not in taken]
    # Room for none, for the job's own pipe, and for one end of the failure pipe.
    for spare in (0, 1, 2):
        resource.prlimit(launcher.process.pid, resource.RLIMIT_NOFILE, (free[spare], before[1]))
        launcher.start(2 + spare, "pass")
        report = launcher.report()
        assert (report.kind, report.fence, report.a) == (frames.NOT_STARTED, 2 + spare, errno.EMFILE)
    # Nor for another record, of which it says so.
    resource.prlimit(launcher.process.pid, resource.RLIMIT_NOFILE, (free[0], before[1]))
    launcher.order(Record(2), launcher.socket.fileno())
    report = launcher.report()
    assert (report.kind, report.fence, report.a) == (frames.SWITCHED, 2, errno.EMFILE)
    resource.prlimit(launcher.process.pid, resource.RLIMIT_NOFILE, before)
    launcher.start(9, "pass")
    assert ended(launcher) == (0, 0)


def test_a_timeout_counts_from_the_start(launcher: Launcher) -> None:
    launcher.start(1, HEAD + "signal.pause()", timeout_ms=200)
    status, cause = ended(launcher)
    assert (os.WTERMSIG(status), cause) == (15, frames.CAUSE_TIMEOUT)


def test_a_stop_kills_the_whole_tree_after_its_grace(launcher: Launcher) -> None:
    pids = start_family(launcher, 1)
    launcher.order(Stop(1, frames.CAUSE_CANCELLED, 100))
    status, cause = ended(launcher)
    assert (os.WTERMSIG(status), cause) == (9, frames.CAUSE_CANCELLED)
    assert alive(pids) == {}


def test_the_first_cause_stands_and_the_earliest_kill_counts(launcher: Launcher) -> None:
    reading = launcher.start(1, IGNORE_TERM + "print('up', flush=True)\nwhile True: signal.pause()\n")
    line_of(reading)
    launcher.order(Stop(1, frames.CAUSE_WORKER_STOP, 3_600_000))
    launcher.order(Stop(1, frames.CAUSE_CANCELLED, 0))
    status, cause = ended(launcher)
    assert (os.WTERMSIG(status), cause) == (9, frames.CAUSE_WORKER_STOP)


def test_a_stop_that_overtakes_the_exec_still_stops(launcher: Launcher) -> None:
    for fence in range(1, 30):
        launcher.start(fence, HEAD + "while True: signal.pause()")
        launcher.order(Stop(fence, frames.CAUSE_CANCELLED, 3_600_000))
    ends: dict[int, tuple[int, int]] = {}
    while len(ends) < 29:
        report = launcher.report()
        if report.kind == frames.ENDED:
            ends[report.fence] = (os.WTERMSIG(report.a), report.b)
    assert set(ends.values()) == {(15, frames.CAUSE_CANCELLED)}


def test_i28_a_lease_without_answers_ends_the_job_by_itself(launcher: Launcher) -> None:
    # Term and kill margins of this job, counted from the renewal the fixture told of.
    reading = launcher.start(1, IGNORE_TERM + "name = 'main'\n" + STAY + STAY, lease_term_ms=2_000, lease_kill_ms=2_100)
    pids = pids_in(line_of(reading))
    launcher.start(2, HEAD + "name = 'never'\n" + STAY)
    status, cause = ended(launcher)
    assert (os.WTERMSIG(status), cause) == (9, frames.CAUSE_LEASE)
    assert alive(pids) == {}


def test_i28_a_lease_kills_what_is_ending_for_another_cause(launcher: Launcher) -> None:
    reading = launcher.start(1, IGNORE_TERM + "name = 'main'\n" + STAY + STAY, lease_term_ms=2_000, lease_kill_ms=2_100)
    line_of(reading)
    launcher.order(Stop(1, frames.CAUSE_CANCELLED, 3_600_000))
    status, cause = ended(launcher)
    assert (os.WTERMSIG(status), cause) == (9, frames.CAUSE_CANCELLED)


def test_answered_renewals_keep_a_job(launcher: Launcher) -> None:
    launcher.order(Renewed(boot_ms() + 3_600_000))
    launcher.start(1, HEAD + "signal.pause()", lease_term_ms=1, lease_kill_ms=2)
    # An older answer that comes later moves nothing back.
    launcher.order(Renewed(boot_ms()))
    # Only its own timeout ends the second, so had the lease counted, the first would have ended before.
    launcher.start(2, HEAD + "signal.pause()", timeout_ms=200)
    reports = [launcher.report() for _ in range(3)]
    assert [(report.kind, report.fence) for report in reports][-1] == (frames.ENDED, 2)


def test_an_end_says_how_many_were_left_and_had_to_be_killed(launcher: Launcher) -> None:
    # One that leaves in its grace is not counted, one that fell to us dead with its group is.
    launcher.start(1, HEAD + FAMILY + "if os.fork() == 0: os._exit(0)\nprint('main leaves', flush=True)\n")
    assert [launcher.report().killed, launcher.report().killed] == [0, 4]
    launcher.start(2, HEAD + "if os.fork() == 0:\n    os.setsid()\n    os.fork()\n    signal.pause()\n")
    assert [launcher.report().killed, launcher.report().killed] == [0, 2]
    launcher.start(3, "pass")
    assert [launcher.report().killed, launcher.report().killed] == [0, 0]


def test_f27_end_of_file_from_the_worker_kills_all(launcher: Launcher) -> None:
    deaths = [Death(pid) for fence in range(1, 4) for pid in start_family(launcher, fence).values()]
    assert len(deaths) == 15
    launcher.socket.close()
    assert launcher.process.wait(30) == 0
    assert all(death.wait(0) for death in deaths)


def test_the_launcher_dies_and_main_processes_with_it(launcher: Launcher) -> None:
    reading = launcher.start(1, IGNORE_TERM + "name = 'main'\n" + STAY)
    death = Death(pids_in(line_of(reading))["main"])
    launcher.process.kill()
    assert death.wait()


def test_each_of_many_starts_and_ends_once_in_that_order(launcher: Launcher) -> None:
    # Descriptors and pids of those that ended are used again by those that start.
    null = os.open("/dev/null", os.O_WRONLY)
    kinds: dict[int, list[int]] = {}
    given = 0
    while len([1 for seen in kinds.values() if frames.ENDED in seen]) < 400:
        while given < 400 and given - len([1 for seen in kinds.values() if frames.ENDED in seen]) < 6:
            given += 1
            launcher.order(Start(given, b"/", [b"/bin/true"], []), null)
        report = launcher.report()
        kinds.setdefault(report.fence, []).append(report.kind)
    os.close(null)
    assert set(map(tuple, kinds.values())) == {(frames.STARTED, frames.ENDED)}


def test_orders_in_pieces_and_in_heaps(launcher: Launcher) -> None:
    null = os.open("/dev/null", os.O_WRONLY)
    order = frames.encode_order(Start(1, b"/", [b"/bin/true", b"x" * 70_000], []))
    socket.send_fds(launcher.socket, [order[:1]], [null])
    launcher.socket.sendall(order[1:5_000])
    launcher.socket.sendall(order[5_000:])
    assert ended(launcher) == (0, 0)
    for fence in range(2, 40):
        launcher.order(Start(fence, b"/", [b"/bin/true"], []), null)
    os.close(null)
    fences: set[int] = set()
    while len(fences) < 38:
        report = launcher.report()
        if report.kind == frames.ENDED:
            fences.add(report.fence)
    assert fences == set(range(2, 40))


def test_kills_for_memory_are_counted_in_either_format(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("pgfault 12\noom_kill 3\nzswpin 0\n")
    (tmp_path / "memory.events").write_text("oom_kill 4\noom_group_kill 9\n")
    paths = [str(tmp_path / name) for name in ("vmstat", "memory.events", "missing")]
    counter = OomCounter(paths)
    assert counter.read() == 7
    (tmp_path / "vmstat").write_text("pgfault 99\noom_kill 13\n")
    assert counter.read() == 17
    assert OomCounter([]).read() == 0
    assert OomCounter().read() >= 0
