"""docs/held.md lists the tests there are, and no others."""

from tests.unit.held_page import PAGE, TABLES, held, render


def test_the_page_is_made_from_the_tests() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: .venv/bin/python -m tests.unit.held_page"


def test_no_number_has_words_and_no_test() -> None:
    numbers = {kind: set(words) for kind, (_, words) in TABLES.items()}
    tested = {kind: {number for of, number in held() if of == kind} for kind in TABLES}
    assert numbers == tested
