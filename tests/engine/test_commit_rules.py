"""The commit rules, on the real database: whatever goes wrong, memory equals the database afterwards, and no answer
was given that the database does not hold.
"""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.engine.bench import Bench, Worker, bench, new_run_id, play, spec
from titan.core.changes import Update
from titan.core.events import AttemptEnded, CancelRun, ExtendRun, Send
from titan.core.scheduler import Scheduler
from titan.master import shell
from titan.master.live import RESYNC
from titan.model.states import JobState, RunState
from titan.model.store import StoreIncr, StorePut
from titan.model.wire import CLOSE_STOPPING, Ack, Ended, Grant, Held, Renew, RenewAck, Started
from titan.storage import kv
from titan.storage.connection import Connection
from titan.storage.errors import CommitFailed
from titan.storage.errors import StorageFull as DiskFull
from titan_sdk.errors import Conflict, Internal, StorageFull, Unavailable

LOST = OSError("the answer was lost")
FAILED = CommitFailed("injected")
NOW_MS = 1_000


async def value(it: Bench, key: str) -> Any:
    return await it.held(lambda connection: kv.get(connection, key, NOW_MS))


async def outcomes(*calls: Any) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


def test_an_answer_is_given_only_when_the_database_holds_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            it.faults.hold()
            run_id = new_run_id()
            answer = asyncio.ensure_future(it.submit(spec("a"), run_id=run_id))
            asked = asyncio.ensure_future(it.engine.ask(lambda scheduler, _: scheduler.stats()))
            done, _ = await asyncio.wait([answer, asked], timeout=0.05)
            assert not done
            assert await it.run(run_id) is None
            it.faults.let_go()
            await answer
            assert (await asked)["runs_living"] == 1
            row = await it.run(run_id)
            assert row is not None
            assert row.state is RunState.QUEUED
            await it.agree()

    play(story())


def test_a_batch_that_fails_answers_503_to_all_and_memory_is_the_database_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            first = await it.submit(spec("a"), spec("b", "a"))
            it.faults.before = [FAILED]
            ids = [new_run_id() for _ in range(3)]
            told = await outcomes(
                *(it.submit(spec("x"), run_id=run_id) for run_id in ids), it.engine.apply(CancelRun(first))
            )
            for one in told:
                assert isinstance(one, Unavailable)
                assert one.retry_after_s
            assert len({id(one) for one in told}) == 4
            await it.loaded()
            assert [await it.run(run_id) for run_id in ids] == [None, None, None]
            await it.agree()
            await it.submit(spec("x"), run_id=ids[0])

    play(story())


def test_later_decisions_fall_with_the_batch_they_rest_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            it.faults.hold()
            it.faults.before = [FAILED]
            first = asyncio.ensure_future(it.submit(spec("a")))
            await it.faults.reached()
            later = asyncio.ensure_future(it.submit(spec("b")))
            asked = asyncio.ensure_future(it.engine.ask(lambda scheduler, _: scheduler.stats()))
            put = asyncio.ensure_future(it.engine.mutate(StorePut("k", "v", NOW_MS)))
            await asyncio.sleep(0)
            it.faults.let_go()
            for one in await outcomes(first, later, asked, put):
                assert isinstance(one, Unavailable)
            await it.loaded()
            assert await value(it, "k") is None
            await it.agree()

    play(story())


def test_f8_a_full_disk_is_507_reads_go_on_and_it_heals_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "BACKOFF_S", 0.001)

    async def story() -> None:
        async with bench(tmp_path) as it:
            run_id = await it.submit(spec("a"))
            it.faults.always = DiskFull("no space left on device")
            with pytest.raises(StorageFull) as caught:
                await it.engine.mutate(StorePut("k", "v", NOW_MS))
            assert caught.value.retry_after_s
            for _ in range(3):
                with pytest.raises((StorageFull, Unavailable)):
                    await it.submit(spec("b"))
                row = await it.run(run_id)
                assert row is not None
            it.faults.always = None
            await it.loaded()
            await it.engine.mutate(StorePut("k", "v", NOW_MS))
            assert await value(it, "k") == "v"
            await it.agree()

    play(story())


def test_a_real_full_disk_behaves_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "BACKOFF_S", 0.001)

    async def story() -> None:
        async with bench(tmp_path) as it:
            await it.engine.mutate(StorePut("small", "v", NOW_MS))

            def limit(pages: int) -> None:
                it.database.writer().run(f"PRAGMA max_page_count = {pages}")

            writer = it.engine._shell.writer
            used = await writer.call(lambda: it.database.writer().run("PRAGMA page_count")[0][0])
            await writer.call(lambda: limit(used))
            with pytest.raises(StorageFull):
                await it.engine.mutate(StorePut("large", "x" * 900_000, NOW_MS))
            await it.loaded()
            assert await value(it, "large") is None
            assert await value(it, "small") == "v"
            # The failed connection went away, and the limit with it: there is room again.
            await it.engine.mutate(StorePut("large", "x" * 900_000, NOW_MS))
            assert len(await value(it, "large")) == 900_000

    play(story())


def test_a_write_that_finds_another_row_rolls_the_whole_batch_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            run_id = await it.submit(spec("a"))
            wrong = Update("runs", (run_id,), {"state": "COMPLETED"}, {"name": "stolen"})
            told = await outcomes(
                it.engine.mutate(StorePut("k", "v", NOW_MS)), it.engine.write([wrong]), it.submit(spec("b"))
            )
            assert [type(one) for one in told] == [Unavailable] * 3
            await it.loaded()
            assert await value(it, "k") is None
            row = await it.run(run_id)
            assert row is not None
            assert row.name == "test"
            await it.agree()

    play(story())


def test_f17_a_commit_whose_answer_was_lost_is_found_by_the_leader_row_and_counted_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            it.faults.after = [LOST, LOST, None]
            assert await it.engine.mutate(StoreIncr("n", 1, NOW_MS)) == "1"
            assert await it.engine.mutate(StoreIncr("n", 1, NOW_MS)) == "2"
            assert await it.engine.mutate(StoreIncr("n", 1, NOW_MS)) == "3"
            assert await value(it, "n") == "3"
            it.faults.after = [LOST]
            run_id = await it.submit(spec("a"))
            assert await it.run(run_id) is not None
            await it.agree()

    play(story())


def test_f6_a_commit_that_did_not_arrive_is_sent_again_with_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            fails = fail_commits(it, monkeypatch, 2)
            assert await it.engine.mutate(StoreIncr("n", 5, NOW_MS)) == "5"
            assert fails == [True, True]
            assert await value(it, "n") == "5"
            fail_commits(it, monkeypatch, 10)
            with pytest.raises(Unavailable):
                await it.submit(spec("a"))

    play(story())


def fail_commits(it: Bench, monkeypatch: pytest.MonkeyPatch, count: int) -> list[bool]:
    """Make the next `count` COMMITs of the writer end in an error of the disk, undone."""
    done: list[bool] = []
    real = Connection.commit

    def commit(connection: Connection) -> None:
        if len(done) < count and connection is it.database.writer():
            done.append(True)
            connection.rollback()
            raise sqlite3.OperationalError("disk I/O error")
        real(connection)

    monkeypatch.setattr(Connection, "commit", commit)
    return done


def test_f19_a_deposed_master_answers_nothing_and_ends(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            run_id = new_run_id()
            usurp(tmp_path)
            with pytest.raises(Unavailable):
                await it.submit(spec("a"), run_id=run_id)
            assert "leads now" in await it.engine.ended
            assert await it.run(run_id) is None
            with pytest.raises(Unavailable):
                await it.submit(spec("a"))
            assert not it.engine.open

    play(story())


def test_a_master_that_was_deposed_while_it_reloads_does_not_take_over_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            it.faults.before = [FAILED]
            it.faults.hold()
            submitted = asyncio.ensure_future(it.submit(spec("a")))
            await it.faults.reached()
            it.faults.let_go()
            journal = it.engine._shell._journal
            real = journal.leader

            def leader() -> tuple[int, int]:
                usurp(tmp_path)
                return real()

            monkeypatch.setattr(journal, "leader", leader)
            with pytest.raises(Unavailable):
                await submitted
            assert "leads now" in await it.engine.ended

    play(story())


def test_a_leader_row_that_cannot_be_read_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:

            def leader() -> tuple[int, int]:
                raise LOST

            monkeypatch.setattr(it.engine._shell._journal, "leader", leader)
            it.faults.after = [LOST]
            with pytest.raises(Unavailable):
                await it.submit(spec("a"))
            assert "cannot be read" in await it.engine.ended

    play(story())


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


def usurp(home: Path) -> None:
    """Have another Master take the leader row."""
    connection = sqlite3.connect(home / "titan.db")
    connection.execute("UPDATE leader SET epoch = epoch + 7, batch = 0")
    connection.commit()
    connection.close()


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
                assert len(fed) == 1
            assert (await it.job(run_id, "a")).state in (JobState.RUNNING, JobState.ASSIGNED)
            # The worker has forgotten the attempt: its next hello says so, and the job is granted anew.
            third = await it.worker(incarnation="second")
            assert (await third.hear(Grant)).job_id == "a"
            await it.agree()

    play(story())


def test_while_it_loads_renewals_are_answered_and_then_the_workers_say_hello_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "BACKOFF_S", 0.001)

    async def story() -> None:
        async with bench(tmp_path) as it:
            await it.submit(spec("a"), spec("b"))
            worker = await it.worker(slots=1)
            grant = await worker.hear(Grant)
            it.faults.always = FAILED
            with pytest.raises(Unavailable):
                await it.submit(spec("c"))
            worker.say(Started(grant.fence), Renew(41))
            assert (await worker.hear(RenewAck)).seq == 41
            assert not worker.closed.done()
            refused = Worker(it.engine, "late")
            assert (await refused.closed)[0] == CLOSE_STOPPING
            it.faults.always = None
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


def test_a_refusal_waits_for_what_it_rests_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            it.faults.hold()
            run_id = new_run_id()
            submitted = asyncio.ensure_future(it.submit(spec("a"), run_id=run_id))
            await it.faults.reached()
            cancel = asyncio.ensure_future(it.engine.apply(CancelRun(run_id)))
            refused = asyncio.ensure_future(it.engine.apply(ExtendRun(run_id, (spec("x"),), {})))
            done, _ = await asyncio.wait([submitted, cancel, refused], timeout=0.05)
            assert not done
            it.faults.let_go()
            assert await submitted == run_id
            assert await cancel == {"cancelled": True}
            with pytest.raises(Conflict, match="has ended"):
                await refused
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


def test_what_waits_for_a_time_is_woken_by_the_timer(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            worker = await it.worker()
            await it.submit(spec("late", delay_ms=40), spec("later", delay_ms=80), spec("now"))
            assert [grant.job_id for grant in await worker.grants(3)] == ["now", "late", "later"]
            await it.agree()

    play(story())
