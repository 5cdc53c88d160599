"""Every block of every page is run, and what a page shows is what comes.

A page needs no line anywhere to be run: its blocks are files, commands or examples, and are taken as they stand.
"""

import re
import shutil
from pathlib import Path

import pytest

from tests.docs.markdown import blocks, commands, pages, read
from tests.docs.reader import DATA, Machine, Reader, Recipe, Started, without_comment
from tests.docs.recipes import LEFT_OUT, RECIPES

RUN = {"console", "python", "yaml", "toml", "json"}
PAGES = [page for page in pages() if any(block.language in RUN for block in blocks(page, read(page)))]
# The examples ask for a plain `titan up`: one will do for all.
SHARING = {
    page
    for page in PAGES
    if page.startswith("examples/")
    and set(re.findall(r"^\$ titan up *(.*?)(?:#.*)?$", read(page), re.MULTILINE)) == {""}
}
OF_TWO_MACHINES = {page for page in PAGES if re.search(r"^\$ titan up --listen", read(page), re.MULTILINE)}


def follow(near: Machine, far: Machine, page: str, text: str, recipe: Recipe, shared: Started | None = None) -> Reader:
    reader = Reader(near, far, recipe, shared)
    try:
        reader.follow(page, text, LEFT_OUT.get(page, {}))
    finally:
        reader.close()
    return reader


@pytest.mark.parametrize("page", sorted(set(PAGES) - OF_TWO_MACHINES - SHARING))
def test_the_page_does_what_it_says(page: str, tmp_path: Path) -> None:
    recipe = RECIPES.get(page, Recipe())
    if recipe.needs and not shutil.which(recipe.needs):
        pytest.skip(f"the page uses {recipe.needs}, which is not here")
    follow(Machine(tmp_path / "near"), Machine(tmp_path / "far"), page, read(page), recipe)


@pytest.mark.parametrize("page", sorted(SHARING))
def test_the_page_of_an_example_does_what_it_says(page: str, tmp_path: Path, shared: tuple[Machine, Started]) -> None:
    near = Machine(tmp_path / "near", home=shared[0].home)
    follow(near, Machine(tmp_path / "far"), page, read(page), RECIPES.get(page, Recipe()), shared[1])


@pytest.mark.parametrize("page", sorted(OF_TWO_MACHINES))
def test_the_page_of_two_machines_does_what_it_says(page: str, two_machines: tuple[Machine, Machine]) -> None:
    follow(*two_machines, page, read(page), RECIPES.get(page, Recipe()))


@pytest.mark.parametrize("page", pages())
def test_every_block_is_of_a_kind_that_is_run_or_is_only_looked_at(page: str) -> None:
    for block in blocks(page, read(page)):
        assert block.language in RUN | DATA, f"{block.place}: name its language: {sorted(RUN | DATA)}"
        if block.language == "console":
            list(commands(block))
        elif block.language in DATA:
            assert not re.search(r"^\$ ", block.text, re.MULTILINE), f"{block.place}: this is a console block"


def test_what_is_left_out_and_the_recipes_are_of_pages_that_there_are() -> None:
    for page, lines in LEFT_OUT.items():
        console = [block for block in blocks(page, read(page)) if block.language == "console"]
        typed = {without_comment(command.line) for block in console for command in commands(block)}
        assert lines.keys() <= typed, page
    assert RECIPES.keys() <= set(PAGES)


WRONG = {
    "an output that does not come": "```console\n$ echo one\ntwo\n```\n",
    "a command that fails": "```console\n$ false\n```\n",
    "an id that changes its meaning": "```console\n$ echo 7f3a 8f3b\n7f3a 7f3a\n```\n",
    "a program that fails": "```python\nraise SystemExit(1)\n```\n",
    "a file that is not used and not right": "`a.yaml`:\n\n```yaml\njobs: [{id: a b}]\n```\n",
    "a document that nobody reads": '```json\n{"a": 1}\n```\n',
    "a language that nobody knows": "```cobol\nSTOP RUN.\n```\n",
    "a block without an end": "```console\n$ true\n",
    "an output without a command": "```console\nhello\n```\n",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
def test_a_page_that_is_wrong_is_found(text: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, ValueError)):
        follow(Machine(tmp_path / "near"), Machine(tmp_path / "far"), "wrong.md", text, Recipe())


def test_what_differs_from_day_to_day_is_read_loosely(tmp_path: Path) -> None:
    lines = ("$ echo '0a1b   COMPLETED in 9 s'", "7f3a  COMPLETED in 0.05 s", "$ echo 0a1b is done", "7f3a is done")
    text = "\n".join(["```console", *lines, "```\n"])
    reader = follow(Machine(tmp_path / "near"), Machine(tmp_path / "far"), "right.md", text, Recipe())
    assert reader.means == {"7f3a": "0a1b"}
