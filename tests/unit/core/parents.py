"""Jobs that submit runs below and wait for them, played against a scheduler: who is granted does as it is named.

The job `d2` submits runs of a job `d1` and waits for them, that one runs of `d0`, which ends at once. Workers are
judged at every message: never more attempts than slots, but for those whose slot is lent.
"""

from collections.abc import Callable

from tests.unit.core.harness import Harness, job
from titan.core.events import (
    AttemptEnded,
    AttemptStarted,
    EndLend,
    LendSlot,
    WorkerConnected,
    WorkerDisconnected,
)
from titan.model.states import FINAL_RUN_STATES, RunState
from titan.model.wire import Ended, Grant, Held, Lend, Stop, Welcome

Attempt = tuple[str, int]


class Process:
    """A worker process: what it holds, what of that runs and waits, and whose slots are lent."""

    def __init__(self, incarnation: str, slots: int) -> None:
        self.incarnation = incarnation
        self.slots = slots
        self.connected = True
        self.held: dict[int, Grant] = {}
        self.started: set[int] = set()
        self.asking: dict[int, str] = {}
        self.lent: set[int] = set()

    def hear(self, message: object) -> None:
        if isinstance(message, Grant):
            self.held[message.fence] = message
            assert len(self.held.keys() - self.lent) <= self.slots, "granted more than the slots take"
        elif isinstance(message, Lend):
            if message.fence not in self.held:
                return  # it ended while that was on its way
            assert (message.fence in self.lent) != message.on, "lent twice, or never"
            (self.lent.add if message.on else self.lent.discard)(message.fence)
            assert len(self.lent) <= 64
        elif isinstance(message, Welcome):
            self.lent.clear()
            for fence in message.stop:
                self.drop(fence)
        elif isinstance(message, Stop):
            self.drop(message.fence)

    def drop(self, fence: int) -> None:
        self.held.pop(fence, None)
        self.started.discard(fence)
        self.lent.discard(fence)
        self.asking.pop(fence, None)


class Play:
    """`slots` of each worker; `width` runs below each job; a run of `d<levels>` for each of `parents`."""

    def __init__(self, *slots: int, width: int = 1) -> None:
        self.h = Harness()
        self.width = width
        self.processes: dict[str, Process] = {}
        self.below: dict[tuple[str, str], list[str]] = {}
        self.heard = 0
        self.most = 0
        for number, count in enumerate(slots, start=1):
            self.connect(f"w{number}", count)

    def connect(self, name: str, slots: int = 0, anew: bool = False) -> None:
        process = self.processes.get(name)
        predecessor = process.incarnation if process is not None and anew else ""
        if process is None or anew:
            slots = slots or (process.slots if process else 1)
            process = self.processes[name] = Process(f"{name}-{self.heard}", slots)
        process.connected = True
        process.asking.clear()  # those who waited ask again, over a new connection
        held = tuple(Held(fence, fence in process.started) for fence in process.held)
        self.heard = len(self.h.sent)
        event = WorkerConnected(
            name, process.incarnation, "boot", ("GENERAL",), process.slots, held, predecessor=predecessor
        )
        self.h.tell(event)
        self.deliver()

    def disconnect(self, name: str) -> None:
        process = self.processes[name]
        process.connected = False
        self.h.tell(WorkerDisconnected(name, process.incarnation))
        self.deliver()

    def crash(self) -> None:
        self.deliver()
        self.h.crash()
        self.back()

    def back(self) -> None:
        """All workers say hello."""
        for name in self.processes:
            self.connect(name)

    def submit(self, count: int, levels: int) -> None:
        for _ in range(count):
            self.h.submit(job(f"d{levels}"))
        self.deliver()

    def deliver(self) -> None:
        while self.heard < len(self.h.sent):
            name, message = self.h.sent[self.heard]
            self.heard += 1
            process = self.processes[name]
            if process.connected:
                process.hear(message)
                self.most = max(self.most, len(process.held))

    def living(self) -> list[Attempt]:
        """The attempts that connected workers hold."""
        return [(name, fence) for name, each in self.processes.items() if each.connected for fence in each.held]

    def act(self, attempt: Attempt) -> bool:
        """Let the job do what comes next; False when it waits, or is gone."""
        name, fence = attempt
        process = self.processes[name]
        grant = process.held.get(fence)
        if grant is None or not process.connected:
            return False
        if fence not in process.started:
            self.start(name, fence)
        elif fence in process.asking:
            if not self.over(process.asking[fence]):
                return False
            self.go_on(name, fence)
        elif run_id := self.awaited(grant):
            self.ask(name, fence, run_id)
        else:
            self.end(name, fence)
        return True

    def start(self, name: str, fence: int) -> None:
        """Handed to the launcher; the job submits its runs below, or gets those of its former attempt."""
        process = self.processes[name]
        process.started.add(fence)
        self.h.tell(AttemptStarted(name, process.incarnation, fence))
        grant = process.held[fence]
        key, levels = (grant.run_id, grant.job_id), int(grant.job_id[1:])
        if levels and key not in self.below:
            self.below[key] = [self.h.submit(job(f"d{levels - 1}"), parent=key) for _ in range(self.width)]
        self.deliver()

    def awaited(self, grant: Grant) -> str:
        runs = self.below.get((grant.run_id, grant.job_id), ())
        return next((run_id for run_id in runs if not self.over(run_id)), "")

    def ask(self, name: str, fence: int, run_id: str) -> None:
        self.processes[name].asking[fence] = run_id
        self.h.tell(LendSlot(fence, run_id))
        self.deliver()

    def cut(self, name: str, fence: int) -> None:
        """The connection of an ask is cut."""
        run_id = self.processes[name].asking.pop(fence)
        self.h.tell(EndLend(fence, run_id))
        self.deliver()

    def over(self, run_id: str) -> bool:
        return self.h.run(run_id)["state"] in FINAL_RUN_STATES

    def go_on(self, name: str, fence: int) -> None:
        """What it waited for is over."""
        self.h.tell(EndLend(fence, self.processes[name].asking.pop(fence), final=True))
        self.deliver()

    def end(self, name: str, fence: int) -> None:
        process = self.processes[name]
        process.drop(fence)
        self.h.tell(AttemptEnded(name, process.incarnation, Ended(fence, 0), 0.0))
        self.deliver()

    def act_all(self, order: Callable[[list[Attempt]], object] = list) -> None:
        """Play until nobody has anything to do; `order` says who goes first among those who live."""
        busy = True
        while busy:
            living = self.living()
            order(living)
            busy = sum([self.act(each) for each in living]) > 0

    def finish(self, order: Callable[[list[Attempt]], object] = list) -> None:
        """The same, and every run must have completed."""
        self.act_all(order)
        states = [row["state"] for row in self.h.store.tables["runs"].values()]
        assert set(states) <= {RunState.COMPLETED}, f"stuck: {states.count(RunState.COMPLETED)} of {len(states)} runs"
        memory = self.h.scheduler.memory
        assert not memory.waits | memory.awaited | memory.unlent | memory.attempts
        assert not any(worker.lent for worker in memory.workers.values())
