"""What a typed id means: own run, ancestors, newest run; runs by `@last`, id and prefix; `DAG-` dropped last."""

from typing import Any

import pytest

from tests.storage.backend import Storage
from tests.storage.builders import new_job, new_run, number_of_id
from titan.model.states import RunState
from titan.storage import queries
from titan.storage.queries import Ambiguous, Found

OLD, MIDDLE, NEW = "aaaa" + "1" * 28, "aaab" + "2" * 28, "bbbb" + "3" * 28


@pytest.fixture
def runs(storage: Storage) -> Storage:
    """Three runs with a job `extract` each; `only-old` is in the first alone."""
    for number, run_id in enumerate((OLD, MIDDLE, NEW)):
        storage.commit(new_run(run_id, created_ms=1_000 + number), new_job("extract", run_id))
    storage.commit(new_job("only-old", OLD, ordinal=1), new_job("DAG-kept", OLD, ordinal=2))
    return storage


def find(storage: Storage, text: str, caller: str | None = None) -> Any:
    found = storage.database.read(lambda connection: queries.lookup(connection, text, caller))
    return shown(found)


def find_job(storage: Storage, text: str, caller: str | None = None) -> Any:
    return shown(storage.database.read(lambda connection: queries.lookup_job(connection, text, caller)))


def find_run(storage: Storage, text: str) -> Any:
    return shown(storage.database.read(lambda connection: queries.lookup_run(connection, text)))


def shown(found: Found | Ambiguous | None) -> Any:
    if isinstance(found, Found):
        return (found.run.run_id, found.job.job_id) if found.job else found.run.run_id
    return [row.run_id for row in found.runs] if found else None


FOUND: list[tuple[str, Any]] = [
    ("extract", (NEW, "extract")),
    ("only-old", (OLD, "only-old")),
    ("DAG-extract", (NEW, "extract")),
    ("DAG-kept", (OLD, "DAG-kept")),
    ("kept", None),
    ("DAG-DAG-kept", (OLD, "DAG-kept")),
    ("extr", None),
    ("EXTRACT", None),
    (OLD, OLD),
    (f"DAG-{OLD}", OLD),
    ("bbbb", NEW),
    ("aaaa", OLD),
    ("aaa", None),
    ("aaab2", MIDDLE),
    ("cccc", None),
    ("aaaa/extract", (OLD, "extract")),
    (f"{MIDDLE}/extract", (MIDDLE, "extract")),
    ("aaaa/DAG-extract", (OLD, "extract")),
    ("aaaa/DAG-kept", (OLD, "DAG-kept")),
    ("bbbb/only-old", None),
    ("cccc/extract", None),
    ("@last", NEW),
    ("@last/extract", (NEW, "extract")),
    ("@last-failed", None),
    ("@first", None),
    ("", None),
    ("/", None),
    ("%", None),
    ("aaaa/", None),
]


@pytest.mark.parametrize(("text", "wanted"), FOUND, ids=[row[0] for row in FOUND])
def test_a_text_means_one_thing(runs: Storage, text: str, wanted: Any) -> None:
    assert find(runs, text) == wanted


def test_a_prefix_of_several_runs_names_them_newest_first(runs: Storage) -> None:
    runs.commit(new_run("aaaa" + "9" * 28, created_ms=9_000))
    assert find(runs, "aaaa") == find_run(runs, "aaaa") == ["aaaa" + "9" * 28, OLD]
    assert find(runs, "aaaa/extract") == ["aaaa" + "9" * 28, OLD]
    assert find(runs, "aaaa1") == OLD


def test_a_job_is_looked_for_before_a_runs_prefix_and_after_a_full_id(runs: Storage) -> None:
    runs.commit(new_job("bbbb", OLD, ordinal=7), new_job(NEW, OLD, ordinal=8))
    assert find(runs, "bbbb") == (OLD, "bbbb")
    assert find(runs, NEW) == NEW
    assert find_job(runs, NEW) == (OLD, NEW)


def test_a_runs_name_means_the_newest_of_that_name_when_nothing_else_is_called_so(runs: Storage) -> None:
    older, newer = number_of_id(7), number_of_id(8)
    for number, run_id in enumerate((older, newer)):
        runs.commit(new_run(run_id, name="weekly", created_ms=5_000 + number), new_job("load", run_id))
    runs.commit(new_run(number_of_id(9), name="extract", created_ms=9_000))
    runs.commit(new_run(number_of_id(10), name="bbbb", created_ms=9_001))
    runs.commit(new_run(number_of_id(11), name="weekly", state=RunState.STAGED, created_ms=9_002))
    assert find(runs, "weekly") == find_run(runs, "weekly") == find(runs, "DAG-weekly") == newer
    assert find(runs, "weekly/load") == (newer, "load")
    assert [find(runs, text) for text in ("Weekly", "week", "weekly/lo")] == [None] * 3
    assert find(runs, "extract") == (NEW, "extract")
    assert find_run(runs, "bbbb") == NEW
    assert find_job(runs, "weekly") is None


def test_only_a_job_is_found_where_only_a_job_makes_sense(runs: Storage) -> None:
    assert find_job(runs, "extract") == (NEW, "extract")
    assert find_job(runs, "aaaa/extract") == (OLD, "extract")
    assert [find_job(runs, text) for text in (OLD, "aaaa", "@last")] == [None] * 3


def test_only_a_run_is_found_where_only_a_run_makes_sense(runs: Storage) -> None:
    assert [find_run(runs, text) for text in ("@last", OLD, "bbbb")] == [NEW, OLD, NEW]
    assert [find_run(runs, text) for text in ("extract", "aaaa/extract", "DAG-bbbb")] == [None] * 3


def test_the_callers_run_comes_first_then_its_ancestors_then_the_newest(storage: Storage) -> None:
    grandparent, parent, own, newest = map(number_of_id, (1, 2, 3, 4))
    storage.commit(new_run(grandparent), new_job("a", grandparent), new_job("b", grandparent, ordinal=1))
    storage.commit(new_job("c", grandparent, ordinal=2))
    lineage = {"root_run_id": grandparent, "parent_job_id": "a"}
    storage.commit(new_run(parent, parent_run_id=grandparent, created_ms=2_000, **lineage), new_job("b", parent))
    storage.commit(new_run(own, parent_run_id=parent, created_ms=3_000, **lineage), new_job("a", own))
    storage.commit(
        new_run(newest, created_ms=4_000), *(new_job(name, newest, ordinal=n) for n, name in enumerate("abcd"))
    )
    assert [find(storage, name, own) for name in "abcd"] == [
        (own, "a"), (parent, "b"), (grandparent, "c"), (newest, "d")
    ]  # fmt: skip
    assert [find_job(storage, name, parent) for name in "ab"] == [(grandparent, "a"), (parent, "b")]
    assert find(storage, "DAG-b", own) == (parent, "b")
    assert find(storage, "a", number_of_id(9)) == (newest, "a")


def test_an_exact_id_anywhere_comes_before_a_dropped_prefix(storage: Storage) -> None:
    own, other = number_of_id(1), number_of_id(2)
    storage.commit(new_run(own), new_job("x", own), new_run(other), new_job("DAG-x", other))
    assert find(storage, "DAG-x", own) == (other, "DAG-x")


@pytest.mark.parametrize("count", [3, 300])
def test_the_newest_run_is_found_among_few_and_among_many(storage: Storage, count: int) -> None:
    """By creation time, whatever the order of arrival; of one millisecond, the one that arrived last."""
    for number in range(count):
        storage.commit(new_run(number_of_id(number), created_ms=5_000 - number), new_job("same", number_of_id(number)))
    assert find(storage, "same") == (number_of_id(0), "same")
    for number in (900, 1_000, 950):
        storage.commit(new_run(number_of_id(number), created_ms=6_000), new_job("same", number_of_id(number)))
    assert find(storage, "same") == (number_of_id(950), "same")
    assert find(storage, "@last") == number_of_id(950)


def test_the_last_failed_run_is_the_newest_that_failed(runs: Storage) -> None:
    ended = {"state": RunState.FAILED, "ended_ms": 9_000, "jobs_failed": 1}
    runs.commit(new_run("c" * 32, created_ms=500, **ended), new_run("d" * 32, created_ms=700, **ended))
    assert find(runs, "@last-failed") == "d" * 32


def test_a_staged_run_is_nowhere(runs: Storage) -> None:
    staged = "e" * 32
    runs.commit(new_run(staged, state=RunState.STAGED, created_ms=9_999), new_job("extract", staged))
    runs.commit(new_job("hidden", staged, ordinal=1))
    assert find(runs, "@last") == NEW
    assert find(runs, "extract") == find(runs, "extract", staged) == (NEW, "extract")
    assert [find(runs, text) for text in ("hidden", staged, "eeee", "eeee/extract", f"{staged}/hidden")] == [None] * 5
    read = runs.database.read
    assert read(lambda c: queries.run(c, staged)) is None
    assert read(lambda c: queries.job(c, staged, "hidden")) is None
    assert read(lambda c: queries.whole_run(c, staged)) is None
    assert read(lambda c: queries.job_ids(c, staged)) == set()
    assert read(lambda c: queries.jobs_by_id(c, staged, ["hidden"])) == {}
    assert read(lambda c: queries.jobs_of_run(c, staged, frozenset(), 10)).rows == []
    assert staged not in [row.run_id for row in read(lambda c: queries.list_runs(c, queries.RunFilter(), 10)).rows]
    only_staged = queries.RunFilter(frozenset({RunState.STAGED}))
    assert read(lambda c: queries.list_runs(c, only_staged, 10)).rows == []
    assert [row.run_id for row in read(queries.snapshot).runs] == [OLD, MIDDLE, NEW]
    assert read(queries.staged_runs) == [staged]


@pytest.mark.parametrize("others", [0, 1, 40])
def test_the_short_id_is_the_shortest_that_names_the_run(storage: Storage, others: int) -> None:
    mine = "12345678" + "a" * 24
    near = ["0" * 32, "1234" + "f" * 28, "1234567" + "9" * 25, "12345678" + "a" * 23 + "b", "f" * 32]
    storage.commit(new_run(mine), *(new_run(run_id) for run_id in near[: others and 5]))
    short = storage.database.read(lambda c: queries.short_id(c, mine))
    assert short == ("1234" if not others else mine)
    assert find_run(storage, short) == mine
