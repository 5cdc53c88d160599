"""Log bytes of a worker: kept once and in order, acknowledged when durable, whatever breaks in between."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.bench import Bench, Worker, spec, turns, with_bench
from titan.master import link as link_module
from titan.master import links as links_module
from titan.model.states import JobState
from titan.model.wire import (
    CLOSE_BAD_FRAME,
    Ack,
    Ended,
    Grant,
    Held,
    Output,
    Renew,
    RenewAck,
    Returned,
    Started,
    Welcome,
)
from titan.storage.connection import Connection
from titan.storage.errors import CommitFailed


def test_log_bytes_are_acknowledged_only_when_they_are_durable(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        worker = await it.worker()
        await it.submit(spec("a"))
        grant = await worker.hear(Grant)
        it.faults.hold()
        worker.say(Started(grant.fence), Output(grant.fence, 0, b"abc"))
        await it.faults.reached()
        await turns()
        assert worker.heard(Ack) == []
        with it.engine.live.watch(("log", grant.fence)) as watch:
            it.faults.let_go()
            assert (await worker.hear(Ack)).log_offsets == {grant.fence: 3}
            assert await watch.changed(60)
        assert await it.log(grant.fence) == b"abc"

    with_bench(story, tmp_path)


def test_f43_bytes_sent_again_after_a_reconnect_are_kept_once(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        worker = await it.worker()
        await it.submit(spec("a"))
        grant = await worker.hear(Grant)
        worker.say(Started(grant.fence), Output(grant.fence, 0, b"abc"))
        await worker.hear(Ack)
        it.faults.hold()
        worker.say(Output(grant.fence, 3, b"def"))
        await it.faults.reached()
        worker.leave()
        again = Worker(it.engine, held=[Held(grant.fence, True, 3)])
        again.say(Output(grant.fence, 3, b"defghi"), Output(grant.fence, 0, b"abc"))
        await turns()
        it.faults.let_go()
        assert (await again.hear(Welcome)).log_offsets == {grant.fence: 6}
        while await it.log(grant.fence) != b"abcdefghi":
            await again.hear(Ack)
        again.say(Output(grant.fence, 9, b"!"), Ended(grant.fence, 0, log_bytes=10))
        while grant.fence not in (await again.hear(Ack)).ended:
            pass
        assert await it.log(grant.fence) == b"abcdefghi!"

    with_bench(story, tmp_path)


def test_bytes_of_a_batch_that_failed_are_taken_when_they_are_sent_again(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        worker = await it.worker()
        await it.submit(spec("a"))
        grant = await worker.hear(Grant)
        worker.say(Started(grant.fence), Output(grant.fence, 0, b"abc"))
        await worker.hear(Ack)
        it.faults.before = [CommitFailed("injected")]
        worker.say(Output(grant.fence, 3, b"def"))
        await worker.closed
        again = Worker(it.engine, held=[Held(grant.fence, True, 3)])
        assert (await again.hear(Welcome)).log_offsets == {grant.fence: 3}
        again.say(Output(grant.fence, 3, b"defg"))
        assert (await again.hear(Ack)).log_offsets == {grant.fence: 7}
        assert await it.log(grant.fence) == b"abcdefg"

    with_bench(story, tmp_path)


def test_renewals_are_answered_while_it_loads_however_many_logs_stand_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "UNKEPT_BYTES_MAX", 2_000)

    async def story(it: Bench) -> None:
        worker = await it.worker()
        await it.submit(spec("a"))
        grant = await worker.hear(Grant)
        may_load = it.hold_loads(monkeypatch)
        it.faults.before = [CommitFailed("injected")]
        for number in range(20):
            worker.say(Output(grant.fence, number * 1_000, b"x" * 1_000))
        worker.say(Renew(5))
        assert (await worker.hear(RenewAck)).seq == 5
        assert not worker.closed.done()
        may_load.set()
        await worker.closed

    with_bench(story, tmp_path)


def test_after_a_restart_of_the_master_the_log_goes_on_where_it_was(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        worker = await it.worker()
        await it.submit(spec("a"))
        grant = await worker.hear(Grant)
        worker.say(Started(grant.fence), Output(grant.fence, 0, b"abc"))
        await worker.hear(Ack)
        grants.append(grant)

    async def later(it: Bench) -> None:
        (grant,) = grants
        worker = Worker(it.engine, held=[Held(grant.fence, True)])
        assert (await worker.hear(Welcome)).log_offsets == {grant.fence: 3}
        worker.say(Output(grant.fence, 0, b"abcdef"), Ended(grant.fence, 0))
        while grant.fence not in (await worker.hear(Ack)).ended:
            pass
        assert await it.log(grant.fence) == b"abcdef"

    grants: list[Grant] = []
    with_bench(story, tmp_path)
    with_bench(later, tmp_path)


def test_an_attempt_nobody_knows_is_stopped_and_its_bytes_and_end_are_acknowledged(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        stale = 2**60
        worker = Worker(it.engine, held=[Held(stale, True)])
        welcome = await worker.hear(Welcome)
        assert (welcome.stop, welcome.log_offsets) == ((stale,), {})
        worker.say(Output(stale, 10, b"abc"))
        assert (await worker.hear(Ack)).log_offsets == {stale: 13}
        worker.say(Ended(stale, 0))
        assert (await worker.hear(Ack)).ended == (stale,)

    with_bench(story, tmp_path)


def test_a_worker_cannot_speak_of_the_attempts_of_another(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        mine = await it.worker("mine")
        run_id = await it.submit(spec("a"))
        grant = await mine.hear(Grant)
        other = await it.worker("other")
        other.say(Started(grant.fence), Ended(grant.fence, 0), Returned(grant.fence))
        await other.hear(Ack)
        assert (await it.job(run_id, "a")).state is JobState.ASSIGNED
        other.say(Output(grant.fence, 0, b"forged"))
        assert (await other.closed)[0] == CLOSE_BAD_FRAME
        mine.say(Started(grant.fence), Output(grant.fence, 0, b"true"))
        await mine.hear(Ack)
        assert await it.log(grant.fence) == b"true"
        await mine.finish(grant)
        await it.agree()

    with_bench(story, tmp_path)


def test_a_worker_is_not_read_further_while_the_disk_is_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "UNKEPT_BYTES_MAX", 2_000)

    async def story(it: Bench) -> None:
        worker = await it.worker()
        await it.submit(spec("a"))
        grant = await worker.hear(Grant)
        it.faults.hold()
        worker.say(Started(grant.fence))
        await it.faults.reached()
        for number in range(10):
            worker.say(Output(grant.fence, number * 1_000, b"x" * 1_000))
        await turns()
        assert worker._incoming.qsize() == 7
        it.faults.let_go()
        while worker.heard(Ack)[-1:] != [Ack(log_offsets={grant.fence: 10_000})]:
            await worker.hear(Ack)
        assert len(await it.log(grant.fence)) == 10_000

    with_bench(story, tmp_path)


def test_logs_of_attempts_that_live_no_more_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links_module, "LOGS_KNOWN_MIN", 3)

    async def story(it: Bench) -> None:
        it.engine.links._logs_known_max = 3
        known = it.engine.links._offsets
        for fence in range(1, 6):
            known.begin("w", fence)
        await it.worker()
        assert known.count() == 0

    with_bench(story, tmp_path)


def test_a_process_started_anew_sends_on_the_log_its_predecessor_began(tmp_path: Path) -> None:
    async def story(it: Bench) -> None:
        worker = await it.worker()
        run_id = await it.submit(spec("a"))
        grant = await worker.hear(Grant)
        worker.say(Started(grant.fence), Output(grant.fence, 0, b"one "))
        assert (await worker.hear(Ack)).log_offsets == {grant.fence: 4}
        again = Worker(it.engine, incarnation="2", predecessor="1", held=[Held(grant.fence, True)])
        welcome = await again.hear(Welcome)
        assert (welcome.stop, welcome.log_offsets) == ((), {grant.fence: 4})
        again.say(Output(grant.fence, 4, b"two"), Ended(grant.fence, 0, log_bytes=7))
        while grant.fence not in (await again.hear(Ack)).ended:
            pass
        assert (await it.job(run_id, "a")).state is JobState.COMPLETED
        assert await it.log(grant.fence) == b"one two"
        await it.agree()

    with_bench(story, tmp_path)


def test_a_log_that_is_forgotten_while_others_of_its_hello_are_looked_up_is_looked_up_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(it: Bench) -> None:
        worker = await it.worker()
        await it.submit(spec("a"))
        grant = await worker.hear(Grant)
        worker.say(Started(grant.fence), Output(grant.fence, 0, b"one "))
        assert (await worker.hear(Ack)).log_offsets == {grant.fence: 4}
        looked_up: list[None] = []
        real = it.engine.read

        async def read(query: Callable[[Connection], Any]) -> Any:
            found = await real(query)
            if not looked_up:
                it.engine.links.reset()  # as a load does, which ends before this answer comes
            looked_up.append(None)
            return found

        monkeypatch.setattr(it.engine, "read", read)
        again = Worker(it.engine, held=[Held(grant.fence, True), Held(99, True)])
        assert (await again.hear(Welcome)).log_offsets == {grant.fence: 4}
        assert len(looked_up) == 2
        again.say(Output(grant.fence, 4, b"two"))
        assert (await again.hear(Ack)).log_offsets == {grant.fence: 7}
        assert await it.log(grant.fence) == b"one two"

    with_bench(story, tmp_path)
