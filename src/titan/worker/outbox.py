"""What outlives the worker process: the attempts it handed over, their ends, and what is still owed of them.

One file of lines in the worker's folder, `outbox.N`. The worker adds a line before a job's start order goes
out, one when its end and log are complete, one when the Master has it. The launcher adds its own reports
through a descriptor of the same file before it tells them, so an end is on disk although the worker died
between the process's exit and the report (launcher/record.py has the shape of a line).

A line is one write without fsync. A killed process loses nothing that was written; only the machine's end
does, and then every process of every job is gone with it: what has no end here is lost, and no claim is
made about what is not here, because `predecessor` is told on the same boot only. An attempt whose line
cannot be written is not started. What cannot be read is not known: the record then is not whole, what it
does say is still reported, and nothing is claimed about the rest either.

A file that has grown, or that lacks a line because its disk was full, is replaced by one with the living
lines. The launcher then gets the new descriptor and says when it has changed over; until then both files
count, the old one for what it still adds there.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from titan.model.spec import JobSpec
from titan.model.wire import Ended
from titan.worker import endings
from titan.worker.launcher import frames, record
from titan.worker.launcher.frames import Report, boot_ms
from titan.worker.sweep import look

GROWN_BYTES = 256 * 1024
GROWN_TIMES = 4


class Own(msgspec.Struct, frozen=True, tag="own"):
    """The Master knows this process: what follows, and what is not here, is of this incarnation."""

    incarnation: str
    boot_id: str


class Launched(msgspec.Struct, frozen=True, tag="launched"):
    """A launcher was started; `start` is its start time in clock ticks since boot."""

    pid: int
    start: int
    boot_id: str


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """An attempt goes to the launcher now; the fields of its spec are what names an end."""

    fence: int
    filename: str
    timeout_s: float | None
    lease_s: int
    at_boot_ms: int


class Over(msgspec.Struct, frozen=True, tag="over"):
    """Its end, the job's bytes complete in the spool; `line` is what we say behind them."""

    ended: Ended
    line: str


class Gone(msgspec.Struct, frozen=True, tag="gone"):
    """Nobody asks for it any more."""

    fence: int


class Alive(msgspec.Struct, frozen=True, tag="alive"):
    """At this boot time the worker lived: so did its jobs, and their session numbers were theirs."""

    at_boot_ms: int


Line = Own | Launched | Begun | Over | Gone | Alive
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Line)


class Remembered:
    """One attempt as the record has it."""

    def __init__(self, begun: Begun) -> None:
        self.begun = begun
        self.session = 0
        self.started_boot_ms = 0
        self.report: Report | None = None
        self.over: Over | None = None

    @property
    def running(self) -> bool:
        """Whether nothing says that it ended."""
        return self.report is None and self.over is None

    def end(self, now_ms: int) -> tuple[Ended, str] | None:
        """Return its end, without the log's length unless it is `over`, and what the log says last; None: never began.

        `now_ms` is wall time, the end's for an attempt that nobody saw end.
        """
        if self.over is not None:
            return self.over.ended, self.over.line
        begun, report = self.begun, self.report
        if report is None:
            return endings.lost(begun.fence, now_ms)
        spec = JobSpec(job_id="", filename=begun.filename, timeout_s=begun.timeout_s, lease_s=begun.lease_s)
        return endings.named(spec, report)


class Past(msgspec.Struct):
    """What a predecessor left: attempts by fence, launchers by pid with the boot they ran in, its last sign of life."""

    attempts: dict[int, Remembered]
    own: Own | None = None
    boot_id: str = ""
    launchers: dict[int, int] = {}
    alive_ms: int = 0
    whole: bool = True


def read(folder: Path) -> Past:
    """Return what the record in `folder` says, as far as it can be read."""
    past = Past({})
    for _, path in _files(folder):
        try:
            payloads, whole = record.lines(_content(path))
        except OSError:
            payloads, whole = [], False
        past.whole = past.whole and whole
        for payload in payloads:
            _replay(past, payload)
    return past


def _replay(past: Past, payload: bytes) -> None:
    said = record.report_in(payload)
    if said is not None:
        report, at_boot_ms = said
        past.alive_ms = max(past.alive_ms, at_boot_ms)
        attempt = past.attempts.get(report.fence)
        if attempt is None:
            return
        if report.kind == frames.STARTED:
            attempt.session, attempt.started_boot_ms = report.a, at_boot_ms
        else:
            attempt.report = report
        return
    try:
        line = _DECODER.decode(payload)
    except msgspec.DecodeError:
        past.whole = False
        return
    if isinstance(line, Begun):
        # Written again by a compaction; a report of it may stand before.
        past.attempts.setdefault(line.fence, Remembered(line))
        past.alive_ms = max(past.alive_ms, line.at_boot_ms)
    elif isinstance(line, Over):
        if line.ended.fence in past.attempts:
            past.attempts[line.ended.fence].over = line
    elif isinstance(line, Gone):
        past.attempts.pop(line.fence, None)
    elif isinstance(line, Alive):
        past.alive_ms = max(past.alive_ms, line.at_boot_ms)
    elif isinstance(line, Own):
        past.own = line
    else:
        if line.boot_id != past.boot_id:
            past.boot_id, past.launchers, past.alive_ms = line.boot_id, {}, 0
        past.launchers[line.pid] = line.start


class Outbox:
    """The record as the living worker writes it. `restored` are a predecessor's ends that are still owed.

    `own` is what may be claimed until the Master welcomes this process. Raises OSError when no file can be
    made in `folder`.
    """

    def __init__(
        self, folder: Path, boot_id: str, own: Own | None = None, restored: Iterable[tuple[Begun, Over]] = ()
    ) -> None:
        self._folder = folder
        self._boot_id = boot_id
        self._own: list[bytes] = [_ENCODER.encode(own)] if own else []
        self._launched: list[bytes] = []
        self._kept: dict[int, list[bytes]] = {
            begun.fence: [_ENCODER.encode(msgspec.structs.replace(begun, at_boot_ms=0)), _ENCODER.encode(over)]
            for begun, over in restored
        }
        before = _files(folder)
        self._number = before[-1][0] if before else 0
        self._bytes = 0
        self._grown_bytes = GROWN_BYTES
        self._lacks = False
        self._offered = True
        self._older: list[Path] = [path for _, path in before]
        self.descriptor = self._new_file()
        self._remove_older()

    def close(self) -> None:
        """Close the file; it stays for the next start."""
        os.close(self.descriptor)
        self.descriptor = -1

    def launched(self, pid: int) -> None:
        """Process `pid` is the launcher that writes into this file now, and none other does any more."""
        seen = look(pid)
        if seen is not None:
            self._launched = [_ENCODER.encode(Launched(pid, seen.start, self._boot_id))]
            self._append(self._launched[0])
        self._offered = True
        self._remove_older()

    def own(self, incarnation: str) -> None:
        """The Master has welcomed this process."""
        self._own = [_ENCODER.encode(Own(incarnation, self._boot_id))]
        self._append(self._own[0])

    def alive(self) -> None:
        """Note the time, when it matters to somebody."""
        if self._kept:
            self._append(_ENCODER.encode(Alive(boot_ms())))

    def begun(self, fence: int, spec: JobSpec) -> bool:
        """Record an attempt before it goes to the launcher; False, and it must not, when that failed."""
        payload = _ENCODER.encode(Begun(fence, spec.filename, spec.timeout_s, spec.lease_s, boot_ms()))
        if not self._append(payload):
            return False
        self._kept[fence] = [payload]
        return True

    def heard(self, report: Report) -> None:
        """The launcher told what it recorded itself, perhaps in the file before this one."""
        kept = self._kept.get(report.fence)
        if kept is not None:
            kept.append(record.of_report(report))
            if self._older:
                self._append(kept[-1])

    def reports(self) -> dict[int, Report]:
        """Return by fence how attempts ended that the launcher recorded, whether or not it could tell. Any thread."""
        attempts = read(self._folder).attempts
        return {fence: attempt.report for fence, attempt in attempts.items() if attempt.report is not None}

    def over(self, ended: Ended, line: str) -> None:
        """An attempt's end, with all that the job printed in the spool and `line` behind it."""
        kept = self._kept.get(ended.fence)
        if kept is not None:
            kept.append(_ENCODER.encode(Over(ended, line)))
            self._append(kept[-1])

    def gone(self, fence: int) -> None:
        """Nothing is owed of it any more."""
        if self._kept.pop(fence, None) is not None:
            self._append(_ENCODER.encode(Gone(fence)))

    def renewed(self) -> tuple[int, int] | None:
        """Change to a new file when this one lacks a line, or most of it is of no use any more.

        Return the number of one that the launcher is to be told of, with a descriptor for it; None when there is
        none, or no room for it now.
        """
        try:
            if not self._older and (self._lacks or self._bytes >= self._grown_bytes):
                self._change()
            if self._offered:
                return None
            descriptor = os.dup(self.descriptor)
        except OSError:
            return None
        self._offered = True
        return self._number, descriptor

    def switched(self, number: int, *, done: bool = True) -> None:
        """The launcher writes into file `number` now, and has told all it wrote into the one before.

        Not `done`: it had no room for the descriptor, which it is to be offered again.
        """
        if number == self._number:
            self._offered = done
            if done:
                self._remove_older()

    def _append(self, payload: bytes) -> bool:
        self._bytes += len(payload)
        whole = record.append(self.descriptor, payload)
        self._lacks = self._lacks or not whole
        return whole

    def _change(self) -> None:
        old, path = self.descriptor, self._path(self._number)
        self.descriptor = self._new_file()
        os.close(old)
        self._older.append(path)
        self._offered = self._lacks = False

    def _path(self, number: int) -> Path:
        return self._folder / f"outbox.{number}"

    def _new_file(self) -> int:
        """Return a descriptor of the next file with all that is kept in it, there under its name only when whole."""
        making = self._folder / "outbox.new"
        making.unlink(missing_ok=True)
        descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = 0
            for payload in self._living():
                if not record.append(descriptor, payload):
                    raise OSError("no room for the record of attempts")
                size += len(payload)
            making.rename(self._path(self._number + 1))
        except OSError:
            os.close(descriptor)
            making.unlink(missing_ok=True)
            raise
        self._number += 1
        self._bytes = size
        self._grown_bytes = max(GROWN_BYTES, GROWN_TIMES * size)
        return descriptor

    def _living(self) -> Iterator[bytes]:
        yield from self._launched
        yield from self._own
        for payloads in self._kept.values():
            yield from payloads

    def _remove_older(self) -> None:
        for path in self._older:
            path.unlink(missing_ok=True)
        self._older.clear()


def _content(path: Path) -> bytes:
    # A job of the same user may have put a FIFO or a link there, which must neither hold us up nor lead us away.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        return file.read() or b""


def _files(folder: Path) -> list[tuple[int, Path]]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    numbers = [int(name[7:]) for name in names if name.startswith("outbox.") and name[7:].isdecimal()]
    return [(number, folder / f"outbox.{number}") for number in sorted(numbers)]
