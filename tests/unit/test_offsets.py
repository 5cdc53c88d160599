"""Log bytes arrive once and in order, whatever a worker sends again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titan.core.commit import LogChunk
from titan.master.offsets import Gap, Offsets
from titan.model.wire import Dropped, Output


def known(durable: int = 0) -> Offsets:
    offsets = Offsets(log_bytes_max=1_000)
    offsets.begin("w", 7, durable)
    return offsets


def test_bytes_received_before_are_trimmed_and_a_gap_is_refused() -> None:
    offsets = known()
    assert offsets.receive("w", Output(7, 0, b"abc")) == [LogChunk(7, 0, b"abc")]
    assert offsets.receive("w", Output(7, 1, b"bcde")) == [LogChunk(7, 3, b"de")]
    assert offsets.receive("w", Output(7, 2, b"cd")) == []
    with pytest.raises(Gap, match="5 bytes"):
        offsets.receive("w", Output(7, 6, b"x"))
    with pytest.raises(Gap):
        offsets.receive("w", Output(7, -1, b"x"))


def test_only_what_is_durable_is_told_as_durable() -> None:
    offsets = known(durable=2)
    (chunk,) = offsets.receive("w", Output(7, 0, b"abcd"))
    assert chunk == LogChunk(7, 2, b"cd")
    assert offsets.durable(7) == 2
    offsets.keep(chunk)
    assert offsets.durable(7) == 4


def test_a_worker_cannot_write_into_the_log_of_another() -> None:
    with pytest.raises(Gap, match="not that of other"):
        known().receive("other", Output(7, 0, b"x"))


LIMIT = "the Master keeps at most 1000 bytes of a log"


def test_what_is_over_the_limit_of_a_log_is_one_hole_that_grows() -> None:
    offsets = known()
    assert offsets.receive("w", Output(7, 0, b"x" * 900)) == [LogChunk(7, 0, b"x" * 900)]
    last = offsets.receive("w", Output(7, 900, b"y" * 300))
    assert last == [LogChunk(7, 900, b"y" * 100), LogChunk(7, 1_000, b"", 200, LIMIT)]
    assert offsets.durable(7) == 0
    for chunk in last:
        offsets.keep(chunk)
    assert offsets.durable(7) == 1_200
    assert offsets.receive("w", Output(7, 1_200, b"z")) == [LogChunk(7, 1_000, b"", 201, LIMIT)]
    assert offsets.receive("w", Dropped(7, 1_201, 5, "a reason")) == [LogChunk(7, 1_201, b"", 5, "a reason")]


def test_the_limit_counts_what_is_kept_and_after_a_restart_of_the_master_too() -> None:
    offsets = Offsets(log_bytes_max=1_000)
    offsets.begin("w", 7, durable=1_000_000, kept=998)
    assert offsets.receive("w", Output(7, 1_000_000, b"zzz")) == [
        LogChunk(7, 1_000_000, b"zz"),
        LogChunk(7, 1_000_002, b"", 1, LIMIT),
    ]


@pytest.mark.parametrize("kept", [1_001, 5_000])
def test_a_limit_that_was_lowered_below_what_is_kept_keeps_nothing_more(kept: int) -> None:
    offsets = Offsets(log_bytes_max=1_000)
    offsets.begin("w", 7, durable=kept, kept=kept)
    assert offsets.receive("w", Output(7, kept, b"z" * 9_000)) == [LogChunk(7, kept, b"", 9_000, LIMIT)]


def test_i32_what_a_worker_has_dropped_stands_in_its_place() -> None:
    offsets = known()
    offsets.receive("w", Output(7, 0, b"abc"))
    assert offsets.receive("w", Dropped(7, 1, 2, "trimmed away")) == []
    assert offsets.receive("w", Dropped(7, 1, 9, "full")) == [LogChunk(7, 3, b"", 7, "full")]
    assert offsets.receive("w", Dropped(7, 10, 5, "full")) == [LogChunk(7, 3, b"", 12, "full")]
    assert offsets.receive("w", Output(7, 15, b"x")) == [LogChunk(7, 15, b"x")]
    assert offsets.receive("w", Dropped(7, 16, 5, "full" * 100)) == [LogChunk(7, 16, b"", 5, "full" * 64)]
    with pytest.raises(Gap):
        offsets.receive("w", Dropped(7, 22, 1, "full"))


def test_an_attempt_that_is_over_takes_no_more_and_a_known_one_begins_only_once() -> None:
    offsets = known()
    offsets.receive("w", Output(7, 0, b"abc"))
    offsets.begin("w", 7, 0)
    assert offsets.receive("w", Output(7, 0, b"abc")) == []
    assert offsets.unknown([7, 8]) == [8]
    offsets.end("other", 7)
    assert offsets.durable(7) == 0
    offsets.end("w", 7)
    offsets.keep(LogChunk(7, 0, b"abc"))
    assert (offsets.receive("w", Output(7, 3, b"x")), offsets.durable(7), offsets.count()) == ([], None, 0)


def test_what_lives_no_more_can_be_forgotten() -> None:
    offsets = known()
    offsets.begin("w", 8)
    offsets.keep_only(lambda fence: fence == 8)
    assert offsets.unknown([7, 8]) == [7]
    offsets.end_all()
    assert offsets.count() == 0


@given(st.binary(max_size=60), st.lists(st.tuples(st.integers(0, 70), st.integers(0, 30)), max_size=20))
def test_whatever_is_sent_again_the_log_is_the_bytes_in_order_once(log: bytes, sends: list[tuple[int, int]]) -> None:
    offsets = known()
    got = b""
    for begin, length in sends:
        data = log[begin : begin + length]
        try:
            chunks = offsets.receive("w", Output(7, begin, data))
        except Gap:
            assert begin > len(got)
            continue
        for chunk in chunks:
            assert chunk.offset == len(got)
            got += chunk.data
    assert got == log[: len(got)]
