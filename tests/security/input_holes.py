"""Planted holes in what is done with inputs: sizes, rates, names, numbers, bodies. See `tests.security.holes`."""

import functools
import gzip
import re
import subprocess
import traceback
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.api import master as api
from tests.api import test_limits as limits
from tests.api.master import Master
from tests.security import test_expressions as expressions
from tests.security import test_http as http
from tests.security import test_inputs as inputs
from tests.security import test_rates as rates_tests
from tests.security.holes import Hole, setting
from titan.master import bodies, problems, rates, server
from titan.master.api import joining, registry, runs, store, tokens
from titan.master.links import WorkerLinks
from titan.master.rates import Rates
from titan.model import spec, wording
from titan.storage import kv, queries
from titan_sdk.errors import Internal

_judge = Rates.judge


def _patched(test: Any) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        test(monkeypatch)


def _small(master: Master, name: str) -> None:
    folder = master.home / f"small-{name}"
    folder.mkdir()
    with Master(folder, limits.SMALL) as small:
        small.script()
        limits.test_s28_exactly_at_a_limit_it_passes_and_one_over_is_refused_with_the_way_to_change_it(small, name)


def _logged(master: Master) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        http.every_handler_fails(monkeypatch)
        http.check(master.get("/stats"))


def _own(test: Any) -> Any:
    """Give the test a folder of its own for the Master it makes."""
    return lambda master: test(master.home / f"own-{test.__name__}")


_QUADRATIC = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def _lenient(monkeypatch: pytest.MonkeyPatch, **what: bool) -> None:
    init = server.PatientProtocol.__init__

    def made(self: Any, *arguments: Any, **more: Any) -> None:
        init(self, *arguments, **more)
        self.parser.set_dangerous_leniencies(**what)

    monkeypatch.setattr(server.PatientProtocol, "__init__", made)


def _endless_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.PatientProtocol, "data_received", HttpToolsProtocol.data_received)
    monkeypatch.setattr(api, "WAIT_S", 1.0)


async def _unpacked(scope: Any, receive: Any, limits: Any, route: str) -> bytes:
    body = await _read_body(scope, receive, limits, route)
    return gzip.decompress(body) if (b"content-encoding", b"gzip") in scope["headers"] else body


def _says_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell the caller what went wrong, as frameworks do while one develops."""
    monkeypatch.setattr(problems, "Internal", lambda _: Internal(traceback.format_exc()))


def _is_run(sent: Any) -> Any:
    subprocess.run(["sh", "-c", sent.value], check=False, capture_output=True)
    return sent.value


class _NoEscapes:
    @staticmethod
    def sub(_: str, __: str, text: str) -> str:
        return text


def _put_together(connection: Any, key: str, now_ms: int) -> Any:
    found = list(connection.run(f"SELECT value FROM kv WHERE key = CAST('{key}' AS BLOB) AND {now_ms}"))
    return found[0][0].decode() if found else None


def _marked(master: Master) -> None:
    inputs.test_s31_what_would_run_elsewhere_stays_text_in_every_field(master, master.home)


def _packed_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    config = server.uvicorn.Config
    monkeypatch.setattr(
        server.uvicorn, "Config", lambda *them, **more: config(*them, **{**more, "ws_per_message_deflate": True})
    )


_read_body = bodies.read_body
INPUT_HOLES = [
    Hole("s25: a job's id is any text", setting(spec, "job_id_problem", lambda *_: None),
         lambda it: inputs.test_s25_a_name_that_is_none_is_taken_nowhere(it, "a/../b")),
    Hole("s25: a worker's name is any text", setting(joining, "job_id_problem", lambda *_: None),
         lambda it: inputs.test_s25_a_name_that_is_none_is_taken_nowhere(it, "../x")),
    Hole("s25: a name of the registry is any text", setting(registry, "job_id_problem", lambda *_: None),
         lambda it: inputs.test_s25_a_name_that_is_none_is_taken_nowhere(it, "a b")),
    Hole("s31: a value is run", setting(store, "_value", _is_run), _marked),
    Hole("s33: signs of a pattern are not escaped", setting(queries, "re", _NoEscapes),
         inputs.test_s33_signs_of_a_pattern_stand_for_themselves),
    Hole("s33: a statement is put together", setting(kv, "get", _put_together),
         lambda it: inputs.test_s33_what_is_asked_for_is_a_value_and_never_part_of_the_question(lambda: it),
         fresh=True),
    Hole("s35: no number has a range", setting(spec, "_range_problem", lambda *_, **__: None),
         lambda it: inputs.test_s35_a_number_that_is_none_or_out_of_range_is_refused_at_once(it, "-1")),
    Hole("s35: a token lasts beyond all calendars", setting(tokens, "EXPIRES_S_MAX", float("inf")),
         inputs.test_s35_a_time_beyond_all_calendars_is_shown_or_refused),
    Hole("s28: a head has no end", _endless_heads,
         lambda it: _patched(functools.partial(http.test_s28_a_head_without_an_end_is_cut, it))),
    Hole("s28: arguments of any size", setting(spec, "_size_problem", lambda *_: None),
         lambda it: _small(it, "args_bytes_max")),
    Hole("s28: a page of any size", setting(runs, "page_rows", lambda limit, _: limit),
         lambda it: _small(it, "page_rows_max")),
    Hole("s29: bodies are unpacked", setting(store, "read_body", _unpacked),
         lambda it: http.test_s29_no_body_is_unpacked(it, "gzip")),
    Hole("s29: frames may be packed", _packed_frames, http.test_s29_no_answer_and_no_websocket_is_packed, fresh=True),
    Hole("s36: a length and chunks", lambda patch: _lenient(patch, lenient_chunked_length=True),
         lambda it: http.test_s36_what_two_programs_could_read_in_two_ways_is_read_in_none(it, "a length and chunks")),
    Hole("s36: headers are read kindly", lambda patch: _lenient(patch, lenient_headers=True),
         lambda it: http.test_s36_what_two_programs_could_read_in_two_ways_is_read_in_none(it, "a NUL")),
    Hole("s36: codings are read kindly", lambda patch: _lenient(patch, lenient_transfer_encoding=True),
         lambda it: http.test_s36_what_two_programs_could_read_in_two_ways_is_read_in_none(it, "chunked and not last")),
    Hole("s54: a fault is told with its traceback", _says_all, _logged),
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
