"""Where a client looks, and above all: to whom it shows the home's token."""

import json
from pathlib import Path

import pytest

from tests.sdk.conftest import Connect
from tests.sdk.double import Double, answer, refusal
from titan_sdk import Invalid, TitanClient, Unavailable
from titan_sdk.discovery import Finder, home_folder

TOKEN = "h" * 64


def finder(
    home: Path,
    host: str | None = None,
    port: int | None = None,
    token: str | None = None,
    url: str | None = None,
    **environ: str,
) -> Finder:
    return Finder(host, port, token, url, {"TITAN_HOME": str(home), **environ})


def urls(found: Finder) -> list[str]:
    return [endpoint.url for endpoint in found.endpoints()]


def tokens(found: Finder) -> list[str]:
    return [endpoint.token for endpoint in found.endpoints()]


def record(home: Path, url: str = "http://127.0.0.1:7777") -> None:
    (home / "endpoint.json").write_text(json.dumps({"url": url, "pid": 1, "version": "1"}))
    (home / "token").write_text(TOKEN + "\n")


def test_the_address_nearest_to_the_caller_wins(home: Path) -> None:
    record(home)
    assert urls(finder(home, url="http://a:1", TITAN_URL="http://u:2", TITAN_HOST="h")) == ["http://a:1"]
    assert urls(finder(home, "a", 1, TITAN_URL="http://u:2", TITAN_HOST="h")) == ["http://a:1"]
    assert urls(finder(home, TITAN_URL="http://u:2", TITAN_HOST="h")) == ["http://u:2"]
    assert urls(finder(home, TITAN_HOST="h", TITAN_PORT="3")) == ["http://h:3"]
    assert urls(finder(home)) == ["http://127.0.0.1:7777"]
    (home / "endpoint.json").unlink()
    assert urls(finder(home)) == ["http://127.0.0.1:9090"]


def test_half_an_address_is_completed(home: Path) -> None:
    assert urls(finder(home, "box")) == ["http://box:9090"]
    assert urls(finder(home, None, 81)) == ["http://127.0.0.1:81"]
    assert urls(finder(home, "::1", 81)) == ["http://[::1]:81"]
    assert urls(finder(home, TITAN_HOST="box")) == ["http://box:9090"]
    assert urls(finder(home, TITAN_PORT="81")) == ["http://127.0.0.1:81"]
    assert urls(finder(home, TITAN_URL="box:81")) == ["http://box:81"]
    assert urls(finder(home, TITAN_URL="box")) == ["http://box:9090"]
    assert urls(finder(home, TITAN_URL="https://box")) == ["https://box:443"]
    assert urls(finder(home, TITAN_URL="http://box/")) == ["http://box:80"]
    assert urls(finder(home, TITAN_URL="http://a:1, http://b:2 http://c:3")) == [
        "http://a:1", "http://b:2", "http://c:3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a",
        "http://",
        "http://a:b",
        "http://a:99999",
        "http://u:secret@a",
        "http://a/p",
        "http://a?x=1",
        "http://[a",
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(home: Path, url: str) -> None:
    with pytest.raises(Invalid, match="the address from TITAN_URL is not the URL of a Master") as caught:
        finder(home, TITAN_URL=url).endpoints()
    assert "secret" not in str(caught.value)


def test_an_empty_url_list_is_refused(home: Path) -> None:
    with pytest.raises(Invalid, match="url= is empty"):
        finder(home, None, None, None, " , ").endpoints()


def test_url_and_host_together_are_refused() -> None:
    with pytest.raises(Invalid, match="both given"):
        TitanClient(url="http://a:1", host="b")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 7}', '{"pid": 1}', '{"url": "ftp://x"}'])
def test_a_damaged_endpoint_file_is_passed_over(home: Path, text: str) -> None:
    (home / "endpoint.json").write_text(text)
    assert urls(finder(home)) == ["http://127.0.0.1:9090"]


def test_the_token_nearest_to_the_caller_wins(home: Path) -> None:
    record(home)
    assert tokens(finder(home, None, None, "mine", TITAN_TOKEN="theirs")) == ["mine"]
    assert tokens(finder(home, TITAN_TOKEN="theirs")) == ["theirs"]
    assert tokens(finder(home)) == [TOKEN]
    (home / "token").unlink()
    assert tokens(finder(home)) == [""]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_the_home_token_goes_to_loopback(home: Path, host: str) -> None:
    record(home)
    assert tokens(finder(home, host)) == [TOKEN]


@pytest.mark.parametrize(
    "host",
    ["10.0.0.1", "example.org", "127.0.0.1.example.org", "127.evil.org", "127.0.0.1.2", "127.0.0", "localhost.evil.org",
     "0.0.0.0", "::2", "127.0.0.x"],
)  # fmt: skip
def test_the_home_token_goes_nowhere_else(home: Path, host: str) -> None:
    record(home)
    assert tokens(finder(home, host)) == [""]
    assert tokens(finder(home, host, None, "mine")) == ["mine"]


def test_the_home_token_goes_to_the_very_url_that_is_recorded(home: Path) -> None:
    record(home, "https://box.lan:9090")
    assert tokens(finder(home)) == [TOKEN]
    for url, expected in {
        "https://box.lan:9090": TOKEN,
        "https://BOX.lan:9090/": TOKEN,
        "http://box.lan:9090": "",
        "https://box.lan:9091": "",
        "https://evil.lan:9090": "",
    }.items():
        assert tokens(finder(home, TITAN_URL=url)) == [expected], url


def test_in_a_list_each_url_is_judged_by_itself(home: Path) -> None:
    record(home)
    assert tokens(finder(home, TITAN_URL="http://evil:1,http://127.0.0.1:2")) == ["", TOKEN]


def test_what_is_sent_is_what_was_found(home: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    record(home)
    with Double(answer()) as master:
        connect(url=master.url).stats()
        assert master.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
        # The same socket under a name that is not loopback: nothing may be shown.
        monkeypatch.setattr("titan_sdk.discovery.Endpoint.is_loopback", False)
        connect(url=master.url).stats()
        assert "authorization" not in master.requests[1].headers


def test_a_token_for_one_url_of_a_list_is_not_shown_to_the_next(
    home: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Double(refusal(Unavailable("standby"))) as mine, Double(answer()) as foreign:
        record(home)
        monkeypatch.setattr("titan_sdk.discovery.Endpoint.is_loopback", property(lambda self: self.port == mine.port))
        connect(url=f"{mine.url},{foreign.url}").stats()
        assert mine.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
        assert "authorization" not in foreign.requests[0].headers


def test_a_master_that_moved_is_found_again(home: Path, connect: Connect) -> None:
    with Double(answer()) as first, Double(answer()) as second:
        record(home, first.url)
        client = connect()
        client.stats()
        record(home, second.url)
        first.hang_up()
        client.stats()
        assert (len(first.requests), len(second.requests)) == (1, 1)
        assert client.url == second.url


@pytest.mark.parametrize("token", ["a b", "a\nb", "ä", "a\r\nX-Evil: 1"])
def test_a_token_that_could_forge_a_header_is_refused(home: Path, token: str) -> None:
    with pytest.raises(Invalid, match="token= has characters") as caught:
        finder(home, None, None, token).endpoints()
    assert token not in str(caught.value)


def test_the_home_is_where_the_environment_says() -> None:
    assert home_folder({"TITAN_HOME": "/t", "XDG_STATE_HOME": "/x", "HOME": "/h"}) == "/t"
    assert home_folder({"XDG_STATE_HOME": "/x", "HOME": "/h"}) == "/x/titan"
    assert home_folder({"XDG_STATE_HOME": "relative", "HOME": "/h"}) == "/h/.local/state/titan"
    assert home_folder({"HOME": "/h"}) == "/h/.local/state/titan"
