"""Where a request says it comes from, judged before anything else: one function for HTTP and WebSockets.

A page in a browser may reach loopback and the local network under a name of its own, so the Host must be a name
of ours. It may send requests wherever it likes, so an Origin must be ours too, and Sec-Fetch-Site must not speak of
another site; programs send neither. None of this replaces the token: it keeps out those who make a browser that
has one speak for them.
"""

import ipaddress
from collections.abc import Collection, Iterable

from titan.master.problems import HttpError

_LOOKED_AT = frozenset({b"host", b"origin", b"sec-fetch-site", b"authorization"})
_OUR_SITE = (b"same-origin", b"none")
_KNOWN_MAX = 1_000
_HOST_HINT = "use localhost, an address, or the name given to titan up --listen"
_PAGE_HINT = "no page but this Master's own may use it; leave Origin and Sec-Fetch-Site out of a program's requests"


class Origins:
    """The names this Master answers to: localhost, any address literal, and those it was given."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = {"localhost", *(name.lower() for name in names)}
        self._known: set[bytes] = set()

    def judge(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the Authorization header, b"" for none or several. Raises HttpError for a foreign host or page."""
        found: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in _LOOKED_AT:
                found[name] = b"" if name in found else value  # two of them are as good as a wrong one
        host = found.get(b"host", b"")
        if host not in self._known and not self._knows(host):
            raise HttpError(421, "this Master does not answer to that host name", code="denied", hint=_HOST_HINT)
        if (b"origin" in found or b"sec-fetch-site" in found) and not _of_our_page(found, host):
            raise HttpError(403, "the request comes from a page of another site", code="denied", hint=_PAGE_HINT)
        return found.get(b"authorization", b"")

    def _knows(self, host: bytes) -> bool:
        """Say whether a Host header is one of ours, whatever its port."""
        name, colon, port = host.decode("latin-1").lower().rpartition(":")
        if not colon or port.endswith("]"):
            name, port = name + colon + port, "0"
        known = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 65_536 and self._is_ours(name)
        if known and len(self._known) < _KNOWN_MAX:
            self._known.add(host)
        return known

    def _is_ours(self, name: str) -> bool:
        if name in self._names:
            return True
        try:
            if name.startswith("["):
                return name.endswith("]") and "%" not in name and bool(ipaddress.IPv6Address(name[1:-1]))
            return bool(ipaddress.IPv4Address(name))
        except ValueError:
            return False


def _of_our_page(found: dict[bytes, bytes], host: bytes) -> bool:
    origin, site = found.get(b"origin"), found.get(b"sec-fetch-site")
    ours = origin is None or origin.lower() in (b"http://" + host.lower(), b"https://" + host.lower())
    return ours and (site is None or site in _OUR_SITE)
