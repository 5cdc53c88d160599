"""An orderly stop: leases are extended first, everybody is told at once, and the next Master goes on from there."""

import asyncio
from pathlib import Path

import pytest

from tests.engine.bench import Worker, bench, play, spec
from titan.core.events import CancelRun
from titan.master.engine import STOP_EXTEND_MS
from titan.model.states import JobState
from titan.model.store import StorePut
from titan.model.wire import CLOSE_STOPPING, Grant, Held, Started
from titan.storage import queries
from titan.storage.errors import CommitFailed
from titan_sdk.errors import Unavailable


def test_leases_are_extended_links_closed_and_waits_ended_before_the_end(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            worker = await it.worker()
            run_id = await it.submit(spec("a"))
            grant = await worker.hear(Grant)
            worker.say(Started(grant.fence))
            with it.engine.live.watch(("run", run_id)) as watch:
                await watch.changed(60)
                waiting = asyncio.ensure_future(watch.changed(60))
                await asyncio.sleep(0)
                began_ms = it.engine.clock().wall_ms
                await it.engine.stop()
                with pytest.raises(Unavailable, match="stopping"):
                    await waiting
            assert (await worker.closed)[0] == CLOSE_STOPPING
            (last,) = [change for change in it.faults.batches[-1].changes if change.table == "attempts"]
            assert last.values["lease_until_ms"] >= began_ms + STOP_EXTEND_MS
            for call in (
                it.submit(spec("b")),
                it.engine.mutate(StorePut("k", "v", 1)),
                it.engine.ask(lambda _, now: now),
            ):
                with pytest.raises(Unavailable, match="stopping"):
                    await call
            with pytest.raises(Unavailable):
                it.engine.holds(grant.fence)
            late = Worker(it.engine, "late")
            assert (await late.closed)[0] == CLOSE_STOPPING
        async with bench(tmp_path) as it:
            snapshot = await it.held(queries.snapshot)
            assert snapshot.attempts[0].lease_until_ms >= began_ms + STOP_EXTEND_MS
            again = await it.worker(held=[Held(grant.fence, True)])
            await again.finish(grant)
            assert (await it.job(run_id, "a")).state is JobState.COMPLETED
            await it.agree()

    play(story())


def test_what_was_taken_before_the_stop_is_still_answered(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            it.faults.hold()
            first = asyncio.ensure_future(it.submit(spec("a")))
            await it.faults.reached()
            second = asyncio.ensure_future(it.submit(spec("b")))
            await asyncio.sleep(0)
            stopping = asyncio.ensure_future(it.engine.stop())
            await asyncio.sleep(0)
            it.faults.let_go()
            ids = [await first, await second]
            await stopping
            await it.engine.stop()
        async with bench(tmp_path) as it:
            assert [await it.run(run_id) is not None for run_id in ids] == [True, True]

    play(story())


def test_a_stop_whose_last_batch_fails_ends_all_the_same(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            worker = await it.worker()
            await it.submit(spec("a"))
            await worker.hear(Grant)
            it.faults.always = CommitFailed("injected")
            await it.engine.stop()
            assert not it.engine.open
            assert (await worker.closed)[0] == CLOSE_STOPPING
            with pytest.raises(Unavailable, match="stopping"):
                it.engine.live.watch(("run", "x"))

    play(story())


def test_a_stop_in_the_middle_of_a_load_ends_all_the_same(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            it.faults.before = [CommitFailed("injected")]
            with pytest.raises(Unavailable):
                await it.submit(spec("a"))
            await it.engine.stop()
            assert not it.engine.open

    play(story())


def test_f1_a_master_that_dies_in_the_middle_of_everything_loses_nothing_it_answered(tmp_path: Path) -> None:
    """Its memory goes with it; a worker keeps its attempts, and the next Master and the worker agree again."""

    async def story() -> None:
        async with bench(tmp_path) as it:
            worker = await it.worker(slots=2)
            run_id = await it.submit(spec("a"), spec("b"), spec("c", "a"))
            a, b = await worker.grants(2)
            await worker.finish(a)
            c = await worker.hear(Grant)
            worker.say(Started(b.fence))
            other = await it.submit(spec("x"))
            await it.engine.apply(CancelRun(other))
            it.engine._shell.close("as if killed", for_good=True)
        async with bench(tmp_path) as it:
            await it.agree()
            again = await it.worker(slots=2, held=[Held(b.fence, True), Held(c.fence, False)])
            await again.finish(b)
            await again.finish(c)
            states = [(await it.job(run_id, job_id)).state for job_id in "abc"]
            assert states == [JobState.COMPLETED] * 3
            assert (await it.job(other, "x")).state is JobState.CANCELLED
            attempts = await it.held(lambda connection: queries.attempts(connection, run_id, "b"))
            assert len(attempts) == 1
            await it.agree()

    play(story())
