"""The same request twice is done once, whoever asks, whenever, and whatever happened to the first caller."""

import asyncio
from pathlib import Path

import pytest

from tests.engine.bench import Bench, bench, new_run, new_run_id, play, spec
from titan.core.events import ExtendRun, Now, SubmitRun
from titan.master.claims import KEEP_MS
from titan.master.engine import read_clocks
from titan.model.store import StorePut
from titan.storage import kv
from titan.storage.errors import CommitFailed
from titan_sdk.errors import Conflict, Unavailable

BODY = b"b" * 32


async def submit(it: Bench, key: str | None, body_hash: bytes = BODY) -> str:
    """Submit as the API does: the answer is remembered with the run."""
    async with it.engine.claims.claim(key, body_hash) as claim:
        if claim.stored is not None:
            return claim.stored.decode()
        run_id = new_run_id()
        row = claim.row(run_id.encode(), it.engine.clock().wall_ms)
        await it.engine.apply(SubmitRun(new_run(run_id), (spec("a"),)), row)
        return run_id


def test_the_same_key_gets_the_first_answer_again_also_after_a_restart(tmp_path: Path) -> None:
    answers: list[str] = []

    async def story() -> None:
        async with bench(tmp_path) as it:
            answers.append(await submit(it, "k"))
            answers.append(await submit(it, "k"))
        async with bench(tmp_path) as it:
            answers.append(await submit(it, "k"))

    play(story())
    assert len(set(answers)) == 1


def test_the_same_key_with_another_body_is_refused_and_without_a_key_each_request_counts(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            await submit(it, "k")
            with pytest.raises(Conflict) as caught:
                await submit(it, "k", b"other" * 6)
            assert caught.value.code == "key_reused"
            assert await submit(it, None) != await submit(it, None)

    play(story())


def test_while_a_request_is_worked_on_its_key_is_in_progress(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            it.faults.hold()
            first = asyncio.ensure_future(submit(it, "k"))
            await it.faults.reached()
            with pytest.raises(Conflict) as caught:
                await submit(it, "k")
            assert caught.value.code == "in_progress"
            assert caught.value.retry_after_s
            it.faults.let_go()
            run_id = await first
            assert await submit(it, "k") == run_id

    play(story())


def test_a_caller_that_has_gone_does_not_free_a_key_whose_batch_is_on_its_way(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            it.faults.hold()
            first = asyncio.ensure_future(submit(it, "k"))
            await it.faults.reached()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            with pytest.raises(Conflict, match="being worked on"):
                await submit(it, "k")
            it.faults.let_go()
            await it.settled()
            assert await it.run(await submit(it, "k")) is not None
            assert await it.engine.ask(lambda scheduler, _: len(scheduler.memory.runs)) == 1

    play(story())


def test_a_request_that_was_not_kept_may_be_sent_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            it.faults.before = [CommitFailed("injected")]
            with pytest.raises(Unavailable):
                await submit(it, "k")
            await it.loaded()
            assert await it.run(await submit(it, "k")) is not None

    play(story())


def test_a_key_is_kept_seven_days_and_then_free(tmp_path: Path) -> None:
    later_ms = 0

    def clock() -> Now:
        now = read_clocks()
        return Now(now.mono_ms, now.wall_ms + later_ms)

    async def story() -> None:
        nonlocal later_ms
        async with bench(tmp_path, clock=clock) as it:
            first = await submit(it, "k")
            later_ms = KEEP_MS - 60_000
            assert await submit(it, "k") == first
            later_ms = KEEP_MS + 60_000
            second = await submit(it, "k")
            assert second != first
            assert await submit(it, "k") == second

    play(story())


def test_a_refused_command_keeps_neither_its_key_nor_what_came_with_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as it:
            run_id = await it.submit(spec("a"))
            with pytest.raises(Conflict, match="taken"):
                await extend(it, run_id)
            assert await it.held(lambda connection: kv.get(connection, "k", 1)) is None
            assert await it.run(await submit(it, "k")) is not None

    async def extend(it: Bench, run_id: str) -> None:
        async with it.engine.claims.claim("k", BODY) as claim:
            row = claim.row(b"never", it.engine.clock().wall_ms)
            await it.engine.apply(ExtendRun(run_id, (spec("a"),), {}), row, [StorePut("k", "v", 1)])

    play(story())
