"""What `titan token` knows by heart is what the Master knows."""

from typing import Any

import click
import pytest

from titan.cli.token import ROLES, Span, _id_of
from titan.model.roles import STORED_ROLES, Role
from titan_sdk.errors import Conflict


def test_the_command_line_offers_the_roles_that_a_token_may_have() -> None:
    assert tuple(role for role in Role if role in STORED_ROLES) == ROLES


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1), ("30m", 1_800), ("12h", 43_200), ("90d", 7_776_000)])
def test_a_span_is_seconds(text: str, seconds: int) -> None:
    assert Span().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0s", "5", "d", "-1d", "1.5h", "1 d", "1e3s", "٣d", "9" * 10 + "s", "1y", "nan"])
def test_anything_else_is_refused_in_words(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no time: give a number"):
        Span().convert(text, None, None)


def token(token_id: str, name: str, state: str = "living") -> dict[str, Any]:
    made = {"created_at": "2026-01-01T00:00:00Z", "created_by": "admin"}
    return {"id": token_id, "name": name, "state": state, "role": "viewer", **made}


def test_a_token_to_revoke_is_named_by_its_id_or_by_a_name_that_it_alone_has() -> None:
    tokens = [
        token("aaaaaaaaaaaa", "ci"), token("bbbbbbbbbbbb", "wall"), token("cccccccccccc", "wall"),
        token("dddddddddddd", "ci", "revoked"), token("eeeeeeeeeeee", "aaaaaaaaaaaa"),
        token("ffffffffffff", "old", "expired"),
    ]  # fmt: skip
    assert _id_of("cccccccccccc", tokens) == "cccccccccccc"
    assert _id_of("ci", tokens) == "aaaaaaaaaaaa", "the other one does not count any more"
    assert _id_of("aaaaaaaaaaaa", tokens) == "aaaaaaaaaaaa", "an id is an id, whatever another token is called"
    assert _id_of("old", tokens) == "old", "the Master says that there is none"
    with pytest.raises(Conflict, match="2 tokens are called 'wall'") as caught:
        _id_of("wall", tokens)
    assert "bbbbbbbbbbbb, viewer, made 2026-01-01 00:00:00 UTC by admin" in str(caught.value)
    assert "cccccccccccc" in str(caught.value)
    assert caught.value.hint == "name one by its id"
