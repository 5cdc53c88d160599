"""Invariant 16: a graph that cannot be worked through is refused whole, and what is wrong with it is named."""

import dataclasses
import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tests.unit.core.harness import job
from titan.core.graph import PROBLEMS_MAX, STEPS_A_SLICE, check_graph, graph_problems
from titan.model.limits import DEFAULT_LIMITS, Limits
from titan.model.spec import JobSpec, Problem

EXISTING = ("old-1", "old-2")


@st.composite
def dags(draw: st.DrawFn, least: int = 1) -> list[JobSpec]:
    """Jobs j0.. with parents among those of lower number and those already there, in any order."""
    count = draw(st.integers(least, 15))
    jobs = []
    for index in range(count):
        possible = [*EXISTING, *(f"j{number}" for number in range(index))]
        parents = draw(st.lists(st.sampled_from(possible), unique=True, max_size=4))
        jobs.append(job(f"j{index}", *parents))
    return draw(st.permutations(jobs))


def problems_of(jobs: list[JobSpec], limits: Limits = DEFAULT_LIMITS) -> list[Problem]:
    return graph_problems(jobs, EXISTING, limits)


def with_parents(spec: JobSpec, *parents: str) -> JobSpec:
    return job(spec.job_id, *spec.parents, *parents)


def replaced(jobs: list[JobSpec], spec: JobSpec) -> list[JobSpec]:
    return [spec if each.job_id == spec.job_id else each for each in jobs]


@given(dags())
def test_a_dag_is_accepted_in_any_order(jobs: list[JobSpec]) -> None:
    assert problems_of(jobs) == []


@given(dags(least=2), st.data())
def test_i16_a_planted_cycle_is_refused_and_walked_along(jobs: list[JobSpec], data: st.DataObject) -> None:
    ring = data.draw(st.lists(st.sampled_from([spec.job_id for spec in jobs]), min_size=2, max_size=5, unique=True))
    by_id = {spec.job_id: spec for spec in jobs}
    for parent, child in zip(ring, [*ring[1:], ring[0]], strict=True):
        if parent not in by_id[child].parents:
            by_id[child] = with_parents(by_id[child], parent)
    [problem] = problems_of(list(by_id.values()))
    names = problem.message.split("parents: ")[1].split(" -> ")
    assert names[0] == names[-1]
    assert problem.job_id in names
    assert len(set(names)) == len(names) - 1
    if "..." not in names:
        for parent, child in itertools.pairwise(names):
            assert parent in by_id[child].parents


@given(dags(), st.data())
def test_i16_an_unknown_parent_is_named_with_its_job(jobs: list[JobSpec], data: st.DataObject) -> None:
    spec = data.draw(st.sampled_from(jobs))
    [problem] = problems_of(replaced(jobs, with_parents(spec, "ghost")))
    assert (problem.job_id, problem.field) == (spec.job_id, "parents")
    assert "'ghost' is not a job of this run" in problem.message


@given(dags(), st.data())
def test_i16_an_id_given_twice_is_named(jobs: list[JobSpec], data: st.DataObject) -> None:
    spec = data.draw(st.sampled_from(jobs))
    place = data.draw(st.integers(0, len(jobs)))
    [problem] = problems_of([*jobs[:place], job(spec.job_id), *jobs[place:]])
    assert (problem.job_id, problem.field) == (spec.job_id, "job_id")
    assert f"'{spec.job_id}' is taken" in problem.message


def test_an_id_that_the_run_already_has_is_taken() -> None:
    [problem] = problems_of([job("new"), job("old-1")])
    assert problem.job_id == "old-1"


def test_a_job_may_have_a_parent_that_the_run_already_has() -> None:
    assert problems_of([job("a", "old-1"), job("b", "a", "old-1")]) == []


def test_a_job_is_not_its_own_parent() -> None:
    [problem] = problems_of([job("a", "a")])
    assert problem.message == "'a' is its own parent: leave it out of its parents"


def test_a_parent_is_named_once() -> None:
    [problem] = problems_of([job("a"), job("b", "a", "a")])
    assert (problem.job_id, problem.field) == ("b", "parents")


def test_a_cycle_is_told_beside_every_other_problem() -> None:
    jobs = [job("a", "b", "nobody"), job("b", "a"), job("c", "c"), job("d", "a", "a"), job("d")]
    told = [problem.message for problem in problems_of(jobs)]
    assert told == [
        "job id 'd' is taken: choose another, ids are unique in a run",
        "parent 'nobody' is not a job of this run: name one of its jobs",
        "'c' is its own parent: leave it out of its parents",
        "a parent is named twice: name each once",
        "jobs wait for each other in a circle, so leave out one of these parents: b -> a -> b",
    ]


def test_every_problem_is_told_at_once_up_to_a_hundred() -> None:
    jobs = [job("a", "x", "y"), job("a"), job("b", "b"), job("c", "a", "a")]
    assert [problem.job_id for problem in problems_of(jobs)] == ["a", "a", "a", "b", "c"]
    many = problems_of([job(f"j{number}", "ghost") for number in range(PROBLEMS_MAX + 5)])
    assert len(many) == PROBLEMS_MAX


def test_a_dag_without_jobs_is_refused() -> None:
    [problem] = problems_of([])
    assert "at least one job" in problem.message


@pytest.mark.parametrize(("limit", "most"), [("dag_jobs_max", 3), ("dag_edges_max", 3)])
def test_one_over_a_limit_is_refused_whole_and_the_limit_named(limit: str, most: int) -> None:
    limits = dataclasses.replace(DEFAULT_LIMITS, **{limit: most})
    fits = [job("a"), job("b", "a"), job("c", "a", "b")]
    over = [*fits, job("d", "a")] if limit == "dag_jobs_max" else [job("a"), job("b", "a", "old-1"), job("c", "a", "b")]
    assert problems_of(fits, limits) == []
    [problem] = problems_of(over, limits)
    assert problem.code == "too_large"
    assert f"at most {most}" in problem.message
    assert f"TITAN_LIMIT_{limit.upper()}" in problem.message


def test_a_large_graph_is_checked_in_slices_of_bounded_work() -> None:
    roots = [job(f"r{number}") for number in range(100)]
    names = tuple(root.job_id for root in roots)
    jobs = [*roots, *(job(f"m{number}", *names) for number in range(500))]
    yields = sum(1 for _ in check_graph(jobs, (), DEFAULT_LIMITS))
    edges = 100 * 500
    assert yields >= 3 * edges // (STEPS_A_SLICE + 100) - 3  # parents looked up, links counted, links worked off


def test_a_long_cycle_is_found_in_slices_and_told_shortly() -> None:
    count = 3 * STEPS_A_SLICE
    jobs = [job(f"j{number}", f"j{(number + 1) % count}") for number in range(count)]
    checking = check_graph(jobs, (), DEFAULT_LIMITS)
    yields = 0
    while True:
        try:
            next(checking)
        except StopIteration as end:
            [problem] = end.value
            break
        yields += 1
    assert yields >= 2 + 2 * 5 + 3
    assert " -> ... -> " in problem.message
    assert len(problem.message) < 300
