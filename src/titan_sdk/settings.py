"""What files say about where the Master is: a project's own, and the person's profiles.

A project: `./titan.toml`, else `[tool.titan]` of `./pyproject.toml`, with `url`, `ca` and `profile`. A person:
`$XDG_CONFIG_HOME/titan/config.toml` (else `~/.config/titan/config.toml`), with `profile`, the name of the one to use,
and tables `[profiles.NAME]` with `url`, `ca` and `token_file`.

A project comes with a checkout, so it is a stranger's until proved otherwise: it may say where to look, never which
token to show there. The files are read once, when the first address is asked for.
"""

from __future__ import annotations

import os

from titan_sdk.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

PROJECT_KEYS = ("url", "ca", "profile")
PERSON_KEYS = ("profile", "profiles")
PROFILE_KEYS = ("url", "ca", "token_file")
PINNED = "sha256:"


class Settings:
    """One table of settings, all text, and `origin`, the file (and profile) it stands in; "" when there is none.

    `profile` is the name of the profile it is, and `chosen_by` who chose that.
    """

    __slots__ = ("chosen_by", "origin", "profile", "values")

    def __init__(self, origin: str = "", values: Mapping[str, str] | None = None) -> None:
        self.origin = origin
        self.values = dict(values or {})
        self.profile = ""
        self.chosen_by = ""

    def get(self, key: str) -> str:
        """Return the value, "" when it is not set."""
        return self.values.get(key, "")


def project_settings(folder: str) -> Settings:
    """Return what the project in `folder` says. Raises Invalid when its file cannot be understood."""
    path = os.path.join(folder, "titan.toml")
    found = _read(path)
    if found is not None:
        return _table(path, found, PROJECT_KEYS)
    path = os.path.join(folder, "pyproject.toml")
    found = _read(path, (b"tool.titan", b"[tool]"))
    tool = (found or {}).get("tool", {})
    if not isinstance(tool, dict):
        raise Invalid(f"{path}: tool is no table", hint='write [tool.titan], with url = "..." below it')
    table = tool.get("titan")
    return Settings() if table is None else _table(path, table, PROJECT_KEYS, "[tool.titan] in ")


def person_file(environ: Mapping[str, str]) -> str:
    """Return where a person's profiles are kept."""
    folder = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(folder):
        folder = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    return os.path.join(folder, "titan", "config.toml")


def profile_settings(path: str, name: str) -> Settings:
    """Return the profile `name` of a person's file, or with "" the one that the file names; empty for none.

    Raises Invalid when the file cannot be understood, or has no profile of that name.
    """
    found = _read(path)
    if found is None:
        if name:
            raise Invalid(f"there is no profile {name!a}: {path} does not exist", hint=f"write it: {_example(name)}")
        return Settings()
    _refuse_unknown(path, found, PERSON_KEYS)
    profiles, default = found.get("profiles", {}), found.get("profile", "")
    if not isinstance(profiles, dict) or not isinstance(default, str):
        raise Invalid(f"{path}: profile is a name and profiles are tables", hint=_example("lab"))
    chosen = name or default
    if not chosen:
        return Settings()
    if not isinstance(profiles.get(chosen), dict):
        known = f"it has {', '.join(sorted(profiles))}" if profiles else "it has none"
        raise Invalid(f"{path} has no profile {chosen!a}: {known}", hint=_example(chosen))
    settings = _table(path, profiles[chosen], PROFILE_KEYS, f"profile {chosen} in ")
    settings.profile, settings.chosen_by = chosen, path
    return settings


def _example(name: str) -> str:
    return f'[profiles.{name}] with url = "https://HOST:9090" and token_file = "~/PATH"'


def _table(path: str, found: object, keys: Collection[str], where: str = "") -> Settings:
    """Return a table of texts; paths in it are from the folder of its file."""
    origin = f"{where}{path}"
    if not isinstance(found, dict):
        raise Invalid(f"{origin} is no table of settings", hint=f"it may have {', '.join(keys)}")
    _refuse_unknown(origin, found, keys)
    values: dict[str, str] = {}
    for key, value in found.items():
        if not isinstance(value, str):
            raise Invalid(f"{origin}: {key} is of type {type(value).__name__}: give text", hint=f'{key} = "..."')
        is_path = key == "token_file" or (key == "ca" and not value.lower().startswith(PINNED))
        values[key] = os.path.join(os.path.dirname(path), os.path.expanduser(value)) if is_path and value else value
    return Settings(origin, values)


def _refuse_unknown(origin: str, found: Mapping[str, Any], keys: Collection[str]) -> None:
    for key in found:
        if key not in keys:
            import difflib

            near = difflib.get_close_matches(key, keys, 1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise Invalid(f"{origin}: {key!a} is no setting", hint=f"{meant}It may have {', '.join(keys)}")


def _read(path: str, words: tuple[bytes, ...] = (b"",)) -> dict[str, Any] | None:
    """Return the file decoded; None when there is none, or when it has none of `words` and so says nothing.

    Most projects say nothing of Titan, and to decode TOML takes longer than all else here.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}", hint="make it readable, or move it away") from None
    if not any(word in data for word in words):
        return None
    import tomllib

    try:
        return tomllib.loads(data.decode())
    except ValueError as error:
        raise Invalid(f"{path} is no TOML: {error}", hint="mend that line, or move the file away") from None
