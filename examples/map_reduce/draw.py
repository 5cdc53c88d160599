"""Draw the summary as one HTML page without scripts, and publish it as an artifact."""

import json
import os
import sys
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from titan_sdk import TitanClient

WIDTH, HEIGHT = 1160, 620
STYLE = """
:root{color-scheme:light dark;--page:#fbfaf8;--ink:#15202b;--soft:#5a6672;--line:#d8d5cf;--low:#f3dfc4;--high:#58a8a0;
--bar:#2f7f86;--hot:#b8502f;--plain:#7d8fa3}
@media(prefers-color-scheme:dark){:root{--page:#12171c;--ink:#eef2f5;--soft:#9aa7b3;--line:#2d3740;--low:#4a3524;
--high:#1f6f6b;--bar:#4fb3ac;--hot:#e08a5f;--plain:#71859a}}
body{background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif;max-width:1160px;margin:0 auto;
padding:2.5rem 1.25rem 4rem}
h1{font-size:2rem;line-height:1.15;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2.5rem 0 .5rem}
p{margin:.25rem 0;color:var(--soft);max-width:46rem}
.figures{display:flex;flex-wrap:wrap;gap:.5rem 2.5rem;margin:1.5rem 0}
.figures b{display:block;font-size:1.9rem;line-height:1.1;color:var(--ink);font-variant-numeric:tabular-nums}
.figures span{color:var(--soft)}
svg{width:100%;height:auto;display:block}svg text{fill:var(--ink);font:13px system-ui,sans-serif}
svg .small{font-size:11px;fill:var(--soft)}svg .on{fill:var(--ink)}svg .cell{stroke:var(--page);stroke-width:2}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(24rem,100%),1fr));gap:0 3rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
td,th{padding:.3rem .5rem .3rem 0;border-bottom:1px solid var(--line);text-align:left;font-size:.92rem}
th{color:var(--soft);font-weight:500}td.n,th.n{text-align:right}code{font-size:.88em;overflow-wrap:anywhere}
"""
Box = tuple[float, float, float, float]


def treemap(sizes: list[float], box: Box) -> list[Box]:
    """Return a rectangle for each size, largest first, as near to squares as rows allow."""
    x, y, width, height = box
    if not sizes:
        return []
    scale = width * height / sum(sizes)
    side = min(width, height)

    def worst(row: list[float]) -> float:
        thick = sum(row) * scale / side
        return max(max(thick / (size * scale / thick), (size * scale / thick) / thick) for size in row)

    taken = 1
    while taken < len(sizes) and worst(sizes[: taken + 1]) <= worst(sizes[:taken]):
        taken += 1
    row, thick = sizes[:taken], sum(sizes[:taken]) * scale / side
    boxes: list[Box] = []
    at = 0.0
    for size in row:
        length = size * scale / thick
        boxes.append((x, y + at, thick, length) if width >= height else (x + at, y, length, thick))
        at += length
    rest = (x + thick, y, width - thick, height) if width >= height else (x, y + thick, width, height - thick)
    return boxes + treemap(sizes[taken:], rest)


def library_map(modules: dict[str, dict[str, int]]) -> str:
    """Draw each module as large as it is long, and the greener the more of its public functions are documented."""
    order = sorted(modules.items(), key=lambda item: -item[1]["lines"])
    shown, rest = order[:90], order[90:]
    if rest:
        keys = {key for _, counts in rest for key in counts}
        shown.append((f"{len(rest)} more", {key: sum(c.get(key, 0) for _, c in rest) for key in keys}))
    boxes = treemap([max(counts["lines"], 1) for _, counts in shown], (0, 0, WIDTH, HEIGHT))
    parts = []
    for (name, counts), (x, y, width, height) in zip(shown, boxes, strict=True):
        share = 100 * counts.get("documented", 0) / counts["public"] if counts.get("public") else 0
        told = f"{name}: {counts['lines']:,} lines, {counts['files']} files, {share:.0f} % documented"
        parts.append(
            f'<g><title>{escape(told)}</title><rect class="cell" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" rx="4" style="fill:color-mix(in oklab,var(--low),var(--high) {share:.0f}%)"/>'
        )
        if width > 8 * len(name) + 10 and height > 20:
            parts.append(f'<text x="{x + 7:.1f}" y="{y + 18:.1f}">{escape(name)}</text>')
            if height > 40 and width > 70:
                parts.append(f'<text class="small on" x="{x + 7:.1f}" y="{y + 34:.1f}">{counts["lines"]:,}</text>')
        parts.append("</g>")
    label = f"Treemap of {len(modules)} modules by lines of code"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def timeline(jobs: list[dict[str, str]]) -> str:
    """Draw when each job of this run ran and on which worker; the job that draws is still at it."""
    now = datetime.now(UTC)
    spans = [
        (
            job,
            datetime.fromisoformat(job["started_at"]),
            datetime.fromisoformat(job["ended_at"]) if job["ended_at"] else now,
        )
        for job in jobs
        if job["started_at"]
    ]
    begin = min(start for _, start, _ in spans)
    whole = max((max(end for _, _, end in spans) - begin).total_seconds(), 0.001)
    workers = sorted({job["worker"] for job, _, _ in spans})
    parts = []
    for row, (job, start, end) in enumerate(spans):
        x = 110 + (start - begin).total_seconds() / whole * (WIDTH - 330)
        width = max((end - start).total_seconds() / whole * (WIDTH - 330), 3)
        colour = "var(--bar)" if job["worker"] == workers[0] else "var(--hot)"
        told = f"{(end - start).total_seconds():.2f} s on {job['worker']}"
        parts.append(
            f'<text x="0" y="{row * 24 + 16}">{escape(job["id"])}</text><rect x="{x:.1f}" y="{row * 24 + 4}" '
            f'width="{width:.1f}" height="16" rx="3" style="fill:{colour}"/>'
            f'<text class="small" x="{x + width + 8:.1f}" y="{row * 24 + 16}">{escape(told)}</text>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {len(spans) * 24 + 4}" role="img" aria-label="When each job ran">'
        f"{''.join(parts)}</svg>"
    )


def bars(counted: list[tuple[str, int]]) -> str:
    most = counted[0][1]
    rows = [
        f'<text x="0" y="{n * 26 + 17}">{escape(name)}</text><rect x="120" y="{n * 26 + 4}" '
        f'width="{340 * count / most:.0f}" height="18" rx="3" style="fill:var(--plain)"/>'
        f'<text class="small" x="{128 + 340 * count / most:.0f}" y="{n * 26 + 17}">{count}</text>'
        for n, (name, count) in enumerate(counted)
    ]
    label = "Most imported modules"
    return f'<svg viewBox="0 0 520 {len(counted) * 26}" role="img" aria-label="{label}">{"".join(rows)}</svg>'


def page(summary: dict[str, object], jobs: list[dict[str, str]]) -> str:
    """Return the whole report."""
    modules, totals = summary["modules"], summary["totals"]
    assert isinstance(modules, dict)
    assert isinstance(totals, dict)
    documented = 100 * totals["documented"] / totals["public"]
    figures = [
        (f"{totals['files']:,}", "files"), (f"{totals['lines']:,}", "lines"), (f"{len(modules)}", "modules"),
        (f"{totals['functions']:,}", "functions"), (f"{documented:.0f} %", "of the public ones documented"),
    ]  # fmt: skip
    shown = "".join(f"<div><b>{figure}</b><span>{what}</span></div>" for figure, what in figures)
    rows = "".join(
        f'<tr><td><code>{escape(name)}</code></td><td class="n">{branches}</td><td class="n">{lines}</td></tr>'
        for branches, lines, name in summary["functions"]  # type: ignore[attr-defined]
    )
    imported = summary["imported"]
    assert isinstance(imported, list)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>The standard library of Python {summary["python"]}</title><style>{STYLE}</style>
<h1>The standard library of Python {summary["python"]}</h1>
<p>Read by {len(jobs)} jobs on {len({job["worker"] for job in jobs if job["worker"]})} workers of Titan.</p>
<div class="figures">{shown}</div>
<h2>Where the lines are</h2>
<p>Each rectangle is a module, as large as it has lines. The greener it is, the more of its public functions have a
docstring; point at one for its figures.</p>{library_map(modules)}
<div class="two"><section><h2>Most imported inside the library</h2>{bars(imported)}</section>
<section><h2>Functions with the most branches</h2>
<table><tr><th>function</th><th class="n">branches</th><th class="n">lines</th></tr>{rows}</table></section></div>
<h2>How this page was made</h2>
<p>One job listed the files, the others read a part each, side by side; then one added up and one drew this.</p>
{timeline(jobs)}</html>
"""


def main() -> None:
    run_id = os.environ["TITAN_RUN_ID"]
    with TitanClient() as client:
        summary = json.loads(client.store_get(f"survey/{run_id}/summary"))
        report = Path("report.html")
        report.write_text(page(summary, client.list_jobs(run_id)), encoding="utf-8")
        published = client.publish_artifact(sys.argv[1], report)
    print(f"published {published['key']}, {published['size']:,} bytes")


if __name__ == "__main__":
    main()
