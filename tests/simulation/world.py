"""Time, chance and what happens next: the ground a simulation stands on.

There is one list of things to come, ordered by true time and then by when they were planned; one source of chance,
seeded; and no thread, clock or socket. Times are whole milliseconds. A node (a Master, a worker process, a machine)
lives on it with clocks of its own, which may start anywhere, run a little fast or slow, and jump.
"""

from collections import Counter, deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from titan.core.events import Now

WALL_START_MS = 1_790_000_000_000
MONO_START_MS = 5_000_000
Call = Callable[..., None]


class Broken(Exception):
    """A promise was broken. `number` is that of the invariant ("i8"), or a word for what is none."""

    def __init__(self, number: str, text: str) -> None:
        super().__init__(f"{number}: {text}")
        self.number = number


class World:
    """`now` is true time. `hits` counts what was reached: fault kinds, moves of jobs, answers, by name.

    `tell`, if given, hears the story as it goes: who, and what. `coming`, `at_once` and `planned` are for `plan_for`
    and for `Node`, which plans most and does without it.
    """

    def __init__(self, seed: int, tell: Callable[[int, str, str], None] | None = None) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.chance = self.random.random
        self.now = 0
        self.events = 0
        self.hits: Counter[str] = Counter()
        self.tell = tell
        self.coming: list[tuple[int, int, int, Life, int, Call, tuple[Any, ...]]] = []
        # What comes at once goes behind all that was planned for this moment before: it needs no sorting.
        self.at_once: deque[tuple[int, Life, int, Call, tuple[Any, ...]]] = deque()
        self.planned = 0
        self._nobody = Life()

    def plan(self, delay_ms: int, call: Call, *args: Any) -> None:
        """Have `call(*args)` happen after `delay_ms` of true time, whoever lives then."""
        self.plan_for(self._nobody, delay_ms, 1, call, args)

    def plan_quietly(self, delay_ms: int, call: Call, *args: Any) -> None:
        """The same for what is no event: a look at what goes on."""
        self.plan_for(self._nobody, delay_ms, 0, call, args)

    def plan_for(self, node: "Life", delay_ms: int, count: int, call: Call, args: tuple[Any, ...]) -> None:
        """The same in the life that `node` has now; `count` 0: it is no event worth counting."""
        if delay_ms <= 0:
            self.at_once.append((count, node, node.life, call, args))
        else:
            self.planned += 1
            heappush(self.coming, (self.now + delay_ms, self.planned, count, node, node.life, call, args))

    def run(self, until_ms: int) -> None:
        """Let everything happen that comes before `until_ms`."""
        coming, at_once = self.coming, self.at_once
        if at_once and not (coming and coming[0][0] <= self.now):
            self.run_at_once()
        while coming and coming[0][0] < until_ms:
            self.now, _, count, node, life, call, args = heappop(coming)
            if life == node.life:
                if node.paused:
                    node.held.append((count, call, args))
                else:
                    self.events += count
                    call(*args)
            if at_once and not (coming and coming[0][0] <= self.now):
                self.run_at_once()
        self.now = until_ms

    def run_at_once(self) -> None:
        """Let happen what comes at once, and what comes at once after that."""
        at_once = self.at_once
        while at_once:
            count, node, life, call, args = at_once.popleft()
            if life == node.life:
                if node.paused:
                    node.held.append((count, call, args))
                else:
                    self.events += count
                    call(*args)

    def between(self, low: int, high: int) -> int:
        """Draw a whole number from `low` to `high`."""
        return low + int(self.chance() * (high - low + 1))

    def pick(self, things: Any) -> Any:
        """Draw one of a sequence."""
        return things[int(self.chance() * len(things))]


class Life:
    """What was planned in one `life` dies with it, and waits in `held` while it is paused."""

    def __init__(self) -> None:
        self.life = 0
        self.paused = False
        self.held: list[tuple[int, Call, tuple[Any, ...]]] = []


class Node(Life):
    """Something with a life and two clocks."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__()
        self.world = world
        self.name = name
        self.up = False
        self.rate = 1.0
        self.mono_offset_ms = MONO_START_MS + world.between(0, 1_000_000)
        self.wall_offset_ms = WALL_START_MS

    def mono_ms(self) -> int:
        """Return its monotonic clock."""
        return self.mono_offset_ms + int(self.world.now * self.rate)

    def clocks(self) -> Now:
        """Return both of its clocks."""
        elapsed = int(self.world.now * self.rate)
        return Now(self.mono_offset_ms + elapsed, self.wall_offset_ms + elapsed)

    def after(self, delay_ms: int, call: Call, *args: Any) -> None:
        """Have `call(*args)` happen after `delay_ms`, if it still lives then."""
        world = self.world
        if delay_ms <= 0:
            world.at_once.append((1, self, self.life, call, args))
        else:
            world.planned += 1
            heappush(world.coming, (world.now + delay_ms, world.planned, 1, self, self.life, call, args))

    def after_quietly(self, delay_ms: int, call: Call, *args: Any) -> None:
        """The same for what is no event: a renewal, an acknowledgement, the turn of a loop."""
        world = self.world
        if delay_ms <= 0:
            world.at_once.append((0, self, self.life, call, args))
        else:
            world.planned += 1
            heappush(world.coming, (world.now + delay_ms, world.planned, 0, self, self.life, call, args))

    def on_my_clock(self, delay_ms: int) -> int:
        """Return how much true time passes while this node's clocks go `delay_ms` further."""
        return delay_ms if self.rate == 1.0 else int(delay_ms / self.rate) + 1

    def die(self) -> None:
        """End this life at once."""
        self.life += 1
        self.up = self.paused = False
        self.held.clear()

    def pause(self) -> None:
        """Nothing happens here until `resume`."""
        if self.up:
            self.paused = True

    def resume(self) -> None:
        """What came meanwhile happens now, in order."""
        if not self.paused:
            return
        self.paused = False
        held, self.held = self.held, []
        for count, call, args in held:
            self.world.plan_for(self, 0, count, call, args)

    def say(self, text: str) -> None:
        """Tell the story."""
        if self.world.tell is not None:
            self.world.tell(self.world.now, self.name, text)
