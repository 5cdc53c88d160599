"""How often the kernel killed for memory, on this machine and in our memory cgroup.

A job that dies of a SIGKILL nobody of us sent, while this count rose, was killed for memory: the kernel
tells the parent no more than that. `/proc/vmstat` counts every such kill of the machine; the cgroup's own
count serves kernels and containers that hide it.
"""

import os

_READ_BYTES_MAX = 65536
_LATELY_MS = 100


class OomCounter:
    """The count, read from files that stay open: it is asked for at each start of a job."""

    def __init__(self, paths: list[str] | None = None) -> None:
        self._files = []
        for path in _paths() if paths is None else paths:
            try:
                self._files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except OSError:
                continue
        self._total = 0
        self._lately_until_ms = 0

    def read_lately(self, now_ms: int) -> int:
        """Return what `read` gave at most _LATELY_MS ago: the kernel sums up for long what it says there."""
        if now_ms >= self._lately_until_ms:
            self._lately_until_ms = now_ms + _LATELY_MS
            self.read()
        return self._total

    def read(self) -> int:
        """Return the sum of all `oom_kill` lines; it only ever rises."""
        total = 0
        for file in self._files:
            try:
                text = os.pread(file, _READ_BYTES_MAX, 0)
            except OSError:
                continue
            at = (b"\n" + text).find(b"\noom_kill ")
            if at >= 0:
                total += int(text[at:].split(None, 2)[1])
        self._total = total
        return total


def _paths() -> list[str]:
    paths = ["/proc/vmstat"]
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return paths
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            paths.append(f"/sys/fs/cgroup{path}/memory.events")
        elif "memory" in controllers.split(","):
            paths.append(f"/sys/fs/cgroup/memory{path}/memory.oom_control")
    return paths
