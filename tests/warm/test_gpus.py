"""Eight jobs that use a preloaded torch on eight devices at once.

Devices and torch are stand-ins: a script named nvidia-smi, and a module that keeps what matters of torch to a fork.
Like CUDA, it reads the device from the environment of C when it is initialised, counts threads, and is of no use in
a fork of a process in which it was initialised.
"""

import os
from pathlib import Path

from tests.worker.conftest import StartWorker
from tests.worker.double import MasterDouble
from tests.worker.gpus import UUIDS, gpus
from titan.worker.warmth import WARM

TORCH = """
import ctypes, os, threading
imported_in = os.getpid()
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p

class Generator:
    state = b"of the server"
    def seed(self):
        self.state = os.urandom(8)
default_generator = Generator()

class cuda:
    initialised_in = 0
    in_bad_fork = False
    def init():
        assert not cuda.in_bad_fork, "Cannot re-initialize CUDA in forked subprocess"
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        cuda.initialised_in = os.getpid()
        return getenv(b"CUDA_VISIBLE_DEVICES").decode()
    def _forked():
        cuda.in_bad_fork = cuda.initialised_in > 0
os.register_at_fork(after_in_child=cuda._forked)
"""
# The worker's own environment has the module: here it lies beside what the worker puts into its jobs' search path.
WORKER = """
import runpy
from titan.worker import process
real = process.install_site
def install(folder):
    real(folder)
    (folder / "torch.py").write_text({!r})
process.install_site = install
runpy.run_module("titan.worker", run_name="__main__")
"""
JOB = """
import fcntl, os, torch
print("imported", torch.imported_in == os.getppid(), "initialised", torch.cuda.initialised_in)
device = torch.cuda.init()
lock = open(os.path.join({folder!r}, device), "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("state", torch.default_generator.state.hex())
print("on", device, torch.cuda.initialised_in == os.getpid(), flush=True)
os.read(os.open({gate!r}, os.O_RDONLY), 1)
"""


def test_eight_jobs_at_once_have_eight_devices_and_begin_to_use_them_themselves(
    master: MasterDouble, start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker(
        *("--slots", "8", "--capability", "GPU", "--preload", "torch"),
        environ=gpus(tmp_path / "bin", 8),
        program=("-c", WORKER.format(TORCH)),
    )
    os.mkfifo(gate := tmp_path / "gate")
    holder = os.open(gate, os.O_RDWR)
    job = JOB.format(folder=str(tmp_path), gate=str(gate))
    for _ in range(2):  # and again: what the first did is not in the server
        fences = [master.grant(job, requirement=("GPU",)) for _ in range(8)]
        logs = [master.wait_log(fence, "on GPU-").splitlines() for fence in fences]
        assert {lines[0] for lines in logs} == {"imported True initialised 0"}
        assert len({lines[1] for lines in logs}) == 8
        assert sorted(lines[2] for lines in logs) == [f"on {uuid} True" for uuid in UUIDS]
        assert {master.started[fence].start for fence in fences} == {WARM}
        os.write(holder, b"x" * len(fences))
        assert {master.end(fence)[0].exit_code for fence in fences} == {0}
    os.close(holder)
    assert "cannot be preloaded" not in worker.close()


def test_one_that_begins_to_use_a_device_at_its_import_is_not_preloaded(
    master: MasterDouble, start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker(
        *("--capability", "GPU", "--preload", "torch"),
        environ=gpus(tmp_path / "bin", 1) | {"CUDA_VISIBLE_DEVICES": "0"},
        program=("-c", WORKER.format(TORCH + "getenv = lambda _: b''\ncuda.init()\n")),
    )
    ended, log = master.run("import os, torch\nprint(torch.cuda.initialised_in == os.getpid())", requirement=("GPU",))
    assert log.endswith("True\n"), log
    assert ended.exit_code == 0
    assert "torch cannot be preloaded: import torch starts 1 threads, which a fork would not have" in worker.close()
