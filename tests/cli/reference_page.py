"""Writes docs/reference/cli.md from the commands themselves: .venv/bin/python -m tests.cli.reference_page"""

from collections.abc import Iterator

import click

from tests.cli.exit_rows import ROWS
from tests.unit.sources import ROOT
from titan.cli.exits import MEANING
from titan.cli.main import SYNONYMS, titan

PAGE = ROOT / "docs" / "reference" / "cli.md"

WHICH_MASTER = {"--url", "--token-file", "--profile", "--ca"}

HEAD = """# The command line

<!-- Made by tests/cli/reference_page.py from the commands themselves; a test holds it current. -->

Data goes to stdout, talk to stderr. Every command that answers takes `--json` (one document; with `-f` one a line),
`-q` (ids only) and `--debug` (a traceback beside an error). With `--json` an error is one JSON document on stderr.
Colours are for terminals, and `NO_COLOR` turns them off; on a terminal control characters in what jobs printed are
shown escaped, into a pipe every byte goes as it is.

ID is a run id or its first digits (4 or more), `RUN/JOB`, a job's id, `@last` or `@last-failed`; else
a run's name, which means the newest run of that name.

## Which Master

Every command that asks a Master takes `--url URL`, `--token-file PATH`, `--profile NAME` and `--ca PATH` (a file of
certificates, or a `sha256:` fingerprint, to trust behind an https address). What is nearer to the person stands over
the rest, and `titan config ls --show-origin` says where each setting is from:

1. the flag;
2. the environment: `TITAN_URL` (a list allowed), `TITAN_HOST` and `TITAN_PORT`, `TITAN_TOKEN`, `TITAN_CA`,
   `TITAN_PROFILE`;
3. the project: `./titan.toml`, else `[tool.titan]` in `./pyproject.toml`, with `url`, `ca` and `profile`;
4. the person: `~/.config/titan/config.toml` (or under `XDG_CONFIG_HOME`), a profile;
5. what `titan up` wrote into the home (`TITAN_HOME`, else `~/.local/state/titan`), whose own authority is trusted;
6. `http://127.0.0.1:9090`.

```toml
# ~/.config/titan/config.toml
profile = "lab"                     # the one in force unless told otherwise; may be left out

[profiles.lab]
url = "https://lab.example:9090"
token_file = "lab.token"            # from this file's folder, or ~/PATH
ca = "sha256:FINGERPRINT"
```

A project comes with a checkout, so it may say where to look and nothing of tokens: to an address that only a project's
file names, no token is sent but the one that your profile in force has for that very address. The home's token goes to
this machine and to the URL recorded in the home. `titan worker` goes by none of these files.

## Exit codes

`titan run` passes the script's own code; everything else there that is no success is 125, but for 8 and 130.

| code | meaning |
|---|---|
"""


EVERYWHERE = """### By command

From every command: 2 for a word it does not know, 4 when no Master answers, 5 for a token that may not, 130 after
Ctrl+C. `{done}`, `{failed}` and the like stand for runs that ended so, `{waits}` for one that has not ended.

| command | when | code |
|---|---|---|
"""


def render() -> str:
    """Return the page."""
    codes = "".join(f"| {int(code)} | {meaning} |\n" for code, meaning in MEANING.items())
    words = ", ".join(f"`{word}` for `{meant}`" for word, meant in SYNONYMS.items())
    parts = [
        HEAD + codes,
        EVERYWHERE + "".join(f"| `titan {line}` | {when} | {int(code)} |\n" for line, when, code in ROWS),
        *_commands(titan, "titan"),
        f"## Other words\n\nTyped by habit and answered with the right one: {words}.\n",
    ]
    return "\n".join(parts)


def _commands(group: click.Group, path: str) -> Iterator[str]:
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield f"## {path} {name}\n\n{_prose(command)}\n"
            yield from _commands(command, f"{path} {name}")
        else:
            yield _section(command, f"{path} {name}")


def _section(command: click.Command, path: str) -> str:
    context = click.Context(command, info_name=path)
    usage = f"{path} {' '.join(command.collect_usage_pieces(context))}"
    records = [record for param in _own_options(command) if (record := param.get_help_record(context))]
    rows = "".join(f"| `{_cell(names)}` | {_cell(text)} |\n" for names, text in records)
    table = f"\n| option | |\n|---|---|\n{rows}" if rows else ""
    example = (command.epilog or "").removeprefix("Example: ")
    return f"## {path}\n\n```text\n{usage}\n```\n\n{_prose(command)}\n{table}\nExample: `{example}`\n"


def _own_options(command: click.Command) -> Iterator[click.Parameter]:
    """Yield the options of this command alone; the head of the page tells of the common ones."""
    common = {"--json", "--quiet", "--debug"}
    if {name for param in command.params for name in param.opts} >= WHICH_MASTER:
        common |= WHICH_MASTER
    for param in command.params:
        if isinstance(param, click.Option) and not set(param.opts) & common:
            yield param


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("  ", " ")


def _prose(command: click.Command) -> str:
    lines = (command.help or "").splitlines()
    return "\n".join(line.strip() for line in lines).strip()


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render(), encoding="utf-8")
