"""Where the Master is, which token to show it, and whom to trust behind an https address.

Address: what the caller names, `TITAN_URL` (a list allowed), `TITAN_HOST` and `TITAN_PORT`, the home's
`endpoint.json`, and last `http://127.0.0.1:9090`. Token: the caller's, `TITAN_TOKEN`, the home's token file.
The home's token opens everything, so it goes to this machine's own loopback addresses and to the very URL that
is recorded in the home, and nowhere else: a script that is given a foreign address must bring its own token.
Whom to trust: the caller's `ca=`, `TITAN_CA`, and for these same addresses the home's record; a file of certificates,
or a fingerprint (`titan_sdk.trust`). Otherwise the system's authorities.
"""

from __future__ import annotations

import os

from titan_sdk.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 9090
PORTS = {"http": 80, "https": 443}
READ = (
    "TITAN_URL", "TITAN_HOST", "TITAN_PORT", "TITAN_TOKEN", "TITAN_CA", "TITAN_HOME", "XDG_STATE_HOME", "HOME",
)  # fmt: skip
HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_:%")


class Endpoint:
    """One address of a Master with the token for it ("" when there is none); `origin` says who named it.

    `ca` is whom to trust there: a file, a fingerprint, or "" for the system's authorities.
    """

    __slots__ = ("ca", "host", "origin", "port", "scheme", "token")

    def __init__(self, scheme: str, host: str, port: int, origin: str, token: str = "", ca: str = "") -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.origin = origin
        self.token = token
        self.ca = ca

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL and in a Host header, for example ``[::1]:9090``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address as a URL without a path, for example ``http://127.0.0.1:9090``."""
        return f"{self.scheme}://{self.authority}"

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine by its own loopback address, written out in full."""
        if self.host in ("localhost", "::1"):
            return True
        parts = self.host.split(".")
        return len(parts) == 4 and parts[0] == "127" and all(part.isdecimal() and part.isascii() for part in parts)


class Finder:
    """Finds the endpoints anew each time it is asked, so that a Master started or moved later is found.

    Only the arguments and the environment are fixed when it is made. Example::

        Finder(environ=os.environ).endpoints()[0].url
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        token: str | None = None,
        url: str | None = None,
        environ: Mapping[str, str] | None = None,
        ca: str | None = None,
    ) -> None:
        environ = os.environ if environ is None else environ
        self._url, self._host, self._port, self._token, self._ca = url, host, port, token, ca
        self._environ = {name: environ[name] for name in READ if environ.get(name)}

    def endpoints(self) -> list[Endpoint]:
        """Return where to look, best first, never empty. Raises Invalid when an address or token is malformed."""
        found = self._addresses()
        recorded = self._recorded()
        for endpoint in found:
            endpoint.token = self._token_for(endpoint, recorded)
            if endpoint.scheme == "https":
                endpoint.ca = self._ca_for(endpoint, recorded)
        return found

    def _addresses(self) -> list[Endpoint]:
        environ = self._environ
        if self._url:
            return _parse_list(self._url, "url=")
        if self._host or self._port:
            return [_parse(_joined(self._host, self._port), "host= and port=")]
        if "TITAN_URL" in environ:
            return _parse_list(environ["TITAN_URL"], "TITAN_URL")
        if "TITAN_HOST" in environ or "TITAN_PORT" in environ:
            text = _joined(environ.get("TITAN_HOST"), environ.get("TITAN_PORT"))
            return [_parse(text, "TITAN_HOST and TITAN_PORT")]
        recorded = self._recorded()
        return [recorded or Endpoint("http", DEFAULT_HOST, DEFAULT_PORT, "the default")]

    def _recorded(self) -> Endpoint | None:
        import json

        path = os.path.join(home_folder(self._environ), "endpoint.json")
        try:
            with open(path, encoding="utf-8") as file:
                record = json.load(file)
                endpoint = _parse(record["url"], path)
                endpoint.ca = str(record.get("ca") or "")
                return endpoint
        except (OSError, ValueError, KeyError, TypeError, AttributeError, Invalid):
            return None

    def _token_for(self, endpoint: Endpoint, recorded: Endpoint | None) -> str:
        token, origin = self._token, "token="
        if not token:
            token, origin = self._environ.get("TITAN_TOKEN"), "TITAN_TOKEN"
        if not token and _is_own(endpoint, recorded):
            origin = os.path.join(home_folder(self._environ), "token")
            try:
                with open(origin, encoding="utf-8") as file:
                    token = file.read(4096).strip()
            except (OSError, ValueError):
                token = None
        if token and not (token.isascii() and token.isprintable() and " " not in token):
            raise Invalid(f"the token from {origin} has characters no token has", hint="copy it again, without spaces")
        return token or ""

    def _ca_for(self, endpoint: Endpoint, recorded: Endpoint | None) -> str:
        own = recorded.ca if recorded is not None and _is_own(endpoint, recorded) else ""
        return self._ca or self._environ.get("TITAN_CA") or own


def _is_own(endpoint: Endpoint, recorded: Endpoint | None) -> bool:
    return endpoint.is_loopback or (recorded is not None and endpoint.url == recorded.url)


def home_folder(environ: Mapping[str, str]) -> str:
    """Return Titan's home: `TITAN_HOME`, else `$XDG_STATE_HOME/titan`, else `~/.local/state/titan`."""
    if environ.get("TITAN_HOME"):
        return os.path.abspath(environ["TITAN_HOME"])
    state = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "titan")


def _joined(host: str | None, port: int | str | None) -> str:
    host = host or DEFAULT_HOST
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"http://{host}:{port or DEFAULT_PORT}"


def _parse_list(text: str, origin: str) -> list[Endpoint]:
    found = [_parse(part, origin) for part in text.replace(",", " ").split()]
    if not found:
        raise Invalid(f"{origin} is empty", hint=f"give a URL such as http://{DEFAULT_HOST}:{DEFAULT_PORT}")
    return found


def _parse(text: str, origin: str) -> Endpoint:
    scheme, found, rest = text.partition("://")
    scheme, rest = (scheme.lower(), rest) if found else ("http", text)
    host, port = _split_port(rest.removesuffix("/"))
    if scheme not in PORTS or not host or not set(host.lower()) <= HOST_CHARACTERS or not 0 <= port < 65536:
        # The text is not repeated: whoever put a password into it should not find it in a log.
        raise Invalid(
            f"the address from {origin} is not the URL of a Master",
            hint=f"give a scheme, host and port, such as http://{DEFAULT_HOST}:{DEFAULT_PORT}",
        )
    return Endpoint(scheme, host.lower(), port or (PORTS[scheme] if found else DEFAULT_PORT), origin)


def _split_port(text: str) -> tuple[str, int]:
    """Return host and port of `host`, `host:port` or `[v6]:port`; port 0 where none is given, -1 where it is wrong."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        if ":" not in host or (port and not port.startswith(":")):
            return "", -1
        port = port[1:]
    else:
        host, _, port = text.partition(":")
    if not port:
        return host, 0
    return host, int(port) if port.isdecimal() and port.isascii() and len(port) < 6 and port != "0" else -1
