"""The launcher's loop: orders in, reports out, deadlines kept, nobody left behind.

Everything waits in one epoll: orders from the worker, exec results, deaths of children, one timer. A job
is over when its main process was reaped; its slot is free when no leftover of it lives, and only then is
its end reported. Leftovers have LEFTOVER_GRACE_MS from the end of the main process, then KILL, again and
again as children of the killed fall to us, until none is left.

End of file from the worker means that nobody wants these jobs any more: kill all, leave. What is reported
is written into the worker's record first, so an end is known to the next worker when this one dies.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import errno
import gc
import os
import select
import time

from titan.worker.launcher import failure, frames, record, tree
from titan.worker.launcher.become import Become, Program, settle
from titan.worker.launcher.bootclock import BootTimer
from titan.worker.launcher.frames import Launch, Ping, Record, Report, Stop, boot_ms
from titan.worker.launcher.inbox import Inbox
from titan.worker.launcher.oom import OomCounter
from titan.worker.launcher.server import Server, Unfit
from titan.worker.launcher.spawn import Spawner

LEFTOVER_GRACE_MS = 500
STOP_GRACE_MS = 10_000
# Jobs that follow each other closely do not wait for a fork that none of them asked for yet, nor does the end of one
# that has just begun.
SPARE_AFTER_S = 0.001
SPARE_AFTER_START_S = 0.01
NEVER = 1 << 62
_SIGCONT, _SIGKILL, _SIGTERM = _signal.SIGCONT, _signal.SIGKILL, _signal.SIGTERM


class Job:
    """One attempt from fork to the end of its last process. Times are boot milliseconds."""

    __slots__ = (
        "cause", "failure", "grace_until", "hard", "kill_at", "killed", "oom_before", "order", "pid", "reading",
        "running", "shim", "status", "timeout_at",
    )  # fmt: skip

    def __init__(self, order: Launch, pid: int, shim: int, reading: int, oom_before: int) -> None:
        self.order = order
        self.pid = pid
        self.shim = shim
        self.reading = reading
        self.oom_before = oom_before
        self.running = False
        self.failure: tuple[int, int] | None = None
        self.cause = frames.CAUSE_NONE
        self.timeout_at = NEVER
        self.kill_at = NEVER
        self.hard = False
        self.status = 0
        self.grace_until = NEVER
        self.killed = 0


class Launcher:
    """Serves one worker over the socket `control`; `recording` is the descriptor of its record, -1 for none.

    `server`: what it was prepared for, so that its forks can become jobs.
    """

    def __init__(self, control: int, recording: int = -1, server: Server | None = None) -> None:
        self._recording = recording
        self._control = _socket.socket(fileno=control)
        self._control.setblocking(False)
        self._inbox = Inbox()
        self._reports = bytearray()
        self._waiting = False
        self._living: dict[int, Job] = {}
        self._mains: dict[int, Job] = {}
        self._shims: set[int] = set()
        self._execs: dict[int, Job] = {}
        self._ended: list[Job] = []
        self._strays: dict[int, list[Job]] = {}
        self._renewed_ms = 0
        self._latest = 0  # the pid of the job that was started last
        self._latest_s = 0.0
        self._oom = OomCounter()
        self._timer = BootTimer()
        self._poll = select.epoll()
        self._deaths, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        self._spawner = Spawner(server)
        for descriptor in (control, self._deaths, self._timer.descriptor):
            self._poll.register(descriptor, select.EPOLLIN)

    def run(self) -> Become | None:
        """Serve until the worker is gone; every process of every job is gone when this returns.

        It returns in forks too, which are told what to become.
        """
        try:
            self._serve()
        except Become as become:
            # Before anything of the job takes their numbers.
            self._control.close()
            self._poll.close()
            self._inbox.wipe()
            return become
        return None

    def _serve(self) -> None:
        while True:
            due_ms = self._next_deadline()
            self._timer.set(due_ms)
            events = self._poll.poll(self._spare_after_s())
            if not events:
                self._spawner.make_spare()
            for descriptor, _ in events:
                if descriptor in self._execs:
                    self._exec_known(self._execs[descriptor])
                elif descriptor == self._deaths:
                    os.read(self._deaths, 4096)
                    self._reap()
                elif descriptor == self._timer.descriptor:
                    self._timer.clear()
                elif not self._receive():
                    self._leave()
                    return
            now_ms = boot_ms()
            if now_ms >= due_ms:
                self._enforce(now_ms)
            if self._ended:
                self._clear_leftovers(now_ms)
            self._flush()

    def _spare_after_s(self) -> float | None:
        if not self._spawner.wants_spare:
            return None
        if self._latest not in self._mains:
            return SPARE_AFTER_S
        return max(SPARE_AFTER_S, self._latest_s + SPARE_AFTER_START_S - time.monotonic())

    def _receive(self) -> bool:
        """Take what the worker sent; False at its end."""
        try:
            if not self._inbox.receive(self._control):
                return False
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        while (order := self._inbox.take()) is not None:
            self._obey(order)
        return True

    def _obey(self, order: frames.Taken) -> None:
        if isinstance(order, Launch):
            self._start(order, self._inbox.descriptors.pop(0))
        elif isinstance(order, Record):
            self._record_into(self._inbox.descriptors.pop(0), order.number)
        elif isinstance(order, Stop):
            job = self._living.get(order.fence)
            if job is not None:
                self._stop(job, order.cause, order.grace_ms)
        elif isinstance(order, Ping):
            self._report(frames.ALIVE, 0, 0, 0)
        else:
            self._renewed_ms = max(self._renewed_ms, order.at_ms)

    def _start(self, order: Launch, output: int | None) -> None:
        if output is None:
            # The kernel dropped the descriptor because our table is full.
            self._report(frames.NOT_STARTED, order.fence, errno.EMFILE, frames.STAGE_FORK)
            return
        oom_before = self._oom.read_lately(boot_ms())
        try:
            pid, shim, reading = self._spawner.spawn(order, output)
        except OSError as error:
            self._report(frames.NOT_STARTED, order.fence, error.errno or 0, frames.STAGE_FORK)
            return
        finally:
            os.close(output)
        self._latest, self._latest_s = pid, time.monotonic()
        job = Job(order, pid, shim, reading, oom_before)
        if shim:
            self._shims.add(shim)
        self._living[order.fence] = self._mains[pid] = self._execs[reading] = job
        self._poll.register(reading, select.EPOLLIN)

    def _exec_known(self, job: Job) -> None:
        try:
            job.failure = failure.read(job.reading)
        except BlockingIOError:
            return
        self._poll.unregister(job.reading)
        del self._execs[job.reading]
        os.close(job.reading)
        if job.failure is not None:
            return
        job.running = True
        if job.order.timeout_ms:
            job.timeout_at = boot_ms() + job.order.timeout_ms
        self._report(frames.STARTED, job.order.fence, job.pid, 0)
        if job.cause:
            self._terminate(job)

    def _stop(self, job: Job, cause: int, grace_ms: int) -> None:
        job.kill_at = min(job.kill_at, boot_ms() + grace_ms)
        if job.cause == frames.CAUSE_NONE:
            job.cause = cause
            if job.running:
                self._terminate(job)

    def _terminate(self, job: Job) -> None:
        tree.signal_group(job.pid, _SIGTERM)
        # A stopped process would only see it when it goes on.
        tree.signal_group(job.pid, _SIGCONT)

    def _kill(self, job: Job) -> None:
        job.hard = True
        job.kill_at = NEVER
        tree.signal_group(job.pid, _SIGKILL)
        tree.signal_process(job.pid, _SIGKILL)
        if job.shim in self._shims:
            tree.signal_process(job.shim, _SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                # Looked at first: whose leftover it was is known only until it is reaped.
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if dead is None:
                break
            pid = dead.si_pid
            if not self._ours(pid):
                self._count_killed(pid, dead.si_status if dead.si_code == os.CLD_KILLED else 0)
            status = os.waitpid(pid, 0)[1]
            self._shims.discard(pid)
            self._spawner.reaped(pid)
            job = self._mains.pop(pid, None)
            if job is not None:
                self._main_ended(job, status)

    def _ours(self, pid: int) -> bool:
        return pid in self._mains or pid in self._shims or pid in self._spawner.spares

    def _count_killed(self, pid: int, number: int) -> None:
        owners = self._strays.pop(pid, None)
        if number == _SIGKILL and self._ended:
            # One in the group of another that was killed fell to us dead, unseen until now.
            job = (owners or self._owners(pid))[-1]
            # Of a tree that was to be killed as a whole none was "left behind".
            if job.hard and job.grace_until != NEVER:
                job.killed += 1

    def _main_ended(self, job: Job, status: int) -> None:
        if self._execs.get(job.reading) is job:
            self._exec_known(job)
        del self._living[job.order.fence]
        if job.failure is not None:
            for owners in self._strays.values():
                if job in owners:
                    owners.remove(job)
            self._report(frames.NOT_STARTED, job.order.fence, *job.failure)
            return
        job.status = status
        died_of_kill = os.WIFSIGNALED(status) and os.WTERMSIG(status) == _SIGKILL
        if died_of_kill and not job.hard and self._oom.read() > job.oom_before:
            job.cause = frames.CAUSE_OUT_OF_MEMORY
        if not job.hard:
            job.grace_until = boot_ms() + LEFTOVER_GRACE_MS
        self._ended.append(job)

    def _enforce(self, now_ms: int) -> None:
        """Do what is due for those that live: stops that were too slow, timeouts, leases."""
        for job in self._living.values():
            if now_ms >= min(job.kill_at, self._lease_kill(job)):
                if job.cause == frames.CAUSE_NONE:
                    job.cause = frames.CAUSE_LEASE
                self._kill(job)
            elif job.cause == frames.CAUSE_NONE:
                if now_ms >= job.timeout_at:
                    self._stop(job, frames.CAUSE_TIMEOUT, STOP_GRACE_MS)
                elif now_ms >= self._lease_end(job):
                    grace_ms = job.order.lease_kill_ms - job.order.lease_term_ms
                    self._stop(job, frames.CAUSE_LEASE, grace_ms)

    def _lease_end(self, job: Job) -> int:
        return self._renewed_ms + job.order.lease_term_ms if job.order.lease_term_ms else NEVER

    def _lease_kill(self, job: Job) -> int:
        """Return when the job is killed whatever it ends for: from then on another may run in its place."""
        if not job.order.lease_kill_ms or job.hard:
            return NEVER
        return self._renewed_ms + job.order.lease_kill_ms

    def _clear_leftovers(self, now_ms: int) -> None:
        for pid in tree.children():
            if not self._ours(pid) and pid not in self._strays:
                self._strays[pid] = self._owners(pid)
        for job in list(self._ended):
            left = [pid for pid, owners in self._strays.items() if job in owners]
            if not left and job.shim not in self._shims:
                self._ended.remove(job)
                self._report(frames.ENDED, job.order.fence, job.status, job.cause, job.killed)
            elif job.hard or now_ms >= job.grace_until:
                job.hard = True
                for pid in left:
                    if self._strays[pid][-1] is job:
                        tree.kill_child(pid)

    def _owners(self, pid: int) -> list[Job]:
        """Say whose leftover `pid` may be: by session, or by the mark in its environment, else any that ended.

        One of a chain of forks is often dead before it can be looked at, and the next one is alive: so one that
        leaves untold holds back every end until it is gone, also of jobs that end meanwhile. One that stays untold
        holds back those that may have left it, and is killed with the last of them. A process of a living job,
        which can come here only if that job gave up keeping its orphans, stays.
        """
        fence = tree.fence_mark(pid)
        seen = tree.look(pid)  # after its mark was read, so what has none and is not leaving never had one
        for job in (*self._ended, *self._living.values()):
            if (seen is not None and seen.session == job.pid) or fence == job.order.fence:
                return [job]
        if seen is None or seen.leaving:
            return self._ended  # itself, not a copy
        return [*self._ended, *(job for job in self._living.values() if self._keeper_dead(job))]

    def _keeper_dead(self, job: Job) -> bool:
        """Say whether what `job` left falls to us already, while its end is not known yet."""
        keeper = job.shim or job.pid
        if job.shim and job.shim not in self._shims:
            return True
        return os.waitid(os.P_PID, keeper, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _next_deadline(self) -> int:
        deadline = NEVER
        for job in self._living.values():
            deadline = min(deadline, job.kill_at, self._lease_kill(job))
            if job.cause == frames.CAUSE_NONE:
                deadline = min(deadline, job.timeout_at, self._lease_end(job))
        for job in self._ended:
            # Once killed, the death of a leftover tells us to look again.
            if not job.hard:
                deadline = min(deadline, job.grace_until)
        return deadline

    def _record_into(self, recording: int | None, number: int) -> None:
        if recording is None:
            self._report(frames.SWITCHED, number, errno.EMFILE, 0)
            return
        os.close(self._recording)
        self._recording = recording
        self._report(frames.SWITCHED, number, 0, 0)

    def _report(self, kind: int, fence: int, a: int, b: int, killed: int = 0) -> None:
        report = Report(kind, fence, a, b, killed, time.time_ns() // 1_000_000)
        if kind not in (frames.SWITCHED, frames.ALIVE) and self._recording >= 0:
            record.append(self._recording, record.of_report(report))
        self._reports += frames.encode_report(report)

    def _flush(self) -> None:
        if not self._reports:
            return
        try:
            del self._reports[: self._control.send(self._reports)]
        except BlockingIOError:
            pass
        except ConnectionError:
            return  # the end of file comes with the next poll
        if bool(self._reports) != self._waiting:
            self._waiting = not self._waiting
            interest = select.EPOLLIN | (select.EPOLLOUT if self._waiting else 0)
            self._poll.modify(self._control.fileno(), interest)

    def _leave(self) -> None:
        # Those that ended by themselves did so, told or not; their leftovers do not survive the next lines.
        self._reap()
        for job in self._ended:
            self._report(frames.ENDED, job.order.fence, job.status, job.cause, job.killed)
        for job in self._living.values():
            self._kill(job)
        tree.kill_all_children()


def _tell(telling: int, text: str) -> bool:
    data = f"{text}\n".encode("utf-8", "backslashreplace")
    try:
        return os.write(telling, data) == len(data)
    except OSError:
        return False


def main(control: int, recording: int = -1, telling: int = -1, preload: list[str] | None = None) -> Program | None:
    """Run a launcher for the worker at the other end of `control`; `recording` is its record, -1 for none.

    With `telling` it is a warm one: it imports `preload`, and writes there which modules jobs find imported, a line
    each, or, after "!", why it cannot be one, and leaves; before that, after "?", what it imports, should that end it.
    Return what a fork of it has to become, None when it is done.
    """
    os.umask(0o077)
    # They came through an exec; a job that held the first would keep us alive.
    for descriptor in (control, recording, telling):
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    tree.become_subreaper()
    server = None
    if telling >= 0:
        try:
            server = Server(preload or [], lambda name: _tell(telling, f"?{name}"))
            said = "\n".join(server.names())
        except Unfit as unfit:
            said = f"!{unfit}"
        if not _tell(telling, said) or server is None:
            return None  # its worker is gone, or it is of no use; no job was begun
        os.close(telling)
        settle(server)
    launcher = Launcher(control, recording, server)
    gc.collect()
    gc.disable()
    gc.freeze()
    become = launcher.run()
    return None if become is None or server is None else Program(server, become, launcher)
