"""Planted holes in what is done with inputs: sizes, rates, names, numbers, bodies. See `tests.security.holes`."""

from typing import Any

from tests.security import test_rates as rates_tests
from tests.security.holes import Hole, setting
from titan.master import rates
from titan.master.links import WorkerLinks
from titan.master.rates import Rates

_judge = Rates.judge


def _own(test: Any) -> Any:
    """Give the test a folder of its own for the Master it makes."""
    return lambda master: test(master.home / f"own-{test.__name__}")


INPUT_HOLES = [
    Hole("s53: nobody is told to wait", setting(Rates, "judge", lambda *_: None),
         _own(rates_tests.test_s53_every_kind_of_request_has_its_rate_for_each_token_and_no_other_pays_for_it)),
    Hole("s53: one bucket for all tokens", setting(Rates, "judge", lambda self, _, *rest: _judge(self, "", *rest)),
         _own(rates_tests.test_s53_every_kind_of_request_has_its_rate_for_each_token_and_no_other_pays_for_it)),
    Hole("s53: whoever has many addresses is never told to wait", setting(rates, "street", lambda address: address),
         lambda _: rates_tests.test_s53_one_token_is_counted_by_address()),
    Hole("s53: a worker may say anything", setting(WorkerLinks, "_count", lambda *_: None),
         _own(rates_tests.test_s53_a_worker_that_says_too_much_is_cut_off_and_no_other_is)),
]  # fmt: skip
