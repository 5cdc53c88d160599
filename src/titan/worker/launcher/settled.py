"""What the import of a module must leave as it was, because it holds for a whole process.

A job that does not import the module would have it too, and one that does would find it undone if we undid it. So a
module that changes such a thing is not preloaded; jobs import it themselves, as ever.

Not here is what a job gets anew in any case: arguments, streams, random states, its environment.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import _thread
import builtins
import ctypes
import gc
import os
import sys
from typing import Any

_LC_ALL = 6
_TINY, _HALF_STEP = float("2.2250738585072014e-308"), float("1.1102230246251565e-16")
_setlocale = ctypes.CDLL(None).setlocale
_setlocale.restype = ctypes.c_char_p
_setlocale.argtypes = (ctypes.c_int, ctypes.c_char_p)


class Settled:
    """How this process is now; `changes` says how it differs later."""

    def __init__(self) -> None:
        self._folders = len(sys.path)
        self._builtins = dict(builtins.__dict__)
        self._before = self._look()

    def changes(self) -> list[str]:
        """Return the names of what is not as it was."""
        now = self._look()
        return [name for name in now if now[name] != self._before[name]]

    def _look(self) -> dict[str, object]:
        return {
            "the umask": _umask(),
            "the working folder": os.readlink("/proc/self/cwd"),
            "the handling of signals": _signals(),
            "timers": (_signal.getitimer(_signal.ITIMER_VIRTUAL), _signal.getitimer(_signal.ITIMER_PROF)),
            "resource limits": _text("limits"),
            "the process's name": _text("comm"),
            "the user it runs as": (os.getresuid(), os.getresgid(), os.getgroups()),
            "the priority or the processors it has": (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)),
            "the locale": _setlocale(_LC_ALL, None),
            "floating-point arithmetic": (_TINY / 2, 1.0 + _HALF_STEP, -1.0 - _HALF_STEP),
            # More at its end shadows nothing.
            "the front of sys.path": sys.path[: self._folders],
            "hooks of the interpreter": _hooks(),
            "settings of the interpreter": _interpreter(),
            "builtins": {name: builtins.__dict__.get(name) for name in self._builtins},
            "os.environ, by another object": id(os.environ),
            "the timeout of new sockets": _socket.getdefaulttimeout(),
            "the root logger": _root_logger(),
            "the start method of multiprocessing": _start_method(),
        }


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _signals() -> object:
    # Of the numbers that the C library keeps for itself, its threads take one.
    numbers = _signal.valid_signals()
    seen = sum(1 << (number - 1) for number in numbers)
    lines = [line.split() for line in _text("status").splitlines() if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]
    return [int(mask, 16) & seen for _, mask in lines], [_signal.getsignal(number) for number in numbers]


def _text(name: str) -> str:
    with open(f"/proc/self/{name}", encoding="utf-8", errors="replace") as file:
        return file.read()


def _hooks() -> object:
    threading = sys.modules.get("threading")
    of_threads = threading is None or threading.excepthook is _thread._excepthook
    tracing = sys.gettrace(), sys.getprofile()
    return sys.excepthook, sys.displayhook, sys.unraisablehook, sys.breakpointhook, of_threads, tracing


def _interpreter() -> object:
    of_gc = gc.get_threshold(), gc.get_debug(), len(gc.callbacks)
    more = sys.getswitchinterval(), sys.get_int_max_str_digits(), sys.dont_write_bytecode, sys.getdlopenflags()
    return sys.getrecursionlimit(), of_gc, more


def _root_logger() -> object:
    logging: Any = sys.modules.get("logging")
    root = getattr(logging, "root", None)
    return (root.level, len(root.handlers), root.manager.disable) if root else (30, 0, 0)


def _start_method() -> object:
    multiprocessing: Any = sys.modules.get("multiprocessing")
    return multiprocessing.get_start_method(allow_none=True) if multiprocessing else None
