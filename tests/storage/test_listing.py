"""Lists page by page, a run whole, the snapshot a core is loaded from, and the sweep of what was never shown."""

import random
from typing import Any

import pytest

from tests.storage.backend import NOW_MS, Storage
from tests.storage.builders import (
    RUN,
    attempt_values,
    job_values,
    new_attempt,
    new_edge,
    new_job,
    new_run,
    number_of_id,
    run_values,
)
from titan.core.rows import AttemptRow, EdgeRow, JobRow, RunRow, opening_of
from titan.model.states import FINAL_JOB_STATES, AttemptState, JobState, RunState
from titan.model.store import SweepStage
from titan.storage import queries
from titan.storage.queries import RunFilter

ENDED: dict[str, Any] = {"state": RunState.COMPLETED, "ended_ms": 9_000, "jobs_completed": 1}


def listed(storage: Storage, which: RunFilter, limit: int = 100) -> list[str]:
    """Return the ids of all pages."""
    found: list[str] = []
    before = None
    while True:
        page = storage.database.read(lambda c, at=before: queries.list_runs(c, which, limit, at))  # type: ignore[misc]
        found += [row.run_id for row in page.rows]
        assert len(page.rows) <= limit
        if page.next is None:
            return found
        before = page.next


def test_structs_hold_what_was_written(storage: Storage) -> None:
    run = run_values(name="ünï", started_ms=5, cancel_requested=True, state=RunState.RUNNING)
    job = job_values(spec=bytes(range(256)), state=JobState.DELAYED, due_ms=7, cancel_requested=True, exit_code=3)
    attempt = attempt_values(
        fence=2**60, state=AttemptState.ENDED, ended_ms=9, exit_code=137, signal=9, cause="timeout"
    )
    storage.commit(new_run(**run), new_job(**job), new_attempt(**attempt))
    read = storage.database.read
    assert read(lambda c: queries.run(c, RUN)) == RunRow(**run)
    assert read(lambda c: queries.job(c, RUN, "extract")) == JobRow(**job)
    assert read(lambda c: queries.attempt(c, 2**60)) == AttemptRow(**attempt)
    found = read(lambda c: queries.run(c, RUN))
    assert found is not None
    assert (type(found.state), type(found.cancel_requested)) == (RunState, bool)
    assert read(lambda c: queries.run(c, "b" * 32)) is None
    assert read(lambda c: queries.job(c, RUN, "other")) is None
    assert read(lambda c: queries.attempt(c, 5)) is None


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_runs_are_listed_newest_first_page_by_page(storage: Storage, limit: int) -> None:
    created = [5, 3, 3, 9, 1, 3, 9]
    for number, created_ms in enumerate(created):
        storage.commit(new_run(number_of_id(number), created_ms=created_ms))
    wanted = sorted(range(len(created)), key=lambda number: (created[number], number), reverse=True)
    assert listed(storage, RunFilter(), limit) == [number_of_id(number) for number in wanted]


def test_a_page_is_not_moved_by_what_is_submitted_meanwhile(storage: Storage) -> None:
    for number in range(4):
        storage.commit(new_run(number_of_id(number), created_ms=number))
    first = storage.database.read(lambda c: queries.list_runs(c, RunFilter(), 2))
    storage.commit(new_run(number_of_id(9), created_ms=9))
    second = storage.database.read(lambda c: queries.list_runs(c, RunFilter(), 2, first.next))
    assert [row.run_id for row in second.rows] == [number_of_id(1), number_of_id(0)]


def test_filters_hold_together(storage: Storage) -> None:
    a, b, c, d = map(number_of_id, range(4))
    storage.commit(new_run(a, name="Nightly_ETL 100%"), new_run(b, name="nightly etl", agent_run_id="agent 7"))
    storage.commit(new_run(c, name="other", agent_run_id="agent 7", **ENDED), new_run(d, name="back\\slash"))
    queued, over = frozenset({RunState.QUEUED}), frozenset({RunState.COMPLETED, RunState.FAILED})
    assert listed(storage, RunFilter(name="NIGHTLY")) == [b, a]
    assert listed(storage, RunFilter(name="_etl")) == listed(storage, RunFilter(name="100%")) == [a]
    assert listed(storage, RunFilter(name="%")) == [a]
    assert listed(storage, RunFilter(name="\\")) == [d]
    assert listed(storage, RunFilter(agent_run_id="agent 7")) == [c, b]
    assert listed(storage, RunFilter(agent_run_id="agent 7", states=queued)) == [b]
    assert listed(storage, RunFilter(states=over), 1) == [c]
    assert listed(storage, RunFilter(states=over | queued), 1) == [d, c, b, a]
    assert listed(storage, RunFilter(states=over, name="nightly")) == []


@pytest.mark.parametrize("cursor", ["", "5", "5.", "x.y", "5.5;", "-1.5", "1.2.3", "9" * 30 + ".1"])
def test_what_is_no_cursor_is_refused(storage: Storage, cursor: str) -> None:
    with pytest.raises(ValueError, match="no cursor"):
        storage.database.read(lambda c: queries.list_runs(c, RunFilter(), 10, cursor))
    with pytest.raises(ValueError, match="no cursor"):
        storage.database.read(lambda c: queries.jobs_of_run(c, RUN, frozenset(), 10, cursor + "."))


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_jobs_are_listed_in_order_of_submission(storage: Storage, limit: int) -> None:
    names = ["zeta", "alpha", "m10", "m9", "beta"]
    storage.commit(new_run(jobs_total=5), *(new_job(name, ordinal=number) for number, name in enumerate(names)))
    storage.commit(new_run("b" * 32), new_job("zeta", "b" * 32))
    found: list[str] = []
    after = None
    while True:
        page = storage.database.read(lambda c, at=after: queries.jobs_of_run(c, RUN, frozenset(), limit, at))  # type: ignore[misc]
        found += [row.job_id for row in page.rows]
        if page.next is None:
            break
        after = page.next
    assert found == names


def test_jobs_are_listed_by_state(storage: Storage) -> None:
    held: dict[str, Any] = {"fence": 1, "attempt": 1, "worker": "w"}
    storage.commit(
        new_run(jobs_total=3), new_job("a"), new_job("b", ordinal=1, state=JobState.BLOCKED),
        new_job("c", ordinal=2, state=JobState.ASSIGNED, **held),
    )  # fmt: skip
    states = frozenset({JobState.BLOCKED, JobState.ASSIGNED})
    page = storage.database.read(lambda c: queries.jobs_of_run(c, RUN, states, 10))
    assert [row.job_id for row in page.rows] == ["b", "c"]


def test_jobs_by_id_are_those_the_run_has(storage: Storage) -> None:
    storage.commit(new_run(), new_job("a"), new_run("b" * 32), new_job("b", "b" * 32))
    found = storage.database.read(lambda c: queries.jobs_by_id(c, RUN, ["a", "b"]))
    assert [*found] == ["a"]
    assert storage.database.read(lambda c: queries.job_ids(c, RUN)) == {"a"}


def test_attempts_of_a_job_are_listed_oldest_first(storage: Storage) -> None:
    over: dict[str, Any] = {"state": AttemptState.LOST, "ended_ms": 5}
    storage.commit(new_run(), new_attempt(9, attempt=3), new_attempt(2, **over), new_attempt(5, attempt=2, **over))
    storage.commit(new_attempt(4, "other"))
    found = storage.database.read(lambda c: queries.attempts(c, RUN, "extract"))
    assert [row.fence for row in found] == [2, 5, 9]


def test_a_run_is_read_whole(storage: Storage) -> None:
    storage.commit(new_run(jobs_total=2, **{**ENDED, "jobs_completed": 2}))
    done: dict[str, Any] = {"state": JobState.COMPLETED, "ended_ms": 5}
    storage.commit(new_job("b", ordinal=1, **done), new_job("a", **done), new_edge("b", "a"))
    whole = storage.database.read(lambda c: queries.whole_run(c, RUN))
    assert whole is not None
    run, jobs, edges = whole
    assert (run.state, [job.job_id for job in jobs], edges) == ("COMPLETED", ["a", "b"], [EdgeRow(RUN, "b", "a")])


def random_world(seed: int) -> tuple[list[Any], dict[str, Any]]:
    """Return changes that make several runs, and what a core may have to know of them, by plain filtering."""
    dice = random.Random(seed)
    changes: list[Any] = []
    wanted: dict[str, Any] = {"runs": [], "jobs": [], "edges": set(), "attempts": []}
    fence = 0
    for number in range(6):
        run_id = number_of_id(number)
        state = dice.choice([RunState.QUEUED, RunState.RUNNING, RunState.COMPLETED, RunState.STAGED])
        over = state is RunState.COMPLETED
        shown = state in (RunState.QUEUED, RunState.RUNNING)
        again = set(dice.sample(range(10), 5)) if shown and dice.random() < 0.5 else set()
        changes.append(
            new_run(
                run_id, state=state, ended_ms=9 if over else None, jobs_total=10, jobs_completed=10 if over else 0,
                generation=2, opening=opening_of(again, 10) if again else None,
            )
        )  # fmt: skip
        if shown:
            wanted["runs"].append(run_id)
        states: list[JobState] = []
        open_ordinals: set[int] = set()
        for ordinal in range(10):
            job_state = JobState.COMPLETED if over else dice.choice([*JobState])
            states.append(job_state)
            final = job_state in FINAL_JOB_STATES
            generation = dice.choice([1, 2])
            living = not final or (ordinal in again and generation == 1)
            open_ordinals |= {ordinal} if living else set()
            fence += 1
            held: dict[str, Any] = {"fence": fence, "attempt": 1, "worker": "w", "started_ms": 3, "due_ms": 4}
            changes.append(
                new_job(
                    f"j{ordinal}",
                    run_id,
                    ordinal=ordinal,
                    state=job_state,
                    ended_ms=5 if final else None,
                    generation=generation,
                    **held,
                )
            )
            if shown and living:
                wanted["jobs"].append((run_id, f"j{ordinal}"))
            if job_state in (JobState.ASSIGNED, JobState.RUNNING):
                changes.append(new_attempt(fence, f"j{ordinal}", run_id, state=AttemptState(job_state), started_ms=3))
                wanted["attempts"].append(fence)
            for parent in range(ordinal):
                if dice.random() < 0.4:
                    changes.append(new_edge(f"j{ordinal}", f"j{parent}", run_id))
                    if shown and living and (parent in open_ordinals or states[parent] is not JobState.COMPLETED):
                        wanted["edges"].add((run_id, f"j{ordinal}", f"j{parent}"))
    return changes, wanted


@pytest.mark.parametrize("seed", range(5))
def test_the_snapshot_is_all_that_is_not_over(storage: Storage, seed: int) -> None:
    changes, wanted = random_world(seed)
    storage.commit(*changes)
    found = storage.database.read(queries.snapshot, None)
    assert [row.run_id for row in found.runs] == wanted["runs"]
    assert [(row.run_id, row.job_id) for row in found.jobs] == wanted["jobs"]
    assert {(row.run_id, row.job_id, row.parent_id) for row in found.edges} == wanted["edges"]
    assert [row.fence for row in found.attempts] == sorted(wanted["attempts"])


def test_a_left_over_stage_is_swept_in_slices(storage: Storage) -> None:
    staged = "e" * 32
    storage.commit(new_run(), new_job("j0"), new_job("j1", ordinal=1), new_edge("j1", "j0"))
    kept = storage.everything()
    storage.commit(
        new_run(staged, state=RunState.STAGED, jobs_total=7), *(new_job(f"j{n}", staged, ordinal=n) for n in range(7)),
        *(new_edge(f"j{n}", f"j{n - 1}", staged) for n in range(1, 7)),
    )  # fmt: skip
    gone: list[int] = []
    while gone[-1:] != [0]:
        gone.append(storage.one(SweepStage(staged, 4)))
    assert gone == [4, 2, 4, 3, 1, 0]
    assert storage.everything() == kept


def test_a_shown_run_is_never_swept(storage: Storage) -> None:
    storage.commit(new_run(), new_job())
    before = storage.everything()
    assert storage.do(SweepStage(RUN), SweepStage("f" * 32)) == [0, 0]
    assert storage.everything() == before


def test_remembered_keys_expire(storage: Storage) -> None:
    from titan.core.changes import Insert

    row = {"key": "k", "body_hash": b"h", "answer": b"a", "created_ms": NOW_MS, "expires_ms": NOW_MS + 10}
    storage.commit(Insert("idempotency", row))
    read = storage.database.read
    assert read(lambda c: queries.remembered(c, "k", NOW_MS + 9)) == queries.Remembered(b"h", b"a")
    assert read(lambda c: queries.remembered(c, "k", NOW_MS + 10)) is None
    assert read(lambda c: queries.remembered(c, "other", NOW_MS)) is None
