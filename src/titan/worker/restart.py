"""What a worker does about its predecessor before it says hello: ends its processes, and takes on what it owed.

After this every attempt the predecessor had begun is over: with the end its record tells, or lost. They are
named to the Master as held and reported like our own, so they run again within seconds and not after a
lease, and a job that had ended does not run again at all.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from titan.core.link import WorkerLink
from titan.model.wire import CAUSE_LOST, Ended
from titan.worker import outbox
from titan.worker.logs import Logs
from titan.worker.outbox import Begun, Outbox, Over, Own, Remembered
from titan.worker.sweep import Sweep, end_launcher

_CUT_SHORT = "log may lack its end: the worker was killed while it read it"


class Owed(msgspec.Struct):
    """An attempt of the predecessor, its end, and what its log says last."""

    begun: Begun
    ended: Ended
    line: str


class Predecessor:
    """What the record in `folder` says of the process before this one, whose own are all dead now.

    Blocks until they are; `say` tells a person.
    """

    def __init__(self, folder: Path, boot_id: str, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._boot_id = boot_id
        past = outbox.read(folder)
        sessions: dict[int, int] = {}
        if past.boot_id == boot_id:
            for pid, start in past.launchers.items():
                end_launcher(pid, start)
            # It may have written until just now.
            past = outbox.read(folder)
            running = [attempt for attempt in past.attempts.values() if attempt.running and attempt.session]
            sessions = {attempt.session: attempt.started_boot_ms for attempt in running}
        killed, left = Sweep(folder, sessions, past.alive_ms).run()
        if killed:
            say(f"killed {killed} processes that this worker's jobs had left when it was killed")
        if left:
            say(f"{left} processes of those jobs cannot be killed")
        if not past.whole:
            say("its record of attempts is damaged; what cannot be read counts as not known")
        self._claim: Own | None = None
        if past.own is not None and past.own.boot_id == boot_id and past.whole:
            self._claim = past.own
        now_ms = time.time_ns() // 1_000_000
        self._owed = [owed for attempt in past.attempts.values() for owed in _owed(attempt, now_ms)]

    @property
    def incarnation(self) -> str:
        """The one whose record is whole: what it had begun is what it says, and nothing else. "" when it is not."""
        return self._claim.incarnation if self._claim is not None else ""

    @property
    def fences(self) -> frozenset[int]:
        """The attempts that something is owed of."""
        return frozenset(owed.begun.fence for owed in self._owed)

    def hand_on(self, logs: Logs, link: WorkerLink) -> tuple[Outbox, list[Ended]]:
        """Let `link` hold the attempts and what is kept of their logs; return the record from here on, and the ends."""
        ends = []
        restored = []
        for owed in self._owed:
            fence = owed.begun.fence
            link.restore(fence)
            length = logs.restore(fence, owed.line)
            if length < owed.ended.log_bytes:
                # The spool was there when its length was recorded.
                link.log_skipped(fence, length, owed.ended.log_bytes - length, "the worker's disk: no longer there")
                length = owed.ended.log_bytes
            ended = msgspec.structs.replace(owed.ended, log_bytes=length)
            link.ended(ended)
            ends.append(ended)
            restored.append((owed.begun, Over(ended, owed.line)))
        return Outbox(self._folder, self._boot_id, self._claim, restored), ends


def _owed(attempt: Remembered, now_ms: int) -> Iterator[Owed]:
    end = attempt.end(now_ms)
    if end is None:
        return
    ended, line = end
    if attempt.over is None and ended.cause != CAUSE_LOST:
        line = f"{_CUT_SHORT}\n[titan] {line}" if line else _CUT_SHORT
    yield Owed(attempt.begun, ended, line)
