"""docs/security.md is true: its commands run, and what it says of itself is so."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster
from tests.unit.sources import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster without workers."""
    cluster = Cluster(tmp_path_factory.mktemp("home"), "--port", "0", "--workers", "0")
    try:
        yield cluster.start()
    finally:
        cluster.stop()


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
