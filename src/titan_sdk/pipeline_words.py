"""What a reader of pipeline files says: near words, the line with a mark under it, a parser's complaint in words."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

SHOWN_CHARS_MAX = 60
EXCERPT_CHARS_MAX = 100
COMPARED_MAX = 2_000  # words that one is compared with: comparing is slow, and a file may name 100,000

# (in the parser's context, in its problem, what we say, whether the place is where the thing began)
_SYNTAX = (
    ("quoted scalar", "unexpected end", "the quote opened here is never closed", True),
    ("quoted scalar", "document separator", "the quote opened here is never closed", True),
    ("quoted", "unknown escape", "that is no escape: double the backslash, or use single quotes", False),
    ("quoted", "expected escape sequence", "that is no escape: double the backslash, or use single quotes", False),
    ("flow sequence", "", "the list opened here is not closed: a ']' or a ',' is missing", True),
    ("flow mapping", "", "the mapping opened here is not closed: a '}' or a ',' is missing", True),
    ("simple key", "':'", "a ':' is missing: give NAME: VALUE", True),
    ("", "mapping values are not allowed", "a ':' cannot stand here: indent as above, or quote the text", False),
    ("", "sequence entries are not allowed", "a list begins on a line of its own: put '- ' on the next line", False),
    ("", "'\\t'", "a tab cannot indent YAML: use spaces", False),
    ("scanning an alias", "", "text that begins with '*' is an alias: put it in quotes", True),
    ("scanning an anchor", "", "text that begins with '&' is an anchor: put it in quotes", True),
    ("block scalar", "", "behind '|' or '>' the line ends: begin the text on the next one", False),
    ("", "cannot start any token", "text cannot begin with this character: put it in quotes", False),
    ("", "tag handle", "a tag is not allowed: text that begins with '!' needs quotes", False),
    ("tag", "", "a tag is not allowed: text that begins with '!' needs quotes", False),
    ("", "<scalar>", "something stands behind the end of the value: put the whole in one pair of quotes", False),
    ("block", "found ']'", "a ']' is too many", False),
    ("block", "found '}'", "a '}' is too many", False),
    ("block collection", "", "this line does not fit the list above: indent alike, begin a job with '- '", False),
    ("block mapping", "", "this line does not fit the fields above: indent it as they are", False),
    ("block node", "", "a value is missing here", False),
    ("", "<document start>", "this line does not fit what is above: indent it alike", False),
    ("", "YAML document", "only YAML 1.1 and 1.2 are read: leave the %YAML line out", False),
)  # fmt: skip


def in_words(error: Any) -> tuple[str, Any]:
    """Return what a MarkedYAMLError says, in our words, and the mark of its place."""
    context, problem = error.context or "", error.problem or ""
    for in_context, in_problem, words, at_begin in _SYNTAX:
        if in_context in context and (in_problem in problem or in_problem in ascii(problem)):
            return words, (at_begin and error.context_mark) or error.problem_mark or error.context_mark
    return f"it is not YAML: {' '.join(problem.split())}", error.problem_mark or error.context_mark


def nearest(word: str, words: Iterable[str]) -> str:
    """Return ": did you mean X?" for the one of `words` that is most like `word`, "" when none is."""
    from difflib import get_close_matches
    from itertools import islice

    if not 0 < len(word) <= SHOWN_CHARS_MAX:
        return ""
    near = get_close_matches(word, islice(words, COMPARED_MAX), 1)
    return f": did you mean {near[0]}?" if near else ""


def shown(text: str) -> str:
    """Return `text` quoted and shortened, control characters escaped."""
    return ascii(text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 3] + "...")


def excerpt(lines: Sequence[str], line: int, column: int) -> str:
    """Return line number `line` (from 1) with a mark under `column`, of a long line only what is around it."""
    if not 0 < line <= len(lines):
        return ""
    text = "".join(character if character.isprintable() else " " for character in lines[line - 1])
    if not text.strip():
        return ""
    at = min(column - 1, len(text))
    begin = max(0, at - EXCERPT_CHARS_MAX * 2 // 3) if len(text) > EXCERPT_CHARS_MAX else 0
    part = text[begin : begin + EXCERPT_CHARS_MAX].rstrip()
    return f"{line:>6} | {part}\n{'':>6} | {' ' * (at - begin)}^"
