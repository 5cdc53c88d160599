"""Carries attempts from grant to end: script, folder, pipe, launcher, log, clean-up.

`WorkerLink` decides what is held and said; here its orders are carried out and what happened is told back
to it. File work runs on two threads of its own, so a slow disk never holds the link's renewals.
"""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from titan.core.link import Abandon, Forget, Kill, Order, Prepare, WorkerLink, lease_margins_ms
from titan.model.ids import shown
from titan.model.limits import Limits
from titan.model.spec import JobSpec, decode_spec
from titan.model.wire import Ended, Grant
from titan.worker import endings
from titan.worker.devices import Devices
from titan.worker.environment import JobEnvironment, exact
from titan.worker.launcher import frames
from titan.worker.launcher.frames import Ping, Record, Renewed, Report, Start, Stop, boot_ms
from titan.worker.launcher.tree import kill_all_children
from titan.worker.launching import LauncherProcess, Warming
from titan.worker.logs import Logs
from titan.worker.outbox import Outbox
from titan.worker.policy import Policy, grant_problem
from titan.worker.scripts import ScriptGone, Scripts
from titan.worker.warmth import WARM, Warmth, named
from titan.worker.workspace import Workspaces, command

# A machine that cannot start a job offers its slot again after this long, not at once.
GIVE_BACK_DELAY_S = 1.0
COPIED_AT_ONCE_BYTES = 64 * 1024
FOLDER_MS_AT_ONCE = 20
# While others wait for a slot, that a job has started is said with its end when that comes within so long.
START_WAIT_S = 0.005
LAUNCHER_PAUSE_S = 0.2
LAUNCHER_LEAVES_S = 5.0
# In turns of this worker, so that time in which it slept itself does not count.
UNANSWERED_MAX = 12
# Of attempts that are refused each is told up to here, then one in so many: a Master may send them without end.
REFUSALS_SAID = 100
REFUSALS_EACH = 1_000
NO_SPEC = JobSpec(job_id="", filename="")


class Attempts:
    """The attempts of one worker. `changed` is called when there may be something to send.

    `preload` are modules that jobs shall find imported; None: no job is started warm.
    """

    def __init__(
        self,
        link: WorkerLink,
        logs: Logs,
        scripts: Scripts,
        workspaces: Workspaces,
        outbox: Outbox,
        environment: JobEnvironment,
        devices: Devices,
        python: str,
        limits: Limits,
        policy: Policy,
        changed: Callable[[], None],
        say: Callable[[str], None],
        preload: tuple[str, ...] | None = None,
    ) -> None:
        self._link = link
        self._logs = logs
        self._scripts = scripts
        self._workspaces = workspaces
        self._outbox = outbox
        self._environment = environment
        self._devices = devices
        self._python = python
        self._limits = limits
        self._policy = policy
        self._preload = preload
        self._warmth = Warmth({})
        self._starts: dict[int, str] = {}
        self._unanswered = 0
        self._refusals = 0
        self._changed = changed
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._files = ThreadPoolExecutor(2, "titan-files")
        self._specs: dict[int, JobSpec] = {}
        self._fetching: dict[int, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._launcher_ready = asyncio.Event()
        self._answer = asyncio.Event()
        self._closed = False
        self._folder_ms = 0
        self._launcher = self._new_launcher()

    async def close(self) -> None:
        """Kill what still runs, wait until it is gone, and let the file work finish."""
        self._closed = True
        for task in list(self._background):
            task.cancel()
        self._launcher.close()
        await asyncio.to_thread(self._launcher.wait, LAUNCHER_LEAVES_S)
        await asyncio.to_thread(self._files.shutdown, cancel_futures=True)

    def answered(self, sent_ms: int) -> None:
        """The Master answered a renewal sent at `sent_ms`: all leases count from there."""
        self._launcher.send(Renewed(sent_ms))
        # Whoever waits does so for the next one.
        self._answer.set()
        self._answer.clear()

    def obey(self, orders: list[Order]) -> None:
        """Carry out what the link decided."""
        for order in orders:
            if isinstance(order, Prepare):
                self._prepare(order.grant)
            elif isinstance(order, Abandon):
                task = self._fetching.pop(order.fence, None)
                if task is not None:
                    task.cancel()
                self._devices.forget(order.fence)
            elif isinstance(order, Kill):
                self._launcher.send(Stop(order.fence, endings.CODES[order.cause], order.grace_ms))
            elif isinstance(order, Forget):
                # In this order: a log without a line of the record is removed at the next start.
                self._outbox.gone(order.fence)
                self._logs.forget(order.fence)
        self._changed()

    def tend_record(self) -> None:
        """Note that this worker lives, and have its record hold what it must and not much more; every few seconds."""
        self._outbox.alive()
        self._ask_launcher()
        if change := self._outbox.renewed():
            number, descriptor = change
            self._launcher.send(Record(number), descriptor)

    def sweep(self) -> None:
        """Remove what has been kept long enough."""
        self._do_later(self._remove_expired, frozenset(self._specs))
        self._do_later(self._scripts.sweep)

    # From the grant to the launcher

    def _prepare(self, grant: Grant) -> None:
        try:
            spec = decode_spec(grant.spec)
        except msgspec.DecodeError as error:
            self._refuse(grant, str(error))
            return
        if problem := grant_problem(grant, spec, self._limits):
            self._refuse(grant, problem)
            return
        spec = self._policy.bounded(spec)
        try:
            if not self._devices.take(grant.fence, spec, lambda: self._prepare(grant)):
                return
        except OSError as error:
            self._give_back(grant.fence, f"its device cannot be locked here: {error.strerror}")
            return
        try:
            script = self._scripts.kept(spec.script)
            # A small file at hand is copied on the spot: threads would cost more than the job's fork. Not on a slow
            # disk: until one folder is made fast again there, others are made where renewals do not wait for them.
            at_once = script is not None and self._launcher_ready.is_set() and self._folder_ms <= FOLDER_MS_AT_ONCE
            if script is not None and at_once and script.stat().st_size <= COPIED_AT_ONCE_BYTES:
                if problem := self._policy.script_problem(spec, script):
                    self._refuse(grant, problem)
                    return
                self._hand_over(grant, spec, *self._folders(grant, spec, script))
                return
        except OSError as error:
            self._no_folder(grant.fence, error)
            return
        self._fetching[grant.fence] = self._spawn(self._prepare_slowly(grant, spec))

    async def _prepare_slowly(self, grant: Grant, spec: JobSpec) -> None:
        fence = grant.fence
        try:
            script = self._scripts.kept(spec.script) or await self._scripts.fetch(spec.script)
        except ScriptGone as gone:
            self._refuse(grant, str(gone))
            return
        except OSError as error:
            self._give_back(fence, f"its script cannot be kept here: {error.strerror}")
            return
        finally:
            # From here on only `hand_over` decides whether it starts.
            self._fetching.pop(fence, None)
        try:
            if problem := self._policy.script_problem(spec, script):
                self._refuse(grant, problem)
                return
            workdir, shared = await self._loop.run_in_executor(self._files, self._folders, grant, spec, script)
        except OSError as error:
            self._no_folder(fence, error)
            return
        await self._launcher_ready.wait()
        self._hand_over(grant, spec, workdir, shared)

    async def _hand_over_answered(self, stale_ms: int, grant: Grant, spec: JobSpec, workdir: str, shared: str) -> None:
        """Hand it over when the Master has answered again: its lease counts from a word older than the grant."""
        while self._link.answered_ms == stale_ms:
            await self._answer.wait()
        await self._launcher_ready.wait()
        self._hand_over(grant, spec, workdir, shared)

    def _no_folder(self, fence: int, error: OSError) -> None:
        self._clean(fence)
        self._give_back(fence, f"no folder for it can be made here: {error.strerror}")

    def _folders(self, grant: Grant, spec: JobSpec, script: Path) -> tuple[str, str]:
        begun_ms = boot_ms()
        workdir = self._workspaces.make(grant.fence, spec, script)
        shared = self._workspaces.shared(grant.fence, grant.agent_run_id)
        self._folder_ms = boot_ms() - begun_ms
        return workdir, shared

    def _hand_over(self, grant: Grant, spec: JobSpec, workdir: str, shared: str) -> None:
        fence = grant.fence
        term_ms, kill_ms = lease_margins_ms(spec)
        if term_ms and boot_ms() >= self._link.answered_ms + term_ms:
            if self._link.online:
                self._spawn(self._hand_over_answered(self._link.answered_ms, grant, spec, workdir, shared))
                return
            self._clean(fence)
            self._devices.forget(fence)
            self.obey(self._link.returned(fence, ""))
            return
        try:
            reading, writing = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            self._clean(fence)
            self._give_back(fence, f"no pipe for it can be made here: {error.strerror}")
            return
        recorded = self._outbox.begun(fence, spec)
        if not recorded or not self._link.hand_over(fence):
            os.close(reading)
            os.close(writing)
            self._clean(fence)
            self._devices.forget(fence)
            self._outbox.gone(fence)
            if not recorded:
                self._give_back(fence, "its start cannot be recorded here")
            return
        self._logs.add(fence, reading)
        self._specs[fence] = spec
        argv = [exact(word) for word in command(spec, workdir, self._python)]
        env = self._environment.of(grant, spec, workdir, shared, self._devices.visible(fence))
        timeout_ms = round(spec.timeout_s * 1000) if spec.timeout_s else 0
        self._starts[fence] = self._warmth.start_of(spec, env, workdir)
        warm = self._starts[fence] == WARM
        start = Start(fence, exact(workdir), argv, env, timeout_ms, term_ms, kill_ms, spec.reap, warm)
        self._launcher.send(start, writing)

    def _give_back(self, fence: int, reason: str) -> None:
        """Return it as this machine's fault, but not at once: it may well be granted here again."""
        self._devices.forget(fence)
        self._loop.call_later(GIVE_BACK_DELAY_S, lambda: self.obey(self._link.returned(fence, reason)))

    def _refuse(self, grant: Grant, reason: str) -> None:
        """End it as failed before anything ran: no machine could start it, or this one's owner does not allow it."""
        self._refusals += 1
        if self._refusals <= REFUSALS_SAID or self._refusals % REFUSALS_EACH == 0:
            number = f" (number {self._refusals})" if self._refusals > REFUSALS_SAID else ""
            self._say(f"refused attempt {grant.fence} of job {shown(grant.job_id)}{number}: {reason}")
        if self._link.hand_over(grant.fence):
            self._logs.add(grant.fence, None)
            self._specs[grant.fence] = NO_SPEC
            ended, line = endings.not_started(grant.fence, _wall_ms(), 127, f"could not start: {reason}")
            self._outbox.begun(grant.fence, NO_SPEC)
            self._finish(ended, line)

    # From the launcher to the end

    def _report(self, report: Report) -> None:
        fence = report.fence
        if report.kind == frames.ALIVE:
            self._unanswered = 0
            return
        if report.kind == frames.SWITCHED:
            self._outbox.switched(fence, done=not report.a)
            return
        self._outbox.heard(report)
        if report.kind == frames.STARTED:
            self._link.started(fence, report.at_ms, self._starts.get(fence, ""))
            if self._link.waiting:
                self._loop.call_later(START_WAIT_S, self._changed)
            else:
                self._changed()
            return
        end = endings.named(self._specs[fence], report)
        if end is None:
            del self._specs[fence]
            self._starts.pop(fence, None)
            self._clean(fence)
            self._give_back(fence, f"it cannot be started here: {os.strerror(report.a)}")
            return
        self._finish(*end)

    def _finish(self, ended: Ended, line: str) -> None:
        self._link.started(ended.fence, ended.at_ms)
        del self._specs[ended.fence]
        self._starts.pop(ended.fence, None)
        self._devices.forget(ended.fence)
        self._logs.finish(ended.fence, line, lambda total: self._over(ended, line, total))

    def _over(self, ended: Ended, line: str, total: int) -> None:
        ended = msgspec.structs.replace(ended, log_bytes=total)
        self._outbox.over(ended, line)
        self.obey(self._link.ended(ended))
        # Behind what is to be said of it, from which a thread would take the interpreter.
        self._loop.call_soon(self.settle, ended)

    def settle(self, ended: Ended) -> None:
        """Remove the folder of an attempt that is over, or leave it for its day."""
        if ended.exit_code == 0 and not ended.cause:
            self._clean(ended.fence)
        else:
            self._do_later(self._workspaces.keep, ended.fence)

    def _clean(self, fence: int) -> None:
        self._do_later(self._remove, fence)

    def _do_later(self, work: Callable[..., None], *args: object) -> None:
        # What is left over at the worker's end, its next start finds.
        if not self._closed:
            self._files.submit(work, *args)

    def _remove_expired(self, living: frozenset[int]) -> None:
        for fence in self._workspaces.expired(living):
            self._remove(fence)
        try:
            self._workspaces.remove_unused_shared()
        except OSError as error:
            self._say(f"an old shared folder cannot be removed: {error}")

    def _remove(self, fence: int) -> None:
        try:
            self._workspaces.remove(fence)
        except OSError as error:
            self._say(f"the folder of attempt {fence} cannot be removed: {error}")

    def _launcher_gone(self) -> None:
        self._launcher_ready.clear()
        self._spawn(self._replace_launcher())

    async def _replace_launcher(self) -> None:
        """Kill what the launcher left, end its jobs as it recorded it or else as lost, and start another."""
        self._say("the launcher was killed, and its jobs with it")
        await asyncio.to_thread(kill_all_children)
        recorded = await asyncio.to_thread(self._outbox.reports)
        for fence in list(self._specs):
            if fence in recorded:
                self._report(recorded[fence])
            else:
                self._finish(*endings.lost(fence, _wall_ms()))
        await asyncio.sleep(LAUNCHER_PAUSE_S)
        self._launcher = self._new_launcher()

    def _new_launcher(self) -> LauncherProcess:
        self._unanswered = 0
        warming = None
        if self._preload is not None:
            environ = self._environment.of_launcher()
            warming = Warming(environ, self._preload, lambda names, problem: self._warmed(environ, names, problem))
        launcher = LauncherProcess(self._report, self._launcher_gone, self._outbox.descriptor, warming)
        self._outbox.launched(launcher.pid)
        if warming is None:
            self._take_orders(launcher)
        return launcher

    def _warmed(self, environ: dict[str, str], names: list[str], problem: str) -> None:
        """The new launcher can be forked into jobs, or cannot: then with fewer modules, or it only executes."""
        if not problem:
            self._warmth = Warmth(environ, names, self._preload or (), "")
            self._take_orders(self._launcher)
            return
        if self._preload:
            bad = named(problem, self._preload)
            self._preload = tuple(name for name in self._preload if name not in bad)
            rest = f"; going on with {', '.join(self._preload)}" if self._preload else ""
            self._say(f"{', '.join(bad)} cannot be preloaded: {problem}{rest}")
        else:
            self._say(f"no job is started warm here: {problem}")
            self._preload = None
            self._warmth = Warmth({}, problem=f"no warm starts here: {problem}")
        self._launcher = self._new_launcher()

    def _take_orders(self, launcher: LauncherProcess) -> None:
        launcher.send(Renewed(self._link.answered_ms))
        self._launcher_ready.set()

    def _ask_launcher(self) -> None:
        """Ask the launcher whether it lives; one that has not answered so often is ended, and its jobs are lost."""
        if not self._launcher_ready.is_set():
            return
        if self._unanswered == UNANSWERED_MAX:
            self._say("the launcher does not answer")
            self._launcher.kill()
        self._unanswered += 1
        self._launcher.send(Ping())

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(raise_again)
        return task


def raise_again(task: asyncio.Task[None]) -> None:
    """Hand the exception of a task that nobody awaits to the loop's handler, which ends the process.

    A fault of ours must not leave an attempt without an end.
    """
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
