"""Someone who does what a page says: writes its files, types its commands, and compares what comes with what is told.

Each reader has a home of their own, where the first `titan up` takes a free port. What differs from one day to the
next is read loosely; what a page shows as an id, an address, a token or a name means the same wherever it stands on
that page, in commands too.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.markdown import Block, blocks, commands
from tests.unit.sources import ROOT

WAIT_S = 110
STOP_S = 40
UP = re.compile(r"titan up\b")
NEEDS_MASTER = re.compile(r"(titan|python|curl) ")
ELSEWHERE = re.compile(r"titan worker --join https:|export TITAN_URL=https:")
JOIN = re.compile(r"titan worker --join ")
# Nothing of these can be run.
DATA = {"text", "mermaid"}
# Where the commands of ./dev lead, as the script itself has it.
DEV = dict(re.findall(r'^([a-z]+)\) exec \.venv/bin/python (.+) "\$@" ;;$', (ROOT / "dev").read_text(), re.MULTILINE))

# What a page shows, and what may stand there today. It means the same all over the page.
MEANS = {
    "token": (r"tt\.[0-9a-f]*\.\.\.", r"tt\.[0-9a-f]+\.\S+"),
    "fingerprint": (r"sha256:[0-9a-f]+\.\.\.", r"sha256:[0-9a-f]{64}"),
    "digest": (r"\b[0-9a-f]{4}\.\.\.", r"[0-9a-f]{32,64}"),
    "elsewhere": (r"https://192\.0\.2\.7:9090", r"https://\S+:[0-9]+"),
    "url": (r"https?://127\.0\.0\.1:9090", r"https?://[^\s/]+:[0-9]+"),
    "worker": (r"\b(?:host|box)-1\b", r"[\w.-]+"),
    "id": (r"\b(?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{4}\b", r"[0-9a-f]{4,32}"),
}
# The same for what means nothing.
DIFFERS = {
    "time": (r"\d+(?:\.\d+)? m?s\b", r"[0-9]+(?:\.[0-9]+)? m?s"),
    "clock": (r"\d{4}-\d\d-\d\d[T ][\d:.]+Z?", r"[0-9]{4}-[0-9T:. -]+Z?"),
    "pid": (r"\bpid \d+", r"pid [0-9]+"),
    "slots": (r"\b\d+ slots?\b", r"[0-9]+ slots?"),
    "home": (r"/home/ada/", r"\S*/"),
    "count": (r"\b\d{1,3}(?:,\d{3})+\b", r"[0-9,]+"),
    "lines": (r"(?m:^\.\.\.$)", r"(?s:.*?)"),
    "cut": (r"\.\.\.", r".*?"),
    "spaces": (r" {2,}", r" +"),
}
HOLES = re.compile("|".join(f"(?P<{name}>{told})" for name, (told, _) in (MEANS | DIFFERS).items()))


@dataclass(frozen=True)
class Recipe:
    """What a page asks of its readers, and how it is made to fit.

    `files`: what is theirs already. `before`: what they do before a command. `fit`: texts of commands and what
    stands for them here. `waits`: commands of another terminal, and what these say when it is time to go on.
    `blocks`: how blocks of a language without a file name are read. `after`: what has to be so in the end.
    `fails`: commands that end with another code than 0 though nothing is shown of it. `up`: a Master is there
    before the page starts one, or although it starts none. `needs`: a program that not every machine has.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, Callable[["Reader"], None]] = field(default_factory=dict)
    fit: Mapping[str, str] = field(default_factory=dict)
    waits: Mapping[str, str] = field(default_factory=dict)
    blocks: Mapping[str, Callable[["Reader", Block], None]] = field(default_factory=dict)
    after: Callable[["Reader"], None] | None = None
    fails: Mapping[str, int] = field(default_factory=dict)
    any_order: bool = False
    up: bool = False
    needs: str = ""


class Machine:
    """A shell on one machine: a home, a working folder, and variables that stay from command to command.

    `inside` goes in front of a program, to run it in a network of its own. `home`: one that is there already.
    """

    def __init__(self, folder: Path, inside: Sequence[str] = (), home: Path | None = None) -> None:
        self.home, self.folder = home or folder / "home", folder / "work"
        self.inside = list(inside)
        self._variables = folder / "variables"
        for made in (self.home, self.folder):
            made.mkdir(parents=True, exist_ok=True)
        self._variables.touch()
        kept = {name: value for name, value in os.environ.items() if name.startswith(("COVERAGE", "TMPDIR"))}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environ = {**kept, "PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8"}

    def run(self, line: str) -> tuple[int, str]:
        """Run a line of shell; return its exit code and all it printed, in order."""
        text = f". {self._variables}\ntrap 'export -p > {self._variables}' EXIT\nset -a\n{line}\n"
        done = subprocess.run(
            [*self.inside, "sh", "-c", text],
            env=self.environ,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        return done.returncode, done.stdout

    def start(self, line: str) -> "Started":
        """Run a line in another terminal."""
        command = [*self.inside, "sh", "-c", f". {self._variables}\nexec {line}"]
        return Started(
            subprocess.Popen(
                command,
                env=self.environ,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )


class Started:
    """A program in another terminal."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.said = ""
        self._over = False

    def wait_said(self, text: str) -> str:
        """Return all it has said up to the end of a line with `text`."""
        assert self.process.stdout is not None
        while text not in self.said:
            line = self.process.stdout.readline()
            assert line, f"it ended with {self.process.wait(STOP_S)} and never said {text!r}:\n{self.said}"
            self.said += line
        return self.said

    def ended(self) -> int:
        """Wait for its end, keep what it said, and return its exit code."""
        if not self._over:
            self.said += self.process.communicate(timeout=WAIT_S)[0]
            self._over = True
        return self.process.returncode

    def stop(self) -> int:
        """What Ctrl+C is to a person; a second time says the same."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.ended()


class Reader:
    """Follows one page. `near`: the machine of the Master, `far`: another; `shared`: a `titan up` of many readers."""

    def __init__(self, near: Machine, far: Machine, recipe: Recipe, shared: Started | None = None) -> None:
        self.shared = shared
        self.near, self.far = near, far
        self.here = near
        self.recipe = recipe
        self.means: dict[str, str] = {}
        self.seen: list[str] = []
        self.said: dict[str, str] = {}
        self.up: Started | None = None
        self.workers: list[Started] = []
        self.waiting: dict[str, Started] = {}
        self.files: set[str] = set()
        self.unused: set[str] = set()

    def follow(self, page: str, text: str, left_out: Mapping[str, str]) -> None:
        """Do all that the page says but what is left out; raises AssertionError where it is not true."""
        found = blocks(page, text)
        for name in ("examples", "src"):
            (self.near.folder / name).symlink_to(ROOT / name)
        for name, content in self.recipe.files.items():
            self.write(name, content)
        typed = [each.line for block in found if block.language == "console" for each in commands(block)]
        if self.recipe.up or (not any(UP.match(line) for line in typed) and any(map(NEEDS_MASTER.match, typed))):
            self.start_master("titan up")
        for block in found:
            self.read(block, left_out)
        for name in sorted(self.unused):
            code, said = self.near.run(f"titan validate {name}")
            assert code == 0, f"{page}: {name}: {said}"
        for line, started in self.waiting.items():
            code = started.ended()
            assert code == self.recipe.fails.get(line, 0), f"{page}: $ {line}\nended with {code}:\n{started.said}"
        if self.recipe.after:
            self.recipe.after(self)

    def close(self) -> None:
        """Stop what still runs."""
        for started in (*self.waiting.values(), *self.workers, *([self.up] if self.up else [])):
            started.stop()

    def write(self, name: str, content: str) -> None:
        """Make a file in the working folder."""
        path = self.near.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")

    def read(self, block: Block, left_out: Mapping[str, str]) -> None:
        """Do what one block says."""
        special = self.recipe.blocks.get(block.language)
        if block.language == "console":
            self.here = self.far if ELSEWHERE.search(block.text) else self.near
            for command in commands(block):
                bare = without_comment(command.line)
                if bare not in left_out:
                    self.type(bare, command.told, block)
        elif block.language in ("python", "yaml", "toml", "json") and block.name:
            self.write(block.name, block.text)
            self.files.add(block.name)
            if block.language == "yaml":
                self.unused.add(block.name)
        elif special:
            special(self, block)
        elif block.language == "python":
            self.write(f"line_{block.line}.py", block.text)
            code, said = self.near.run(f"python line_{block.line}.py")
            assert code == 0, f"{block.place}:\n{said}"
            self.said[block.place] = said
        else:
            assert block.language in DATA, (
                f"{block.place}: nobody knows how to run {block.language!r}: tests/docs/recipes.py"
            )

    def type(self, line: str, told: str, block: Block) -> None:
        """Do one command and compare."""
        if line in self.recipe.before:
            self.recipe.before[line](self)
        self.seen.append(line)
        self.unused -= set(line.split())
        said, code = self.do(self.fitted(line))
        self.said[line] = said
        expected = self.recipe.fails.get(line, 0)
        if told:
            self.compare(line, told, said, block)
            assert line not in self.recipe.fails or code == expected, f"{block.place}: $ {line} ended with {code}"
        else:
            assert code in (expected, None), f"{block.place}: $ {line}\nended with {code}:\n{said}"

    def fitted(self, line: str) -> str:
        """Return a command as it has to be typed here."""
        for told, stands in (*self.recipe.fit.items(), *self.means.items()):
            line = line.replace(told, stands)
        return line

    def do(self, line: str) -> tuple[str, int | None]:
        """Type a command; return what it printed, and its exit code if it has ended."""
        if UP.match(line):
            return self.start_master(line), None
        if JOIN.match(line):
            self.workers.append(self.here.start(line))
            said = self.workers[-1].wait_said("connected to ")
            return said.splitlines(keepends=True)[-1], None  # before that it speaks of GPUs, where there are any
        for waits, text in self.recipe.waits.items():
            if line == self.fitted(waits):
                self.waiting[waits] = self.here.start(line)
                return self.waiting[waits].wait_said(text), None
        if line.startswith("./dev "):
            name, _, words = line.removeprefix("./dev ").partition(" ")
            line = f"cd {ROOT} && python {DEV[name]} {words}"
        code, said = self.here.run(line)
        if line == "titan down" and self.up:
            assert self.up.ended() == 0
        return said + ("" if said.endswith("\n") else "\n"), code  # as on a terminal

    def start_master(self, line: str) -> str:
        """Start `titan up`, in the place of one that is up; return its first screen."""
        if self.up:
            self.up.stop()
        if self.shared:
            return self.learn_addresses(self.shared.said)
        # In a network of its own the port of the page is free; elsewhere the machine may have one name alone.
        port = "" if self.near.inside else " --port 0" + " --tls-name localhost" * ("--tls" in line)
        self.up = self.near.start(line.replace("titan up", f"titan up{port} --slots 2", 1))
        return self.learn_addresses(self.up.wait_said("Ready in"))

    def learn_addresses(self, said: str) -> str:
        """Return the first screen of `titan up`, of which the page's addresses and tokens are learned."""
        first = said[said.index("Titan ") :]
        self.means["http://127.0.0.1:9090"] = first.split()[2]
        joined = re.search(r"titan worker --join (\S+) --token (\S+)(?: --fingerprint (\S+))?", first)
        if joined:
            self.means |= {
                "https://192.0.2.7:9090": joined[1],
                "tt.3f...": joined[2],
                "sha256:9c41...": joined[3] or "",
            }
        return first

    def compare(self, line: str, told: str, said: str, block: Block) -> None:
        """Hold what was printed against what is told, and learn from it what the page's names mean here."""
        pairs = [(told, said)]
        if self.recipe.any_order:
            pairs.append(("\n".join(sorted(told.split("\n"))), "\n".join(sorted(said.split("\n")))))
        for expected, found in pairs:
            learned: dict[str, str] = {}
            match = re.fullmatch(self.pattern(expected, learned), found)
            if match:
                self.means |= {name: match.group(group) for name, group in learned.items()}
                return
        raise AssertionError(f"{block.place}: $ {line}\nprinted:\n{said}\nthe page says:\n{told}")

    def pattern(self, told: str, learned: dict[str, str]) -> str:
        """Return what `told` may look like here; `learned`: the names in it that are new, and their groups."""
        made, end = "", 0
        for match in HOLES.finditer(told):
            made += re.escape(told[end : match.start()]) + self.hole(learned, match)
            end = match.end()
        return made + re.escape(told[end:])

    def hole(self, learned: dict[str, str], match: re.Match[str]) -> str:
        """Return the pattern for something that differs."""
        kind, told = str(match.lastgroup), match.group()
        if kind in DIFFERS:
            return DIFFERS[kind][1]
        if told in self.means:
            return re.escape(self.means[told])
        if told in learned:
            return f"(?P={learned[told]})"
        learned[told] = f"told_{len(learned)}"
        return f"(?P<{learned[told]}>{MEANS[kind][1]})"


def without_comment(line: str) -> str:
    """Return a command without the remark behind it."""
    return re.sub(r"\s+# .*", "", line)
