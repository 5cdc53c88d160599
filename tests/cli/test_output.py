"""Data goes exactly into a pipe, and harmlessly onto a terminal."""

import io
import json
from typing import TextIO

import pytest

from titan.cli import output
from titan.cli.output import Output, Stream, closing_s, colour_wanted, plural, safe, spoken_s
from titan.model.ids import one_line

ATTACKS = {
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "title": "\x1b]0;root@bank\x07",
    "cursor": "\x1b[2A\x1b[2K",
    "overwrite": "rm -rf /\rls",
    "backspace": "evil\b\b\b\bgood",
    "c1": "\x9b31m",
    "bidi": "abc\u202efdp.exe",
    "bell": "\x07",
    "delete": "\x7f",
    "direction": "abc\u200f\u061cfdp",
    "line separator": "fine\u2028titan: all is well",
}


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def terminal() -> Terminal:
    return Terminal(io.BytesIO(), encoding="utf-8", write_through=True, newline="")


def pipe() -> TextIO:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True, newline="")


def written(stream: TextIO) -> bytes:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue()


@pytest.fixture(autouse=True)
def _colourful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.parametrize("name", ATTACKS)
def test_s40_a_terminal_sees_control_characters_escaped(name: str) -> None:
    shown = safe(ATTACKS[name], colours=True)
    assert shown.isprintable()
    assert "\\" in shown


@pytest.mark.parametrize("name", ATTACKS)
def test_s40_no_cell_of_a_table_and_no_line_of_a_program_is_more_than_a_line(name: str) -> None:
    out = Output()
    out.stdout = terminal()
    out.table(["NAME", "STATE"], [[f"{ATTACKS[name]}\nCOMPLETED", "QUEUED"]])
    shown = written(out.stdout).decode()
    assert shown.count("\n") == 2
    assert shown.replace("\n", "").isprintable()
    line = one_line(f"{ATTACKS[name]}\r\nworker w: all is well\ud800")
    assert line.isprintable()
    assert "\\r\\nworker" in line


def test_colours_newlines_and_tabs_pass() -> None:
    text = "\x1b[1;31mred\x1b[0m\tand\nnext\r\nlast 🙂 ü"
    assert safe(text, colours=True) == text.replace("\r\n", "\n")
    assert safe(text, colours=False) == "red\tand\nnext\nlast 🙂 ü"


def test_s40_a_log_in_pieces_is_as_safe_as_whole() -> None:
    whole = "".join(ATTACKS.values()) + "\x1b[31mé\x1b[0m\r\nend"
    data = whole.encode()
    for size in (1, 2, 3, 7, len(data)):
        out = terminal()
        stream = Stream(out)
        for start in range(0, len(data), size):
            stream.write(data[start : start + size])
        stream.close()
        assert written(out).decode() == safe(whole, colours=True) + "\n\x1b[0m", size


def test_a_pipe_gets_every_byte() -> None:
    out = pipe()
    stream = Stream(out)
    data = bytes(range(256)) + b"\x1b]52;c;x\x07\r"
    for start in range(0, len(data), 5):
        stream.write(data[start : start + 5])
    stream.close()
    assert written(out) == data


def test_a_terminal_line_is_ended_and_undecodable_bytes_are_shown() -> None:
    out = terminal()
    stream = Stream(out)
    stream.write(b"caf\xe9")
    stream.close()
    assert written(out).decode() == "caf\ufffd\n\x1b[0m"


def test_no_color_and_dumb_terminals_get_none() -> None:
    assert colour_wanted(terminal(), {"TERM": "xterm"})
    assert not colour_wanted(terminal(), {"TERM": "xterm", "NO_COLOR": "1"})
    assert not colour_wanted(terminal(), {"TERM": "dumb"})
    assert not colour_wanted(pipe(), {"TERM": "xterm"})


def test_a_table_is_aligned_has_a_header_for_people_only_and_keeps_rows_one_line() -> None:
    rows = [["7f3a", "FAILED", "two\nlines\x1b[2J"], ["81c0aa", "COMPLETED", "x"]]
    for stream in (pipe(), terminal()):
        out = Output()
        out.stdout = stream
        out.table(["RUN", "STATE", "NAME"], rows)
    assert written(stream).decode().splitlines() == [
        "RUN     STATE      NAME",
        "7f3a    \x1b[31mFAILED\x1b[0m     two\\nlines\\x1b[2J",
        "81c0aa  \x1b[32mCOMPLETED\x1b[0m  x",
    ]


def test_a_row_is_one_line_of_a_narrow_terminal_and_whole_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    rows = [["7f3a", "FAILED", "a name that is long"], ["81c0", "COMPLETED", "fits"]]
    told = {}
    for stream in (pipe(), terminal()):
        out = Output()
        out.stdout = stream
        out.table(["RUN", "STATE", "NAME"], rows)
        out.table(["KEY"], [["k" * 40]])
        told[stream.isatty()] = written(stream).decode().splitlines()
    assert told[False][0] == "7f3a  FAILED     a name that is long"
    assert told[True] == [
        "RUN   STATE      NAME",
        "7f3a  \x1b[31mFAILED\x1b[0m     a name that >",
        "81c0  \x1b[32mCOMPLETED\x1b[0m  fits",
        "KEY",
        "k" * 40,
    ]
    assert len("7f3a  FAILED     a name that >") <= 30


def test_an_empty_table_has_no_header() -> None:
    out = Output()
    out.stdout = stream = terminal()
    out.table(["RUN", "STATE"], [])
    assert written(stream) == b""


def test_a_pipe_gets_rows_without_header_or_colour(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(["RUN", "STATE"], [["7f3a", "FAILED"]])
    assert capsys.readouterr().out == "7f3a  FAILED\n"


def test_quiet_silences_talk_but_not_data(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(quiet=True)
    out.talk("chatter")
    out.line("7f3a")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("7f3a\n", "")


def test_json_is_one_line_and_harmless_on_a_terminal() -> None:
    stream = terminal()
    output.write_json({"name": "\x9b2J\u202e ü"}, stream)
    shown = written(stream).decode()
    assert shown.isascii()
    assert shown.count("\n") == 1
    assert json.loads(shown) == {"name": "\x9b2J\u202e ü"}


def test_counts_and_durations_as_people_say_them() -> None:
    assert [plural(count, "slot") for count in (0, 1, 2)] == ["0 slots", "1 slot", "2 slots"]
    spoken = [spoken_s(seconds) for seconds in (0, 0.0004, 0.004, 0.051, 0.9994, 0.9995, 3.21, 59.94, 59.99, 252, 7500)]
    assert spoken[:5] == ["0 ms", "0 ms", "4 ms", "51 ms", "999 ms"]
    assert spoken[5:] == ["1.0 s", "3.2 s", "59.9 s", "1 min 0 s", "4 min 12 s", "2 h 5 min"]


def test_the_time_of_a_run_in_its_last_line() -> None:
    spoken = [closing_s(seconds) for seconds in (0.004, 0.0094, 0.0095, 0.051, 0.0949, 0.095, 0.42, 0.949, 3.21, 252)]
    assert spoken == [
        "4 ms", "9 ms", "0.01 s", "0.05 s", "0.09 s", "0.1 s", "0.4 s", "0.9 s", "3.2 s", "4 min 12 s",
    ]  # fmt: skip
