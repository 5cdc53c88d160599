"""The GPUs of this machine: found once at the start, then lent to one job each.

A job is told its device by UUID, not by index: the driver counts in the order of the bus, CUDA by default in
that of speed, and an index means another device after a reboot or inside a restricted list. The worker's own
CUDA_VISIBLE_DEVICES says which devices are its to hand out; an index in it counts as nvidia-smi does.

A device belongs to an attempt until the last process of that attempt is gone. Several workers of one home on
one machine see the same devices, so each holder also holds a lock on a file of the device, which the kernel
drops whichever way the holder ends. An attempt that finds no device free waits for one, first come first served.
"""

import fcntl
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from titan.model.spec import GPU, JobSpec

VARIABLE = "CUDA_VISIBLE_DEVICES"
PROGRAM = "nvidia-smi"
QUERY = ("--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")
# A driver without persistence wakes every device first, which takes seconds.
ANSWER_S_MAX = 10.0
ANSWER_BYTES_MAX = 64 * 1024
# How often an attempt that waits looks whether another worker of this home has let a device go.
LOOK_AGAIN_S = 0.2
_LINE = re.compile(
    r"(?P<index>\d{1,4}), (?P<uuid>GPU-[0-9A-Fa-f-]{4,64}), (?P<name>[^\x00-\x1f]{1,200}), (?P<memory>[^,]+)"
)


class Device(msgspec.Struct, frozen=True):
    """One GPU as nvidia-smi lists it; `memory` is in MiB, as told."""

    index: int
    uuid: str
    name: str
    memory: str


class NotFound(Exception):
    """No devices can be handed out here; the text says why."""


def find(environ: Mapping[str, str], answer_s_max: float = ANSWER_S_MAX) -> tuple[Device, ...]:
    """Return the devices that the worker with this environment may hand out.

    Raises NotFound when nvidia-smi is absent, fails, does not answer in time, or says what nobody understands.
    """
    program = shutil.which(PROGRAM, path=environ.get("PATH", os.defpath))
    if program is None:
        raise NotFound(f"there is no {PROGRAM} on PATH")
    devices = _parsed(_asked([program, *QUERY], environ, answer_s_max))
    return _allowed(devices, environ.get(VARIABLE))


def _asked(command: list[str], environ: Mapping[str, str], answer_s_max: float) -> str:
    deadline_s = time.monotonic() + answer_s_max
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with open(reading, "rb", buffering=0) as answers:
        try:
            process = subprocess.Popen(
                command,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise NotFound(f"{PROGRAM} cannot be run: {error.strerror}") from error
        finally:
            os.close(writing)
        answer = _read(answers.fileno(), deadline_s)
    try:
        code = process.wait(max(0.0, deadline_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        answer = None
    if answer is None:
        _kill(process)
        raise NotFound(f"{PROGRAM} gave no answer within {answer_s_max:g} s")
    text = answer.decode("utf-8", "replace")
    if code:
        line = next((line.strip() for line in text.splitlines() if line.strip()), "")
        raise NotFound(f"{PROGRAM} ended with exit code {code}: {_shown(line)}")
    return text


def _read(descriptor: int, deadline_s: float) -> bytes | None:
    """Read to the end of file, or as much as anybody would say; None when that takes too long."""
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while len(data) <= ANSWER_BYTES_MAX:
            if not selector.select(max(0.0, deadline_s - time.monotonic())):
                return None
            if not (chunk := os.read(descriptor, ANSWER_BYTES_MAX)):
                break
            data += chunk
    return data


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(1.0)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass  # one that hangs in the driver dies when the driver lets it


def _parsed(text: str) -> tuple[Device, ...]:
    devices = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise NotFound(f"{PROGRAM} answered {_shown(line)}, which lists no device")
        devices.append(Device(int(match["index"]), match["uuid"], match["name"], match["memory"]))
    if not devices:
        raise NotFound(f"{PROGRAM} lists no device")
    if len({device.uuid for device in devices}) < len(devices) or len({d.index for d in devices}) < len(devices):
        raise NotFound(f"{PROGRAM} lists one device twice")
    return tuple(devices)


def _allowed(devices: tuple[Device, ...], own: str | None) -> tuple[Device, ...]:
    """Return those of `devices` that the worker's own variable `own` names, in its order.

    As in CUDA: the list ends at the first word that names no device; a UUID may be shortened; none is none.
    """
    if own is None:
        return devices
    allowed: dict[str, Device] = {}
    for word in (word.strip() for word in own.split(",")):
        if word.isdecimal():
            named = [device for device in devices if device.index == int(word)]
        else:
            named = [device for device in devices if word.startswith("GPU-") and device.uuid.startswith(word)]
        if len(named) != 1:
            break
        allowed[named[0].uuid] = named[0]
    if not allowed:
        raise NotFound(f"{VARIABLE}={_shown(own)} of this worker names none of the {len(devices)} devices here")
    return tuple(allowed.values())


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}...")


class Devices:
    """Who holds which device. `found` empty: no device is handed out, and `GPU` is a plain tag.

    `locks` is a folder that all workers of the home share; `later(seconds, call)` is the loop's timer.
    """

    def __init__(
        self, found: tuple[Device, ...], locks: Path, later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self.names = tuple(device.uuid for device in found)
        self._locks = locks
        self._later = later
        self._held: dict[int, tuple[str, int]] = {}
        self._waiting: dict[int, Callable[[], None]] = {}
        self._looking = False
        if found:
            locks.mkdir(mode=0o700, parents=True, exist_ok=True)

    def take(self, fence: int, spec: JobSpec, go: Callable[[], None]) -> bool:
        """Say whether the attempt may start now, with the device it needs; if not, `go` is called to try again.

        Raises OSError when this machine has no descriptor or disk left for the lock.
        """
        if not self.names or GPU not in spec.requirement or fence in self._held:
            return True
        if not self._waiting or fence in self._waiting:
            for name in self.names:
                if name not in {held for held, _ in self._held.values()} and (lock := self._lock(name)) is not None:
                    self._held[fence] = (name, lock)
                    self._waiting.pop(fence, None)
                    return True
        self._waiting[fence] = go
        self._look_later()
        return False

    def visible(self, fence: int) -> str | None:
        """Return what the attempt's CUDA_VISIBLE_DEVICES is; None where none of ours is said."""
        if not self.names:
            return None
        return self._held[fence][0] if fence in self._held else ""

    def forget(self, fence: int) -> None:
        """The attempt neither runs nor waits any more: the next that waits may have its device."""
        self._waiting.pop(fence, None)
        if (held := self._held.pop(fence, None)) is not None:
            os.close(held[1])
            self._look()

    def _lock(self, name: str) -> int | None:
        lock = os.open(self._locks / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        except OSError:
            os.close(lock)
            raise
        return lock

    def _look(self) -> None:
        """Let the first that waits try again; it either takes a device or stays the first."""
        while self._waiting:
            fence, go = next(iter(self._waiting.items()))
            go()
            if fence in self._waiting:
                return

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            self._later(LOOK_AGAIN_S, self._look_again)

    def _look_again(self) -> None:
        self._looking = False
        if self._waiting:
            self._look()
            if self._waiting:
                self._look_later()
