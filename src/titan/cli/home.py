"""The home of one Titan: made private, given a token, and held by at most one `titan up`.

The lock is a `flock` on HOME/lock, which the kernel drops with its holder however that dies; the file is
never removed, since a lock on a removed file protects nothing. Inside stands who holds it. What stands
there is believed only while the lock is held.
"""

import dataclasses
import fcntl
import json
import os
import select
import stat
import time
from pathlib import Path

from titan.model.private import refuse_exposed
from titan_sdk.errors import Conflict, Invalid

LOCK = "lock"
TOKEN = "token"  # noqa: S105 - the file's name
# A look at the lock by `titan down` or by another starting `up` takes it for microseconds.
RECORD_BYTES_MAX = 16_384
_LOOKS = 6
_LOOK_S = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    """The `titan up` that holds a home, and the processes it started.

    `ready`: its Master answered and its workers were connected.
    """

    pid: int
    url: str
    ready: bool = False
    children: tuple[int, ...] = ()


class HomeLock:
    """The lock, taken. Ends with the process, or with `release`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def record(self, holder: Holder) -> None:
        """Write who holds it, for those who find it taken."""
        text = json.dumps(dataclasses.asdict(holder)).encode() + b"\n"
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))

    def previous(self) -> Holder | None:
        """Return who held it before, if that is written there; its processes may be leaving still."""
        return _parsed(os.pread(self._descriptor, RECORD_BYTES_MAX, 0))

    def release(self) -> None:
        """Let the home go."""
        os.close(self._descriptor)


def spoken(home: Path) -> str:
    """Return a folder as people say it, with ~ for their own."""
    try:
        return str("~" / home.relative_to(Path.home()))
    except ValueError:
        return str(home)


def take(home: Path) -> HomeLock:
    """Take the lock of `home`. Raises Conflict naming the holder when another `titan up` has it."""
    descriptor = _open(home)
    for look in range(_LOOKS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if look + 1 < _LOOKS:
                time.sleep(_LOOK_S)
        else:
            return HomeLock(descriptor)
    held_by = _parsed(os.pread(descriptor, RECORD_BYTES_MAX, 0))
    os.close(descriptor)
    who = f"pid {held_by.pid} at {held_by.url}" if held_by else "an unknown process"
    raise Conflict(
        f"Titan is up already on {home}: {who} holds its lock",
        hint="use it as it is, or `titan down` first, or a second one: TITAN_HOME=/other titan up --port 9091",
    )


def holder(home: Path) -> Holder | None:
    """Return the `titan up` that holds `home` now; None when nobody does."""
    try:
        descriptor = os.open(home / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _parsed(os.pread(descriptor, RECORD_BYTES_MAX, 0)) or Holder(pid=0, url="")
    else:
        return None
    finally:
        os.close(descriptor)


def wait_for_children(holder: Holder, home: Path, patience_s: float) -> None:
    """Wait until the processes that a dead `holder` started are gone; they leave by themselves.

    A successor would find the port, the database and the worker's name taken. Raises Conflict naming those that
    stay.
    """
    deadline_s = time.monotonic() + patience_s
    staying = [pid for pid in holder.children if not _gone_by(pid, home, deadline_s)]
    if staying:
        pids = " ".join(map(str, staying))
        raise Conflict(f"a killed titan up left processes on {home}: {pids}", hint=f"kill {pids}")


def _gone_by(pid: int, home: Path, deadline_s: float) -> bool:
    """Wait for the end of `pid`, unless that is another program by now."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return os.fsencode(home) not in words or ended_by(handle, deadline_s)
    except OSError:
        return True
    finally:
        os.close(handle)


def ended_by(handle: int, deadline_s: float) -> bool:
    """Wait until the process behind a pidfd has ended; return whether it has by `deadline_s` (monotonic)."""
    left_s = max(0.0, deadline_s - time.monotonic())
    return bool(select.select([handle], [], [], left_s)[0])


def prepare(home: Path) -> None:
    """Make `home` (0700) if it is missing. Raises Invalid when it cannot be used, saying why and what to do."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = home.stat().st_mode
    except OSError as error:
        why = "it is a file" if home.is_file() else error.strerror or str(error)
        raise _unusable(home, why) from None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Invalid(
            f"{home} may be written by others (mode {stat.S_IMODE(mode):o}), who could swap its token",
            hint=f"chmod go-w {home}, or choose a folder of your own with TITAN_HOME",
        )
    if not os.access(home, os.W_OK | os.X_OK):
        raise _unusable(home, "no permission to write")


def ensure_token(home: Path) -> None:
    """Make HOME/token (256 random bits as hex, mode 0600) unless it is there. Call with the lock taken.

    Raises Invalid for one that others may know.
    """
    path = home / TOKEN
    try:
        if path.exists() and path.read_text().strip():
            refuse_exposed(path, f"rm {path}, and the next start makes a new one; chmod 600 {path} if nobody saw it")
            return
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(home, f"{TOKEN}: {getattr(error, 'strerror', None) or 'it is no text'}") from None
    fresh = home / f"{TOKEN}.new"
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(os.urandom(32).hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _open(home: Path) -> int:
    try:
        return os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(home, f"{LOCK}: {error.strerror}") from None


def _unusable(home: Path, why: str) -> Invalid:
    return Invalid(
        f"{home} cannot be Titan's home: {why}",
        hint="choose a folder that you may write to with TITAN_HOME",
    )


def _parsed(data: bytes) -> Holder | None:
    try:
        found = json.loads(data)
        children = tuple(int(pid) for pid in found["children"])
        return Holder(pid=int(found["pid"]), url=str(found["url"]), ready=bool(found["ready"]), children=children)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
