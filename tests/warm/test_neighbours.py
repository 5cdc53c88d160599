"""A warm job has a copy of the launcher's memory: no other job's token may be in it."""

import os
from pathlib import Path

import pytest

from tests.warm.starting import TAKER, WarmLauncher
from tests.warm.test_mutants import planted
from tests.worker.launching import SOURCE, ended, line_of, read_all
from titan.worker.launcher import frames

TOKEN = "token-of-job-{}"
# A pattern, so that what it looks for is not in the memory it looks through.
SCAN = """
import re
found = set()
with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:
    for line in maps.read().splitlines():
        place, rights = line.split()[:2]
        if rights.startswith('rw'):
            begin, end = (int(address, 16) for address in place.split('-'))
            while begin < end:
                memory.seek(begin)
                data = memory.read(min(end - begin, 1 << 20))
                found.update(re.findall(rb'token-of-job-([0-9]+)', data))
                begin += len(data)
print(*sorted(int(number) for number in found))
"""
WIPING = "            self._room[begin:end] = bytes(end - begin)\n"


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("fault", [False, True])
def test_a_job_has_no_token_of_another_in_its_memory(tmp_path: Path, fault: bool, ahead: bool) -> None:
    source = planted(tmp_path / "source", "inbox", WIPING, "            pass\n") if fault else SOURCE
    launcher = WarmLauncher(tmp_path, source=source)
    launcher.env["TITAN_TOKEN"] = TOKEN.format(1)
    living = launcher.start(1, "import time\nprint('here', flush=True)\ntime.sleep(600)")
    assert line_of(living) == "here\n"
    assert launcher.report().kind == frames.STARTED
    large = "x" * 100_000
    for fence, more in ((2, ""), (3, large), (4, "")):
        launcher.env |= {"TITAN_TOKEN": TOKEN.format(fence), "MORE": more}
        launcher.start(fence, "pass")
        assert ended(launcher) == (0, 0)
    launcher.env["TITAN_TOKEN"] = TOKEN.format(5)
    launcher.spare()
    if not ahead:
        os.close(launcher.start(TAKER, "pass"))
    seen = read_all(launcher.start(5, SCAN))
    launcher.close()
    assert (seen == "5\n") is not fault
