"""One campaign: a cluster in parts, a load that never stops, faults one after the other, and the judge."""

import dataclasses
import random
import statistics
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.faults.proxy import Proxy
from tests.kill.judge import judge, overstayed, repeats
from tests.kill.ledger import Key, Line, Watch
from tests.kill.load import Feeder, Load, Place, Shape, Submitter, until
from tests.kill.parts import Parts

DRAIN_S = 240.0
Say = Callable[[str], None]


@dataclasses.dataclass
class Outcome:
    """What a campaign saw. `broken` is empty when every promise was held; `figures` are for people."""

    faults: int = 0
    acknowledged: int = 0
    refused: int = 0
    jobs: int = 0
    broken: list[str] = dataclasses.field(default_factory=list)
    figures: list[str] = dataclasses.field(default_factory=list)


class Campaign:
    """A cluster under load in `folder`; leave the `with` block to stop it, after `finish` has judged it."""

    def __init__(self, folder: Path, seed: str, say: Say, *, workers: Sequence[str], slots: int) -> None:
        self.place = Place.make(folder)
        self.ledger = self.place.ledger
        self.random = random.Random(seed)
        self.seed = seed
        self.say = say
        self.parts = Parts(folder / "home", workers, slots, folder / "output")
        self.client = self.parts.client()
        self.loads: list[Load] = []
        self.acknowledged: dict[str, Shape] = {}
        self.dead: set[Key] = set()
        self.broken: list[str] = []
        self.faults = 0
        self.watches: list[Watch] = []
        self._figures: dict[str, list[float]] = {}
        self._proxies: list[Proxy] = []
        self._pause = threading.Event()

    def __enter__(self) -> Self:
        self.parts.start_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for load in self.loads:
            load.enough.set()
        for proxy in self._proxies:
            proxy.pass_on()
        self.parts.stop()
        for proxy in self._proxies:
            proxy.close()
        self.ledger.close()

    def behind_proxy(self, worker: str) -> Proxy:
        """Start `worker` anew with a proxy between it and the Master."""
        proxy = Proxy(self.parts.port, name=worker)
        self._proxies.append(proxy)
        self.parts.join(worker, proxy.url)
        self.parts.restart(self.parts.workers[worker])
        return proxy

    def submitters(self, number: int) -> None:
        """Have `number` clients submit small DAGs from now on."""
        for index in range(number):
            self._begin(Submitter(f"s{index}", self.place, self.parts.client(), f"{self.seed}-s{index}"))

    def feeder(self, living: int, work_s: tuple[float, float], lease_s: int, kinds: tuple[str, ...]) -> Feeder:
        """Have `living` longer jobs around from now on."""
        feeder = Feeder(
            "f", self.place, self.parts.client(), f"{self.seed}-f", living=living, work_s=work_s, lease_s=lease_s,
            kinds=kinds,
        )  # fmt: skip
        self._begin(feeder)
        return feeder

    def _begin(self, load: Load) -> None:
        self.loads.append(load)
        load.start()

    def connected(self) -> bool:
        """Whether the Master that runs now has all workers."""
        known = {worker["name"] for worker in self.client.list_workers() if worker["connected"]}
        return known >= self.parts.workers.keys()

    def is_dead(self, key: Key) -> bool:
        """Whether the Master has given up this job."""
        run, job = key
        found = [each for each in self.client.list_runs(name=run) if each.name == run]
        if any(view["id"] == job and view["state"] == "DEAD" for each in found for view in self.client.list_jobs(each)):
            self.dead.add(key)
        return key in self.dead

    def pause(self, seconds: float) -> None:
        """Let everything go on for a while."""
        self._pause.wait(seconds)

    def measured(self, what: str, value_s: float) -> None:
        """Keep a figure, in seconds."""
        self._figures.setdefault(what, []).append(value_s)

    def finish(self) -> Outcome:
        """Stop the load, wait until all has ended, and judge."""
        for load in self.loads:
            load.enough.set()
        for load in self.loads:
            load.join()
        self.place.finish()
        if not until(lambda: not self.client.stats()["runs_living"], DRAIN_S):
            self.broken.append(f"after {DRAIN_S:.0f} s without faults {self._left()}")
        acknowledged = self.acknowledged
        for load in self.loads:
            acknowledged |= load.acknowledged
        dead, cancelled = self._final_states(acknowledged)
        until(lambda: all(watch.gone_ms for watch in self.watches), 2)
        ledger = self.ledger.look()
        self.broken += judge(ledger.lines, acknowledged, dead, cancelled)
        self.broken += overstayed([(watch.attempt, watch.gone_ms) for watch in self.watches], ledger.starts)
        return self._outcome(acknowledged, ledger.lines, len(dead))

    def _left(self) -> str:
        stats = self.client.stats()
        kinds = ", ".join(f"{count} {state}" for state, count in stats["jobs"].items() if count)
        names = ", ".join(run.name for run in self.client.list_runs(state="RUNNING", limit=5))
        return f"{stats['runs_living']} runs live still ({kinds}), such as {names}"

    def _final_states(self, acknowledged: dict[str, Shape]) -> tuple[set[Key], set[Key]]:
        """Return the jobs that are DEAD, and those cancelled below them; note each run that is not as it should."""
        found: dict[str, str] = {}
        dead: set[Key] = set()
        cancelled: set[Key] = set()
        for run in self.client.list_runs(limit=1_000_000):
            if run.name in found:
                self.broken.append(f"{run.name}: one submission made two runs")
            found[run.name] = str(run.info["state"])
            if run.info["state"] == "COMPLETED":
                continue
            states = {job["id"]: job["state"] for job in self.client.list_jobs(run)}
            dead |= {(run.name, job) for job, state in states.items() if state == "DEAD"}
            cancelled |= {(run.name, job) for job, state in states.items() if state == "CANCELLED"}
            if "DEAD" not in states.values() or not {"COMPLETED", "DEAD", "CANCELLED"}.issuperset(states.values()):
                self.broken.append(f"{run.name}: is {run.info['state']} with {states}")
        self.broken += [f"{run}: acknowledged, and the Master has no such run" for run in acknowledged.keys() - found]
        return dead, cancelled

    def _outcome(self, acknowledged: dict[str, Shape], lines: Sequence[Line], dead: int) -> Outcome:
        again, over = repeats(lines)
        refused = [text for load in self.loads for text in load.refused.values()]
        figures = [f"{again} jobs ran again, {over} of them after their last line, {dead} are DEAD"]
        for what, values in self._figures.items():
            figures.append(
                f"{what}: median {statistics.median(values):.2f} s, max {max(values):.2f} s, of {len(values)}"
            )
        figures += [f"refused: {text}" for text in sorted(set(refused))[:3]]
        return Outcome(
            self.faults,
            len(acknowledged),
            len(refused),
            sum(map(len, acknowledged.values())),
            self.broken,
            figures,
        )
