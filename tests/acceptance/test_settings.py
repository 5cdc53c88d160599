"""titan config ls, and the flags and files that say which Master is asked, on a real cluster."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster
from tests.acceptance.inside import Done, Shell
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


@pytest.fixture
def in_profile(stranger: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Run a command line as that stranger."""
    shell = Shell(monkeypatch, stranger / "home", stranger)
    return lambda *arguments, **more: shell(*arguments, XDG_CONFIG_HOME=str(stranger / "config"), **more)


def test_a_flag_a_profile_and_a_project_lead_to_the_master(
    cluster: Cluster, stranger: Path, in_profile: Callable[..., Done]
) -> None:
    token = str(cluster.home / "token")
    assert in_profile("status", "-q", "--url", cluster.url, "--token-file", token).returncode == 0
    assert in_profile("status", "-q", "--profile", "lab", TITAN_URL="http://127.0.0.1:1").returncode == 0
    assert in_profile("status", "-q", TITAN_PROFILE="lab").returncode == 0
    (stranger / "titan.toml").write_text('profile = "lab"\n')
    assert in_profile("status", "-q").stdout.decode().strip() == cluster.url
    (stranger / "titan.toml").write_text(f'url = "{cluster.url}"\n')
    refused = in_profile("store", "ls")
    assert (refused.returncode, b"a project's file is shown no token" in refused.stderr) == (5, True)
    assert in_profile("store", "ls", "--profile", "lab").returncode == 0


def test_config_ls_says_where_each_setting_is_from(
    cluster: Cluster, stranger: Path, in_profile: Callable[..., Done]
) -> None:
    told = document(in_profile("config", "ls", "--json", "--profile", "lab"))
    assert {each["name"]: (each["value"], each["origin"]) for each in told["settings"]} == {
        "url": (cluster.url, f"profile lab in {stranger}/config/titan/config.toml"),
        "token": ("set", f"{stranger}/config/titan/lab.token"),
        "profile": ("lab", "--profile"),
        "home": (f"{stranger}/home", "TITAN_HOME"),
    }
    assert [file["found"] for file in told["files"]] == [False, False, True]
    flagged = in_profile("config", "ls", "--show-origin", "--url", "https://m", "--ca", "x.pem")
    rows = [line.split() for line in flagged.stdout.decode().splitlines()]
    assert rows[0] == ["url", "https://m:443", "--url"]
    assert rows[1] == ["token", "none"]
    assert rows[2] == ["ca", f"{stranger}/x.pem", "--ca"]
    assert b"config.toml: read" in flagged.stderr
    assert in_profile("config", "ls", "-q").stdout.split() == [b"url", b"token", b"profile", b"home"]
    assert (cluster.home / "token").read_bytes().strip() not in in_profile("config", "ls").stdout


def test_a_wrong_setting_is_an_error_with_a_code(stranger: Path, in_profile: Callable[..., Done]) -> None:
    (stranger / "titan.toml").write_text('ulr = "x"\n')
    wrong = in_profile("ps", "--json")
    assert wrong.returncode == 6
    assert "did you mean url?" in json.loads(wrong.stderr)["error"]["hint"]
    assert in_profile("ps", "--profile", "nope").returncode == 6
    assert in_profile("ps", "--token-file", "nope").returncode == 3
    (stranger / "empty").touch()
    empty = in_profile("ps", "--token-file", "empty")
    assert (empty.returncode, b"the token file empty is empty" in empty.stderr) == (6, True)
    address = in_profile("ps", "--url", "gopher://x")
    assert (address.returncode, b"the address behind --url is not the URL" in address.stderr) == (6, True)


def test_an_error_names_the_flag_that_was_given(in_profile: Callable[..., Done]) -> None:
    away = in_profile("ps", "--url=http://127.0.0.1:1")
    assert (away.returncode, b"at http://127.0.0.1:1 (from --url): Connection refused" in away.stderr) == (4, True)
    assert b"Missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish\n" in in_profile("completion").stderr
