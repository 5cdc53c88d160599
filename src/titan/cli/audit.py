"""`titan audit`: who did what, and whether that is still what was written."""

import re
from collections.abc import Iterator
from typing import Any

import click

from titan.cli.ask import Document, Master
from titan.cli.options import common
from titan.cli.output import Output, plural
from titan.cli.tell import when
from titan_sdk.errors import Conflict, NotFound

PAGE_ROWS = 1_000


class Anchor(click.ParamType[tuple[int, str]]):
    """A row that somebody wrote down, as SEQ:HASH."""

    name = "anchor"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, str]:
        """Return number and hash, or fail with what is accepted."""
        found = re.fullmatch(r"([1-9][0-9]{0,17}):([0-9a-f]{64})", str(value))
        if found is None:
            self.fail(f"{str(value)[:90]!a} is no row: give SEQ:HASH as titan audit verify printed it", param, ctx)
        return int(found[1]), found[2]


@click.group(
    "audit",
    short_help="Show who did what, and check that nobody changed it.",
    epilog="Example: titan audit ls --limit 10",
)
def command() -> None:
    """Show who did what, and check that nobody changed it. docs/security.md says what is in it; admins may read it."""


@command.command("ls", short_help="List who did what, newest first.", epilog="Example: titan audit ls --json")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="Rows.")
@click.option("--actor", default="", metavar="ID", help="Only what this token did; admin for the home's own.")
@click.option("--action", default="", metavar="ROUTE", help="Only this, such as runs.submit or tokens.create.")
@click.option("--object", "part", default="", metavar="TEXT", help="Only rows with TEXT in what it was done to.")
@common
def ls(out: Output, *, limit: int, actor: str, action: str, part: str) -> None:
    """List who did what, newest first: changes by people, programs and workers, not by jobs."""
    found = list(_rows(Master(), limit, actor=actor, action=action, object=part))
    if out.as_json:
        out.document({"audit": found})
        return
    if out.quiet:
        for row in found:
            out.line(str(row["seq"]))
        return
    rows = [
        (str(row["seq"]), when(row["at"]), row["actor"], row["role"], row["action"], row["object"], row["address"])
        for row in found
    ]
    out.table(("ROW", "AT", "ACTOR", "ROLE", "ACTION", "OBJECT", "ADDRESS"), rows)
    if not rows:
        out.talk("nothing like that was done" if actor or action or part else "nothing was done yet")


@command.command(
    "verify", short_help="Check that no row was changed or taken out.", epilog="Example: titan audit verify"
)
@click.option(
    "--expect", type=Anchor(), metavar="SEQ:HASH", help="Also check that this row, written down before, is as it was."
)
@common
def verify(out: Output, *, expect: tuple[int, str] | None) -> None:
    """Walk along all rows and check that each hangs on the one before; exit with 6 and name the first that does not.

    The oldest rows are let go after a year, or when there are a million. It says which row it began with.

    Whoever can write the database could make all rows anew, or take the last ones out. So write the line that is
    printed down elsewhere, and give it back later with --expect.
    """
    master = Master()
    check = master.page("audit/verify")
    let_go = check["let_go"]
    if expect is not None and expect[0] <= let_go:
        hint = "compare with a backup of that time, and write down a line that is printed now"
        raise NotFound(
            f"row {expect[0]} is no longer kept: rows 1 to {let_go} were let go for their age or number", hint=hint
        )
    if expect is not None:
        row = next(_rows(master, 1, before=expect[0] + 1), None)
        if row is None or (row["seq"], row["hash"]) != expect:
            raise _broken(f"row {expect[0]} is not the one that was written down: rows were made anew or taken out")
    while check["more"]:
        check = master.page("audit/verify", after=check["seq"], hash=check["hash"])
    if check["fault"]:
        raise _broken(check["fault"])
    rows = check["seq"] - let_go
    if out.as_json:
        out.document({"rows": rows, "let_go": let_go, "hash": check["hash"] if check["seq"] else None})
        return
    from_where = f" from row {let_go + 1} on" if let_go else ""
    out.talk(f"{plural(rows, 'row')}{from_where}, each as it was written")
    if check["seq"]:
        out.line(f"{check['seq']}:{check['hash']}")


def _rows(master: Master, limit: int, **query: Any) -> Iterator[Document]:
    while limit > 0:
        page = master.page("audit", limit=min(limit, PAGE_ROWS), **query)
        yield from page["audit"]
        limit -= len(page["audit"])
        if page["next"] is None:
            return
        query["before"] = page["next"]


def _broken(fault: str) -> Conflict:
    return Conflict(
        f"the audit is not what was written: {fault}",
        hint="what stands from there on is worth nothing; compare with a backup, and find out who could write titan.db",
    )
