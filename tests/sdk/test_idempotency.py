"""Keys in a job: the same in each attempt for its main process, random for everybody else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sdk.double import Double, Request, answer
from tests.unit.sources import SRC
from titan_sdk.idempotency import _calls_made, call_key, sendable

RUN = {"id": "ab" * 16, "name": "n", "state": "QUEUED", "generation": 1}
# What one attempt of a job does; its second line of work is done by a child as well.
JOB = """
import os, subprocess, sys
from titan_sdk import TitanClient, TitanJob
client = TitanClient()
client.store_incr("pages")
client.store_incr("pages")
client.store_incr("pages", by=2)
client.store_put("pages", "1")
client.submit_job(TitanJob(job_id="child", filename="self.py"))
client.submit_dag("pair", [TitanJob(job_id="child", filename=os.path.abspath("self.py"))], idempotency_key="mine 1")
client.extend_run("ab" * 16, [TitanJob(job_id="child", filename="nowhere.py")])
if len(sys.argv) == 1:
    subprocess.run([sys.executable, __file__, "child"], check=True, start_new_session=True)
"""
# As the launcher does it: the main process is told its own pid before the exec.
AS_MAIN = """
import os, sys
os.environ["TITAN_MAIN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "self.py"])
"""


def reply(request: Request) -> bytes:
    if request.path == "store/incr":
        return answer({"value": "1"})
    return answer({"run": RUN, "warnings": [], "resolved": {}, "version": 1})


def attempt(url: str, folder: Path, key: str, *, main: bool = True) -> None:
    """Run JOB as a worker would: in a folder of its own, told that it is the main process."""
    folder.mkdir()
    (folder / "self.py").write_text(JOB)
    environ = {
        "PATH": os.environ["PATH"], "TITAN_URL": url, "TITAN_TOKEN": "t", "TITAN_JOB_ID": "j", "TITAN_RUN_ID": "r",
        "TITAN_IDEMPOTENCY_KEY": key, "TITAN_WORKDIR": str(folder), "PYTHONPATH": str(SRC),
    }  # fmt: skip
    how = ["-c", AS_MAIN] if main else ["self.py"]
    subprocess.run([sys.executable, *how], cwd=folder, env=environ, start_new_session=True, check=True, timeout=60)


def said(requests: list[Request]) -> list[tuple[str, str, bytes]]:
    return [(request.path, request.key, request.body) for request in requests]


def test_a_later_attempt_repeats_the_keys_and_the_bodies(tmp_path: Path) -> None:
    with Double(reply) as master:
        attempt(master.url, tmp_path / "attempt1", "k1")
        first, master.requests = master.requests, []
        attempt(master.url, tmp_path / "attempt2", "k1")
        second, master.requests = master.requests, []
        attempt(master.url, tmp_path / "attempt3", "k2")
        other = master.requests
    calls = 7
    assert len(first) == len(second) == 2 * calls
    main, again = said(first[:calls]), said(second[:calls])
    put = 3  # a put is not in the list: its key guards its own resends only
    assert main[:put] == again[:put]
    assert main[put + 1 :] == again[put + 1 :]
    assert main[put][1] != again[put][1]
    keys = [request.key for request in first]
    assert len(set(keys) - {keys[5]}) == len(keys) - 2, "identical calls are told apart, and so are processes"
    assert keys[5] == keys[5 + calls] == sendable("mine 1")
    assert not set(keys) & {request.key for request in second[calls:]} - {keys[5]}, "a child's keys are random"
    assert not set(keys) & {request.key for request in other} - {keys[5]}, "another job's keys are others"
    assert all(key.startswith("job.") for at, key in enumerate(keys[:calls]) if at not in (put, 5))
    assert not any(key.startswith("job.") for key in keys[calls:])
    assert json.loads(first[4].body)["jobs"][0]["filename"] == "self.py"
    assert json.loads(first[5].body)["jobs"][0]["filename"] == "self.py"


def test_a_process_that_is_not_told_so_is_not_the_main_one(tmp_path: Path) -> None:
    with Double(reply) as master:
        attempt(master.url, tmp_path / "one", "k", main=False)
        assert not any(request.key.startswith("job.") for request in master.requests)


def test_outside_a_job_keys_are_random() -> None:
    assert call_key("submit", b"x", {}) != call_key("submit", b"x", {})


def test_call_body_and_job_all_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("titan_sdk.idempotency.is_main_process", lambda: True)

    def first_three(call: str = "submit", body: bytes = b"x", job: str = "k") -> tuple[str, ...]:
        _calls_made.clear()
        return tuple(call_key(call, body, {"TITAN_IDEMPOTENCY_KEY": job}) for _ in range(3))

    made = [first_three(), first_three("extend"), first_three(body=b"y"), first_three(job="l")]
    assert len({key for keys in made for key in keys}) == 12
    assert first_three() == made[0]


def test_a_caller_may_use_any_text_as_a_key() -> None:
    assert sendable("nightly-2026_01.31:a") == "nightly-2026_01.31:a"
    odd = ["", "with space", "ümlaut", "a\r\nX: 1", "\ud800", "x" * 129]
    made = [sendable(text) for text in odd]
    assert len(set(made)) == len(odd)
    assert all(key.isascii() and key.isprintable() and " " not in key and len(key) <= 128 for key in made)
