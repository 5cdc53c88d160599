"""Survey Python's own standard library: one job lists its files, four read them side by side, one reports.

Start Titan with `titan up`, then: python examples/map_reduce/submit.py
"""

import sys
from datetime import datetime
from pathlib import Path

from titan_sdk import TitanClient, TitanJob

HERE = Path(__file__).parent
SHARDS = 4


def survey() -> list[TitanJob]:
    jobs = [TitanJob(job_id="list", filename=HERE / "list_files.py", args=[str(SHARDS)])]
    for shard in range(SHARDS):
        jobs.append(TitanJob(f"read_{shard}", HERE / "read_files.py", args=[str(shard)], parents=["list"]))
    readers = [job.job_id for job in jobs[1:]]
    jobs.append(TitanJob(job_id="report", filename=HERE / "report.py", args=[str(SHARDS)], parents=readers))
    return jobs


def seconds(begin: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def main() -> int:
    with TitanClient() as client:
        run = client.submit_dag("standard library survey", survey())
        print(f"run {run.id[:8]} {run.name}: {SHARDS + 2} jobs")
        run.wait(timeout=300)
        print(f"\n{'job':<10}{'state':<12}{'worker':<16}{'ran':>8}   waits for")
        for job in run.jobs:
            ran = f"{seconds(job['started_at'], job['ended_at']):.2f} s" if job["started_at"] else "-"
            parents = ", ".join(job["parents"])
            print(f"{job['id']:<10}{job['state']:<12}{job['worker'] or '-':<16}{ran:>8}   {parents}")
        print()
        print(run.logs("report"), end="")
        return 0 if run.status == "COMPLETED" else 1


if __name__ == "__main__":
    sys.exit(main())
