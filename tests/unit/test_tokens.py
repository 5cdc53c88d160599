"""A job's token says who it is and cannot be made without the key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titan.master import tokens

KEY = b"k" * 32
RUN = "0123456789abcdef" * 2


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}", fullmatch=True), st.integers(1, 10**6), st.integers(1, 2**62))
def test_a_token_names_the_attempt_it_was_made_for(job_id: str, attempt: int, fence: int) -> None:
    token = tokens.make(KEY, RUN, job_id, attempt, fence)
    assert tokens.check(KEY, token) == tokens.JobIdentity(RUN, job_id, attempt, fence)
    assert tokens.check(b"other" * 7, token) is None


@given(st.data())
def test_one_changed_character_is_another_token(data: st.DataObject) -> None:
    token = tokens.make(KEY, RUN, "a.b", 1, 7)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda character: character != token[at]))
    assert tokens.check(KEY, token[:at] + other + token[at + 1 :]) is None


@pytest.mark.parametrize("text", ["", "tj.", "tj....", ".", "tj.é.a.1.2.ff", "x" * 10_000, "tj." + "." * 999])
def test_anything_else_is_nobody(text: str) -> None:
    assert tokens.check(KEY, text) is None


def test_moving_a_dot_between_the_fields_does_not_make_another_job() -> None:
    token = tokens.make(KEY, RUN, "a.1", 2, 3)
    assert tokens.check(KEY, token) == tokens.JobIdentity(RUN, "a.1", 2, 3)
