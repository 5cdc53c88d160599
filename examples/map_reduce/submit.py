"""Survey Python's own standard library by map and reduce, and fetch the report.

One job lists the files, eight read a part each side by side, one adds up, one draws. Start Titan with `titan up`, then:
python examples/map_reduce/submit.py
"""

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime
from pathlib import Path

from titan_sdk import Run, TitanClient, TitanJob

HERE = Path(__file__).parent
PARTS = 8
ARTIFACT = "reports/standard-library"
BAR = 24


def survey(draw_on: str) -> list[TitanJob]:
    parts = [f"analyse_{part}" for part in range(PARTS)]
    return [
        TitanJob("list", HERE / "list_files.py", args=[str(PARTS)]),
        *(TitanJob(name, HERE / "analyse.py", args=[name[-1]], parents=["list"]) for name in parts),
        TitanJob("reduce", HERE / "reduce.py", args=[str(PARTS)], parents=parts),
        TitanJob("draw", HERE / "draw.py", args=[ARTIFACT], parents=["reduce"], requirement=draw_on),
    ]


def seconds(job: dict[str, str]) -> str:
    if not job["started_at"]:
        return "-"
    ran = datetime.fromisoformat(job["ended_at"]) - datetime.fromisoformat(job["started_at"])
    return f"{ran.total_seconds():.2f} s"


def ended(client: TitanClient, run: Run) -> Iterator[str]:
    """Yield each job's id as soon as it has ended; all of them are waited for at the Master."""
    names = [job["id"] for job in run.jobs]
    with ThreadPoolExecutor(len(names)) as pool:
        waits = {pool.submit(client.wait, f"{run.id}/{name}", 300): name for name in names}
        for wait in as_completed(waits):
            wait.result()
            yield waits[wait]


def show(client: TitanClient, run: Run) -> None:
    """A bar that grows on a terminal, a line for each job elsewhere."""
    live = sys.stdout.isatty()
    total = len(run.jobs)
    for done, name in enumerate(ended(client, run), start=1):
        bar = f"[{'=' * (BAR * done // total):<{BAR}}] {done:>2} of {total}  {name}"
        print(f"\r{bar:<60}" if live else bar, end="" if live else "\n", flush=True)
    print()


def main() -> int:
    parser = argparse.ArgumentParser(description="Survey Python's own standard library.")
    parser.add_argument("--out", type=Path, default=Path("titan-demo.html"), help="where the report goes")
    parser.add_argument("--draw-on", default="GENERAL", help="the capability that the last job requires")
    options = parser.parse_args()
    with TitanClient() as client:
        run = client.submit_dag("standard library survey", survey(options.draw_on))
        print(f"run {run.id[:8]} {run.name}: {PARTS + 3} jobs")
        show(client, run)
        run.wait(timeout=60)
        print(f"{'job':<12}{'state':<12}{'worker':<16}{'ran':>8}   said")
        for job in run.jobs:
            said = run.logs(job["id"]).splitlines() or [""]
            print(f"{job['id']:<12}{job['state']:<12}{job['worker'] or '-':<16}{seconds(job):>8}   {said[0]}")
        if run.status != "COMPLETED":
            return 1
        print(f"\n{run.logs('reduce')}")
        client.get_artifact(ARTIFACT, options.out)
        print(f"report: {options.out.resolve()}")
        return 0


if __name__ == "__main__":
    sys.exit(main())
