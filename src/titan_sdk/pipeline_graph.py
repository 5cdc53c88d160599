"""The order of a pipeline's jobs, looked at with their places: ids taken twice, unknown parents, circles."""

from __future__ import annotations

from titan_sdk.pipeline_words import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from titan_sdk.pipeline import Pipeline
    from titan_sdk.pipeline_nodes import Node

CIRCLES_MAX = 10
NAMES_SHOWN_MAX = 12


def look_at_graph(pipeline: Pipeline, jobs: Sequence[tuple[str, Node, Node | None]]) -> None:
    """Tell `pipeline` what is wrong with the order of `jobs`: (id, node to show, node of the parents)."""
    first: dict[str, Node] = {}
    for job_id, node, _ in jobs:
        if not job_id:
            continue
        if job_id in first:
            message = f"id {shown(job_id)} is taken: the job in line {first[job_id].line} has it"
            pipeline.tell(message, node.place, job_id, "id")
        else:
            first[job_id] = node
    edges: dict[str, dict[str, Node]] = {}
    for job_id, _, parents in jobs:
        found = _parents(pipeline, job_id, parents, first)
        if job_id and job_id not in edges:
            edges[job_id] = found
    _tell_circles(pipeline, edges)


def _parents(pipeline: Pipeline, job_id: str, parents: Node | None, known: dict[str, Node]) -> dict[str, Node]:
    """Return the parents that there are, each with its node; tell about the others."""
    found: dict[str, Node] = {}
    if parents is None:
        return found
    for node in parents.items if parents.kind == "list" else [parents]:
        name = node.text
        if node.kind != "text" or node.is_null:
            continue
        if name == job_id:
            pipeline.tell(f"{shown(name)} waits for itself: name another job", node.place, job_id, "depends_on")
        elif name not in known:
            near = pipeline.near(name, known.keys) or ": give the id of a job in this file"
            pipeline.tell(f"{shown(name)} is no job of this pipeline{near}", node.place, job_id, "depends_on")
        elif name in found:
            pipeline.tell(f"{shown(name)} is named twice: name each once", node.place, job_id, "depends_on")
        else:
            found[name] = node
    return found


def _tell_circles(pipeline: Pipeline, edges: dict[str, dict[str, Node]]) -> None:
    """Tell about each circle that shares no job with one told before."""
    left = _unsortable(edges)
    for _ in range(CIRCLES_MAX):
        if not left:
            return
        ring = _ring(left)
        names = [*ring, ring[0]]
        text = " -> ".join(names if len(names) <= NAMES_SHOWN_MAX else [*names[:6], "...", *names[-5:]])
        # The first job of the ring, whose parent is the last: the arrow from one to the next is "goes before".
        place = left[ring[0]][ring[-1]].place
        pipeline.tell(f"jobs wait for each other in a circle: {text}", place, ring[0], "depends_on")
        for name in ring:
            del left[name]
        left = _unsortable({name: {p: node for p, node in found.items() if p in left} for name, found in left.items()})


def _unsortable(edges: dict[str, dict[str, Node]]) -> dict[str, dict[str, Node]]:
    """Return what lies on a circle or behind one."""
    children: dict[str, list[str]] = {}
    waiting = {name: len(parents) for name, parents in edges.items()}
    for name, parents in edges.items():
        for parent in parents:
            children.setdefault(parent, []).append(name)
    ready = [name for name, count in waiting.items() if not count]
    while ready:
        for child in children.get(ready.pop(), ()):
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    return {name: edges[name] for name, count in waiting.items() if count}


def _ring(left: dict[str, dict[str, Node]]) -> list[str]:
    """Walk up from any job left over: every one has a parent left over, so the walk closes."""
    path: list[str] = []
    seen: dict[str, int] = {}
    name = next(iter(left))
    while name not in seen:
        seen[name] = len(path)
        path.append(name)
        name = next(parent for parent in left[name] if parent in left)
    return path[seen[name] :][::-1]
