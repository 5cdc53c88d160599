"""Extract, then train on a worker that offers GPU. The jobs hand files on as artifacts.

Run it as `python examples/nightly_pipeline/submit.py`, with `titan up --capability GPU` running.
"""

import json
import sys
import tempfile
from pathlib import Path

from titan_sdk import TitanClient, TitanJob

HERE = Path(__file__).parent
TABLE, MODEL = "nightly/parse_times", "nightly/model"


def main() -> int:
    with TitanClient() as client, tempfile.TemporaryDirectory() as folder:
        run = client.submit_dag("nightly_pipeline", [
            TitanJob(job_id="extract_data", filename=HERE / "etl" / "extract.py", args=[TABLE], priority=5),
            TitanJob(job_id="train_model", filename=HERE / "ml" / "train.py", args=[TABLE, MODEL], requirement="GPU",
                     parents=["extract_data"]),
        ])  # fmt: skip
        run.wait()
        for job in run.jobs:
            print(f"{job['id']} {job['state']} on {job['worker']}")
            print(run.logs(job["id"]), end="")
        if run.status != "COMPLETED":
            return 1
        client.get_artifact(MODEL, f"{folder}/model.json")
        print("model:", json.loads(Path(folder, "model.json").read_text()))
        return 0


if __name__ == "__main__":
    sys.exit(main())
