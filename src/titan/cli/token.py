"""`titan token`: let people, programs and workers in, and keep them out again."""

import re
from typing import Any

import click

from titan.cli.ask import Document, Master
from titan.cli.options import common
from titan.cli.output import Output
from titan.cli.tell import when
from titan_sdk.errors import Conflict

# Written out, for a command line that starts quickly; a test compares them with the roles there are.
ROLES = ("viewer", "submitter", "approver", "operator", "admin", "worker")
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


class Span(click.ParamType[int]):
    """A time such as 90d, 12h, 30m or 45s; becomes seconds."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds, or fail with what is accepted."""
        found = re.fullmatch(r"([0-9]{1,9})([smhdw])", str(value))
        if found is None or not int(found[1]):
            self.fail(f"{str(value)[:40]!a} is no time: give a number with s, m, h, d or w, such as 90d", param, ctx)
        return int(found[1]) * _UNITS_S[found[2]]


@click.group(
    "token", short_help="Make, list and revoke tokens.", epilog="Example: titan token create ci --role submitter"
)
def command() -> None:
    """Make, list and revoke the tokens that let others use this Master. docs/reference/roles.md says who may what."""


@command.command(
    "create",
    short_help="Make a token and print it, once.",
    epilog="Example: titan token create ci --role submitter --expires 90d",
)
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(ROLES), metavar="ROLE", help=f"One of {', '.join(ROLES)}.")
@click.option("--worker", default="", metavar="NAME", help="The one worker that a token of role worker speaks for.")
@click.option("--expires", "expires_s", type=Span(), metavar="TIME", help="How long it lasts: 90d, 12h; else for ever.")
@common
def create(out: Output, *, name: str, role: str, worker: str, expires_s: int | None) -> None:
    """Make a token and print it: this once, for the Master keeps only its hash. NAME is for the people who list it."""
    made = Master().create_token(name, role, worker, expires_s)
    if out.as_json:
        out.document(made)
        return
    out.talk(f"token {made['about']['id']} of role {role}, {_until(made['about'])}; it is shown only now:")
    out.line(made["token"])


@command.command("ls", epilog="Example: titan token ls --all")
@click.option("--all", "everything", is_flag=True, help="Also those that were revoked or expired, for 30 days.")
@common
def ls(out: Output, *, everything: bool) -> None:
    """List the tokens, the newest last; what lets anybody in is not among what is listed."""
    found = sorted(Master().list_tokens(), key=lambda token: (token["created_at"], token["id"]))
    tokens = [token for token in found if everything or token["state"] == "living"]
    if out.as_json:
        out.document({"tokens": tokens})
        return
    if out.quiet:
        for token in tokens:
            out.line(token["id"])
        return
    rows = [
        (token["id"], token["name"], token["role"], token["worker"], token["state"], _until(token), token["created_by"])
        for token in tokens
    ]
    out.table(("ID", "NAME", "ROLE", "WORKER", "STATE", "ENDS", "MADE BY"), rows)
    if not rows:
        out.talk("no tokens but the home's own and those of jobs: titan token create NAME --role ROLE")


@command.command("revoke", epilog="Example: titan token revoke 1f0c9ad2b7e4")
@click.argument("names", metavar="ID|NAME...", nargs=-1, required=True)
@common
def revoke(out: Output, *, names: tuple[str, ...]) -> None:
    """Let tokens count no more: what they hold open is cut at once, feeds, waits and workers' links too.

    A NAME is enough where one living token alone has it; it is then said which id that was.
    """
    master = Master()
    tokens = master.list_tokens()
    revoked = [master.revoke_token(token_id) for token_id in [_id_of(name, tokens) for name in names]]
    out.told("tokens", revoked, "id", lambda it: f"token {it['id']} ({it['name']}) is revoked")


def _id_of(name: str, tokens: list[Document]) -> str:
    """Return the id of the token that `name` means: an id, or what one living token alone is called."""
    if any(row["id"] == name for row in tokens):
        return name
    named = [row for row in tokens if row["name"] == name and row["state"] == "living"]
    if len(named) > 1:
        told = [f"{it['id']}, {it['role']}, made {when(it['created_at'])} by {it['created_by']}" for it in named]
        problems = [{"code": "conflict", "message": text} for text in told]
        raise Conflict(f"{len(named)} tokens are called {name!a}", hint="name one by its id", problems=problems)
    return named[0]["id"] if named else name


def _until(token: Document) -> str:
    return f"until {when(token['expires_at'])}" if token["expires_at"] else "for ever"
