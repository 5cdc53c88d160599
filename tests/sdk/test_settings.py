"""What files say of where the Master is: which stands over which, and what a stranger's checkout cannot do."""

from pathlib import Path

import pytest

from titan_sdk import Invalid
from titan_sdk.discovery import Endpoint, Finder

LAB, SHOP = "https://lab:9090", "http://shop:81"
PERSON = f"""
[profiles.lab]
url = "{LAB}"
token_file = "lab.token"
ca = "lab.pem"
[profiles.shop]
url = "{SHOP}"
token_file = "~/shop.token"
"""


@pytest.fixture
def person(tmp_path: Path) -> Path:
    """The person's folder of settings, with two profiles and no choice between them."""
    folder = tmp_path / "config" / "titan"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(PERSON)
    (folder / "lab.token").write_text("lab-token\n")
    (tmp_path / "shop.token").write_text("shop-token\n")
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def finder(
    folder: Path, url: str | None = None, *, files: bool = True, token: str | None = None, **environ: str
) -> Finder:
    home = {"HOME": str(folder), "TITAN_HOME": str(folder / "home"), "XDG_CONFIG_HOME": str(folder / "config")}
    return Finder(url=url, token=token, environ={**home, **environ}, files=files)


def found(folder: Path, url: str | None = None, **environ: str) -> Endpoint:
    [endpoint] = finder(folder, url, **environ).endpoints()
    return endpoint


def test_each_source_stands_over_the_next(tmp_path: Path, person: Path, project: Path) -> None:
    assert found(tmp_path).url == "http://127.0.0.1:9090"
    (person / "config.toml").write_text('profile = "lab"\n' + PERSON)
    assert (found(tmp_path).url, found(tmp_path).token) == (LAB, "lab-token")
    (project / "pyproject.toml").write_text('[tool.titan]\nurl = "http://pyproject:1"\n')
    assert found(tmp_path).url == "http://pyproject:1"
    (project / "titan.toml").write_text('url = "http://toml:1"\n')
    assert found(tmp_path).url == "http://toml:1"
    assert found(tmp_path, TITAN_PROFILE="shop").url == SHOP, "what a person chooses now stands over the project"
    assert found(tmp_path, TITAN_PROFILE="shop", TITAN_URL="http://environ:1").url == "http://environ:1"
    assert found(tmp_path, "http://said:1", TITAN_URL="http://environ:1").url == "http://said:1"


def test_a_project_chooses_among_the_profiles_of_the_person(tmp_path: Path, person: Path, project: Path) -> None:
    (project / "titan.toml").write_text('profile = "shop"\n')
    (person / "config.toml").write_text('profile = "lab"\n' + PERSON)
    endpoint = found(tmp_path)
    assert (endpoint.url, endpoint.token, endpoint.token_origin) == (SHOP, "shop-token", str(tmp_path / "shop.token"))
    assert finder(tmp_path).profile() == ("shop", str(project / "titan.toml"))
    assert finder(tmp_path, TITAN_PROFILE="lab").profile() == ("lab", "TITAN_PROFILE")
    assert found(tmp_path, TITAN_PROFILE="lab").ca == str(person / "lab.pem")


def test_a_checkout_gets_no_token(tmp_path: Path, person: Path, project: Path) -> None:
    (person / "config.toml").write_text('profile = "lab"\n' + PERSON)
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "token").write_text("home-token")
    (project / "titan.toml").write_text('url = "http://elsewhere:1"\n')
    endpoint = found(tmp_path, TITAN_TOKEN="environ-token")
    assert (endpoint.url, endpoint.token, endpoint.by_project) == ("http://elsewhere:1", "", True)
    (project / "titan.toml").write_text(f'url = "{LAB}"\nca = "theirs.pem"\n')
    assert found(tmp_path).token == "lab-token", "the person has trusted that address"
    assert found(tmp_path).ca == str(person / "lab.pem")
    assert found(tmp_path, TITAN_TOKEN="environ-token").token == "environ-token"
    (project / "titan.toml").write_text('url = "https://elsewhere:1"\nca = "theirs.pem"\n')
    assert found(tmp_path).ca == str(project / "theirs.pem"), "whom to trust there is the project's to say"


@pytest.mark.parametrize("environ", [{}, {"TITAN_TOKEN": "environ-token"}])
def test_a_checkout_leads_to_no_other_port_of_this_machine(
    tmp_path: Path, person: Path, project: Path, environ: dict[str, str]
) -> None:
    token = environ.get("TITAN_TOKEN", "home-token")
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "token").write_text("home-token")

    def shown(url: str) -> str:
        (project / "titan.toml").write_text(f'url = "{url}"\n')
        return found(tmp_path, **environ).token

    assert shown("http://localhost:9090") == token, "what is asked without the project too"
    assert shown("http://127.0.0.1:7") == "", "another user of this machine may listen there"
    (tmp_path / "home" / "endpoint.json").write_text('{"url": "http://127.0.0.1:7"}')
    assert (shown("http://127.0.0.1:7"), shown("http://localhost:7")) == (token, token)
    assert (shown("http://127.0.0.1:9090"), shown("https://127.0.0.1:7")) == ("", "")
    assert found(tmp_path, "http://127.0.0.1:9090").token == "home-token", "a person may name any"


def test_a_checkout_vouches_for_no_address_of_the_person(tmp_path: Path, person: Path, project: Path) -> None:
    own = "https://own:9090"
    (person / "config.toml").write_text('profile = "lab"\n' + PERSON.replace('ca = "lab.pem"\n', ""))
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "token").write_text("home-token")
    (tmp_path / "home" / "endpoint.json").write_text(f'{{"url": "{own}", "ca": "own.pem"}}')
    (project / "titan.toml").write_text(f'url = "{LAB} {own} https://elsewhere:1"\nca = "theirs.pem"\n')
    lab, home, elsewhere = finder(tmp_path).endpoints()
    assert (lab.token, lab.ca) == ("lab-token", "")
    assert (home.token, home.ca) == ("home-token", "own.pem")
    assert (elsewhere.token, elsewhere.ca) == ("", str(project / "theirs.pem"))


@pytest.mark.parametrize("host", ["127.0.0.256", "127.0.0.0001", "127.0.0.1.evil", "127.1"])
def test_a_name_that_looks_like_loopback_gets_no_token(tmp_path: Path, person: Path, project: Path, host: str) -> None:
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "token").write_text("home-token")
    assert found(tmp_path, f"http://{host}:9090").token == ""


def test_a_profile_s_token_goes_nowhere_else(tmp_path: Path, person: Path, project: Path) -> None:
    (person / "config.toml").write_text('profile = "lab"\n' + PERSON)
    assert found(tmp_path, "http://other:1").token == ""
    assert found(tmp_path, TITAN_URL="http://other:1").token == ""
    assert found(tmp_path, TITAN_URL=LAB).token == "lab-token"


def test_who_must_not_be_led_goes_by_no_file(tmp_path: Path, person: Path, project: Path) -> None:
    (project / "titan.toml").write_text('url = "http://elsewhere:1"\n')
    [endpoint] = finder(tmp_path, files=False).endpoints()
    assert endpoint.url == "http://127.0.0.1:9090"


def test_the_files_are_read_once_and_only_when_asked(tmp_path: Path, person: Path, project: Path) -> None:
    (project / "titan.toml").write_text("broken")
    assert found(tmp_path, "http://said:1", TITAN_TOKEN="t").url == "http://said:1"
    (project / "titan.toml").write_text('url = "http://toml:1"\n')
    one = finder(tmp_path)
    assert one.endpoints()[0].url == "http://toml:1"
    (project / "titan.toml").write_text('url = "http://later:1"\n')
    assert one.endpoints()[0].url == "http://toml:1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("url = 7", ["url is of type int", 'url = "..."']),
        ('ulr = "http://x"', ["'ulr' is no setting", "did you mean url?"]),
        ('token_file = "x"', ["'token_file' is no setting", "It may have url, ca, profile"]),
        ("url = ", ["is no TOML: Invalid value", "move the file away"]),
        ('url = "gopher://x"', ["is not the URL of a Master"]),
        ('profile = "nope"', ["has no profile 'nope': it has lab, shop"]),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(
    tmp_path: Path, person: Path, project: Path, text: str, words: list[str]
) -> None:
    (project / "titan.toml").write_text(text)
    with pytest.raises(Invalid) as caught:
        finder(tmp_path).endpoints()
    assert "titan.toml" in str(caught.value) or "config.toml" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('[profile.lab]\nurl = "x"', "profile is a name and profiles are tables"),
        ("profiles = 7", "profile is a name and profiles are tables"),
        ('[profiles]\nlab = "x"', "has no profile 'lab'"),
        ('[profiles.lab]\npassword = "x"', "'password' is no setting"),
        ("[tools]", "'tools' is no setting"),
        ("\x00", "is no TOML"),
    ],
)
def test_a_wrong_profile_is_named_too(tmp_path: Path, person: Path, project: Path, text: str, word: str) -> None:
    (person / "config.toml").write_text(text)
    with pytest.raises(Invalid, match=word):
        finder(tmp_path, TITAN_PROFILE="lab").endpoints()


def test_what_is_not_there_is_said(tmp_path: Path, person: Path, project: Path) -> None:
    (person / "lab.token").unlink()
    with pytest.raises(Invalid, match=r"the token file .*lab.token cannot be read: No such file"):
        found(tmp_path, TITAN_PROFILE="lab")
    (person / "config.toml").unlink()
    with pytest.raises(Invalid, match=r"there is no profile 'lab': .* does not exist"):
        found(tmp_path, TITAN_PROFILE="lab")
    (person / "config.toml").mkdir()
    with pytest.raises(Invalid, match="cannot be read: Is a directory"):
        found(tmp_path)


def test_a_pyproject_of_others_says_nothing(tmp_path: Path, person: Path, project: Path) -> None:
    for text in ("[tool.ruff]\n", "[tool]\ntitanic = 1\n", "not toml at all"):
        (project / "pyproject.toml").write_text(text)
        assert found(tmp_path).url == "http://127.0.0.1:9090"
    (project / "pyproject.toml").write_text("[tool]\ntitan = 7\n")
    with pytest.raises(Invalid, match=r"\[tool.titan\] in .* is no table"):
        found(tmp_path)


@pytest.mark.parametrize("tool", ['tool = "tool.titan"', "tool = [1]  # [tool]", "tool = 5  # tool.titan"])
def test_a_project_file_whose_tool_is_no_table_is_told(tmp_path: Path, person: Path, project: Path, tool: str) -> None:
    (project / "pyproject.toml").write_text(tool + "\n")
    with pytest.raises(Invalid, match=r"pyproject.toml: tool is no table"):
        found(tmp_path)


def test_a_token_given_by_the_caller_goes_to_no_address_that_only_a_project_names(
    tmp_path: Path, person: Path, project: Path
) -> None:
    (person / "config.toml").write_text('profile = "lab"\n' + PERSON)
    (project / "titan.toml").write_text(f'url = "{LAB} http://elsewhere:1"\n')
    with pytest.raises(Invalid, match=r"not sent to http://elsewhere:1, which only .*titan.toml names") as caught:
        finder(tmp_path, token="mine").endpoints()
    assert "give url=" in caught.value.hint
    assert "mine" not in str(caught.value)
    named = finder(tmp_path, token="mine", url="http://elsewhere:1").endpoints()
    assert [endpoint.token for endpoint in named] == ["mine"]
    (project / "titan.toml").write_text('url = "http://localhost:9090"\n')
    assert [endpoint.token for endpoint in finder(tmp_path, token="mine").endpoints()] == ["mine"]
    (project / "titan.toml").write_text(f'url = "{LAB}"\n')
    assert [endpoint.token for endpoint in finder(tmp_path, token="mine").endpoints()] == ["mine"]
