"""What a command says, and where: data on stdout, talk on stderr, one JSON document with --json.

What jobs print and people store is data of strangers. On a terminal its control characters are shown
escaped, because a log line could otherwise rewrite the screen, set the window's title or fill the
clipboard; colours (SGR sequences) pass. Into a pipe or a file every byte goes as it is.
"""

import codecs
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

_SGR = re.compile(r"\x1b\[[0-9;:]*m")
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_UNFINISHED = re.compile(r"(?:\x1b(?:\[[0-9;:]*)?|\r)\Z")
CUT_CHARS_MIN = 8
COLUMNS_UNKNOWN = 80
_RESET = "\x1b[0m"

COLOURS = {
    "COMPLETED": "32",
    "FAILED": "31",
    "DEAD": "31",
    "CANCELLED": "33",
    "RUNNING": "36",
    "ASSIGNED": "36",
}


def colour_wanted(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Say whether `stream` gets colours: a terminal that is not dumb, and NO_COLOR unset or empty."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def safe(text: str, *, colours: bool) -> str:
    """Return `text` with every control character escaped but newline, tab and, if `colours`, SGR sequences."""
    text = text.replace("\r\n", "\n")
    parts, end = [], 0
    for match in _SGR.finditer(text):
        parts.append(_UNSAFE.sub(_escaped, text[end : match.start()]))
        parts.append(match.group() if colours else "")
        end = match.end()
    parts.append(_UNSAFE.sub(_escaped, text[end:]))
    return "".join(parts)


def _escaped(match: re.Match[str]) -> str:
    return ascii(match.group())[1:-1]


class Stream:
    r"""Bytes of a log on their way to stdout, in pieces that may break a character or a colour in two.

    Example: ``stream.write(b"caf\xc3"); stream.write(b"\xa9"); stream.close()``.
    """

    def __init__(self, stdout: TextIO) -> None:
        self._out = stdout
        self._raw = not stdout.isatty()
        self._colours = colour_wanted(stdout)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = ""
        self._last = "\n"

    def write(self, data: bytes, missing: str = "") -> None:
        """Write one piece, at once, and `missing`, our line about what is not there behind it, as a line of its own."""
        if not data and not missing:
            return
        if self._raw:
            self._out.buffer.write(data)
            self._last = chr(data[-1]) if data else self._last
        else:
            self._show(self._decode(data, bool(missing)), final=bool(missing))
        if missing:
            line = missing if self._last == "\n" else f"\n{missing}"
            self._out.buffer.write(line.encode()) if self._raw else self._out.write(safe(line, colours=False))
            self._last = "\n"
        self._out.flush()

    def leave(self, other: TextIO) -> None:
        """Something that is not the log goes to `other` next: end the line first when both arrive in one place."""
        if self._last != "\n" and _one_place(self._out, other):
            other.write("\n")
            self._last = "\n"

    def close(self) -> None:
        """Write what was held back; on a terminal end the line and any colour, so that what follows is ours."""
        if self._raw:
            return
        self._show(self._decode(b"", True), final=True)
        if self._last != "\n":
            self._out.write("\n")
            self._last = "\n"
        if self._colours:
            self._out.write(_RESET)
        self._out.flush()

    def _show(self, text: str, *, final: bool) -> None:
        text, self._held = self._held + text, ""
        unfinished = None if final else _UNFINISHED.search(text)
        if unfinished:
            text, self._held = text[: unfinished.start()], unfinished.group()
        if text:
            self._out.write(safe(text, colours=self._colours))
            self._last = text[-1]


class Output:
    """The two streams of one command, and how it was asked to speak.

    `as_json`: stdout gets one document (or one a line while following). `quiet`: stdout gets ids only, stderr
    gets errors only.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.stdout: TextIO = sys.stdout
        self.stderr: TextIO = sys.stderr
        self._stream: Stream | None = None
        self._has_progress = False

    @property
    def on_terminal(self) -> bool:
        """Whether a person reads stdout as it comes."""
        return self.stdout.isatty()

    def document(self, data: Mapping[str, Any]) -> None:
        """Print `data` as one line of JSON."""
        write_json(data, self.stdout)

    def told(
        self, noun: str, documents: Sequence[Mapping[str, Any]], name: str, sentence: Callable[[Any], str]
    ) -> None:
        """Print what became of each thing a command was given: one JSON document, or names, or a sentence each.

        `noun` holds the documents in the JSON, `name` is their field to print when quiet.
        """
        if self.as_json:
            self.document({noun: documents})
            return
        for document in documents:
            if self.quiet:
                self.line(document[name])
            else:
                self.talk(sentence(document))

    def line(self, text: str) -> None:
        """Print one line of data."""
        print(self._fit(text, self.stdout), file=self.stdout, flush=True)

    def talk(self, text: str) -> None:
        """Tell a person something on stderr; nothing when quiet."""
        if not self.quiet:
            if self._stream is not None:
                self._stream.leave(self.stderr)
            print(self._fit(text, self.stderr), file=self.stderr, flush=True)

    def progress(self, text: str) -> None:
        """Show `text` as the one line that changes, on a terminal only; `clear_progress` before anything else."""
        if self.stderr.isatty() and not self.quiet and not self.as_json:
            self.stderr.write(f"\r{safe(text, colours=False)}\x1b[K")
            self.stderr.flush()
            self._has_progress = True

    def clear_progress(self) -> None:
        """Take the line that changes away again."""
        if self._has_progress:
            self.stderr.write("\r\x1b[K")
            self.stderr.flush()
            self._has_progress = False

    def stream(self) -> Stream:
        """Return a stream to stdout, whose last line our own words are not glued to."""
        self._stream = Stream(self.stdout)
        return self._stream

    def exact(self, data: bytes) -> None:
        """Print `data` byte for byte; on a terminal escaped and ended by a newline."""
        stream = Stream(self.stdout)
        stream.write(data)
        stream.close()

    def state(self, state: str) -> str:
        """Return `state` coloured for stdout, when stdout has colours."""
        code = COLOURS.get(state)
        return f"\x1b[{code}m{state}{_RESET}" if code and colour_wanted(self.stdout) else state

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print aligned columns; the header only for a person, so that a pipe gets nothing but rows.

        On a terminal the last of several columns is cut where the line would not fit, so that a row is a line.
        """
        shown = [[safe(cell, colours=False).replace("\n", "\\n") for cell in row] for row in rows]
        if self.on_terminal and shown:
            shown.insert(0, list(headers))
        widths = [max((len(row[column]) for row in shown), default=0) for column in range(len(headers))]
        room = _columns(self.stdout) - sum(widths[:-1]) - 2 * (len(widths) - 1)
        if self.on_terminal and len(widths) > 1 and room >= CUT_CHARS_MIN:
            shown = [[*row[:-1], row[-1] if len(row[-1]) <= room else f"{row[-1][: room - 1]}>"] for row in shown]
            widths[-1] = min(widths[-1], room)
        for row in shown:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            self.line("  ".join(self._painted(cell) for cell in cells).rstrip())

    def _painted(self, cell: str) -> str:
        word = cell.strip()
        return cell.replace(word, self.state(word)) if word in COLOURS else cell

    def _fit(self, text: str, stream: TextIO) -> str:
        return safe(text, colours=colour_wanted(stream)) if stream.isatty() else text


def _columns(stream: TextIO) -> int:
    """Return how wide a terminal is. Not by shutil, whose import costs a command more than the rest of this file."""
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return int(told)
    try:
        return os.get_terminal_size(stream.fileno()).columns or COLUMNS_UNKNOWN
    except (OSError, ValueError):
        return COLUMNS_UNKNOWN


def _one_place(first: TextIO, second: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(first.fileno()), os.fstat(second.fileno()))
    except (OSError, ValueError):
        return False


def plural(count: int, noun: str) -> str:
    """Return `count` and `noun`, with an s unless it is one. Example: ``plural(2, "slot") == "2 slots"``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def spoken_s(seconds: float) -> str:
    """Return a duration as people say it: ``4 ms``, ``3.2 s``, ``4 min 12 s``, ``2 h 5 min``."""
    if round(seconds * 1000) < 1000:
        return f"{round(seconds * 1000)} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s} s"
    return f"{minutes // 60} h {minutes % 60} min"


def closing_s(seconds: float) -> str:
    """Return how long a run took, for its last line: ``0.4 s``, ``0.05 s``, and ``4 ms`` rather than a zero."""
    if 0.0095 <= seconds < 1:
        return f"{seconds:.2f} s" if seconds < 0.095 else f"{seconds:.1f} s"
    return spoken_s(seconds)


def write_json(document: Mapping[str, Any], stream: TextIO) -> None:
    """Write one JSON document as a line to `stream`; on a terminal everything but ASCII is escaped."""
    print(json.dumps(document, ensure_ascii=stream.isatty()), file=stream, flush=True)
