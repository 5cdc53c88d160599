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
SURVEY = Path(__file__).parent / "stdlib_survey" / "submit.py"


def show(*command: str) -> None:
    print(f"\n$ {shlex.join([Path(command[0]).name, *command[1:]])}", flush=True)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="titan-demo-") as home:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TITAN_")}
        environ["TITAN_HOME"] = home
        show("titan", "up", "--port", "0", "--slots", "2")
        command = [TITAN, "up", "--port", "0", "--slots", "2", "--json"]
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as up:
            assert up.stdout is not None
            try:
                line = up.stdout.readline()  # comes when the Master answers and the worker is connected
                if not line:
                    return up.wait() or 1
                document = json.loads(line)
                print(f"Titan {document['version']} at {document['url']}, ready in {document['ready_s']} s")
                show("python", "examples/stdlib_survey/submit.py")
                code = subprocess.run([sys.executable, str(SURVEY)], env=environ, check=False).returncode
                for arguments in (["ps"], ["logs", "list"]):
                    show("titan", *arguments)
                    subprocess.run([TITAN, *arguments], env=environ, check=False)
            finally:
                up.terminate()
                up.wait()
    print("\nStopped, and the temporary folder is gone. Now yours: titan up, then titan run your_script.py")
    return code


if __name__ == "__main__":
    sys.exit(main())
