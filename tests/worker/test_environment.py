"""What a job sees around it: an environment from an allow-list, and nothing of the worker's."""

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from tests.worker.conftest import StartWorker, WorkerProcess
from tests.worker.double import MasterDouble
from titan.model.spec import JobSpec
from titan.worker.environment import PASSED, own_environment

SHOW = "import json, os\nprint(json.dumps(dict(os.environ)))\n"
SECRETS = {"AWS_SECRET_ACCESS_KEY": "cloud", "TITAN_HOME": "/h", "EDITOR": "vi", "LC_TIME": "C", "TZ": "UTC"}
WORKERS = {"PATH": "/usr/bin:/bin", "HOME": "/root", "USER": "somebody", "LANG": "C.UTF-8", "TMPDIR": "/tmp"}


def environment(log: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(log)
    return loaded


def test_the_environment_is_what_the_contract_lists(master: MasterDouble, start_worker: StartWorker) -> None:
    worker = start_worker("--pass-env", "EDITOR,NO_SUCH", environ=SECRETS | WORKERS)
    fence = master.grant(SHOW, env={"MY_OWN": "a=b\n😀", "LANG": "mine"})
    seen = environment(master.end(fence)[1])
    # Python's own C-locale coercion may add one of these inside the job.
    seen = {name: value for name, value in seen.items() if not name.startswith("LC_") or name == "LC_TIME"}
    shared = seen.pop("TITAN_SHARED_DIR")
    assert shared.startswith(f"{worker.folder}/shared/")
    assert seen.pop("TITAN_MAIN_PID").isdigit()
    assert seen == {
        **WORKERS,
        "LANG": "mine",
        "LC_TIME": "C",
        "TZ": "UTC",
        "EDITOR": "vi",
        "MY_OWN": "a=b\n😀",
        "PYTHONPATH": f"{worker.folder}/python",
        "TITAN_URL": master.url,
        "TITAN_HOST": "127.0.0.1",
        "TITAN_PORT": str(master.port),
        "TITAN_TOKEN": f"token-of-{fence}",
        "TITAN_RUN_ID": "0123456789abcdef0123456789abcdef",
        "TITAN_JOB_ID": f"job-{fence}",
        "TITAN_ATTEMPT": "3",
        "TITAN_FENCE": str(fence),
        "TITAN_IDEMPOTENCY_KEY": f"key-of-job-{fence}",
        "TITAN_WORKDIR": f"{worker.folder}/jobs/{fence}",
    }


def test_s22_no_secret_of_whoever_started_the_worker_reaches_a_job(
    master: MasterDouble, start_worker: StartWorker
) -> None:
    names = ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "PGPASSWORD", "TITAN_TOKEN", "TITAN_URL", "EDITOR")
    start_worker(environ=dict.fromkeys(names, "canary-in-the-worker"))
    ended, log = master.run(
        "import os\n"
        "print(dict(os.environ))\n"
        "launcher = open(f'/proc/{os.getppid()}/environ', 'rb').read()\n"
        "print('launcher:', *sorted(e.split(b'=')[0].decode() for e in launcher.split(b'\\0') if e))\n"
    )
    assert ended.exit_code == 0
    assert "canary" not in log
    known = {*PASSED, "PYTHONPATH"}
    assert {name for name in log.rpartition("launcher: ")[2].split() if not name.startswith("LC_")} <= known


def test_s22_a_worker_is_started_with_no_more_than_it_needs() -> None:
    shell = {
        **WORKERS, "LC_ALL": "C", "TITAN_HOME": "/h", "TITAN_LIMIT_WAITS_MAX": "5", "CUDA_VISIBLE_DEVICES": "0",
        "EDITOR": "vi", "AWS_SECRET_ACCESS_KEY": "cloud", "TITAN_TOKEN": "admin", "PYTHONPATH": "/p", "LD_PRELOAD": "x",
    }  # fmt: skip
    assert set(shell) - set(own_environment(shell, ["EDITOR", "NO_SUCH"])) == {
        "AWS_SECRET_ACCESS_KEY", "TITAN_TOKEN", "PYTHONPATH", "LD_PRELOAD",
    }  # fmt: skip


def test_the_sdk_is_importable_and_nothing_else_of_ours(master: MasterDouble, worker: WorkerProcess) -> None:
    script = (
        "import os, sys, titan_sdk\n"
        "folder = os.environ['PYTHONPATH']\n"
        "print(sorted(name for name in os.listdir(folder) if name != '__pycache__'))\n"
        "print(titan_sdk.__file__.startswith(folder), folder in sys.path, 'sitecustomize' in sys.modules)\n"
    )
    assert master.run(script)[1] == "['sitecustomize.py', 'titan_sdk']\nTrue True True\n"


def test_the_sdk_is_importable_by_an_interpreter_that_has_none_of_our_packages(
    master: MasterDouble, worker: WorkerProcess, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    script = (
        f"#!{tmp_path}/venv/bin/python\n"
        "import sys, titan_sdk\n"
        "try:\n    import msgspec\nexcept ImportError:\n    print('no msgspec')\n"
        "print(sys.prefix)\n"
    )
    assert master.run(script, "in-venv")[1] == f"no msgspec\n{tmp_path}/venv\n"


def test_a_users_own_sitecustomize_still_runs(master: MasterDouble, worker: WorkerProcess, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.marked = True\nsys.path.append('/added')\n")
    script = "import os, sys\nprint(sys.marked, sys.path[0] == os.getcwd(), sys.path[1:3], sys.path[-1])\n"
    _, log = master.run(script, env={"PYTHONPATH": str(tmp_path)})
    assert log == f"True True ['{worker.folder}/python', '{tmp_path}'] /added\n"


def test_a_broken_sitecustomize_of_the_user_is_the_users(
    master: MasterDouble, worker: WorkerProcess, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import no_such_module\n")
    ended, log = master.run("import titan_sdk\nprint('went on')\n", env={"PYTHONPATH": str(tmp_path)})
    assert ended.exit_code == 0
    assert "no_such_module" in log
    assert log.endswith("went on\n")


def test_s23_folders_are_private_and_gone_after_success(master: MasterDouble, worker: WorkerProcess) -> None:
    script = (
        "import os\n"
        "open('made', 'w').close(); os.mkdir('folder')\n"
        "for path in ('.', os.environ['TITAN_SHARED_DIR'], 'job.py', 'made', 'folder'):\n"
        "    print(oct(os.stat(path).st_mode & 0o7777))\n"
    )
    fence = master.grant(script)
    assert master.end(fence)[1] == "0o700\n0o700\n0o600\n0o600\n0o700\n"
    worker.stop()
    assert list((worker.folder / "jobs").iterdir()) == []
    for path in [worker.folder, *worker.folder.rglob("*")]:
        if not path.is_symlink() and "titan_sdk" not in path.parts:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_failed_jobs_folder_is_kept(master: MasterDouble, worker: WorkerProcess) -> None:
    fence = master.grant("open('evidence', 'w').write('x')\nraise SystemExit(3)\n")
    assert master.end(fence)[0].exit_code == 3
    worker.stop()
    assert sorted(path.name for path in (worker.folder / "jobs" / str(fence)).iterdir()) == ["evidence", "job.py"]


def test_jobs_of_one_agent_run_share_a_folder(master: MasterDouble, worker: WorkerProcess) -> None:
    put = "import os\nopen(os.environ['TITAN_SHARED_DIR'] + '/note', 'a').write('x')\n"
    got = "import os\nprint(os.listdir(os.environ['TITAN_SHARED_DIR']))\n"
    # A hostile name is only a name.
    master.run(put, agent_run_id="../../etc")
    assert master.run(got, agent_run_id="../../etc")[1] == "['note']\n"
    assert master.run(got, agent_run_id="another")[1] == "[]\n"


def test_signals_and_limits_are_those_of_a_fresh_program(master: MasterDouble, worker: WorkerProcess) -> None:
    # Read by the shell itself: the programs it starts get signals it has put right.
    script = '#!/bin/sh\nwhile read -r line; do echo "$line"; done < /proc/$$/status\nulimit -n\n'
    _, log = master.run(script, "signals.sh")
    *status, open_files = log.splitlines()
    masks = [line.split() for line in status if line.startswith(("SigBlk:", "SigIgn:"))]
    assert [int(mask, 16) for _, mask in masks] == [0, 0]
    limits = Path(f"/proc/{worker.process.pid}/limits").read_text()
    assert next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3] == open_files


def test_a_job_inherits_no_descriptor(master: MasterDouble, worker: WorkerProcess) -> None:
    script = "#!/bin/sh\nls /proc/self/fd\nreadlink /proc/self/fd/0\n"
    # 3 is the folder that ls reads.
    assert master.run(script, "fds.sh")[1] == "0\n1\n2\n3\n/dev/null\n"


def test_s46_a_worker_listens_on_nothing(master: MasterDouble, worker: WorkerProcess) -> None:
    master.run("print('x')\n")
    sockets = set()
    for pid in (worker.process.pid, worker.launcher_pid):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = descriptor.readlink().name
            except FileNotFoundError:
                continue  # the folder of the job was being removed
            if target.startswith("socket:["):
                sockets.add(target.removeprefix("socket:[").removesuffix("]"))
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                listening.add(fields[9])
    assert sockets
    assert listening
    assert sockets & listening == set()


# Unpickled, it would run a program; and words that a shell, a template or a program's own parser would expand.
PICKLED = "cos\nsystem\n(S'touch {mark}'\ntR."
WORDS = (
    "@/etc/passwd",
    "$(touch {mark})",
    "`touch {mark}`",
    "~root",
    "$HOME",
    "*",
    "{{{{7*7}}}}",
    "%(x)s",
    "-",
    "--",
    "",
)


def test_s34_arguments_and_environment_arrive_as_they_are(
    master: MasterDouble, worker: WorkerProcess, tmp_path: Path
) -> None:
    words = tuple(word.format(mark=tmp_path / "mark") for word in (*WORDS, PICKLED))
    script = "import json, os, sys\nprint(json.dumps([sys.argv[1:], dict(os.environ)]))\n"
    _, log = master.run(script, args=words, env={f"WORD_{at}": word for at, word in enumerate(words)})
    args, env = json.loads(log)
    assert args == list(words)
    assert [env[f"WORD_{at}"] for at in range(len(words))] == list(words)
    assert not (tmp_path / "mark").exists()


def test_s31_a_pickle_in_every_text_of_a_grant_stays_a_text(
    master: MasterDouble, worker: WorkerProcess, tmp_path: Path
) -> None:
    evil = PICKLED.format(mark=tmp_path / "mark")
    job = JobSpec(
        "j", "job.py", script=master.add_blob("import os\nprint(os.environ['TITAN_TOKEN'])\n"), source_path=evil,
        args=(evil,), env={"A": evil},
    )  # fmt: skip
    grant = master.grant_message(7, job, agent_run_id=evil)
    master.send(msgspec.structs.replace(grant, token=evil, idempotency_key=evil))
    assert master.end(7)[1] == f"{evil}\n"
    assert not (tmp_path / "mark").exists()
