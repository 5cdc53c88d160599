"""Submit work for a GPU worker that may not be there yet; say why it waits, and go on when one joins.

Run it as `python examples/gpu_routing/route.py`, with `titan up` running.
"""

import sys
from pathlib import Path

from titan_sdk import TitanClient, TitanJob

HERE = Path(__file__).parent


def main() -> int:
    with TitanClient() as client:
        run = client.submit_dag("gpu_routing", [
            TitanJob(job_id="prepare", filename=HERE / "prepare.py"),
            TitanJob(job_id="multiply", filename=HERE / "multiply.py", requirement="GPU", parents=["prepare"]),
        ])  # fmt: skip
        client.wait(f"{run.id}/prepare", timeout=120)
        print(run.logs("prepare"), end="", flush=True)
        if not any("GPU" in worker["capabilities"] for worker in client.list_workers() if worker["connected"]):
            why = client.explain(f"{run.id}/multiply")
            print(f"multiply waits: {why['message']}")
            print(f"start one in another terminal: titan worker --join {client.url} --capability GPU", flush=True)
        run.wait()
        print(run.logs("multiply"), end="")
        where = {job["id"]: job["worker"] for job in run.jobs}
        print(f"{run.status}: prepare ran on {where['prepare']}, multiply on {where['multiply']}")
        return 0 if run.status == "COMPLETED" else 1


if __name__ == "__main__":
    sys.exit(main())
