"""Which processes are ours, and the end of them.

Everything a job starts stays below the launcher: orphans fall to the job's main process while it lives and
to the launcher when it ends, because both are child subreapers. So whatever the launcher has as a child
and did not fork is a leftover. Only own children are signalled, and groups that hold an own child: neither
number can belong to anybody else before we reap it.
"""

import ctypes
import os

SIGKILL = 9
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_READ_BYTES = 4096
_EXITING = 0x4  # the kernel's PF_EXITING: set before a process gives up its memory, so before its environment is gone

_prctl = ctypes.CDLL(None, use_errno=True).prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def become_subreaper() -> None:
    """Make orphans below this process fall to it. Raises OSError where the kernel refuses."""
    if _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def die_with(parent: int) -> None:
    """Have the kernel KILL this process when its parent dies, which is `parent`, or was and is gone."""
    _prctl(_PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(127)


class Seen:
    """What /proc said about one process: its `group` and `session` ids, and whether it is `leaving` or dead."""

    __slots__ = ("group", "leaving", "session")

    def __init__(self, group: int, session: int, leaving: bool) -> None:
        self.group = group
        self.session = session
        self.leaving = leaving


def children() -> list[int]:
    """Return the pids of this single-threaded process's children, zombies included, in order of arrival.

    The list is exact because nobody but the caller reaps them.
    """
    try:
        file = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return _children_by_search()
    text = b""
    while data := os.read(file, _READ_BYTES):
        text += data
    os.close(file)
    return [int(pid) for pid in text.split()]


def _children_by_search() -> list[int]:
    # Kernels built without CONFIG_PROC_CHILDREN.
    me = os.getpid()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(int(name))
            if fields and int(fields[1]) == me:
                found.append(int(name))
    return found


def look(pid: int) -> Seen | None:
    """Return what is known about `pid`; None when it is gone."""
    fields = _stat(pid)
    return Seen(int(fields[2]), int(fields[3]), bool(int(fields[6]) & _EXITING)) if fields else None


def _stat(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat from the state on: state, ppid, pgrp, session, tty, its group, flags, ..."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read(4096).rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def fence_mark(pid: int) -> int | None:
    """Return the fence in the environment `pid` was started with; None when it has none we may read."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            text = file.readall() or b""
    except OSError:
        return None
    for entry in text.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == b"TITAN_FENCE" and value.isdigit():
            return int(value)
    return None


def kill_child(pid: int) -> None:
    """KILL the own, unreaped child `pid`, and its whole process group at once.

    A group is killed under the kernel's lock, so a process that forks faster than we look does not escape.
    """
    seen = look(pid)
    if seen is not None and seen.session not in (0, os.getsid(0)) and seen.group > 1:
        signal_group(seen.group, SIGKILL)
    signal_process(pid, SIGKILL)


def signal_group(group: int, number: int) -> None:
    """Send `number` to a group that holds an own child; a group that is gone is no error."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass


def signal_process(pid: int, number: int) -> None:
    """Send `number` to the own, unreaped child `pid`. One that changed its user is left to its own end."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def kill_all_children() -> None:
    """KILL every child, and what falls to us as they die, until there is none. Blocks until then."""
    while True:
        for pid in children():
            kill_child(pid)
        try:
            os.waitpid(-1, 0)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
