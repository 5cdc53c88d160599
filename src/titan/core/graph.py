"""The graph of a submission, checked whole before any row exists.

`check_graph` is a generator that yields now and then, so that whoever calls it can let others in between:
a graph of 100,000 jobs takes a few hundred milliseconds.
"""

from collections.abc import Collection, Generator, Sequence

from titan.model.ids import shown
from titan.model.limits import Limits, change
from titan.model.spec import JobSpec, Problem

STEPS_A_SLICE = 5_000
PROBLEMS_MAX = 100


def graph_problems(jobs: Sequence[JobSpec], existing: Collection[str], limits: Limits) -> list[Problem]:
    """Return everything wrong with `jobs` as a graph (at most 100 problems); see `check_graph`."""
    checking = check_graph(jobs, existing, limits)
    while True:
        try:
            next(checking)
        except StopIteration as end:
            return list(end.value)


def check_graph(
    jobs: Sequence[JobSpec], existing: Collection[str], limits: Limits
) -> Generator[None, None, list[Problem]]:
    """Yield every few thousand steps, then return the problems: limits, duplicates, unknown parents, a cycle.

    `existing` are the ids already in the run that the jobs are added to; they are possible parents.
    """
    if not jobs:
        return [Problem(code="invalid", message="there are no jobs: give at least one job")]
    if len(jobs) > limits.dag_jobs_max:
        return [_too_many("jobs", len(jobs), limits.dag_jobs_max, "dag_jobs_max")]
    edges = sum(len(job.parents) for job in jobs)
    if edges > limits.dag_edges_max:
        return [_too_many("edges", edges, limits.dag_edges_max, "dag_edges_max")]
    problems: list[Problem] = []
    places: dict[str, int] = {}
    for place, job in enumerate(jobs):
        if place % STEPS_A_SLICE == STEPS_A_SLICE - 1:
            yield
        if job.job_id in places or job.job_id in existing:
            problems.append(
                _problem(job, "job_id", f"job id {shown(job.job_id)} is taken: choose another, ids are unique in a run")
            )
        places[job.job_id] = place
    steps = 0
    for job in jobs:
        steps += 1 + len(job.parents)
        if steps >= STEPS_A_SLICE:
            steps = 0
            yield
        problems.extend(_parent_problems(job, places, existing))
    left = yield from _unsortable(jobs, places)
    if left:
        ring = yield from _ring(jobs, places, left)
        problems = problems[: PROBLEMS_MAX - 1]
        problems.append(_cycle(jobs[ring[0]], [jobs[place].job_id for place in ring]))
    return problems[:PROBLEMS_MAX]


def _parent_problems(job: JobSpec, places: dict[str, int], existing: Collection[str]) -> list[Problem]:
    found: list[Problem] = []
    if len(job.parents) > 1 and len(set(job.parents)) < len(job.parents):
        found.append(_problem(job, "parents", "a parent is named twice: name each once"))
    for parent in job.parents:
        if parent == job.job_id:
            found.append(
                _problem(job, "parents", f"{shown(job.job_id)} is its own parent: leave it out of its parents")
            )
        elif parent not in places and parent not in existing:
            found.append(
                _problem(job, "parents", f"parent {shown(parent)} is not a job of this run: name one of its jobs")
            )
    return found


def _unsortable(jobs: Sequence[JobSpec], places: dict[str, int]) -> Generator[None, None, set[int]]:
    """Kahn's algorithm; what it cannot order lies on a cycle or behind one. Its own parent is another problem."""
    children: dict[int, list[int]] = {}
    waiting = [0] * len(jobs)
    steps = 0
    for place, job in enumerate(jobs):
        steps += 1 + len(job.parents)
        if steps >= STEPS_A_SLICE:
            steps = 0
            yield
        for parent in job.parents:
            at = places.get(parent)
            if at is not None and parent != job.job_id:
                children.setdefault(at, []).append(place)
                waiting[place] += 1
    ready = [place for place, count in enumerate(waiting) if not count]
    while ready:
        freed = children.get(ready.pop(), ())
        steps += 1 + len(freed)
        if steps >= STEPS_A_SLICE:
            steps = 0
            yield
        for child in freed:
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    return {place for place, count in enumerate(waiting) if count}


def _ring(jobs: Sequence[JobSpec], places: dict[str, int], left: set[int]) -> Generator[None, None, list[int]]:
    """Walk up from any job left over: every one of them has a parent left over, so the walk closes."""
    path: list[int] = []
    seen: dict[int, int] = {}
    place = min(left)
    while place not in seen:
        seen[place] = len(path)
        path.append(place)
        if len(path) % STEPS_A_SLICE == 0:
            yield
        job = jobs[place]
        place = next(at for at in (places.get(parent) for parent in job.parents if parent != job.job_id) if at in left)
    return path[seen[place] :][::-1]


def _cycle(job: JobSpec, ring: list[str]) -> Problem:
    names = [*ring, ring[0]]
    text = " -> ".join(names if len(names) <= 12 else [*names[:6], "...", *names[-5:]])
    return _problem(job, "parents", f"jobs wait for each other in a circle, so leave out one of these parents: {text}")


def _problem(job: JobSpec, field: str, message: str) -> Problem:
    return Problem(code="invalid", message=message, job_id=job.job_id, field=field)


def _too_many(what: str, count: int, most: int, limit: str) -> Problem:
    message = f"{count} {what} in one DAG: at most {most}; split the DAG ({change(limit)})"
    return Problem(code="too_large", message=message)
