"""Frames of a Master that was broken into: what it may say, from a grammar, then damaged; many at once, in any order.

The worker may refuse, close the link with a code and come back, or run a job that is one. S47.
"""

import hashlib
import random
from collections.abc import Callable
from typing import Any

from tests.fuzz.frames import NUMBERS, ODD, bytes_of, damaged
from tests.fuzz.hostile import WorkerTarget, packed
from tests.fuzz.target import Findings, Stop

FRAMES_MAX = 5
GRANTS_MAX = 300
PROGRAMS = (b"print('ok')\n", b"import time\ntime.sleep(600)\n", b"#!/bin/sh\necho ok\n", b"")
DIGESTS = [hashlib.sha256(program).hexdigest() for program in PROGRAMS]
NAMES = (
    "j", "job.py", "../../outside/made", "..", ".", "", "/", "a/b", "a\\b", "a\0b", "~", "$HOME", "x" * 5_000, "-rf",
    "\u202e", "\x1b[2J", "con", "jobs", "../w", "ä.py",
)  # fmt: skip


def spec(draw: random.Random, folder: str) -> dict[str, Any]:
    """Return a description of a job, mostly a good one."""
    names = (*NAMES, f"{folder}/outside/made", f"{folder}/outside/canary")
    fields: dict[str, Callable[[], Any]] = {
        "job_id": lambda: draw.choice(names),
        "filename": lambda: draw.choice(names),
        "script": lambda: draw.choice([*DIGESTS, "0" * 64, "f" * 64, draw.choice(names)]),
        "args": lambda: [draw.choice(names) for _ in range(draw.choice([0, 1, 5, 2_000]))],
        "env": lambda: {draw.choice(["A", "PATH", "HOME", "TITAN_HOME", "LD_PRELOAD", ""]): draw.choice(names)},
        "timeout_s": lambda: draw.choice([*NUMBERS, 0.01, 5.0]),
        "lease_s": lambda: draw.choice([*NUMBERS, 30, 86_400]),
        "requirement": lambda: draw.choice([["GPU"], ["GENERAL"], [draw.choice(names)]]),
        "source_path": lambda: draw.choice(names),
        draw.choice(["cwd", "program", "user", "affinity", "job_type", "python"]): lambda: draw.choice([*names, *ODD]),
    }
    chosen = {"job_id": "j", "filename": "job.py", "script": draw.choice(DIGESTS[:1] * 3 + DIGESTS)}
    for name in draw.sample(list(fields), draw.choice([0, 0, 1, 1, 2, 6])):
        chosen[name] = fields[name]()
    return chosen


def number(draw: random.Random, good: list[int]) -> Any:
    """Return one of `good`, seldom a number that is none."""
    return draw.choice(good) if draw.random() < 0.97 else draw.choice(NUMBERS)


def message(draw: random.Random, fences: list[int], folder: str) -> dict[str, Any]:
    """Return something a Master says. Fences come again, so that what is held is meant."""
    fence = number(draw, [*fences, *range(1, 9)])

    def grant() -> dict[str, Any]:
        told = spec(draw, folder)
        if isinstance(fence, int) and 0 < fence < 2**63:
            fences.append(fence)
            del fences[:-20]
        whole = {
            "type": "grant", "fence": fence, "run_id": "0" * 32, "job_id": "j", "generation": 1, "attempt": 1,
            "spec": packed(damaged(draw, told) if draw.random() < 0.2 else told), "token": "t",
            "idempotency_key": "k", "agent_run_id": "a",
        }  # fmt: skip
        if draw.random() < 0.3:
            field = draw.choice(["run_id", "job_id", "token", "idempotency_key", "agent_run_id"])
            whole[field] = draw.choice([*NAMES, f"{folder}/outside/made"])[:1_000]
        return whole

    offsets = {draw.choice([*fences, 1]): number(draw, [0, 5, 2**40, 2**62]) for _ in range(draw.randint(0, 3))}
    makers: list[Callable[[], dict[str, Any]]] = [
        grant,
        lambda: {"type": "stop", "fence": fence},
        lambda: {"type": "recall", "fence": fence},
        lambda: {"type": "lend", "fence": fence, "on": draw.random() < 0.7},
        lambda: {"type": "ack", "ended": draw.sample(fences, len(fences) // 2), "log_offsets": offsets},
        lambda: {"type": "renew_ack", "seq": number(draw, [0, 1, 2, 2**62])},
        lambda: {"type": "welcome", "epoch": number(draw, [0, 1, 2**62]), "stop": fences[:3], "log_offsets": offsets},
        lambda: {"type": draw.choice(["exec", "hello", "started", "ended", "returned", "output", ""]), "fence": fence},
        lambda: {"type": "drain"},
    ]
    return draw.choices(makers, [12, 5, 3, 3, 4, 2, 0.1, 0.1, 0.03])[0]()


class MasterFrameFuzzer:
    """One campaign against a worker. `stop` says when it ends."""

    def __init__(self, target: WorkerTarget, seed: int, stop: Stop) -> None:
        self.target = target
        self.draw = random.Random(f"master frames {seed}")
        self.stop = stop
        self.fences: list[int] = []

    def run(self) -> Findings:
        """Send until it is over or something is found."""
        found = Findings(answers={}, findings=[])
        target = self.target
        for digest, program in zip(DIGESTS, PROGRAMS, strict=True):
            target.keep(digest, 200, program)
        target.keep("f" * 64, *self.draw.choice([(200, b"other content"), (500, b""), (302, b"")]))
        target.master.welcome = self._welcome
        while not self.stop.now(found.cases) and not found.findings:
            found.cases += 1
            links = target.master.links
            frames = self._case()
            target.send(*frames)
            if problem := target.problem():
                sent = [frame[:300] for frame in frames]
                found.findings.append(f"case {found.cases}: {problem}\nafter {sent!r}")
            found.count("a new link" if target.master.links > links else "the link lasts")
            if any(b"drain" in frame for frame in frames if isinstance(frame, bytes)):
                target.stop()  # it takes no job any more
                target.start()
        return found

    def _welcome(self) -> bytes:
        whole: Any = [{"type": "welcome", "epoch": 1, "stop": [], "log_offsets": {}}]
        if self.draw.random() < 0.8:
            return packed(whole)
        if self.draw.random() < 0.5:
            return packed([message(self.draw, self.fences, str(self.target.folder))])
        return bytes_of(self.draw, damaged(self.draw, whole))

    def _case(self) -> list[bytes | str]:
        draw, folder = self.draw, str(self.target.folder)
        frames: list[bytes | str] = []
        for _ in range(draw.randint(1, FRAMES_MAX)):
            count = draw.choice([0, 1, 1, 2, 5, 20]) if draw.random() < 0.98 else GRANTS_MAX
            said: Any = [message(draw, self.fences, folder) for _ in range(count)]
            if draw.random() < 0.1:
                said = damaged(draw, said)
            frames.append(
                "text" if draw.random() < 0.01 else bytes_of(draw, said) if draw.random() < 0.2 else packed(said)
            )
        return frames
