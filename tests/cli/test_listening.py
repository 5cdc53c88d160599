"""Where titan up listens, under which names, and what it refuses."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from titan.cli.listening import Place, checked_name, place_of
from titan_sdk.errors import Conflict, Invalid


def place(listen: str, port: int | None = None, *names: str, tls: bool = True) -> Place:
    return place_of(listen, port, names, tls=tls, insecure=False)


@pytest.mark.parametrize("listen", ["0.0.0.0", "::", "[::]:9443", "10.0.0.1:80", "192.0.2.1", "0.0.0.0:0"])
def test_s1_a_public_address_without_tls_is_refused_with_the_way_out(listen: str) -> None:
    with pytest.raises(Invalid, match="open to the network") as refused:
        place(listen, tls=False)
    assert f"titan up --listen {listen} --tls" in refused.value.hint
    assert "--insecure-no-tls" in refused.value.hint
    assert place_of(listen, None, (), tls=False, insecure=True).is_public
    assert place(listen).is_public


@pytest.mark.parametrize("flags", [["--listen", "0.0.0.0"], ["--listen", "0.0.0.0:0"], ["--listen", "::"]])
def test_s1_titan_up_leaves_with_6_and_has_touched_nothing(tmp_path: Path, flags: list[str]) -> None:
    titan = Path(sys.executable).with_name("titan")
    done = subprocess.run(
        [titan, "up", *flags], env={**os.environ, "TITAN_HOME": str(tmp_path / "home")}, capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 6
    assert b"Next: titan up --listen" in done.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("listen", ["127.0.0.1", "127.9.9.9", "::1", "[::1]:9443", "localhost", "localhost:9443"])
def test_loopback_needs_no_tls(listen: str) -> None:
    assert not place(listen, tls=False).is_public


def test_the_port_may_stand_behind_the_address() -> None:
    assert place("10.0.0.1:9443").port == place("10.0.0.1", 9443).port == place("10.0.0.1:9443", 9443).port == 9443
    assert place("10.0.0.1").port == 9090
    assert place("[2001:db8::1]:9443").url == "https://[2001:db8::1]:9443"
    assert place("2001:db8::1").host == place("[2001:db8::1]").host == "2001:db8::1"
    with pytest.raises(Invalid, match="two ports"):
        place("10.0.0.1:9443", 9090)


@pytest.mark.parametrize(
    "listen", ["", ":9090", "example.org", "10.0.0.1:", "10.0.0.1:http", "10.0.0.1:65536", "1.2.3"]
)
def test_what_is_no_address_is_refused_with_an_example(listen: str) -> None:
    with pytest.raises(Invalid) as refused:
        place(listen)
    assert "for example" in refused.value.hint


def test_what_listens_everywhere_is_found_here_by_loopback_and_elsewhere_by_its_name() -> None:
    everywhere = place("0.0.0.0:9443", None, "Titan.Example.org")
    assert everywhere.url == "https://127.0.0.1:9443"
    assert everywhere.url_elsewhere == "https://titan.example.org:9443"
    assert {"titan.example.org", "127.0.0.1", "localhost"} <= set(everywhere.names)
    assert "titan.example.org" in everywhere.host_names
    assert "127.0.0.1" not in everywhere.host_names
    assert place("10.0.0.1").names == ("10.0.0.1",)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a..b", "a_b", "http://a", "a" * 64, "x." * 130 + "x", "a\n", "ä"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="no host name"):
        checked_name(name)


def test_a_taken_port_is_told_with_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=f"port {port} on 127.0.0.1 is taken") as refused:
            place("127.0.0.1", port).bound()
        assert f"titan up --port {port + 1}" in refused.value.hint
    assert place("127.0.0.1", 0).bound().port > 0
