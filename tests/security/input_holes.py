"""Planted holes in what is done with inputs: sizes, rates, names, numbers, bodies. See `tests.security.holes`."""

import re
from typing import Any

import pytest

from tests.security import test_expressions as expressions
from tests.security import test_rates as rates_tests
from tests.security.holes import Hole, setting
from titan.master import bodies, rates
from titan.master.links import WorkerLinks
from titan.master.rates import Rates
from titan.model import wording

_judge = Rates.judge


def _patched(test: Any) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        test(monkeypatch)


def _own(test: Any) -> Any:
    """Give the test a folder of its own for the Master it makes."""
    return lambda master: test(master.home / f"own-{test.__name__}")


_QUADRATIC = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
INPUT_HOLES = [
    Hole("s32: a text without an end is looked behind at each quote", setting(bodies, "_TOKENS", _QUADRATIC),
         lambda _: expressions.test_s32_every_regular_expression_is_linear_or_looks_at_little()),
    Hole("s32: the words of a decoder are looked at whole", setting(wording, "TEXT_CHARS_MAX", 10**9),
         lambda _: _patched(expressions.test_s32_what_a_decoder_says_is_cut_before_it_is_looked_at)),
    Hole("s53: nobody is told to wait", setting(Rates, "judge", lambda *_: None),
         _own(rates_tests.test_s53_every_kind_of_request_has_its_rate_for_each_token_and_no_other_pays_for_it)),
    Hole("s53: one bucket for all tokens", setting(Rates, "judge", lambda self, _, *rest: _judge(self, "", *rest)),
         _own(rates_tests.test_s53_every_kind_of_request_has_its_rate_for_each_token_and_no_other_pays_for_it)),
    Hole("s53: whoever has many addresses is never told to wait", setting(rates, "street", lambda address: address),
         lambda _: rates_tests.test_s53_one_token_is_counted_by_address()),
    Hole("s53: a worker may say anything", setting(WorkerLinks, "_count", lambda *_: None),
         _own(rates_tests.test_s53_a_worker_that_says_too_much_is_cut_off_and_no_other_is)),
]  # fmt: skip
