"""A Master that was broken into: whatever it sends, its worker starts nothing it should not, lives, and stays small."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.worker.conftest import StartWorker, WorkerProcess
from tests.worker.double import MasterDouble
from titan.model.spec import JobSpec, encode_spec
from titan.model.wire import Ack, Drain, Grant, Hello, Lend, Recall, RenewAck, Stop, Welcome, encode_frame

FLOOD = 10_000
GROWTH_KB_MAX = 20 * 1024
WAITING_KB_MAX = 32 * 1024  # of specs; what is over it goes back
MSGPACK = msgspec.msgpack.Encoder()


def raw_grant(fence: object, **changes: Any) -> dict[str, Any]:
    """A grant as a map, so that it can be what no Master would make."""
    whole = {
        "type": "grant", "fence": fence, "run_id": "0" * 32, "job_id": "j", "generation": 1, "attempt": 1,
        "spec": encode_spec(JobSpec("j", "job.py", script="0" * 64)), "token": "t", "idempotency_key": "k",
        "agent_run_id": "a",
    }  # fmt: skip
    return whole | changes


# Each costs the link, and the next one stands.
CLOSING = {
    "no message": b"\x90",
    "no msgpack": b"\xc1\xff",
    "nested": b"\x91" * 100_000,
    "a bomb of a length": b"\xdd\xff\xff\xff\xff",
    "another message": MSGPACK.encode([{"type": "exec", "argv": ["/bin/sh", "-c", "id"]}]),
    "a message of ours": MSGPACK.encode([{"type": "returned", "fence": 1, "reason": ""}]),
    "fence below": MSGPACK.encode([raw_grant(-1)]),
    "fence zero": MSGPACK.encode([raw_grant(0)]),
    "fence above": MSGPACK.encode([raw_grant(2**64 - 1)]),
    "fence a path": MSGPACK.encode([raw_grant("../../etc")]),
    "text not UTF-8": MSGPACK.encode([raw_grant(1, token="TT")]).replace(b"TT", b"\xff\xfe"),
    "token of a megabyte": MSGPACK.encode([raw_grant(1, token="t" * 1_000_000)]),
    "offset below": MSGPACK.encode([{"type": "ack", "log_offsets": {1: -5}}]),
    "welcomed twice": encode_frame([Welcome(epoch=1)]),
    "larger than a frame": bytes(5 * 1024 * 1024),
}

# Each is a description that starts nothing.
REFUSED: dict[str, dict[str, Any]] = {
    "program": {"program": "/bin/sh"},
    "working directory": {"cwd": "/"},
    "folder above": {"filename": ".."},
    "folder": {"filename": "a/"},
    "NUL in the name": {"filename": "a\0.py"},
    "name too long": {"filename": "n" * 300},
    "script a path": {"script": "../../../../etc/passwd"},
    "no script": {"script": ""},
    "NUL in args": {"args": ["a\0b"]},
    "args too large": {"args": ["x" * 2_000_000]},
    "env is ours": {"env": {"TITAN_TOKEN": "stolen"}},
    "env has no name": {"env": {"": "x"}},
    "env too large": {"env": {"A": "x" * 1_000_000}},
    "timeout": {"timeout_s": float("inf")},
    "lease": {"lease_s": 2**63},
    "type": {"job_type": "SHELL"},
    "not a description": {"filename": 5},
}


def memory_kb(worker: WorkerProcess) -> int:
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def test_s47_frames_that_no_master_sends_cost_the_link_and_nothing_else(
    master: MasterDouble, worker: WorkerProcess
) -> None:
    fence = master.grant("import sys\nprint('begun')\nopen(sys.argv[1]).read()\n", args=(_fifo(worker),))
    master.wait_log(fence, "begun")
    for number, frame in enumerate(CLOSING.values(), start=2):
        master.send_raw(frame)
        master.wait(lambda count=number: len(master.hellos) >= count, f"hello number {number}")  # type: ignore[misc]
    assert worker.process.poll() is None
    assert {hello.incarnation for hello in master.hellos} == {master.hellos[0].incarnation}
    assert set(master.started) == {fence}
    # What ran all the while runs to its end.
    Path(_fifo(worker)).write_text("go")
    assert master.end(fence)[0].exit_code == 0
    assert master.run("print('fine')\n")[1] == "fine\n"


def _fifo(worker: WorkerProcess) -> str:
    path = worker.home / "fifo"
    if not path.exists():
        os.mkfifo(path)
    return str(path)


def test_s47_descriptions_that_no_master_sends_start_nothing_and_are_told(
    master: MasterDouble, worker: WorkerProcess
) -> None:
    sha256 = master.add_blob("open('/proc/self/cwd/../../../ran', 'w')\n")
    fences = range(1_000, 1_000 + len(REFUSED))
    for fence, changes in zip(fences, REFUSED.values(), strict=True):
        spec = {"job_id": "j\x1b[2J", "filename": "job.py", "script": sha256} | changes
        master.send_raw(MSGPACK.encode([raw_grant(fence, spec=MSGPACK.encode(spec))]))
        assert master.end(fence)[0].cause == "start_failed"
    assert len(master.hellos) == 1
    assert master.run("print('fine')\n")[1] == "fine\n"
    worker.stop()
    assert not (worker.folder.parent / "ran").exists()
    assert not (worker.folder / "ran").exists()
    assert list((worker.folder / "jobs").iterdir()) == []
    said = worker.close()
    assert [f"refused attempt {fence} of job 'j': " in said for fence in fences] == [True] * len(fences)
    assert "\x1b" not in said


def test_s47_unknown_fields_and_fences_mean_nothing(master: MasterDouble, worker: WorkerProcess) -> None:
    master.send(
        Recall(77), Stop(77), Lend(77, on=True), RenewAck(2**62), Ack((77,), {77: 2**62}), Ack(tuple(range(1, FLOOD)))
    )
    sha256 = master.add_blob("import os\nprint(os.getcwd(), os.environ['PATH'])\n")
    spec = MSGPACK.encode({"job_id": "j", "filename": "/etc/passwd.py", "script": sha256})
    master.send_raw(
        MSGPACK.encode([raw_grant(7, spec=spec, argv=["/bin/sh"], cwd="/", env={"PATH": "/evil"}, user="root")])
    )
    _, log = master.end(7)
    assert log.startswith(f"{worker.folder}/jobs/7 ")
    assert "evil" not in log


def test_s47_a_welcome_full_of_strangers_changes_nothing(master: MasterDouble, start_worker: StartWorker) -> None:
    def welcome(_: Hello) -> Welcome:
        return Welcome(2**62, tuple(range(100, 100 + FLOOD)), dict.fromkeys(range(100, 100 + FLOOD), 2**62))

    master.answers_hello = welcome
    worker = start_worker()
    assert master.run("print('fine')\n")[1] == "fine\n"
    assert worker.process.poll() is None


@pytest.mark.parametrize("wanted", ["refused", "waiting", "large"])
def test_s47_ten_thousand_grants_leave_a_worker_small_and_at_work(
    master: MasterDouble, worker: WorkerProcess, wanted: str
) -> None:
    assert master.run("print('fine')\n")[1] == "fine\n"
    before_kb = memory_kb(worker)
    bad = JobSpec("j", "..", script="0" * 64)
    if wanted == "refused":
        grants = [master.grant_message(10_000 + number, bad) for number in range(FLOOD)]
    else:
        # All slots are taken by jobs whose script never comes, so that the others wait and go back.
        master.holds_fetches = True
        good = JobSpec("j", "job.py", script="0" * 64)
        if wanted == "large":
            good = JobSpec("j", "job.py", script="0" * 64, args=("x" * 500_000,))
        count = FLOOD if wanted == "waiting" else 300
        grants = [master.grant_message(10_000 + number, good if number > 3 else bad) for number in range(count)]
        never = JobSpec("j", "a.py", script="1" * 64)
        grants[:4] = [master.grant_message(9_990 + number, never) for number in range(4)]
    step = 2 if wanted == "large" else 1_000
    for at in range(0, len(grants), step):
        master.send_raw(encode_frame(grants[at : at + step]))
    # What comes while the slots are taken goes back, in all but those that wait.
    least = len(grants) if wanted == "refused" else len(grants) - 4 - 68
    master.wait(lambda: len(master.ended) + len(master.returned) >= least, f"{least} answers")
    grown_kb = memory_kb(worker) - before_kb
    if wanted != "refused":
        master.send(Drain())
        master.wait(lambda: len(master.returned) >= len(grants), "all of them")
        assert set(master.started) == {1}
        master.release_fetches()
    else:
        assert master.run("print('fine')\n")[1] == "fine\n"
    assert worker.process.poll() is None
    assert grown_kb < GROWTH_KB_MAX + (WAITING_KB_MAX if wanted == "large" else 0)


def test_s47_its_owner_says_what_may_run(master: MasterDouble, start_worker: StartWorker) -> None:
    worker = start_worker("--allow-interpreter", "/bin/sh", "--timeout-max", "3600", "--lend-max", "0")
    ended, log = master.run("print('no')\n")
    assert (ended.exit_code, ended.cause) == (127, "start_failed")
    assert log == (
        "[titan] could not start: 'job.py' runs by 'python': this worker allows /bin/sh only (--allow-interpreter)\n"
    )
    assert master.run("#!/bin/sh\necho yes\n", "job.sh")[1] == "yes\n"
    assert master.run("#!/bin/bash\necho no\n", "job.sh")[0].cause == "start_failed"
    assert "refused attempt 1 of job 'job-1'" in worker.close()


def test_s47_a_grant_is_one_of_the_protocol() -> None:
    # The flood above would prove nothing if its grants were no grants.
    assert set(raw_grant(1)) == {"type", *Grant.__struct_fields__}
