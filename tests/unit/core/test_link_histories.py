"""Thousands of broken connections between one worker and one Master whose memory is exact.

Judged by what that Master holds: every end it wants, once, with the whole log before it; nothing that was
let go of is missed, nothing ever runs beyond the slots, and nothing starts twice.
"""

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from titan.core.link import WINDOW_BYTES_START, Abandon, Forget, Piece, Prepare, WorkerLink
from titan.model.limits import DEFAULT_LIMITS
from titan.model.wire import Ack, Ended, Grant, Returned, Started, Stop, Welcome

FULL_CHUNK = DEFAULT_LIMITS.output_bytes_max


def grant(fence: int) -> Grant:
    return Grant(fence, "r", "j", 1, 1, b"", "t", "k", "a")


class Histories(RuleBasedStateMachine):
    """One worker, one Master, a network that breaks whenever hypothesis likes."""

    @initialize(slots=st.integers(1, 3))
    def begin(self, slots: int) -> None:
        self.link = WorkerLink(slots)
        self.slots = slots
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
        # The Master, durable.
        self.wanted: dict[int, bool] = {}
        self.lengths: dict[int, int] = {}
        self.results: dict[int, Ended] = {}

    def obey(self, orders: list[object]) -> None:
        for order in orders:
            if isinstance(order, Prepare):
                assert order.grant.fence not in self.begun
                self.preparing.add(order.grant.fence)
            elif isinstance(order, Abandon):
                self.preparing.discard(order.fence)
            elif isinstance(order, Forget):
                assert order.fence not in self.jobs
                assert order.fence not in self.wanted or order.fence not in self.true_ends
                self.logs.pop(order.fence, None)

    @precondition(lambda self: not self.connected)
    @rule()
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
        self.to_worker.append(Welcome(epoch=1, stop=stop, log_offsets=offsets))

    @precondition(lambda self: self.connected)
    @rule()
    def cut(self) -> None:
        self.connected = False
        self.to_master.clear()
        self.to_worker.clear()
        self.link.disconnected()

    @precondition(lambda self: self.connected and len(self.wanted) < self.slots)
    @rule()
    def master_grants(self) -> None:
        self.fence += 1
        self.wanted[self.fence] = False
        self.to_worker.append(grant(self.fence))

    @precondition(lambda self: self.connected and self.wanted)
    @rule(data=st.data())
    def master_stops(self, data: st.DataObject) -> None:
        self.to_worker.append(Stop(data.draw(st.sampled_from(sorted(self.wanted)))))

    @precondition(lambda self: self.wanted)
    @rule(data=st.data())
    def master_gives_up_on_one(self, data: st.DataObject) -> None:
        if not self.connected:
            del self.wanted[data.draw(st.sampled_from(sorted(self.wanted)))]

    @precondition(lambda self: self.to_worker)
    @rule()
    def worker_reads(self) -> None:
        message = self.to_worker.popleft()
        if isinstance(message, Welcome):
            self.obey(list(self.link.welcome(message)))
        elif isinstance(message, Grant):
            self.obey(list(self.link.grant(message)))
        elif isinstance(message, Stop):
            self.obey(list(self.link.stop(message)))
        elif isinstance(message, Ack):
            self.obey(list(self.link.ack(message, self.now_ms)))

    @rule(passed_ms=st.integers(0, 3_000))
    def worker_sends(self, passed_ms: int) -> None:
        self.now_ms += passed_ms
        self.to_master.extend(self.link.next_frame(self.now_ms))

    @precondition(lambda self: self.to_master)
    @rule()
    def master_reads(self) -> None:
        message = self.to_master.popleft()
        fence: int = message.fence  # type: ignore[attr-defined]
        if isinstance(message, Returned):
            assert not self.wanted.pop(fence, False)
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

    @precondition(lambda self: self.preparing)
    @rule(data=st.data(), possible=st.booleans())
    def worker_starts(self, data: st.DataObject, possible: bool) -> None:
        fence = data.draw(st.sampled_from(sorted(self.preparing)))
        self.preparing.discard(fence)
        if not possible:
            self.obey(list(self.link.returned(fence, "no memory")))
        elif self.link.hand_over(fence):
            self.begun.add(fence)
            self.jobs[fence] = 0
            self.link.started(fence, 0)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), count=st.integers(1, 3 * WINDOW_BYTES_START))
    def job_prints(self, data: st.DataObject, count: int) -> None:
        fence = data.draw(st.sampled_from(sorted(self.jobs)))
        self.jobs[fence] += count
        self.link.log_grew(fence, self.jobs[fence])

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def job_ends(self, data: st.DataObject) -> None:
        fence = data.draw(st.sampled_from(sorted(self.jobs)))
        self.true_ends[fence] = Ended(fence, fence % 256, log_bytes=self.jobs.pop(fence))
        self.obey(list(self.link.ended(self.true_ends[fence])))

    @invariant()
    def never_more_than_the_slots(self) -> None:
        if hasattr(self, "link"):
            assert len(self.jobs) + len(self.preparing) <= self.slots
            for fence, result in self.results.items():
                assert result == self.true_ends[fence]

    def teardown(self) -> None:
        """Let everything finish on a link that holds: the Master then knows all that it wanted to know."""
        if not hasattr(self, "link"):
            return
        self.preparing.clear()
        for fence in list(self.jobs):
            self.true_ends[fence] = Ended(fence, 1, log_bytes=self.jobs.pop(fence))
            self.link.ended(self.true_ends[fence])
        if not self.connected:
            self.connect()
        for _ in range(10_000):
            if not (self.to_worker or self.to_master) and not self.link.online:
                break
            self.worker_sends(0)
            if self.to_master:
                self.master_reads()
            elif self.to_worker:
                self.worker_reads()
            else:
                break
        ended_and_wanted = {fence for fence in self.true_ends if fence in self.wanted}
        assert ended_and_wanted == set()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
