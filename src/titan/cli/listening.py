"""Where `titan up` listens: what --listen may say, under which names it is reached, and what is refused."""

import contextlib
import errno
import ipaddress
import re
import socket
from pathlib import Path
from typing import NamedTuple

from titan.cli.options import NO_TLS
from titan_sdk.discovery import DEFAULT_HOST, DEFAULT_PORT
from titan_sdk.errors import Conflict, Invalid

HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(\.(?!-)[a-z0-9-]{1,63})*")
NAME_CHARS_MAX = 253
FIB = Path("/proc/net/fib_trie")
INET6 = Path("/proc/net/if_inet6")


class Place(NamedTuple):
    """An address to listen on, its port, and the names (also addresses) under which it is reached, best first."""

    host: str
    port: int
    names: tuple[str, ...]
    tls: bool

    @property
    def url(self) -> str:
        """Where clients of this machine find it."""
        return self._url({"0.0.0.0": DEFAULT_HOST, "::": "::1"}.get(self.host, self.host))  # noqa: S104 - as a word

    @property
    def url_elsewhere(self) -> str:
        """Where other machines find it, as far as that is known here."""
        return self._url(self.names[0])

    @property
    def is_public(self) -> bool:
        """Whether others than this machine may knock."""
        return not ipaddress.ip_address(self.host).is_loopback

    def bound(self) -> "Place":
        """Return it with a port that was free a moment ago. Raises Conflict or Invalid saying what to do."""
        return self._replace(port=_free_port(self.host, self.port))

    @property
    def host_names(self) -> tuple[str, ...]:
        """Those of its names that are no addresses."""
        return tuple(name for name in self.names if _address(name) is None)

    def _url(self, host: str) -> str:
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.tls else 'http'}://{shown}:{self.port}"


def place_of(listen: str, port: int | None, more_names: tuple[str, ...], *, tls: bool, insecure: bool) -> Place:
    """Return where `--listen ADDR[:PORT]` means. Raises Invalid, also where others could listen in."""
    host, port = _host_and_port(listen, port)
    address = ipaddress.ip_address(host)
    if not (address.is_loopback or tls or insecure):
        raise Invalid(
            f"--listen {listen} is open to the network, and without TLS everybody on it could read the tokens",
            hint=f"titan up --listen {listen} --tls; or leave --listen out and come through a tunnel: "
            f"ssh -L 9090:127.0.0.1:9090 HOST; {NO_TLS} is for a network that nobody else is on",
        )
    names = (*(checked_name(name) for name in more_names), *_names_of(address))
    return Place(host, port, tuple(dict.fromkeys(names)), tls)


def checked_name(name: str) -> str:
    """Return a host name or address in lower case. Raises Invalid."""
    text = name.lower().removeprefix("[").removesuffix("]")
    if _address(text) is None and (len(text) > NAME_CHARS_MAX or not HOST_NAME.fullmatch(text)):
        raise Invalid(f"{name[:80]!a} is no host name and no address", hint="give a name like titan.example.org")
    return text


def _host_and_port(listen: str, port: int | None) -> tuple[str, int]:
    host, colon, given = listen.rpartition(":")
    if not colon or _address(listen) is not None or listen.endswith("]"):
        host, given = listen, ""
    elif not (given.isascii() and given.isdigit() and int(given) < 65536):
        raise Invalid(f"--listen {listen!r} has no port behind its colon", hint="for example --listen 0.0.0.0:9090")
    if given and port is not None and int(given) != port:
        raise Invalid(f"--listen {listen} and --port {port} name two ports", hint="give one of them")
    host = host.removeprefix("[").removesuffix("]")
    host = DEFAULT_HOST if host == "localhost" else host
    if _address(host) is None:
        raise Invalid(
            f"--listen {listen!r} is not an address",
            hint="give an IP address, for example --listen 127.0.0.1; --tls-name takes names",
        )
    return host, int(given) if given else DEFAULT_PORT if port is None else port


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _names_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[str]:
    """Return the names of what listens at `address`, those that others can use first."""
    if not address.is_unspecified:
        return [str(address), *(["localhost"] if address.is_loopback else [])]
    families = (4,) if address.version == 4 else (4, 6)
    own = [found for found in _own_addresses() if found.version in families]
    near = [DEFAULT_HOST, *(["::1"] if address.version == 6 else []), "localhost"]
    host = socket.gethostname().lower()
    return [*map(str, own), *([host] if HOST_NAME.fullmatch(host) else []), *near]


def _own_addresses() -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return this machine's addresses that others may reach, those of IPv4 first, as the kernel lists them."""
    found: dict[ipaddress.IPv4Address | ipaddress.IPv6Address, None] = {}
    with contextlib.suppress(OSError):
        for text in re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", FIB.read_text()):
            found[ipaddress.ip_address(text)] = None
    with contextlib.suppress(OSError):
        for line in INET6.read_text().splitlines():
            found[ipaddress.ip_address(bytes.fromhex(line[:32]))] = None
    return [address for address in found if not (address.is_loopback or address.is_link_local)]


def _free_port(host: str, port: int) -> int:
    try:
        return _bound_port(host, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise Invalid(
                f"cannot listen on {host} port {port}: {error.strerror}",
                hint="choose another address or a port above 1023, for example titan up --port 9091",
            ) from None
        raise Conflict(
            f"port {port} on {host} is taken by another program",
            hint=f"titan up --port {port + 1 if port < 65535 else 9091}, or stop what listens there"
            f" (ss -ltnp 'sport = :{port}' names it)",
        ) from None


def _bound_port(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)
        bound: int = probe.getsockname()[1]
        return bound
