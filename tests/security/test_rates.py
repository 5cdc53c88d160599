"""Who asks too often is told to wait, and nobody else is: S53. Shown by counts, on a clock that stands still."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from tests.api.master import ROOMY, TOKEN, Answer, Master, Worker
from tests.security.walk import ask, token_of
from titan.master.rates import BURST_S, KINDS, OTHER, Rates
from titan.master.roles import ALLOWED
from titan.model.limits import Limits
from titan.model.roles import Role
from titan.model.wire import CLOSE_BUSY, Renew, RenewAck
from titan_sdk import TitanClient
from titan_sdk.errors import TitanError

RATE = 2
AT_ONCE = RATE * BURST_S
LOW = dataclasses.replace(ROOMY, **dict.fromkeys([*KINDS, OTHER, "link_messages_per_s_max"], RATE))
ASKED = {
    "submits_per_s_max": ("POST", "/runs"),
    "store_writes_per_s_max": ("POST", "/store/put"),
    "store_reads_per_s_max": ("POST", "/store/get"),
    "log_reads_per_s_max": ("GET", "/runs/0000/jobs/a/log"),
    OTHER: ("GET", "/stats"),
}


class Slow:
    """A Master with low limits, whose clock stands still until it is set."""

    def __init__(self, home: Path) -> None:
        self.master = Master(home, LOW)
        self.now_s = 1_000.0

    def __enter__(self) -> Self:
        master = self.master.__enter__()
        site: Any = master.gate.site
        master.gate.site = msgspec.structs.replace(site, rates=Rates(LOW, lambda: self.now_s))
        master.engine.links._said._clock = lambda: self.now_s
        return self

    def __exit__(self, *_: object) -> None:
        self.master.__exit__()

    def asks(self, kind: str, count: int, token: str = TOKEN) -> list[Answer]:
        method, path = ASKED[kind]
        return [self.master.request(method, path, token=token) for _ in range(count)]


def refused(answers: list[Answer]) -> int:
    return sum(answer.status == 429 for answer in answers)


def test_s53_every_kind_of_request_has_its_rate_for_each_token_and_no_other_pays_for_it(tmp_path: Path) -> None:
    assert {route for routes in KINDS.values() for route in routes} <= ALLOWED.keys()
    with Slow(tmp_path) as it:
        other = token_of(it.master, Role.OPERATOR)
        it.now_s += BURST_S
        for kind in ASKED:
            flood = it.asks(kind, 3 * AT_ONCE)
            assert (refused(flood[:AT_ONCE]), refused(flood[AT_ONCE:])) == (0, 2 * AT_ONCE), kind
            told = flood[-1]
            assert (told.code, told.headers["retry-after"]) == ("rate_limited", "1")
            assert told.json["retry_after_s"] == 1 / RATE
            assert f"{RATE} " in told.json["detail"]
            assert f"TITAN_LIMIT_{kind.upper()}" in told.json["hint"]
            assert refused(it.asks(kind, AT_ONCE, other)) == 0, kind
            it.now_s += 1 / RATE
            assert refused(it.asks(kind, 2)) == 1
        assert it.master.get("/healthz", token=None).status == 200


def test_s53_a_flood_is_refused_before_its_body_is_read(tmp_path: Path) -> None:
    """With the whole body announced and none of it sent, the refusal comes all the same."""
    with Slow(tmp_path) as it:
        it.asks("submits_per_s_max", AT_ONCE)
        answer = ask(it.master, "POST", "/api/v1/runs", TOKEN, "Content-Type: application/json", "Content-Length: 9999")
        assert (answer.status, answer.headers["connection"]) == (429, "close")


def test_s53_one_token_is_counted_by_address() -> None:
    rates = Rates(LOW, lambda: 5.0)

    def passes(caller: object, address: str) -> int:
        count = 0
        for _ in range(2 * AT_ONCE):
            try:
                rates.judge(caller, address, "store.get")  # type: ignore[arg-type]
                count += 1
            except TitanError as error:
                assert error.status == 429  # noqa: PT017
        return count

    assert passes("a", "10.0.0.1") == AT_ONCE
    assert passes("a", "10.0.0.2") == AT_ONCE
    assert passes("b", "10.0.0.1") == AT_ONCE
    assert passes(7, "10.0.0.1") == AT_ONCE
    assert passes("a", "10.0.0.1") == 0
    assert sum(passes("a", f"2001:db8::{host:x}") for host in range(3)) == AT_ONCE
    assert passes("a", "2001:db8:0:1::1") == AT_ONCE


def test_s53_a_worker_that_says_too_much_is_cut_off_and_no_other_is(tmp_path: Path) -> None:
    with Slow(tmp_path) as it, Worker(it.master.port) as good:
        with Worker(it.master.port, "loud") as loud:
            loud.say(*(Renew(number) for number in range(AT_ONCE + 3)))  # one frame is taken whole, and owed
            while not any(ack.seq == AT_ONCE + 2 for ack in loud.heard(RenewAck)):
                loud.hear()
            loud.say(Renew(99))
            assert closed_with(loud) == (CLOSE_BUSY, "TITAN_LIMIT_LINK_MESSAGES_PER_S_MAX")
        again = Worker(it.master.port, "loud")
        with again._connecting as again.link:  # no new link begins anew
            again.say(again._hello)
            assert closed_with(again)[0] == CLOSE_BUSY
        good.say(Renew(7))
        while not any(ack.seq == 7 for ack in good.heard(RenewAck)):
            good.hear()
        it.now_s += BURST_S
        with Worker(it.master.port, "loud") as back:
            back.say(Renew(8))
            while not any(ack.seq == 8 for ack in back.heard(RenewAck)):
                back.hear()


def closed_with(worker: Worker) -> tuple[int, str]:
    """Return the code of the close, and the variable that its reason names."""
    code, reason = worker.closed()
    return code, next((word for word in reason.replace(":", " ").split() if word.startswith("TITAN_LIMIT_")), "")


def test_s53_the_sdk_waits_and_sends_again(own_master: Callable[..., Master], monkeypatch: pytest.MonkeyPatch) -> None:
    master = own_master(store_reads_per_s_max=10)
    told: list[TitanError] = []
    judge = Rates.judge

    def counted(rates: Rates, *about: Any) -> None:
        try:
            judge(rates, *about)
        except TitanError as error:
            told.append(error)
            raise

    monkeypatch.setattr(Rates, "judge", counted)
    with TitanClient(url=master.url, token=TOKEN) as client:
        for _ in range(10 * BURST_S + 3):
            assert client.store_get("nothing") is None
    assert told


def test_s53_the_limits_are_far_above_what_one_client_asks() -> None:
    """A client that waits for each answer gets some thousands a second out of a Master: docs/performance.md."""
    limits = Limits()
    assert limits.store_writes_per_s_max >= 3 * 1_422
    assert limits.store_reads_per_s_max >= 2 * 3_607
    assert limits.submits_per_s_max >= 1_000
    assert limits.link_messages_per_s_max >= 50_000
