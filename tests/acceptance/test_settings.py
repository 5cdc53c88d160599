"""titan config ls, and the flags and files that say which Master is asked, on a real cluster."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster, titan
from tests.acceptance.test_commands import document


@pytest.fixture
def stranger(cluster: Cluster, tmp_path: Path) -> Path:
    """A home that knows no Master, and a profile `lab` that knows this cluster."""
    home, config = tmp_path / "home", tmp_path / "config" / "titan"
    home.mkdir()
    config.mkdir(parents=True)
    (config / "lab.token").write_text((cluster.home / "token").read_text())
    (config / "config.toml").write_text(f'[profiles.lab]\nurl = "{cluster.url}"\ntoken_file = "lab.token"\n')
    return tmp_path


def in_profile(stranger: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    environ = {"XDG_CONFIG_HOME": str(stranger / "config"), **more}
    return titan(stranger / "home", *arguments, cwd=stranger, **environ)


def test_a_flag_a_profile_and_a_project_lead_to_the_master(cluster: Cluster, stranger: Path) -> None:
    token = str(cluster.home / "token")
    assert in_profile(stranger, "status", "-q", "--url", cluster.url, "--token-file", token).returncode == 0
    assert in_profile(stranger, "status", "-q", "--profile", "lab", TITAN_URL="http://127.0.0.1:1").returncode == 0
    assert in_profile(stranger, "status", "-q", TITAN_PROFILE="lab").returncode == 0
    (stranger / "titan.toml").write_text('profile = "lab"\n')
    assert in_profile(stranger, "status", "-q").stdout.decode().strip() == cluster.url
    (stranger / "titan.toml").write_text(f'url = "{cluster.url}"\n')
    refused = in_profile(stranger, "store", "ls")
    assert (refused.returncode, b"a project's file is shown no token" in refused.stderr) == (5, True)
    assert in_profile(stranger, "store", "ls", "--profile", "lab").returncode == 0


def test_config_ls_says_where_each_setting_is_from(cluster: Cluster, stranger: Path) -> None:
    told = document(in_profile(stranger, "config", "ls", "--json", "--profile", "lab"))
    assert {each["name"]: (each["value"], each["origin"]) for each in told["settings"]} == {
        "url": (cluster.url, f"profile lab in {stranger}/config/titan/config.toml"),
        "token": ("set", f"{stranger}/config/titan/lab.token"),
        "profile": ("lab", "--profile"),
        "home": (f"{stranger}/home", "TITAN_HOME"),
    }
    assert [file["found"] for file in told["files"]] == [False, False, True]
    flagged = in_profile(stranger, "config", "ls", "--show-origin", "--url", "https://m", "--ca", "x.pem")
    rows = [line.split() for line in flagged.stdout.decode().splitlines()]
    assert rows[0] == ["url", "https://m:443", "--url"]
    assert rows[1] == ["token", "none"]
    assert rows[2] == ["ca", f"{stranger}/x.pem", "--ca"]
    assert b"config.toml: read" in flagged.stderr
    assert in_profile(stranger, "config", "ls", "-q").stdout.split() == [b"url", b"token", b"profile", b"home"]
    assert (cluster.home / "token").read_bytes().strip() not in in_profile(stranger, "config", "ls").stdout


def test_a_wrong_setting_is_an_error_with_a_code(stranger: Path) -> None:
    (stranger / "titan.toml").write_text('ulr = "x"\n')
    wrong = in_profile(stranger, "ps", "--json")
    assert wrong.returncode == 6
    assert "did you mean url?" in json.loads(wrong.stderr)["error"]["hint"]
    assert in_profile(stranger, "ps", "--profile", "nope").returncode == 6
    assert in_profile(stranger, "ps", "--token-file", "nope").returncode == 3
    (stranger / "empty").touch()
    empty = in_profile(stranger, "ps", "--token-file", "empty")
    assert (empty.returncode, b"the token file empty is empty" in empty.stderr) == (6, True)
    address = in_profile(stranger, "ps", "--url", "gopher://x")
    assert (address.returncode, b"the address behind --url is not the URL" in address.stderr) == (6, True)
