"""An exception in the core, and what a reload means for workers, feeds and fences."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.engine.bench import Worker, bench, new_run_id, outcomes, play, spec
from titan.core.events import AttemptEnded, CancelRun, Send, WorkerRenewed
from titan.core.scheduler import Scheduler
from titan.master import shell
from titan.master.live import RESYNC
from titan.model.states import JobState
from titan.model.store import StoreIncr, StorePut
from titan.model.wire import CLOSE_FAILED, CLOSE_STOPPING, Ack, Ended, Grant, Held, Renew, RenewAck, Started
from titan.storage.errors import CommitFailed
from titan_sdk.errors import Internal, Unavailable

FAILED = CommitFailed("injected")
NOW_MS = 1_000


def test_a_fault_of_the_writer_that_nobody_foresaw_is_a_failed_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            with monkeypatch.context() as planted:

                def commit(_: Any) -> list[Any]:
                    raise Poisoned("planted")

                planted.setattr(it.engine._shell._journal, "commit", commit)
                run_id = new_run_id()
                with pytest.raises(Unavailable):
                    await it.submit(spec("a"), run_id=run_id)
            await it.loaded()
            assert await it.run(run_id) is None
            await it.submit(spec("a"), run_id=run_id)
            await it.agree()

    play(story())


class Poisoned(Exception):
    """A defect of the core, planted."""


def plant(monkeypatch: pytest.MonkeyPatch, what: type) -> list[Any]:
    """Have the core fail, half done, on each event of type `what` whose job or fence is marked; return those fed."""
    fed: list[Any] = []
    real = Scheduler.handle

    def handle(self: Scheduler, event: Any, now: Any) -> Any:
        decision = real(self, event, now)
        if isinstance(event, what):
            fed.append(event)
            raise Poisoned("planted")
        return decision

    monkeypatch.setattr(Scheduler, "handle", handle)
    return fed


def test_an_exception_in_the_core_is_500_for_its_event_503_for_the_others_and_it_is_not_fed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            run_id = await it.submit(spec("a"))
            it.faults.hold()
            in_flight = asyncio.ensure_future(it.submit(spec("x")))
            await it.faults.reached()
            waiting = asyncio.ensure_future(it.engine.mutate(StorePut("k", "v", NOW_MS)))
            await asyncio.sleep(0)
            with monkeypatch.context() as planted:
                fed = plant(planted, CancelRun)
                with pytest.raises(Internal):
                    await it.engine.apply(CancelRun(run_id))
                with pytest.raises(Unavailable):
                    await waiting
                assert not in_flight.done()
                it.faults.let_go()
                assert await it.run(await in_flight) is not None
                await it.loaded()
                assert len(fed) == 1
            row = await it.run(run_id)
            assert row is not None
            assert not row.cancel_requested
            await it.agree()
            await it.engine.apply(CancelRun(run_id))

    play(story())


def test_a_report_the_core_fails_on_is_answered_and_not_fed_again_when_the_worker_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            run_id = await it.submit(spec("a"))
            worker = await it.worker()
            grant = await worker.hear(Grant)
            with monkeypatch.context() as planted:
                fed = plant(planted, AttemptEnded)
                worker.say(Started(grant.fence), Ended(grant.fence, 0))
                assert (await worker.closed)[0] == CLOSE_STOPPING
                await it.loaded()
                again = await it.worker(held=[Held(grant.fence, True)])
                again.say(Ended(grant.fence, 0))
                ack = await again.hear(Ack)
                assert ack.ended == (grant.fence,)
                assert (await again.closed)[0] == CLOSE_FAILED
                assert len(fed) == 1
            assert (await it.job(run_id, "a")).state in (JobState.RUNNING, JobState.ASSIGNED)
            # The worker has forgotten the attempt: its next hello says so, and the job is granted anew.
            third = await it.worker()
            assert (await third.hear(Grant)).job_id == "a"
            await it.agree()

    play(story())


def test_a_renewal_the_core_has_failed_on_is_not_answered_again_and_its_link_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            worker = await it.worker()
            with monkeypatch.context() as planted:
                fed = plant(planted, WorkerRenewed)
                worker.say(Renew(1))
                assert (await worker.closed)[0] == CLOSE_STOPPING
                await it.loaded()
                again = await it.worker()
                again.say(Renew(2))
                assert (await again.closed)[0] == CLOSE_FAILED
                assert not [each for frame in again.frames for each in frame if isinstance(each, RenewAck)]
                assert len(fed) == 1

    play(story())


def test_while_it_loads_renewals_are_answered_and_then_the_workers_say_hello_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            await it.submit(spec("a"), spec("b"))
            worker = await it.worker(slots=1)
            grant = await worker.hear(Grant)
            may_load = it.hold_loads(monkeypatch)
            it.faults.before = [FAILED]
            with pytest.raises(Unavailable):
                await it.submit(spec("c"))
            worker.say(Started(grant.fence), Renew(41))
            assert (await worker.hear(RenewAck)).seq == 41
            assert not worker.closed.done()
            refused = Worker(it.engine, "late")
            assert (await refused.closed)[0] == CLOSE_STOPPING
            may_load.set()
            assert (await worker.closed)[0] == CLOSE_STOPPING
            await it.loaded()
            again = await it.worker(slots=1, held=[Held(grant.fence, True)])
            again.say(Ended(grant.fence, 0))
            assert (await again.hear(Grant)).job_id == "b"
            await it.agree()

    play(story())


def test_a_fence_is_never_given_twice_not_even_one_that_was_never_sent(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            worker = await it.worker(slots=8)
            await it.submit(spec("a"))
            seen = [(await worker.hear(Grant)).fence]
            for _ in range(3):
                it.faults.before = [FAILED]
                with pytest.raises(Unavailable):
                    await it.submit(spec("b"))
                await worker.closed
                await it.loaded()
                worker = await it.worker(slots=8, held=[Held(fence, True) for fence in seen])
                await it.submit(spec("c"))
                seen.append((await worker.hear(Grant)).fence)
            assert seen == sorted(set(seen))
            await it.agree()

    play(story())


def test_feeds_and_waits_end_at_a_reload_and_ids_of_before_lead_to_a_resync(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            with it.engine.live.subscribe() as events:
                run_id = await it.submit(spec("a"))
                (first,) = {event.news.run_id: event.id for event in await events.next(60)}.items()
                assert first[0] == run_id
                it.faults.before = [FAILED]
                waiting = asyncio.ensure_future(events.next(60))
                with pytest.raises(Unavailable):
                    await it.submit(spec("b"))
                with pytest.raises(Unavailable):
                    await waiting
                await it.loaded()
            with it.engine.live.subscribe(first[1]) as events:
                (resync,) = await events.next(60)
                assert resync.news.kind == RESYNC
                await it.submit(spec("c"))
                (after, *_) = await events.next(60)
                assert int(after.id.split(".")[0]) > int(first[1].split(".")[0])

    play(story())


def test_an_answer_that_cannot_be_given_is_an_error_for_its_caller_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            await it.worker()

            def deliver(_: Send) -> None:
                raise KeyError("planted")

            monkeypatch.setattr(it.engine.links, "deliver", deliver)
            told = await outcomes(
                it.submit(spec("a")), it.engine.mutate(StoreIncr("n", 1, NOW_MS)), it.submit(spec("b"))
            )
            assert [type(one) for one in told] == [Internal, str, Internal]
            assert it.engine.open
            monkeypatch.undo()

    play(story())


def test_loads_that_fail_are_repeated_ever_more_slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)
        await real(0)

    async def story() -> None:
        async with bench(tmp_path) as it:
            journal = it.engine._shell._journal
            take_over, fails = journal.take_over, iter([FAILED] * 8)

            def failing(now_wall_ms: int) -> int:
                for fault in fails:
                    raise fault
                return take_over(now_wall_ms)

            monkeypatch.setattr(journal, "take_over", failing)
            monkeypatch.setattr(asyncio, "sleep", sleep)
            it.faults.before = [FAILED]
            with pytest.raises(Unavailable):
                await it.submit(spec("a"))
            await it.loaded()
            monkeypatch.undo()
            assert slept == sorted(slept)
            assert (len(slept), slept[0], slept[-1]) == (8, shell.BACKOFF_S, shell.BACKOFF_S_MAX)
            await it.submit(spec("a"))
            await it.agree()

    play(story())
