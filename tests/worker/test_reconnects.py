"""The Master goes away and comes back: nothing is lost, nothing runs twice, nothing unwanted goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worker.conftest import StartWorker, WorkerProcess
from tests.worker.double import MasterDouble
from tests.worker.meeting import Meeting
from tests.worker.processes import HEAD, STAY, Death, alive, pids_in
from titan.model.wire import CAUSE_LOST, CLOSE_REPLACED, CLOSE_STOPPING, Ended, Recall, RenewAck, Welcome, encode_frame


def test_a_job_outlives_its_master_and_its_result_comes_later(
    master: MasterDouble, worker: WorkerProcess, meeting: Meeting
) -> None:
    fence = meeting.begun()
    master.stop()
    # The job ends while there is nobody to tell.
    meeting.let_go()
    master.start()
    ended, log = master.end(fence)
    assert (ended.exit_code, log) == (8, "up\nwent on\n")
    again = master.hellos[1]
    assert [(held.fence, held.started, held.log_bytes_acked) for held in again.attempts] == [(fence, True, 3)]
    assert (again.incarnation, again.epoch_seen) == (master.hellos[0].incarnation, 1)
    assert list(master.started) == [fence]


def test_f52_a_launcher_killed_while_the_master_is_away_loses_no_word_of_its_jobs(
    master: MasterDouble, start_worker: StartWorker, meeting: Meeting, tmp_path: Path
) -> None:
    worker = start_worker("--slots", "1")
    begun, never = tmp_path / "begun", tmp_path / "never"
    for fifo in (begun, never):
        os.mkfifo(fifo)
    script = "import sys\nprint('up')\nopen(sys.argv[1], 'w').close()\nopen(sys.argv[2]).read()\n"
    first, second, third = (master.grant(script, args=(str(begun), str(wait))) for wait in (meeting.path, never, never))
    begun.read_bytes()
    master.send(Recall(third))
    master.wait(lambda: third in master.returned, "a word that all grants were taken")
    master.stop()
    # The second takes the slot while there is nobody to tell.
    meeting.let_go()
    begun.read_bytes()
    os.kill(worker.launcher_pid, signal.SIGKILL)
    master.start()
    assert master.end(first)[0].exit_code == 0
    lost, log = master.end(second)
    assert (lost.cause, log) == (CAUSE_LOST, "up\n")
    assert [held.fence for held in master.hellos[1].attempts] == [first, second]
    assert master.run("print('goes on')\n")[1] == "goes on\n"


def test_f49_what_was_not_acknowledged_is_sent_again(master: MasterDouble, worker: WorkerProcess) -> None:
    # This Master hears everything and keeps nothing, ten times over, as if it died before each commit.
    master.stores_output = False
    fence = master.grant("print('x' * 1_000)\nraise SystemExit(3)\n")
    for life in range(1, 11):
        _wait_ends(master, life)
        master.stop()
        if life == 10:
            master.stores_output = True
        master.start()
    ended, log = master.end(fence)
    assert (ended.exit_code, log) == (3, "x" * 1_000 + "\n")
    assert list(master.started) == [fence]


def _wait_ends(master: MasterDouble, count: int) -> None:
    master.wait(lambda: sum(isinstance(m, Ended) for m in master.messages) >= count, f"end number {count}")


def test_an_end_that_was_acknowledged_is_not_told_again(master: MasterDouble, worker: WorkerProcess) -> None:
    master.run("print('x')\n")
    master.run("print('y')\n")
    # The answer to the second is on its way before this frame is, so it has been read when hello comes.
    master.disconnect(CLOSE_STOPPING)
    master.wait_hellos(2)
    assert master.hellos[1].attempts == ()


def test_a_result_without_an_answer_stays_held(master: MasterDouble, worker: WorkerProcess) -> None:
    master.acknowledges = False
    fence = master.grant("print('x')\n")
    master.end(fence)
    for life in range(2, 4):
        master.disconnect(CLOSE_STOPPING)
        master.wait_hellos(life)
        assert [held.fence for held in master.hellos[-1].attempts] == [fence]
    # It holds no slot, though.
    master.acknowledges = True
    for _ in range(5):
        master.run("print('y')\n")


def test_unwanted_attempts_are_stopped_and_not_reported(master: MasterDouble, start_worker: StartWorker) -> None:
    start_worker("--slots", "1")
    fence = master.grant(HEAD + "name = 'main'\n" + STAY)
    pid = pids_in(master.wait_log(fence, "\n"))["main"]
    death = Death(pid)
    master.stop()
    master.unwanted.add(fence)
    master.start()
    # The Master counts the slot as free and uses it at once; the grant waits for the old job's end.
    ended, log = master.run("import os\nprint(os.path.exists('/proc/%s'))\n" % pid)  # noqa: UP031
    assert (ended.exit_code, log) == (0, "False\n")
    assert death.wait(0)
    assert fence not in master.ended
    master.disconnect(CLOSE_STOPPING)
    master.wait_hellos(3)
    assert fence not in [held.fence for held in master.hellos[-1].attempts]


def test_a_worker_waits_for_a_master_that_is_not_there_yet(home: Path) -> None:
    double = MasterDouble()
    double.start()
    double.stop()
    words = [sys.executable, "-P", "-m", "titan.worker", "--home", str(home), "--join", double.url, "--name", "w"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    assert process.stderr is not None
    first = process.stderr.readline()
    assert b"trying again" in first
    double.start()
    assert double.run("print('at last')\n")[1] == "at last\n"
    process.terminate()
    process.communicate(timeout=30)
    double.close()


def test_a_refused_token_is_read_anew(master: MasterDouble, home: Path, start_worker: StartWorker) -> None:
    token = (home / "token").read_text()
    (home / "token").write_text("wrong\n")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "titan.worker", "--home", home, "--join", master.url, "--name", "w"],
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert b"does not take the token" in process.stderr.readline()
    assert master.hellos == []
    (home / "token").write_text(token)
    master.wait(lambda: master.hellos, "a hello")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_f45_garbage_drops_the_link_and_not_the_job(
    master: MasterDouble, worker: WorkerProcess, meeting: Meeting
) -> None:
    fence = meeting.begun()
    frames = (b"", b"\xc1", b"\x90", encode_frame([Welcome(epoch=1)])[:-1], b"\x91\x81\xa4type\xa5lendd")
    for number, garbage in enumerate(frames, 2):
        master.send_raw(garbage)
        master.wait_hellos(number)
    meeting.let_go()
    assert master.end(fence)[0].exit_code == 8
    assert "does not speak our protocol" in worker.close()


def test_a_job_lives_though_no_renewal_was_answered_yet(master: MasterDouble, start_worker: StartWorker) -> None:
    # Its lease counts from the hello.
    master.answers_renewals = False
    start_worker()
    assert master.run("print('alive')\n")[1] == "alive\n"


def test_answers_to_old_renewals_are_ignored(master: MasterDouble, worker: WorkerProcess) -> None:
    master.send(RenewAck(seq=10_000), RenewAck(seq=0))
    assert master.run("print('x')\n")[1] == "x\n"


def test_f48_the_loser_of_a_name_leaves_with_its_jobs(master: MasterDouble, worker: WorkerProcess) -> None:
    fence = master.grant(HEAD + "name = 'main'\n" + STAY)
    pids = pids_in(master.wait_log(fence, "\n"))
    master.disconnect(CLOSE_REPLACED)
    assert worker.process.wait(30) == 6
    assert alive(pids) == {}
    assert "another worker with this name" in worker.close()


def test_a_name_on_a_home_belongs_to_one_process(master: MasterDouble, worker: WorkerProcess, home: Path) -> None:
    words = [sys.executable, "-P", "-m", "titan.worker", "--home", str(home), "--join", master.url]
    second = subprocess.run([*words, "--name", "w"], check=False, stderr=subprocess.PIPE, timeout=30)
    assert second.returncode == 6
    assert b"a worker named w is running on" in second.stderr


def test_workers_without_a_name_number_themselves(master: MasterDouble, home: Path) -> None:
    words = [sys.executable, "-P", "-m", "titan.worker", "--home", str(home), "--join", master.url]
    processes = [subprocess.Popen(words, stderr=subprocess.DEVNULL) for _ in range(2)]
    master.wait_hellos(2)
    host = os.uname().nodename.split(".")[0]
    assert sorted(hello.name for hello in master.hellos) == [f"{host}-1", f"{host}-2"]
    for process in processes:
        process.terminate()
        process.wait(30)


def test_hello_says_what_the_worker_offers(master: MasterDouble, start_worker: StartWorker) -> None:
    worker = start_worker("--slots", "3", "--no-general", "--capability", "GPU", "--capability", "HIGH_MEM")
    hello = master.hellos[0]
    assert (hello.name, hello.slots, hello.capabilities) == ("w", 3, ("GPU", "HIGH_MEM"))
    assert hello.pid == worker.process.pid
    assert hello.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_worker_offers_general_and_a_slot_a_cpu_unless_told(master: MasterDouble, home: Path) -> None:
    words = [sys.executable, "-P", "-m", "titan.worker", "--home", str(home), "--join", master.url]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    hello = master.wait(lambda: master.hellos, "a hello")[0]
    assert (hello.slots, hello.capabilities) == (len(os.sched_getaffinity(0)), ("GENERAL",))
    process.terminate()
    assert process.wait(30) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--no-general"], ["--slots", "0"], ["--slots", "-1"], ["--name", "../x"], ["--capability", "a b"],
        ["--join", "ftp://x"], ["--join", "nonsense"],
    ],
)  # fmt: skip
def test_s25_what_cannot_be_is_refused(home: Path, words: list[str]) -> None:
    start = [sys.executable, "-P", "-m", "titan.worker", "--home", str(home), "--join", "http://127.0.0.1:1"]
    done = subprocess.run([*start, *words], check=False, stderr=subprocess.PIPE, timeout=30)
    assert done.returncode == 2
    assert not (home / "workers").exists()
