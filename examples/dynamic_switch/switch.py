"""Look at the cluster, then choose the work: a FAST scan when it is busy, a DEEP one of ten jobs when it is not.

Run it as `python examples/dynamic_switch/switch.py`, with `titan up` running.
"""

import sys
from pathlib import Path

from titan_sdk import Run, TitanClient, TitanJob

HERE = Path(__file__).parent
BUSY_PERCENT = 80
WIDTH = 10


def load_percent(client: TitanClient) -> int:
    """Return how full the slots of the connected workers are, 0 to 100; 100 when there are none."""
    stats = client.stats()
    if not stats["slots"]:
        return 100
    return round(100 * (stats["slots"] - stats["slots_free"]) / stats["slots"])


def choose(client: TitanClient, load: int) -> Run:
    """Submit the one pipeline or the other."""
    if load > BUSY_PERCENT:
        print(f"[HIGH] load {load} %: switching to the lightweight FAST pipeline", flush=True)
        return client.submit_job(TitanJob(job_id="fast_scan", filename=HERE / "fast_path.py"))
    print(f"[LOW] load {load} %: generating the DEEP pipeline, {WIDTH} jobs side by side", flush=True)
    deep = [
        TitanJob(job_id=f"deep_{part}", filename=HERE / "deep_path.py", args=[str(part), str(WIDTH)])
        for part in range(WIDTH)
    ]
    return client.submit_dag("DEEP_PIPELINE", deep)


def main() -> int:
    with TitanClient() as client:
        run = choose(client, load_percent(client)).wait(timeout=300)
        for job in run.jobs:
            print(f"{job['id']:<10} {job['state']:<10} {run.logs(job['id']).strip()}")
        return 0 if run.status == "COMPLETED" else 1


if __name__ == "__main__":
    sys.exit(main())
