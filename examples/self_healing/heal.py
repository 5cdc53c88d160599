"""Watch a training run, read why it died, and send a job that goes on from where it was.

Run it as `python examples/self_healing/heal.py`, with `titan up` running.
"""

import sys
from pathlib import Path

from titan_sdk import TitanClient, TitanJob

HERE = Path(__file__).parent
JOB_ID = "flaky_training_run"


def main() -> int:
    with TitanClient() as client:
        first = client.submit_job(TitanJob(job_id=JOB_ID, filename=HERE / "flaky_training_run.py"))
        first.wait(timeout=300)
        log = first.logs(JOB_ID)
        print(log, end="")
        if first.status == "COMPLETED":
            print("[SUCCESS] run healthy, nothing to heal")
            return 0
        # The last line of a job that the system ended says so in plain words; see docs/worker.md.
        if "Segfault" not in log and "OutOfMemory" not in log:
            print(f"[ERROR] {JOB_ID} failed in a way that safe mode does not mend; its log is above")
            return 1
        print(f"[ERROR] {JOB_ID} crashed; the agent sends a patch")
        patch = TitanJob(
            job_id=f"{JOB_ID}_fix", filename=HERE / "safe_mode_patch.py", args=[first.id], requirement="GENERAL"
        )
        second = client.submit_job(patch, agent_run_id=first.info["agent_run_id"])
        second.wait(timeout=300)
        print(second.logs(patch.job_id), end="")
        print(f"[{'SUCCESS' if second.status == 'COMPLETED' else 'ERROR'}] {patch.job_id} {second.status}")
        return 0 if second.status == "COMPLETED" else 1


if __name__ == "__main__":
    sys.exit(main())
