"""What falls to a supervisor from a killed child is ended before the next one, and nobody else is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.worker.processes import Death

SUPERVISED = """
import os, signal, sys
from titan.cli.orphans import Orphans
from titan.cli.supervise import Program, Supervisor
folder, before = sys.argv[1], int(sys.argv[2])
orphans = Orphans()
orphans.adopt()
worker = '''
import os, signal, sys
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
    signal.pause()
'''
master = "import os, signal, sys; os.write(int(sys.argv[4]), b'ready'); signal.pause()"
Supervisor(
    Program("master", ("-c", master), 5.0),
    [Program("w", ("-c", worker, folder), 5.0)],
    lambda: None, lambda pids: print(*pids, flush=True), lambda text: None, orphans,
).run()
"""


def test_f28_what_a_killed_worker_left_is_ended_before_the_next_one_starts(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pids")
    # A child from before the exec, as a shell has one: it is not the supervisor's to end.
    program = ["import os, sys", "child = os.fork()", "child or os.execvp('sleep', ['sleep', '1000'])"]
    program += ["os.execv(sys.executable, [sys.executable, '-c', sys.argv[1], sys.argv[2], str(child)])"]
    supervisor = subprocess.Popen(
        [sys.executable, "-c", "\n".join(program), SUPERVISED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    reading = os.open(tmp_path / "pids", os.O_RDWR)
    with open(reading, encoding="ascii") as pids:
        stranger = Death(int(pids.readline()))
        supervisor.stdout.readline()
        worker = int(supervisor.stdout.readline().split()[1])
        os.kill(worker, signal.SIGKILL)
        assert pids.readline() == "again\n"
    assert stranger.wait(0)
    before = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
    assert any(Path(f"/proc/{pid}/comm").read_text() == "sleep\n" for pid in before)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(30) == 0
    for pid in before:
        if Path(f"/proc/{pid}/comm").exists() and Path(f"/proc/{pid}/comm").read_text() == "sleep\n":
            os.kill(int(pid), signal.SIGKILL)
    supervisor.stdout.close()
