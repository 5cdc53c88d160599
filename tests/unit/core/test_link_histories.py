"""Thousands of broken connections between one worker and one Master whose memory is exact.

Judged by what that Master holds: every end it wants, once, with the whole log before it; nothing that was
let go of is missed, nothing ever begins beyond the slots, nothing starts twice, nothing that was given back
starts at all, and what waits is begun at once, by rank, when a slot is free.
"""

from collections import deque
from collections.abc import Iterable
from random import Random

import pytest

from tests.unit.core.links import grant
from titan.core.link import WINDOW_BYTES_START, Abandon, Forget, Prepare, WorkerLink
from titan.core.pieces import Piece
from titan.model.limits import DEFAULT_LIMITS
from titan.model.wire import Ack, Drain, Draining, Ended, Grant, Lend, Recall, Returned, Started, Stop, Welcome

FULL_CHUNK = DEFAULT_LIMITS.output_bytes_max
AHEAD_MAX = 4
STEPS = 150
HISTORIES = 800


class History:
    """One worker, one Master, and a network that breaks whenever chance likes."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.slots = random.randint(1, 3)
        self.link = WorkerLink(self.slots)
        self.now_ms = 1
        self.fence = 0
        self.connected = False
        self.to_master: deque[object] = deque()
        self.to_worker: deque[object] = deque()
        # This machine.
        self.preparing: set[int] = set()
        self.jobs: dict[int, int] = {}
        self.logs: dict[int, int] = {}
        self.true_ends: dict[int, Ended] = {}
        self.begun: set[int] = set()
        self.given_back: set[int] = set()
        self.ranks: dict[int, tuple[int, int]] = {}
        self.waiting: set[int] = set()
        self.lent: set[int] = set()
        self.known: set[int] = set()
        self.unwanted: set[int] = set()
        self.draining = False
        # The Master, durable.
        self.wanted: dict[int, bool] = {}
        self.lengths: dict[int, int] = {}
        self.results: dict[int, Ended] = {}

    def step(self) -> None:
        """Something happens: one of all that could, the rare things rarely."""
        possible = {
            self.connect: 1.0 * (not self.connected),
            self.cut: 0.1 * self.connected,
            self.master_grants: 1.0 * (self.connected and len(self.wanted) < self.slots + AHEAD_MAX),
            self.master_asks: 0.5 * (self.connected and bool(self.wanted)),
            self.master_drains: 0.005 * self.connected,
            self.master_gives_up_on_one: 0.5 * (not self.connected and bool(self.wanted)),
            self.network_repeats_a_grant: 0.2 * (self.connected and bool(self.known)),
            self.master_reads: 2.0 * bool(self.to_master),
            self.worker_reads: 2.0 * bool(self.to_worker),
            self.worker_sends: 1.0,
            self.worker_starts: 1.0 * bool(self.preparing),
            self.worker_leaves: 0.005,
            self.job_prints: 0.5 * bool(self.jobs),
            self.job_ends: 0.5 * bool(self.jobs),
        }
        self.random.choices(list(possible), list(possible.values()))[0]()
        self.check()

    def one_of(self, fences: Iterable[int]) -> int:
        return self.random.choice(sorted(fences))

    def obey(self, orders: list[object]) -> None:
        for order in orders:
            if isinstance(order, Prepare):
                self.prepare(order.grant.fence)
            elif isinstance(order, Abandon):
                assert order.fence not in self.begun
                self.preparing.discard(order.fence)
                self.waiting.discard(order.fence)
            elif isinstance(order, Forget):
                assert order.fence not in self.jobs
                assert order.fence not in self.wanted or order.fence not in self.true_ends
                self.logs.pop(order.fence, None)

    def prepare(self, fence: int) -> None:
        assert not self.draining
        assert fence not in self.begun | self.given_back
        assert self.taken() < self.slots
        assert self.ranks[fence] == min(self.ranks[other] for other in self.waiting)
        self.waiting.discard(fence)
        self.preparing.add(fence)

    def taken(self) -> int:
        return len(self.preparing) + len(set(self.jobs) - self.lent)

    def connect(self) -> None:
        held = {item.fence: item for item in self.link.hello(self.now_ms)}
        assert set(self.jobs) <= set(held)
        # What the Master wanted and the worker does not hold is the Master's to grant again.
        for fence in [fence for fence in self.wanted if fence not in held]:
            assert fence not in self.true_ends
            del self.wanted[fence]
        stop = tuple(fence for fence in held if fence not in self.wanted)
        self.wanted = {fence: started or held[fence].started for fence, started in self.wanted.items()}
        offsets = {fence: self.lengths.get(fence, 0) for fence in self.wanted}
        self.connected = True
        assert self.link.draining == self.draining
        self.to_worker.append(Welcome(epoch=1, stop=stop, log_offsets=offsets))

    def cut(self) -> None:
        self.connected = False
        self.to_master.clear()
        self.to_worker.clear()
        self.link.disconnected()

    def master_grants(self) -> None:
        priority = self.random.randint(0, 2)
        self.fence += 1
        self.wanted[self.fence] = False
        self.ranks[self.fence] = (-priority, self.fence)
        self.to_worker.append(grant(self.fence, priority))

    def network_repeats_a_grant(self) -> None:
        fence = self.one_of(self.known)
        self.to_worker.append(grant(fence, -self.ranks[fence][0]))

    def master_drains(self) -> None:
        self.to_worker.append(Drain())

    def worker_leaves(self) -> None:
        self.draining = True
        self.obey(list(self.link.leave()))

    def master_asks(self) -> None:
        fence = self.one_of(self.wanted)
        questions = [Stop(fence), Recall(fence), Lend(fence, on=True), Lend(fence, on=False)]
        self.to_worker.append(self.random.choice(questions))

    def master_gives_up_on_one(self) -> None:
        del self.wanted[self.one_of(self.wanted)]

    def worker_reads(self) -> None:
        message = self.to_worker.popleft()
        if isinstance(message, Welcome):
            self.lent.clear()
            self.unwanted |= set(message.stop) & set(self.jobs)
            # What had not begun is gone as soon as nobody wants it.
            self.waiting -= set(message.stop)
            self.obey(list(self.link.welcome(message)))
        elif isinstance(message, Grant):
            if not (self.draining or message.fence in self.known):
                self.waiting.add(message.fence)
            self.known.add(message.fence)
            self.obey(list(self.link.grant(message)))
        elif isinstance(message, Recall):
            self.obey(list(self.link.recall(message)))
        elif isinstance(message, Lend):
            if message.fence in self.jobs and message.fence not in self.unwanted:
                (self.lent.add if message.on else self.lent.discard)(message.fence)
            self.obey(list(self.link.lend(message)))
        elif isinstance(message, Drain):
            self.draining = True
            self.obey(list(self.link.drain()))
        elif isinstance(message, Stop):
            self.obey(list(self.link.stop(message)))
        elif isinstance(message, Ack):
            self.obey(list(self.link.ack(message, self.now_ms)))

    def worker_sends(self) -> None:
        self.now_ms += self.random.randint(0, 3_000)
        self.to_master.extend(self.link.next_frame(self.now_ms))

    def master_reads(self) -> None:
        message = self.to_master.popleft()
        if isinstance(message, Draining):
            return
        fence: int = message.fence  # type: ignore[attr-defined]
        if isinstance(message, Returned):
            assert not self.wanted.pop(fence, False)
            # Never both.
            assert fence not in self.begun or message.reason == "the worker was granted this attempt before"
            self.given_back.add(fence)
        elif fence not in self.wanted:
            assert not isinstance(message, Started)
        elif isinstance(message, Started):
            self.wanted[fence] = True
        elif isinstance(message, Piece):
            assert message.offset <= self.lengths.get(fence, 0)
            assert 0 < message.length <= FULL_CHUNK
            self.lengths[fence] = max(self.lengths.get(fence, 0), message.offset + message.length)
            self.to_worker.append(Ack(log_offsets={fence: self.lengths[fence]}))
        elif isinstance(message, Ended):
            assert self.wanted.pop(fence)
            assert fence not in self.results
            assert self.lengths.get(fence, 0) == message.log_bytes
            self.results[fence] = message
            self.to_worker.append(Ack(ended=(fence,)))

    def worker_starts(self) -> None:
        fence = self.one_of(self.preparing)
        self.preparing.discard(fence)
        if self.random.random() < 0.2:
            self.obey(list(self.link.returned(fence, "no memory")))
        elif self.link.hand_over(fence):
            self.begun.add(fence)
            assert fence not in self.given_back
            self.jobs[fence] = 0
            self.link.started(fence, 0)

    def job_prints(self) -> None:
        fence = self.one_of(self.jobs)
        self.jobs[fence] += self.random.randint(1, 3 * WINDOW_BYTES_START)
        self.link.log_grew(fence, self.jobs[fence])

    def job_ends(self) -> None:
        fence = self.one_of(self.jobs)
        self.true_ends[fence] = Ended(fence, fence % 256, log_bytes=self.jobs.pop(fence))
        self.lent.discard(fence)
        self.obey(list(self.link.ended(self.true_ends[fence])))

    def check(self) -> None:
        assert not self.waiting or self.taken() >= self.slots
        assert (self.link.running, self.link.waiting) == (self.taken() + len(self.lent), len(self.waiting))
        for fence, result in self.results.items():
            assert result == self.true_ends[fence]

    def finish(self) -> None:
        """Let everything end on a link that holds: the Master then knows all that it wanted to know."""
        if not self.connected:
            self.connect()
        while True:
            self.worker_sends()
            if self.to_master:
                self.master_reads()
            elif self.to_worker:
                self.worker_reads()
            elif self.preparing:
                self.worker_starts()
            elif self.jobs:
                self.job_ends()
            else:
                break
            self.check()
        assert self.wanted == {}
        assert not self.link.owes


@pytest.mark.parametrize("part", range(4))
def test_whatever_comes_in_whatever_order_nothing_is_lost_and_nothing_runs_twice(part: int) -> None:
    for seed in range(part, HISTORIES, 4):
        history = History(Random(seed))
        try:
            for _ in range(STEPS):
                history.step()
            history.finish()
        except Exception as error:
            error.add_note(f"history {seed}")
            raise
