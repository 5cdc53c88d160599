"""Believable bugs, put into the product for as long as a `with` lasts: each of them has to be caught.

A mutant says nothing about the simulator's own code: it takes a promise out of `titan.core`, `titan.master` or
`titan.storage`, and the judge, which knows nothing of it, has to notice. Each is a function below that makes the
change, and a row in MUTANTS. `python -m tests.simulation --mutants NAME` says at which seed it is caught.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import msgspec
from sqlalchemy import bindparam, update

from titan.core import commit, dispatch, memory, queues, reasons, scheduler, workers
from titan.core.ahead import Ahead
from titan.core.changes import Update
from titan.core.commit import Commit, Release, Reload, State, Write
from titan.core.lifecycle import Lifecycle
from titan.core.link import WorkerLink
from titan.core.memory import Memory
from titan.core.runs import Runs
from titan.core.scheduler import Scheduler
from titan.core.states import JobEvent
from titan.core.workers import Workers
from titan.master.offsets import Offsets
from titan.model.states import AttemptState, JobState
from titan.model.wire import Ended
from titan.storage.connection import Statement
from titan.storage.journal import Journal
from titan.storage.tables import leader

Change = Callable[[ExitStack], None]


class Mutant(msgspec.Struct, frozen=True):
    """One bug. `level`: that of the seeds it is looked for in; `broken` says what is wrong with the product then."""

    name: str
    broken: str
    level: int
    change: Change


def _replace(stack: ExitStack, owner: Any, name: str, new: Any) -> Any:
    """Have `owner.name` be `new`; return what it was."""
    old = getattr(owner, name)
    stack.enter_context(patch.object(owner, name, new))
    return old


# What an attempt says, and who may say it


def _no_fence_check(stack: ExitStack) -> None:
    def init(self: Memory, *args: Any) -> None:
        made(self, *args)
        self.jobs_known = {}  # type: ignore[attr-defined]

    def hold(self: Memory, attempt: Any) -> None:
        self.jobs_known[attempt.fence] = (attempt.run_id, attempt.job_id)  # type: ignore[attr-defined]
        held(self, attempt)

    def find(self: Workers, worker: str, incarnation: str, fence: int) -> Any:
        job = self.memory.job(*self.memory.jobs_known.get(fence, ("", "")))  # type: ignore[attr-defined]
        return None if job is None else self.memory.attempts.get(job.fence)

    made = _replace(stack, Memory, "__init__", init)
    held = _replace(stack, Memory, "hold", hold)
    _replace(stack, Workers, "_attempt", find)


def _incarnation_ignored(stack: ExitStack) -> None:
    def deadline(self: Workers, attempt: Any) -> int:
        worker = self.memory.workers.get(attempt.worker)
        base_ms = max(attempt.base_ms, worker.renewed_ms if worker is not None else 0)
        return int(max(base_ms + (attempt.lease_s + workers.LEASE_GRACE_S) * 1000, attempt.not_before_ms))

    _replace(stack, Workers, "lease_deadline_ms", deadline)


def _hello_ignored(stack: ExitStack) -> None:
    _replace(stack, Workers, "_not_held", lambda *_: None)


def _completion_sent_once(stack: ExitStack) -> None:
    def init(self: WorkerLink, slots: int) -> None:
        made(self, slots)
        self.sent_once = set()  # type: ignore[attr-defined]

    def next_frame(self: WorkerLink, now_ms: int) -> list[Any]:
        sent: set[int] = self.sent_once  # type: ignore[attr-defined]
        items = [item for item in framed(self, now_ms) if not isinstance(item, Ended) or item.fence not in sent]
        sent.update(item.fence for item in items if isinstance(item, Ended))
        return items

    made = _replace(stack, WorkerLink, "__init__", init)
    framed = _replace(stack, WorkerLink, "next_frame", next_frame)


def _outbox_forgets(stack: ExitStack) -> None:
    def next_frame(self: WorkerLink, now_ms: int) -> list[Any]:
        items: list[Any] = framed(self, now_ms)
        for item in items:
            if isinstance(item, Ended):
                self._drop(item.fence)
        return items

    framed = _replace(stack, WorkerLink, "next_frame", next_frame)


def _twice_applied(stack: ExitStack) -> None:
    def grant(self: WorkerLink, message: Any) -> Any:
        self._attempts.pop(message.fence, None)
        self._gone.pop(message.fence, None)
        return granted(self, message)

    granted = _replace(stack, WorkerLink, "grant", grant)


def _log_kept_twice(stack: ExitStack) -> None:
    def receive(self: Offsets, worker: str, said: Any) -> Any:
        offset = self._by_fence.get(said.fence)
        if offset is not None and 0 <= said.offset < offset.received:
            said = msgspec.structs.replace(said, offset=offset.received)
        return received(self, worker, said)

    received = _replace(stack, Offsets, "receive", receive)


# Leases


def _no_grace(stack: ExitStack) -> None:
    for module in (memory, workers, dispatch, scheduler):
        _replace(stack, module, "LEASE_GRACE_S", 0)


def _lease_by_wall_clock(stack: ExitStack) -> None:
    def handle(self: Scheduler, event: Any, now: Any) -> Any:
        # What was noted in wall time lies further back once the wall clock was set forward.
        before = self.memory.now
        jump_ms = (now.wall_ms - now.mono_ms) - (before.wall_ms - before.mono_ms)
        if abs(jump_ms) > 1_000:
            for worker in self.memory.workers.values():
                worker.renewed_ms -= jump_ms
            for attempt in self.memory.attempts.values():
                attempt.base_ms -= jump_ms
                self.memory.set_timer(self.workers.lease_deadline_ms(attempt), "lease", attempt.fence)
        return handled(self, event, now)

    handled = _replace(stack, Scheduler, "handle", handle)


# Batches


def _answer_before_commit(stack: ExitStack) -> None:
    def turn(self: Commit) -> Any:
        orders = turned(self)
        if orders and isinstance(orders[0], Write) and not orders[0].batch.operations:
            flight, self._flight = self._flight, []
            return [*orders, Release(self.number + 1, [(entry, []) for entry in flight])]
        return orders

    turned = _replace(stack, Commit, "turn", turn)


def _memory_kept(stack: ExitStack) -> None:
    def failed(self: Commit, number: int, error: Exception) -> Any:
        orders = failing(self, number, error)
        self._fault, self.state = None, State.IDLE
        return [order for order in orders if not isinstance(order, Reload)]

    failing = _replace(stack, Commit, "failed", failed)


def _overtaken(stack: ExitStack) -> None:
    def add(self: Commit, entry: Any) -> Any:
        if self._fault is None and not entry.writes():
            return [Release(self.number, [(entry, [])])]
        return added(self, entry)

    added = _replace(stack, Commit, "add", add)


def _unknown_is_failed(stack: ExitStack) -> None:
    _replace(stack, Commit, "unknown", lambda self, number, _results, error: self.failed(number, error))


def _key_not_written(stack: ExitStack) -> None:
    def fold(changes: list[Any]) -> Any:
        return folded([change for change in changes if change.table != "idempotency"])

    folded = _replace(stack, commit, "fold", fold)


def _stale_leader(stack: ExitStack) -> None:
    any_leader = Statement(update(leader).values(batch=bindparam("number")), "number")

    def claim(self: Journal, connection: Any, batch: Any) -> None:
        connection.change(any_leader, batch.number)

    _replace(stack, Journal, "_claim", claim)


def _generation_not_checked(stack: ExitStack) -> None:
    def fold(changes: list[Any]) -> Any:
        written = folded(changes)
        for change in written:
            if isinstance(change, Update):
                change.expect.pop("generation", None)
        return written

    folded = _replace(stack, commit, "fold", fold)


# Grants


def _double_grant(stack: ExitStack) -> None:
    def link(self: Scheduler, edges: Any) -> Any:
        doomed = linked(self, edges)
        for attempt in list(self.memory.attempts.values()):
            if attempt.state == AttemptState.ASSIGNED:
                self.workers._hand_back(attempt, "")
        return doomed

    linked = _replace(stack, Scheduler, "_link", link)


def _recall_believed(stack: ExitStack) -> None:
    def init(self: Workers, *args: Any) -> None:
        made(self, *args)
        self.dispatcher.ahead.workers = self  # type: ignore[attr-defined]

    def take_back(workers: Workers, fence: int) -> Iterator[None]:
        attempt = workers.memory.attempts.get(fence)
        if attempt is not None and attempt.state == AttemptState.ASSIGNED:
            workers._hand_back(attempt, "")
        yield

    def recall(self: Ahead, attempt: Any, on_behalf_of: Any) -> None:
        asked(self, attempt, on_behalf_of)
        self.memory.slices.append(take_back(self.workers, attempt.fence))  # type: ignore[attr-defined]

    made = _replace(stack, Workers, "__init__", init)
    asked = _replace(stack, Ahead, "_recall", recall)


def _released_by_any(stack: ExitStack) -> None:
    def release(self: Lifecycle, parent: Any, children: list[Any]) -> Iterator[None]:
        for child in children:
            child.waiting_for = min(child.waiting_for, 1)
        return released(self, parent, children)  # type: ignore[no-any-return]

    released = _replace(stack, Lifecycle, "_release", release)


def _ageing_off(stack: ExitStack) -> None:
    for module in (queues, dispatch):
        _replace(stack, module, "AGEING_PERIOD", 2**60)


def _slot_back_twice(stack: ExitStack) -> None:
    def drop_wait(self: Memory, attempt: Any) -> None:
        worker = self.workers.get(attempt.worker)
        lent = worker is not None and attempt.fence in worker.lent
        dropped(self, attempt)
        if worker is not None and lent:
            worker.lent.add(attempt.fence)

    dropped = _replace(stack, Memory, "drop_wait", drop_wait)


# Jobs


def _cancel_forgets(stack: ExitStack) -> None:
    def with_children(self: Runs, run: Any) -> Any:
        found = walked(self, run)
        return found[:-1] or found

    walked = _replace(stack, Runs, "_with_children", with_children)


def _retries_not_counted(stack: ExitStack) -> None:
    def delay(self: Lifecycle, job: Any, event: JobEvent, delay_ms: int, reason: str, **values: Any) -> None:
        if reason == reasons.WAIT_BACKOFF:
            values["failures"] = job.failures
        delayed(self, job, event, delay_ms, reason, **values)

    delayed = _replace(stack, Lifecycle, "delay", delay)


def _timer_lost(stack: ExitStack) -> None:
    def own_all(self: Lifecycle, run: Any, doomed: Any = ()) -> Iterator[None]:
        steps = owned(self, run, doomed)
        loading = run.opening is None
        while True:
            self.loading = loading  # type: ignore[attr-defined]
            more = next(steps, steps) is not steps
            self.loading = False  # type: ignore[attr-defined]
            if not more:
                return
            yield

    def enter(self: Lifecycle, job: Any) -> None:
        if not (getattr(self, "loading", False) and job.state == JobState.DELAYED):
            entered(self, job)

    owned = _replace(stack, Lifecycle, "own_all", own_all)
    entered = _replace(stack, Lifecycle, "enter", enter)


_ROWS = (
    Mutant("no-fence-check", "a report is taken for the newest attempt of its job", 0, _no_fence_check),
    Mutant("answer-before-commit", "answers go out when a batch is sent", 0, _answer_before_commit),
    Mutant("released-by-any-parent", "a job starts when one of its parents has completed", 0, _released_by_any),
    Mutant("double-grant", "a load takes back what is granted and not heard of, and grants it again", 0, _double_grant),
    Mutant("no-idempotency", "the key of a request is not written with its rows", 0, _key_not_written),
    Mutant("stale-leader", "a batch does not ask who leads", 1, _stale_leader),
    Mutant("lease-by-wall-clock", "leases are counted on the clock that people set", 0, _lease_by_wall_clock),
    Mutant("completion-sent-once", "a worker reports an end once, whatever became of it", 0, _completion_sent_once),
    Mutant("memory-kept", "a core whose batch failed goes on with what it believes", 0, _memory_kept),
    Mutant("batch-overtaken", "an answer that writes nothing does not wait for what it rests on", 0, _overtaken),
    Mutant("unknown-is-failed", "a COMMIT without an answer counts as rolled back", 0, _unknown_is_failed),
    Mutant("outbox-forgets", "a worker lets go of an end when it has sent it", 0, _outbox_forgets),
    Mutant("recall-believed", "what is asked back is granted again before the worker answers", 0, _recall_believed),
    Mutant("generation-not-checked", "an update believes in no generation", 0, _generation_not_checked),
    Mutant("no-grace", "an attempt is given up at its lease, without the seconds beyond it", 0, _no_grace),
    Mutant("hello-ignored", "what a worker does not name in its hello stays its own", 0, _hello_ignored),
    Mutant("cancel-forgets", "the cancel of a run passes over the last run below it", 0, _cancel_forgets),
    Mutant("retries-not-counted", "an attempt that failed does not count", 0, _retries_not_counted),
    Mutant("ageing-off", "the oldest job never goes first", 0, _ageing_off),
    Mutant("slot-back-twice", "the slot of a job that waited stays lent for ever", 0, _slot_back_twice),
    Mutant("timer-lost", "a load forgets when delayed jobs are due", 0, _timer_lost),
    Mutant("log-off-by-a-chunk", "log bytes that come again are kept again", 0, _log_kept_twice),
    Mutant("frame-applied-twice", "a grant that comes again is taken again", 0, _twice_applied),
    Mutant("incarnation-ignored", "a process renews what another of its name holds", 0, _incarnation_ignored),
)  # fmt: skip
MUTANTS = {mutant.name: mutant for mutant in _ROWS}


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Have the product be broken as `mutant` says."""
    with ExitStack() as stack:
        mutant.change(stack)
        yield
