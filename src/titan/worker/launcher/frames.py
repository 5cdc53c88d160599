"""What a worker and its launcher say to each other over their socket pair.

Orders are length-prefixed; a START carries the write end of the job's pipe as a file descriptor with its
first byte, a RECORD that of a file. Reports have one fixed shape. Strings are bytes throughout, so arguments
stay exact, and end with a NUL, as exec lays them out. Times are milliseconds of CLOCK_BOOTTIME, which goes
on while a machine sleeps.
"""

import struct
import time

START = 1
STOP = 2
RENEWED = 3
RECORD = 4
PING = 5

STARTED = 1
NOT_STARTED = 2
ENDED = 3
SWITCHED = 4
ALIVE = 5

CAUSE_NONE = 0
CAUSE_CANCELLED = 1
CAUSE_TIMEOUT = 2
CAUSE_LEASE = 3
CAUSE_WORKER_STOP = 4
CAUSE_OUT_OF_MEMORY = 5

STAGE_FORK = 1
STAGE_FOLDER = 2
STAGE_EXEC = 3

_LENGTH = struct.Struct("<I")
_START = struct.Struct("<BQQQQ??II")  # the last: where arguments and where environment begin in what follows
_STOP = struct.Struct("<BQBI")
_RENEWED = struct.Struct("<BQ")
_RECORD = struct.Struct("<BQ")
_PING = struct.Struct("<B")
_REPORT = struct.Struct("<BQiiIQ")
REPORT_BYTES = _REPORT.size


def boot_ms() -> int:
    """Return milliseconds since boot, time asleep included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Start:
    """Run `argv` in `cwd` with exactly `env` ("NAME=value" entries).

    `timeout_ms`, and `lease_term_ms` and `lease_kill_ms` after the last answered renewal, are 0 for never.
    `reap`: strangers that fall to it are reaped by a shim above it. `warm`: `argv` is a Python and its script, and a
    fork of the launcher may become that.
    """

    __slots__ = ("argv", "cwd", "env", "fence", "lease_kill_ms", "lease_term_ms", "reap", "timeout_ms", "warm")

    def __init__(
        self,
        fence: int,
        cwd: bytes,
        argv: list[bytes],
        env: list[bytes],
        timeout_ms: int = 0,
        lease_term_ms: int = 0,
        lease_kill_ms: int = 0,
        reap: bool = False,
        warm: bool = False,
    ) -> None:
        self.fence = fence
        self.cwd = cwd
        self.argv = argv
        self.env = env
        self.timeout_ms = timeout_ms
        self.lease_term_ms = lease_term_ms
        self.lease_kill_ms = lease_kill_ms
        self.reap = reap
        self.warm = warm


class Given:
    """What a program is given: folder, arguments and environment, one behind the other in `block`."""

    __slots__ = ("block", "env_at", "words_at")

    def __init__(self, block: bytes, words_at: int, env_at: int) -> None:
        self.block = block
        self.words_at = words_at
        self.env_at = env_at

    def add(self, entry: bytes) -> None:
        """Add "NAME=value" to its environment."""
        self.block += entry + b"\0"

    def cwd(self) -> bytes:
        """Return the folder it begins in."""
        return self.block[: self.words_at - 1]

    def argv(self) -> list[bytes]:
        """Return its arguments, the program first."""
        return self.block[self.words_at : self.env_at - 1].split(b"\0")

    def entries(self) -> list[bytes]:
        """Return its environment as "NAME=value"."""
        return self.block[self.env_at : -1].split(b"\0")

    def env(self) -> dict[bytes, bytes]:
        """Return its environment."""
        return dict([entry.split(b"=", 1) for entry in self.entries()])


class Launch:
    """A `Start` as the launcher takes it. Only its fork reads what it is `given`; the rest is kept.

    `body` is the order as it came, without its length: to be read only while it lies where it was received.
    """

    __slots__ = (
        "_env_at", "_words_at", "body", "fence", "lease_kill_ms", "lease_term_ms", "reap", "timeout_ms", "warm",
    )  # fmt: skip

    fence: int
    timeout_ms: int
    lease_term_ms: int
    lease_kill_ms: int
    reap: bool
    warm: bool
    body: memoryview

    def __init__(self, body: memoryview) -> None:
        (
            _, self.fence, self.timeout_ms, self.lease_term_ms, self.lease_kill_ms, self.reap, self.warm,
            self._words_at, self._env_at,
        ) = _START.unpack_from(body)  # fmt: skip
        self.body = body

    def given(self) -> Given:
        """Return a copy of what the program is given."""
        return Given(bytes(self.body[_START.size :]), self._words_at, self._env_at)


class Stop:
    """End it: TERM now, KILL of the whole tree after `grace_ms`. The first `cause` is the one reported."""

    __slots__ = ("cause", "fence", "grace_ms")

    def __init__(self, fence: int, cause: int, grace_ms: int) -> None:
        self.fence = fence
        self.cause = cause
        self.grace_ms = grace_ms


class Renewed:
    """The Master answered a renewal that was sent at `at_ms`; leases count from there."""

    __slots__ = ("at_ms",)

    def __init__(self, at_ms: int) -> None:
        self.at_ms = at_ms


class Record:
    """Write what is reported into another file from now on; its descriptor comes with this. Answered by SWITCHED."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Ping:
    """Are you there? Answered by ALIVE."""

    __slots__ = ()


class Report:
    """What became of `fence`. ALIVE answers a `Ping`.

    SWITCHED: `fence` is the number of a `Record`, `a` the errno if that did not succeed.

    STARTED: `a` is the pid. NOT_STARTED: `a` is the errno, `b` the stage. ENDED: `a` is the status as
    `waitpid` gave it, `b` the cause, `killed` how many processes it left behind that had to be killed.
    `at_ms` is the wall time of it, for people.
    """

    __slots__ = ("a", "at_ms", "b", "fence", "killed", "kind")

    def __init__(self, kind: int, fence: int, a: int, b: int, killed: int, at_ms: int) -> None:
        self.kind = kind
        self.fence = fence
        self.a = a
        self.b = b
        self.killed = killed
        self.at_ms = at_ms


Order = Start | Stop | Renewed | Record | Ping
Taken = Launch | Stop | Renewed | Record | Ping


def encode_order(order: Order) -> bytes:
    """Return `order` as it goes over the socket, length first."""
    if isinstance(order, Start):
        head = _START.pack(
            START,
            order.fence,
            order.timeout_ms,
            order.lease_term_ms,
            order.lease_kill_ms,
            order.reap,
            order.warm,
            len(order.cwd) + 1,
            len(order.cwd) + 1 + sum(map(len, order.argv)) + len(order.argv),
        )
        body = head + b"\0".join((order.cwd, *order.argv, *order.env, b""))
    elif isinstance(order, Stop):
        body = _STOP.pack(STOP, order.fence, order.cause, order.grace_ms)
    elif isinstance(order, Record):
        body = _RECORD.pack(RECORD, order.number)
    elif isinstance(order, Ping):
        body = _PING.pack(PING)
    else:
        body = _RENEWED.pack(RENEWED, order.at_ms)
    return _LENGTH.pack(len(body)) + body


def whole_bytes(data: memoryview) -> int:
    """Return the length of the first order in `data`, its prefix included; 0 when it is not whole yet."""
    if len(data) < _LENGTH.size:
        return 0
    end = int(_LENGTH.size + _LENGTH.unpack_from(data)[0])
    return end if len(data) >= end else 0


def order_at(data: memoryview) -> Taken:
    """Return the whole order that `data` is, prefix included."""
    body = data[_LENGTH.size :]
    kind = body[0]
    if kind == START:
        return Launch(body)
    if kind == STOP:
        return Stop(*_STOP.unpack(body)[1:])
    if kind == RENEWED:
        return Renewed(_RENEWED.unpack(body)[1])
    if kind == RECORD:
        return Record(_RECORD.unpack(body)[1])
    return Ping()


def encode_report(report: Report) -> bytes:
    """Return `report` in its fixed shape of REPORT_BYTES."""
    return _REPORT.pack(report.kind, report.fence, report.a, report.b, report.killed, report.at_ms)


def take_reports(buffer: bytearray) -> list[Report]:
    """Remove all whole reports from `buffer` and return them in order."""
    whole = len(buffer) - len(buffer) % REPORT_BYTES
    reports = [Report(*fields) for fields in _REPORT.iter_unpack(bytes(buffer[:whole]))]
    del buffer[:whole]
    return reports
