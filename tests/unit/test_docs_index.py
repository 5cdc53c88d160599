"""The index of the documentation names every page, and no link of it or of the README leads nowhere."""

import re
from pathlib import Path

import pytest

from tests.unit.sources import ROOT

LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def targets(page: Path) -> set[Path]:
    return {(page.parent / link).resolve() for link in LINK.findall(page.read_text(encoding="utf-8"))}


def test_every_page_is_in_the_index() -> None:
    docs = ROOT / "docs"
    pages = {page for page in docs.rglob("*.md") if page.parent.name != "decisions"} - {docs / "README.md"}
    assert pages <= targets(docs / "README.md")


@pytest.mark.parametrize("page", ["README.md", "docs/README.md", "docs/tutorial.md", "examples/README.md"])
def test_no_link_leads_nowhere(page: str) -> None:
    missing = {str(target) for target in targets(ROOT / page) if not target.exists()}
    assert not missing
