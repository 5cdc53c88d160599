"""What is asked of the launcher, and what is done with its answers; the launcher is a recorder here."""

import errno
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.worker.bench import SPEC, Bench, bench
from titan.model.spec import encode_spec
from titan.model.wire import CAUSE_LOST, Ended, Grant, Recall, Returned, Started
from titan.worker import attempts as attempts_module
from titan.worker import outbox as outbox_module
from titan.worker.launcher import frames, record
from titan.worker.launcher.frames import Record, Renewed, Report, Start, boot_ms
from titan.worker.policy import Policy
from titan.worker.workspace import Workspaces


@pytest.mark.parametrize(
    ("changes", "margins"),
    [
        ({}, (0, 45_000, 50_000)),
        ({"lease_s": 30, "timeout_s": 1.5}, (1_500, 15_000, 20_000)),
        ({"on_lost": "fail", "timeout_s": 60.0}, (60_000, 0, 0)),
    ],
)
def test_deadlines_are_given_to_the_launcher(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, Any], margins: tuple[int, int, int]
) -> None:
    async def story(here: Bench) -> None:
        here.grant(1, msgspec.structs.replace(SPEC, **changes))
        start = here.launcher.orders[-1]
        assert isinstance(start, Start)
        assert (start.timeout_ms, start.lease_term_ms, start.lease_kill_ms) == margins
        assert start.argv == [b"/the/python", b"job.py"]
        assert start.cwd == os.fsencode(tmp_path / "jobs" / "1")

    bench(monkeypatch, tmp_path, story)


def test_every_answered_renewal_reaches_the_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def story(here: Bench) -> None:
        here.answer(here.link.answered_ms + 77)
        first, last = here.launcher.orders
        assert isinstance(first, Renewed)
        assert isinstance(last, Renewed)
        assert last.at_ms == first.at_ms + 77

    bench(monkeypatch, tmp_path, story)


@pytest.mark.parametrize(
    ("code", "stage"),
    [
        (errno.EAGAIN, frames.STAGE_FORK),
        (errno.ENOMEM, frames.STAGE_FORK),
        (errno.ENOENT, frames.STAGE_FOLDER),
        (errno.ENOMEM, frames.STAGE_EXEC),
        (errno.EMFILE, frames.STAGE_FORK),
    ],
)
def test_f40_the_machines_faults_give_the_attempt_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, stage: int
) -> None:
    async def story(here: Bench) -> None:
        here.grant(1)
        here.report(frames.NOT_STARTED, 1, code, stage)
        returned = await here.next(Returned)
        assert returned == Returned(1, f"it cannot be started here: {os.strerror(code)}")
        assert here.link.running == 0
        assert not [message for message in here.sent if isinstance(message, (Started, Ended))]

    bench(monkeypatch, tmp_path, story)
    assert list((tmp_path / "jobs").iterdir()) == []


def test_no_room_for_the_folder_gives_the_attempt_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def story(here: Bench) -> None:
        (tmp_path / "jobs").rmdir()
        (tmp_path / "jobs").write_text("in the way")
        here.grant(1)
        assert await here.next(Returned) == Returned(1, "no folder for it can be made here: Not a directory")
        assert len(here.launcher.orders) == 1

    bench(monkeypatch, tmp_path, story)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_f40_a_full_disk_or_table_gives_the_attempt_back_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    async def story(here: Bench) -> None:
        def full(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "sendfile", full)
        here.grant(1)
        assert await here.next(Returned) == Returned(1, f"no folder for it can be made here: {os.strerror(code)}")
        monkeypatch.undo()
        monkeypatch.setattr(os, "pipe2", full)
        monkeypatch.setattr(attempts_module, "GIVE_BACK_DELAY_S", 0)
        here.grant(2)
        assert await here.next(Returned) == Returned(2, f"no pipe for it can be made here: {os.strerror(code)}")
        assert not [message for message in here.sent if isinstance(message, (Started, Ended))]

    bench(monkeypatch, tmp_path, story)
    assert list((tmp_path / "jobs").iterdir()) == []


def test_a_large_script_is_copied_by_a_thread_and_runs_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def story(here: Bench) -> None:
        large = b"#" * (attempts_module.COPIED_AT_ONCE_BYTES + 1)
        sha256 = hashlib.sha256(large).hexdigest()
        (tmp_path / "scripts" / sha256).write_bytes(large)
        here.grant(1, msgspec.structs.replace(SPEC, script=sha256))
        here.launcher.ordered.clear()
        await here.launcher.ordered.wait()
        assert isinstance(here.launcher.orders[-1], Start)
        assert (tmp_path / "jobs" / "1" / "job.py").read_bytes() == large

    bench(monkeypatch, tmp_path, story)


def test_on_a_slow_disk_folders_are_made_where_renewals_do_not_wait_for_them_until_it_is_fast_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock_ms, slow_ms = [boot_ms()], [1_000]
    where: list[bool] = []
    real = Workspaces.make

    def make(self: Workspaces, *args: Any) -> str:
        where.append(threading.current_thread() is threading.main_thread())
        clock_ms[0] += slow_ms[0]
        return real(self, *args)

    monkeypatch.setattr(Workspaces, "make", make)
    monkeypatch.setattr(attempts_module, "boot_ms", lambda: clock_ms[0])

    async def story(here: Bench) -> None:
        for fence in range(1, 5):
            here.launcher.ordered.clear()
            here.answer(clock_ms[0])
            here.grant(fence)
            while not any(isinstance(order, Start) and order.fence == fence for order in here.launcher.orders):
                await here.launcher.ordered.wait()
                here.launcher.ordered.clear()
            here.report(frames.STARTED, fence)
            here.report(frames.ENDED, fence)
            await here.next(Ended)
            slow_ms[0] = 0 if fence == 2 else slow_ms[0]

    bench(monkeypatch, tmp_path, story)
    assert where == [True, False, False, True]


def test_f35_what_waited_beyond_its_lease_is_not_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def story(here: Bench) -> None:
        here.link.answered_ms -= 45_000
        here.link.disconnected()
        here.grant(1)
        # The next hello gives it back by not naming it.
        assert here.link.hello(boot_ms()) == ()
        # One that nobody else may be granted does not depend on it.
        here.grant(2, msgspec.structs.replace(SPEC, on_lost="fail"))
        assert isinstance(here.launcher.orders[-1], Start)

    bench(monkeypatch, tmp_path, story)


def test_f35_the_first_grant_after_a_long_absence_waits_for_an_answer_and_is_not_given_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def story(here: Bench) -> None:
        here.link.answered_ms -= 45_000
        here.grant(1)
        # The welcome itself says nothing about a renewal, and an attempt may be had back all the while.
        here.grant(2)
        here.attempts.answered(here.link.answered_ms)
        here.attempts.obey(here.link.recall(Recall(2)))
        assert await here.next(Returned) == Returned(2)
        assert not [order for order in here.launcher.orders if isinstance(order, Start)]
        here.answer(boot_ms())
        while not isinstance(here.launcher.orders[-1], Start):
            here.launcher.ordered.clear()
            await here.launcher.ordered.wait()
        assert here.launcher.orders[-1].fence == 1
        assert here.sent == []

    bench(monkeypatch, tmp_path, story)
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["1"]


def test_an_end_is_told_after_its_log_and_before_the_clean_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def story(here: Bench) -> None:
        here.grant(1)
        here.report(frames.STARTED, 1, a=4242)
        assert await here.next(Started) == Started(1, 5, "exec: the worker was started without warm starts")
        here.report(frames.ENDED, 1, a=9, b=frames.CAUSE_LEASE)
        ended = await here.next(Ended)
        line = "[titan] killed: no contact with the Master, lease of 60 s\n"
        assert ended == Ended(1, 137, 9, "lease", len(line), 5)
        assert here.logs.read(1, 0, len(line)) == line.encode()

    bench(monkeypatch, tmp_path, story)
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["1"]


def test_a_start_is_said_at_once_unless_others_wait_for_a_slot_then_it_goes_with_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(attempts_module, "START_WAIT_S", 3_600)

    async def story(here: Bench) -> None:
        here.grant(1)
        here.changed.clear()
        here.report(frames.STARTED, 1, a=4242)
        assert here.changed.is_set()
        assert (await here.next(Started)).fence == 1
        for fence in (2, 3):
            here.grant(fence)
        here.changed.clear()
        here.report(frames.STARTED, 2, a=4243)
        assert not here.changed.is_set()
        here.report(frames.ENDED, 1)
        await here.changed.wait()
        assert (await here.next(Ended)).fence == 1
        assert [message.fence for message in here.sent if isinstance(message, Started)] == [2]

    bench(monkeypatch, tmp_path, story)


def test_the_record_of_a_job_that_is_silent_for_long_stays_small(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(outbox_module, "GROWN_BYTES", 1_000)

    async def story(here: Bench) -> None:
        here.grant(1)
        numbers: list[int] = []
        while len(numbers) < 3:
            here.attempts.tend_record()
            if isinstance(order := here.launcher.orders[-1], Record):
                numbers.append(order.number)
                # The first time it has no room for the descriptor.
                here.report(frames.SWITCHED, order.number, errno.EMFILE if len(numbers) == 1 else 0)
                here.launcher.orders.clear()
                here.launcher.orders.append(Renewed(0))
        assert numbers == [2, 2, 3]

    bench(monkeypatch, tmp_path, story)
    assert sum(path.stat().st_size for path in tmp_path.glob("outbox.*")) < 3_000


def test_f52_what_a_killed_launcher_had_recorded_is_how_it_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def story(here: Bench) -> None:
        for fence in (1, 2):
            here.grant(fence)
            here.report(frames.STARTED, fence, a=4242)
        # It was killed between the record and the word of it.
        for report in (Report(frames.ENDED, 1, 7 << 8, 0, 0, 9), Report(frames.STARTED, 2, 4243, 0, 0, 9)):
            assert record.append(here.launcher.recording, record.of_report(report))
        here.launcher.on_gone()
        assert await here.next(Ended) == Ended(1, 7, at_ms=9)
        lost = await here.next(Ended)
        assert (lost.fence, lost.exit_code, lost.signal, lost.cause) == (2, 137, 9, CAUSE_LOST)

    bench(monkeypatch, tmp_path, story)


def test_f52_what_a_killed_launcher_could_not_start_goes_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def story(here: Bench) -> None:
        here.grant(1)
        failed = Report(frames.NOT_STARTED, 1, errno.EAGAIN, frames.STAGE_FORK, 0, 9)
        assert record.append(here.launcher.recording, record.of_report(failed))
        here.launcher.on_gone()
        assert (await here.next(Returned)).fence == 1
        assert not [message for message in here.sent if isinstance(message, (Started, Ended))]

    bench(monkeypatch, tmp_path, story)


@pytest.mark.parametrize(
    "changes",
    [
        {"filename": ".."},
        {"filename": "x/"},
        {"filename": "a\0b.py"},
        {"args": ("a\0b",)},
        {"env": {"A=B": "c"}},
        {"env": {"TITAN_TOKEN": "stolen"}},
        {"script": "../../../etc/passwd"},
        {"script": ""},
        {"args": ("x" * 200_000,)},
        {"timeout_s": float("nan")},
        {"lease_s": 2**62},
    ],
)
def test_s47_a_description_that_no_master_should_send_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, Any]
) -> None:
    async def story(here: Bench) -> None:
        here.grant(1, msgspec.structs.replace(SPEC, **changes))
        ended = await here.next(Ended)
        assert (ended.exit_code, ended.cause) == (127, "start_failed")
        assert len(here.launcher.orders) == 1

    bench(monkeypatch, tmp_path, story)
    assert list((tmp_path / "jobs").iterdir()) == []


@pytest.mark.parametrize("field", ["token", "run_id", "job_id", "idempotency_key"])
def test_s47_a_grant_that_no_program_could_be_told_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, field: str
) -> None:
    async def story(here: Bench) -> None:
        grant = Grant(1, "r", "j", 1, 1, encode_spec(SPEC), "t", "k", "a")
        here.attempts.obey(here.link.grant(msgspec.structs.replace(grant, **{field: "a\0b"})))
        assert (await here.next(Ended)).cause == "start_failed"
        assert len(here.launcher.orders) == 1

    bench(monkeypatch, tmp_path, story)


def test_s47_refusals_are_told_and_do_not_flood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(attempts_module, "REFUSALS_SAID", 2)
    monkeypatch.setattr(attempts_module, "REFUSALS_EACH", 5)

    async def story(here: Bench) -> None:
        for fence in range(1, 8):
            here.grant(fence, msgspec.structs.replace(SPEC, filename=".."))
            await here.next(Ended)
        assert here.said == [
            "refused attempt 1 of job 'j': filename '..' names no file: give the path of a file",
            "refused attempt 2 of job 'j': filename '..' names no file: give the path of a file",
            "refused attempt 5 of job 'j' (number 5): filename '..' names no file: give the path of a file",
        ]

    bench(monkeypatch, tmp_path, story)


@pytest.mark.parametrize(
    ("content", "filename", "allowed", "reason"),
    [
        (b"print()", "job.py", ("python",), ""),
        (b"print()", "job.py", ("/bin/sh",), "'job.py' runs by 'python'"),
        (b"#!/bin/sh\n", "job.sh", ("/bin/sh", "python"), ""),
        (b"#! \t/bin/sh -e\n", "job.sh", ("/bin/sh",), ""),
        (b"#!/bin/bash\n", "job.sh", ("/bin/sh",), "'job.sh' runs by '/bin/bash'"),
        (b"\x7fELF", "job", ("/bin/sh", "python"), "it is a program without a #! line"),
        (b"#!" + b" " * 300 + b"/bin/sh", "job", ("/bin/sh",), "it is a program without a #! line"),
    ],
)
@pytest.mark.parametrize("large", [False, True])
def test_s47_only_what_its_owner_allows_runs_jobs(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    content: bytes,
    filename: str,
    allowed: tuple[str, ...],
    reason: str,
    large: bool,
) -> None:
    # A large one is looked at by the slow way.
    data = content + b"\n" * (attempts_module.COPIED_AT_ONCE_BYTES if large else 0)
    sha256 = hashlib.sha256(data).hexdigest()

    async def story(here: Bench) -> None:
        (tmp_path / "scripts" / sha256).write_bytes(data)
        here.launcher.ordered.clear()
        here.grant(1, msgspec.structs.replace(SPEC, filename=filename, script=sha256))
        if not reason:
            await here.launcher.ordered.wait()
            assert isinstance(here.launcher.orders[-1], Start)
            return
        ended = await here.next(Ended)
        expected = f"{reason}: this worker allows {', '.join(allowed)} only (--allow-interpreter)"
        assert ended.detail == f"could not start: {expected}"
        assert here.said == [f"refused attempt 1 of job 'j': {expected}"]
        assert len(here.launcher.orders) == 1

    bench(monkeypatch, tmp_path, story, Policy(allowed))


@pytest.mark.parametrize(("asked_s", "timeout_ms"), [(None, 60_000), (3600.0, 60_000), (60.0, 60_000), (2.0, 2_000)])
def test_s47_no_job_runs_longer_than_its_owner_allows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked_s: float | None, timeout_ms: int
) -> None:
    async def story(here: Bench) -> None:
        here.grant(1, msgspec.structs.replace(SPEC, timeout_s=asked_s))
        start = here.launcher.orders[-1]
        assert isinstance(start, Start)
        assert start.timeout_ms == timeout_ms

    bench(monkeypatch, tmp_path, story, Policy(timeout_s_max=60.0))
