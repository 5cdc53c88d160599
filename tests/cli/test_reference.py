"""docs/reference/cli.md is what the commands say of themselves, and the commands keep the house's rules."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.cli.reference_page import PAGE, render
from titan.cli import worker
from titan.cli.exits import MEANING, Exit, exit_of_error
from titan.cli.main import COMMANDS, SYNONYMS, titan
from titan_sdk.errors import BY_CODE, TitanError

# They run in the foreground or give way to another program, so there is no answer to print.
WITHOUT_JSON = {"titan worker start"}
# They are about what this home or this disk holds, and ask no other Master.
LOCAL = {"titan completion", "titan master", "titan up", "titan down", "titan validate"}


def commands(group: click.Group = titan, path: str = "titan") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


ALL = dict(commands())


def test_the_page_is_made_from_the_commands() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: .venv/bin/python -m tests.cli.reference_page"


def test_every_command_that_asks_a_master_is_told_whom_to_trust_in_one_way() -> None:
    with_ca = {path for path, command in ALL.items() if any("--ca" in param.opts for param in command.params)}
    assert with_ca == ALL.keys() - LOCAL


@pytest.mark.parametrize("path", ALL)
def test_every_command_speaks_json_and_shows_faults(path: str) -> None:
    options = {name for param in ALL[path].params for name in param.opts}
    assert "--debug" in options
    assert ("--json" in options and "--quiet" in options) != (path in WITHOUT_JSON)


def parsed(arguments: list[str]) -> click.Context:
    """Parse a command line to the command it means, without running it."""
    context = titan.make_context("titan", arguments)
    while isinstance(context.command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, command, rest = context.command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(name, rest, parent=context)
    return context


@pytest.mark.parametrize("path", ALL)
def test_every_command_has_an_example_that_is_one_of_it(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpu.token").touch()
    epilog = ALL[path].epilog or ""
    assert epilog.startswith("Example: titan "), "it has none"
    words = shlex.split(epilog.removeprefix("Example: ").partition(" > ")[0])
    assert parsed(words[1:]).command is ALL[path]
    shown = ALL[path].get_help(click.Context(ALL[path], info_name=path))
    assert epilog in shown, "it fits a line"


@pytest.mark.parametrize("path", ALL)
def test_every_command_and_option_is_explained(path: str) -> None:
    assert (ALL[path].help or "").strip()
    for param in ALL[path].params:
        if isinstance(param, click.Option):
            assert param.help, f"{path} {param.opts}"
            assert param.is_flag or param.metavar, f"{path} {param.opts} is shown as {param.type.name}"


def test_every_error_has_an_exit_code_and_every_code_a_meaning() -> None:
    assert set(MEANING) == set(Exit)
    codes = {code: exit_of_error(TitanError("x", code=code)) for code in BY_CODE}
    assert codes["not_found"] == codes["file_not_found"] == 3
    assert codes["unreachable"] == codes["unavailable"] == 4
    assert codes["denied"] == codes["unauthenticated"] == 5
    assert codes["invalid"] == codes["conflict"] == codes["unsupported"] == 6
    assert codes["timed_out"] == 7
    assert codes["run_failed"] == 1
    assert set(codes.values()) <= set(Exit)


def test_a_synonym_is_no_command_and_means_one() -> None:
    assert not set(SYNONYMS) & set(COMMANDS)
    assert set(SYNONYMS.values()) <= set(COMMANDS)


@pytest.mark.parametrize("arguments", [["ps", "--help"], ["status", "--help"], ["store", "get", "--help"]])
def test_a_command_loads_no_other_and_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys\nfrom titan.cli import main\nmain({arguments})\nprint('loaded', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rpartition("loaded ")[2].split())
    assert f"titan.cli.{arguments[0]}" in loaded
    others = {f"titan.cli.{name}" for name in COMMANDS if name != arguments[0]}
    heavy = {"asyncio", "msgspec", "rich", "sqlalchemy", "litestar", "titan.master", "titan.worker", "subprocess"}
    assert not loaded & (others | heavy)


def test_the_group_of_workers_shows_what_its_example_takes_and_where_the_rest_is() -> None:
    shown = worker.command.get_help(click.Context(worker.command, info_name="worker"))
    assert "titan worker start --help" in shown
    taken = [line.split()[0] for line in shown.splitlines() if line.startswith("  --")]
    assert taken == ["--join", "--token", "--name", "--slots", "--capability"]
