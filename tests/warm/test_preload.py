"""A module that cannot be forked is refused before the first job, with the reason, and ends nobody but its launcher."""

from pathlib import Path

import pytest

from tests.warm.starting import WarmLauncher

AT_FORK = "import os\nos.register_at_fork(after_in_child={})\n"
REFUSED = {
    "raises": ("raise RuntimeError('no licence')", "!import culprit: RuntimeError: no licence\n"),
    "exits": ("raise SystemExit(3)", "!import culprit: SystemExit: 3\n"),
    "keeps a file": ("f = open('/dev/null')", "!a preloaded module keeps 1 files or sockets open\n"),
    "a thread in the fork": (
        "import threading\n"
        + AT_FORK.format("lambda: threading.Thread(target=threading.Event().wait, daemon=True).start()"),
        "!a fork of it has more than one thread\n",
    ),
    "dies in the fork": (AT_FORK.format("os.abort"), "!a fork of it does not run (it ended with -6)\n"),
    "dies in the import": ("import os\nos.abort()", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    text, said = REFUSED[name]
    launcher = WarmLauncher(tmp_path, ("culprit",), modules={"culprit": text})
    assert launcher.said == said
    launcher.close()


def test_a_module_with_a_thread_of_its_own_is_no_reason(tmp_path: Path) -> None:
    text = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"
    launcher = WarmLauncher(tmp_path, ("threaded",), modules={"threaded": text})
    assert "threaded" in launcher.said.splitlines()
    (tmp_path / "job.py").write_text("import threaded, threading\nprint(threading.active_count())")
    assert launcher.run(tmp_path) == (0, "1\n")
    launcher.close()
