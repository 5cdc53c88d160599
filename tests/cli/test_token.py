"""What `titan token` knows by heart is what the Master knows."""

import click
import pytest

from titan.cli.token import ROLES, Span
from titan.model.roles import STORED_ROLES, Role


def test_the_command_line_offers_the_roles_that_a_token_may_have() -> None:
    assert tuple(role for role in Role if role in STORED_ROLES) == ROLES


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1), ("30m", 1_800), ("12h", 43_200), ("90d", 7_776_000)])
def test_a_span_is_seconds(text: str, seconds: int) -> None:
    assert Span().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0s", "5", "d", "-1d", "1.5h", "1 d", "1e3s", "٣d", "9" * 10 + "s", "1y", "nan"])
def test_anything_else_is_refused_in_words(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no time: give a number"):
        Span().convert(text, None, None)
