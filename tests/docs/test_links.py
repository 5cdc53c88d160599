"""The index of the documentation names every page in one of its four kinds, and no link of any page leads nowhere."""

import re
from pathlib import Path

import pytest

from tests.docs.markdown import anchors, links, pages, prose, read
from tests.unit.sources import ROOT

INDEX = "docs/README.md"
KINDS = ["tutorial", "how-to", "reference", "explanation"]


def target(page: str, link: str) -> Path:
    """Return the file that a link of a page leads to."""
    path = link.partition("#")[0]
    return ((ROOT / page).parent / path).resolve() if path else ROOT / page


@pytest.mark.parametrize("page", pages())
def test_no_link_leads_nowhere(page: str) -> None:
    missing = []
    for link in links(read(page)):
        file, anchor = target(page, link), link.partition("#")[2]
        there = file.exists() and (
            not anchor or (file.is_file() and anchor in anchors(file.read_text(encoding="utf-8")))
        )
        if not there:
            missing.append(link)
    assert not missing


def test_every_page_is_in_the_index() -> None:
    listed = {target(INDEX, link) for link in links(read(INDEX))}
    docs = {ROOT / page for page in pages() if page.startswith("docs/")} - {ROOT / INDEX}
    assert {page for page in docs if page.parent.name != "decisions"} <= listed
    assert ROOT / "docs" / "decisions" in listed


def test_the_index_has_the_four_kinds() -> None:
    assert re.findall(r"^## .+: ([a-z-]+)$", prose(read(INDEX)), re.MULTILINE) == KINDS


def test_anchors_are_those_of_the_forge() -> None:
    text = "# The `@last` run, and [why](x.md#y)\n## Twice\n## Twice\n```sh\n# no heading\n```\n"
    assert anchors(text) == {"the-last-run-and-why", "twice", "twice-1"}
