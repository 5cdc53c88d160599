"""`titan config`: which settings are in force, and where each is from."""

import os
from typing import Any

import click

from titan.cli.ask import Document
from titan.cli.options import common
from titan.cli.output import Output
from titan_sdk.discovery import Endpoint, Finder, home_folder
from titan_sdk.settings import person_file

FLAGS = {"TITAN_URL": ("url", "--url"), "TITAN_TOKEN": ("token_file", "--token-file"), "TITAN_CA": ("ca", "--ca")}


@click.group(
    "config",
    short_help="Which settings are in force, and where each is from.",
    epilog="Example: titan config ls --show-origin",
)
def command() -> None:
    """Which settings are in force, and where each is from.

    A flag stands over TITAN_* in the environment, that over ./titan.toml (or [tool.titan] in ./pyproject.toml), that
    over a profile in ~/.config/titan/config.toml, that over what titan up wrote into the home.
    """


@command.command("ls", short_help="List the settings.", epilog="Example: titan config ls --show-origin")
@click.option("--show-origin", is_flag=True, help="Say where each is from, and which files were looked at.")
@common
def ls(out: Output, *, show_origin: bool) -> None:
    """List what is in force here and now: which Master is asked, with which token, whom to trust, and the home.

    A token is never printed. No Master is asked.
    """
    meta = click.get_current_context().meta
    endpoints = Finder().endpoints()
    settings = [*_of_endpoints(endpoints, meta), _profile(meta), _home()]
    files = [_file(path) for path in _paths()]
    if out.as_json:
        out.document({"settings": settings, "files": files})
        return
    if out.quiet:
        for setting in settings:
            out.line(setting["name"])
        return
    columns = ("NAME", "VALUE", "FROM") if show_origin else ("NAME", "VALUE")
    fields = ("name", "value", "origin")[: len(columns)]
    out.table(columns, [[setting[field] for field in fields] for setting in settings])
    if show_origin:
        for file in files:
            out.talk(f"{file['path']}: {'read' if file['found'] else 'not there'}")


def _of_endpoints(endpoints: list[Endpoint], meta: dict[str, Any]) -> list[Document]:
    found = []
    for endpoint in endpoints:
        found += [
            _setting("url", endpoint.url, _origin(endpoint.origin, meta)),
            _setting("token", "set" if endpoint.token else "none", _origin(endpoint.token_origin, meta)),
        ]
        if endpoint.scheme == "https":
            trusted = endpoint.ca or "the system's authorities"
            found.append(_setting("ca", trusted, _origin(endpoint.ca_origin, meta) or "the default"))
    return found


def _setting(name: str, value: str, origin: str) -> Document:
    return {"name": name, "value": value, "origin": origin}


def _origin(origin: str, meta: dict[str, Any]) -> str:
    """Return the flag for what a flag has put into the environment."""
    key, flag = FLAGS.get(origin, ("", ""))
    return flag if key in meta else origin


def _profile(meta: dict[str, Any]) -> Document:
    name, origin = Finder().profile()
    return _setting("profile", name or "none", "--profile" if "profile" in meta else origin)


def _home() -> Document:
    origin = next((name for name in ("TITAN_HOME", "XDG_STATE_HOME") if os.environ.get(name)), "the default")
    return _setting("home", home_folder(os.environ), origin)


def _paths() -> list[str]:
    folder = os.getcwd()
    return [os.path.join(folder, "titan.toml"), os.path.join(folder, "pyproject.toml"), person_file(os.environ)]


def _file(path: str) -> Document:
    return {"path": path, "found": os.path.isfile(path)}
