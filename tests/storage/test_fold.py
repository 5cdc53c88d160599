"""Folding: a batch of folded changes leaves the same rows as its changes applied one after the other."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.backend import Storage
from tests.storage.builders import RUN, attempt_values, job_values, new_run
from titan.core.changes import Change, Insert, Update, fold

JOBS = ("a", "b")
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "reason": st.sampled_from(["", "x", "y"]),
    "losses": st.integers(0, 3),
    "due_ms": st.one_of(st.none(), st.integers(0, 5)),
    "cancel_requested": st.booleans(),
}


class World:
    """Draws changes that hold in the state the earlier ones left."""

    def __init__(self) -> None:
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.fence = 0

    def change(self, draw: Any) -> Change:
        job_id = draw(st.sampled_from(JOBS))
        key = ("jobs", RUN, job_id)
        if key not in self.rows:
            return self.insert("jobs", key, job_values(job_id, ordinal=JOBS.index(job_id)))
        if draw(st.booleans()):
            return self.update(draw, key, VALUES)
        if self.fence and draw(st.booleans()):
            return self.update(draw, ("attempts", draw(st.integers(1, self.fence))), {"log_bytes": st.integers(0, 9)})
        self.fence += 1
        return self.insert("attempts", ("attempts", self.fence), attempt_values(self.fence, job_id))

    def insert(self, table: Any, key: tuple[Any, ...], values: dict[str, Any]) -> Insert:
        self.rows[key] = dict(values)
        return Insert(table, dict(values))

    def update(self, draw: Any, key: tuple[Any, ...], columns: dict[str, st.SearchStrategy[Any]]) -> Update:
        row = self.rows[key]
        believed = draw(st.lists(st.sampled_from(sorted(columns)), unique=True))
        changed = draw(st.lists(st.sampled_from(sorted(columns)), min_size=1, unique=True))
        values = {column: draw(columns[column]) for column in changed}
        change = Update(key[0], key[1:], {column: row[column] for column in believed}, values)
        row.update(values)
        return change


@st.composite
def histories(draw: Any) -> list[list[Change]]:
    world = World()
    return [[world.change(draw) for _ in range(draw(st.integers(1, 8)))] for _ in range(draw(st.integers(1, 4)))]


def test_two_submissions_of_one_batch_may_bring_the_same_script(storage: Storage) -> None:
    blob = Insert("blobs", {"sha256": "1" * 64, "size": 1, "data": b"x", "created_ms": 1})
    storage.commit(*fold([new_run(), blob, new_run("b" * 32), blob]))
    assert (len(storage.rows("runs")), len(storage.rows("blobs"))) == (2, 1)


def test_any_other_row_inserted_twice_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="inserted twice"):
        fold([new_run(), new_run()])


@settings(max_examples=40, deadline=None)
@given(histories())
def test_fold_and_commit_is_sequential_application(batches: list[list[Change]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        folded, sequential = Storage(Path(folder) / "folded"), Storage(Path(folder) / "sequential")
        for storage in (folded, sequential):
            storage.commit(new_run(jobs_total=2))
        for changes in batches:
            folded.commit(*fold(changes))
            for change in changes:
                sequential.commit(change)
        for table in ("jobs", "attempts"):
            assert folded.rows(table) == sequential.rows(table)
        folded.close()
        sequential.close()
