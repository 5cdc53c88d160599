"""Attempts on a bench: everything real around them but the launcher, which records, and the Master."""

import asyncio
import hashlib
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from titan.core.link import WorkerLink
from titan.core.pieces import Piece
from titan.model.limits import Limits
from titan.model.spec import JobSpec, encode_spec
from titan.model.wire import Grant, RenewAck, Welcome, WorkerMessage
from titan.worker import attempts as attempts_module
from titan.worker.attempts import Attempts
from titan.worker.devices import Device, Devices
from titan.worker.environment import JobEnvironment
from titan.worker.launcher import frames
from titan.worker.launcher.frames import Report, boot_ms
from titan.worker.logs import Logs
from titan.worker.outbox import Outbox
from titan.worker.policy import Policy
from titan.worker.scripts import Scripts
from titan.worker.workspace import Workspaces

WAIT_S = 30.0
CONTENT = b"print('x')\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SPEC = JobSpec(job_id="j", filename="job.py", script=SHA256)


class Recorder:
    """A launcher that starts nothing."""

    pid = 0

    def __init__(self, on_report: Callable[..., None], on_gone: Callable[[], None], recording: int, _: object) -> None:
        self.on_report = on_report
        self.on_gone = on_gone
        self.recording = recording
        self.orders: list[frames.Order] = []
        self.ordered = asyncio.Event()
        self.hangs = False

    def send(self, order: frames.Order, descriptor: int | None = None) -> None:
        if isinstance(order, frames.Ping):
            if not self.hangs:
                self.on_report(Report(frames.ALIVE, 0, 0, 0, 0, 0))
            return
        self.orders.append(order)
        self.ordered.set()
        if descriptor is not None:
            os.close(descriptor)

    def kill(self) -> None:
        self.on_gone()

    def close(self) -> None:
        """Nothing is held."""

    def wait(self, timeout_s: float) -> bool:
        return True


class Bench:
    """Attempts with everything real around them but the launcher and the Master."""

    def __init__(self, folder: Path, devices: tuple[Device, ...] = (), policy: Policy | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.folder = folder
        self.link = WorkerLink(2)
        self.link.hello(boot_ms())
        self.link.welcome(Welcome(epoch=1))
        self.sent: list[WorkerMessage | Piece] = []
        self.said: list[str] = []
        self.logs = Logs(folder / "spool", loop.call_soon_threadsafe, lambda _: None, lambda *_: None)
        scripts = Scripts(folder / "scripts", lambda: "http://127.0.0.1:1", lambda: "token")
        (folder / "scripts" / SHA256).write_bytes(CONTENT)
        self.changed = asyncio.Event()
        self.attempts = Attempts(
            self.link,
            self.logs,
            scripts,
            Workspaces(folder),
            Outbox(folder, "a-boot"),
            JobEnvironment(lambda: "http://127.0.0.1:1", folder / "python", {}),
            Devices(devices, folder / "gpu", loop.call_later),
            "/the/python",
            Limits(),
            policy or Policy(),
            changed=self.changed.set,
            say=self.said.append,
        )

    @property
    def launcher(self) -> Recorder:
        return cast(Recorder, self.attempts._launcher)

    def grant(self, fence: int, spec: JobSpec = SPEC) -> None:
        self.attempts.obey(self.link.grant(Grant(fence, "r", "j", 1, 1, encode_spec(spec), "t", "k", "a")))

    def report(self, kind: int, fence: int, a: int = 0, b: int = 0) -> None:
        self.launcher.on_report(Report(kind, fence, a, b, 0, 5))

    def answer(self, sent_ms: int) -> None:
        """The Master answers a renewal sent at `sent_ms`."""
        self.link.renewed(RenewAck(self.link.renew(sent_ms).seq), sent_ms)
        self.attempts.answered(self.link.answered_ms)

    async def next(self, kind: type[Any]) -> Any:
        """Return the next message of `kind` that would be sent."""
        while True:
            self.sent += self.link.next_frame(0)
            for message in self.sent:
                if isinstance(message, kind):
                    self.sent.remove(message)
                    return message
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), WAIT_S)


def bench(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    story: Callable[[Bench], Coroutine[Any, Any, None]],
    policy: Policy | None = None,
) -> None:
    """Run `story` on a bench in an event loop of its own."""
    monkeypatch.setattr(attempts_module, "LauncherProcess", Recorder)
    monkeypatch.setattr(attempts_module, "GIVE_BACK_DELAY_S", 0)
    monkeypatch.setattr(attempts_module, "LAUNCHER_PAUSE_S", 0)
    # Those of the tests are not its own.
    monkeypatch.setattr(attempts_module, "kill_all_children", lambda: None)

    async def play() -> None:
        here = Bench(folder, policy=policy)
        try:
            await story(here)
        finally:
            await here.attempts.close()
            here.logs.close()

    asyncio.run(play())
