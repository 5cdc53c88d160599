"""GPUs: found by nvidia-smi, handed out one a job, never two jobs on one, whatever becomes of either."""

import fcntl
import os
import signal
from pathlib import Path

import pytest

from tests.worker.conftest import StartWorker, WorkerProcess
from tests.worker.double import MasterDouble
from tests.worker.gpus import UUIDS, fake_program, gpus, listing
from titan.model.spec import JobSpec
from titan.worker.devices import Device, Devices, NotFound, find

GPU = ("GPU",)
GPU_JOB = JobSpec(job_id="j", filename="j.py", requirement=GPU)
SHOW = "import os\nprint(os.environ.get('CUDA_VISIBLE_DEVICES', 'not set'))\n"
# Holds its device as a program on it would, and says so; fails if somebody else does.
OCCUPY = """
import fcntl, os, sys
folder, gate = {folder!r}, {gate!r}
device = os.environ["CUDA_VISIBLE_DEVICES"]
lock = open(os.path.join(folder, device), "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("on", device, flush=True)
open(gate).read()
"""


def found(tmp_path: Path, script: str, answer_s_max: float = 30, **environ: str) -> tuple[Device, ...]:
    return find(fake_program(tmp_path / "bin", script) | environ, answer_s_max)


def saying(text: str) -> str:
    return f"#!/bin/sh\ncat <<'END'\n{text}END\n"


# Finding


def test_devices_are_what_nvidia_smi_lists(tmp_path: Path) -> None:
    devices = find(gpus(tmp_path / "bin", 2))
    assert devices == (
        Device(0, UUIDS[0], "NVIDIA H200", "143771"),
        Device(1, UUIDS[1], "NVIDIA H200", "143771"),
    )


def test_a_memory_that_the_driver_does_not_know_is_no_obstacle(tmp_path: Path) -> None:
    (device,) = found(tmp_path, saying(f"0, {UUIDS[0]}, NVIDIA GB10, [N/A]\n"))
    assert device.memory == "[N/A]"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (
            "#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n",
            "nvidia-smi ended with exit code 9: 'NVIDIA-SMI has failed'",
        ),
        ("#!/bin/sh\necho trouble >&2\nexit 1\n", "nvidia-smi ended with exit code 1: 'trouble'"),
        ("#!/bin/sh\nkill -9 $$\n", "nvidia-smi ended with exit code -9: ''"),
        ("#!/bin/sh\n", "nvidia-smi lists no device"),
        (saying("No devices were found\n"), "nvidia-smi answered 'No devices were found', which lists no device"),
        (saying("0, GPU-../../etc/passwd, x, 1\n"), "nvidia-smi answered '0, GPU-../../etc/passwd, x, 1', which"),
        (saying(listing(1) * 2), "nvidia-smi lists one device twice"),
        (saying(listing(1) + "and so on\n"), "nvidia-smi answered 'and so on', which lists no device"),
        ("#!/bin/sh\nexec cat /dev/zero\n", "nvidia-smi ended with exit code -13: "),
        ("#!/no/such/interpreter\n", "nvidia-smi cannot be run: No such file or directory"),
    ],
)
def test_an_answer_that_lists_no_device_says_why(tmp_path: Path, script: str, why: str) -> None:
    with pytest.raises(NotFound) as caught:
        found(tmp_path, script)
    assert str(caught.value).startswith(why)


def test_without_the_program_there_is_no_device(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no nvidia-smi on PATH"):
        find({"PATH": str(tmp_path)})


@pytest.mark.parametrize("script", ["sleep 600", "exec >&- 2>&-; sleep 600"])
def test_one_that_hangs_is_killed_with_what_it_started(tmp_path: Path, script: str) -> None:
    os.mkfifo(alive := tmp_path / "alive")
    reading = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(NotFound, match="gave no answer within 1 s"):
        found(tmp_path, f"#!/bin/sh\nexec 3>{alive}\n{script}\n", answer_s_max=1)
    os.set_blocking(reading, True)
    assert os.read(reading, 1) == b"", "the end of file comes once nobody holds the other end"
    os.close(reading)


@pytest.mark.parametrize(
    ("own", "named"),
    [
        ("0,1,2", (0, 1, 2)),
        (" 2 , 0 ", (2, 0)),
        ("1", (1,)),
        (UUIDS[1], (1,)),
        ("GPU-2111", (2,)),
        ("1,1", (1,)),
        ("1,7,0", (1,)),
        ("2,-1,0", (2,)),
        (f"{UUIDS[2]},0", (2, 0)),
    ],
)
def test_the_workers_own_variable_says_which_it_may_hand_out(tmp_path: Path, own: str, named: tuple[int, ...]) -> None:
    devices = find(gpus(tmp_path / "bin", 3) | {"CUDA_VISIBLE_DEVICES": own})
    assert tuple(device.index for device in devices) == named


@pytest.mark.parametrize("own", ["", "-1", "NoDevFiles", "9", "GPU-", "MIG-1"])
def test_one_that_names_no_device_hands_out_none(tmp_path: Path, own: str) -> None:
    with pytest.raises(NotFound, match=f"CUDA_VISIBLE_DEVICES='{own}' of this worker names none of the 3 devices here"):
        find(gpus(tmp_path / "bin", 3) | {"CUDA_VISIBLE_DEVICES": own})


# Who holds which


class Timers:
    """A loop's timers, fired when the test says so."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def later(self, _seconds: float, call: object) -> None:
        self.calls.append(call)

    def fire(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            assert callable(call)
            call()


class Holder:
    """A `Devices` with two GPUs and a record of who was told to try again."""

    def __init__(self, locks: Path, count: int = 2) -> None:
        self.timers = Timers()
        devices = tuple(Device(index, UUIDS[index], "NVIDIA H200", "143771") for index in range(count))
        self.devices = Devices(devices, locks, self.timers.later)
        self.started: list[int] = []

    def take(self, fence: int, spec: JobSpec = GPU_JOB) -> bool:
        if self.devices.take(fence, spec, lambda: self.take(fence, spec)):
            self.started.append(fence)
            return True
        return False


def test_each_job_gets_a_device_of_its_own_and_the_rest_wait_their_turn(tmp_path: Path) -> None:
    here = Holder(tmp_path / "locks")
    assert [here.take(fence) for fence in (1, 2, 3, 4)] == [True, True, False, False]
    assert [here.devices.visible(fence) for fence in (1, 2, 3)] == [UUIDS[0], UUIDS[1], ""]
    here.devices.forget(1)
    assert here.started == [1, 2, 3]
    assert here.devices.visible(3) == UUIDS[0]
    here.devices.forget(4)
    here.devices.forget(2)
    here.devices.forget(99)
    assert here.started == [1, 2, 3]
    assert here.take(5)
    assert here.devices.visible(5) == UUIDS[1]


def test_a_newcomer_does_not_overtake_one_that_waits(tmp_path: Path) -> None:
    here, other = Holder(tmp_path / "locks", 1), Holder(tmp_path / "locks", 1)
    assert other.take(9)
    assert not here.take(1)
    other.devices.forget(9)
    assert not here.take(2)
    here.timers.fire()
    assert here.started == [1]


def test_other_jobs_need_none_and_see_none(tmp_path: Path) -> None:
    here = Holder(tmp_path / "locks", 1)
    plain = JobSpec(job_id="p", filename="p.py")
    assert here.take(1)
    assert here.take(2, plain)
    assert here.devices.visible(2) == ""


def test_where_no_device_is_handed_out_nothing_is_said_of_any(tmp_path: Path) -> None:
    here = Holder(tmp_path / "locks", 0)
    assert [here.take(fence) for fence in (1, 2)] == [True, True]
    assert here.devices.visible(1) is None
    assert not (tmp_path / "locks").exists()


def test_two_workers_of_one_home_never_share_a_device(tmp_path: Path) -> None:
    here, other = Holder(tmp_path / "locks"), Holder(tmp_path / "locks")
    assert [here.take(1), other.take(1)] == [True, True]
    assert (here.devices.visible(1), other.devices.visible(1)) == (UUIDS[0], UUIDS[1])
    assert not here.take(2)
    here.timers.fire()
    assert here.started == [1]
    other.devices.forget(1)
    here.timers.fire()
    assert here.started == [1, 2]
    assert here.timers.calls == []
    assert here.devices.visible(2) == UUIDS[1]


# A worker


def test_a_gpu_job_sees_its_device_and_others_none(
    master: MasterDouble, start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker("--capability", "GPU", environ=gpus(tmp_path / "bin", 2))
    assert master.hellos[0].devices == UUIDS[:2]
    own = {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert master.run(SHOW, requirement=GPU)[1] == f"{UUIDS[0]}\n"
    assert master.run(SHOW, requirement=GPU, env=own)[1] == f"{UUIDS[0]}\n"
    assert master.run(SHOW)[1] == "\n"
    assert master.run(SHOW, env=own)[1] == "\n"
    assert f"one GPU job a device: 0 NVIDIA H200 ({UUIDS[0]}), 1 NVIDIA H200 ({UUIDS[1]})" in worker.close()


def test_without_devices_gpu_is_a_plain_tag_and_a_person_is_told_once(
    master: MasterDouble, start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker("--capability", "GPU", environ=fake_program(tmp_path / "bin", "#!/bin/sh\necho no; exit 9\n"))
    assert master.hellos[0].devices == ()
    assert master.run(SHOW, requirement=GPU)[1] == "not set\n"
    assert master.run(SHOW, requirement=GPU, env={"CUDA_VISIBLE_DEVICES": "1"})[1] == "1\n"
    master.stop()
    master.start()
    master.wait_hellos(2)
    line = "no GPU is handed out: nvidia-smi ended with exit code 9: 'no'; GPU is a plain tag here"
    assert worker.close().count(line) == 1


def test_a_worker_without_the_tag_leaves_the_variable_alone(
    master: MasterDouble, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker(environ=fake_program(tmp_path / "bin", "#!/bin/sh\nexec sleep 600\n") | {"CUDA_VISIBLE_DEVICES": "3"})
    assert master.hellos[0].devices == ()
    assert master.run(SHOW)[1] == "not set\n"


def test_a_device_goes_on_when_the_last_process_of_its_job_is_gone(
    master: MasterDouble, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker("--capability", "GPU", environ=gpus(tmp_path / "bin", 1))
    os.mkfifo(gate := tmp_path / "gate")
    occupy = OCCUPY.format(folder=str(tmp_path), gate=str(gate))
    # What it leaves behind ignores TERM, holds the device and is in a session of its own.
    leaves = (
        "import fcntl, os, signal, sys\n"
        f"lock = open(os.path.join({str(tmp_path)!r}, os.environ['CUDA_VISIBLE_DEVICES']), 'w')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    while True: signal.pause()\n"
        "print('left one')\n"
    )
    first = master.grant(leaves, requirement=GPU)
    second = master.grant(occupy, requirement=GPU)
    master.end(first)
    master.wait_log(second, f"on {UUIDS[0]}\n")
    third = master.grant(occupy, requirement=GPU)
    fourth = master.grant(occupy, requirement=GPU)
    master.cancel(third)
    master.wait(lambda: master.returned.get(third), "one that waited for a device to come back")
    assert third not in master.started
    for fence in (second, fourth):
        master.wait_log(fence, f"on {UUIDS[0]}\n")
        os.close(os.open(gate, os.O_WRONLY))
        assert master.end(fence)[0].exit_code == 0


def test_a_killed_launcher_frees_its_devices(master: MasterDouble, start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker("--capability", "GPU", environ=gpus(tmp_path / "bin", 1))
    os.mkfifo(gate := tmp_path / "gate")
    occupy = OCCUPY.format(folder=str(tmp_path), gate=str(gate))
    master.wait_log(master.grant(occupy, requirement=GPU), "on ")
    second = master.grant(occupy, requirement=GPU)
    os.kill(worker.launcher_pid, signal.SIGKILL)
    master.wait_log(second, f"on {UUIDS[0]}\n")


def test_a_worker_started_anew_has_all_its_devices(
    master: MasterDouble, start_worker: StartWorker, tmp_path: Path
) -> None:
    machine = gpus(tmp_path / "bin", 1)
    first: WorkerProcess = start_worker("--capability", "GPU", environ=machine)
    os.mkfifo(gate := tmp_path / "gate")
    occupy = OCCUPY.format(folder=str(tmp_path), gate=str(gate))
    master.wait_log(master.grant(occupy, requirement=GPU), "on ")
    first.process.kill()
    first.close()
    # The predecessor's job dies with it; until then its own lock says so.
    with open(tmp_path / UUIDS[0], "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    start_worker("--capability", "GPU", environ=machine)
    master.wait_log(master.grant(occupy, requirement=GPU), f"on {UUIDS[0]}\n")
