"""Where the Master is, which token to show it, and whom to trust behind an https address.

Address: what the caller names, `TITAN_URL` (a list allowed), `TITAN_HOST` and `TITAN_PORT`, a profile that
`TITAN_PROFILE` names, the project's file, the person's profile (`titan_sdk.settings`), the home's `endpoint.json`,
and last `http://127.0.0.1:9090`. Token: the caller's, `TITAN_TOKEN`, the profile's, the home's token file.
The home's token opens everything, so it goes to this machine's own loopback addresses and to the very URL that
is recorded in the home, and nowhere else: a script that is given a foreign address must bring its own token. For the
same reason a profile's token goes to the profile's addresses alone, and neither `TITAN_TOKEN` nor the caller's to one
that only a project names, the latter with an error: who clones a repository has not yet trusted it with a token; the
caller that does names the address too. A project's loopback address counts as the home's
own only where it would be asked anyway, since another user may listen at any other port; and a project's `ca` vouches
for none of the person's own addresses, or whoever stands in between could be shown the token.
Whom to trust: the caller's `ca=`, `TITAN_CA`, and each source for the addresses it names; a file of certificates,
or a fingerprint (`titan_sdk.trust`). Otherwise the system's authorities.
"""

from __future__ import annotations

import os

from titan_sdk.errors import FileMissing, Invalid
from titan_sdk.settings import Settings, person_file, profile_settings, project_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 9090
PORTS = {"http": 80, "https": 443}
READ = (
    "TITAN_URL", "TITAN_HOST", "TITAN_PORT", "TITAN_TOKEN", "TITAN_CA", "TITAN_PROFILE", "TITAN_HOME",
    "XDG_STATE_HOME", "XDG_CONFIG_HOME", "HOME",
)  # fmt: skip
HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_:%")


class Endpoint:
    """One address of a Master with the token for it ("" when there is none); `origin` says who named it.

    `ca` is whom to trust there: a file, a fingerprint, or "" for the system's authorities. `token_origin` and
    `ca_origin` say where those are from. `by_project`: a project's file alone names it.
    """

    __slots__ = ("by_project", "ca", "ca_origin", "host", "origin", "port", "scheme", "token", "token_origin")

    def __init__(self, scheme: str, host: str, port: int, origin: str, token: str = "", ca: str = "") -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.origin = origin
        self.token = token
        self.token_origin = ""
        self.ca = ca
        self.ca_origin = ""
        self.by_project = False

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
        return len(parts) == 4 and parts[0] == "127" and all(_is_byte(part) for part in parts)


class Finder:
    """Finds the endpoints anew each time it is asked, so that a Master started or moved later is found.

    The arguments and the environment are fixed when it is made, the files of settings when it is asked first.
    `files`: false for who must not be led anywhere by the folder it stands in. Example::

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
        *,
        files: bool = True,
    ) -> None:
        environ = os.environ if environ is None else environ
        self._url, self._host, self._port, self._token, self._ca = url, host, port, token, ca
        self._environ = {name: environ[name] for name in READ if environ.get(name)}
        self._files: tuple[Settings, Settings] | None = None if files else (Settings(), Settings())

    def endpoints(self) -> list[Endpoint]:
        """Return where to look, best first, never empty. Raises Invalid when an address or token is malformed."""
        found = self._addresses()
        recorded = self._recorded()
        for endpoint in found:
            endpoint.token, endpoint.token_origin = self._token_for(endpoint, recorded)
            if endpoint.scheme == "https":
                endpoint.ca, endpoint.ca_origin = self._ca_for(endpoint, recorded)
        return found

    def profile(self) -> tuple[str, str]:
        """Return the name of the person's profile in force and who chose it; "" for none."""
        profile = self._settings()[1]
        return profile.profile, profile.chosen_by

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
        project, profile = self._settings()
        named_profile = "TITAN_PROFILE" in environ and profile.get("url")
        if project.get("url") and not named_profile:
            found = _parse_list(project.get("url"), project.origin)
            for endpoint in found:
                endpoint.by_project = True
            return found
        if profile.get("url"):
            return _parse_list(profile.get("url"), profile.origin)
        recorded = self._recorded()
        return [recorded or Endpoint("http", DEFAULT_HOST, DEFAULT_PORT, "the default")]

    def _settings(self) -> tuple[Settings, Settings]:
        """Return what the project and the chosen profile say, read once."""
        if self._files is None:
            project = project_settings(os.getcwd())
            named = self._environ.get("TITAN_PROFILE", "")
            profile = profile_settings(person_file(self._environ), named or project.get("profile"))
            if profile.profile and (named or project.get("profile")):
                profile.chosen_by = "TITAN_PROFILE" if named else project.origin
            self._files = project, profile
        return self._files

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

    def _token_for(self, endpoint: Endpoint, recorded: Endpoint | None) -> tuple[str, str]:
        """Return the token to show there and where it is from; "" when there is none."""
        is_own = _is_own(endpoint, recorded)
        is_strange = endpoint.by_project and not is_own and not self._is_of_profile(endpoint)
        if self._token and is_strange:
            raise Invalid(
                f"the token from token= is not sent to {endpoint.url}, which only {endpoint.origin} names",
                hint="give url= (or TITAN_URL) as well, if you trust that address with it",
            )
        if self._token:
            return _checked(self._token, "token=")
        from_environ = self._environ.get("TITAN_TOKEN")
        if from_environ and not is_strange:
            return _checked(from_environ, "TITAN_TOKEN")
        if self._is_of_profile(endpoint) and (path := self._settings()[1].get("token_file")):
            return _checked(first_bytes(path), path)
        if is_own:
            path = os.path.join(home_folder(self._environ), "token")
            try:
                return _checked(first_bytes(path), path)
            except FileMissing:
                return "", ""
        return "", ""

    def _is_of_profile(self, endpoint: Endpoint) -> bool:
        """Whether the person's own profile names this address."""
        url = self._settings()[1].get("url")
        return bool(url) and endpoint.url in {each.url for each in _parse_list(url, self._settings()[1].origin)}

    def _ca_for(self, endpoint: Endpoint, recorded: Endpoint | None) -> tuple[str, str]:
        if self._ca:
            return self._ca, "ca="
        if "TITAN_CA" in self._environ:
            return self._environ["TITAN_CA"], "TITAN_CA"
        project, profile = self._settings()
        if profile.get("ca") and self._is_of_profile(endpoint):
            return profile.get("ca"), profile.origin
        if recorded is not None and recorded.ca and _is_own(endpoint, recorded):
            return recorded.ca, recorded.origin
        is_strange = endpoint.by_project and not self._is_of_profile(endpoint) and not _is_own(endpoint, recorded)
        if is_strange and project.get("ca"):
            return project.get("ca"), project.origin
        return "", ""


def first_bytes(path: str) -> str:
    """Return the beginning of a token file. Raises FileMissing when it is not there, Invalid when it is not text."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(4096).strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise FileMissing(f"the token file {path} cannot be read: {why}", hint="name one that holds a token") from None


def _checked(token: str, origin: str) -> tuple[str, str]:
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise Invalid(f"the token from {origin} has characters no token has", hint="copy it again, without spaces")
    return token, origin if token else ""


def _is_own(endpoint: Endpoint, recorded: Endpoint | None) -> bool:
    if recorded is not None and endpoint.url == recorded.url:
        return True
    if not endpoint.by_project:
        return endpoint.is_loopback
    asked = recorded or Endpoint("http", DEFAULT_HOST, DEFAULT_PORT, "the default")
    return endpoint.is_loopback and asked.is_loopback and (endpoint.scheme, endpoint.port) == (asked.scheme, asked.port)


def _is_byte(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) <= 3 and int(text) <= 255


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
