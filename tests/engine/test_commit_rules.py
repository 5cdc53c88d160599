"""The commit rules, on the real database: whatever goes wrong, memory equals the database afterwards, and no answer
was given that the database does not hold.
"""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.engine.bench import Bench, bench, new_run_id, outcomes, play, spec
from titan.core.changes import Update
from titan.core.events import CancelRun, ExtendRun
from titan.master import shell
from titan.model.states import RunState
from titan.model.store import StoreIncr, StorePut
from titan.storage import kv
from titan.storage.connection import Connection
from titan.storage.errors import CommitFailed
from titan.storage.errors import StorageFull as DiskFull
from titan_sdk.errors import Conflict, StorageFull, Unavailable

LOST = OSError("the answer was lost")
FAILED = CommitFailed("injected")
NOW_MS = 1_000


async def value(it: Bench, key: str) -> Any:
    return await it.held(lambda connection: kv.get(connection, key, NOW_MS))


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


def usurp(home: Path) -> None:
    """Have another Master take the leader row."""
    connection = sqlite3.connect(home / "titan.db")
    connection.execute("UPDATE leader SET epoch = epoch + 7, batch = 0")
    connection.commit()
    connection.close()


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


def test_what_waits_for_a_time_is_woken_by_the_timer(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            worker = await it.worker()
            await it.submit(spec("late", delay_ms=40), spec("later", delay_ms=80), spec("now"))
            assert [grant.job_id for grant in await worker.grants(3)] == ["now", "late", "later"]
            await it.agree()

    play(story())
