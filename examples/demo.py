"""Titan in half a minute: start a cluster in a temporary folder, run a real DAG, look at it, stop it.

Run it as `./dev demo`. Nothing is left behind, and nothing outside the temporary folder is touched.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

TITAN = str(Path(sys.executable).with_name("titan"))
SURVEY = Path(__file__).parent / "map_reduce" / "submit.py"


STEPS = [[sys.executable, str(SURVEY)], [TITAN, "ps"], [TITAN, "logs", "list"]]


def show(command: list[str]) -> None:
    words = [word.removeprefix(f"{SURVEY.parents[2]}/") for word in [Path(command[0]).name, *command[1:]]]
    print(f"\n$ {shlex.join(words)}", flush=True)


def look_around(up: "subprocess.Popen[str]", environ: dict[str, str]) -> int:
    """Wait until the cluster is up, take the steps, and return the first exit code that is not 0."""
    assert up.stdout is not None
    line = up.stdout.readline()  # comes when the Master answers and the worker is connected
    if not line:
        return up.wait() or 1
    ready = json.loads(line)
    print(f"Titan {ready['version']} at {ready['url']}, {ready['slots']} slots, ready in {ready['ready_s']} s")
    for step in STEPS:
        show(step)
        code = subprocess.run(step, env=environ, check=False).returncode
        if code:
            return code
    return 0


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="titan-demo-") as home:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TITAN_")}
        environ["TITAN_HOME"] = home
        command = [TITAN, "up", "--port", "0", "--slots", "2", "--json"]
        show(command)
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as up:
            try:
                code = look_around(up, environ)
            finally:
                up.terminate()
                up.wait()
    if code == 0:
        print("\nStopped, and the temporary folder is gone. Now yours: titan up, then titan run your_script.py")
    return code


if __name__ == "__main__":
    sys.exit(main())
