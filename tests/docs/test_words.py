"""What stands between backquotes is there: commands and their options, variables, files, tests, calls."""

import ast
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import cache

import click
import pytest

from tests.docs.markdown import blocks, code_spans, pages, read
from tests.docs.reader import DEV
from tests.unit.sources import ROOT, read_tree
from titan.cli.main import titan
from titan.model.limits import Limits
from titan_sdk import Run, TitanClient, TitanJob

# It tells of what is no more, by the names of its time.
HISTORY = {"CHANGELOG.md", "docs/track-record.md"}
PAGES = [page for page in pages() if page not in HISTORY]
# Mistakes that a page speaks of.
WRONG = {"titan store incr --jsom", "titan nonsense"}
# Options that may be said as commands.
AS_OPTIONS = {"titan help", "titan version"}
# Where the first part of a path may stand.
FOLDERS = (".", "src", "src/titan", "docs", "tests", "tests/simulation")


def spans(page: str) -> list[str]:
    """Return the code of a page: between backquotes, and the lines of its blocks that are only looked at."""
    shown = [block.text for block in blocks(page, read(page)) if block.language == "text"]
    return code_spans(read(page)) + [line for text in shown for line in text.splitlines()]


def unlike(holds: Callable[[str], bool], pattern: str, *, history: bool = False) -> list[str]:
    """Return the spans of all pages that match `pattern` and of which `holds` is not true, each with its page."""
    return [
        f"{page}: {span}"
        for page in pages()
        if history or page not in HISTORY
        for span in spans(page)
        if re.match(pattern, span) and not holds(span)
    ]


def test_every_command_is_one() -> None:
    found = unlike(is_command, r"titan [a-z]", history=True)
    assert [each for each in found if each.partition(": ")[2] not in WRONG | AS_OPTIONS] == []


def is_command(line: str) -> bool:
    """Say whether all of it is there, the command and its options."""
    words = shlex.split(re.sub(r"[|>;&].*|\.\.\.", "", line).replace("[", " ").replace("]", " "), comments=True)[1:]
    command: click.Command = titan
    context = click.Context(titan)
    known = {"--join"}  # titan worker start is titan worker
    while isinstance(command, click.Group):
        known |= {name for param in command.params for name in param.opts}
        if not words or words[0].startswith("-"):
            start = command.get_command(context, "start")
            known |= {name for param in (start.params if start else []) for name in param.opts}
            break
        found = command.get_command(context, words[0])
        if found is None:
            return False
        command, words = found, words[1:]
    known |= {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    options = words[: words.index("--")] if "--" in words else words
    return {word.partition("=")[0] for word in options if re.match(r"--?[a-z]", word)} <= known


@cache
def usage(name: str) -> str:
    """Return what a command of ./dev says of its options."""
    command = [sys.executable, *DEV[name].split(), "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=True).stdout


def is_word_of_dev(line: str) -> bool:
    name, *words = line.removeprefix("./dev ").split()
    if f"\n./dev {name} " not in (ROOT / "dev").read_text(encoding="utf-8"):
        return False
    options = {word for word in words if word.startswith("--")}
    return name not in DEV or not options or options <= set(re.findall(r"--[a-z-]+", usage(name)))


def test_every_word_of_dev_is_one() -> None:
    assert unlike(is_word_of_dev, r"\./dev ") == []


def test_every_option_in_the_tables_of_the_suites_is_one() -> None:
    campaigns = unlike(lambda span: is_word_of_dev(f"./dev kill {span}"), r"--(?!ci|long|seed|processes|write)")
    assert [each for each in campaigns if each.startswith("docs/suites.md")] == []


def is_module(line: str) -> bool:
    name = line.partition(" -m ")[2].split()[0]
    return importlib.util.find_spec(name) is not None


def test_every_module_that_is_run_is_there() -> None:
    assert unlike(is_module, r"\S*python -m ") == []
    assert not is_module("python -m tests.nowhere")


def test_every_variable_is_read_somewhere() -> None:
    source = "".join(source.text for source in read_tree("src"))
    limits = {f"TITAN_LIMIT_{name.upper()}" for name in Limits.__slots__}
    named = {(page, name) for page in PAGES for name in re.findall(r"\bTITAN_[A-Z_]*[A-Z]\b", read(page))}
    read_here = limits | set(re.findall(r"\bTITAN_[A-Z_]*[A-Z]\b", source)) | {"TITAN_LIMIT"}
    assert {each for each in named if each[1] not in read_here} == set()


def is_file(path: str) -> bool:
    return any((ROOT / folder / name).exists() for folder in FOLDERS for name in (path, f"{path}.py"))


def test_every_file_that_is_named_is_there() -> None:
    folders = r"(?:src|tests|docs|examples|bench|core|master|storage|worker|cli|model|titan_sdk)"
    assert unlike(is_file, rf"{folders}/[\w./-]+$") == []


def test_every_test_that_is_named_is_there() -> None:
    files = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    tests = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    tests |= {name for text in files for name in re.findall(r"^ *def (test_\w+)", text, re.MULTILINE)}
    assert unlike(lambda span: any(name.startswith(span) for name in tests), r"test_\w+$") == []


def is_call(span: str) -> bool:
    owner, name = re.split(r"\W", span)[:2]
    return hasattr({"client": TitanClient, "run": Run}[owner], name)


def is_job(span: str) -> bool:
    call = ast.parse(span, mode="eval").body
    assert isinstance(call, ast.Call)
    arguments = {str(keyword.arg): None for keyword in call.keywords}
    inspect.signature(TitanJob).bind_partial(*call.args, **arguments)
    return True


def test_every_call_of_the_sdk_is_one() -> None:
    assert unlike(is_call, r"(client|run)\.\w+") == []
    assert unlike(is_job, r"TitanJob\(.+\)$") == []


@pytest.mark.parametrize("line", ["titan ups", "titan ps --stat", "titan worker --slot 2", "titan token make"])
def test_a_command_that_is_none_is_found(line: str) -> None:
    assert not is_command(line)
    assert is_command("titan ps --state FAILED")
