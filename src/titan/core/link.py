"""What a worker holds and owes, as a machine without socket, disk or clock.

The worker's side of the promise that nothing is lost and nothing runs twice: an attempt is held from its
grant until the Master has said that its end is durable, and every `Hello` names all that is held. Results
and log bytes are sent again from where the Master says it stands, whoever lost the connection; what was not
kept of a log is said in its place. Messages from the Master and facts from this machine come in; orders for
this machine come back, and `next_frame` says what to send. Grants beyond the slots wait here, so that a slot
that falls free has its next job at once: highest priority first, then the oldest. Until `hand_over` each can
be had back, afterwards none can; whoever comes first decides, and only here. Sent log bytes not yet
acknowledged are bounded by a window that follows the link's pace, so that renewals never wait behind a
backlog. Times are boot-clock milliseconds of the caller.
"""

import heapq
from collections import deque

import msgspec

from titan.core.pieces import Piece, bytes_between, next_piece
from titan.model.spec import JobSpec
from titan.model.wire import (
    CAUSE_CANCELLED,
    CAUSE_WORKER_STOP,
    EPOCH_SHIFT,
    Ack,
    Draining,
    Dropped,
    Ended,
    Grant,
    Held,
    Lend,
    Recall,
    Renew,
    RenewAck,
    Returned,
    Started,
    Stop,
    Welcome,
    WorkerMessage,
)

RENEW_EVERY_MS = 5_000
SILENCE_MS_MAX = 3 * RENEW_EVERY_MS
LEASE_TERM_MARGIN_S = 15
LEASE_KILL_MARGIN_S = 10
STOP_GRACE_MS = 10_000
UNWANTED_GRACE_MS = 5_000

# Enough to bridge the way to the Master and back between short jobs; what waits here nobody else can start.
WAITING_MAX = 64
LENT_MAX = 64
# Held in all, those included whose end the Master has not acknowledged: one that never does must not fill our memory.
HELD_MAX = 10_000
WAITING_BYTES_MAX = 32 * 1024 * 1024
# A grant that comes again after it was let go of must not run again. Only a link that repeats itself sends one.
GONE_MAX = 10_000

OUTPUT_FRAME_BYTES_MAX = 512 * 1024
WINDOW_BYTES_MIN = 16 * 1024
WINDOW_BYTES_START = 64 * 1024
WINDOW_BYTES_MAX = 4 * 1024 * 1024
PACE_GOOD_MS = 500
PACE_BAD_MS = 1_500


class Prepare(msgspec.Struct, frozen=True, gc=False):
    """Make this attempt ready to start and ask `hand_over` before it is given to the launcher."""

    grant: Grant


class Abandon(msgspec.Struct, frozen=True, gc=False):
    """Stop preparing it."""

    fence: int


class Kill(msgspec.Struct, frozen=True, gc=False):
    """TERM it now and KILL its whole tree after `grace_ms`; its end is reported with `cause`."""

    fence: int
    cause: str
    grace_ms: int


class Forget(msgspec.Struct, frozen=True, gc=False):
    """Nobody will ask for this attempt's log again."""

    fence: int


Order = Prepare | Abandon | Kill | Forget


class _Attempt(msgspec.Struct, gc=False):
    handed: bool = False
    started: bool = False
    unwanted: bool = False
    lent: bool = False
    log_total: int = 0
    log_sent: int = 0
    log_acked: int = 0
    ended: Ended | None = None
    holes: list[Dropped] = []


class _Urgency(msgspec.Struct):
    """The one field of a spec that orders those that wait."""

    priority: int = 1


_URGENCY = msgspec.msgpack.Decoder(_Urgency)


def lease_margins_ms(spec: JobSpec) -> tuple[int, int]:
    """Return when `spec`'s job is sent TERM and KILL, in ms after the send of the last answered renewal.

    (0, 0) is never: nobody else may be granted an `on_lost="fail"` job, so losing contact harms nobody.
    """
    if spec.on_lost == "fail":
        return 0, 0
    return (spec.lease_s - LEASE_TERM_MARGIN_S) * 1000, (spec.lease_s - LEASE_KILL_MARGIN_S) * 1000


class WorkerLink:
    """Everything one worker process holds.

    `answered_ms` is the send time of the last answered renewal, `epoch` the Master's of the last welcome,
    `draining` whether anything more is started. At most `lent_max` slots are lent at once, whatever the Master asks.
    """

    def __init__(self, slots: int, lent_max: int = LENT_MAX) -> None:
        self.slots = slots
        self._lent_max = lent_max
        self._waiting_bytes = 0
        self.answered_ms = 0
        self.epoch = 0
        self.online = False
        self.draining = False
        self._linked = False
        self._attempts: dict[int, _Attempt] = {}
        self._waiting: dict[int, tuple[int, int, Grant]] = {}
        self._gone: dict[int, None] = {}
        self._control: deque[Started | Returned | Draining] = deque()
        self._output: dict[int, None] = {}
        self._ends: dict[int, Ended] = {}
        self._window = WINDOW_BYTES_START
        self._in_flight = 0
        self._sent: deque[tuple[int, int, int]] = deque()
        self._seq = 0
        self._renewals: dict[int, int] = {}
        self._heard_ms = 0

    # The link

    @property
    def epoch_seen(self) -> int:
        """The latest epoch known of: a Master of an earlier one may have been replaced without having heard of it."""
        return max([self.epoch, *(fence >> EPOCH_SHIFT for fence in self._attempts)])

    def hello(self, now_ms: int) -> tuple[Held, ...]:
        """Begin a connection: what `Hello` says is held. Nothing else is sent before `welcome`."""
        self.disconnected()
        self._linked = True
        self._heard_ms = now_ms
        self.answered_ms = self.answered_ms or now_ms
        return tuple(Held(fence, a.started, a.log_acked) for fence, a in self._attempts.items())

    def welcome(self, message: Welcome) -> list[Order]:
        """Take the Master's difference: what it does not want, and how far it has each log.

        It says anew which slots are lent: until then none is.
        """
        self.online = True
        if message.epoch != self.epoch:
            # A database that was put back may give numbers out again.
            self._gone.clear()
        self.epoch = message.epoch
        for attempt in self._attempts.values():
            attempt.lent = False
        orders: list[Order] = []
        for fence in message.stop:
            orders += self._disown(fence)
        for fence, attempt in self._attempts.items():
            offset = message.log_offsets.get(fence, attempt.log_acked)
            attempt.log_sent = attempt.log_acked = min(offset, attempt.log_total)
            self._mark(fence, attempt)
        return orders + self._next_waiting()

    def disconnected(self) -> None:
        """The connection is gone; whatever was on its way counts as not sent."""
        self.online = self._linked = False
        self._control.clear()
        self._output.clear()
        self._ends.clear()
        self._sent.clear()
        self._renewals.clear()
        self._in_flight = 0
        self._window = WINDOW_BYTES_START
        for attempt in self._attempts.values():
            attempt.log_sent = attempt.log_acked

    def renew(self, now_ms: int) -> Renew:
        """Return the renewal that is sent now."""
        self._seq += 1
        self._renewals[self._seq] = now_ms
        return Renew(self._seq)

    def renewed(self, message: RenewAck, now_ms: int) -> bool:
        """Take the answer to a renewal; True when `answered_ms` moved."""
        sent_ms = self._renewals.pop(message.seq, None)
        if sent_ms is None:
            return False
        self._heard_ms = now_ms
        moved = sent_ms > self.answered_ms
        self.answered_ms = max(self.answered_ms, sent_ms)
        return moved

    def silent(self, now_ms: int) -> bool:
        """Say whether the Master has answered nothing for three periods: this connection is no good."""
        return now_ms - self._heard_ms > SILENCE_MS_MAX

    # From the Master

    def grant(self, message: Grant) -> list[Order]:
        """Take an attempt; it waits while no slot is free. Too many that wait, or one that was here, goes back."""
        fence = message.fence
        if fence in self._attempts:
            return []
        if fence in self._gone:
            self._say(Returned(fence, "the worker was granted this attempt before"))
        elif self.draining:
            self._say(Returned(fence))
        elif len(self._attempts) >= self.slots + HELD_MAX:
            self._say(Returned(fence, f"{len(self._attempts)} attempts are held at the worker already"))
        elif self._waiting_bytes + len(message.spec) > WAITING_BYTES_MAX:
            self._say(Returned(fence, f"{self._waiting_bytes} bytes of attempts wait at the worker already"))
        elif len(self._waiting) >= self.slots + WAITING_MAX:
            self._say(Returned(fence, f"{len(self._waiting)} attempts wait at the worker already"))
        else:
            self._attempts[fence] = _Attempt()
            self._waiting[fence] = (-_priority(message), fence, message)
            self._waiting_bytes += len(message.spec)
        return self._next_waiting()

    def recall(self, message: Recall) -> list[Order]:
        """Give an attempt back for somebody else, unless it was handed to the launcher: then it stays here."""
        attempt = self._attempts.get(message.fence)
        if attempt is None or attempt.handed:
            return []
        return [Abandon(message.fence), *self.returned(message.fence, "")]

    def lend(self, message: Lend) -> list[Order]:
        """Its job waits for one below it, so its slot is free for another; or it wants it back.

        Then nothing is stopped, but nothing is started either until what runs fits the slots again.
        """
        attempt = self._attempts.get(message.fence)
        if attempt is not None and attempt.handed and attempt.ended is None and not attempt.unwanted:
            lent = sum(other.lent for other in self._attempts.values())
            attempt.lent = message.on and (attempt.lent or lent < self._lent_max)
        return self._next_waiting()

    def stop(self, message: Stop) -> list[Order]:
        """End an attempt on request: it goes back if it was not handed to the launcher yet."""
        attempt = self._attempts.get(message.fence)
        if attempt is None or attempt.ended is not None or attempt.unwanted:
            return []
        if attempt.handed:
            return [Kill(message.fence, CAUSE_CANCELLED, STOP_GRACE_MS)]
        return [Abandon(message.fence), *self.returned(message.fence, "stopped before its start")]

    def ack(self, message: Ack, now_ms: int) -> list[Order]:
        """Let go of what is durable."""
        for fence, offset in message.log_offsets.items():
            attempt = self._attempts.get(fence)
            if attempt is not None and attempt.log_acked < offset <= attempt.log_sent:
                self._in_flight -= bytes_between(attempt.holes, attempt.log_acked, offset)
                attempt.log_acked = offset
        orders: list[Order] = []
        for fence in message.ended:
            attempt = self._attempts.get(fence)
            if attempt is not None and attempt.ended is not None:
                self._drop(fence)
                orders.append(Forget(fence))
        self._follow_pace(now_ms)
        return orders

    # From this machine

    def hand_over(self, fence: int) -> bool:
        """Decide the race with `stop` and `recall`, once: True, and from here on the attempt counts as started."""
        attempt = self._attempts.get(fence)
        if attempt is None:
            return False
        attempt.handed = True
        return True

    def restore(self, fence: int) -> None:
        """A predecessor of this process had begun it; what its log lacks and `ended` follow at once."""
        self._attempts[fence] = _Attempt(handed=True, started=True)

    def started(self, fence: int, at_ms: int, start: str = "") -> None:
        """It runs, or ran. `at_ms` is wall time, `start` says how; what comes after the first word is not news."""
        attempt = self._attempts[fence]
        if not attempt.started:
            attempt.started = True
            self._say(Started(fence, at_ms, start))

    def returned(self, fence: int, reason: str) -> list[Order]:
        """It could not be started here, for no fault of its own."""
        if fence not in self._attempts:
            return []
        if not self._drop(fence).unwanted:
            self._say(Returned(fence, reason))
        return [Forget(fence), *self._next_waiting()]

    def log_skipped(self, fence: int, offset: int, length: int, why: str) -> None:
        """`length` bytes of its log from `offset` on were not kept; told in order, and before the log reaches there."""
        attempt = self._attempts.get(fence)
        if attempt is not None:
            attempt.holes.append(Dropped(fence, offset, length, why))

    def log_grew(self, fence: int, total: int) -> None:
        """Its log has `total` bytes now."""
        attempt = self._attempts.get(fence)
        if attempt is not None and attempt.ended is None:
            attempt.log_total = total
            self._mark(fence, attempt)

    def ended(self, message: Ended) -> list[Order]:
        """It is over and its slot free; `message.log_bytes` is all there will be of its log."""
        attempt = self._attempts[message.fence]
        if attempt.unwanted:
            self._drop(message.fence)
            return [Forget(message.fence), *self._next_waiting()]
        attempt.ended = message
        attempt.lent = False
        attempt.log_total = message.log_bytes
        self._mark(message.fence, attempt)
        return self._next_waiting()

    def drain(self) -> list[Order]:
        """Start nothing more: what was not handed over goes back, what runs goes on to its end."""
        self.draining = True
        orders: list[Order] = []
        for fence, attempt in list(self._attempts.items()):
            if not attempt.handed:
                orders += [Abandon(fence), *self.returned(fence, "")]
        return orders

    def leave(self) -> list[Order]:
        """Leave in order: say so first, or the same jobs would come back; then drain, and end what runs.

        What comes back is as good as new: no reason is given, which would hold it up for a moment.
        """
        self._say(Draining())
        orders = self.drain()
        for fence, attempt in self._attempts.items():
            if attempt.ended is None:
                orders.append(Kill(fence, CAUSE_WORKER_STOP, STOP_GRACE_MS))
        return orders

    # What to send

    def next_frame(self, now_ms: int) -> list[WorkerMessage | Piece]:
        """Return what goes into the next frame, in order; empty when there is nothing, or no room.

        Pieces of all logs take turns; an end goes out once all of its log has.
        """
        if not (self.online and (self._control or self._output or self._ends)):
            return []
        items: list[WorkerMessage | Piece] = list(self._control)
        self._control.clear()
        room = OUTPUT_FRAME_BYTES_MAX
        while self._output and (limit := min(room, self._window - self._in_flight)) > 0:
            fence = next(iter(self._output))
            del self._output[fence]
            attempt = self._attempts[fence]
            piece = next_piece(fence, attempt.holes, attempt.log_sent, attempt.log_total, limit)
            items.append(piece)
            attempt.log_sent += piece.length
            if isinstance(piece, Piece):
                room -= piece.length
                self._in_flight += piece.length
                self._sent.append((now_ms, fence, attempt.log_sent))
            self._mark(fence, attempt)
        items += self._ends.values()
        self._ends.clear()
        return items

    @property
    def running(self) -> int:
        """How many attempts run or are about to."""
        return sum(attempt.ended is None for attempt in self._attempts.values()) - len(self._waiting)

    @property
    def waiting(self) -> int:
        """How many attempts wait for a slot."""
        return len(self._waiting)

    @property
    def unsaid(self) -> int:
        """How many short messages wait to be sent."""
        return len(self._control)

    @property
    def owes(self) -> bool:
        """Whether the Master has not let go of all that was held, or there is something left to say."""
        return bool(self._attempts or self._control)

    def _say(self, message: Started | Returned | Draining) -> None:
        # Offline, the next Hello says it by naming the attempt or not, and whether we drain.
        if self._linked:
            self._control.append(message)

    def _mark(self, fence: int, attempt: _Attempt) -> None:
        if not self.online or attempt.unwanted:
            return
        if attempt.log_sent < attempt.log_total:
            self._output[fence] = None
        elif attempt.ended is not None:
            self._ends[fence] = attempt.ended

    def _drop(self, fence: int) -> _Attempt:
        attempt = self._attempts.pop(fence)
        self._gone[fence] = None
        if len(self._gone) > GONE_MAX:
            del self._gone[next(iter(self._gone))]
        if fence in self._waiting:
            self._waiting_bytes -= len(self._waiting.pop(fence)[2].spec)
        self._in_flight -= bytes_between(attempt.holes, attempt.log_acked, attempt.log_sent)
        self._output.pop(fence, None)
        self._ends.pop(fence, None)
        return attempt

    def _disown(self, fence: int) -> list[Order]:
        attempt = self._attempts.get(fence)
        if attempt is None:
            return []
        # It may have started while the welcome was on its way.
        self._control = deque(said for said in self._control if isinstance(said, Draining) or said.fence != fence)
        if attempt.handed and attempt.ended is None:
            attempt.unwanted = True
            return [Kill(fence, CAUSE_CANCELLED, UNWANTED_GRACE_MS)]
        self._drop(fence)
        return [Forget(fence)] if attempt.handed else [Abandon(fence), Forget(fence)]

    def _next_waiting(self) -> list[Order]:
        if self.draining or not self._waiting:
            return []
        taken = sum(attempt.ended is None and not attempt.lent for attempt in self._attempts.values())
        free = self.slots - (taken - len(self._waiting))
        orders: list[Order] = []
        for _, fence, grant in heapq.nsmallest(free, self._waiting.values()):
            del self._waiting[fence]
            self._waiting_bytes -= len(grant.spec)
            orders.append(Prepare(grant))
        return orders

    def _follow_pace(self, now_ms: int) -> None:
        """Widen the window by what was acknowledged soon, halve it when that took long."""
        acked = 0
        age_ms = 0
        while self._sent:
            sent_ms, fence, end = self._sent[0]
            attempt = self._attempts.get(fence)
            if attempt is not None and attempt.log_acked < end:
                break
            self._sent.popleft()
            acked += 1
            age_ms = max(age_ms, now_ms - sent_ms)
        if not acked:
            return
        if age_ms <= PACE_GOOD_MS:
            self._window = min(WINDOW_BYTES_MAX, self._window * 2)
        elif age_ms >= PACE_BAD_MS:
            self._window = max(WINDOW_BYTES_MIN, self._window // 2)


def _priority(grant: Grant) -> int:
    try:
        return _URGENCY.decode(grant.spec).priority
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Its start will say what is wrong with it, and takes no time.
        return 1
