"""What falls to `titan up` when a worker and its launcher are killed at once, and the end of it.

`titan up` is a child subreaper, so whatever a job had started, environment wiped and in a session of its own,
becomes its child then. A child that it did not start is such an orphan, or the launcher of a killed worker, which
ends its jobs and leaves by itself. Only own, unreaped children are signalled, and groups that hold one: neither
number can mean anybody else. Where orphans of others would fall to it too (a shell with children became
`titan up` by exec, or it is process 1) nothing is adopted, and the next worker's own sweep does what it can.
"""

import os
import time
from collections.abc import Collection

from titan.worker.launcher import tree
from titan.worker.launcher.tree import become_subreaper
from titan.worker.sweep import pin

# What the kernel cannot end (a hanging disk) holds us up no longer than this.
PATIENCE_S = 5.0


class Orphans:
    """The children of this process that it did not start itself. `own` is always the pids of those it did."""

    def __init__(self) -> None:
        # What a process from before us starts falls to us as well, and as process 1 everybody's orphans do.
        self._adopts = os.getpid() != 1 and not tree.children()

    def adopt(self) -> None:
        """Have orphans below this process fall to it from now on, where the kernel can do that."""
        if not self._adopts:
            return
        try:
            become_subreaper()
        except OSError:
            return

    def left(self, own: Collection[int]) -> list[int]:
        """Reap those that have ended and return the others."""
        living: list[int] = []
        for pid in tree.children() if self._adopts else ():
            if pid in own:
                continue
            try:
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    living.append(pid)
            except ChildProcessError:
                continue
        return living

    def end(self, own: Collection[int], patience_s: float = PATIENCE_S) -> int:
        """KILL all of them, and what falls to us as they die, until none is left; return how many would not die."""
        deadline_s = time.monotonic() + patience_s
        # A list that is read while processes die may miss one, so it is nothing only when seen twice.
        while living := self.left(own) or self.left(own):
            for pid in living:
                tree.kill_child(pid)
            for pid in living:
                pinned = pin(pid)
                if pinned is not None:
                    pinned.dead(max(0.0, deadline_s - time.monotonic()))
                    pinned.close()
            if time.monotonic() >= deadline_s:
                return len(self.left(own))
        return 0
