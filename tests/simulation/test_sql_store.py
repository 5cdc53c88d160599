"""The simulated Master's database does what one in a file does: it is the same code on another place."""

import errno
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.sql_store import SqlStore
from tests.storage.backend import Storage
from tests.storage.builders import RUN, assign, new_attempt, new_edge, new_job, new_run, number_of_id
from titan.core.changes import Change, Insert, Update
from titan.core.commit import Batch, LogChunk
from titan.core.rows import opening_of
from titan.model.states import AttemptState, JobState, RunState
from titan.model.store import IdempotencyKey, StoreAdd, StoreIncr, StorePut, SweepStage
from titan.storage import queries
from titan.storage.errors import AssertionFailed, CommitFailed, CommitUnknown, Deposed, StorageFull

NOW_MS = 1_800_000_000_000


class Writer:
    """One Master: its epoch, and how many batches it has sent. A batch that is not kept does not count."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.epoch = store.take_over(NOW_MS)
        self.number = 0

    def batch(
        self, changes: Sequence[Change] = (), operations: Sequence[Any] = (), chunks: Sequence[LogChunk] = ()
    ) -> Batch:
        return Batch(self.epoch, self.number + 1, list(changes), list(operations), list(chunks))

    def send(self, *changes: Change, operations: Sequence[Any] = (), chunks: Sequence[LogChunk] = ()) -> list[Any]:
        results = self.store.commit(self.batch(changes, operations, chunks))
        self.number += 1
        return results


@pytest.fixture
def store() -> Iterator[SqlStore]:
    opened = SqlStore()
    yield opened
    opened.close()


@pytest.fixture
def master(store: SqlStore) -> Writer:
    return Writer(store)


def kept_answer(key: str, answer: bytes, created_ms: int = NOW_MS, kept_ms: int = 100) -> Insert:
    values = {"key": key, "body_hash": b"h", "answer": answer, "created_ms": created_ms}
    return Insert("idempotency", values | {"expires_ms": created_ms + kept_ms})


def completed(job_id: str, state: JobState = JobState.QUEUED) -> Update:
    return Update("jobs", (RUN, job_id), {"state": state}, {"state": JobState.COMPLETED, "ended_ms": 3_000})


def test_a_batch_is_read_back_as_it_was_written(store: SqlStore, master: Writer) -> None:
    master.send(new_run(jobs_total=2), new_job("a"), new_job("b", ordinal=1), new_edge("b", "a"))
    master.send(assign("a", 7), new_attempt(7, "a"))
    tables = store.tables()
    assert tables["runs"] == {(RUN,): new_run(jobs_total=2).values}
    assert tables["jobs"][RUN, "a"] == new_job("a", state="ASSIGNED", attempt=1, fence=7, worker="w1").values
    assert tables["jobs"][RUN, "b"] == new_job("b", ordinal=1).values
    assert tables["edges"] == {(RUN, "b", "a"): {"run_id": RUN, "job_id": "b", "parent_id": "a"}}
    assert tables["attempts"] == {(7,): new_attempt(7, "a").values}
    assert tables["idempotency"] == {}
    assert store.leader() == (master.epoch, 2)


def test_a_snapshot_holds_what_is_open_and_the_whole_run_holds_everything(store: SqlStore, master: Writer) -> None:
    master.send(new_run(jobs_total=2), new_job("a"), new_job("b", ordinal=1), new_edge("b", "a"))
    master.send(completed("a"), assign("b", 7), new_attempt(7, "b"), new_attempt(6, "a", state="LOST", ended_ms=1))
    snapshot = store.snapshot()
    assert [run.run_id for run in snapshot.runs] == [RUN]
    assert [(job.job_id, job.state, job.fence) for job in snapshot.jobs] == [("b", JobState.ASSIGNED, 7)]
    assert snapshot.edges == []
    assert [(attempt.fence, attempt.state) for attempt in snapshot.attempts] == [(7, AttemptState.ASSIGNED)]
    whole = store.whole_run(RUN)
    assert whole is not None
    assert [job.job_id for job in whole[1]] == ["a", "b"]
    assert [(edge.job_id, edge.parent_id) for edge in whole[2]] == [("b", "a")]
    assert store.run(RUN) == whole[0]
    assert store.run(number_of_id(1)) is None
    assert store.whole_run(number_of_id(1)) is None


def test_a_staged_run_is_seen_by_nobody_but_the_sweep(store: SqlStore, master: Writer) -> None:
    master.send(new_run(state=RunState.STAGED), new_job("a"))
    assert store.staged_runs() == [RUN]
    assert store.run(RUN) is None
    assert store.whole_run(RUN) is None
    assert store.snapshot().runs == []
    assert store.finished_parents(RUN, ["a"]) == {}
    assert [master.send(operations=[SweepStage(RUN)]) for _ in range(3)] == [[1], [1], [0]]
    assert store.tables()["runs"] == store.tables()["jobs"] == {}


def test_finished_parents_are_over_and_do_not_start_again(store: SqlStore, master: Writer) -> None:
    opening = opening_of([2], 4)
    master.send(new_run(generation=2, jobs_total=4, opening=opening), *(new_job(f"j{n}", ordinal=n) for n in range(4)))
    master.send(*(completed(f"j{n}") for n in (0, 2, 3)))
    found = store.finished_parents(RUN, ["j0", "j1", "j2", "zz"])
    assert {job_id: job.state for job_id, job in found.items()} == {"j0": JobState.COMPLETED}


def test_a_lost_update_undoes_the_whole_batch(store: SqlStore, master: Writer) -> None:
    master.send(new_run(jobs_total=2), new_job("a"), new_job("b", ordinal=1))
    before = store.tables()
    with pytest.raises(AssertionFailed, match=r"'a'\) expected .* found {'fence': 0}"):
        master.send(
            kept_answer("k", b"x"), assign("b", 5), assign("a", 9, expect_fence=3), operations=[StorePut("v", "1", 1)]
        )
    assert store.tables() == before
    assert store.value("v", NOW_MS) is None
    assert store.leader() == (master.epoch, 1)
    master.send(assign("a", 5), assign("b", 6))


def test_a_row_that_may_not_be_is_refused(store: SqlStore, master: Writer) -> None:
    with pytest.raises(AssertionFailed, match="CHECK constraint failed: jobs_ended"):
        master.send(new_run(), new_job("a", state=JobState.FAILED))
    assert store.tables()["runs"] == {}


def test_a_batch_that_failed_before_its_commit_leaves_nothing_and_can_be_sent_again(
    store: SqlStore, master: Writer
) -> None:
    def fail(_: Batch) -> None:
        raise RuntimeError("pulled the plug")

    store.before_commit = fail
    batch = master.batch([new_run(), new_job(), kept_answer("k", b"x")], [StoreIncr("n", 1, 1)], [LogChunk(7, 0, b"a")])
    with pytest.raises(CommitFailed, match="pulled the plug"):
        store.commit(batch)
    assert set(map(len, store.tables().values())) == {0}
    assert store.log_totals([7]) == {7: (0, 0)}
    assert store.leader() == (master.epoch, 0)
    store.before_commit = None
    assert store.commit(batch) == ["1"]
    assert store.log_totals([7]) == {7: (1, 1)}


def test_a_full_disk_is_told_from_other_failures(store: SqlStore, master: Writer) -> None:
    def fill(_: Batch) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    store.before_commit = fill
    with pytest.raises(StorageFull):
        master.send(new_run())
    assert store.tables()["runs"] == {}


@pytest.mark.parametrize("arrives", [True, False])
def test_after_a_commit_without_an_answer_the_leader_row_tells(store: SqlStore, master: Writer, arrives: bool) -> None:
    batch = master.batch([new_run()], [StoreIncr("n", 4, NOW_MS)])
    store.leave_unanswered(arrives)
    with pytest.raises(CommitUnknown) as unknown:
        store.commit(batch)
    assert unknown.value.results == ["4"]
    assert store.leader() == (master.epoch, int(arrives))
    assert len(store.tables()["runs"]) == int(arrives)
    if arrives:
        with pytest.raises(Deposed):
            store.commit(batch)
    else:
        assert store.commit(batch) == ["4"]
    assert store.value("n", NOW_MS) == "4"


def test_a_former_epoch_is_fenced_off(store: SqlStore, master: Writer) -> None:
    master.send(new_run())
    later = Writer(store)
    assert later.epoch > master.epoch
    assert store.leader() == (later.epoch, 0)
    with pytest.raises(Deposed, match=f"epoch {later.epoch}"):
        master.send(new_job(), operations=[StorePut("k", "v", NOW_MS)])
    assert store.tables()["jobs"] == {}
    assert store.value("k", NOW_MS) is None
    later.send(new_job())
    with pytest.raises(Deposed):
        master.send()
    assert store.leader() == (later.epoch, 1)


@pytest.mark.parametrize("number", [1, 3])
def test_a_batch_out_of_order_is_fenced_off(store: SqlStore, master: Writer, number: int) -> None:
    master.send(new_run())
    with pytest.raises(Deposed):
        store.commit(Batch(master.epoch, number, [new_job()], [], []))
    assert store.tables()["jobs"] == {}


def test_an_answer_is_remembered_until_it_expires(store: SqlStore, master: Writer) -> None:
    master.send(kept_answer("k", b"first"))
    assert store.remembered("k", NOW_MS + 99) == b"first"
    assert store.remembered("k", NOW_MS + 100) is store.remembered("other", NOW_MS) is None
    with pytest.raises(AssertionFailed):
        master.send(kept_answer("k", b"second", NOW_MS + 99))
    master.send(kept_answer("k", b"third", NOW_MS + 100))
    assert store.remembered("k", NOW_MS + 150) == b"third"


def test_an_operation_counts_once_for_its_key(store: SqlStore, master: Writer) -> None:
    once = StoreIncr("n", 2, NOW_MS, IdempotencyKey("k", b"h", NOW_MS + 100))
    assert [master.send(operations=[once]) for _ in range(2)] == [["2"], ["2"]]
    assert store.value("n", NOW_MS) == "2"


def test_values_come_back_as_what_they_were(store: SqlStore, master: Writer) -> None:
    master.send(operations=[StorePut("text", "1", NOW_MS), StorePut("bytes", b"1", NOW_MS, ttl_s=1.0)])
    master.send(operations=[StoreAdd("set", "m", NOW_MS)])
    assert (store.value("text", NOW_MS), store.value("bytes", NOW_MS)) == ("1", b"1")
    assert store.value("bytes", NOW_MS + 1_000) is None
    with pytest.raises(ValueError, match="a set"):
        store.value("set", NOW_MS)


def test_logs_count_with_their_holes(store: SqlStore, master: Writer) -> None:
    master.send(chunks=[LogChunk(7, 0, b"hello"), LogChunk(8, 0, b"x")])
    master.send(chunks=[LogChunk(7, 5, b"", 10, "too much")])
    master.send(chunks=[LogChunk(7, 15, b" world")])
    assert store.log_totals([7, 8, 9]) == {7: (21, 11), 8: (1, 1), 9: (0, 0)}


def test_stores_know_nothing_of_each_other_and_leave_no_files(store: SqlStore, master: Writer) -> None:
    master.send(new_run(), chunks=[LogChunk(7, 0, b"hello")])
    other = SqlStore()
    folder = other._home
    assert folder.is_dir()
    assert other.leader() == (0, 0)
    assert other.tables()["runs"] == {}
    Writer(other).send(new_run(name="another"))
    other.close()
    assert not folder.exists()
    assert store.tables()["runs"][RUN,]["name"] == "nightly"
    assert store.log_totals([7]) == {7: (5, 5)}


def random_batch(dice: random.Random, step: int) -> tuple[list[Change], list[Any], list[LogChunk]]:
    """Return one of few writes to few rows: most believe something that is no longer so."""
    job_id, fence = f"j{dice.randrange(8)}", dice.randrange(1, 12)
    possible: list[Change] = [
        new_job(job_id, ordinal=dice.randrange(8)),
        new_edge(job_id, f"j{dice.randrange(8)}"),
        assign(job_id, fence),
        completed(job_id, dice.choice([JobState.QUEUED, JobState.ASSIGNED])),
        kept_answer(f"k{dice.randrange(3)}", b"%d" % step, NOW_MS + step),
    ]
    changes = [dice.choice(possible)]
    if dice.random() < 0.3:
        changes.append(new_attempt(fence, job_id))
    operations = [StoreIncr("n", 1, NOW_MS)] if dice.random() < 0.3 else []
    chunks = [LogChunk(fence, dice.randrange(3) * 4, b"data")] if dice.random() < 0.3 else []
    return changes, operations, chunks


@pytest.mark.parametrize("seed", range(3))
def test_the_same_batches_end_the_same_in_memory_and_in_a_file(
    store: SqlStore, master: Writer, tmp_path: Path, seed: int
) -> None:
    file = Storage(tmp_path / "home")
    dice = random.Random(seed)
    master.send(new_run(jobs_total=8))
    file.commit(new_run(jobs_total=8))
    failed = 0
    for step in range(80):
        parts = random_batch(dice, step)
        if dice.random() < 0.05:
            master = Writer(store)
            file.take_over()
        outcomes = [outcome(store.commit, master.batch(*parts)), outcome(file.send, file.batch(*parts))]
        assert outcomes[0] == outcomes[1]
        master.number = file.number
        failed += outcomes[0][0] is AssertionFailed
    assert 0 < failed < 80
    assert store.leader() == file.journal.leader()
    assert store.snapshot() == file.database.read(queries.snapshot)
    for table, rows in store.tables().items():
        in_file = [row[1:] if table == "runs" else row for row in file.rows(table)]  # without `seq`
        assert sorted((tuple(row.values()) for row in rows.values()), key=repr) == sorted(in_file, key=repr), table
    file.close()


def outcome(send: Callable[[Batch], Any], batch: Batch) -> tuple[Any, Any]:
    try:
        return None, send(batch)
    except CommitFailed as error:
        return type(error), str(error)
