"""Broken pipeline files: what is said about each is a text that people have read."""

import re
from pathlib import Path

import pytest

from tests.pipelines.golden import FILES, FOLDER, told

PLACE = re.compile(r"^  - ([^:]+):([0-9]+):([0-9]+): \S", re.MULTILINE)


def names(file: Path) -> str:
    return file.stem


@pytest.mark.parametrize("file", FILES, ids=names)
def test_what_is_said_about_a_broken_file(file: Path) -> None:
    said = told(file)
    assert said == file.with_suffix(".txt").read_text(encoding="utf-8"), "python -m tests.pipelines.golden rewrites it"
    places = PLACE.findall(said)
    assert places
    lines = file.read_bytes().decode("utf-8", "replace").split("\n")
    for name, line, column in places:
        assert name == file.name
        assert 1 <= int(column) <= len(lines[int(line) - 1]) + 1
    assert re.search(r"^Next: .*titan validate ", said, re.MULTILINE)


def test_there_are_many_and_none_is_left_over() -> None:
    assert len(FILES) >= 60
    assert {text.stem for text in FOLDER.glob("*.txt")} == {file.stem for file in FILES}
    assert len({file.with_suffix(".txt").read_text().split("\n", 1)[1] for file in FILES}) == len(FILES)
