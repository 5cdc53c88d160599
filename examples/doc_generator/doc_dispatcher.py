"""Walk a tree, store the texts, fan out a job for each file and one that collects the pages, and wait for them.

While it waits it lends its slot, so one slot is enough for all.
"""

import os
import sys
from pathlib import Path

from titan_sdk import TitanClient, TitanJob

FILES_MAX = 500
root = Path(sys.argv[1])
prefix = f"docs/{os.environ['TITAN_RUN_ID']}"
model = {name: os.environ[name] for name in ("OPENAI_BASE_URL", "OPENAI_MODEL", "OPENAI_API_KEY") if name in os.environ}
files = sorted(path for path in root.rglob("*.py") if not {"__pycache__", ".venv"} & set(path.parts))[:FILES_MAX]
if not files:
    sys.exit(f"no Python file below {root}")

with TitanClient() as client:
    jobs = []
    for number, path in enumerate(files):
        client.store_put(f"{prefix}/text/{number:04}", path.read_text(encoding="utf-8", errors="replace"))
        name = str(path.relative_to(root))
        jobs.append(TitanJob(f"page_{number}", "document.py", args=[prefix, f"{number:04}", name], env=model))
    pages = [job.job_id for job in jobs]
    jobs.append(TitanJob("collect", "collect.py", args=[prefix, root.name], parents=pages))
    run = client.submit_dag(f"document {root.name}", jobs)
    print(f"{len(files)} files below {root}, run {run.id[:8]}", flush=True)
    run.wait(timeout=900).raise_for_status()
    print(run.logs("collect"), end="")
