"""A worker is killed, and the next one of its name knows what it owed and whose processes are left."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.worker.conftest import StartWorker, WorkerProcess
from tests.worker.double import MasterDouble
from tests.worker.processes import FAMILY, HEAD, IGNORE_TERM, STAY, Death, alive, pids_in
from titan.model.wire import CAUSE_LOST, CLOSE_STOPPING, Ended
from titan.worker import outbox
from titan.worker.sweep import Sweep

KEEP_UP = IGNORE_TERM + FAMILY + "name = 'main'\n" + STAY
NAMES = ("plain", "session", "daemon", "stranger", "main")
# A chain of processes that never stays the same one, each always with its parent gone.
CHAINS = (
    "print('going', flush=True)\n"
    "for _ in range(4):\n"
    "    if os.fork() == 0:\n"
    "        os.setsid()\n"
    "        while True:\n"
    "            if os.fork():\n"
    "                os._exit(0)\n"
    "signal.pause()\n"
)


def family_up(master: MasterDouble, fence: int) -> dict[str, int]:
    for name in NAMES:
        master.wait_log(fence, f"{name} ")
    return master.wait(lambda: _whole(pids_in(bytes(master.logs[fence]).decode())), "five pids")


def _whole(pids: dict[str, int]) -> dict[str, int] | None:
    return pids if set(pids) == set(NAMES) else None


def marked(folder: Path) -> list[str]:
    """Return the pids whose environment says that they are of a job of this worker."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.fsencode(f"TITAN_WORKDIR={folder}/") in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def kill(*pids: int) -> None:
    """kill -9, and return when the kernel says that they are gone."""
    deaths = [Death(pid) for pid in pids]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert all(death.wait() for death in deaths)


def test_f27_a_killed_worker_leaves_nothing_and_the_next_one_says_so(
    master: MasterDouble, start_worker: StartWorker
) -> None:
    first = start_worker()
    fences = [master.grant(KEEP_UP), master.grant(IGNORE_TERM + CHAINS)]
    pids = family_up(master, fences[0])
    master.wait_log(fences[1], "going\n")
    deaths = [Death(pid) for pid in (*pids.values(), first.launcher_pid)]
    begun_s = time.monotonic()
    first.process.kill()
    assert all(death.wait() for death in deaths)
    print(f"all processes were gone {time.monotonic() - begun_s:.3f} s after the kill")
    start_worker()
    print(f"the next worker was welcome after {time.monotonic() - begun_s:.3f} s")
    assert marked(first.folder) == []
    for fence in fences:
        ended, _ = master.end(fence)
        assert ended.cause == CAUSE_LOST
    hello = master.hellos[1]
    assert hello.predecessor == master.hellos[0].incarnation != hello.incarnation
    assert sorted(held.fence for held in hello.attempts) == fences
    assert master.run("print('goes on')\n")[1] == "goes on\n"


def test_f28_worker_and_launcher_killed_at_once(master: MasterDouble, start_worker: StartWorker) -> None:
    first = start_worker()
    fences = [master.grant(KEEP_UP), master.grant(IGNORE_TERM + CHAINS)]
    pids = family_up(master, fences[0])
    master.wait_log(fences[1], "going\n")
    # Nobody can prove whose this one is; under `titan up` it falls to that one, which ends it.
    stranger = pids.pop("stranger")
    deaths = [Death(pid) for pid in pids.values()]
    launcher = first.launcher_pid
    begun_s = time.monotonic()
    os.kill(launcher, signal.SIGSTOP)
    first.process.kill()
    os.kill(launcher, signal.SIGKILL)
    second = start_worker()
    print(f"the next worker was welcome after {time.monotonic() - begun_s:.3f} s")
    assert all(death.wait(0) for death in deaths)
    assert marked(first.folder) == []
    assert {master.end(fence)[0].cause for fence in fences} == {CAUSE_LOST}
    assert "had left when it was killed" in second.close()
    if alive({"stranger": stranger}):
        kill(stranger)


def test_f28_a_process_that_began_while_the_others_were_looked_at_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = {"TITAN_WORKDIR": f"{tmp_path}/jobs/7", "TITAN_FENCE": "7"}
    listed = os.listdir("/proc")
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], env=mark) as left:
        listings = [listed]
        real = os.listdir
        monkeypatch.setattr(os, "listdir", lambda path: listings.pop() if listings else real(path))
        swept = Sweep(tmp_path).run()
        left.kill()
    assert swept == (1, 0)


def test_a_launcher_that_does_not_leave_is_killed(master: MasterDouble, start_worker: StartWorker) -> None:
    first = start_worker()
    fence = master.grant(HEAD + "name = 'main'\n" + STAY)
    main = pids_in(master.wait_log(fence, "\n"))
    launcher = first.launcher_pid
    deaths = [Death(launcher), Death(main["main"])]
    os.kill(launcher, signal.SIGSTOP)
    first.process.kill()
    start_worker()
    assert all(death.wait(0) for death in deaths)
    assert master.end(fence)[0].cause == CAUSE_LOST


def test_f50_an_end_that_its_worker_never_heard_of_is_told_by_the_next_one(
    master: MasterDouble, start_worker: StartWorker, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "meeting")
    first = start_worker()
    script = (
        "import os, sys\n"
        "print('main', os.getpid(), flush=True)\n"
        "open(sys.argv[1]).read()\n"
        "os.write(os.open('ran', os.O_CREAT | os.O_WRONLY), b'x')\n"
        "os._exit(7)\n"
    )
    fence = master.grant(script, args=(str(tmp_path / "meeting"),))
    log = master.wait_log(fence, "\n")
    death = Death(pids_in(log)["main"])
    launcher = Death(first.launcher_pid)
    first.process.send_signal(signal.SIGSTOP)
    os.close(os.open(tmp_path / "meeting", os.O_WRONLY))
    assert death.wait()
    first.process.kill()
    assert launcher.wait()
    assert fence not in master.ended
    start_worker()
    ended, whole = master.end(fence)
    assert (ended.exit_code, ended.signal, ended.cause) == (7, 0, "")
    # Its pipe died with the worker, which may not have read it to the end.
    assert whole == log + "[titan] log may lack its end: the worker was killed while it read it\n"
    assert (first.folder / "jobs" / str(fence) / "ran").exists()
    assert list(master.started) == [fence]


def test_f50_a_main_process_that_ended_by_itself_has_ended_whatever_it_left(
    master: MasterDouble, start_worker: StartWorker
) -> None:
    # What it leaves keeps it from being told for half a second, in which the worker is killed.
    first = start_worker()
    fence = master.grant(KEEP_UP)
    launcher = Death(first.launcher_pid)
    pids = family_up(master, fence)
    main, left = Death(pids["main"]), [Death(pid) for pid in pids.values()]
    os.kill(pids["main"], signal.SIGSEGV)
    assert main.wait()
    first.process.kill()
    assert launcher.wait()
    assert all(death.wait(0) for death in left)
    start_worker()
    ended, log = master.end(fence)
    assert (ended.exit_code, ended.cause) == (139, "")
    assert "\n[titan] killed by SIGSEGV (Segfault)\n" in log


def test_i29_results_and_logs_wait_over_two_restarts_for_a_master_that_is_away(
    master: MasterDouble, start_worker: StartWorker
) -> None:
    first = start_worker()
    running = master.grant(HEAD + "print('z' * 1_000)\nname = 'main'\n" + STAY)
    pids = pids_in(master.wait_log(running, "main "))
    # From here on this Master hears everything and keeps nothing.
    master.stores_output = False
    fence = master.grant("print('x' * 5_000)\nraise SystemExit(9)\n")
    master.wait(lambda: any(isinstance(said, Ended) for said in master.messages) or None, "an end")
    master.stop()
    kill(first.process.pid)
    with socket.create_server(("127.0.0.1", master.port)) as away:
        second = start_worker(wait=False)
        # It knocks when it has taken everything on, and dies before anybody has heard of it.
        away.accept()[0].close()
        kill(second.process.pid)
    third = start_worker(wait=False)
    master.stores_output = True
    master.start()
    third.wait_ready()
    ended, log = master.end(fence)
    assert (ended.exit_code, ended.cause, log) == (9, "", "x" * 5_000 + "\n")
    lost, log = master.end(running)
    assert (lost.cause, log.splitlines()[0]) == (CAUSE_LOST, "z" * 1_000)
    assert alive(pids) == {}
    # Nobody ever heard of the second one.
    assert [hello.predecessor for hello in master.hellos] == ["", master.hellos[0].incarnation]


def test_an_acknowledged_end_is_forgotten_on_disk_too(master: MasterDouble, start_worker: StartWorker) -> None:
    first = start_worker()
    master.run("print('x')\n")
    master.run("print('y')\n")
    # The answer to the second end is on its way before this frame is.
    master.disconnect(CLOSE_STOPPING)
    master.wait_hellos(2)
    kill(first.process.pid)
    start_worker()
    assert master.hellos[2].attempts == ()
    assert master.hellos[2].predecessor == master.hellos[0].incarnation
    assert os.listdir(first.folder / "spool") == []


def test_that_the_worker_lives_is_on_its_disk(master: MasterDouble, worker: WorkerProcess) -> None:
    fence = master.grant(HEAD + "name = 'main'\n" + STAY)
    master.wait_log(fence, "main ")
    # Its renewals come as often.
    master.wait(lambda: b'"alive"' in (worker.folder / "outbox.1").read_bytes(), "a sign of life")


def test_an_unacknowledged_end_stays_until_it_is(master: MasterDouble, start_worker: StartWorker) -> None:
    master.acknowledges = False
    first = start_worker()
    fence = master.grant("print('x')\nraise SystemExit(3)\n")
    master.end(fence)
    for life in (2, 3):
        kill(first.process.pid)
        assert fence in outbox.read(first.folder).attempts
        assert os.listdir(first.folder / "spool") == [str(fence)]
        first = start_worker()
        assert [held.fence for held in master.hellos[life - 1].attempts] == [fence]
    master.acknowledges = True
    # It holds no slot.
    for _ in range(5):
        master.run("print('y')\n")


def test_an_attempt_that_never_went_to_the_launcher_is_not_named(
    master: MasterDouble, start_worker: StartWorker
) -> None:
    master.holds_fetches = True
    first = start_worker()
    fence = master.grant("print('never')\n")
    master.wait(lambda: master.fetches, "the script to be asked for")
    kill(first.process.pid)
    start_worker()
    assert fence not in [held.fence for held in master.hellos[1].attempts]
    # So the Master, which knows that it never began, may grant it again.
    assert master.hellos[1].predecessor == master.hellos[0].incarnation
    master.release_fetches()


def test_f51_a_folder_that_is_deleted_under_the_worker_costs_what_was_in_it_and_no_more(
    master: MasterDouble, start_worker: StartWorker
) -> None:
    first = start_worker()
    fence = master.grant(HEAD + "name = 'main'\n" + STAY)
    pids = pids_in(master.wait_log(fence, "main "))
    shutil.rmtree(first.folder)
    master.cancel(fence)
    assert master.end(fence)[0].signal == signal.SIGTERM
    # It goes on: what it can do without its folders it does, the rest it gives back with a reason.
    other = master.grant("print('x')\n")
    master.wait(lambda: other in master.ended or other in master.returned, "an end or a return")
    kill(first.process.pid)
    assert alive(pids) == {}
    start_worker()
    # Nothing is known, so nothing is claimed.
    assert (master.hellos[1].attempts, master.hellos[1].predecessor) == ((), "")
    assert master.run("print('goes on')\n")[1] == "goes on\n"


def test_f51_a_damaged_record_claims_nothing_and_tells_what_it_knows(
    master: MasterDouble, start_worker: StartWorker
) -> None:
    first = start_worker()
    fence = master.grant(HEAD + "name = 'main'\n" + STAY)
    master.wait_log(fence, "main ")
    kill(first.process.pid)
    (path,) = first.folder.glob("outbox.*")
    with path.open("ab") as file:
        file.write(b"\n01234567 {torn")
    second = start_worker()
    assert [held.fence for held in master.hellos[1].attempts] == [fence]
    assert master.hellos[1].predecessor == ""
    assert master.end(fence)[0].cause == CAUSE_LOST
    assert "is damaged" in second.close()


def test_f48_the_loser_of_a_name_is_told(master: MasterDouble, worker: WorkerProcess, home: Path) -> None:
    words = [sys.executable, "-P", "-m", "titan.worker", "--home", str(home), "--join", master.url, "--name", "w"]
    second = subprocess.run(words, capture_output=True, timeout=60, check=False)
    assert second.returncode == 6
    assert b"a worker named w is running on" in second.stderr
    assert master.run("print('undisturbed')\n")[1] == "undisturbed\n"


def test_f52_a_job_that_kills_its_worker_is_lost_with_it(master: MasterDouble, start_worker: StartWorker) -> None:
    first = start_worker()
    killer = (
        "import os, signal\n"
        "launcher = open(f'/proc/{os.getppid()}/stat').read().rpartition(')')[2].split()\n"
        "os.kill(int(launcher[1]), 9)\n"
        "signal.pause()\n"
    )
    fence = master.grant(killer)
    assert first.process.wait(30) == -signal.SIGKILL
    start_worker()
    assert master.end(fence)[0].cause == CAUSE_LOST
    assert marked(first.folder) == []
    assert master.run("print('goes on')\n")[1] == "goes on\n"
