"""The load of a campaign: small DAGs that never stop coming, and long jobs that are topped up."""

import dataclasses
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.kill.judge import LOSSES_MAX
from tests.kill.ledger import HOSTILE, JOB_SCRIPT, Ledger, boot_ms
from titan_sdk import TitanClient, TitanError, TitanJob

Shape = dict[str, list[str]]
LOOK_S = 0.05
# A submitter that is this far ahead of the workers waits for them.
UNFINISHED_MAX = 10
FORGET_S = 60.0
# The id of each longer job; they are granted before the quick ones.
LONG = "long"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a campaign happens: its folder, its ledger, and the script of all its jobs."""

    folder: Path
    ledger: Ledger

    @classmethod
    def make(cls, folder: Path) -> "Place":
        """Return a fresh place in `folder`."""
        (folder / "alive").mkdir(parents=True)
        (folder / "ledger_job.py").write_text(JOB_SCRIPT)
        return cls(folder, Ledger(folder / "ledger"))

    @property
    def alive(self) -> Path:
        """The folder of the attempts' locks."""
        return self.folder / "alive"

    def finish(self) -> None:
        """Have all long jobs end with their next tick."""
        (self.folder / "enough").touch()

    def job(
        self,
        run: str,
        job: str,
        work_s: float,
        *,
        kind: str = "quick",
        parents: list[str] | None = None,
        lease_s: int = 60,
        tick_s: float = 0.5,
        priority: int = 1,
    ) -> TitanJob:
        """Return a job that writes into the ledger as `run`/`job`. `kind`: quick, long, or one of HOSTILE."""
        told = [str(self.folder / "ledger"), str(self.alive), run, job, kind, f"{work_s:.3f}", str(tick_s)]
        return TitanJob(
            job_id=job,
            filename=str(self.folder / "ledger_job.py"),
            args=[*told, str(self.folder / "enough")],
            parents=parents,
            lease_s=lease_s,
            priority=priority,
        )


class Load(threading.Thread):
    """Submits until told to stop; keeps what was acknowledged apart from what was not."""

    def __init__(self, label: str, place: Place, client: TitanClient, seed: str) -> None:
        super().__init__(name=label, daemon=True)
        self.label = label
        self.place = place
        self.client = client
        self.random = random.Random(seed)
        self.enough = threading.Event()
        self.acknowledged: dict[str, Shape] = {}
        self.refused: dict[str, str] = {}
        self._open: dict[str, float] = {}

    def run(self) -> None:
        while not self.enough.is_set():
            if self.wanted():
                self.submit(f"{self.label}-{len(self.acknowledged) + len(self.refused)}")
            self.enough.wait(self.pause_s())

    def submit(self, label: str) -> None:
        """Submit one run under `label`."""
        jobs = self.draw(label)
        try:
            self.client.submit_dag(label, jobs)
        except TitanError as error:
            self.refused[label] = str(error)
        else:
            self.acknowledged[label] = {job.job_id: list(job.parents or ()) for job in jobs}
            self._open[label] = time.monotonic()

    def wanted(self) -> bool:
        """Whether to submit now."""
        raise NotImplementedError

    def pause_s(self) -> float:
        """Return seconds until the next look."""
        return LOOK_S

    def draw(self, label: str) -> list[TitanJob]:
        """Return the jobs of the run `label`."""
        raise NotImplementedError

    def unfinished(self) -> int:
        """Return how many acknowledged runs have not ended by the ledger.

        A job that started for the third time is not counted, it may be DEAD, nor a run of more than a minute ago.
        """
        ledger = self.place.ledger.look()
        old = time.monotonic() - FORGET_S
        for label, begun in list(self._open.items()):
            keys = [(label, job) for job in self.acknowledged[label]]
            if begun < old or all(key in ledger.ended or len(ledger.starts.get(key, ())) >= LOSSES_MAX for key in keys):
                del self._open[label]
        return len(self._open)


class Submitter(Load):
    """Small DAGs of quick jobs, one after the other."""

    def wanted(self) -> bool:
        return self.unfinished() < UNFINISHED_MAX

    def pause_s(self) -> float:
        return self.random.uniform(0.05, 0.5)

    def draw(self, label: str) -> list[TitanJob]:
        shape = draw_shape(self.random)
        work_s = self.random.choice([0.0, 0.0, 0.0, 0.05, 0.5])
        return [self.place.job(label, job, work_s, parents=parents) for job, parents in shape.items()]


class Feeder(Load):
    """Keeps `living` jobs of `work_s` (from, to) seconds unfinished; hostile ones leave processes behind."""

    def __init__(
        self,
        label: str,
        place: Place,
        client: TitanClient,
        seed: str,
        *,
        living: int,
        work_s: tuple[float, float],
        lease_s: int = 60,
        kinds: tuple[str, ...] = ("long",),
    ) -> None:
        super().__init__(label, place, client, seed)
        self.living = living
        self.work_s = work_s
        self.lease_s = lease_s
        self.kinds = kinds
        self.work_ms: dict[str, float] = {}

    def wanted(self) -> bool:
        return self.unfinished() < self.living

    def pause_s(self) -> float:
        return LOOK_S if len(self._open) >= self.living else 0.0

    def draw(self, label: str) -> list[TitanJob]:
        work_s = self.random.uniform(*self.work_s)
        self.work_ms[label] = work_s * 1000
        kind = self.random.choice(self.kinds)
        return [self.place.job(label, LONG, work_s, kind=kind, lease_s=self.lease_s, priority=10)]

    def outlasting(self, seconds: float) -> int:
        """Return how many of its jobs run now and will for `seconds`."""
        least_ms = boot_ms() + seconds * 1000
        living = self.place.ledger.living().values()
        return sum(line.ms + self.work_ms[line.run] > least_ms for line in living if line.run in self.work_ms)


ALL_KINDS = ("long", *HOSTILE)


def draw_shape(random_: random.Random) -> Shape:
    """Return a small DAG, job -> parents: each job waits for up to two earlier ones."""
    jobs = [f"j{index}" for index in range(random_.randint(1, 6))]
    return {job: sorted(random_.sample(jobs[:at], min(at, random_.randint(0, 2)))) for at, job in enumerate(jobs)}


def until(fact: Callable[[], bool], patience_s: float) -> bool:
    """Wait until `fact` holds, looking again and again; return whether it did within `patience_s`."""
    pause = threading.Event()
    deadline_s = time.monotonic() + patience_s
    while not fact():
        if time.monotonic() > deadline_s:
            return False
        pause.wait(LOOK_S)
    return True
