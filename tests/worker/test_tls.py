"""A worker believes no server but the one it was told to: neither on its link nor where it fetches scripts."""

import datetime as dt
import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.test_tls import Door
from titan.cli.certificates import Files, given, own
from titan.worker.scripts import Scripts

NOW = dt.datetime.now(dt.UTC)


def bad(kind: str, folder: Path) -> tuple[Files, str]:
    """Return what a server shows, and whom the worker was told to trust."""
    folder.mkdir()
    if kind == "another authority":
        other = folder / "other"
        other.mkdir()
        return own(folder, ["127.0.0.1"], NOW), own(other, ["127.0.0.1"], NOW).ca
    if kind == "the system's authorities":
        return own(folder, ["127.0.0.1"], NOW), ""
    if kind == "another name":
        files = own(folder, ["titan.example.org"], NOW)
        return files, files.ca
    if kind == "another fingerprint":
        files = own(folder, ["127.0.0.1"], NOW)
        return files, "sha256:" + "0" * 64
    files = own(folder, ["127.0.0.1"], NOW - dt.timedelta(days=500))
    return files, given(files.certificate, files.key, NOW - dt.timedelta(days=500)).ca


@pytest.fixture(
    params=["another authority", "the system's authorities", "another name", "another fingerprint", "an expired one"]
)
def refused(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Door, str]]:
    files, ca = bad(request.param, tmp_path / "server")
    with Door(tmp_path / "server", files) as door:
        yield door, ca


def test_s10_a_worker_does_not_link_to_a_server_it_cannot_verify(refused: tuple[Door, str], tmp_path: Path) -> None:
    door, ca = refused
    (tmp_path / "token").touch(0o600)
    (tmp_path / "token").write_text("a token that must not leave\n")
    command = [
        sys.executable, "-m", "titan.worker", "--home", tmp_path, "--join", f"https://127.0.0.1:{door.port}",
        "--name", "w", *(["--ca", ca] if ca else []),
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as worker:
        assert worker.stderr is not None
        said = worker.stderr.readline()
        worker.terminate()
    assert "not trusted here" in said or "is not the Master with the fingerprint" in said
    assert door.requests == []


def test_s10_a_script_is_not_fetched_from_a_server_that_cannot_be_verified(
    refused: tuple[Door, str], tmp_path: Path
) -> None:
    door, ca = refused
    scripts = Scripts(tmp_path / "scripts", lambda: f"https://127.0.0.1:{door.port}", lambda: "a token", ca)
    with pytest.raises(http.client.HTTPException, match="cannot be reached"):
        scripts._download("0" * 64, tmp_path / "it")
    assert door.requests == []
