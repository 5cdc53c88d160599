"""Long work on the event loop, in slices short enough that everybody else is answered meanwhile."""

import asyncio
import time
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

SLICE_S = 0.008  # well under the 20 ms that no request may hold the loop for, because several may be at work


class Turns:
    """Knows how long this task has held the loop; ask it between any two small steps."""

    def __init__(self) -> None:
        self._until = time.monotonic() + SLICE_S

    async def give(self) -> None:
        """Let others run, if this task has had its slice."""
        if time.monotonic() >= self._until:
            await asyncio.sleep(0)
            self._until = time.monotonic() + SLICE_S

    async def through(self, steps: Generator[None, None, T]) -> T:
        """Run a generator to its end, giving the loop away between its steps; return what it returns."""
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            await self.give()
