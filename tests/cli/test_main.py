"""The root command: what every command takes may stand before it, and a word is found whatever stands there."""

import pytest

from titan.cli.main import EVERYWHERE, command_first
from titan.cli.options import common


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--url X ps", "ps --url X"),
        ("--url=X --json store get k -q", "store get --url=X --json k -q"),
        ("-q --ca c.pem run f.py -- --url Y", "run -q --ca c.pem f.py -- --url Y"),
        ("--url X worker --join Z", "worker --url X --join Z"),
        ("--url ps ps", "ps --url ps"),
        ("ps --url X", "ps --url X"),
        ("--url X stauts", "stauts"),
        ("--url X", ""),
        ("--url", ""),
        ("--json --help", "--help"),
        ("help", "--help"),
        ("help store put", "store put --help"),
        ("version", "--version"),
        ("--nonsense ps", "--nonsense ps"),
        ("", ""),
    ],
)
def test_what_stands_before_the_command_is_put_behind_it(typed: str, meant: str) -> None:
    assert command_first(typed.split()) == meant.split()


def test_it_is_what_every_command_that_asks_a_master_takes() -> None:
    taken = {
        name: not option.is_flag
        for option in common(lambda: None).__click_params__  # type: ignore[attr-defined]
        for name in option.opts
    }
    assert taken == EVERYWHERE
