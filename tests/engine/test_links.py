"""A worker's link: what is said before it is durable, who wins, what is repeated, and what ends it."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.bench import Bench, Worker, spec, turns, with_bench
from titan.core.events import CancelRun, WorkerConnected
from titan.core.scheduler import Scheduler
from titan.master import link as link_module
from titan.master import links as links_module
from titan.master import tokens
from titan.model.limits import Limits
from titan.model.states import JobState
from titan.model.wire import (
    CLOSE_BAD_FRAME,
    CLOSE_BUSY,
    CLOSE_FAILED,
    CLOSE_PROTOCOL,
    CLOSE_REPLACED,
    CLOSE_STOPPING,
    EPOCH_SHIFT,
    PROTOCOL,
    Ack,
    Ended,
    Grant,
    Held,
    Hello,
    Output,
    Renew,
    RenewAck,
    Returned,
    Started,
    Stop,
    Welcome,
)


def test_a_job_goes_out_is_run_and_its_log_is_kept(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        worker = await it.worker()
        run_id = await it.submit(spec("a"), spec("b", "a"))
        grant = await worker.hear(Grant)
        await worker.finish(grant, output=b"hello\n")
        assert (await it.job(run_id, "a")).state is JobState.COMPLETED
        assert await it.log(grant.fence) == b"hello\n"
        assert (await worker.hear(Grant)).job_id == "b"
        await it.agree()

    with_bench(story, tmp_path)


def test_a_grant_carries_a_token_that_is_good_while_the_attempt_lives(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        worker = await it.worker()
        run_id = await it.submit(spec("a"))
        grant = await worker.hear(Grant)
        who = tokens.check(it.engine.token_key, grant.token)
        assert who == tokens.JobIdentity(run_id, "a", 1, grant.fence)
        assert it.engine.holds(grant.fence)
        await worker.finish(grant)
        assert not it.engine.holds(grant.fence)
        assert it.engine.links._offsets.count() == 0

    with_bench(story, tmp_path)


def test_nothing_is_sent_before_the_commit_but_a_renewal_is_answered_at_once(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        worker = await it.worker()
        it.faults.hold()
        submitted = asyncio.ensure_future(it.submit(spec("a")))
        await it.faults.reached()
        worker.say(Renew(1), Renew(2))
        assert (await worker.hear(RenewAck)).seq == 1
        assert (await worker.hear(RenewAck)).seq == 2
        assert worker.heard(Grant) == []
        it.faults.let_go()
        await submitted
        assert (await worker.hear(Grant)).job_id == "a"

    with_bench(story, tmp_path)


def test_what_is_said_in_one_turn_is_one_frame_with_renewals_first(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        worker = await it.worker(slots=3)
        await it.submit(spec("a"), spec("b"), spec("c"))
        grants = await worker.grants(3)
        assert [len(frame) for frame in worker.frames] == [1, 3]
        worker.reads.clear()
        worker.say(*(Started(grant.fence) for grant in grants), Ended(grants[0].fence, 0), Renew(7), Renew(8))
        worker.say(Output(grants[1].fence, 0, b"log"), Ended(grants[2].fence, 0))
        await turns()
        await it.settled()
        await turns()
        worker.reads.set()
        acks = [await worker.hear(Ack)]
        while sum(len(ack.ended) + len(ack.log_offsets) for ack in acks) < 3:
            acks.append(await worker.hear(Ack))
        said = [type(message).__name__ for frame in worker.frames[2:] for message in frame]
        assert said[:2] == ["RenewAck", "RenewAck"]
        assert len(worker.frames) <= 4

    with_bench(story, tmp_path)


@pytest.mark.parametrize(
    "bad",
    [
        lambda fence: Output(fence, 4, b"x"),
        lambda fence: Output(fence, 0, b"x" * 1_001),
        lambda fence: Ended(fence, 2**40),
        lambda _: Hello("w", "first", "boot", PROTOCOL, "", ("GENERAL",), 1),
    ],
    ids=["gap", "output too long", "end out of range", "second hello"],
)
def test_f45_what_breaks_the_protocol_closes_the_link_and_changes_nothing(
    bad: Callable[[int], Any], tmp_path: Path
) -> None:
    async def story(it: Bench) -> None:
        worker = await it.worker()
        run_id = await it.submit(spec("a"))
        grant = await worker.hear(Grant)
        worker.say(Started(grant.fence))
        worker.say(bad(grant.fence))
        assert (await worker.closed)[0] == CLOSE_BAD_FRAME
        await worker.task
        await it.settled()
        assert (await it.job(run_id, "a")).state is JobState.RUNNING
        again = await it.worker(held=[Held(grant.fence, True)])
        await again.finish(grant)
        await it.agree()

    with_bench(story, tmp_path, Limits(output_bytes_max=1_000))


def test_log_bytes_before_what_breaks_the_protocol_are_kept(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        worker = await it.worker(slots=2)
        run_id = await it.submit(spec("a"), spec("b"))
        good, bad = [await worker.hear(Grant) for _ in "ab"]
        worker.say(Started(good.fence), Output(good.fence, 0, b"all "), Output(bad.fence, 7, b"x"))
        assert (await worker.closed)[0] == CLOSE_BAD_FRAME
        await worker.task
        await it.settled()
        assert await it.log(good.fence) == b"all "
        again = await it.worker(slots=2, held=[Held(good.fence, True), Held(bad.fence, True)])
        again.say(Output(good.fence, 0, b"all "), Output(good.fence, 4, b"of it"), Ended(good.fence, 0, log_bytes=9))
        while good.fence not in (await again.hear(Ack)).ended:
            pass
        assert (await it.job(run_id, good.job_id)).state is JobState.COMPLETED
        assert await it.log(good.fence) == b"all of it"

    with_bench(story, tmp_path)


def test_what_stands_behind_a_hello_in_its_frame_counts_too(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        hello = Hello("w", "first", "boot", PROTOCOL, "", ("GENERAL",), 1)
        good = Worker(it.engine, greet=False)
        good.say(hello, Renew(9))
        assert (await good.hear(RenewAck)).seq == 9
        bad = Worker(it.engine, greet=False)
        bad.say(hello, hello)
        assert (await bad.closed)[0] == CLOSE_BAD_FRAME
        await bad.task
        workers = await it.engine.ask(lambda scheduler, _: scheduler.worker_list())
        assert [worker["connected"] for worker in workers] == [False]

    with_bench(story, tmp_path)


def test_a_worker_that_is_gone_when_it_is_told_why_troubles_nobody(tmp_path: Path) -> None:
    class Gone(Worker):
        async def send(self, frame: bytes) -> None:
            raise OSError("gone")

        async def close(self, code: int, reason: str) -> None:
            await super().close(code, reason)
            raise OSError("gone")

    async def story(it: Bench) -> None:
        for frame in (b"garbage", b""):
            stranger = Gone(it.engine, greet=False)
            stranger.say_bytes(frame)
            await stranger.task
        gone = Gone(it.engine)
        await it.submit(spec("a"))
        gone.say_bytes(b"garbage")
        await gone.task
        assert (await (await it.worker(incarnation="next", predecessor="first")).hear(Grant)).job_id == "a"

    with_bench(story, tmp_path)


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x91\x01", b"x" * 2_000])
def test_f45_bytes_that_are_no_frame_close_the_link_before_and_after_the_hello(frame: bytes, tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        stranger = Worker(it.engine, greet=False)
        stranger.say_bytes(frame)
        assert (await stranger.closed)[0] == CLOSE_BAD_FRAME
        worker = await it.worker()
        worker.say_bytes(frame)
        assert (await worker.closed)[0] == CLOSE_BAD_FRAME
        await it.worker()

    with_bench(story, tmp_path, Limits(frame_bytes_max=1_999))


def test_a_stranger_that_says_nothing_or_leaves_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links_module, "HELLO_S_MAX", 0.01)

    async def story(it: Bench) -> None:
        silent = Worker(it.engine, greet=False)
        assert (await silent.closed)[0] == CLOSE_BAD_FRAME
        gone = Worker(it.engine, greet=False)
        gone.leave()
        await gone.task
        other = Worker(it.engine, greet=False)
        other.say(Hello("w", "i", "b", PROTOCOL + 1, "9", ("GENERAL",), 1))
        assert (await other.closed)[0] == CLOSE_PROTOCOL

    with_bench(story, tmp_path)


def test_f48_the_newest_of_a_name_wins_and_the_old_one_is_told(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        old = await it.worker(incarnation="old", boot_id="one machine")
        new = await it.worker(incarnation="new", boot_id="another machine")
        assert (await old.closed)[0] == CLOSE_REPLACED
        await old.task
        await it.submit(spec("a"))
        assert (await new.hear(Grant)).job_id == "a"
        assert old.heard(Grant) == []
        workers = await it.engine.ask(lambda scheduler, _: scheduler.worker_list())
        assert [(worker["incarnation"], worker["connected"]) for worker in workers] == [("new", True)]

    with_bench(story, tmp_path)


def test_a_link_hears_nothing_that_was_decided_before_its_hello(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        old = await it.worker()
        it.faults.hold()
        submitted = asyncio.ensure_future(it.submit(spec("a")))
        await it.faults.reached()
        # The grant of a is on its way to the disk. The worker comes back without it, so it is given back.
        new = Worker(it.engine)
        await old.closed
        it.faults.let_go()
        await submitted
        await new.hear(Welcome)
        grant = await new.hear(Grant)
        assert (grant.job_id, grant.attempt) == ("a", 1)
        assert [type(message) for frame in new.frames for message in frame] == [Welcome, Grant]
        assert old.heard(Grant) == []
        assert it.engine.holds(grant.fence)
        await it.agree()

    with_bench(story, tmp_path)


def test_hello_after_hello_each_link_waits_for_its_own(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        it.faults.hold()
        waiting = asyncio.ensure_future(it.submit(spec("z", requirement=("NOBODY",))))
        await it.faults.reached()
        first = Worker(it.engine)
        await turns()
        await it.engine_submits(spec("a"))
        second = Worker(it.engine)
        await first.closed
        it.faults.let_go()
        await waiting
        grant = await second.hear(Grant)
        said = [type(message) for frame in second.frames for message in frame]
        assert said == [Welcome, Grant]
        assert first.frames == []
        assert it.engine.holds(grant.fence)
        await it.agree()

    with_bench(story, tmp_path)


def test_a_stop_reaches_the_worker_and_an_unstarted_attempt_comes_back(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        worker = await it.worker()
        run_id = await it.submit(spec("a"))
        grant = await worker.hear(Grant)
        await it.engine.apply(CancelRun(run_id))
        assert (await worker.hear(Stop)).fence == grant.fence
        with it.engine.live.watch(("run", run_id)) as watch:
            worker.say(Returned(grant.fence))
            await watch.changed(60)
        assert (await it.job(run_id, "a")).state is JobState.CANCELLED

    with_bench(story, tmp_path)


def test_a_worker_that_left_is_away_until_it_comes_back(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        worker = await it.worker()
        worker.leave()
        await worker.task
        workers = await it.engine.ask(lambda scheduler, _: scheduler.worker_list())
        assert [worker["connected"] for worker in workers] == [False]
        await it.submit(spec("a"))
        assert (await (await it.worker()).hear(Grant)).job_id == "a"

    with_bench(story, tmp_path)


def test_one_worker_over_the_limit_is_told_to_come_back_later(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        await it.worker("a")
        late = Worker(it.engine, "b")
        assert (await late.closed)[0] == CLOSE_BUSY
        await it.worker("a", incarnation="again")

    with_bench(story, tmp_path, Limits(workers_max=1))


def test_a_worker_that_does_not_read_holds_up_nobody_and_is_let_go_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "OUTBOX_MAX", 5)

    async def story(it: Bench) -> None:
        deaf = await it.worker("deaf", capabilities=("DEAF",), slots=50)
        deaf.reads.clear()
        fine = await it.worker("fine")
        await it.submit(*(spec(f"d{number}", requirement=("DEAF",)) for number in range(3)))
        await it.submit(spec("a"))
        assert (await fine.hear(Grant)).job_id == "a"
        assert not deaf.closed.done()
        await it.submit(*(spec(f"d{number}", requirement=("DEAF",)) for number in range(20)))
        assert (await deaf.closed)[0] == CLOSE_BAD_FRAME

    with_bench(story, tmp_path)


def test_more_than_one_frame_holds_is_sent_in_several_in_order(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        worker = await it.worker(slots=40)
        await it.submit(*(spec(f"j{number}", args=("x" * 1_000,)) for number in range(40)))
        grants = await worker.grants(40)
        assert [grant.job_id for grant in grants] == [f"j{number}" for number in range(40)]
        assert len(worker.frames) > 10

    with_bench(story, tmp_path, Limits(frame_bytes_max=4_096))


def test_a_hello_on_which_the_core_failed_is_refused_when_it_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(it: Bench) -> None:
        real = Scheduler.handle

        def handle(self: Scheduler, event: Any, now: Any) -> Any:
            if isinstance(event, WorkerConnected) and event.name == "bad":
                raise KeyError("planted")
            return real(self, event, now)

        with monkeypatch.context() as planted:
            planted.setattr(Scheduler, "handle", handle)
            bad = Worker(it.engine, "bad")
            await bad.closed
            await it.loaded()
            again = Worker(it.engine, "bad")
            assert (await again.closed)[0] == CLOSE_FAILED
        await it.worker("good")

    with_bench(story, tmp_path)


def test_a_master_that_was_replaced_unawares_leaves_a_worker_to_the_one_that_leads(tmp_path: Path) -> None:
    """Its welcome needs no commit, and would have the worker forget what the other has granted."""

    async def story(it: Bench) -> None:
        here = it.engine.epoch
        known = Worker(it.engine, "known", epoch_seen=here + 1)
        assert (await known.hear(Welcome)).epoch == here  # it came from elsewhere: this Master leads
        with sqlite3.connect(tmp_path / "titan.db") as other:
            other.execute("UPDATE leader SET epoch = epoch + 1, batch = 0")
        held = (Held((here + 1) << EPOCH_SHIFT | 1, started=True),)
        stray = Worker(it.engine, "stray", held=held, epoch_seen=here + 1)
        assert (await stray.closed)[0] == CLOSE_STOPPING

    with_bench(story, tmp_path)
