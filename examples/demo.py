"""From nothing to a result: start a cluster in a temporary folder, run a real DAG on it, keep its report, stop it.

Run it as `./dev demo`. The cluster's folder is removed at the end; only the report stays (--out FILE).
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TITAN = str(Path(sys.executable).with_name("titan"))
SURVEY = Path(__file__).parent / "map_reduce" / "submit.py"
ROOT = SURVEY.parents[2]


def show(command: list[str]) -> None:
    words = [word.removeprefix(f"{ROOT}/") for word in [Path(command[0]).name, *command[1:]]]
    print(f"\n$ {shlex.join(words)}", flush=True)


def join(url: str, environ: dict[str, str]) -> "subprocess.Popen[str]":
    """Start a second worker, one that offers GPU; return when it is connected, or has ended."""
    command = [TITAN, "worker", "--join", url, "--name", "second", "--slots", "1", "--capability", "GPU"]
    show(command)
    worker = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    assert worker.stderr is not None
    for line in worker.stderr:
        if "connected to" in line:
            print(line, end="", flush=True)
            break
    return worker


def survey(up: "subprocess.Popen[str]", environ: dict[str, str], out: Path) -> int:
    """Wait until the cluster is up, let the second worker join, and run the survey; return its exit code."""
    assert up.stdout is not None
    line = up.stdout.readline()  # comes when the Master answers and the worker is connected
    if not line:
        return up.wait() or 1
    ready = json.loads(line)
    print(f"Titan {ready['version']} at {ready['url']}, {ready['slots']} slots, ready in {ready['ready_s']} s")
    worker = join(ready["url"], environ)
    try:
        command = [sys.executable, str(SURVEY), "--draw-on", "GPU", "--out", str(out)]
        show(command)
        return subprocess.run(command, env=environ, check=False).returncode
    finally:
        worker.terminate()
        worker.communicate()


def down(up: subprocess.Popen[str], environ: dict[str, str]) -> None:
    """Stop the cluster as a person would."""
    command = [TITAN, "down"]
    if up.poll() is None:
        show(command)
        if subprocess.run(command, env=environ, check=False).returncode:
            up.terminate()
    up.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description="A small cluster, a real DAG, a report.")
    parser.add_argument("--out", type=Path, default=Path("titan-demo.html"), help="where the report goes")
    out = parser.parse_args().out
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="titan-demo-") as home:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TITAN_")}
        environ["TITAN_HOME"] = home
        command = [TITAN, "up", "--port", "0", "--slots", "2", "--json"]
        show(command)
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as up:
            try:
                code = survey(up, environ, out)
            finally:
                down(up, environ)
    if code == 0:
        print(f"\nStopped after {time.monotonic() - begin:.1f} s; the cluster's folder is gone, the report stays:")
        print(f"  {out.resolve()}")
        print("Now yours: . .venv/bin/activate, titan up, then titan run your_script.py; docs/tutorial.md goes on.")
    return code


if __name__ == "__main__":
    sys.exit(main())
