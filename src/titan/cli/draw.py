"""A DAG as text: one row a job, parents above their children, joined by lines.

Jobs come in an order in which every parent is before its children. Between two rows there are lanes, each leading to
one job that is still to come; a job stands in its own lane, and from there a line goes to the lanes of its children.
A lane that such a line only passes is drawn through it. Two jobs right above each other are parent and child; a gap
parts those that are not. With more lanes than a screen is wide the lines say nothing,
so a wide DAG is a list of steps instead.
"""

from collections.abc import Iterator, Mapping, Sequence

LANES_MAX = 24
NAMES_MAX = 6
Parents = Mapping[str, Sequence[str]]

# What meets in one place, as a sum: up 1, down 2, left 4, right 8.
_LINES = dict(enumerate(" \u2575\u2577\u2502\u2574\u256f\u256e\u2524\u2576\u2570\u256d\u251c\u2500\u2534\u252c\u253c"))
_PLAIN = {0: " ", 3: "|", 12: "-"}


def drawing(parents: Parents, labels: Mapping[str, str], *, plain: bool = False) -> list[str]:
    """Return the rows of `parents` (job -> its parents), each job with its label; `plain`: in ASCII.

    Example: ``drawing({"a": [], "b": ["a"]}, {})`` is ``["o a", "o b"]`` in ASCII.
    """
    rows = list(_rows(parents))
    if max((len(cells) for _, cells, _ in rows), default=0) > LANES_MAX:
        return list(_steps(parents, labels))
    width = max((len(job) for job in parents), default=0)
    lines = []
    for job, cells, at in rows:
        drawn = "".join(_cell(cell, plain) for cell in cells)
        if job is None:
            lines.append(drawn.rstrip())
        else:
            mark = "o" if plain else "\u25cf"
            label = labels.get(job, "")
            lines.append(
                f"{drawn[: 2 * at]}{mark}{drawn[2 * at + 1 :]}{job.ljust(width) if label else job}   {label}".rstrip()
            )
    return lines


def mermaid(parents: Parents, labels: Mapping[str, str]) -> list[str]:
    """Return the lines of a Mermaid flowchart of `parents`."""
    names = {job: f"j{number}" for number, job in enumerate(parents)}
    lines = ["flowchart TD"]
    for job, name in names.items():
        text = " ".join(f"{job} {labels.get(job, '')}".split()).replace("&", "&amp;").replace('"', "&quot;")
        lines.append(f'    {name}["{text}"]')
    return lines + [f"    {names[parent]} --> {names[job]}" for job in parents for parent in parents[job]]


def _cell(cell: tuple[int, int], plain: bool) -> str:
    """Return the two characters of a lane: what meets there, and what is between it and the next."""
    meets, beside = cell
    if plain:
        return _PLAIN.get(meets, "+") + _PLAIN[beside]
    return _LINES[meets] + _LINES[beside]


def _rows(parents: Parents) -> Iterator[tuple[str | None, list[tuple[int, int]], int]]:
    """Yield (job or None for a row of lines alone, its cells, the lane of the job)."""
    children = _children(parents)
    lanes: list[str | None] = []
    ended = -1
    for job in _order(parents, children):
        at = lanes.index(job) if job in lanes else _free(lanes, 0)
        if at == ended:
            yield None, [(3 if lane is not None else 0, 0) for lane in lanes], at
        lanes[at] = job
        yield job, [(3 if lane is not None else 0, 0) for lane in lanes], at
        before = list(lanes)
        lanes[at] = None
        touched = {_lane_of(child, lanes, at) for child in children[job]}
        ended = -1 if touched else at
        if touched - {at}:
            yield None, _joined(before, lanes, at, touched), at
        while lanes and lanes[-1] is None:
            lanes.pop()


def _lane_of(child: str, lanes: list[str | None], at: int) -> int:
    """Return the lane that leads to `child`; a new one begins where the parent stands, or right of it."""
    if child in lanes:
        return lanes.index(child)
    lane = at if lanes[at] is None else _free(lanes, at)
    lanes[lane] = child
    return lane


def _free(lanes: list[str | None], first: int) -> int:
    for lane in range(first, len(lanes)):
        if lanes[lane] is None:
            return lane
    lanes.append(None)
    return len(lanes) - 1


def _joined(
    before: Sequence[str | None], after: Sequence[str | None], at: int, touched: set[int]
) -> list[tuple[int, int]]:
    first, last = min(touched | {at}), max(touched | {at})
    cells = []
    for lane in range(len(after)):
        up = 1 if lane == at or (lane < len(before) and before[lane] is not None) else 0
        meets = up + (2 if after[lane] is not None else 0)
        crosses = first < lane < last and lane != at and lane not in touched
        if lane in touched or lane == at:
            meets += (4 if lane > first else 0) + (8 if lane < last else 0)
        elif crosses and not meets:
            meets = 12
        cells.append((meets, 12 if first <= lane < last else 0))
    return cells


def _children(parents: Parents) -> dict[str, list[str]]:
    children: dict[str, list[str]] = {job: [] for job in parents}
    for job, above in parents.items():
        for parent in above:
            children[parent].append(job)
    return children


def _order(parents: Parents, children: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield each job after its parents, a branch to its end before the next, so that lanes stay few."""
    waiting = {job: len(above) for job, above in parents.items()}
    ready = [job for job in reversed(list(parents)) if not waiting[job]]
    while ready:
        job = ready.pop()
        yield job
        for child in reversed(children[job]):
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)


def _steps(parents: Parents, labels: Mapping[str, str]) -> Iterator[str]:
    """Yield the jobs by steps: those of one step wait for none of the same."""
    step: dict[str, int] = {}
    for job in _order(parents, _children(parents)):
        step[job] = 1 + max((step[parent] for parent in parents[job]), default=0)
    last = 0
    for job in sorted(parents, key=step.__getitem__):
        number = f"{step[job]:>3}" if step[job] != last else "   "
        last = step[job]
        above = parents[job]
        names = ", ".join(above[:NAMES_MAX]) + (f" and {len(above) - NAMES_MAX} more" if len(above) > NAMES_MAX else "")
        yield f"{number}  {job}  {labels.get(job, '')}{'  after ' + names if above else ''}".rstrip()
