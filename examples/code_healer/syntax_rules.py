"""Rules for scripts that do not parse: small edits near the place that the parser names."""

import re
import symtable
from collections.abc import Iterator

from source import Fault, Proposal, Script

# Words and signs of other languages.
FOREIGN = (
    ("=>", ">="), ("=<", "<="), ("!", "not "), ("&&", "and"), ("||", "or"), ("<>", "!="), ("++", " += 1"),
    ("else if", "elif"), ("elseif", "elif"), ("function ", "def "), ("true", "True"), ("null", "None"),
)  # fmt: skip
CLOSERS = {"(": ")", "[": "]", "{": "}"}


def proposals(script: Script, fault: Fault) -> Iterator[Proposal]:
    try:
        symtable.symtable(script.text, "script", "exec")
        return
    except SyntaxError as error:
        number = min(max(error.lineno or 1, 1), len(script.lines))
        column = max((error.offset or 1) - 1, 0)
        message = error.msg
    if "TabError" in fault.kind or "tabs and spaces" in message or "unindent" in message or "indent" in message:
        yield from indentation(script, number)
    yield from by_message(script, number, message)
    for near in (number, number - 1, number + 1):
        if 1 <= near <= len(script.lines):
            yield from small_edits(script, near, column if near == number else None)
    yield from indentation(script, number)


def by_message(script: Script, number: int, message: str) -> Iterator[Proposal]:
    """The parser often says what it expected."""
    line = script.lines[number - 1].rstrip("\n")
    bare, indent = line.strip(), script.indent(number)
    if "never closed" in message and (opener := re.search(r"'([(\[{])'", message)):
        closer = CLOSERS[opener[1]]
        for end in range(number, min(number + 30, len(script.lines)) + 1):
            told = script.lines[end - 1].rstrip("\n")
            for new in (told + closer, told.removesuffix(":") + closer + ":", f"{told}\n{indent}{closer}"):
                yield Proposal(script.with_line(end, new), f"line {end}: close the {opener[1]}")
    if "Missing parentheses" in message and (called := re.match(r"(\w+)\s+(.*)", bare)):
        every = re.sub(rf"(?m)^(\s*){called[1]}\s+([^\n(=].*|\(.*\)\s*%.*)$", rf"\1{called[1]}(\2)", script.text)
        yield Proposal(every, f"call {called[1]} with parentheses")
    if caught := re.match(r"except\s+([\w.]+)\s*,\s*(\w+)\s*:", bare):
        yield Proposal(script.with_line(number, f"{indent}except {caught[1]} as {caught[2]}:"), "except ... as ...")
        yield Proposal(script.with_line(number, f"{indent}except ({caught[1]}, {caught[2]}):"), "except (..., ...)")
    if "assign" in message or "'=='" in message:
        for match in re.finditer(r"(?<![=!<>:+*/-])=(?!=)", line):
            yield Proposal(
                script.with_line(number, line[: match.start()] + "==" + line[match.end() :]), f"line {number}: ="
            )


def small_edits(script: Script, number: int, column: int | None) -> Iterator[Proposal]:
    """Put in, take out or replace one piece of the line."""
    line = script.lines[number - 1].rstrip("\n")
    code = line.split("  #")[0].rstrip()
    rest = line[len(code) :]
    for piece in (":", ")", "]", "}", "'", '"', ",", "):", '"""', '")', "')", "}'", '}"'):
        yield Proposal(script.with_line(number, code + piece + rest), f"line {number}: {piece} at its end")
    places = [match.start() for match in re.finditer(r"\b|(?<=\W)|$", line)]
    if column is not None:
        places.sort(key=lambda place: abs(place - column))
    for place in places:
        for piece in (",", ":", ")", "(", '"', "'", "=", " ", "in ", "."):
            yield Proposal(
                script.with_line(number, line[:place] + piece + line[place:]), f"line {number}: put in {piece.strip()}"
            )
    for match in re.finditer(r"\w+|[^\w\s]+|[^\w\s]", line):
        word = match.group()
        without = line[: match.start()] + line[match.end() :]
        yield Proposal(script.with_line(number, without), f"line {number}: take out {word}")
        if word[0].isdigit() or not word[0].isalpha():
            continue
        yield Proposal(
            script.with_line(number, f"{line[: match.start()]}{word}_{line[match.end() :]}"), f"line {number}: {word}_"
        )
    for match in re.finditer(r"[^\w\s]", line):
        for other in ("", ":", ")", "]", "}", ",", "=", "=="):
            new = line[: match.start()] + other + line[match.end() :]
            yield Proposal(script.with_line(number, new), f"line {number}: {match.group()} becomes {other}")
    for old, new in FOREIGN:
        if old in line:
            yield Proposal(script.with_line(number, line.replace(old, new)), f"line {number}: {old} becomes {new}")


def indentation(script: Script, number: int) -> Iterator[Proposal]:
    """Move one line, or the block that begins there, to each depth that stands around it."""
    for width in (4, 8):
        yield Proposal(script.text.expandtabs(width), f"tabs become {width} columns")
    depths = sorted({len(script.indent(n).expandtabs(8)) for n in range(1, len(script.lines) + 1)} | {4, 8})
    for near in (number, number - 1):
        if not 1 <= near <= len(script.lines):
            continue
        yield Proposal(script.before_line(near, script.indent(near) + "    pass"), f"line {near}: an empty block")
        end = near
        while end < len(script.lines) and script.lines[end].strip() and script.indent(end + 1) == script.indent(near):
            end += 1
        for last in dict.fromkeys((near, end)):
            for depth in depths:
                block = [" " * depth + line.lstrip() for line in script.lines[near - 1 : last]]
                text = "".join(script.lines[: near - 1]) + "".join(block) + "".join(script.lines[last:])
                yield Proposal(text, f"lines {near} to {last}: indent by {depth}")
