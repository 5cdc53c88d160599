"""A job that says that it is up, and then waits until the test meets it at a FIFO."""

import os
from pathlib import Path

from tests.worker.double import MasterDouble

WAITS = "import sys\nprint('up')\nopen(sys.argv[1]).read()\nprint('went on')\nraise SystemExit(8)\n"


class Meeting:
    """Where a test and its job meet; the job ends with code 8."""

    def __init__(self, master: MasterDouble, path: Path) -> None:
        os.mkfifo(path)
        self._master = master
        self.path = path

    def begun(self) -> int:
        """Grant the job, and return its fence once it is up."""
        fence = self._master.grant(WAITS, args=(str(self.path),))
        self._master.wait_log(fence, "up\n")
        return fence

    def let_go(self) -> None:
        """Return once the job has come to the meeting; it goes on to its end."""
        os.close(os.open(self.path, os.O_WRONLY))
