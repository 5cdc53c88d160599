"""Large work is done in slices: others are answered in between, nothing half done is seen, nothing half done stays."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from tests.engine.bench import Bench, bench, new_run, new_run_id, play, spec
from titan.core.commit import BATCH_COST_MAX
from titan.core.events import CancelRun, FlipRun, News, StageJobs
from titan.core.scheduler import Scheduler
from titan.master.retrying import opened, prepared
from titan.model.spec import JobSpec
from titan.model.states import FINAL_JOB_STATES, RunState
from titan.model.store import StorePut
from titan.model.wire import Grant
from titan.storage import queries
from titan.storage.connection import Connection, Statement
from titan.storage.errors import CommitFailed
from titan.storage.tables import edges, jobs, runs
from titan_sdk.errors import Invalid, Unavailable

MANY = 8_000
NOW_MS = 1_000
OVER = frozenset(FINAL_JOB_STATES)


def chain_of(count: int) -> list[JobSpec]:
    """Return `count` jobs, every second one behind the one before it."""
    return [spec(f"j{number}", *([f"j{number - 1}"] if number % 2 else [])) for number in range(count)]


def rows(connection: Connection) -> tuple[int, ...]:
    """Return how many runs, jobs and edges there are, seen or not."""
    counts = (connection.row(Statement(select(func.count()).select_from(table))) for table in (runs, jobs, edges))
    return tuple(count[0] for count in counts if count)


def is_final(news: News) -> bool:
    return news.data.get("state") in (RunState.CANCELLED, RunState.COMPLETED)


async def others(it: Bench, order: list[str], until: "asyncio.Future[Any]") -> None:
    """Use the store, ask the core and submit small runs, one after the other, and note each answer."""
    number = 0
    while not until.done():
        number += 1
        await noted(it.engine.mutate(StorePut(f"k{number}", "v", NOW_MS)), order, "put")
        await noted(it.engine.ask(lambda scheduler, _: scheduler.stats()), order, "asked")
        await noted(it.submit(spec("small")), order, "submitted")


async def noted(call: Any, order: list[str], word: str) -> Any:
    answer = await call
    order.append(word)
    return answer


def test_while_a_large_run_is_received_others_are_answered_and_nobody_sees_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            order: list[str] = []
            run_id = new_run_id()
            staging = asyncio.ensure_future(
                noted(it.engine.submit_staged(new_run(run_id), chain_of(MANY)), order, "staged")
            )
            await it.submit(spec("first"))
            assert not staging.done()
            assert await it.run(run_id) is None
            assert await it.held(lambda connection: queries.lookup(connection, "j1")) is None
            await others(it, order, staging)
            assert order.index("staged") > 10
            row = await it.run(run_id)
            assert row is not None
            assert (row.state, row.jobs_total) == (RunState.QUEUED, MANY)
            await it.agree()

    play(story())


def test_every_ready_job_of_a_large_run_is_granted_and_others_are_answered_while_it_enters(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            order: list[str] = []
            await it.engine.submit_staged(new_run(new_run_id()), chain_of(MANY))
            worker = await it.worker(slots=MANY)
            granted = asyncio.ensure_future(noted(worker.grants(MANY // 2), order, "granted"))
            await others(it, order, granted)
            assert order.index("granted") > 5
            grants = [grant for grant in worker.heard(Grant) if grant.job_id.startswith("j")]
            assert len({grant.job_id for grant in grants}) == len(grants)

    play(story())


def test_a_large_run_is_cancelled_at_once_and_in_slices(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            order: list[str] = []
            run_id = new_run_id()
            await it.engine.submit_staged(new_run(run_id), chain_of(MANY))
            with it.engine.live.watch(("run", run_id), only=is_final) as watch:
                await it.engine.apply(CancelRun(run_id))
                row = await it.run(run_id)
                assert row is not None
                assert row.cancel_requested
                assert row.state is RunState.QUEUED
                over = asyncio.ensure_future(noted(watch.changed(60), order, "over"))
                await others(it, order, over)
            assert order.index("over") > 5
            row = await it.run(run_id)
            assert row is not None
            assert (row.state, row.jobs_cancelled) == (RunState.CANCELLED, MANY)
            await it.agree()

    play(story())


async def cancelled(it: Bench, count: int) -> str:
    """Submit a run of `count` jobs, have it cancelled and return its id."""
    run_id = new_run_id()
    await it.engine.submit_staged(new_run(run_id), chain_of(count))
    with it.engine.live.watch(("run", run_id), only=is_final) as watch:
        await it.engine.apply(CancelRun(run_id))
        assert await watch.changed(60)
    return run_id


def test_a_large_run_is_tried_again_at_once_and_in_slices(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            order: list[str] = []
            run_id = await cancelled(it, MANY)
            again = asyncio.ensure_future(noted(retried(it, run_id), order, "open"))
            await others(it, order, again)
            assert order.index("open") > 5
            assert max(len(batch.changes) for batch in it.faults.batches) < 3 * BATCH_COST_MAX
            row = await it.run(run_id)
            assert row is not None
            assert (row.state, row.generation, row.opening, row.jobs_cancelled) == (RunState.QUEUED, 2, None, 0)
            await it.agree()

    play(story())


async def retried(it: Bench, run_id: str) -> None:
    await it.engine.apply((await prepared(it.engine, run_id)).command)
    row = await it.run(run_id)
    assert row is not None
    assert row.generation == 2
    assert row.opening is not None, "the rest follows in slices"
    await opened(it.engine, run_id)


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_a_large_retry_that_the_disk_interrupts_is_not_begun_or_goes_on(batches: int, tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            run_id = await cancelled(it, MANY)
            command = (await prepared(it.engine, run_id)).command
            it.faults.before = [*([None] * batches), CommitFailed("injected")]
            asked = asyncio.ensure_future(it.engine.apply(command))
            with pytest.raises(Unavailable):
                await asyncio.gather(asked, opened_after(it, run_id, asked))
            await it.loaded()
            row = await it.run(run_id)
            assert row is not None
            assert row.generation == (2 if batches else 1)
            if not batches:
                await it.engine.apply((await prepared(it.engine, run_id)).command)
            await opened(it.engine, run_id)
            counts = await it.held(lambda connection: queries.jobs_of_run(connection, run_id, OVER, 1))
            assert counts.rows == []
            await it.agree()

    play(story())


async def opened_after(it: Bench, run_id: str, asked: "asyncio.Future[Any]") -> None:
    await asked
    await opened(it.engine, run_id)


def test_what_a_killed_master_left_half_open_is_opened_by_the_next(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            run_id = await cancelled(it, MANY)
            await it.engine.apply((await prepared(it.engine, run_id)).command)
            it.engine._shell.close("as if killed", for_good=True)
        async with bench(tmp_path) as it:
            await opened(it.engine, run_id)
            row = await it.run(run_id)
            assert row is not None
            assert (row.generation, row.state) == (2, RunState.QUEUED)
            over = await it.held(lambda connection: queries.jobs_of_run(connection, run_id, OVER, 1))
            assert over.rows == []
            await it.agree()

    play(story())


def test_slices_wait_for_the_disk_instead_of_piling_up(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            run_id = new_run_id()
            await it.engine.submit_staged(new_run(run_id), chain_of(MANY))
            await it.settled()
            it.faults.hold()
            cancelled = asyncio.ensure_future(it.engine.apply(CancelRun(run_id)))
            await it.faults.reached()
            for _ in range(200):
                await asyncio.sleep(0)
            assert it.engine._shell._machine.cost_waiting < 2 * BATCH_COST_MAX
            with it.engine.live.watch(("run", run_id), only=is_final) as watch:
                it.faults.let_go()
                await cancelled
                assert await watch.changed(60)

    play(story())


@pytest.mark.parametrize("event", [StageJobs, FlipRun])
def test_a_large_run_that_cannot_be_kept_leaves_nothing(
    event: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            run_id = new_run_id()
            real = Scheduler.handle
            seen: list[Any] = []

            def handle(self: Scheduler, fed: Any, now: Any) -> Any:
                if isinstance(fed, event):
                    seen.append(fed)
                    if len(seen) == (1 if event is FlipRun else 3):
                        it.faults.before = [CommitFailed("injected")]
                return real(self, fed, now)

            monkeypatch.setattr(Scheduler, "handle", handle)
            with pytest.raises(Unavailable):
                await it.engine.submit_staged(new_run(run_id), chain_of(3_000))
            await it.loaded()
            monkeypatch.undo()
            assert await it.run(run_id) is None
            await it.agree()
            await tidy(it)
            assert await it.held(rows) == (0, 0, 0)
            await it.engine.submit_staged(new_run(run_id), chain_of(3_000))
            assert await it.run(run_id) is not None

    play(story())


def test_an_upload_given_up_in_the_middle_is_swept(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            run_id = new_run_id()
            staging = asyncio.ensure_future(it.engine.submit_staged(new_run(run_id), chain_of(MANY)))
            await it.submit(spec("small"))
            staging.cancel()
            with pytest.raises(asyncio.CancelledError):
                await staging
            await tidy(it)
            assert await it.held(rows) == (1, 1, 0)
            assert await it.engine.ask(lambda scheduler, _: scheduler.memory.staged) == {}

    play(story())


def test_what_a_killed_master_left_of_an_upload_is_swept_at_the_next_start(tmp_path: Path) -> None:
    async def story() -> None:
        run_id = new_run_id()
        async with bench(tmp_path) as it:
            staging = asyncio.ensure_future(it.engine.submit_staged(new_run(run_id), chain_of(MANY)))
            await it.submit(spec("small"))
            it.engine._shell.close("as if killed", for_good=True)
            with pytest.raises(Unavailable):
                await staging
        async with bench(tmp_path) as it:
            await tidy(it)
            assert await it.run(run_id) is None
            assert await it.held(rows) == (1, 1, 0)

    play(story())


def test_a_wrong_count_is_refused_and_swept(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            with pytest.raises(Invalid, match="1 jobs arrived of the 2"):
                await it.engine.submit_staged(new_run(new_run_id()), Two([spec("a")]))
            await tidy(it)
            assert await it.held(rows) == (0, 0, 0)

    play(story())


class Two(list[JobSpec]):
    """A list that says it is longer than it is."""

    def __len__(self) -> int:
        return 2


async def tidy(it: Bench) -> None:
    """Have the engine clean up now instead of in a minute."""
    await it.engine.clean_up()
