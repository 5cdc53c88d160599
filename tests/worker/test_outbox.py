"""The record of attempts on disk: what is written is known to the next reader, and what is damaged to nobody."""

import errno
import os
import resource
from pathlib import Path

import pytest

from titan.model.spec import JobSpec
from titan.model.wire import CAUSE_LOST, CAUSE_START_FAILED, CAUSE_TIMEOUT, Ended
from titan.worker import outbox
from titan.worker.launcher import frames, record
from titan.worker.launcher.frames import Report
from titan.worker.outbox import Outbox, Over, Own

BOOT = "a-boot"
SPEC = JobSpec(job_id="a", filename="folder/job.sh", timeout_s=2.5, lease_s=45)


def says(box: Outbox, kind: int, fence: int, a: int = 0, b: int = 0) -> None:
    """What the launcher appends before it tells it."""
    assert record.append(box.descriptor, record.of_report(Report(kind, fence, a, b, 0, 1_000)))


def end(folder: Path, fence: int) -> tuple[Ended, str] | None:
    return outbox.read(folder).attempts[fence].end(77)


def test_the_next_reader_knows_what_began_and_how_it_ended(tmp_path: Path) -> None:
    box = Outbox(tmp_path, BOOT)
    box.own("one")
    for fence in range(1, 6):
        assert box.begun(fence, SPEC)
        says(box, frames.STARTED, fence, 1_000 + fence)
    says(box, frames.ENDED, 1, 3 << 8)
    says(box, frames.ENDED, 2, 9, frames.CAUSE_TIMEOUT)
    whole = Ended(3, 4, log_bytes=99, at_ms=5)
    box.over(whole, "a line")
    box.gone(4)
    box.close()
    past = outbox.read(tmp_path)
    assert (past.own, past.whole, sorted(past.attempts)) == (Own("one", BOOT), True, [1, 2, 3, 5])
    assert end(tmp_path, 1) == (Ended(1, 3, at_ms=1_000), "")
    assert end(tmp_path, 2) == (Ended(2, 137, 9, CAUSE_TIMEOUT, at_ms=1_000), "killed: timeout after 2.5 s")
    assert end(tmp_path, 3) == (whole, "a line")
    lost = past.attempts[5]
    assert lost.running
    assert lost.session == 1_005
    assert end(tmp_path, 5) == (Ended(5, 137, 9, CAUSE_LOST, at_ms=77), "")


def test_an_attempt_the_machine_could_not_start_never_began(tmp_path: Path) -> None:
    box = Outbox(tmp_path, BOOT)
    for fence in (1, 2):
        box.begun(fence, SPEC)
    says(box, frames.NOT_STARTED, 1, errno.EAGAIN, frames.STAGE_FORK)
    says(box, frames.NOT_STARTED, 2, errno.ENOENT, frames.STAGE_EXEC)
    box.close()
    assert end(tmp_path, 1) is None
    known = end(tmp_path, 2)
    assert known is not None
    assert (known[0].exit_code, known[0].cause) == (127, CAUSE_START_FAILED)
    assert known[1].startswith("could not start job.sh")


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_f51_a_torn_last_line_is_not_guessed(tmp_path: Path, cut: int) -> None:
    box = Outbox(tmp_path, BOOT)
    box.begun(1, SPEC)
    box.over(Ended(1, 0), "")
    box.close()
    (path,) = tmp_path.glob("outbox.*")
    path.write_bytes(path.read_bytes()[:-cut])
    past = outbox.read(tmp_path)
    assert past.attempts[1].end(0) == (Ended(1, 137, 9, CAUSE_LOST), "")
    assert not past.whole


def test_f51_garbage_in_the_middle_costs_that_line_only(tmp_path: Path) -> None:
    box = Outbox(tmp_path, BOOT)
    box.begun(1, SPEC)
    os.write(box.descriptor, b"\n\0\xff garbage\n0123 {}")
    # A line that is whole and says what no version we know of says.
    record.append(box.descriptor, b'{"type":"of a later version"}')
    box.begun(2, SPEC)
    box.close()
    past = outbox.read(tmp_path)
    assert (sorted(past.attempts), past.whole) == ([1, 2], False)


def test_no_record_is_no_past(tmp_path: Path) -> None:
    past = outbox.read(tmp_path / "nowhere")
    assert (past.attempts, past.own, past.whole) == ({}, None, True)


def test_f51_an_attempt_that_cannot_be_recorded_says_so(tmp_path: Path) -> None:
    box = Outbox(tmp_path, BOOT)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = os.fstat(box.descriptor).st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
    try:
        assert not box.begun(1, SPEC)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    # What follows the torn line is known all the same.
    assert box.begun(2, SPEC)
    box.close()
    past = outbox.read(tmp_path)
    assert (sorted(past.attempts), past.whole) == ([2], False)


def test_a_grown_record_is_replaced_by_what_lives(tmp_path: Path) -> None:
    box = Outbox(tmp_path, BOOT)
    box.own("one")
    box.begun(1, SPEC)
    fence = 1
    while not (change := box.renewed()):
        fence += 1
        box.begun(fence, SPEC)
        box.gone(fence)
    number, descriptor = change
    os.close(descriptor)
    old, new = sorted(tmp_path.glob("outbox.*"))
    assert new.name == f"outbox.{number}"
    assert new.stat().st_size < 1_000 < outbox.GROWN_BYTES <= old.stat().st_size
    # The launcher still writes into the old one, and has told it.
    with old.open("ab") as file:
        ended = Report(frames.ENDED, 1, 5 << 8, 0, 0, 8)
        record.append(file.fileno(), record.of_report(ended))
    known = end(tmp_path, 1)
    assert known is not None
    assert known[0].exit_code == 5
    box.heard(ended)
    box.switched(number - 1)
    assert old.exists()
    box.switched(number)
    assert not old.exists()
    past = outbox.read(tmp_path)
    assert (past.own, sorted(past.attempts), past.whole) == (Own("one", BOOT), [1], True)
    assert end(tmp_path, 1) == (Ended(1, 5, at_ms=8), "")
    assert not box.renewed()
    box.close()


def test_what_a_full_disk_kept_out_is_written_once_there_is_room(tmp_path: Path) -> None:
    box = Outbox(tmp_path, BOOT)
    box.begun(1, SPEC)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = os.fstat(box.descriptor).st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
    try:
        box.over(Ended(1, 0, log_bytes=9), "a line")
        assert not box.renewed()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["outbox.1"]
    assert outbox.read(tmp_path).attempts[1].running
    change = box.renewed()
    assert change is not None
    box.switched(change[0])
    os.close(change[1])
    box.close()
    assert end(tmp_path, 1) == (Ended(1, 0, log_bytes=9), "a line")
    assert outbox.read(tmp_path).whole


def test_the_launcher_is_offered_a_new_file_until_it_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> int:
        raise OSError(errno.EMFILE, "no descriptor is left")

    monkeypatch.setattr(outbox, "GROWN_BYTES", 100)
    box = Outbox(tmp_path, BOOT)
    while len(list(tmp_path.glob("outbox.*"))) == 1:
        box.begun(1, SPEC)
        with monkeypatch.context() as patch:
            patch.setattr(os, "dup", full)
            assert not box.renewed()
    for takes in (False, True):
        change = box.renewed()
        assert change is not None
        number, descriptor = change
        assert os.path.sameopenfile(descriptor, box.descriptor)
        os.close(descriptor)
        assert not box.renewed()
        box.switched(number, done=takes)
    assert not box.renewed()
    assert [path.name for path in tmp_path.glob("outbox.*")] == [f"outbox.{number}"]
    box.close()


def test_a_successor_goes_on_with_what_is_owed(tmp_path: Path) -> None:
    first = Outbox(tmp_path, BOOT)
    first.own("one")
    first.begun(1, SPEC)
    first.begun(2, SPEC)
    first.close()
    past = outbox.read(tmp_path)
    ends = [Ended(fence, 137, 9, CAUSE_LOST, 12) for fence in (1, 2)]
    second = Outbox(tmp_path, BOOT, past.own, [(past.attempts[e.fence].begun, Over(e, "l")) for e in ends])
    second.gone(2)
    second.close()
    assert len(list(tmp_path.glob("outbox.*"))) == 1
    assert end(tmp_path, 1) == (ends[0], "l")
    past = outbox.read(tmp_path)
    assert (sorted(past.attempts), past.own) == ([1], Own("one", BOOT))


def test_the_launcher_named_in_it_is_known_by_its_start(tmp_path: Path) -> None:
    box = Outbox(tmp_path, BOOT)
    box.launched(os.getpid())
    box.launched(2**22 + 1)
    box.close()
    past = outbox.read(tmp_path)
    assert list(past.launchers) == [os.getpid()]
    assert past.boot_id == BOOT
