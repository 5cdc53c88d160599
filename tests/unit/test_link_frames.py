"""What a worker sends is refused unless it is exactly what the protocol says; nothing is guessed."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from titan.master.link import LinkFault, check_hello, decode
from titan.model.spec import JobSpec, decode_spec, encode_spec
from titan.model.wire import (
    CLOSE_BAD_FRAME,
    CLOSE_PROTOCOL,
    PROTOCOL,
    Ended,
    Held,
    Hello,
    Renew,
    Started,
    WorkerMessage,
    decode_master_frame,
    decode_worker_frame,
    encode_frame,
)

HELLO = Hello("w", "inc", "boot", PROTOCOL, "0.1.0", ("GENERAL",), 2, (Held(1, True),))
RETURNED = {"type": "returned", "fence": 1, "reason": "TT"}
MAX = 1_000_000


def fault_of(frame: bytes) -> LinkFault:
    with pytest.raises(LinkFault) as caught:
        decode(frame, MAX)
    return caught.value


def test_a_frame_is_a_list_of_messages() -> None:
    messages: list[WorkerMessage] = [HELLO, Started(1), Renew(3)]
    assert decode(encode_frame(messages), MAX) == messages


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"type": "renew", "seq": 1}),
        msgspec.msgpack.encode([{"type": "shutdown"}]),
        msgspec.msgpack.encode([{"type": "renew", "seq": "one"}]),
        msgspec.msgpack.encode([{"type": "renew"}]),
        encode_frame([Renew(1)])[:-1],
        b"\x91" * 5_000,
    ],
)
def test_anything_else_closes_the_link(frame: bytes) -> None:
    assert fault_of(frame).code == CLOSE_BAD_FRAME


GRANT = {
    "type": "grant", "fence": 1, "run_id": "r", "job_id": "j", "generation": 1, "attempt": 1, "spec": b"",
    "token": "t", "idempotency_key": "k", "agent_run_id": "a",
}  # fmt: skip


@pytest.mark.parametrize("fence", [-1, 0, 2**63, 2**64 - 1, 1.5, "1", None, True])
def test_s47_a_number_that_no_master_gives_is_refused(fence: object) -> None:
    for message in (
        GRANT | {"fence": fence},
        {"type": "stop", "fence": fence},
        {"type": "recall", "fence": fence},
        {"type": "lend", "fence": fence, "on": True},
        {"type": "ack", "ended": [fence]},
        {"type": "ack", "log_offsets": {fence: 1}},
        {"type": "welcome", "epoch": 1, "stop": [fence]},
        {"type": "welcome", "epoch": 1, "log_offsets": {fence: 1}},
    ):
        with pytest.raises(msgspec.DecodeError):
            decode_master_frame(msgspec.msgpack.encode([message]))


@pytest.mark.parametrize(
    "message",
    [
        GRANT | {"token": "t" * 1025},
        GRANT | {"spec": "text"},
        {"type": "welcome", "epoch": -1},
        {"type": "welcome", "epoch": 1, "log_offsets": {1: -1}},
        {"type": "exec", "argv": ["/bin/sh"]},
    ],
)
def test_s47_words_that_no_master_says_are_refused(message: object) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_master_frame(msgspec.msgpack.encode([message]))


def test_s47_a_text_that_is_not_utf8_is_refused_like_anything_else() -> None:
    for decoded, whole in ((decode_master_frame, GRANT | {"token": "TT"}), (decode_worker_frame, RETURNED)):
        frame = msgspec.msgpack.encode([whole]).replace(b"TT", b"\xff\xfe")
        with pytest.raises(msgspec.DecodeError, match="UTF-8"):
            decoded(frame)
    with pytest.raises(msgspec.DecodeError, match="UTF-8"):
        decode_spec(encode_spec(JobSpec("TT", "f")).replace(b"TT", b"\xff\xfe"))


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_close_the_link(frame: bytes) -> None:
    with contextlib.suppress(LinkFault):
        decode(frame, MAX)


def test_a_frame_over_the_limit_is_not_even_decoded() -> None:
    with pytest.raises(LinkFault, match="at most 3"):
        decode(encode_frame([Renew(1)]), 3)


@pytest.mark.parametrize(
    "ended",
    [
        Ended(1, 2**31),
        Ended(1, 0, signal=256),
        Ended(1, 0, signal=-1),
        Ended(1, 0, log_bytes=-1),
        Ended(1, 0, log_bytes=2**63),
        Ended(1, 0, cause="whim"),
        Ended(1, 0, detail="x" * 5_000),
    ],
)
def test_an_end_that_no_row_could_hold_closes_the_link(ended: Ended) -> None:
    assert fault_of(encode_frame([ended])).code == CLOSE_BAD_FRAME


def test_a_good_hello_passes() -> None:
    assert check_hello(HELLO) is HELLO


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../w"},
        {"name": ""},
        {"capabilities": ("not a tag",)},
        {"capabilities": tuple(f"c{number}" for number in range(65))},
        {"incarnation": "x" * 257},
        {"host": "x" * 257},
        {"predecessor": "x" * 257},
        {"devices": ("x" * 257,)},
        {"devices": ("0",) * 1_001},
        {"slots": -1},
        {"slots": 10_001},
        {"pid": -1},
        {"attempts": (Held(0, True),)},
        {"attempts": (Held(2**63, True),)},
        {"attempts": (Held(5, True), Held(5, False))},
    ],
)
def test_a_hello_with_a_value_out_of_range_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(LinkFault) as caught:
        check_hello(msgspec.structs.replace(HELLO, **changes))
    assert caught.value.code == CLOSE_BAD_FRAME


def test_another_protocol_is_told_what_to_do() -> None:
    with pytest.raises(LinkFault, match="install the same version") as caught:
        check_hello(msgspec.structs.replace(HELLO, protocol=PROTOCOL + 1))
    assert caught.value.code == CLOSE_PROTOCOL


@pytest.mark.parametrize("first", [None, Renew(1)])
def test_the_first_message_is_a_hello(first: WorkerMessage | None) -> None:
    with pytest.raises(LinkFault, match="no hello"):
        check_hello(first)
