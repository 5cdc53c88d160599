"""docs/tutorial.md, followed to the letter: files written, commands run, answers compared.

Ids and times differ each time; an id that stands in the tutorial means the same run wherever it stands.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import TITAN, Cluster, bare_environment
from tests.unit.sources import ROOT

PAGE = ROOT / "docs" / "tutorial.md"
STEP = re.compile(
    r"(?:^(?:Mend [a-z ]*)?`(?P<file>[a-z]+\.py)`:\n\n)?^```(?P<kind>console|python)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
# What differs from one run to the next, and what may stand in its place.
ID = re.compile(r"\b(?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{4}\b")
VARIES = (
    (r"http://127\\\.0\\\.0\\\.1:9090", r"http://127\\.0\\.0\\.1:[0-9]+"),
    (r"\d+(?:\\\.\d+)?\\ (?:ms|s)\b", r"[0-9]+(?:\\.[0-9]+)? m?s"),
    (r"pid\\ \d+", r"pid [0-9]+"),
    (r"\\?~/\\\.local/state/titan", r"\\S+"),
    (r"/home/ada/", r"\\S*/"),
    (r"worker\\ host\\-1", r"worker \\S+"),
    (r"(?:\\ ){2,}", r" +"),
)


class Follower:
    """Someone who does what the tutorial says. `ids`: the tutorial's ids and what they are here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = Cluster(folder / "home", "--port", "0", "--slots", "2")
        self.ids: dict[str, str] = {}

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def run(self, line: str) -> str:
        """Run one command line and return all it prints, in order."""
        for told, here in self.ids.items():
            line = line.replace(told, here)
        program, *arguments = shlex.split(line)
        if arguments == ["up"]:
            return self.cluster.start_as_a_person()
        command = [{"titan": TITAN, "python": sys.executable}[program], *arguments]
        environ = bare_environment(self.cluster.home)
        done = subprocess.run(
            command,
            env=environ,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        ends_the_line = "" if done.stdout.endswith("\n") else "\n"  # as on a terminal
        return done.stdout + ends_the_line

    def compare(self, command: str, told: str, printed: str) -> None:
        """Hold what was printed against the tutorial, and learn the ids from it."""
        pattern = re.escape(told)
        for differs, stands in VARIES:
            pattern = re.sub(differs, stands, pattern)
        names: list[str] = []

        def group(match: re.Match[str]) -> str:
            told_id = match.group()
            if told_id in self.ids:
                return self.ids[told_id]
            if told_id in names:
                return f"(?P=id_{told_id})"
            names.append(told_id)
            return f"(?P<id_{told_id}>[0-9a-f]{{4,32}})"

        pattern = ID.sub(group, pattern)
        match = re.fullmatch(pattern, printed)
        assert match, f"$ {command}\nprinted:\n{printed}\nthe tutorial says:\n{told}"
        self.ids |= {told_id: match.group(f"id_{told_id}") for told_id in names}


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower]:
    follower = Follower(tmp_path)
    yield follower
    follower.cluster.stop()


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block with what it prints."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def test_the_tutorial_is_true(follower: Follower) -> None:
    seen = []
    for step in STEP.finditer(PAGE.read_text(encoding="utf-8")):
        if step["file"]:
            follower.write(step["file"], step["text"])
            continue
        assert step["kind"] == "console", "a python block needs the name of its file above it"
        for command, told in commands(step["text"]):
            follower.compare(command, told, follower.run(command))
            seen.append(command.split()[1])
    assert set(seen) >= {"run", "logs", "ps", "store", "status", "explain", "cancel", "retry", "down"}
    assert follower.cluster.gone() == 0
