"""The reaping shim of a `reap=True` job: a process between the launcher and the job's main process.

Orphans below the main process fall to the shim, which reaps them, so `os.wait()` in the main process sees
its own children only. The shim is a fork of the launcher that executes nothing: one thread, no descriptor,
every signal blocked. It does not reap the main process but leaves when that one is dead: then the corpse falls
to the launcher, which reads the exact status from it, and until then its pid cannot become anybody else's.

Killed, it takes the main process with it, as the launcher does by its own death.
"""

import errno
import os
import struct

from titan.worker.launcher import tree

_TOLD = struct.Struct("<ii")


def split(telling: int) -> None:
    """Fork the main process and return in it; this process becomes its shim, and writes to `telling` who it is.

    Every signal is to be blocked here; they are still in the main process. That one dies with its shim.
    """
    above = os.getpid()
    try:
        main = os.fork()
    except OSError as error:
        os.write(telling, _TOLD.pack(0, error.errno or 0))
        os._exit(0)
    if main == 0:
        os.close(telling)
        tree.die_with(above)
        return
    os.write(telling, _TOLD.pack(main, 0))
    for name in os.listdir("/proc/self/fd"):
        try:
            os.close(int(name))
        except OSError:
            continue  # the one that listed them
    _reap_until(main)


def _reap_until(main: int) -> None:
    while True:
        dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        if dead is not None and dead.si_pid != main:
            os.waitpid(dead.si_pid, 0)
            continue
        os._exit(0)


def read_main(told: int) -> int:
    """Return the main process's pid, from the other end of `telling`. Raises OSError when there is none."""
    data = os.read(told, _TOLD.size)
    main, code = _TOLD.unpack(data) if data else (0, errno.EAGAIN)
    if not main:
        raise OSError(code, "the shim could not fork")
    return int(main)
