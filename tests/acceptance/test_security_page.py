"""docs/security.md is true: its commands run, and what it says of itself is so."""

import re
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.acceptance.cluster import Cluster
from tests.unit.sources import ROOT
from titan.cli.main import titan

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster without workers."""
    cluster = Cluster(tmp_path_factory.mktemp("home"), "--port", "0", "--workers", "0")
    try:
        yield cluster.start()
    finally:
        cluster.stop()


def commands() -> list[list[str]]:
    """Return what stands in blocks behind a $, and between backquotes, as words without `titan`."""
    found = re.findall(r"^ *\$ titan (.+)$", PAGE, re.MULTILINE) + re.findall(r"`titan ([a-z]+ [^`]+)`", PAGE)
    return [shlex.split(line) for line in found]


def test_every_command_of_the_page_is_one() -> None:
    assert len(commands()) >= 12
    for line in commands():
        words = line
        command: click.Command = titan
        context = click.Context(titan)
        while isinstance(command, click.Group):
            found = command.get_command(context, words[0])
            assert found is not None, words
            command, words = found, words[1:]
        known = {name for param in command.params for name in param.opts} | {"--join"}
        assert {word for word in words if word.startswith("-")} <= known, words


def test_the_commands_of_its_blocks_do_what_it_says(bare: Cluster) -> None:
    ids = [bare.titan("token", "create", "n", "--role", "viewer").stdout.decode().split(".")[1] for _ in range(4)]
    lines = re.findall(r"^ *\$ titan (.+)$", PAGE, re.MULTILINE)
    assert len(lines) >= 8
    for line in lines:
        words = [ids.pop() if word == "ID" else word for word in shlex.split(line)]
        if words[0] != "up" and "--ca" not in words:
            done = bare.titan(*words)
            assert done.returncode == 0, (line, done.stderr)


def test_s52_a_row_that_was_tampered_with_is_named_with_exit_code_6(bare: Cluster) -> None:
    for number in range(3):
        bare.titan("token", "create", f"token {number}", "--role", "viewer")
    assert bare.titan("audit", "ls", "--action", "tokens.create", "-n", "2", "-q").stdout.count(b"\n") == 2
    whole = bare.titan("audit", "verify")
    assert whole.returncode == 0, whole.stderr
    anchor = whole.stdout.decode().strip()
    assert re.fullmatch(r"[0-9]+:[0-9a-f]{64}", anchor)
    assert bare.titan("audit", "verify", "--expect", anchor).returncode == 0
    seq, _, digest = anchor.partition(":")
    other = bare.titan("audit", "verify", "--expect", f"{seq}:{digest[::-1]}")
    assert (other.returncode, f"row {seq} is not the one" in other.stderr.decode()) == (6, True)
    missing = bare.titan("audit", "verify", "--expect", f"{int(seq) + 9}:{digest}")
    assert missing.returncode == 6
    assert bare.titan("audit", "verify", "--expect", "x").returncode == 2

    change(bare.home / "titan.db", "UPDATE audit SET actor = 'nobody' WHERE seq = 2")
    found = bare.titan("audit", "verify")
    assert found.returncode == 6
    assert found.stderr.decode().startswith("titan: the audit is not what was written: row 2 was changed")
    assert b"Traceback" not in found.stderr


def change(path: Path, statement: str) -> None:
    """Do what somebody could who may write the file."""
    connection = sqlite3.connect(path, timeout=60)
    with connection:
        connection.execute("DROP TRIGGER audit_no_update")
        connection.execute(statement)
    connection.close()
