"""Bad inputs and the texts they are answered with: kept in files that people read, one entry an input.

An entry is a line `=== ` with what was sent, then what came back, whole: its code on the first line, then what a
person sees. What differs from run to run stands in braces.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

TEXTS = Path(__file__).parent / "texts"
MARK = "=== "
SENT_CHARS_MAX = 200
_MASKS = (
    (re.compile(r"\b[0-9a-f]{32}\b"), "{run}"),
    (re.compile(r"\btitan_t\.[0-9a-f]{12}\b"), "{token id}"),
    (re.compile(r"(127\.0\.0\.1:|port )(?!1\b|0\b|9090\b|9091\b)\d{4,5}\b"), r"\1{port}"),
    (re.compile(r" object at 0x[0-9a-f]+"), ""),
    (re.compile(r"(pid|process) \d+"), r"\1 {pid}"),
    (re.compile(r"knows up to \w+"), "knows up to {schema}"),
    (re.compile(r"titan ps [0-9a-f]{8}\b"), "titan ps {short}"),
)


class Entry(NamedTuple):
    """One bad input as it is shown, a part of it that the answer must name, and the answer."""

    sent: str
    names: str
    answer: str


class Section(NamedTuple):
    """The entries of one file, in order, made by asking."""

    name: str
    entries: Callable[[], Iterable[Entry]]


def entry(sent: str, names: str, answer: str, words: Mapping[str, str] | None = None) -> Entry:
    """Return an entry with what differs from run to run masked; `words`: name -> text to put it in place of."""
    for name, text in (words or {}).items():
        answer = answer.replace(text, f"{{{name}}}")
    for pattern, word in _MASKS:
        answer = pattern.sub(word, answer)
    sent = ascii(sent)[1:-1].replace("\\'", "'").replace("\\\\", "\\")
    if len(sent) > SENT_CHARS_MAX:
        sent = f"{sent[:SENT_CHARS_MAX]}... ({len(sent)} characters)"
    return Entry(sent, names, answer.rstrip("\n"))


def written(entries: Iterable[Entry]) -> str:
    """Return the text of a file."""
    return "".join(f"{MARK}{each.sent}\n{each.answer}\n\n" for each in entries)


def read(path: Path) -> list[tuple[str, str]]:
    """Return (sent, answer) of each entry of a file."""
    parts = path.read_text(encoding="utf-8").split(MARK)[1:]
    return [(part.partition("\n")[0], part.partition("\n")[2].strip("\n")) for part in parts]
