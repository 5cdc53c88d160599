"""What can happen to the scheduler, and what it decides.

Commands come from people, reports from workers; both are plain data. Whatever is random (jitter, ids) or
read from a clock arrives in the event or in `Now`, so that the same events give the same decisions.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from titan.core.changes import Change
from titan.core.rows import JobRow, RunRow
from titan.model.spec import JobSpec
from titan.model.states import JobState
from titan.model.wire import Ended, Held, MasterMessage

if TYPE_CHECKING:
    from titan.core.memory import Job


class Now(NamedTuple):
    """The two clocks of the Master: `mono_ms` decides, `wall_ms` is shown and kept over restarts."""

    mono_ms: int
    wall_ms: int


class Refusal(msgspec.Struct, frozen=True):
    """The command cannot be done. `code` is that of an error in `titan_sdk.errors`; nothing was changed."""

    code: str
    message: str


class NewRun(msgspec.Struct, frozen=True):
    """A submission's header. Ids are drawn by the caller; a child run names the job that submitted it."""

    run_id: str
    name: str
    agent_run_id: str
    root_run_id: str
    parent_run_id: str | None = None
    parent_job_id: str | None = None


class SubmitRun(msgspec.Struct, frozen=True):
    """Accept a whole run at once (at most `submit_jobs_inline_max` jobs). Specs are valid, so is the graph.

    `extra` are changes to commit with it: blobs and the idempotency key.
    """

    run: NewRun
    jobs: tuple[JobSpec, ...]
    extra: tuple[Change, ...] = ()


class StageRun(msgspec.Struct, frozen=True):
    """Begin a large run: its row is inserted STAGED, nobody sees it."""

    run: NewRun
    jobs_total: int
    extra: tuple[Change, ...] = ()


class StageJobs(msgspec.Struct, frozen=True):
    """Add a chunk of jobs (about 500) to a STAGED run. Parents may come in later chunks."""

    run_id: str
    jobs: tuple[JobSpec, ...]
    extra: tuple[Change, ...] = ()


class FlipRun(msgspec.Struct, frozen=True):
    """Show a STAGED run: one row, one moment. `extra` holds its idempotency key."""

    run_id: str
    extra: tuple[Change, ...] = ()


class DropStage(msgspec.Struct, frozen=True):
    """Forget a STAGED run whose upload broke off; the engine sweeps its rows."""

    run_id: str


class ExtendRun(msgspec.Struct, frozen=True):
    """Add jobs to a live run, atomically. `finished` are the states of parents no longer in memory.

    The caller has checked specs, duplicates, dangling parents and cycles against the database; the core
    checks again what may have changed since (the run ended, ids taken).
    """

    run_id: str
    jobs: tuple[JobSpec, ...]
    finished: dict[str, JobRow]
    extra: tuple[Change, ...] = ()


class CancelRun(msgspec.Struct, frozen=True):
    """A person or program asks that the run ends. Its living child runs are cancelled with it."""

    run_id: str


class CancelJob(msgspec.Struct, frozen=True):
    """The same for one job and its descendants."""

    run_id: str
    job_id: str


class RetryRun(msgspec.Struct, frozen=True):
    """Open the next generation of an ended run. Made by `titan.core.retrying.prepare_retry`, and fed once.

    `run` is its row as it was read. `jobs` start again: living, linked, and the core's own from then on;
    `ended` says how many of them had ended in which state. `refused`: what stands against it by the rows alone.
    """

    run: RunRow
    jobs: "dict[str, Job]"
    ended: dict[JobState, int]
    opening: bytes
    refused: Refusal | None = None


class WorkerConnected(msgspec.Struct, frozen=True):
    """A worker said hello; see `titan.model.wire.Hello`. `attempts` is the full set it holds."""

    name: str
    incarnation: str
    boot_id: str
    capabilities: tuple[str, ...]
    slots: int
    attempts: tuple[Held, ...]
    host: str = ""
    pid: int = 0
    version: str = ""
    predecessor: str = ""
    devices: tuple[str, ...] = ()
    draining: bool = False


class WorkerDisconnected(msgspec.Struct, frozen=True):
    """Its link closed. Nothing is lost yet: its leases run."""

    name: str
    incarnation: str


class WorkerRenewed(msgspec.Struct, frozen=True):
    """It is alive; all its leases begin anew."""

    name: str
    incarnation: str


class WorkerDraining(msgspec.Struct, frozen=True):
    """It is leaving in order: grant it nothing more."""

    name: str
    incarnation: str


class DrainWorker(msgspec.Struct, frozen=True):
    """A person wants a worker to finish what runs and take nothing more, until it is started anew."""

    name: str


class AttemptStarted(msgspec.Struct, frozen=True):
    """Handed to the launcher. `start` says how it begins, in the worker's words."""

    worker: str
    incarnation: str
    fence: int
    start: str = ""


class AttemptReturned(msgspec.Struct, frozen=True):
    """Given back unstarted."""

    worker: str
    incarnation: str
    fence: int
    reason: str


class AttemptEnded(msgspec.Struct, frozen=True):
    """Over. `jitter` in [0, 1) places a retry inside its backoff window."""

    worker: str
    incarnation: str
    ended: Ended
    jitter: float


class LendSlot(msgspec.Struct, frozen=True):
    """The job of this attempt asks for the end of a run below it, or of the job `job_id` there: its slot is lent.

    The caller knows that the run is below that job. Every `LendSlot` is followed by an `EndLend`.
    """

    fence: int
    run_id: str
    job_id: str = ""


class EndLend(msgspec.Struct, frozen=True):
    """That ask is over. `final`: with what was waited for; else it may soon be asked again."""

    fence: int
    run_id: str
    job_id: str = ""
    final: bool = False


class Tick(msgspec.Struct, frozen=True):
    """The time `Decision.wake_ms` asked for has come."""


class Continue(msgspec.Struct, frozen=True):
    """Go on with the slices `Decision.more` spoke of."""


class PrepareStop(msgspec.Struct, frozen=True):
    """The Master is being stopped in order: extend every living lease by `extend_ms` of wall time."""

    extend_ms: int


Event = (
    SubmitRun | StageRun | StageJobs | FlipRun | DropStage | ExtendRun | CancelRun | CancelJob | RetryRun
    | WorkerConnected | WorkerDisconnected | WorkerRenewed | WorkerDraining | DrainWorker
    | AttemptStarted | AttemptReturned | AttemptEnded | LendSlot | EndLend | Tick | Continue | PrepareStop
)  # fmt: skip


class Send(msgspec.Struct, frozen=True, gc=False):
    """A message to one worker process. Grants carry no token yet: the link adds it."""

    worker: str
    incarnation: str
    message: MasterMessage


class News(msgspec.Struct, frozen=True, gc=False):
    """A fact for live views, released after commit: kind is "run", "job" or "worker"."""

    kind: str
    run_id: str
    job_id: str
    data: dict[str, Any]


class Decision(msgspec.Struct):
    """What follows from one event. All but `changes` waits for the commit.

    `answer` goes to the caller of a command (a dict of plain values). `wake_ms`: feed `Tick` at that
    monotonic time (None: no timer). `more`: feed `Continue` as soon as other events had their turn.
    """

    changes: list[Change] = []
    sends: list[Send] = []
    news: list[News] = []
    answer: dict[str, Any] = {}
    refusal: Refusal | None = None
    wake_ms: int | None = None
    more: bool = False
