"""Scripts that leave processes behind, and a look at who is left."""

import os
import select

# Prints its pid by name, and stays until it is killed.
STAY = "print(name, os.getpid(), flush=True)\nsignal.pause()\n"
HEAD = "import os, signal, sys\n"
# Where a handler in Python has to run: pause() misses a signal that comes just before it.
AWAITS_SIGNAL = "import time\nwhile True: time.sleep(0.1)\n"
IGNORE_TERM = HEAD + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"

# A plain child, one in a session of its own, one double-forked away from everything, its environment wiped.
FAMILY = """
def child(name, setup):
    reading, writing = os.pipe()
    if os.fork() == 0:
        setup()
        print(name, os.getpid(), flush=True)
        os.close(reading)
        os.close(writing)
        while True:
            signal.pause()
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)

def daemon():
    os.setsid()
    if os.fork():
        os._exit(0)

def stranger():
    daemon()
    os.execve('/bin/sh', ['sh', '-c', 'trap "" TERM; echo stranger $$; kill -STOP $$'], {})

child('plain', lambda: None)
child('session', os.setsid)
child('daemon', daemon)
child('stranger', stranger)
"""


def pids_in(log: str) -> dict[str, int]:
    """Return the pids that a log names: lines of a word and a number."""
    found = {}
    for line in log.splitlines():
        name, _, number = line.partition(" ")
        if number.isdigit():
            found[name] = int(number)
    return found


def alive(pids: dict[str, int]) -> dict[str, int]:
    """Return those of `pids` that still are processes."""
    left = {}
    for name, pid in pids.items():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        left[name] = pid
    return left


class Death:
    """Waits for the end of one process by its pidfd. Made while it lives."""

    def __init__(self, pid: int) -> None:
        self._pidfd = os.pidfd_open(pid)

    def wait(self, timeout_s: float = 30.0) -> bool:
        """Return whether it ended in time."""
        try:
            return bool(select.select([self._pidfd], [], [], timeout_s)[0])
        finally:
            os.close(self._pidfd)
