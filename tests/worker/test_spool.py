"""A spool keeps a beginning and an end, knows what is missing, and can be taken over whenever its process dies."""

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titan.worker import spool as spool_module
from titan.worker.spool import HEAD_HOLES_MAX, HEADER_BYTES, HOLES_MAX, Hole, Spool, recover


class Killed(Exception):
    """The process is gone."""


class Disk:
    """Stands before os.pwrite: fails or dies as told, and knows what the file then holds."""

    def __init__(self, dies_after: int = -1) -> None:
        self.fails = False
        self.dies_after = dies_after
        self._pwrite = os.pwrite

    def pwrite(self, descriptor: int, data: bytes | memoryview, position: int) -> int:
        if self.dies_after == 0:
            raise Killed
        self.dies_after -= 1
        if self.fails:
            raise OSError(28, "No space left on device")
        return self._pwrite(descriptor, data, position)


def shown(spool: Spool) -> list[bytes | Hole]:
    """All of it: bytes and holes in order."""
    found: list[bytes | Hole] = []
    at = 0
    for hole in spool.holes():
        assert hole.offset >= at
        found += [spool.read(at, hole.offset - at), hole]
        at = hole.end
    found.append(spool.read(at, spool.length - at))
    return found


def agrees(spool: Spool, whole: bytes) -> int:
    """Every byte that is said to be there is the one that was printed; return how many are."""
    kept = at = 0
    for piece in shown(spool):
        if isinstance(piece, bytes):
            assert piece == whole[at : at + len(piece)]
            kept += len(piece)
        at += piece.length if isinstance(piece, Hole) else len(piece)
    assert at == spool.length
    return kept


def numbered(size: int) -> bytes:
    return b"".join(b"%07d\n" % number for number in range(size // 8 + 1))[:size]


def test_a_file_that_cannot_be_removed_is_left(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "1", 100)
    spool.append(memoryview(b"x"))
    spool.path.unlink()
    spool.path.mkdir()
    spool.remove()
    assert spool.path.exists()


WRITES = st.lists(st.tuples(st.integers(1, 70), st.booleans()), max_size=60)


@given(WRITES, st.integers(2, 200), st.integers(1, 8))
@settings(deadline=None)
def test_i32_whatever_the_disk_does_what_is_kept_is_true_and_the_rest_is_said(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, bool]], cap: int, claim: int
) -> None:
    disk = Disk()
    spool = Spool(tmp_path_factory.mktemp("spool") / "1", cap)
    whole = numbered(70 * 60)
    told: list[Hole] = []
    at = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", disk.pwrite)
        patch.setattr(spool_module, "CLAIM_BYTES", claim)
        for size, fails in writes:
            disk.fails = fails
            spool.append(memoryview(whole[at : at + size]))
            at += size
            end, ended = spool.live()
            assert ended[: len(told)] == told
            told = ended
            assert all(hole.end <= end for hole in told)
        spool.end()
    assert spool.total == at
    assert spool.holes()[: len(told)] == told
    assert agrees(spool, whole[:at]) <= cap
    if not any(fails for _, fails in writes):
        assert agrees(spool, whole[:at]) == min(at, cap)
    spool.remove()


@given(WRITES, st.integers(2, 200), st.integers(1, 8), st.integers(0, 150))
@settings(deadline=None)
def test_i32_whenever_its_process_is_killed_what_can_be_taken_over_is_true(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, bool]], cap: int, claim: int, dies_after: int
) -> None:
    disk = Disk(dies_after)
    path = tmp_path_factory.mktemp("spool") / "1"
    spool = Spool(path, cap)
    whole = numbered(70 * 60)
    at = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", disk.pwrite)
        patch.setattr(spool_module, "CLAIM_BYTES", claim)
        try:
            for size, fails in writes:
                disk.fails = fails
                spool.append(memoryview(whole[at : at + size]))
                at += size
        except Killed:
            at += size
    spool.close()
    taken = recover(path)
    assert taken.total <= at
    kept = agrees(taken, whole[:at])
    assert kept <= cap
    if at <= cap and not any(fails for _, fails in writes) and disk.dies_after > 0:
        assert kept == at
    taken.remove()


def test_lines_of_ours_begin_a_line_and_follow_on_each_other(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "1", 100)
    spool.append(memoryview(b"no newline"))
    spool.add_line("killed")
    spool.add_line("and more")
    assert spool.read(0, spool.length) == b"no newline\n[titan] killed\n[titan] and more\n"
    assert spool.read(12, 9) == b"titan] ki"
    spool.close()
    taken = recover(tmp_path / "1")
    assert taken.read(0, taken.length) == b"no newline"
    taken.add_line("lost")
    assert taken.read(0, taken.length) == b"no newline\n[titan] lost\n"
    taken.remove()


def test_whether_its_last_line_was_ended_is_known_over_a_restart_though_the_byte_is_missing(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "1", 10)
    spool.append(memoryview(b"0123456789abc\n"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HEADER_BYTES, before[1]))
    try:
        spool.append(memoryview(b"a line\n"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    spool.close()
    taken = recover(tmp_path / "1")
    taken.add_line("lost")
    assert taken.read(taken.total, taken.length - taken.total) == b"[titan] lost\n"
    taken.remove()


def test_i33_there_are_never_more_holes_than_the_header_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk()
    monkeypatch.setattr(os, "pwrite", disk.pwrite)
    spool = Spool(tmp_path / "1", 2_000)
    whole = numbered(100_000)
    for number in range(10_000):
        disk.fails = number % 2 == 0
        spool.append(memoryview(whole[number * 10 : number * 10 + 10]))
        assert len(spool.live()[1]) <= HEAD_HOLES_MAX
    spool.end()
    assert len(spool.holes()) <= HOLES_MAX + 2
    # In the ring there is room again as soon as what is missing there would have been overwritten anyway.
    assert agrees(spool, whole) > 200
    spool.close()
    assert agrees(recover(tmp_path / "1"), whole) > 200


def damage_checksum(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8)
        file.write(b"\xff")


def make_nonsense(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(HEADER_BYTES))


@pytest.mark.parametrize("harm", [damage_checksum, make_nonsense, Path.unlink])
def test_a_spool_that_cannot_be_read_is_empty(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    spool = Spool(tmp_path / "1", 10)
    spool.append(memoryview(b"0123456789abc"))
    spool.close()
    harm(tmp_path / "1")
    taken = recover(tmp_path / "1")
    assert (taken.length, taken.holes()) == (0, [])
