"""One worker process from start to end: its name and folder, its parts, and how it stops.

It stops in order on SIGTERM (jobs get TERM and their ends are reported), and at once when its parent is
gone, when another process took its name, or on a fault of its own. Whichever way, the launcher sees its
end of file and no job outlives it.
"""

import asyncio
import contextlib
import fcntl
import glob
import itertools
import os
import re
import signal
import socket
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from titan import __version__
from titan.core.link import STOP_GRACE_MS, Order, WorkerLink
from titan.model.ids import JOB_ID_CHARS_MAX, one_line
from titan.model.limits import Limits
from titan.model.spec import GPU
from titan.model.wire import PROTOCOL, Hello
from titan.worker.attempts import Attempts, raise_again
from titan.worker.connection import Connection, Handler, Removed, Replaced
from titan.worker.devices import Device, Devices, NotFound, find
from titan.worker.environment import JobEnvironment, install_site
from titan.worker.launcher.frames import boot_ms
from titan.worker.launcher.tree import become_subreaper
from titan.worker.logs import LINES_BYTES_MAX, Logs
from titan.worker.policy import Policy
from titan.worker.restart import Predecessor
from titan.worker.scripts import Scripts
from titan.worker.workspace import SCRIPTS, SPOOL, Workspaces

EXIT_OK = 0
EXIT_FAULT = 1
EXIT_REFUSED = 6
# After the last job ended, for the Master's word that its end is durable.
ACK_WAIT_S = 2.0
SWEEP_EVERY_S = 3600.0
TEND_EVERY_S = 5.0
SUFFIX_BYTES = 2
SUFFIX = re.compile(r"-[0-9a-f]{4}")


class NameTaken(Exception):
    """A living worker on this home has that name."""


class Config(msgspec.Struct, frozen=True):
    """What a worker is told at its start.

    `urls` are addresses of one Master, `ca` is whom to trust there (a file, a fingerprint, "" for the system). `name`
    "": the first free HOST-N. `has_credential`: the token is its own, so a Master that refuses it wants it no more.
    `preload`: modules that jobs find imported; None: every job is executed. Descriptors: -1 for none.
    """

    home: Path
    urls: tuple[str, ...]
    name: str
    slots: int
    capabilities: tuple[str, ...]
    pass_env: tuple[str, ...]
    token_file: Path
    ca: str = ""
    has_credential: bool = False
    policy: Policy = Policy()
    preload: tuple[str, ...] | None = ()
    parent_fd: int = -1
    ready_fd: int = -1


class Name:
    """A worker's name with its folder HOME/workers/NAME, locked while this object lives."""

    def __init__(self, home: Path, name: str) -> None:
        self.name = name
        self.folder = (home / "workers" / name).resolve()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for made in (self.folder.parent, self.folder):
            # It may be older than this care.
            if made.stat().st_mode & 0o077:
                made.chmod(0o700)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise NameTaken(f"a worker named {name} is running on {home}: stop it, or choose another --name") from error

    def close(self) -> None:
        """Give the name up."""
        os.close(self._lock)


def take_name(home: Path, name: str) -> Name:
    """Return the lock on `name`, or on the first free HOST-N when it is "". Raises NameTaken.

    Where a HOST-N had to become HOST-N-SUFFIX, for another machine has that name, it stays that.
    """
    if name:
        return Name(home, name)
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname().split(".")[0]).strip("._-") or "worker"
    for number in itertools.count(1):
        base = f"{host[: JOB_ID_CHARS_MAX - 16]}-{number}"
        for known in _suffixed(home, base) or [base]:
            with contextlib.suppress(NameTaken):
                return Name(home, known)
    raise AssertionError("there is always a next number")


def take_other_name(home: Path, name: Name) -> Name:
    """Give up a name that another machine has, and return the lock on it with a suffix that nobody else has."""
    name.close()
    return Name(home, f"{name.name}-{os.urandom(SUFFIX_BYTES).hex()}")


def _suffixed(home: Path, base: str) -> list[str]:
    # With one that is on its way too: the answer to its enrolment may have been lost.
    found = {path.parent.name for path in (home / "workers").glob(f"{glob.escape(base)}-*/credential*")}
    return sorted(name for name in found if SUFFIX.fullmatch(name.removeprefix(base)))


class Worker:
    """One run of a worker. `environ` is the environment jobs are given parts of."""

    def __init__(self, config: Config, name: Name, environ: Mapping[str, str]) -> None:
        self._config = config
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._incarnation = uuid.uuid4().hex
        self._known = False
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        self._end: asyncio.Future[int] = self._loop.create_future()
        self._stopping = asyncio.Event()
        self._progress = asyncio.Event()
        self._link = WorkerLink(config.slots, config.policy.lent_max)
        handler = Handler(self._hello, self._obey, self._read_log, self._answered, self.say)
        self._connection = Connection(
            config.urls,
            config.token_file,
            self._link,
            handler,
            ca=config.ca,
            beside=config.parent_fd >= 0,
            has_credential=config.has_credential,
        )
        folder = name.folder
        # Beside the workers' folders, where no worker's name can be.
        self._devices = Devices(self._found(environ), folder.parent / ".gpu", self._loop.call_later)
        limits = Limits.load(environ)
        before = Predecessor(folder, self._boot_id, self.say)
        self._predecessor = before.incarnation
        workspaces = Workspaces(folder)
        workspaces.discard("python")
        install_site(folder / "python")
        self._logs = Logs(
            folder / SPOOL,
            self._loop.call_soon_threadsafe,
            self._grew,
            self._link.log_skipped,
            limits.log_job_bytes_max - LINES_BYTES_MAX,
            kept=before.fences,
        )
        self._outbox, ends = before.hand_on(self._logs, self._link)
        self._attempts = Attempts(
            self._link,
            self._logs,
            Scripts(folder / SCRIPTS, self._master, self._connection.token, config.ca),
            workspaces,
            self._outbox,
            JobEnvironment(self._master, folder / "python", environ, config.pass_env, config.ca),
            self._devices,
            sys.executable,
            limits,
            config.policy,
            changed=self._changed,
            say=self.say,
            preload=config.preload,
        )
        for ended in ends:
            self._attempts.settle(ended)

    def say(self, text: str) -> None:
        """Tell the person who started it."""
        # Some of it is a stranger's: what a Master answered, what a job named its files.
        print(f"worker {self._name.name}: {one_line(text)}", file=sys.stderr, flush=True)  # noqa: T201 - it is its voice

    def _master(self) -> str:
        return self._connection.url

    def _found(self, environ: Mapping[str, str]) -> tuple[Device, ...]:
        if GPU not in self._config.capabilities:
            return ()
        try:
            found = find(environ)
        except NotFound as error:
            self.say(f"no GPU is handed out: {error}; {GPU} is a plain tag here")
            return ()
        listed = ", ".join(f"{device.index} {device.name} ({device.uuid})" for device in found)
        self.say(f"one GPU job a device: {listed}")
        return found

    async def run(self) -> int:
        """Work until stopped; return the exit code. No job is left when this returns."""
        self._loop.set_exception_handler(self._fault)
        tasks = [asyncio.create_task(part) for part in (self._connect(), self._announce(), self._stop_in_order())]
        for task in tasks:
            task.add_done_callback(raise_again)
        self._watch()
        self._sweep()
        self._tend()
        try:
            return await self._end
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._attempts.close()
            self._logs.close()
            self._outbox.close()

    def _watch(self) -> None:
        self._loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        if self._config.parent_fd < 0:
            self._loop.add_signal_handler(signal.SIGINT, self._interrupted)
            return
        # Ctrl+C reaches the whole group; it is the parent who says TERM then.
        self._loop.add_signal_handler(signal.SIGINT, lambda: None)
        self._loop.add_reader(self._config.parent_fd, self._parent_gone)

    def _interrupted(self) -> None:
        if self._stopping.is_set():
            self._finish(EXIT_FAULT)
        self._stopping.set()

    def _parent_gone(self) -> None:
        if not os.read(self._config.parent_fd, 4096):
            self._loop.remove_reader(self._config.parent_fd)
            self._finish(EXIT_FAULT)

    def _finish(self, code: int) -> None:
        if not self._end.done():
            self._end.set_result(code)

    def _fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # Somebody starts us again, and the Master grants anew what we held: better than a lost attempt.
        loop.default_exception_handler(context)
        self._finish(EXIT_FAULT)

    async def _connect(self) -> None:
        try:
            await self._connection.run()
        except Replaced:
            self.say("another worker with this name has connected; leaving, and its jobs with it")
            self._finish(EXIT_REFUSED)
        except Removed as removed:
            self.say(
                f"{removed}; leaving, and its jobs with it. Next: print a line at the Master, titan worker join-token"
            )
            self._finish(EXIT_REFUSED)

    async def _announce(self) -> None:
        await self._connection.welcomed.wait()
        if self._config.ready_fd >= 0:
            os.write(self._config.ready_fd, b"ready\n")
            os.close(self._config.ready_fd)

    async def _stop_in_order(self) -> None:
        await self._stopping.wait()
        self._obey(self._link.leave())
        deadline_s = time.monotonic() + STOP_GRACE_MS / 1000 + ACK_WAIT_S
        while self._link.owes and time.monotonic() < deadline_s:
            if not self._link.running:
                deadline_s = min(deadline_s, time.monotonic() + ACK_WAIT_S)
            self._progress.clear()
            try:
                await asyncio.wait_for(self._progress.wait(), deadline_s - time.monotonic())
            except TimeoutError:
                break
        self._finish(EXIT_OK)

    def _sweep(self) -> None:
        self._attempts.sweep()
        self._loop.call_later(SWEEP_EVERY_S, self._sweep)

    def _tend(self) -> None:
        self._attempts.tend_record()
        self._loop.call_later(TEND_EVERY_S, self._tend)

    def _hello(self) -> Hello:
        config = self._config
        return Hello(
            name=self._name.name,
            incarnation=self._incarnation,
            boot_id=self._boot_id,
            protocol=PROTOCOL,
            version=__version__,
            capabilities=config.capabilities,
            slots=config.slots,
            attempts=self._link.hello(boot_ms()),
            pid=os.getpid(),
            host=socket.gethostname(),
            epoch_seen=self._link.epoch_seen,
            draining=self._link.draining,
            devices=self._devices.names,
            predecessor=self._predecessor,
        )

    def _obey(self, orders: list[Order]) -> None:
        self._attempts.obey(orders)

    def _read_log(self, fence: int, offset: int, length: int) -> bytes:
        return self._logs.read(fence, offset, length)

    def _answered(self, sent_ms: int) -> None:
        if not self._known:
            # What was the predecessor's and not begun is decided now; what comes next is ours.
            self._known = True
            self._predecessor = ""
            self._outbox.own(self._incarnation)
        self._attempts.answered(sent_ms)

    def _grew(self, totals: dict[int, int]) -> None:
        for fence, total in totals.items():
            self._link.log_grew(fence, total)
        self._connection.wake()

    def _changed(self) -> None:
        self._connection.wake()
        self._progress.set()


async def serve(config: Config, name: Name, environ: Mapping[str, str]) -> int:
    """Run one worker in this process until it stops; return its exit code."""
    # For the one case that the launcher dies before its jobs.
    become_subreaper()
    return await Worker(config, name, environ).run()
