"""S18: after a full run of everything no token is found where it does not belong; S23: and nobody else may look."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import IO

from tests.acceptance.cluster import STOP_S, TITAN, bare_environment, titan

# The token leaves backwards, so that what a job prints itself is not what is looked for.
JOB = """\
import os, sys
from titan_sdk import TitanClient, TitanJob
client = TitanClient()
client.store_put("backwards", os.environ["TITAN_TOKEN"][::-1])
client.submit_job(TitanJob("child", "child.py", script_content="print('a child')")).wait()
open(sys.argv[1], "w").write("running")
open(sys.argv[2]).read()
raise SystemExit(3)
"""
# Whose they are: the home's own, and what a worker elsewhere got for its enrolment.
KEPT = {"near/token", "far/workers/far/credential"}


def command_lines() -> bytes:
    """Return all command lines of this machine, as anybody sees them."""
    found = b""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                found += (process / "cmdline").read_bytes() + b"\n"
            except OSError:
                continue
    return found


def start(home: Path, log: IO[bytes], *words: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([TITAN, *words], env=bare_environment(home), stdout=subprocess.PIPE, stderr=log)


def test_s18_no_token_is_found_after_a_full_run(tmp_path: Path) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    fifos = [str(tmp_path / name) for name in ("told", "may-go")]
    for fifo in fifos:
        os.mkfifo(fifo)
    (tmp_path / "job.py").write_text(JOB)
    said = b""

    def run(*words: str, home: Path = near, **more: str) -> bytes:
        nonlocal said
        done = titan(home, *words, cwd=tmp_path, **more)
        said += done.stdout + done.stderr if words[:2] != ("token", "create") else done.stderr
        return done.stdout

    with (tmp_path / "near.log").open("wb") as near_log, (tmp_path / "far.log").open("wb") as far_log:
        up = start(near, near_log, "up", "--port", "0", "--slots", "2", "--json")
        assert up.stdout is not None
        url = json.loads(up.stdout.readline())["url"]
        operator = run("token", "create", "n", "--role", "operator").decode().strip()
        line = json.loads(titan(near, "worker", "join-token", "--json").stdout)
        worker = start(
            far, far_log, "worker", "--join", url, "--token", line["token"], "--name", "far", "--capability", "FAR"
        )
        going = start(near, near_log, "run", str(tmp_path / "job.py"), "--", *fifos)
        assert Path(fifos[0]).read_text() == "running"
        job = run("store", "get", "backwards").decode()[::-1]
        assert job.startswith("tj.")
        seen = command_lines()
        Path(fifos[1]).write_text("go")
        assert going.wait(STOP_S) == 3
        said += going.communicate()[0]
        elsewhere = {"TITAN_URL": url, "TITAN_TOKEN": operator}
        for words in (["ps", "--json"], ["token", "ls", "--debug"]):
            run(*words, home=far, **elsewhere)
        for token in (operator[:-3], line["token"], job):
            run("ps", "--debug", home=far, TITAN_URL=url, TITAN_TOKEN=token)
        for words in (["logs", "@last"], ["audit", "ls", "--json"]):
            run(*words)
        secret = operator.split(".")[1]
        run("worker", "remove", "far")
        assert worker.wait(STOP_S) == 6
        run("token", "revoke", secret)
        up.terminate()
        assert up.wait(STOP_S) == 0
        for process in (worker, up):
            said += process.communicate()[0]

    credential = (far / "workers/far/credential").read_text().strip()
    home = (near / "token").read_text().strip()
    secrets = [text.rpartition(".")[2].encode() for text in (home, operator, line["token"], credential, job)]
    assert len(set(secrets)) == 5
    places = {"what was said": said, "the list of processes": seen}
    found = [
        (place, token) for place, data in (places | kept_files(tmp_path)).items() for token in secrets if token in data
    ]
    assert not found
    assert re.search(rb"titan.master", seen)  # it was looked at while everything ran
    open_to_others = [path for path in (*near.rglob("*"), *far.rglob("*"), near, far) if is_open(path)]
    assert not open_to_others


def kept_files(folder: Path) -> dict[str, bytes]:
    """Return what all files below `folder` hold, but for those that a token belongs in."""
    files = [file for file in folder.rglob("*") if file.is_file() and str(file.relative_to(folder)) not in KEPT]
    return {str(file): file.read_bytes() for file in files}


def is_open(path: Path) -> bool:
    return not path.is_symlink() and path.stat().st_mode & 0o077 != 0
