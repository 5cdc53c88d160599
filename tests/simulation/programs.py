"""What jobs do: how long they run, what they print and ask for, and how they end.

A program is drawn when a job is made and stands in its `args`; each attempt is a process that carries it out.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from titan.model.spec import JobSpec
from titan.model.wire import Grant

if TYPE_CHECKING:
    from tests.simulation.worker import Host

OBEYS_TERM_MS_MAX = 2_000


class Program(msgspec.Struct):
    """What one job does. `fails`: so many attempts end with exit code 1 before one ends well; -1: all do.

    `kills_worker`: so many attempts take their worker process down. `ignores_term`: only KILL ends it. `endless`: it
    never ends by itself. `prints`: (at, bytes). `acts`: what it asks of the Master, one after the other, from the
    start on; see `tests.simulation.actions`.
    """

    number: int
    lasts_ms: int = 100
    fails: int = 0
    kills_worker: int = 0
    ignores_term: bool = False
    endless: bool = False
    prints: tuple[tuple[int, int], ...] = ()
    acts: tuple[Any, ...] = ()
    run: int = 0


class Process:
    """One attempt's process on a host."""

    def __init__(self, host: "Host", grant: Grant, spec: JobSpec) -> None:
        self.host = host
        self.grant = grant
        self.spec = spec
        self.fence = grant.fence
        self.program: Program = host.ground.programs[int(spec.args[0])]
        self.log_bytes = 0
        self.gone = False
        self.frozen = False
        self.cause = ""
        self.waits = 0
        self.begun_ms = host.world.now
        self.attempt_of_program = self.program.run
        self.program.run += 1

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return not self.gone

    def begin(self) -> None:
        """Go."""
        host, program = self.host, self.program
        for at_ms, size in program.prints:
            host.after(at_ms, self.print, size)
        if program.acts:
            host.after(host.world.between(1, 20), self.act, 0)
        else:
            self.run_to_end(program.lasts_ms)

    def run_to_end(self, lasts_ms: int) -> None:
        """Nothing more is asked of anybody: end after `lasts_ms`."""
        if not self.program.endless:
            self.host.after(lasts_ms, self.exit)

    def act(self, place: int) -> None:
        """Ask the next thing; the answer brings the one after it."""
        if self.gone:
            return
        if place == len(self.program.acts):
            self.run_to_end(self.program.lasts_ms)
        else:
            self.program.acts[place].begin(self, place, lambda: self.act(place + 1))

    def print(self, size: int) -> None:
        """Print so many bytes."""
        if not self.gone:
            self.log_bytes += size
            self.host.worker.log_grew(self)

    def exit(self) -> None:
        """End by itself, as the program says."""
        if self.gone:
            return
        program = self.program
        if self.attempt_of_program < program.kills_worker:
            self.host.world.hits["job_kills_worker"] += 1
            self.host.crash_worker()
            return
        failed = program.fails < 0 or self.attempt_of_program < program.fails
        self.end(1 if failed else 0, 0, self.cause)

    def terminate(self, cause: str, grace_ms: int) -> None:
        """TERM it, and KILL it after `grace_ms`."""
        if self.gone or self.cause:
            return
        self.cause = cause
        if self.program.ignores_term:
            self.host.after(grace_ms, self.end, 137, 9, cause)
        else:
            self.host.after(min(grace_ms, self.host.world.between(0, OBEYS_TERM_MS_MAX)), self.end, 143, 15, cause)

    def end(self, exit_code: int, signal: int, cause: str) -> None:
        """It is gone."""
        if not self.gone:
            self.gone = True
            self.host.over(self, exit_code, signal, cause)

    def thaw(self) -> None:
        """The machine goes on."""
        self.frozen = False
