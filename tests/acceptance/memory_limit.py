"""A real memory cgroup for one test: version 1 or 2, whichever this machine lets us have."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_limit(limit_bytes: int) -> Iterator[Path]:
    """Yield the `cgroup.procs` of a new group that may use `limit_bytes` and no swap; skip the test, saying why."""
    group, settings = _place(limit_bytes)
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(
            f"NO MEMORY CGROUP HERE: {group} cannot be made ({error.strerror}); the OutOfMemory test did not run"
        )
    try:
        for name, value in settings.items():
            if (group / name).exists():
                (group / name).write_text(value)
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def _place(limit_bytes: int) -> tuple[Path, dict[str, str]]:
    name = f"titan-test-{os.getpid()}"
    if (V1 / "memory.limit_in_bytes").exists():
        limit = str(limit_bytes)
        return V1 / name, {"memory.limit_in_bytes": limit, "memory.memsw.limit_in_bytes": limit}
    if "memory" in _words(V2 / "cgroup.subtree_control"):
        return V2 / name, {"memory.max": str(limit_bytes), "memory.swap.max": "0"}
    pytest.skip(
        "NO MEMORY CGROUP HERE: neither version 1 nor 2 offers the memory controller; the OutOfMemory test did not run"
    )


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
