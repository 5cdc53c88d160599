"""A worker's link with attempts on it, for tests of what it does then."""

from titan.core.link import Prepare, WorkerLink
from titan.model.spec import JobSpec, encode_spec
from titan.model.wire import Grant, Started, Welcome


def grant(fence: int, priority: int | None = None) -> Grant:
    spec = b"" if priority is None else encode_spec(JobSpec("j", "f", priority=priority))
    return Grant(fence, "r", "j", 1, 1, spec, "t", "k", "a")


def online(slots: int = 2) -> WorkerLink:
    link = WorkerLink(slots)
    assert link.hello(1_000) == ()
    assert link.welcome(Welcome(epoch=5)) == []
    return link


def running(link: WorkerLink, fence: int) -> None:
    assert link.grant(grant(fence)) == [Prepare(grant(fence))]
    assert link.hand_over(fence)
    link.started(fence, 7)
    assert Started(fence, 7) in link.next_frame(0)
