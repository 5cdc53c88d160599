"""Where a request says it comes from: only our own names, and no page but ours, over HTTP and WebSockets."""

import pytest

from tests.api.master import TOKEN, Master
from tests.security.walk import LINK, UPGRADE, ask, send

FOREIGN = [
    "evil.example", "localhost.evil.com", "evil.com.localhost", "localhost.", "localhost..", ".localhost", "xlocalhost",
    "localhostx", "titan.test.", "titan.test.evil.com", "titan.testx", "*", "", " ", ".", ":", ":9090", "localhost:",
    "localhost:90x", "localhost:99999", "localhost:65536", "localhost:-1", "localhost:+1", "localhost:0x50",
    "localhost:80:80", "localhost:80@evil.com", "user@localhost", "localhost@evil.com", "evil.com#localhost",
    "evil.com/localhost", "http://localhost", "localhost,evil.com", "localhost evil.com", "127.0.0.1.evil.com",
    "127.0.0.1.nip.io", "127.1", "127.0.1", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.01",
    "127.0.0.1.", "256.0.0.1", "1.2.3.4.5", "::1", "[::1", "::1]", "[]", "[::1]x", "[::1]:", "[::1]evil.com",
    "[::1].evil.com", "[evil.com]", "[localhost]", "[127.0.0.1]", "[::1%evil.com]", "[fe80::1%25eth0]", "[v1.x]",
    "localhost\u00a0", "l\u00f6calhost", "localhost%00", "localhost\t.evil.com", "x" * 5000,
]  # fmt: skip
OURS = [
    "localhost",
    "LOCALHOST:9090",
    "localhost:0",
    "127.0.0.1",
    "10.0.0.7:1",
    "[::1]",
    "[::1]:65535",
    "Titan.Test:80",
]
PAGES = [
    ("Origin: http://evil.example",), ("Origin: null",), ("Origin: ",), ("Origin: http://localhost.evil.com",),
    ("Origin: http://localhost:3000",), ("Origin: http://127.0.0.1",), ("Origin: localhost",), ("Origin: *",),
    ("Origin: ftp://localhost",), ("Origin: http://localhost/",), ("Origin: http://localhost, http://evil.example",),
    ("Origin: http://user@localhost",), ("Origin: http://localhost", "Origin: http://localhost"),
    ("Sec-Fetch-Site: cross-site",), ("Sec-Fetch-Site: same-site",), ("Sec-Fetch-Site: ",), ("Sec-Fetch-Site: x",),
    ("Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"), ("Origin: http://localhost", "Sec-Fetch-Site: cross-site"),
    ("Origin: http://evil.example", "Sec-Fetch-Site: same-origin"),
]  # fmt: skip
OWN_PAGES = [
    ("Origin: http://localhost",), ("Origin: HTTP://LOCALHOST",), ("Origin: https://localhost",),
    ("Sec-Fetch-Site: same-origin",), ("Sec-Fetch-Site: none",),
    ("Origin: http://localhost", "Sec-Fetch-Site: same-origin"),
]  # fmt: skip


def at_host(master: Master, *hosts: str, path: str = "/api/v1/runs", more: tuple[str, ...] = ()) -> int:
    lines = [f"GET {path} HTTP/1.1", *(f"Host: {host}" for host in hosts), f"Authorization: Bearer {TOKEN}", *more]
    return send(master, *lines).status


@pytest.mark.parametrize("host", FOREIGN, ids=lambda host: ascii(host)[:24])
def test_s5_a_host_that_is_not_ours_is_refused(master: Master, host: str) -> None:
    assert at_host(master, host) == 421
    assert at_host(master, host, path="/api/v1/healthz") == 421
    assert at_host(master, host, path=LINK, more=UPGRADE) == 421


@pytest.mark.parametrize("hosts", [(), ("localhost", "localhost"), ("localhost", "evil.example"), ("", "localhost")])
def test_s5_no_host_and_two_hosts_are_refused(master: Master, hosts: tuple[str, ...]) -> None:
    assert at_host(master, *hosts) in (400, 421)
    assert at_host(master, *hosts, path=LINK, more=UPGRADE) in (400, 421)
    old = [line for host in hosts for line in (f"Host: {host}",)]
    assert send(master, "GET /api/v1/runs HTTP/1.0", *old, f"Authorization: Bearer {TOKEN}").status in (400, 421)


@pytest.mark.parametrize("host", OURS)
def test_s5_our_names_are_known_over_both(master: Master, host: str) -> None:
    assert at_host(master, host) == 200
    assert at_host(master, host, path=LINK, more=UPGRADE) == 101


@pytest.mark.parametrize("lines", PAGES, ids=str)
def test_s6_a_page_that_is_not_ours_is_refused_whatever_it_has(master: Master, lines: tuple[str, ...]) -> None:
    for token in (TOKEN, None):
        refused = ask(master, "GET", "/api/v1/runs", token, *lines)
        assert (refused.status, refused.code) == (403, "denied")
        assert ask(master, "GET", "/api/v1/healthz", token, *lines).status == 403
        assert ask(master, "POST", "/api/v1/store/get", token, *lines, body=b"{}").status == 403
        # Two of Origin end with 400 before there is a request.
        assert ask(master, "GET", LINK, token, *UPGRADE, *lines).status in (400, 403)


@pytest.mark.parametrize("lines", OWN_PAGES, ids=str)
def test_s6_our_own_page_passes_and_still_needs_a_token(master: Master, lines: tuple[str, ...]) -> None:
    assert ask(master, "GET", "/api/v1/runs", TOKEN, *lines).status == 200
    assert ask(master, "GET", "/api/v1/runs", None, *lines).status == 401
    assert ask(master, "GET", LINK, TOKEN, *UPGRADE, *lines).status == 101
