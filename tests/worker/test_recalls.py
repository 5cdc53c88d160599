"""Jobs that wait at the worker, and who gets them: recalled, started, given back, never two of these."""

from pathlib import Path

from tests.worker.conftest import StartWorker
from tests.worker.double import MasterDouble
from tests.worker.meeting import Meeting
from titan.model.wire import Drain, Draining, Lend, Recall, Returned, Started

MARKS = "import os, sys\nos.close(os.open(sys.argv[1], os.O_CREAT | os.O_EXCL | os.O_WRONLY))\n"
RACES = 300


def test_what_waits_is_recalled_lent_a_slot_or_begun_when_one_is_free(
    master: MasterDouble, start_worker: StartWorker, meeting: Meeting
) -> None:
    start_worker("--slots", "1")
    first = meeting.begun()
    recalled, second, third = (master.grant(f"print({n})\n", priority=p) for n, p in ((1, 9), (2, 1), (3, 5)))
    master.send(Recall(recalled), Recall(first))
    assert master.wait(lambda: master.returned.get(recalled), "the recalled one") == Returned(recalled)
    # While the first waits for somebody, its slot serves the others, the most urgent first.
    master.send(Lend(first, on=True))
    for fence in (second, third):
        assert master.end(fence)[0].exit_code == 0
    assert [fence for fence in master.started if fence != first] == [third, second]
    master.send(Lend(first, on=False))
    fourth = master.grant("print(4)\n")
    meeting.let_go()
    assert master.end(first)[0].exit_code == 8
    assert master.end(fourth)[1] == "4\n"
    assert list(master.returned) == [recalled]


def test_no_job_is_both_given_back_and_started_however_a_recall_races_with_its_start(
    master: MasterDouble, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker("--slots", "2")
    marks = tmp_path / "marks"
    marks.mkdir()
    # Once something has run the launcher is there; before, whatever is recalled goes back.
    fences = [master.grant(MARKS, args=(str(marks / "0"),))]
    assert master.end(fences[0])[0].exit_code == 0
    for _ in range(RACES // 3):
        burst = [master.grant(MARKS, args=(str(marks / str(len(fences) + n)),)) for n in range(3)]
        fences += burst
        # The first is being started, the second about to be, the third waits, or whatever it is by then.
        master.send(*(Recall(fence) for fence in reversed(burst)))
    for fence in fences:
        master.wait(lambda fence=fence: fence in master.ended or fence in master.returned, f"the fate of {fence}")
    ran = {fences[int(mark.name)] for mark in marks.iterdir()}
    assert ran == set(master.ended)
    assert ran.isdisjoint(master.returned)
    assert ran | set(master.returned) == set(fences)
    assert {ended.exit_code for ended in master.ended.values()} == {0}
    assert {returned.reason for returned in master.returned.values()} == {""}
    # Otherwise this would be no race.
    assert len(ran) > 1
    assert master.returned


def test_a_drained_worker_says_so_runs_to_the_end_and_begins_nothing(
    master: MasterDouble, start_worker: StartWorker, meeting: Meeting
) -> None:
    worker = start_worker("--slots", "1")
    running = meeting.begun()
    waiting = master.grant("print('no')\n")
    master.send(Drain(), Drain())
    master.wait(lambda: waiting in master.returned, "what waited")
    late = master.grant("print('no')\n")
    master.wait(lambda: late in master.returned, "what came late")
    assert {returned.reason for returned in master.returned.values()} == {""}
    # A Master that was started anew hears it from the hello.
    master.disconnect(1012)
    master.wait_hellos(2)
    assert [hello.draining for hello in master.hellos] == [False, True]
    meeting.let_go()
    assert master.end(running)[0].exit_code == 8
    assert list(master.started) == [running]
    assert worker.stop() == 0
    said = worker.close()
    assert said.count("drains this worker: 1 jobs run to their end, no more begin") == 1


def test_a_worker_that_leaves_says_so_before_it_gives_anything_back(
    master: MasterDouble, start_worker: StartWorker, meeting: Meeting
) -> None:
    worker = start_worker("--slots", "1")
    running = meeting.begun()
    waiting = master.grant("print('no')\n")
    assert worker.stop() == 0
    kinds = [message for message in master.messages if isinstance(message, (Draining, Returned, Started))]
    assert [type(message) for message in kinds] == [Started, Draining, Returned]
    assert list(master.returned) == [waiting]
    assert master.ended[running].cause == "worker_stop"
