"""The documentation as data: the pages that git tracks, their blocks, code between backquotes, links, headings."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from tests.unit.sources import ROOT

FENCE = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[^`]*)")
FILE_NAME = re.compile(r"[^`]*`([\w./-]+\.(?:py|yaml|toml|json|txt))`[^`]*:")
LINK = re.compile(r"\]\(([^)\s]+)\)")
# A rule of GitHub's: what an anchor leaves out of its heading.
DROPPED = re.compile(r"[^\w\- ]")


class Block(NamedTuple):
    """A fenced block. `name`: the file that the line above says it is, or ""."""

    page: str
    line: int
    language: str
    text: str
    name: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


class Command(NamedTuple):
    """A line behind `$ ` with the lines it goes on in, and what it is said to print."""

    line: str
    told: str


def pages() -> list[str]:
    """Return the paths of all Markdown files that git tracks."""
    command = ["git", "ls-files", "*.md"] if shutil.which("git") else ["false"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:  # a copy without its history, or a machine without git
        found = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
        return sorted(str(path) for path in found if not any(part.startswith(".") for part in path.parts))
    return [path for path in listed.stdout.splitlines() if (ROOT / path).exists()]


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, text: str) -> list[Block]:
    """Return the fenced blocks of a page, in its order. Raises ValueError when one has no end."""
    found: list[Block] = []
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        begin = FENCE.fullmatch(lines[number].rstrip())
        number += 1
        if not begin:
            continue
        indent, first = len(begin["indent"]), number
        while number < len(lines) and lines[number].strip() != begin["fence"]:
            number += 1
        if number == len(lines):
            raise ValueError(f"{page}:{first}: this block has no end")
        body = "".join(f"{line[indent:]}\n" for line in lines[first:number])
        above = "".join(line for line in lines[: first - 1][-2:] if line.strip())
        named = FILE_NAME.fullmatch(above.strip())
        found.append(Block(page, first, begin["language"].strip(), body, named[1] if named else ""))
        number += 1
    return found


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    kept, fence = [], ""
    for line in text.split("\n"):
        begin = FENCE.fullmatch(line.rstrip())
        if fence:
            fence = "" if line.strip() == fence else fence
        elif begin:
            fence = begin["fence"]
        else:
            kept.append(line)
    return "\n".join(kept)


def code_spans(text: str) -> list[str]:
    """Return what stands between backquotes outside of blocks, line ends as spaces."""
    return [" ".join(span.split()).replace("\\|", "|") for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(text))]


def commands(block: Block) -> Iterator[Command]:
    """Yield each command of a console block. Raises ValueError when it does not begin with one."""
    first, *parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    if first or not parts:
        raise ValueError(f"{block.place}: a console block begins with `$ ` and a command")
    for part in parts:
        match = re.match(r"(?:.*\\\n)*.*\n", part)
        assert match
        yield Command(match.group().rstrip("\n"), part[match.end() :])


def links(text: str) -> list[str]:
    """Return the targets of a page's links that lead to files or headings."""
    return [link for link in LINK.findall(prose(text)) if not re.match(r"[a-z]+:", link)]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    made: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(text), re.MULTILINE):
        plain = LINK.sub("]", heading).replace("[", "").replace("]", "").replace("`", "")
        base = anchor = DROPPED.sub("", plain.lower()).replace(" ", "-")
        number = 0
        while anchor in made:
            number += 1
            anchor = f"{base}-{number}"
        made.add(anchor)
    return made
