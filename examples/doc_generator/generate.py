"""Document a tree of Python files: one dispatcher job, then a job for each file, then one that binds the pages.

Run it as `python examples/doc_generator/generate.py FOLDER`, with `titan up` running on this machine.
"""

import argparse
import os
import sys
from pathlib import Path

from titan_sdk import TitanClient, TitanJob

HERE = Path(__file__).parent
MODEL = ("OPENAI_BASE_URL", "OPENAI_MODEL", "OPENAI_API_KEY")


def main() -> int:
    parser = argparse.ArgumentParser(description="Document a tree of Python files.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("pages.md"), help="where the bound pages go")
    options = parser.parse_args()
    with TitanClient() as client:
        for script in ("document.py", "collect.py"):
            client.upload_file(HERE / script)  # the dispatcher, wherever it runs, finds them by name
        dispatcher = TitanJob(
            job_id="dispatch",
            filename=HERE / "doc_dispatcher.py",
            args=[str(options.folder.resolve())],
            env={name: os.environ[name] for name in MODEL if name in os.environ},
        )
        run = client.submit_job(dispatcher).wait(timeout=900)
        print(run.logs("dispatch"), end="")
        if run.status != "COMPLETED":
            return 1
        client.get_artifact(f"docs/{run.id}", options.out)
        print(f"pages: {options.out.resolve()}")
        return 0


if __name__ == "__main__":
    sys.exit(main())
