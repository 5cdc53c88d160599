"""A Master at one look, as lines: workers and their load, what waits and why, what runs, how fast."""

import dataclasses
from collections import deque
from collections.abc import Sequence

from titan.cli.ask import Document
from titan.cli.output import COLOURS, plural, safe, spoken_s
from titan.cli.tell import between_s, link_of

SAMPLES = 6
BAR_CELLS = 10
RATES = {
    "started": ("RUNNING",),
    "completed": ("COMPLETED",),
    "failed": ("FAILED", "DEAD"),
    "cancelled": ("CANCELLED",),
}
BOLD, DIM, RESET = "\x1b[1m", "\x1b[2m", "\x1b[0m"
FULL, FREE = "#", "."
Row = Sequence[str]


class Rates:
    """How many jobs a second came into a state, over the last looks at one and the same Master."""

    def __init__(self) -> None:
        self._looks: deque[Document] = deque(maxlen=SAMPLES)

    def add(self, overview: Document) -> dict[str, float] | None:
        """Take a look in; return the rates since the oldest one kept, None for the first look."""
        if self._looks and self._looks[-1]["stats"]["started_at"] != overview["stats"]["started_at"]:
            self._looks.clear()
        self._looks.append(overview)
        first = self._looks[0]
        passed_s = between_s(first["now"], overview["now"])
        if not passed_s:
            return None
        before, now = first["stats"]["came"], overview["stats"]["came"]
        return {
            word: round(sum(now.get(state, 0) - before.get(state, 0) for state in states) / passed_s, 2)
            for word, states in RATES.items()
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Paper:
    """What lines are written on: `columns` wide (0: as wide as they are), `rows` high (0: as many as there are)."""

    columns: int = 0
    rows: int = 0
    colours: bool = False

    def painted(self, text: str, code: str) -> str:
        """Return `text` in a colour, where there are any."""
        return f"{code}{text}{RESET}" if self.colours else text

    def fitted(self, text: str) -> str:
        """Return `text` as one safe line no wider than the paper."""
        text = safe(text, colours=False).replace("\n", " ").replace("\t", " ")
        return text[: self.columns - 1] + ">" if 0 < self.columns < len(text) else text


def lines(url: str, overview: Document, rates: dict[str, float] | None, paper: Paper) -> list[str]:
    """Return the screen: a head, and three tables that share what room there is."""
    head = _head(url, overview, rates, paper)
    tables = [_workers(overview), _waiting(overview), _running(overview)]
    heights = [len(table) + 1 for table in tables]
    if paper.rows:
        heights = _share(max(0, paper.rows - len(head)), heights)
    body: list[str] = []
    for table, height in zip(tables, heights, strict=True):
        if height > 1:
            body += ["", *_table(table, height - 1, paper)]
    return head + body


def _share(room: int, wanted: list[int]) -> list[int]:
    """Return how many lines each gets: what it wants, or an even share of what the smaller ones leave."""
    given = [0] * len(wanted)
    for left, at in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        given[at] = max(0, min(wanted[at], room // (len(wanted) - left)))
        room -= given[at]
    return given


def _head(url: str, overview: Document, rates: dict[str, float] | None, paper: Paper) -> list[str]:
    stats = overview["stats"]
    up = spoken_s(between_s(stats["started_at"], overview["now"]) or 0.0)
    slots = f"{stats['slots'] - stats['slots_free']} of {stats['slots']} slots busy"
    first = f"Titan {stats['version']}   {url}   up {up}   {plural(stats['workers'], 'worker')}, {slots}"
    counts = ", ".join(f"{count} {state}" for state, count in sorted(stats["jobs"].items()) if count)
    second = f"{plural(stats['runs_living'], 'run')} under way   {counts or 'no jobs'}"
    told = "   ".join(f"{rate:g}/s {word}" for word, rate in (rates or {}).items())
    return [paper.painted(paper.fitted(first), BOLD), paper.fitted(second), paper.fitted(told)]


def _workers(overview: Document) -> list[Row]:
    rows: list[Row] = [("WORKER", "SLOTS", "LOAD", "HOST", "OFFERS", "")]
    for worker in overview["workers"]:
        cells = round(BAR_CELLS * min(1.0, worker["running"] / worker["slots"])) if worker["slots"] else 0
        link = link_of(worker)
        ahead = f"+{worker['ahead']}" if worker["ahead"] else ""
        rows.append(
            (
                worker["name"],
                f"{worker['running']}/{worker['slots']}{ahead}",
                FULL * cells + FREE * (BAR_CELLS - cells),
                worker["host"],
                ", ".join(worker["capabilities"]),
                "" if link == "connected" else link,
            )
        )
    return rows if len(rows) > 1 else [*rows, ("none: titan worker --join URL", "", "", "", "", "")]


def _waiting(overview: Document) -> list[Row]:
    rows: list[Row] = [("QUEUE", "JOBS", "OLDEST", "WHY")]
    for queue in overview["waiting"]:
        name = ", ".join(queue["requirement"]) + (f" on {queue['pinned_to']}" if queue["pinned_to"] else "")
        waited = between_s(queue["ready_at"], overview["now"])
        oldest = "" if waited is None else spoken_s(waited)
        rows.append((name, str(queue["jobs"]), oldest, f"{queue['reason']}: {queue['message']}"))
    return rows if len(rows) > 1 else [*rows, ("nothing waits", "", "", "")]


def _running(overview: Document) -> list[Row]:
    rows: list[Row] = [("RUNNING", "NAME", "WORKER", "TIME", "")]
    for job in overview["running"]:
        ran = between_s(job["started_at"], overview["now"])
        attempt = f"attempt {job['attempt']}" if job["attempt"] > 1 else ""
        label = f"{job['run_id'][:8]}/{job['job_id']}"
        rows.append((label, job["run_name"], job["worker"], "" if ran is None else spoken_s(ran), attempt))
    return rows if len(rows) > 1 else [*rows, ("nothing runs", "", "", "", "")]


def _table(table: list[Row], height: int, paper: Paper) -> list[str]:
    """Return at most `height` lines of a table; the last one says how many are left out."""
    shown = table if len(table) <= height else table[: max(1, height - 1)]
    widths = [max(len(safe(row[column], colours=False)) for row in shown) for column in range(len(table[0]))]
    found = []
    for number, row in enumerate(shown):
        cells = [safe(cell, colours=False).ljust(width) for cell, width in zip(row, widths, strict=True)]
        text = paper.fitted("  ".join(cells).rstrip())
        found.append(paper.painted(text, DIM) if number == 0 else _lit(text, row, paper))
    if len(shown) < len(table) and len(shown) < height:
        found.append(paper.painted(paper.fitted(f"and {len(table) - len(shown)} more"), DIM))
    return found


def _lit(text: str, row: Row, paper: Paper) -> str:
    """Colour a line that wants a look: a worker that is away or leaves."""
    return paper.painted(text, f"\x1b[{COLOURS['CANCELLED']}m") if row[-1] in ("away", "draining") else text
