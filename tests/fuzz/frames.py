"""Frames of a worker's link: what a worker says, from a grammar, then damaged; in any order, of any size."""

import random
from collections.abc import Callable
from typing import Any

import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.sync.client import ClientConnection

from tests.fuzz.target import WAIT_S, Findings, Stop, Target
from titan.model.wire import CAUSES, PROTOCOL, Grant, RenewAck, decode_master_frame

LOOK_EVERY = 50
FRAMES_MAX = 6
SEQ = 987_654_321
NUMBERS = (0, 1, -1, 2**31, 2**53, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 1.5, float("nan"), float("inf"))
ODD: tuple[Any, ...] = (*NUMBERS, None, True, "", "x", "\x00", "\u202e", "x" * 5_000, b"", b"\xff" * 100, [], {}, [[]])
RAW = (b"", b"\xc1", b"\x90", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xd9\x05ab")
# The Master says what it failed at with this one; no input may make it fail.
OURS = {CloseCode.INTERNAL_ERROR}


def hello(draw: random.Random, fences: list[int]) -> dict[str, Any]:
    held = [
        {"fence": fence, "started": draw.random() < 0.5} for fence in draw.sample(fences, draw.randint(0, len(fences)))
    ]
    return {
        "type": "hello",
        "name": f"fuzz-{draw.randint(1, 8)}",
        "incarnation": str(draw.randint(1, 3)),
        "boot_id": "boot",
        "protocol": PROTOCOL,
        "version": "0",
        "capabilities": ["fuzz"],
        "slots": draw.randint(0, 4),
        "attempts": held,
        "pid": draw.randint(0, 2**22),
        "host": "host",
        "epoch_seen": 0,
        "predecessor": draw.choice(["", "1", "2"]),
        "devices": [],
        "draining": draw.random() < 0.1,
    }


def message(draw: random.Random, fences: list[int]) -> dict[str, Any]:
    fence = draw.choice([*fences, draw.randint(1, 2**40)]) if draw.random() < 0.9 else draw.choice(NUMBERS)
    offset = draw.choice([0, 0, 0, draw.randint(0, 5_000)])
    makers: list[Callable[[], dict[str, Any]]] = [
        lambda: {"type": "started", "fence": fence, "at_ms": draw.randint(0, 2**41)},
        lambda: {"type": "output", "fence": fence, "offset": offset, "data": draw.randbytes(draw.randint(0, 3_000))},
        lambda: {"type": "dropped", "fence": fence, "offset": offset, "length": draw.randint(1, 5_000), "why": "full"},
        lambda: {
            "type": "ended",
            "fence": fence,
            "exit_code": draw.randint(-1, 300),
            "signal": draw.randint(0, 64),
            "cause": draw.choice(["", *CAUSES]),
            "log_bytes": offset,
            "at_ms": 1,
            "detail": "",
        },
        lambda: {"type": "returned", "fence": fence, "reason": draw.choice(["", "no room"])},
        lambda: {"type": "renew", "seq": draw.randint(0, 2**40)},
        lambda: {"type": "draining"},
        lambda: hello(draw, fences),
    ]
    return draw.choices(makers, [4, 6, 3, 4, 3, 4, 1, 1])[0]()


def damaged(draw: random.Random, value: Any) -> Any:
    """Return a message or a list of them with one part of it replaced, removed, doubled or nested."""
    if isinstance(value, list) and value and draw.random() < 0.8:
        place = draw.randrange(len(value))
        return [*value[:place], damaged(draw, value[place]), *value[place + 1 :]]
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        kind = draw.randrange(4)
        if kind == 0:
            return {name: part for name, part in value.items() if name != key}
        if kind == 1:
            return {**value, draw.choice(["surprise", "fence", "type", "x" * 300]): draw.choice(ODD)}
        return {**value, key: damaged(draw, value[key])}
    if draw.random() < 0.1:
        for _ in range(draw.choice([2, 40, 3_000])):
            value = [value]
        return value
    return draw.choice(ODD)


def bytes_of(draw: random.Random, messages: Any) -> bytes:
    """Return a frame; some are cut, flipped, oversized or no msgpack at all."""
    try:
        frame = msgspec.msgpack.encode(messages)
    except (RecursionError, OverflowError, ValueError):
        return b"\x91" * 3_000
    chance = draw.random()
    if chance < 0.10:
        return frame[: draw.randint(0, len(frame))]
    if chance < 0.20:
        changed = bytearray(frame)
        for _ in range(draw.randint(1, 5)):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        return bytes(changed)
    if chance < 0.24:
        return frame + draw.choice(RAW)
    if chance < 0.27:
        return draw.choice(RAW)
    if chance < 0.28:
        return draw.choice([b"\x91" * 200_000, b"\x81" * 200_000, b"\xdd\x00\x0f\x42\x40" + b"\xc0" * 1_000_000])
    if chance < 0.285:
        return frame + bytes(2**20)
    return frame


class FrameFuzzer:
    """One campaign: `stop` says when it ends. The jobs it is granted give it fences that mean something."""

    def __init__(self, target: Target, seed: int, stop: Stop) -> None:
        self.target = target
        self.draw = random.Random(f"frames {seed}")
        self.stop = stop
        self.found = Findings(answers={}, findings=[])
        self.fences: list[int] = []
        self.fed = ""

    def run(self) -> Findings:
        found = self.found
        while not self.stop.now(found.cases) and not found.findings:
            if found.cases % LOOK_EVERY == 0:
                self._feed()
            found.cases += 1
            sent: list[bytes | str] = []
            answer = self._case(sent)
            found.count(answer)
            if answer in {f"close {code}" for code in OURS}:
                found.findings.append(f"case {found.cases}: {answer}: {[frame[:300] for frame in sent]!r}")
            if found.cases % LOOK_EVERY == 0 and (problem := self.target.problem()):
                found.findings.append(f"before case {found.cases}: {problem}")
        if problem := self.target.problem():
            found.findings.append(f"at the end: {problem}")
        return found

    def _feed(self) -> None:
        """Give the links work, jobs that only they may run; what is left of the work before is cancelled."""
        jobs = [
            {"job_id": f"j{number}", "filename": "job.py", "requirement": ["fuzz"], "retries": number % 3}
            for number in range(4)
        ]
        if self.fed:
            self.target.ask("POST", f"/runs/{self.fed}/cancel")
        self.fed = self.target.ask("POST", "/runs", {"name": "fuzz", "jobs": jobs})["run"]["id"]

    def _case(self, sent: list[bytes | str]) -> str:
        draw = self.draw
        try:
            with self.target.connecting() as link:
                first = [hello(draw, self.fences)]
                if draw.random() < 0.25:
                    first = damaged(draw, first)
                self._send(link, bytes_of(draw, first) if draw.random() < 0.3 else _whole(first), sent)
                for _ in range(draw.randint(0, FRAMES_MAX)):
                    said: Any = [message(draw, self.fences) for _ in range(draw.randint(0, 5))]
                    if draw.random() < 0.4:
                        said = damaged(draw, said)
                    self._send(link, "text" if draw.random() < 0.01 else bytes_of(draw, said), sent)
                if draw.random() < 0.5:
                    return "hung up"  # in the middle of whatever it was
                self._send(link, _whole([{"type": "renew", "seq": SEQ}]), sent)
                while not self._heard(link):
                    pass
                return "heard"
        except ConnectionClosed as end:
            return f"close {end.rcvd.code}" if end.rcvd else "cut"

    def _send(self, link: ClientConnection, frame: bytes | str, sent: list[bytes | str]) -> None:
        sent.append(frame)
        link.send(frame)

    def _heard(self, link: ClientConnection) -> bool:
        frame = link.recv(WAIT_S)
        messages = decode_master_frame(frame) if isinstance(frame, bytes) else []
        self.fences += [each.fence for each in messages if isinstance(each, Grant)]
        del self.fences[:-20]
        return RenewAck(SEQ) in messages


def _whole(messages: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(messages)
    except (RecursionError, OverflowError, ValueError):
        return b"\x91" * 3_000
