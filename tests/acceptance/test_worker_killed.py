"""A real cluster whose worker is killed: nothing of its jobs is left, and they run again within seconds."""

import os
import signal
import time
from pathlib import Path

from tests.acceptance.cluster import Cluster
from tests.worker.processes import FAMILY, IGNORE_TERM, Death
from titan_sdk import TitanJob

# The second attempt ends; the first stays with its family, and says who they are.
STAYS = (
    IGNORE_TERM
    + (
        "if os.environ['TITAN_ATTEMPT'] == '2':\n"
        "    sys.exit(0)\n"
        "sys.stdout = open(sys.argv[1], 'w', buffering=1)\n"
        "os.dup2(sys.stdout.fileno(), 1)\n"
    )
    + FAMILY
    + "print('main', os.getpid(), flush=True)\nsignal.pause()\n"
)
KILLER = (
    "import os, signal\n"
    "launcher = open(f'/proc/{os.getppid()}/stat').read().rpartition(')')[2].split()\n"
    "os.kill(int(launcher[1]), 9)\n"
    "signal.pause()\n"
)


def _family(said: Path) -> dict[str, int]:
    """Return the pids of the five as they tell them through a pipe."""
    found: dict[str, int] = {}
    with said.open() as lines:
        for line in lines:
            name, number = line.split()
            found[name] = int(number)
            if len(found) == 5:
                break
    return found


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _job(folder: Path, text: str, *args: str) -> TitanJob:
    (folder / "stays.py").write_text(text)
    return TitanJob(job_id="stays", filename=str(folder / "stays.py"), args=list(args))


def test_f28_worker_and_launcher_killed_at_once_leave_nothing_under_titan_up(
    own_cluster: Cluster, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "said")
    with own_cluster.client() as client:
        run = client.submit_job(_job(tmp_path, STAYS, str(tmp_path / "said")))
        pids = _family(tmp_path / "said")
        deaths = [Death(pid) for pid in pids.values()]
        launcher = _parent(pids["main"])
        worker = _parent(launcher)
        begun_s = time.monotonic()
        os.kill(launcher, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        os.kill(launcher, signal.SIGKILL)
        assert all(death.wait() for death in deaths)
        print(f"all processes were gone {time.monotonic() - begun_s:.3f} s after the kill")
        assert run.wait(50).status == "COMPLETED"
        print(f"it ran again and ended {time.monotonic() - begun_s:.3f} s after the kill")


def test_f52_a_job_that_kills_its_worker_is_dead_after_three(own_cluster: Cluster, tmp_path: Path) -> None:
    with own_cluster.client() as client:
        run = client.submit_job(_job(tmp_path, KILLER))
        assert run.wait(55).status == "FAILED"
        assert client.get_job_status("stays") == "DEAD"
