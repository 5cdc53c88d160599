"""The launcher grown warm: what it prepares once, so that a fork of it can become `python script.py args`.

It runs as an ordinary interpreter does, with the job's own search path, so that what it imported is what a job would
import. It holds nothing a job must not have: no thread, no descriptor but its own, no module of Titan's worker.

What cannot be prepared raises `Unfit` with the reason, and jobs are executed as before.
"""

import _thread
import ctypes
import gc
import importlib
import os
import select
import sys
import time
from collections.abc import Callable

from titan.worker.launcher import place, tree
from titan.worker.launcher.settled import Settled

PREPARE_S = 120
CHECK_S = 20
_MINE = "titan"


class Unfit(Exception):
    """This interpreter cannot be forked into jobs here; the text says why."""


class Server:
    """What a fork needs to know of the interpreter it came from. `modules` are those a job finds imported.

    `importing` is told each name of `preload` before its import, and "" after all of them.
    """

    def __init__(self, preload: list[str], importing: Callable[[str], object]) -> None:
        self._until_s = time.monotonic() + PREPARE_S
        self._settled, self._files, self._pid = Settled(), _descriptors(), os.getpid()
        self._last_call()
        self.environ = _initial_environ()
        # What the interpreter set by itself when it began (its locale), it would set in a job as well.
        self.added = {name: value for name, value in os.environb.items() if self.environ.get(name) != value}
        own = _own_sitecustomize()
        if own:
            raise Unfit(f"{own} runs at each start of Python here")
        try:
            self.place = place.Place()
        except OSError as error:
            raise Unfit(f"this kernel does not let a process show its own command line ({error.strerror})") from error
        environ = dict(os.environb)
        stdin = sys.stdin
        self._import("titan_sdk")
        for name in preload:
            importing(name)
            self._import(name)
        importing("")
        self.modules = frozenset(sys.modules)
        # What of ours a job must not find in `sys.modules`.
        self.own = [name for name in sys.modules if name.partition(".")[0] == _MINE]
        theirs = [name for name in sys.modules if name not in self.own]
        self.last, self.count = theirs[-1], len(theirs)
        # Name to its value before the imports and after them, None where there is none: jobs find the modules imported.
        names = environ.keys() | os.environb.keys()
        values = {name: (environ.get(name), os.environb.get(name)) for name in names}
        self.reset = {name: pair for name, pair in values.items() if pair[0] != pair[1]}
        sys.stdin = stdin
        _flush()
        self._check_fork()
        _die_in(0)

    def names(self) -> list[str]:
        """Return the top-level modules that a job must not have one of its own of."""
        return sorted({name.partition(".")[0] for name in self.modules} - {_MINE, "__main__"})

    def _import(self, name: str) -> None:
        try:
            importlib.import_module(name)
        except BaseException as error:
            self._only_one()
            raise Unfit(f"import {name}: {type(error).__name__}: {error}") from error
        self._only_one()
        self._last_call()
        if problem := self._left_behind():
            raise Unfit(f"import {name} {problem}")

    def _only_one(self) -> None:
        # A module that forks must not make a second launcher.
        if os.getpid() != self._pid:
            os._exit(1)

    def _last_call(self) -> None:
        """Let it end when its time is up, also when its worker is gone; a module may have set the timer for itself."""
        _die_in(max(1, round(self._until_s - time.monotonic())))

    def _left_behind(self) -> str:
        """Return what an import did that jobs would have from then on, "" for nothing."""
        files = _descriptors()
        if left := files - self._files:
            return f"keeps {len(left)} files or sockets open"
        if gone := self._files - files:
            return f"closes {len(gone)} files that are not its own"
        if started := _thread._count():
            # Jobs would wait for what it does, and for the locks it had at the fork.
            return f"starts {started} threads, which a fork would not have"
        if children := tree.children():
            tree.kill_all_children()
            return f"starts {len(children)} processes that it does not wait for"
        if changes := self._settled.changes():
            return f"changes {', '.join(changes)}"
        return ""

    def _check_fork(self) -> None:
        """Fork once: the child must have one thread, run, and end."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                gc.collect()
                code = 0 if _threads() == 1 else 2
            finally:
                os._exit(code)
        watch = os.pidfd_open(pid)
        if not select.select([watch], [], [], CHECK_S)[0]:
            os.kill(pid, 9)
        os.close(watch)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status == 2:
            raise Unfit("a fork of it has more than one thread")
        if status:
            raise Unfit(f"a fork of it does not run (it ended with {status})")


def _die_in(seconds: int) -> None:
    # SIGALRM's default action also ends one that hangs in C. 0: never.
    ctypes.CDLL(None).alarm(seconds)


def _flush() -> None:
    # What an import printed without the end of its line, every fork would print again.
    for name in ("stdout", "stderr"):
        try:
            if getattr(sys, name) is not None:
                getattr(sys, name).flush()
        except BaseException:  # noqa: BLE001 - whatever stands there; a closed or detached one says ValueError
            setattr(sys, name, None)
    ctypes.CDLL(None).fflush(None)


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue  # the one that listed them
    return found


def _initial_environ() -> dict[bytes, bytes]:
    with open("/proc/self/environ", "rb") as file:
        return dict(entry.split(b"=", 1) for entry in file.read().split(b"\0") if b"=" in entry)


def _own_sitecustomize() -> str:
    """Return the file that runs at each start and is neither ours nor the interpreter's own; "" when there is none."""
    library = os.path.dirname(os.__file__)
    ours = os.environ.get("PYTHONPATH", "").partition(os.pathsep)[0]
    for name in ("sitecustomize", "usercustomize"):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and os.path.dirname(file) not in (library, ours):
            return str(file)
    return ""
