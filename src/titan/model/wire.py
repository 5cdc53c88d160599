"""The messages between Master and Worker: msgpack, one WebSocket frame is a list of them.

A worker connects outward to `/api/v1/worker`, says `Hello` with everything it holds, and is answered
with `Welcome` and the difference. An unknown message is a decode error and closes the link with a code:
nothing is ever guessed. Times are milliseconds since the epoch, for people; nothing is decided by them.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec

PROTOCOL = 1
# A fence is the epoch of the Master that granted it, and a count below it.
EPOCH_SHIFT = 32
# What both sides may say: a number that the database, the launcher and a file's name can hold. And short words.
Fence = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Word = Annotated[str, msgspec.Meta(max_length=1024)]
CLOSE_BAD_FRAME = 4400
CLOSE_DENIED = 4401
CLOSE_REPLACED = 4409
CLOSE_PROTOCOL = 4426
CLOSE_FAILED = 1011
CLOSE_STOPPING = 1012
CLOSE_BUSY = 1013


class Held(msgspec.Struct, frozen=True, gc=False):
    """An attempt the worker holds when it connects: granted to it and not yet acknowledged as ended."""

    fence: int
    started: bool
    log_bytes_acked: int = 0


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Worker: who I am and the full set of attempts I hold. `incarnation` is new at each process start.

    `predecessor` is the incarnation whose records are on this worker's disk ("": none). What it had begun is
    among `attempts` too, and is reported ended; an attempt of it that is not among them never began here.
    `devices` are the GPUs handed out one a job, () when `GPU` is a plain tag here. `draining`: grant nothing.
    `epoch_seen`: the latest epoch this worker knows of; a Master of an earlier one looks whether it still leads.
    """

    name: str
    incarnation: str
    boot_id: str
    protocol: int
    version: str
    capabilities: tuple[str, ...]
    slots: int
    attempts: tuple[Held, ...] = ()
    pid: int = 0
    host: str = ""
    epoch_seen: int = 0
    predecessor: str = ""
    devices: tuple[str, ...] = ()
    draining: bool = False


class Started(msgspec.Struct, frozen=True, tag="started", gc=False):
    """Worker: handed to the launcher; from here on a `Stop` ends a process.

    `start` says how: "warm", or "exec: " and why it was not warm.
    """

    fence: Fence
    at_ms: int = 0
    start: str = ""


class Output(msgspec.Struct, frozen=True, tag="output", gc=False):
    """Worker: log bytes of an attempt from `offset` on. Sent again after a reconnect until acknowledged."""

    fence: Fence
    offset: Offset
    data: bytes


class Dropped(msgspec.Struct, frozen=True, tag="dropped", gc=False):
    """Worker: `length` bytes of an attempt's log from `offset` on were not kept. Stands where their `Output` would."""

    fence: Fence
    offset: Offset
    length: int
    why: str = ""


class Ended(msgspec.Struct, frozen=True, tag="ended", gc=False):
    """Worker: the main process ended and its tree is gone.

    `exit_code` is the code, or 128 + signal. `cause` is "" for an ordinary end, else one of CAUSES.
    `log_bytes` is the length of the whole log, dropped ranges included; all of it was sent in `Output` and
    `Dropped` before this message. CAUSE_LOST: a restarted worker found it dead, and knows nothing of its end.
    """

    fence: Fence
    exit_code: int
    signal: int = 0
    cause: str = ""
    log_bytes: int = 0
    at_ms: int = 0
    detail: str = ""


class Returned(msgspec.Struct, frozen=True, tag="returned", gc=False):
    """Worker: given back unstarted: after a `Recall`, `Drain` or `Stop`, or because it could not be started here.

    `reason` says why it could not, which puts the job off for a moment; "" is no fault of the machine.
    """

    fence: Fence
    reason: str = ""


class Draining(msgspec.Struct, frozen=True, tag="draining", gc=False):
    """Worker: I am leaving in order; grant me nothing more."""


class Renew(msgspec.Struct, frozen=True, tag="renew", gc=False):
    """Worker: alive. Answered by `RenewAck` with the same `seq`; leases count from the send of it."""

    seq: int


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """Master: you are in. `stop` are attempts you hold and must end without reporting; nobody wants them."""

    epoch: Offset
    stop: tuple[Fence, ...] = ()
    log_offsets: dict[Fence, Offset] = {}


class Grant(msgspec.Struct, frozen=True, tag="grant"):
    """Master: run this attempt. `spec` is an encoded JobSpec; its script is fetched by hash if not cached."""

    fence: Fence
    run_id: Word
    job_id: Word
    generation: Offset
    attempt: Offset
    spec: bytes
    token: Word
    idempotency_key: Word
    agent_run_id: Word


class Stop(msgspec.Struct, frozen=True, tag="stop", gc=False):
    """Master: end it. Not started: `Returned`. Started: TERM, 10 s, KILL, then `Ended` with cause "cancelled"."""

    fence: Fence


class Recall(msgspec.Struct, frozen=True, tag="recall", gc=False):
    """Master: give it back if it was not handed to the launcher. `Returned` says it was not, `Started` that it was."""

    fence: Fence


class Lend(msgspec.Struct, frozen=True, tag="lend", gc=False):
    """Master: this attempt waits for a run below it, and its slot may serve another (`on`), or does so no more."""

    fence: Fence
    on: bool


class Drain(msgspec.Struct, frozen=True, tag="drain", gc=False):
    """Master: finish what runs, give back what was not started; nothing more will be granted."""


class Ack(msgspec.Struct, frozen=True, tag="ack", gc=False):
    """Master: durable. `ended` may be forgotten; logs may be forgotten up to the offset."""

    ended: tuple[Fence, ...] = ()
    log_offsets: dict[Fence, Offset] = {}


class RenewAck(msgspec.Struct, frozen=True, tag="renew_ack", gc=False):
    """Master: the renewal `seq` was received."""

    seq: int


CAUSE_CANCELLED = "cancelled"
CAUSE_TIMEOUT = "timeout"
CAUSE_OUT_OF_MEMORY = "out_of_memory"
CAUSE_START_FAILED = "start_failed"
CAUSE_LEASE = "lease"
CAUSE_WORKER_STOP = "worker_stop"
CAUSE_LOST = "lost"
CAUSES = (
    CAUSE_CANCELLED, CAUSE_TIMEOUT, CAUSE_OUT_OF_MEMORY, CAUSE_START_FAILED, CAUSE_LEASE, CAUSE_WORKER_STOP, CAUSE_LOST,
)  # fmt: skip

WorkerMessage = Hello | Started | Output | Dropped | Ended | Returned | Draining | Renew
MasterMessage = Welcome | Grant | Recall | Stop | Lend | Drain | Ack | RenewAck

_NO_TEXT = "a text is not UTF-8"
_ENCODER = msgspec.msgpack.Encoder()
_WORKER_FRAME = msgspec.msgpack.Decoder(list[WorkerMessage])
_MASTER_FRAME = msgspec.msgpack.Decoder(list[MasterMessage])


def encode_frame(messages: Sequence[WorkerMessage] | Sequence[MasterMessage]) -> bytes:
    """Return one frame holding `messages` in order."""
    return _ENCODER.encode(messages)


def decode_worker_frame(data: bytes) -> list[WorkerMessage]:
    """Return what a worker sent. Raises msgspec.DecodeError (ValidationError below it) on anything else."""
    try:
        return _WORKER_FRAME.decode(data)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(_NO_TEXT) from error


def decode_master_frame(data: bytes) -> list[MasterMessage]:
    """Return what a Master sent. Raises msgspec.DecodeError (ValidationError below it) on anything else."""
    try:
        return _MASTER_FRAME.decode(data)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(_NO_TEXT) from error
