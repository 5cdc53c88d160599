"""The `titan` command: one file per noun, each imported only when its command is called."""

from titan.cli.main import main

__all__ = ["main"]
