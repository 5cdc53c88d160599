"""Token buckets: how often somebody may do something, at once and in the long run."""

import time
from collections.abc import Callable, Hashable


class Buckets:
    """One bucket a key: `size` at once, `per_s` again each second. Whoever is not known has a full one.

    At most `keys_max` are remembered, the latest used. The clock must be monotonic: with a wall clock, setting it
    back would lock everybody out.
    """

    def __init__(
        self, size: float, per_s: float, keys_max: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._size = size
        self._per_s = per_s
        self._keys_max = keys_max
        self._clock = clock
        self._levels: dict[Hashable, tuple[float, float]] = {}

    def take(self, key: Hashable, count: int = 1) -> float:
        """Take `count`; return 0, or the seconds until there will be one, and then nothing was taken.

        One is enough: more than there are is owed, and the next take waits for it.
        """
        now_s = self._clock()
        level, at_s = self._levels.pop(key, (self._size, now_s))
        level = min(self._size, level + (now_s - at_s) * self._per_s)
        wait_s = 0.0 if level >= 1 else (1 - level) / self._per_s
        if len(self._levels) >= self._keys_max:
            del self._levels[next(iter(self._levels))]
        self._levels[key] = (level if wait_s else level - count, now_s)
        return wait_s
