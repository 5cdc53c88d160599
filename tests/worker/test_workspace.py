"""Folders of jobs: made fresh, removed whole, and nothing outside them ever touched."""

import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from titan.model.spec import JobSpec
from titan.worker import workspace
from titan.worker.logs import Logs
from titan.worker.scripts import Scripts
from titan.worker.spool import Spool
from titan.worker.workspace import FOLDERS, KEPT_AFTER_FAILURE_S, SHARED_KEPT_S, Grave, Workspaces, command

SPEC = JobSpec(job_id="j", filename="etl/job.py")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script"
    path.write_text("print('x')\n")
    return path


@pytest.fixture
def workspaces(tmp_path: Path) -> Workspaces:
    return Workspaces(tmp_path / "w")


def test_s48_links_out_of_a_folder_are_cut_and_not_followed(
    workspaces: Workspaces, script: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "file").write_text("precious")
    folder = Path(workspaces.make(1, SPEC, script))
    (folder / "to-folder").symlink_to(outside)
    (folder / "to-deep").symlink_to(outside / "deep", target_is_directory=True)
    (folder / "to-file").symlink_to(outside / "deep" / "file")
    (folder / "to-nothing").symlink_to("/no/such/thing")
    (folder / "to-itself").symlink_to("to-itself")
    (folder / "up").symlink_to("..")
    (folder / "sub").mkdir()
    (folder / "sub" / "again").symlink_to(outside)
    os.link(outside / "deep" / "file", folder / "hard")
    before = _modes(outside)
    workspaces.remove(1)
    assert not folder.exists()
    assert (outside / "deep" / "file").read_text() == "precious"
    assert _modes(outside) == before


def test_s48_a_folder_that_became_a_link_is_only_unlinked(workspaces: Workspaces, script: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    (tmp_path / "moved").mkdir()
    folder = Path(workspaces.make(1, SPEC, script))
    folder.rename(tmp_path / "moved" / "away")
    folder.symlink_to(outside)
    workspaces.keep(1)
    workspaces.remove(1)
    assert not folder.is_symlink()
    assert stat.S_IMODE(outside.stat().st_mode) == 0o500
    assert (tmp_path / "moved" / "away" / "job.py").exists()


def test_s48_everything_else_a_job_can_make_is_removed(workspaces: Workspaces, script: Path) -> None:
    folder = Path(workspaces.make(1, SPEC, script))
    os.mkfifo(folder / "fifo")
    (folder / "new\nline").write_text("x")
    (folder / "\udcff").write_bytes(b"")
    (folder / ("n" * 255)).mkdir()
    (folder / "locked").mkdir()
    (folder / "locked" / "inner").mkdir()
    (folder / "locked" / "inner" / "file").write_text("x")
    (folder / "locked" / "inner").chmod(0)
    (folder / "locked").chmod(0)
    folder.chmod(0o500)
    workspaces.remove(1)
    assert list(folder.parent.iterdir()) == []
    assert list((folder.parent.parent / "removing").iterdir()) == []


def test_s48_a_user_without_privileges_removes_locked_folders_too(tmp_path: Path) -> None:
    # root may do everything, so this is tried as somebody else.
    if os.getuid() != 0:
        pytest.skip("the test above has shown it for this user")
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from titan.worker.workspace import Workspaces\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "root = Path(sys.argv[1])\n"
        "spaces = Workspaces(root)\n"
        "deep = root / 'jobs' / '1' / 'a' / 'b'\n"
        "deep.mkdir(parents=True)\n"
        "(deep / 'file').write_text('x')\n"
        "for path in (deep, deep.parent, deep.parent.parent): path.chmod(0)\n"
        "spaces.remove(1)\n"
        "print(os.listdir(root / 'jobs'), os.listdir(root / 'removing'))\n"
    )
    root = Path(f"/tmp/titan-test-{os.getpid()}")
    root.mkdir()
    try:
        os.chown(root, 65534, 65534)
        done = subprocess.run([sys.executable, "-c", program, root], check=True, capture_output=True, text=True)
    finally:
        subprocess.run(["/bin/rm", "-rf", str(root)], check=True)
    assert done.stdout == "[] []\n"


def test_depth_costs_neither_stack_nor_descriptors(workspaces: Workspaces, script: Path) -> None:
    folder = workspaces.make(1, SPEC, script)
    current = os.open(folder, os.O_RDONLY)
    for _ in range(3_000):
        os.mkdir("d", dir_fd=current)
        deeper = os.open("d", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = deeper
    os.close(current)
    workspaces.remove(1)
    assert not Path(folder).exists()


def test_a_folder_left_by_a_predecessor_is_made_anew(workspaces: Workspaces, script: Path) -> None:
    folder = Path(workspaces.make(1, SPEC, script))
    (folder / "old").write_text("x")
    assert workspaces.make(1, SPEC, script) == str(folder)
    assert [path.name for path in folder.iterdir()] == ["job.py"]


def test_a_removal_that_was_cut_short_goes_on_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "w" / "removing" / "half" / "done").mkdir(parents=True)
    (tmp_path / "w" / "removing" / "a-link").symlink_to(tmp_path)
    Workspaces(tmp_path / "w")
    assert list((tmp_path / "w" / "removing").iterdir()) == []
    assert tmp_path.exists()


def test_failed_jobs_are_kept_for_a_day_and_the_living_always(workspaces: Workspaces, script: Path) -> None:
    folders = [Path(workspaces.make(fence, SPEC, script)) for fence in range(1, 5)]
    foreign = folders[0].parent / "not-ours"
    foreign.mkdir()
    long_ago = folders[0].stat().st_mtime - KEPT_AFTER_FAILURE_S - 60
    for folder in (*folders, foreign):
        os.utime(folder, (long_ago, long_ago))
    # Its day begins with its end, whatever the job made of the folder's time.
    workspaces.keep(3)
    workspaces.keep(99)
    assert sorted(workspaces.expired({4})) == [1, 2]
    workspaces.remove(99)


def aged(folder: Path) -> None:
    long_ago = folder.lstat().st_mtime - SHARED_KEPT_S - 60
    os.utime(folder, (long_ago, long_ago), follow_symlinks=False)


def test_a_shared_folder_goes_a_week_after_its_last_use_and_never_while_in_use(
    workspaces: Workspaces, script: Path, tmp_path: Path
) -> None:
    folders = {}
    for fence, agent_run in enumerate(("unused", "kept", "failed", "in use", "recent"), start=1):
        workspaces.make(fence, SPEC, script)
        folders[agent_run] = Path(workspaces.shared(fence, agent_run))
        (folders[agent_run] / "note").write_text("x")
    for folder in folders.values():
        aged(folder)
    # The week begins with the end of the last user, however that ended.
    workspaces.remove(2)
    workspaces.keep(3)
    workspaces.remove(5)
    for fence, folder in ((1, "unused"), (5, "recent")):
        workspaces.remove(fence)
        aged(folders[folder])
    os.utime(folders["recent"])
    workspaces.remove_unused_shared()
    assert {name for name, folder in folders.items() if folder.exists()} == {"kept", "failed", "in use", "recent"}
    assert list((tmp_path / "w" / "removing").iterdir()) == []
    # One in use has been used now, also for whoever comes after this process.
    Workspaces(tmp_path / "w").remove_unused_shared()
    assert (folders["in use"] / "note").exists()
    assert Path(workspaces.shared(9, "unused")).is_dir()


def test_s48_a_shared_folder_that_became_a_link_is_only_unlinked(workspaces: Workspaces, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    folder = Path(workspaces.shared(1, "a"))
    folder.rename(tmp_path / "moved")
    folder.symlink_to(outside)
    workspaces.keep(1)
    aged(folder)
    workspaces.remove_unused_shared()
    assert not folder.is_symlink()
    assert stat.S_IMODE(outside.stat().st_mode) == 0o500


@pytest.mark.parametrize(
    ("filename", "args", "expected"),
    [
        ("a/b.py", ("x", ""), ["PY", "b.py", "x", ""]),
        ("C:\\jobs\\b.py", (), ["PY", "b.py"]),
        ("-m.py", (), ["PY", "./-m.py"]),
        ("run", ("-x",), ["/w/run", "-x"]),
        ("-run.sh", (), ["/w/-run.sh"]),
    ],
)
def test_the_command_is_exact(filename: str, args: tuple[str, ...], expected: list[str]) -> None:
    assert command(JobSpec(job_id="j", filename=filename, args=args), "/w", "PY") == expected


def _modes(root: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mode for path in sorted(root.rglob("*"))}


def test_s48_what_nobody_may_lose_is_refused_wherever_it_is_found(
    workspaces: Workspaces, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / "deep").mkdir(parents=True)
    (home / "deep" / "file").write_text("precious")
    monkeypatch.setenv("HOME", str(home))
    grave = Grave(tmp_path / "w" / "removing")
    root = os.open(tmp_path, os.O_RDONLY)
    for name in ("home", "w"):
        with pytest.raises(OSError, match="no job may take with it"):
            grave.bury(name, root)
    for name in ("", ".", "..", "w/jobs", "/"):
        with pytest.raises(OSError, match="names no entry"):
            grave.bury(name, root)
    os.close(root)
    # A job that could move it below its own folder has not had it removed.
    folder = Path(workspaces.make(1, SPEC, script))
    home.rename(folder / "home")
    os.close(os.open(tmp_path / "w" / "removing", os.O_RDONLY))
    jobs = os.open(tmp_path / "w" / "jobs", os.O_RDONLY)
    with pytest.raises(OSError, match="no job may take with it"):
        grave.bury("1", jobs)
    os.close(jobs)
    assert [path.read_text() for path in tmp_path.rglob("file")] == ["precious"]


def test_s48_what_a_job_put_in_the_place_of_our_folders_leads_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("7", "a" * 64):
        (outside / name).write_text("precious")
        os.utime(outside / name, (0, 0))
    before = _modes(outside)
    root = tmp_path / "w"
    root.mkdir()
    for name in FOLDERS:
        (root / name).symlink_to(outside)
    (root / "removing").symlink_to(outside)
    (root / "outbox.3" / "deep").mkdir(parents=True)
    workspaces = Workspaces(root)
    workspaces.remove_unused_shared()
    assert workspaces.expired(()) == []
    assert all((root / name).is_dir() and not (root / name).is_symlink() for name in FOLDERS)
    assert not (root / "outbox.3").exists()
    for make in (_logs, _scripts):
        with make(root / "swapped") as swap:
            (root / "swapped").rename(root / "aside")
            (root / "swapped").symlink_to(outside)
            swap()
        (root / "swapped").unlink()
        # A link that is there at the start is not taken for the folder.
        (root / "swapped").symlink_to(outside)
        with pytest.raises(NotADirectoryError), make(root / "swapped"):
            raise AssertionError
        (root / "swapped").unlink()
        shutil.rmtree(root / "aside")
    assert [path.read_text() for path in outside.iterdir()] == ["precious", "precious"]
    assert _modes(outside) == before


@contextmanager
def _logs(folder: Path) -> Iterator[Callable[[], object]]:
    logs = Logs(folder, lambda call, *told: call(*told), lambda _: None, lambda *_: None)

    def swapped() -> None:
        reading, writing = os.pipe()
        os.write(writing, b"of the job")
        os.close(writing)
        logs.add(7, reading)
        done = threading.Event()
        logs.finish(7, "", lambda _: done.set())
        assert done.wait(30)
        assert logs.read(7, 0, 10) == b"of the job"
        logs.forget(7)

    try:
        yield swapped
    finally:
        logs.close()


@contextmanager
def _scripts(folder: Path) -> Iterator[Callable[[], object]]:
    yield Scripts(folder, str, str).sweep


def test_s48_a_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "spool").symlink_to("precious")
    spool = Spool(tmp_path / "spool", 100)
    spool.append(memoryview(b"of the job"))
    spool.close()
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "spool").is_symlink()


def test_a_folder_that_is_filled_without_end_is_given_up(workspaces: Workspaces, script: Path) -> None:
    folder = Path(workspaces.make(1, SPEC, script))
    real, filled = os.rmdir, []

    class Filling:
        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def rmdir(self, name: str, *, dir_fd: int) -> None:
            filled.append(name)
            os.close(os.open(f"{name}/again", os.O_CREAT, 0o600, dir_fd=dir_fd))
            real(name, dir_fd=dir_fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace, "os", Filling())
        with pytest.raises(OSError, match="not empty"):
            workspaces.remove(1)
    assert len(filled) == workspace.LOOKS_MAX
    assert not folder.exists()
