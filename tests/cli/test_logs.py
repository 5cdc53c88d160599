"""The last lines of a log, whatever pieces it comes in."""

from typing import Any

import pytest

from titan.cli import logs
from titan.cli.ask import LogPiece

LINES = [b"line %d\n" % number for number in range(1, 1_001)]


class Kept:
    """A log that is answered in pieces of `size` bytes, and how often it was asked for."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.size, self.asked = data, size, 0

    def log_piece(self, _job: object, offset: int, *, attempt: int | None) -> LogPiece:
        self.asked += 1
        begin = max(0, len(self.data) + offset) if offset < 0 else offset
        data = self.data[begin : begin + self.size]
        return LogPiece(data, "", begin + len(data), len(self.data), complete=True)


def tail(kept: Any, lines: int) -> bytes:
    return b"".join(piece.data for piece in logs._tail(kept, {}, None, lines))


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
@pytest.mark.parametrize("end", [b"", b"unfinished"])
@pytest.mark.parametrize("lines", [1, 2, 50])
def test_the_last_lines_are_whole(size: int, end: bytes, lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "TAIL_BYTES", 16)
    data = b"".join(LINES) + end
    assert tail(Kept(data, size), lines) == b"".join(data.splitlines(keepends=True)[-lines:])


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n", b"one", b"one\n", b"one\n\n", b"one\ntwo"])
def test_a_log_with_fewer_lines_is_whole(data: bytes) -> None:
    assert tail(Kept(data, 1), 3) == data


def test_no_more_is_read_than_the_lines_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "TAIL_BYTES", 64)
    kept = Kept(b"".join(LINES), 1_000_000)
    assert tail(kept, 3) == b"".join(LINES[-3:])
    assert kept.asked == 1


def test_lines_without_an_end_are_cut_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "TAIL_BYTES", 64)
    monkeypatch.setattr(logs, "TAIL_BYTES_MAX", 1_024)
    assert tail(Kept(b"x" * 5_000, 300), 2) == b"x" * 1_024
