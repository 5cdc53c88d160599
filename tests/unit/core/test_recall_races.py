"""Ten thousand races of a recall against a start: the scheduler and the worker's link, coupled by slow wires.

Two workers of one slot each, messages in flight in order each way, delivered at random moments. One worker is quick
and holds a job ahead; the other falls idle, so that the Master asks for it back just as it may begin. However the
race goes, each job runs exactly once, and nobody runs more than it has slots for.
"""

from collections import Counter, deque
from random import Random

import pytest

from tests.unit.core.harness import Harness, job
from titan.core.events import AttemptEnded, AttemptReturned, AttemptStarted, WorkerConnected
from titan.core.link import Abandon, Order, Prepare, WorkerLink
from titan.model.states import JobState
from titan.model.wire import Ack, Ended, Grant, Recall, Returned, Started, Welcome

RACES = 10_000
SLICES = 20
JOBS = 6


class Machine:
    """One worker: its link, what it prepares and runs, and both directions of its wire."""

    def __init__(self, name: str, slots: int) -> None:
        self.name = name
        self.slots = slots
        self.link = WorkerLink(slots)
        self.to_worker: deque[object] = deque()
        self.to_master: deque[object] = deque()
        self.preparing: dict[int, Grant] = {}
        self.running: dict[int, Grant] = {}


class Race:
    """Both machines and the Master."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.h = Harness()
        self.begun: Counter[str] = Counter()
        self.recalls = Counter[str]()
        self.asked: set[int] = set()
        self.read = 0
        self.machines = {name: Machine(name, 1) for name in "ab"}
        for name, machine in self.machines.items():
            machine.link.hello(1)
            self.h.tell(WorkerConnected(name, "1", "boot", ("GENERAL",), machine.slots, ()))
            # Its pace is known from before: short.
            self.h.scheduler.memory.workers[name].pace_ms = 5
        self.run_id = self.h.submit(*(job(f"j{number}", priority=random.randrange(2)) for number in range(JOBS)))
        self.post()

    def post(self) -> None:
        """Put what the Master sent on the wires."""
        while self.read < len(self.h.sent):
            name, message = self.h.sent[self.read]
            self.read += 1
            self.machines[name].to_worker.append(message)
            if isinstance(message, Recall):
                assert message.fence not in self.asked, "asked twice"
                self.asked.add(message.fence)
                self.recalls["asked"] += 1

    def step(self) -> bool:
        """One thing happens that could; False when nothing can."""
        able = []
        for machine in self.machines.values():
            able += [(self.arrives, machine)] * bool(machine.to_worker)
            able += [(self.reports, machine)] * bool(machine.to_master)
            able += [(self.hands_over, machine)] * bool(machine.preparing)
            able += [(self.ends, machine)] * bool(machine.running)
        if not able:
            return False
        act, machine = self.random.choice(able)
        act(machine)
        said = machine.link.next_frame(1)
        machine.to_master.extend(said)
        self.post()
        return True

    def obey(self, machine: Machine, orders: list[Order]) -> None:
        for order in orders:
            if isinstance(order, Prepare):
                machine.preparing[order.grant.fence] = order.grant
            elif isinstance(order, Abandon):
                machine.preparing.pop(order.fence, None)

    def arrives(self, machine: Machine) -> None:
        message = machine.to_worker.popleft()
        link = machine.link
        match message:
            case Welcome():
                self.obey(machine, link.welcome(message))
            case Grant():
                self.obey(machine, link.grant(message))
            case Recall():
                held = message.fence in machine.preparing
                self.obey(machine, link.recall(message))
                self.recalls["while preparing"] += held
            case Ack():
                self.obey(machine, link.ack(message, 1))
            case _:
                raise AssertionError(message)

    def reports(self, machine: Machine) -> None:
        message = machine.to_master.popleft()
        match message:
            case Started():
                self.recalls["lost the race"] += message.fence in self.asked
                self.h.tell(AttemptStarted(machine.name, "1", message.fence))
            case Returned():
                assert message.fence in self.asked, message
                self.recalls["given back"] += 1
                self.h.tell(AttemptReturned(machine.name, "1", message.fence, message.reason))
            case Ended():
                self.h.tell(AttemptEnded(machine.name, "1", message, 0.0))
            case _:
                raise AssertionError(message)

    def hands_over(self, machine: Machine) -> None:
        fence, grant = machine.preparing.popitem()
        assert machine.link.hand_over(fence)
        self.begun[grant.job_id] += 1
        assert self.begun[grant.job_id] == 1, f"{grant.job_id} runs twice"
        machine.running[fence] = grant
        assert len(machine.running) <= machine.slots, "more run than there are slots"
        machine.link.started(fence, 1)

    def ends(self, machine: Machine) -> None:
        fence, _ = machine.running.popitem()
        self.obey(machine, machine.link.ended(Ended(fence, 0)))


@pytest.mark.parametrize("part", range(SLICES))
def test_each_job_runs_exactly_once_however_a_recall_and_a_start_race(part: int) -> None:
    seen: Counter[str] = Counter()
    for number in range(RACES // SLICES):
        race = Race(Random(part * RACES + number))
        while race.step():
            pass
        assert race.h.run(race.run_id)["state"] == "COMPLETED"
        assert race.begun == Counter({f"j{each}": 1 for each in range(JOBS)})
        assert set(race.h.states(race.run_id).values()) == {JobState.COMPLETED}
        seen += race.recalls
    assert min(seen["given back"], seen["lost the race"], seen["while preparing"]) > 0, seen
