"""The folders of jobs: a fresh private one for each attempt, and their removal.

What is in a job's folder was made by the job and is hostile, and may be changed by one that runs while we look at
it. So nothing below the worker's own folder is reached by a path: every folder is opened by descriptor, in the one
above it and without following links. Removal moves subfolders flat instead of descending, so depth costs neither
stack nor descriptors, and never leaves the folder it was given.
"""

import errno
import hashlib
import itertools
import os
import stat
import threading
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from titan.model.spec import JobSpec

KEPT_AFTER_FAILURE_S = 24 * 3600
SHARED_KEPT_S = 7 * 24 * 3600
JOBS, SHARED, SPOOL, SCRIPTS, REMOVING = "jobs", "shared", "spool", "scripts", "removing"
FOLDERS = (JOBS, SHARED, SPOOL, SCRIPTS)
# A folder that somebody fills while it is emptied is looked at again so often.
LOOKS_MAX = 100
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COPIED_BYTES = 1024 * 1024
# What another process put in the place of what we saw.
_SWAPPED = (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


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
        os.makedirs(root, mode=0o700, exist_ok=True)
        self._path = str(root)
        self._root = os.open(root, _FOLDER)
        _unlink_what_is_no_folder(REMOVING, self._root)
        self._grave = Grave(root / REMOVING)
        self._put_in_order()
        # Who uses which shared folder; with the lock held a folder is either used or taken away.
        self._users: dict[int, str] = {}
        self._sharing = threading.Lock()

    def make(self, fence: int, spec: JobSpec, script: Path) -> str:
        """Make the attempt's folder with its script in it and return its path. Raises OSError."""
        path = f"{self._path}/{JOBS}/{fence}"
        with self._opened(JOBS) as jobs:
            try:
                os.mkdir(str(fence), mode=0o700, dir_fd=jobs)
            except FileExistsError:
                self._grave.bury(str(fence), jobs)
                os.mkdir(str(fence), mode=0o700, dir_fd=jobs)
            with _folder(str(fence), jobs) as folder:
                name = script_name(spec)
                _copy(script, name, folder, 0o600 if name.endswith(".py") else 0o700)
                # The job is told a path; one that leads elsewhere by now is not its own.
                if not os.path.samestat(os.fstat(folder), os.stat(path)):
                    raise OSError(errno.ESTALE, "its folder was replaced", path)
        return path

    def shared(self, fence: int, agent_run_id: str) -> str:
        """Return the folder that all jobs of one agent run share on this worker, in use until the attempt's end."""
        # The id is any text of a caller, so its hash is the name.
        name = hashlib.sha256(agent_run_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        with self._sharing, self._opened(SHARED) as shared:
            if not _is_folder(name, shared):
                try:
                    self._grave.bury(name, shared)
                except FileNotFoundError:
                    pass
                os.mkdir(name, mode=0o700, dir_fd=shared)
            self._users[fence] = name
        return f"{self._path}/{SHARED}/{name}"

    def remove_unused_shared(self) -> None:
        """Remove the shared folders that no attempt has used for `SHARED_KEPT_S`. Raises OSError."""
        oldest = time.time() - SHARED_KEPT_S
        with self._opened(SHARED) as shared:
            for name in os.listdir(shared):
                with self._sharing:
                    if name in self._users.values():
                        _touch(name, shared)
                        continue
                    if (_used_at(name, shared) or oldest) >= oldest:
                        continue
                    dead = self._grave.take(name, shared)
                self._grave.remove(dead)

    def keep(self, fence: int) -> None:
        """Leave a failed attempt's folder for a person to look at; its day begins now."""
        self._leave_shared(fence)
        with self._opened(JOBS) as jobs:
            _touch(str(fence), jobs)

    def remove(self, fence: int) -> None:
        """Remove an attempt's folder, whatever the job made of it. Raises OSError."""
        self._leave_shared(fence)
        try:
            with self._opened(JOBS) as jobs:
                self._grave.bury(str(fence), jobs)
        except FileNotFoundError:
            return

    def expired(self, living: Container[int]) -> list[int]:
        """Return the attempts not `living` whose folders have been kept for their day."""
        oldest = time.time() - KEPT_AFTER_FAILURE_S
        with self._opened(JOBS) as jobs:
            fences = [int(name) for name in os.listdir(jobs) if name.isascii() and name.isdecimal()]
            return [
                fence for fence in fences if fence not in living and (_used_at(str(fence), jobs) or oldest) < oldest
            ]

    def discard(self, name: str) -> None:
        """Remove `name` from the worker's own folder, whatever it is; nothing to do when it is not there."""
        try:
            self._grave.bury(name, self._root)
        except FileNotFoundError:
            return

    def _put_in_order(self) -> None:
        """Make our folders; what a predecessor's job has put in the place of one, or of our files, goes."""
        for name in FOLDERS:
            _unlink_what_is_no_folder(name, self._root)
            with self._opened(name) as folder:
                os.fchmod(folder, 0o700)
        for name in os.listdir(self._root):
            if name not in (*FOLDERS, REMOVING) and _is_folder(name, self._root):
                self.discard(name)

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """Give a descriptor of one of our folders, made anew if somebody deleted it."""
        try:
            folder = os.open(name, _FOLDER, dir_fd=self._root)
        except FileNotFoundError:
            os.mkdir(name, mode=0o700, dir_fd=self._root)
            folder = os.open(name, _FOLDER, dir_fd=self._root)
        try:
            yield folder
        finally:
            os.close(folder)

    def _leave_shared(self, fence: int) -> None:
        with self._sharing:
            name = self._users.pop(fence, None)
            if name is not None:
                try:
                    with self._opened(SHARED) as shared:
                        _touch(name, shared)
                except OSError:
                    return  # there is nothing to keep


class Grave:
    """A folder of ours into which what shall go is moved, and removed there. Any thread may use it.

    The root of the machine, the user's home and the folders above this one are never removed, in whatever place
    they are found.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(folder, _FOLDER)
        self._precious = _identities("/", os.path.expanduser("~"), *folder.absolute().parents)
        # A predecessor may have left names behind that only count up as well.
        self._prefix = os.urandom(6).hex()
        self._numbers = itertools.count()
        for name in os.listdir(self._fd):
            try:
                self.remove(name)
            except OSError:
                continue  # the next start tries again

    def bury(self, name: str, parent: int) -> None:
        """Remove `name` of the folder `parent` and all below it. Raises OSError, FileNotFoundError for nothing."""
        self.remove(self.take(name, parent))

    def take(self, name: str, parent: int) -> str:
        """Move `name` of the folder `parent` here and return its new name, for `remove`. Raises OSError as `bury`."""
        if name in ("", ".", "..") or "/" in name:
            raise OSError(errno.EINVAL, "names no entry of a folder", name)
        self._made_writable(name, parent)
        dead = self._new_name()
        os.rename(name, dead, src_dir_fd=parent, dst_dir_fd=self._fd)
        return dead

    def remove(self, name: str) -> None:
        """Remove what `take` moved here, and all below it. Raises OSError."""
        pending = [name]
        while pending:
            current = pending.pop()
            for look in range(1, LOOKS_MAX + 1):
                try:
                    self._remove_one(current, pending)
                    break
                except FileNotFoundError:
                    break
                except OSError as error:
                    if error.errno not in _SWAPPED or look == LOOKS_MAX:
                        raise

    def _new_name(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"

    def _remove_one(self, name: str, pending: list[str]) -> None:
        if not self._made_writable(name, self._fd):
            os.unlink(name, dir_fd=self._fd)
            return
        with _folder(name, self._fd) as folder:
            self._empty(folder, pending)
        os.rmdir(name, dir_fd=self._fd)

    def _empty(self, folder: int, pending: list[str]) -> None:
        """Unlink the files of `folder`, move its folders up here, and add their new names to `pending`."""
        self._check(os.fstat(folder))
        for name in os.listdir(folder):
            try:
                # Moving a folder writes its "..", so it must be writable.
                if self._made_writable(name, folder):
                    moved = self._new_name()
                    os.rename(name, moved, src_dir_fd=folder, dst_dir_fd=self._fd)
                    pending.append(moved)
                else:
                    os.unlink(name, dir_fd=folder)
            except FileNotFoundError:
                continue

    def _made_writable(self, name: str, parent: int) -> bool:
        """Say whether `name` is a folder, and let us write it if it is. A link is none."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            return False
        self._check(status)
        if status.st_mode & 0o700 != 0o700:
            # By descriptor: a chmod by name would follow what it may have become meanwhile.
            found = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                self._check(os.fstat(found))
                os.chmod(f"/proc/self/fd/{found}", 0o700)
            finally:
                os.close(found)
        return True

    def _check(self, status: os.stat_result) -> None:
        if (status.st_dev, status.st_ino) in self._precious:
            raise OSError(errno.EPERM, "a folder that no job may take with it")


@contextmanager
def _folder(name: str, parent: int) -> Iterator[int]:
    folder = os.open(name, _FOLDER, dir_fd=parent)
    try:
        yield folder
    finally:
        os.close(folder)


def _identities(*paths: str | Path) -> frozenset[tuple[int, int]]:
    found = set()
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue
        found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def _is_folder(name: str, parent: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _unlink_what_is_no_folder(name: str, parent: int) -> None:
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return


def held_folder(path: Path) -> Path:
    """Return a path to the folder `path`, made if need be, that goes on to mean this folder whatever `path` becomes.

    Raises OSError when something else, a link too, is in its place.
    """
    try:
        os.mkdir(path, mode=0o700)
    except FileExistsError:
        pass
    return Path(f"/proc/self/fd/{os.open(path, _FOLDER)}")


def _used_at(name: str, parent: int) -> float | None:
    """Return when `name` was changed last; None when there is nothing."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return None


def _touch(name: str, parent: int) -> None:
    try:
        os.utime(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        pass  # a job removed it


def _copy(source: Path, name: str, folder: int, mode: int) -> None:
    """Copy the file `source` to the new file `name` in `folder`. Raises OSError."""
    # A FIFO in its place would wait for a writer.
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        making = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writing = os.open(name, making, mode, dir_fd=folder)
        try:
            while os.sendfile(writing, reading, None, _COPIED_BYTES):
                pass
        finally:
            os.close(writing)
    finally:
        os.close(reading)
