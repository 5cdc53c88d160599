"""Writes docs/reference/roles.md from the table of roles: .venv/bin/python -m tests.api.roles_page"""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.unit.sources import ROOT
from titan.master.roles import ALLOWED, PURPOSE
from titan.model.roles import Role

PAGE = ROOT / "docs" / "reference" / "roles.md"

HEAD = """# Roles

<!-- Made by tests/api/roles_page.py from the table in src/titan/master/roles.py; a test holds it current. -->

A token has one role. `titan token create NAME --role ROLE` makes one; the home's own token is an admin's, and a job
finds a token of role `job` in its `TITAN_TOKEN`, which is good as long as its attempt lives. What a route does is said
in [the HTTP API](http-api.md). A route that is not in this table is refused to everybody. An enrolment
is a token of role `worker` that names no worker yet: it may use `POST /workers/enrol`, once, and nothing else.

| role | |
|---|---|
"""


def render(served: Iterable[tuple[str, str, str]]) -> str:
    """Return the page; `served` is (method, path, name) of every route."""
    roles = [f"| `{role}` | {PURPOSE[role]} |" for role in Role]
    header = [f"| route | {' | '.join(Role)} |", "|---|" + ":-:|" * len(Role)]
    rows = []
    for method, path, name in sorted(served, key=lambda route: [*ALLOWED].index(route[2])):
        marks = "|".join(" x " if role in ALLOWED[name] else " " for role in Role)
        rows.append(f"| `{method} {path.removeprefix('/api/v1')}` |{marks}|")
    return HEAD + "\n".join([*roles, "", *header, *rows, ""])


def main() -> None:
    from tests.api.master import Master
    from tests.api.test_gate import served
    from tests.api.test_openapi import LINK

    with tempfile.TemporaryDirectory() as folder, Master(Path(folder) / "home") as master:
        PAGE.write_text(render(served(master) | LINK), encoding="utf-8")


if __name__ == "__main__":
    main()
