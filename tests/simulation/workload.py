"""What the clients of a simulated cluster do: DAGs of many shapes, and all that people do to them afterwards."""

from collections.abc import Callable, Sequence
from typing import Any

from tests.simulation.actions import Cancel, DrainIt, Extend, Read, Retry, Store, Submit, Wait
from tests.simulation.asking import Asking
from tests.simulation.faults import CHAOS_MS
from tests.simulation.ground import Ground
from tests.simulation.programs import Process, Program
from tests.simulation.world import Node
from titan.model.spec import GENERAL, GPU, JobSpec
from titan.model.store import IdempotencyKey, StoreCas, StoreIncr, StorePut

PATIENCE_MS = 40_000
RUN_ID_CHARS = 32
JOB_PATIENCE_MS = 120_000
# What is asked for later is mostly done when all is well again, and meets no fault.
ACTS_MS = CHAOS_MS * 5 // 6
# Longer than a lease of 30 s, its grace and the silence after which a worker hangs up.
UNHEARD_MS = 60_000
FOLLOW_MS = (400, 1_600)


class SubmitBelow:
    """A job submits a run below itself, and waits for its end if `waits`. The key is the same in every attempt."""

    def __init__(self, jobs: Sequence[JobSpec], waits: bool) -> None:
        self.jobs = tuple(jobs)
        self.waits = waits

    def begin(self, process: Process, place: int, done: Callable[[], None]) -> None:
        """Submit; `done` when that, and the wait, is over."""
        ground, grant = process.host.ground, process.grant
        parent = (grant.run_id, grant.job_id, grant.fence)
        request = Submit(ground, f"{grant.idempotency_key}.{place}", self.jobs, parent=parent)

        def answered(code: str, answer: Any) -> None:
            if process.gone:
                return
            if code == "ok" and self.waits:
                self.wait(process, answer.decode(), done)
            else:
                done()

        Asking(ground, process.host, request, answered, JOB_PATIENCE_MS)

    def wait(self, process: Process, run_id: str, done: Callable[[], None]) -> None:
        """Ask until the run has ended."""
        ground = process.host.ground

        def answered(code: str, answer: Any) -> None:
            if process.gone:
                return
            if code == "again":
                self.wait(process, run_id, done)
            else:
                done()

        Asking(ground, process.host, Wait(ground, process.fence, run_id), answered, 10 * JOB_PATIENCE_MS)


class ExtendOwn:
    """A job adds jobs to its own run, as children of itself."""

    def __init__(self, make: Callable[[str], Sequence[JobSpec]]) -> None:
        self.make = make

    def begin(self, process: Process, place: int, done: Callable[[], None]) -> None:
        """Extend, and go on."""
        ground, grant = process.host.ground, process.grant
        request = Extend(ground, f"{grant.idempotency_key}.{place}", grant.run_id, self.make(grant.job_id))
        Asking(ground, process.host, request, _unless_gone(process, done), JOB_PATIENCE_MS)


class Count:
    """A job counts itself once in the store, however many attempts it takes."""

    def begin(self, process: Process, place: int, done: Callable[[], None]) -> None:
        """Count."""
        ground, grant = process.host.ground, process.grant
        key = IdempotencyKey(f"{grant.idempotency_key}.{place}", b"", 2**60)
        request = Store(lambda now_ms: StoreIncr(f"count/{grant.run_id}", 1, now_ms, key))
        Asking(ground, process.host, request, _unless_gone(process, done), JOB_PATIENCE_MS)


def _told(request: Any) -> str:
    """Return a request in a few words."""
    named = (getattr(request, name, "") for name in ("key", "run_id", "job_id", "worker"))
    jobs = getattr(request, "jobs", ())
    return " ".join([request.name, *[_short(each) for each in named if each], f"({len(jobs)} jobs)" if jobs else ""])


def _short(answer: Any) -> str:
    """Return an answer as a person wants to read it: a run by its number."""
    text = answer.decode() if isinstance(answer, bytes) else "" if answer is None else str(answer)
    return text[:6] if len(text) == RUN_ID_CHARS else text


def _unless_gone(process: Process, done: Callable[[], None]) -> Callable[[str, Any], None]:
    """Return what takes any answer, and goes on if the process still lives."""

    def answered(_code: str, _answer: Any) -> None:
        if not process.gone:
            done()

    return answered


class Workload:
    """The clients. `idle` when nothing they asked for is open."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.world = ground.world
        self.open = 0
        self.keys = 0
        self.cells: list[str] = []
        self.clients = [Node(self.world, f"client-{number}") for number in range(1, 3)]
        for client in self.clients:
            client.up = True
        self.busy = self.world.pick((0.7, 1.0, 1.0, 1.3))
        self.short = self.world.chance() < 0.5
        self.tags: list[tuple[str, ...]] = [(GENERAL,), (GENERAL,), (GENERAL,)]
        offered = sorted({tag for host in ground.hosts for tag in host.capabilities if tag != GENERAL})
        self.tags += [(tag,) for tag in offered]

    def begin(self) -> None:
        """Plan what the clients do while the chaos lasts."""
        world = self.world
        world.plan(50, self.submit)
        world.plan(100, self.follow, f"cell-{world.between(1, 3)}")
        for _ in range(int(world.between(5, 7) * self.busy)):
            world.plan(world.between(100, ACTS_MS), self.act)

    def act(self) -> None:
        """A client does something."""
        if self.ground.healing:
            return
        names = [name for name, (weight, _) in ACTS.items() for _ in range(weight)]
        ACTS[self.world.pick(names)][1](self)

    def ask(self, request: Any, answered: Callable[[str, Any], object] | None = None) -> None:
        """Ask as one of the clients."""
        self.open += 1
        client = self.world.pick(self.clients)
        told = self.world.tell is not None
        if told:
            client.say(f"asks: {_told(request)}")

        def done(code: str, answer: Any) -> None:
            self.open -= 1
            if told:
                client.say(f"hears: {_told(request)}: {code} {_short(answer)}")
            self.ground.oracle.answered(request, code, answer)
            if answered is not None:
                answered(code, answer)

        Asking(self.ground, client, request, done, PATIENCE_MS)

    def next_key(self) -> str:
        """Return a key never used before."""
        self.keys += 1
        return f"key-{self.keys}"

    # Jobs

    def program(self, depth: int) -> int:
        """Draw a program; return its number."""
        world = self.world
        lasts_ms = world.between(5, 400) if self.short or world.chance() < 0.5 else world.between(200, 20_000)
        draw = world.chance()
        fails = world.between(1, 2) if draw < 0.12 else -1 if draw < 0.17 else 0
        kills = world.pick((1, 2, 3, 3, 4)) if 0.17 <= draw < 0.20 else 0
        endless = 0.20 <= draw < 0.22
        prints: tuple[tuple[int, int], ...] = ()
        if world.chance() < 0.6:
            sizes = (10, 200, 5_000, 60_000)
            prints = tuple((world.between(0, lasts_ms), world.pick(sizes)) for _ in range(world.between(1, 4)))
        number = len(self.ground.programs)
        program = Program(number, lasts_ms, fails, kills, world.chance() < 0.1, endless, prints)
        self.ground.programs.append(program)
        if depth < 3 and world.chance() < 0.08:
            acts: list[Any] = [SubmitBelow(self.jobs(world.between(1, 4), depth + 1), world.chance() < 0.8)]
            if world.chance() < 0.4:
                acts.insert(world.between(0, 1), Count())
            program.acts = tuple(acts)
        elif world.chance() < 0.05:
            program.acts = (ExtendOwn(self.extension(depth)),)
        elif world.chance() < 0.05:
            program.acts = (Count(), Count())
        return number

    def extension(self, depth: int) -> Callable[[str], Sequence[JobSpec]]:
        """Return what makes two more jobs behind a job."""
        first, second = self.program(3), self.program(3)

        def make(job_id: str) -> Sequence[JobSpec]:
            one = self.job(f"{job_id}.x", first, (job_id,), 1)
            return (one, self.job(f"{job_id}.y", second, (one.job_id,), 1))

        return make

    def job(self, job_id: str, number: int, parents: tuple[str, ...], depth: int = 0) -> JobSpec:
        """Draw the rest of a job. No device is lent, so what a job waits for must need none."""
        world = self.world
        requirement = world.pick(self.tags)
        if depth and requirement == (GPU,):
            requirement = (GENERAL,)
        program = self.ground.programs[number]
        priority = world.pick((1, 1, 1, 1, 5, 9))
        timeout_s = float(world.between(2, 20)) if program.endless or world.chance() < 0.03 else None
        return JobSpec(
            job_id, "job.py", args=(str(number),), parents=parents, requirement=requirement,
            priority=priority, delay_ms=world.between(1, 8_000) if world.chance() < 0.08 else 0,
            affinity=bool(parents) and world.chance() < 0.2, affinity_wait_s=float(world.between(1, 20)),
            retries=world.pick((0, 1, 1, 2, 3)) if program.fails or world.chance() < 0.1 else 0,
            retry_backoff_s=world.pick((0.1, 1.0, 4.0)), timeout_s=timeout_s, lease_s=world.pick((30, 30, 30, 45, 60)),
            on_lost="fail" if world.chance() < 0.06 else "retry",
        )  # fmt: skip

    def jobs(self, count: int, depth: int = 0) -> list[JobSpec]:
        """Draw a DAG: any job may wait for some before it."""
        world = self.world
        width = world.pick((0.0, 0.1, 0.3, 0.6))
        jobs: list[JobSpec] = []
        for place in range(count):
            before = [job.job_id for job in jobs[-6:]]
            parents = tuple(job_id for job_id in before if world.chance() < width)
            jobs.append(self.job(f"j{place}", self.program(depth), parents, depth))
        return jobs

    # What clients do

    def submit(self) -> None:
        """Submit a DAG."""
        count = self.world.pick((1, 2, 3, 4, 6, 9, 14))
        request = Submit(self.ground, self.next_key(), self.jobs(count), staged=self.world.chance() < 0.2)
        self.ask(request)

    def burst(self) -> None:
        """Many quick jobs of high priority, one after the other, beside one of low priority that waits its turn."""
        world = self.world
        number = len(self.ground.programs)
        self.ground.programs += [Program(number + place, world.between(5, 60)) for place in range(41)]
        tag = world.pick(self.tags)
        low = JobSpec("low", "job.py", args=(str(number),), priority=0, requirement=tag)
        self.ask(Submit(self.ground, self.next_key(), [low]))
        high = [
            JobSpec(f"h{place}", "job.py", args=(str(number + place),), priority=9, requirement=tag, lease_s=30)
            for place in range(1, 41)
        ]
        self.ask(Submit(self.ground, self.next_key(), high))

    def bad_submit(self) -> None:
        """Submit what is no graph."""
        job = JobSpec("a", "job.py", args=("0",), parents=("b",))
        other = JobSpec("b", "job.py", args=("0",), parents=("a",) if self.world.chance() < 0.5 else ("c",))
        self.ask(Submit(self.ground, self.next_key(), [job, other]))

    def cancel(self) -> None:
        """Cancel a run."""
        run_id = self.some_run()
        if run_id:
            self.ask(Cancel(run_id))

    def cancel_job(self) -> None:
        """Cancel one job."""
        run_id = self.some_run()
        jobs = list(self.ground.mirror.jobs_of.get(run_id, ())) if run_id else []
        if jobs:
            self.ask(Cancel(run_id, self.world.pick(jobs)))

    def retry(self) -> None:
        """Retry a run, or a job of it, which may have completed; now and then two people do at once."""
        world = self.world
        rows = self.ground.mirror.rows["runs"]
        dead = [key[0] for key, row in rows.items() if row["ended_ms"] and row["jobs_dead"]]
        run_id = world.pick(dead) if dead and world.chance() < 0.9 else self.some_run(ended=True)
        if run_id:
            named = [world.pick(list(self.ground.mirror.jobs_of[run_id]))] if world.chance() < 0.4 else ()
            for _ in range(world.between(1, 2)):
                self.ask(Retry(self.ground, run_id, named))

    def retry_old(self) -> None:
        """Cancel a run before its time, retry it twice, and cancel it while a slow reader still brings the second."""
        world = self.world
        number = len(self.ground.programs)
        self.ground.programs.append(Program(number, world.between(5, 400)))
        job = JobSpec("late", "job.py", args=(str(number),), delay_ms=world.between(4_000, 12_000))

        def submitted(code: str, answer: Any) -> None:
            if code == "ok":
                run_id = answer.decode()
                self.ask(Cancel(run_id), lambda code, _: code == "ok" and retry(run_id))

        def retry(run_id: str) -> None:
            self.ask(Retry(self.ground, run_id), lambda code, _: code == "ok" and self.ask(Cancel(run_id)))
            self.ask(Retry(self.ground, run_id, read_ms=2_000))

        self.ask(Submit(self.ground, self.next_key(), [job]), submitted)

    def submit_unheard(self) -> None:
        """Submit two jobs that nobody may try twice, while nothing that the Masters say reaches a worker."""
        world, ground = self.world, self.ground
        if world.now > UNHEARD_MS or world.chance() < 0.4:
            self.submit()
            return
        ways = [(master.name, host.worker.name) for master in ground.masters for host in ground.hosts]
        for source, target in ways:
            ground.network.cut(source, target, False)
            world.plan(UNHEARD_MS, ground.network.mend, source, target)
        for number in range(len(ground.programs), len(ground.programs) + 2):
            ground.programs.append(Program(number, world.between(5, 400)))
            job = JobSpec("once", "job.py", args=(str(number),), lease_s=30, on_lost="fail")
            self.ask(Submit(ground, self.next_key(), [job]))

    def extend(self) -> None:
        """Add a few jobs to a run, behind some of its own."""
        run_id = self.some_run()
        if not run_id:
            return
        known = list(self.ground.mirror.jobs_of.get(run_id, ()))
        key = self.next_key()
        jobs = [
            self.job(f"{key}-{place}", self.program(3), (self.world.pick(known),) if known else (), 1)
            for place in range(self.world.between(1, 3))
        ]
        self.ask(Extend(self.ground, key, run_id, jobs))

    def put(self) -> None:
        """Write a cell of the store."""
        cell, value = f"cell-{self.world.between(1, 3)}", self.next_key()
        self.ask(Store(lambda now_ms: StorePut(cell, value, now_ms)))

    def swap(self) -> None:
        """Compare and swap a cell from what it was seen to hold; two clients may have seen the same."""
        cell = f"cell-{self.world.between(1, 3)}"
        seen = self.ground.mirror.value(cell, 0)
        for _ in range(self.world.between(1, 2)):
            key = self.next_key()
            memo = IdempotencyKey(key, b"", 2**60)
            self.ask(Store(lambda now_ms, key=key, memo=memo: StoreCas(cell, seen, key, now_ms, memo)))

    def read(self) -> None:
        """Read a cell."""
        self.ask(Read(f"cell-{self.world.between(1, 3)}"))

    def follow(self, cell: str) -> None:
        """Read a cell again and again while the chaos lasts, as what shows it to people does."""
        if not self.ground.healing:
            self.ask(Read(cell))
            self.world.plan(self.world.between(*FOLLOW_MS), self.follow, cell)

    def drain(self) -> None:
        """Drain a worker; somebody starts it anew later."""
        host = self.world.pick(self.ground.hosts)
        self.ask(DrainIt(host.worker.name))
        self.world.plan(self.world.between(3_000, 20_000), host.worker.stop)

    def some_run(self, ended: bool = False) -> str:
        """Return a run that is there; "" when there is none."""
        rows = self.ground.mirror.rows
        runs = [key[0] for key, row in rows["runs"].items() if bool(row["ended_ms"]) == ended]
        return self.world.pick(runs) if runs else ""


ACTS: dict[str, tuple[int, Callable[[Workload], None]]] = {
    "submit": (26, Workload.submit),
    "burst": (1, Workload.burst),
    "bad_submit": (3, Workload.bad_submit),
    "cancel": (6, Workload.cancel),
    "cancel_job": (6, Workload.cancel_job),
    "submit_unheard": (5, Workload.submit_unheard),
    "retry": (18, Workload.retry),
    "retry_old": (3, Workload.retry_old),
    "extend": (6, Workload.extend),
    "put": (6, Workload.put),
    "swap": (6, Workload.swap),
    "read": (6, Workload.read),
    "drain": (3, Workload.drain),
}
