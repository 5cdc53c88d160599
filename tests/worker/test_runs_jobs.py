"""What a job gets and gives: its script, its arguments to the byte, its output in order."""

from tests.worker.conftest import WorkerProcess
from tests.worker.double import MasterDouble


def test_a_script_runs_and_its_end_is_reported(master: MasterDouble, worker: WorkerProcess) -> None:
    ended, log = master.run("print('hello')\n")
    assert (ended.exit_code, ended.signal, ended.cause) == (0, 0, "")
    assert log == "hello\n"
    assert worker.ready == b"ready\n"
