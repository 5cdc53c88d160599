"""Regular expressions are linear, or look at a bounded text: S32. Judged by their structure, never by time.

A pattern may hold one repeat without a bound that can give back what it took: each further one multiplies. Where a
pattern may begin anywhere, what it repeats must not hold what it begins with, or every place begins anew.
"""

import ast
import functools
import importlib
import re
from collections.abc import Iterator
from re import _constants as constants  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

from tests.security.walk import ask
from tests.unit.sources import Source, read_tree
from titan.master import bodies
from titan.model import wording

BOUNDED = 1_000  # a repeat of at most as many counts as none
ANCHORED = {"match", "fullmatch"}
CALLS = {"compile", "search", "sub", "subn", "split", "findall", "finditer", *ANCHORED}
# What is judged by hand: why the text that it looks at is bounded.
REASONS = {
    "titan.model.wording._PLACE": "reworded looks at TEXT_CHARS_MAX characters",
    "titan.model.wording._EXPECTED": "reworded looks at TEXT_CHARS_MAX characters",
    "titan.cli.main._RANGE": "the words of click about a bound of ours",
    "titan.cli.listening.HOST_NAME": "no label holds the dot that each further one begins with",
    "titan.cli.listening: \\|-- (\\S+)\\n\\s+/32 host LOCAL": "a table of the kernel's",
}


@functools.cache
def product() -> list[Source]:
    return read_tree("src")


def free_repeats(tree: Any) -> int:
    """Return how many repeats without a bound may take back, a nested one counting as many."""
    count = 0
    for operator, value in tree:
        if operator in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            low, high, body = value
            inside = free_repeats(body)
            is_free = high > BOUNDED and low != high
            count += 1 + 2 * inside + 2 * is_ambiguous(body) if is_free else inside
        elif operator is constants.SUBPATTERN:
            count += free_repeats(value[-1])
        elif operator is constants.BRANCH:
            count += max(free_repeats(branch) for branch in value[1])
        elif operator in (constants.ASSERT, constants.ASSERT_NOT):
            count += free_repeats(value[1])
        elif operator is constants.GROUPREF:
            count += 2  # what it repeats may be anything
    return count


def is_ambiguous(tree: Any) -> bool:
    """Say whether one text may be taken in more than one way."""
    for operator, value in tree:
        if operator in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            if value[0] != value[1] or is_ambiguous(value[2]):
                return True
        elif operator is constants.SUBPATTERN:
            if is_ambiguous(value[-1]):
                return True
        elif operator is constants.BRANCH:
            firsts = [begins(list(branch)) for branch in value[1]]
            known = [first for first in firsts if first is not None]
            if not all(known) or len(known) < len(firsts) or len(set().union(*known)) < sum(map(len, known)):
                return True
    return False


def begins(tree: Any) -> set[int] | None:
    """Return with which characters it may begin; None for any."""
    found: set[int] = set()
    for operator, value in tree:
        if operator is constants.LITERAL:
            return found | {value}
        if operator is constants.IN:
            chosen = members(value)
            return None if chosen is None else found | chosen
        if operator is constants.SUBPATTERN:
            return begins(list(value[-1]))
        if operator is constants.BRANCH:
            each = [begins(list(branch)) for branch in value[1]]
            return None if None in each else found.union(*each)  # type: ignore[arg-type]
        if operator in (constants.MAX_REPEAT, constants.MIN_REPEAT, constants.POSSESSIVE_REPEAT):
            inner = begins(list(value[2]))
            if inner is None:
                return None
            found |= inner
            if value[0]:
                return found
        elif operator not in (constants.AT, constants.ASSERT, constants.ASSERT_NOT):
            return None
    return found


def members(values: Any) -> set[int] | None:
    chosen: set[int] = set()
    for operator, value in values:
        if operator is constants.LITERAL:
            chosen.add(value)
        elif operator is constants.RANGE:
            chosen.update(range(value[0], min(value[1], 0x3000) + 1))
        else:
            return None
    return chosen


def repeated(tree: Any) -> Iterator[set[int] | None]:
    """Yield what each repeat without a bound may hold."""
    for operator, value in tree:
        if operator in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            if value[1] > BOUNDED:
                yield begins(list(value[2]))
            yield from repeated(value[2])
        elif operator is constants.SUBPATTERN:
            yield from repeated(value[-1])
        elif operator is constants.BRANCH:
            for branch in value[1]:
                yield from repeated(branch)


def is_linear(pattern: str | bytes, flags: int, *, anchored: bool) -> bool:
    """Say whether matching takes steps in proportion to the text."""
    tree = list(parser.parse(pattern, flags))
    if free_repeats(tree) > 1:
        return False
    if anchored:
        return True
    first = begins(tree)
    if len(tree) == 1 and tree[0][0] in (constants.MAX_REPEAT, constants.MIN_REPEAT):
        return free_repeats(tree[0][1][2]) == 0  # nothing follows that could fail: each character is taken once
    return all(first is not None and held is not None and not first & held for held in repeated(tree))


def compiled() -> Iterator[tuple[str, "re.Pattern[Any]", bool]]:
    """Yield name, pattern and whether it is only used from the beginning, of all that live in a module of ours."""
    sources = product()
    used: dict[str, set[str]] = {}
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, (ast.Name, ast.Attribute)):
                used.setdefault(ast.unparse(node.value).rpartition(".")[2], set()).add(node.attr)
    for source in sources:
        if not source.module.endswith("__main__") and ".site." not in source.module:
            if "re.compile" not in source.text:
                continue
            for name, value in vars(importlib.import_module(source.module)).items():
                if isinstance(value, re.Pattern):
                    yield f"{source.module}.{name}", value, not used.get(name, set()) - ANCHORED


def inline() -> Iterator[tuple[str, ast.expr, str]]:
    """Yield place, pattern and method of each use of re.something but `compile` at the top of a module."""
    for source in product():
        tops = {id(node.value) for node in source.tree.body if isinstance(node, (ast.Assign, ast.AnnAssign))}
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call) or id(node) in tops or not isinstance(node.func, ast.Attribute):
                continue
            if ast.unparse(node.func.value) == "re" and node.func.attr in CALLS:
                yield source.module, node.args[0], node.func.attr


def test_s32_every_regular_expression_is_linear_or_looks_at_little() -> None:
    found = [name for name, pattern, anchored in compiled()
             if not is_linear(pattern.pattern, pattern.flags & ~re.UNICODE, anchored=anchored)]  # fmt: skip
    for module, argument, method in inline():
        text = argument.value if isinstance(argument, ast.Constant) else None
        if not isinstance(text, str) or not is_linear(text, 0, anchored=method in ANCHORED):
            found.append(f"{module}: {text}")
    assert sorted(set(found) - REASONS.keys()) == []
    assert REASONS.keys() - set(found) == set(), "a reason for nothing"


@pytest.mark.parametrize(
    ("pattern", "anchored", "linear"),
    [
        (r"(a+)+$", True, False),
        (r"(a|aa)*$", True, False),
        (r"(a|bb)*$", True, True),
        (r"(a?b?)*$", True, False),
        (r"(.*)x(.*)", True, False),
        (r'"(?:[^"\\]|\\.)*"', False, False),
        (r'"(?:[^"\\]|\\.)*+"?', False, True),
        (r"\s+$", False, False),
        (r"[a-z]+", False, True),
        (r"[a-z]{1,64}\.[a-z]{1,64}", True, True),
        (r"(\w+) \1", True, False),
        (r"x[0-9]*y", False, True),
        (r"x[w-z]*y", False, False),
    ],
)
def test_s32_what_is_linear_is_told_from_what_is_not(pattern: str, *, anchored: bool, linear: bool) -> None:
    assert is_linear(pattern, 0, anchored=anchored) is linear


def test_s32_a_text_that_does_not_end_is_looked_at_once() -> None:
    """Each quote of it would begin anew: a mebibyte of them took hours. The tokens are counted."""
    assert len(bodies._TOKENS.findall(b'"' + b'\\"' * 50_000)) == 1
    assert len(bodies._TOKENS.findall(b'"' + b'\\"' * 50_000 + b"\\")) == 1


def test_s32_what_a_decoder_says_is_cut_before_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    class Counted:
        def fullmatch(self, text: str) -> None:
            looked_at.append(len(text))

    monkeypatch.setattr(wording, "_PLACE", Counted())
    wording.reworded("Invalid enum value '" + " - at `$" * 100_000, "on_lost")
    assert max(looked_at) <= 1_000


def test_s32_a_filter_is_text_and_no_pattern(master: Any) -> None:
    for text in ("(a%2B)%2B$", ".*", "%5B", "%28" * 2_000):
        answer = ask(master, "GET", f"/api/v1/runs?name={text}")
        assert (answer.status, answer.json["runs"]) == (200, [])
