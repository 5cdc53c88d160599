"""What falls to a supervisor from a killed child is ended before the next one, and nobody else is."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.worker.processes import Death

SUPERVISED = """
import os, signal, sys
from titan.cli.orphans import Orphans
from titan.cli.supervise import Program, Supervisor
folder = sys.argv[1]
orphans = Orphans()
orphans.adopt()
worker = '''
import os, signal, sys, time
open(sys.argv[1] + "/starts", "a").write("x\\\\n")
where = os.open(sys.argv[1] + "/pids", os.O_WRONLY)
os.set_inheritable(where, True)
times = open(sys.argv[1] + "/starts").read().count("x")
if times == 1:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve("/bin/sh", ["sh", "-c", "trap : TERM; echo $$ >&%d; while :; do sleep 1000; done" % where], {})
        os._exit(0)
    os.wait()
    signal.pause()
os.write(where, b"again\\\\n")
os.write(int(sys.argv[5]), b"ready")
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:
    time.sleep(0.1)  # pause() would miss a signal that comes just before it
'''
master = "import os, signal, sys; os.write(int(sys.argv[4]), b'ready'); signal.pause()"
Supervisor(
    Program("master", ("-c", master), 5.0),
    [Program("w", ("-c", worker, folder), 5.0)],
    lambda: None, lambda pids: print(*pids, flush=True), lambda text: None, orphans,
).run()
"""


BEFORE = """
import os, sys
if os.fork() == 0:
    os.execvp("sleep", ["sleep", "1000"])
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
"""


@contextmanager
def killed_worker(tmp_path: Path, *program: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A supervisor whose worker was killed and started again, and the pid of the process that worker had left."""
    os.mkfifo(tmp_path / "pids")
    supervisor = subprocess.Popen(
        [sys.executable, "-c", *program, SUPERVISED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    with supervisor.stdout, open(os.open(tmp_path / "pids", os.O_RDWR), encoding="ascii") as pids:
        stranger = int(pids.readline())
        supervisor.stdout.readline()
        os.kill(int(supervisor.stdout.readline().split()[1]), signal.SIGKILL)
        assert pids.readline() == "again\n"
        yield supervisor, stranger
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(30) == 0


def test_f28_what_a_killed_worker_left_is_ended_before_the_next_one_starts(tmp_path: Path) -> None:
    with killed_worker(tmp_path) as (_, stranger):
        assert not Path(f"/proc/{stranger}").exists()


def test_where_others_orphans_would_fall_to_it_nobody_is_ended(tmp_path: Path) -> None:
    # A child from before the exec, as a shell has one: what that one starts would fall to the supervisor as well.
    with killed_worker(tmp_path, BEFORE) as (supervisor, stranger):
        os.killpg(os.getpgid(stranger), signal.SIGKILL)
        children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
        (from_before,) = [pid for pid in children if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"]
        alive = Death(int(from_before))
    assert not alive.wait(0)
    os.kill(int(from_before), signal.SIGKILL)
