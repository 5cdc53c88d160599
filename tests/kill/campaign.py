"""One campaign: a cluster, submitters that never stop, and a Master that is killed again and again."""

import dataclasses
import json
import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from tests.acceptance.cluster import Cluster
from tests.kill.ledger import JOB_SCRIPT, judge, read
from titan_sdk import Run, TitanClient, TitanError, TitanJob

Shape = dict[str, list[str]]
RUNS_MAX = 4_000


@dataclasses.dataclass
class Outcome:
    """What a campaign saw. `broken` is empty when every promise was held."""

    kills: int
    acknowledged: int
    refused: int
    jobs: int
    broken: list[str]


def draw_shape(random_: random.Random) -> Shape:
    """Return a small DAG, job -> parents: each job waits for up to two earlier ones."""
    jobs = [f"j{index}" for index in range(random_.randint(1, 6))]
    return {job: sorted(random_.sample(jobs[:at], min(at, random_.randint(0, 2)))) for at, job in enumerate(jobs)}


class Submitter(threading.Thread):
    """Submits DAGs one after the other until told to stop; keeps what was acknowledged."""

    def __init__(self, label: str, client: TitanClient, script: Path, ledger: Path, seed: str) -> None:
        super().__init__(name=label)
        self.label = label
        self.client = client
        self.script = script
        self.ledger = ledger
        self.random = random.Random(seed)
        self.stop = threading.Event()
        self.acknowledged: dict[str, Shape] = {}
        self.runs: list[Run] = []
        self.refused: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set() and len(self.runs) < RUNS_MAX:
            label = f"{self.label}-{len(self.runs) + len(self.refused)}"
            shape = draw_shape(self.random)
            work_s = self.random.choice([0.0, 0.0, 0.0, 0.05, 0.5])
            jobs = [
                TitanJob(
                    job_id=job,
                    filename=str(self.script),
                    args=[str(self.ledger), label, job, str(work_s)],
                    parents=parents,
                )
                for job, parents in shape.items()
            ]
            try:
                self.runs.append(self.client.submit_dag(label, jobs))
            except TitanError as error:
                self.refused.append(f"{label}: {error}")
            else:
                self.acknowledged[label] = shape
            self.stop.wait(self.random.uniform(0, 0.1))


def run_campaign(folder: Path, kills: int, seed: int, submitters: int, say: Callable[[str], None]) -> Outcome:
    """Run one campaign in `folder`: kill the Master `kills` times, wait for all runs to end, judge the ledger.

    Raises TimedOut when an acknowledged run does not end within two minutes of the last kill.
    """
    folder.mkdir(parents=True, exist_ok=True)
    home, ledger, script = folder / "home", folder / "ledger", folder / "ledger_job.py"
    script.write_text(JOB_SCRIPT)
    random_ = random.Random(f"kill-{seed}")
    pause = threading.Event()
    cluster = Cluster(home, "--port", "0", "--slots", "4").start()
    try:
        clients = [TitanClient(url=cluster.url, token=(home / "token").read_text().strip()) for _ in range(submitters)]
        threads = [
            Submitter(f"s{seed}-{index}", client, script, ledger, f"{seed}-{index}")
            for index, client in enumerate(clients)
        ]
        for thread in threads:
            thread.start()
        for kill in range(kills):
            pause.wait(random_.uniform(0.3, 3.0))
            pid = master_pid(cluster)
            os.kill(pid, signal.SIGKILL)
            stats = clients[0].stats()  # answers only once the next Master is up
            say(
                f"kill {kill + 1} of {kills}: Master {pid}; {sum(len(each.runs) for each in threads)} runs acknowledged"
            )
            assert master_pid(cluster) != pid, stats
        for thread in threads:
            thread.stop.set()
        for thread in threads:
            thread.join()
        for thread in threads:
            for run in thread.runs:
                run.wait(timeout=120)
    finally:
        cluster.stop()
    acknowledged = {label: shape for thread in threads for label, shape in thread.acknowledged.items()}
    lines = read(ledger)
    broken = judge(lines, acknowledged)
    jobs = sum(len(shape) for shape in acknowledged.values())
    refused = [text for thread in threads for text in thread.refused]
    for text in refused[:5]:
        say(f"refused: {text}")
    return Outcome(kills, len(acknowledged), len(refused), jobs, broken)


def master_pid(cluster: Cluster) -> int:
    """Return the process id of the Master that answers now."""
    endpoint = json.loads((cluster.home / "endpoint.json").read_text())
    return int(endpoint["pid"])
