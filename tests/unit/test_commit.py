"""The commit machine against a model of the database: example by example, then every interleaving hypothesis finds."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from titan.core.changes import Insert, Update
from titan.core.commit import (
    BATCH_COST_MAX,
    RESENDS_MAX,
    Batch,
    Commit,
    Entry,
    LogChunk,
    Order,
    ReadLeader,
    Refuse,
    Release,
    Reload,
    State,
    StepDown,
    Write,
    cost_of,
)

FULL = OSError("disk full")


def row(name: str) -> Insert:
    return Insert("runs", {"run_id": name})


def entry(name: str, operations: int = 0, cost: int = 1) -> Entry:
    asked = [f"{name}.{number}" for number in range(operations)]
    return Entry(changes=[row(name)], operations=asked, ticket=name, cost=cost)


def silent(name: str) -> Entry:
    return Entry(ticket=name)


def names(entries: list[Any]) -> list[str]:
    return [item[0].ticket if isinstance(item, tuple) else item.ticket for item in entries]


def written(orders: list[Order]) -> Batch:
    assert len(orders) == 1
    assert isinstance(orders[0], Write)
    return orders[0].batch


def started(*entries: Entry) -> Commit:
    machine = Commit(7)
    for one in entries:
        assert machine.add(one) == []
    written(machine.turn())
    return machine


def test_what_arrived_together_is_one_batch_and_nothing_is_released_before_it_is_durable() -> None:
    machine = Commit(7, 41)
    assert machine.add(entry("a")) == []
    assert machine.add(entry("b")) == []
    batch = written(machine.turn())
    assert (batch.epoch, batch.number, batch.changes) == (7, 42, [row("a"), row("b")])
    assert machine.add(entry("c")) == []
    assert machine.turn() == []
    (release,) = machine.committed(42, [])
    assert isinstance(release, Release)
    assert (release.number, names(release.entries)) == (42, ["a", "b"])
    assert written(machine.turn()).number == 43


def test_each_entry_gets_the_results_of_its_own_operations() -> None:
    machine = started(entry("a", operations=2), entry("b"), entry("c", operations=1))
    (release,) = machine.committed(1, ["first", "second", "third"])
    assert isinstance(release, Release)
    assert [results for _, results in release.entries] == [["first", "second"], [], ["third"]]


def test_changes_of_one_row_are_folded_over_entries() -> None:
    machine = Commit(7)
    machine.add(Entry(changes=[row("a")]))
    machine.add(Entry(changes=[Update("runs", ("a",), {"state": "QUEUED"}, {"state": "RUNNING"})]))
    assert written(machine.turn()).changes == [Insert("runs", {"run_id": "a", "state": "RUNNING"})]


def test_log_chunks_and_operations_go_with_the_batch_in_order() -> None:
    machine = Commit(7)
    chunks = [LogChunk(1, 0, b"a"), LogChunk(1, 1, b"b")]
    machine.add(Entry(chunks=chunks[:1], operations=["put"]))
    machine.add(Entry(chunks=chunks[1:], operations=["get"]))
    batch = written(machine.turn())
    assert (batch.chunks, batch.operations) == (chunks, ["put", "get"])


def test_an_answer_from_memory_waits_for_what_it_rests_on_and_for_nothing_else() -> None:
    machine = Commit(7)
    (release,) = machine.add(silent("idle"))
    assert isinstance(release, Release)
    machine.add(entry("a"))
    assert machine.add(silent("after a")) == []
    written(machine.turn())
    assert machine.add(silent("while a is written")) == []
    machine.add(entry("b"))
    machine.add(silent("after b"))
    (release,) = machine.committed(1, [])
    assert isinstance(release, Release)
    assert names(release.entries) == ["a", "after a", "while a is written"]


def test_a_batch_takes_the_longest_prefix_that_fits_and_at_least_one_entry() -> None:
    machine = Commit(7)
    machine.add(entry("huge", cost=BATCH_COST_MAX + 1))
    machine.add(entry("small"))
    machine.add(entry("rest", cost=BATCH_COST_MAX))
    for number, expected in enumerate((["huge"], ["small"], ["rest"]), start=1):
        written(machine.turn())
        (release,) = machine.committed(number, [])
        assert isinstance(release, Release)
        assert names(release.entries) == expected
    assert machine.cost_waiting == 0


def test_a_failed_batch_refuses_itself_and_all_that_was_decided_after_it() -> None:
    machine = started(entry("a"), entry("b"))
    machine.add(entry("c"))
    machine.add(silent("d"))
    assert machine.failed(1, FULL) == [
        Refuse(machine_entries("ab"), FULL),
        Refuse([entry("c"), silent("d")], FULL),
        Reload(FULL),
    ]
    assert machine.add(entry("e")) == [Refuse([entry("e")], FULL)]
    assert machine.turn() == []


def machine_entries(letters: str) -> list[Entry]:
    return [entry(letter) for letter in letters]


def test_unknown_and_there_releases_with_the_results_of_the_lost_answer() -> None:
    machine = started(entry("a", operations=1))
    assert machine.unknown(1, ["counted"], FULL) == [ReadLeader()]
    (release,) = machine.leader_row(7, 1)
    assert isinstance(release, Release)
    assert release.entries[0][1] == ["counted"]


def test_unknown_and_not_there_sends_the_same_rows_again_then_gives_up() -> None:
    machine = started(entry("a"))
    for _ in range(RESENDS_MAX):
        assert machine.unknown(1, [], FULL) == [ReadLeader()]
        batch = written(machine.leader_row(7, 0))
        assert (batch.number, batch.changes) == (1, [row("a")])
    machine.unknown(1, [], FULL)
    assert machine.leader_row(7, 0) == [Refuse([entry("a")], FULL), Reload(FULL)]


def test_a_second_sending_fenced_off_by_the_first_is_a_commit() -> None:
    machine = started(entry("a", operations=1))
    machine.unknown(1, ["first answer"], FULL)
    written(machine.leader_row(7, 0))
    assert machine.deposed(1, FULL) == [ReadLeader()]
    (release,) = machine.leader_row(7, 1)
    assert isinstance(release, Release)
    assert release.entries[0][1] == ["first answer"]


def test_another_epoch_ends_the_process_and_nothing_is_released() -> None:
    machine = started(entry("a"))
    machine.add(entry("b"))
    machine.deposed(1, FULL)
    refused, later, last = machine.leader_row(8, 1)
    assert (refused, later) == (Refuse([entry("a")], FULL), Refuse([entry("b")], FULL))
    assert last == StepDown("epoch 8 leads now, this process was epoch 7")
    assert machine.state is State.OVER


def test_a_leader_row_nobody_can_read_ends_the_process() -> None:
    machine = started(entry("a"))
    machine.unknown(1, [], FULL)
    refused, last = machine.leader_unread(OSError("gone"))
    assert refused == Refuse([entry("a")], FULL)
    assert isinstance(last, StepDown)


@pytest.mark.parametrize("number", [0, 1])
def test_fenced_off_by_a_row_that_contradicts_itself_reloads(number: int) -> None:
    machine = started(entry("a"))
    machine.deposed(1, FULL)
    assert machine.leader_row(7, number) == [Refuse([entry("a")], FULL), Reload(FULL)]


def test_an_exception_in_the_core_refuses_what_waits_and_still_releases_what_was_in_flight() -> None:
    bug = KeyError("job")
    machine = started(entry("a"))
    machine.add(entry("b"))
    assert machine.raised(bug) == [Refuse([entry("b")], bug)]
    assert machine.raised(KeyError("again")) == []
    assert machine.add(silent("c")) == [Refuse([silent("c")], bug)]
    release, reload = machine.committed(1, [])
    assert isinstance(release, Release)
    assert names(release.entries) == ["a"]
    assert reload == Reload(bug)
    assert machine.turn() == []


def test_an_exception_in_the_core_with_nothing_in_flight_reloads_at_once() -> None:
    bug = KeyError("job")
    machine = Commit(7)
    machine.add(entry("a"))
    assert machine.raised(bug) == [Refuse([entry("a")], bug), Reload(bug)]


def test_an_exception_in_the_core_then_a_failed_batch_reloads_once_for_the_first_reason() -> None:
    bug = KeyError("job")
    machine = started(entry("a"))
    machine.raised(bug)
    assert machine.failed(1, FULL) == [Refuse([entry("a")], FULL), Reload(bug)]


def test_a_row_inserted_twice_in_one_batch_is_a_fault_of_ours_and_reloads() -> None:
    machine = Commit(7)
    machine.add(entry("a"))
    machine.add(entry("a"))
    refused, reload = machine.turn()
    assert isinstance(refused, Refuse)
    assert names(refused.entries) == ["a", "a"]
    assert isinstance(reload, Reload)


def test_reports_out_of_turn_are_errors() -> None:
    machine = started(entry("a"))
    with pytest.raises(ValueError, match="batch 2"):
        machine.committed(2, [])
    with pytest.raises(ValueError, match="nobody asked"):
        machine.leader_row(7, 1)
    machine.committed(1, [])
    with pytest.raises(ValueError, match="batch 1"):
        machine.failed(1, FULL)


def test_the_cost_of_an_entry_counts_rows_and_pages() -> None:
    assert cost_of([row("a")], ["op"], [LogChunk(1, 0, b"x" * 8192)]) == 5
    assert cost_of([], ["op"], [], data_bytes=4096) == 2


class Database:
    """What the machine believes in: one leader row and the entries of every batch that was applied."""

    def __init__(self) -> None:
        self.epoch = 1
        self.number = 0
        self.held: list[str] = []

    def apply(self, batch: Batch) -> bool:
        if (self.epoch, self.number) != (batch.epoch, batch.number - 1):
            return False
        self.number = batch.number
        self.held += [change.values["run_id"] for change in batch.changes if isinstance(change, Insert)]
        return True

    def take_over(self) -> None:
        self.epoch += 1
        self.number = 0


class CommitStory(RuleBasedStateMachine):
    """Any order of entries, turns, faults and outcomes; a reload makes the next machine of the next epoch."""

    @initialize()
    def begin(self) -> None:
        self.database = Database()
        self.machine = Commit(1)
        self.count = 0
        self.batch: Batch | None = None
        self.late: Batch | None = None
        self.asking = False
        self.gone = False
        self.live: dict[str, Entry] = {}
        self.released: list[str] = []
        self.refused: list[str] = []
        self.unsure: set[str] = set()

    def carry(self, orders: list[Order], sure: bool = True) -> None:
        for order in orders:
            match order:
                case Write():
                    assert self.batch is None
                    assert not self.gone
                    self.batch = order.batch
                case ReadLeader():
                    self.asking = True
                case Release():
                    for one, results in order.entries:
                        self.settle(one, self.released)
                        if one.writes():
                            assert one.ticket in self.database.held, "released, and the database does not hold it"
                            assert results == [f"result of {operation}" for operation in one.operations]
                case Refuse():
                    for one in order.entries:
                        self.settle(one, self.refused)
                        if not sure:
                            self.unsure.add(one.ticket)
                case Reload():
                    self.reload()
                case StepDown():
                    self.gone = True

    def settle(self, one: Entry, where: list[str]) -> None:
        assert self.live.pop(one.ticket, None) is one, "settled twice, or never added"
        where.append(one.ticket)

    def reload(self) -> None:
        assert self.batch is None, "reloaded with a batch in flight"
        assert not self.live, "reloaded while somebody waits"
        self.late = None
        self.database.take_over()
        self.machine = Commit(self.database.epoch)

    def add_one(self, one: Entry) -> None:
        self.live[one.ticket] = one
        self.carry(self.machine.add(one))

    @precondition(lambda self: not self.gone)
    @rule(operations=st.integers(0, 2), cost=st.sampled_from([1, 1, BATCH_COST_MAX // 2, BATCH_COST_MAX * 2]))
    def decide(self, operations: int, cost: int) -> None:
        self.count += 1
        self.add_one(entry(f"{self.count:05}", operations, cost))

    @precondition(lambda self: not self.gone)
    @rule()
    def answer_from_memory(self) -> None:
        self.count += 1
        self.add_one(silent(f"{self.count:05}"))

    @precondition(lambda self: not self.gone)
    @rule()
    def turn(self) -> None:
        self.carry(self.machine.turn())

    @precondition(lambda self: not self.gone)
    @rule()
    def core_raises(self) -> None:
        self.carry(self.machine.raised(KeyError("bug")))

    @precondition(lambda self: self.gone)
    @rule()
    def supervisor_starts_it_again(self) -> None:
        self.gone = False
        self.reload()

    def take_batch(self) -> Batch:
        assert self.batch is not None
        batch, self.batch = self.batch, None
        return batch

    @precondition(lambda self: self.batch is not None)
    @rule(outcome=st.sampled_from(["good", "good", "good", "failed", "unanswered", "lost", "late", "other leader"]))
    def outcome(self, outcome: str) -> None:
        batch = self.take_batch()
        if outcome == "other leader":
            self.database.take_over()
        if self.late is not None:
            self.database.apply(self.late)
            self.late = None
        results = [f"result of {operation}" for operation in batch.operations]
        if outcome == "failed":
            self.carry(self.machine.failed(batch.number, FULL), sure=self.database.number < batch.number)
        elif outcome == "lost":
            self.carry(self.machine.unknown(batch.number, results, FULL))
        elif outcome == "late":
            self.late = batch
            self.carry(self.machine.unknown(batch.number, results, FULL))
        elif not self.database.apply(batch):
            self.carry(self.machine.deposed(batch.number, FULL))
        elif outcome == "unanswered":
            self.carry(self.machine.unknown(batch.number, results, FULL))
        else:
            self.carry(self.machine.committed(batch.number, results))

    @precondition(lambda self: self.asking)
    @rule(readable=st.sampled_from([True, True, True, False]))
    def leader_row(self, readable: bool) -> None:
        self.asking = False
        if readable:
            mine = self.database.epoch == self.machine.epoch
            self.carry(self.machine.leader_row(self.database.epoch, self.database.number), sure=mine)
        else:
            self.carry(self.machine.leader_unread(FULL), sure=False)

    @invariant()
    def nothing_is_held_twice_and_refused_means_not_held(self) -> None:
        assert len(set(self.database.held)) == len(self.database.held)
        assert self.database.held == sorted(self.database.held), "batches were applied out of order"
        assert not (set(self.refused) - self.unsure) & set(self.database.held)

    @invariant()
    def answers_come_in_the_order_of_the_decisions(self) -> None:
        assert self.released == sorted(self.released)
        assert not set(self.released) & set(self.refused)

    def teardown(self) -> None:
        if not hasattr(self, "machine"):
            return
        while not self.gone and (self.live or self.asking or self.batch is not None):
            if self.asking:
                self.leader_row(readable=True)
            elif self.batch is not None:
                self.outcome("good")
            else:
                self.turn()
        assert not self.live, "somebody waits for ever"


CommitStory.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestCommitStory = CommitStory.TestCase
