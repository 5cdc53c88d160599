"""The folders of jobs: a fresh private one for each attempt, and their removal.

What is in a job's folder was made by the job and is hostile: removal opens every folder by descriptor
without following links, moves subfolders flat instead of descending, so depth costs neither stack nor
descriptors, and never leaves the folder it was given.
"""

import hashlib
import itertools
import os
import shutil
import stat
import threading
import time
from collections.abc import Container
from pathlib import Path

from titan.model.spec import JobSpec

KEPT_AFTER_FAILURE_S = 24 * 3600
SHARED_KEPT_S = 7 * 24 * 3600


def script_name(spec: JobSpec) -> str:
    """Return the base name under which the job finds its script."""
    return spec.filename.replace("\\", "/").rsplit("/", 1)[-1]


def command(spec: JobSpec, workdir: str, python: str) -> list[str]:
    """Return the exact argv of the job: Python files run by `python`, all else by itself."""
    name = script_name(spec)
    if not name.endswith(".py"):
        return [f"{workdir}/{name}", *spec.args]
    # A name like "-c.py" must not be read as an option.
    return [python, name if not name.startswith("-") else f"./{name}", *spec.args]


class Workspaces:
    """The folders `jobs/FENCE` and `shared/...` below one worker's own folder. Any thread may use it."""

    def __init__(self, root: Path) -> None:
        self._jobs = f"{root}/jobs"
        self._shared = f"{root}/shared"
        for folder in (self._jobs, self._shared):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        self._grave = Grave(root / "removing")
        # Who uses which shared folder; with the lock held a folder is either used or taken away.
        self._users: dict[int, str] = {}
        self._sharing = threading.Lock()

    def make(self, fence: int, spec: JobSpec, script: Path) -> str:
        """Make the attempt's folder with its script in it and return its path. Raises OSError."""
        folder = self._folder(fence)
        try:
            os.mkdir(folder, mode=0o700)
        except FileExistsError:
            self.remove(fence)
            os.mkdir(folder, mode=0o700)
        target = f"{folder}/{script_name(spec)}"
        shutil.copyfile(script, target)
        if not target.endswith(".py"):
            os.chmod(target, 0o700)
        return folder

    def shared(self, fence: int, agent_run_id: str) -> str:
        """Return the folder that all jobs of one agent run share on this worker, in use until the attempt's end."""
        # The id is any text of a caller, so its hash is the name.
        name = hashlib.sha256(agent_run_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        folder = f"{self._shared}/{name}"
        with self._sharing:
            if not os.path.isdir(folder):
                os.makedirs(folder, mode=0o700, exist_ok=True)
            self._users[fence] = name
        return folder

    def remove_unused_shared(self) -> None:
        """Remove the shared folders that no attempt has used for `SHARED_KEPT_S`. Raises OSError."""
        oldest = time.time() - SHARED_KEPT_S
        for name in os.listdir(self._shared):
            with self._sharing:
                if name in self._users.values():
                    self._touch_shared(name)
                    continue
                if os.lstat(f"{self._shared}/{name}").st_mtime >= oldest:
                    continue
                dead = self._grave.take(f"{self._shared}/{name}")
            self._grave.remove(dead)

    def keep(self, fence: int) -> None:
        """Leave a failed attempt's folder for a person to look at; its day begins now."""
        self._leave_shared(fence)
        try:
            os.utime(self._folder(fence), follow_symlinks=False)
        except FileNotFoundError:
            pass

    def remove(self, fence: int) -> None:
        """Remove an attempt's folder, whatever the job made of it. Raises OSError."""
        self._leave_shared(fence)
        try:
            self._grave.bury(self._folder(fence))
        except FileNotFoundError:
            return

    def expired(self, living: Container[int]) -> list[int]:
        """Return the attempts not `living` whose folders have been kept for their day."""
        found = []
        oldest = time.time() - KEPT_AFTER_FAILURE_S
        for name in os.listdir(self._jobs):
            if not name.isdigit() or int(name) in living:
                continue
            try:
                kept_since = os.lstat(f"{self._jobs}/{name}").st_mtime
            except FileNotFoundError:
                continue
            if kept_since < oldest:
                found.append(int(name))
        return found

    def _leave_shared(self, fence: int) -> None:
        with self._sharing:
            name = self._users.pop(fence, None)
            if name is not None:
                self._touch_shared(name)

    def _touch_shared(self, name: str) -> None:
        try:
            os.utime(f"{self._shared}/{name}", follow_symlinks=False)
        except FileNotFoundError:
            pass  # a job removed it

    def _folder(self, fence: int) -> str:
        return f"{self._jobs}/{fence}"


class Grave:
    """A folder of ours into which what shall go is moved, and removed there. Any thread may use it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        # A predecessor may have left names behind that only count up as well.
        self._prefix = os.urandom(6).hex()
        self._numbers = itertools.count()
        for name in os.listdir(self._fd):
            self.remove(name)

    def bury(self, path: str) -> None:
        """Remove `path` and all below it. Raises OSError, FileNotFoundError when there is nothing."""
        self.remove(self.take(path))

    def take(self, path: str) -> str:
        """Move `path` here and return its name, for `remove`. Raises OSError as `bury` does."""
        name = self._new_name()
        _made_writable(path, None)
        os.rename(path, name, dst_dir_fd=self._fd)
        return name

    def _new_name(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"

    def remove(self, name: str) -> None:
        """Remove what `take` moved here, and all below it. Raises OSError."""
        pending = [name]
        while pending:
            current = pending.pop()
            if not _made_writable(current, self._fd):
                os.unlink(current, dir_fd=self._fd)
                continue
            folder = os.open(current, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._fd)
            try:
                pending += self._empty(folder)
            finally:
                os.close(folder)
            os.rmdir(current, dir_fd=self._fd)

    def _empty(self, folder: int) -> list[str]:
        """Unlink the files of `folder`, move its folders up here, and return their new names."""
        moved = []
        for name in os.listdir(folder):
            # Moving a folder writes its "..", so it must be writable.
            if _made_writable(name, folder):
                moved.append(self._new_name())
                os.rename(name, moved[-1], src_dir_fd=folder, dst_dir_fd=self._fd)
            else:
                os.unlink(name, dir_fd=folder)
        return moved


def _made_writable(name: str, parent: int | None) -> bool:
    """Say whether `name` is a folder, and let us write it if it is. A link is none."""
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        return False
    if status.st_mode & 0o700 != 0o700:
        # No link a moment ago, and nobody of the job is left to make it one.
        os.chmod(name, 0o700, dir_fd=parent)
    return True
