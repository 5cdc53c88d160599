"""`titan completion`: what makes a shell complete our words."""

from typing import Any

import click

from titan.cli.options import local
from titan.cli.output import Output

VARIABLE = "_TITAN_COMPLETE"
WHERE = {
    "bash": "titan completion bash > ~/.local/share/bash-completion/completions/titan",
    "zsh": "titan completion zsh > ~/.zfunc/_titan   (with fpath+=~/.zfunc before compinit)",
    "fish": "titan completion fish > ~/.config/fish/completions/titan.fish",
}


@click.command(
    "completion", short_help="Print what makes a shell complete titan.", epilog="Example: titan completion bash"
)
@click.argument("shell", type=click.Choice(tuple(WHERE)))
@local
def command(out: Output, *, shell: str) -> None:
    """Print the script with which SHELL (bash, zsh or fish) completes commands and options of titan."""
    script = script_for(shell)
    if out.as_json:
        out.document({"shell": shell, "script": script})
        return
    out.exact(script.encode())
    if out.on_terminal:
        out.talk(f"to keep it: {WHERE[shell]}")


def script_for(shell: str) -> str:
    """Return the script for one of the shells; it asks titan itself at each completion."""
    kind = _kind(shell)
    # Not `source()`: that one starts the shell to look at its version, and here it need not even be installed.
    parts: dict[str, Any] = {"complete_func": "_titan_completion", "complete_var": VARIABLE, "prog_name": "titan"}
    return str(kind.source_template % parts)


def complete(root: click.Command, instruction: str) -> int:
    """Answer a shell that completes a line, as its script asks through the environment; return the exit code."""
    from click.shell_completion import shell_complete

    return shell_complete(root, {}, "titan", VARIABLE, instruction)


def _kind(shell: str) -> Any:
    from click.shell_completion import get_completion_class

    return get_completion_class(shell)
