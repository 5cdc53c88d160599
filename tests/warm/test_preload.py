"""A module that cannot be forked is refused before the first job, with the reason, and ends nobody but its launcher."""

from pathlib import Path

import pytest

from tests.warm.starting import WarmLauncher
from titan.worker.warmth import Warmth

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
    "starts a thread": (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
        "!a preloaded module starts 1 threads, which a fork would not have\n",
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


def test_what_an_import_printed_is_in_no_job(tmp_path: Path) -> None:
    text = "import ctypes, sys\nsys.stdout.write('half')\nctypes.CDLL(None).printf(b'of C')\n"
    launcher = WarmLauncher(tmp_path, ("noisy",), modules={"noisy": text})
    (tmp_path / "job.py").write_text("print('job')")
    assert launcher.run(tmp_path) == (0, "job\n")
    launcher.close()


def test_what_is_written_to_a_stream_that_a_module_kept_is_not_lost(tmp_path: Path) -> None:
    launcher = WarmLauncher(tmp_path, ("keeper",), modules={"keeper": "import sys\nout = sys.stdout\n"})
    (tmp_path / "job.py").write_text("import keeper\nkeeper.out.write('no end of line')")
    assert launcher.run(tmp_path) == (0, "no end of line")
    launcher.close()


def test_what_an_import_did_to_the_environment_is_done_in_the_job(tmp_path: Path) -> None:
    text = "import os\nos.environ.update(MADE='import', OWN='import')\nos.environ.pop('USER', 0)\n"
    launcher = WarmLauncher(tmp_path, ("setter",), modules={"setter": text})
    launcher.env["OWN"] = "job"
    (tmp_path / "job.py").write_text("import os\nprint(*map(os.getenv, ('MADE', 'OWN', 'USER')))")
    assert launcher.run(tmp_path) == (0, "import job None\n")
    launcher.close()


def test_the_random_state_of_torch_is_each_jobs_own(tmp_path: Path) -> None:
    text = (
        "import os\nclass Generator:\n    state = b'of the server'\n    def seed(self): self.state = os.urandom(16)\n"
        "default_generator = Generator()\n"
    )
    launcher = WarmLauncher(tmp_path, ("torch",), modules={"torch": text})
    (tmp_path / "job.py").write_text("import torch\nprint(torch.default_generator.state)")
    said = {"b'of the server'\n", *(launcher.run(tmp_path)[1] for _ in range(2))}
    launcher.close()
    assert len(said) == 3


def test_what_libraries_read_at_their_import_is_a_reason_only_where_something_is_preloaded() -> None:
    entry = [b"HF_HOME=/data"]
    assert Warmth({}, (), ("transformers",), "")._environment_problem(entry) == "HF_HOME in its environment"
    assert not Warmth({}, (), (), "")._environment_problem(entry)
