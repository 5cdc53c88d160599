"""The store: exact values, counters, compare-and-set, sets, expiry, and keys that make a resend count once."""

from typing import Any

import pytest

from tests.storage.backend import NOW_MS, Storage
from tests.storage.builders import new_run
from titan.model.limits import DEFAULT_LIMITS
from titan.model.store import (
    IdempotencyKey,
    KeyReused,
    Prune,
    StoreAdd,
    StoreCas,
    StoreDelete,
    StoreIncr,
    StoreMany,
    StoreOperation,
    StorePut,
    StoreRefused,
    StoreRemove,
    Value,
)
from titan.storage import kv
from titan.storage.kv import DIGITS_MAX

MIB = 1024 * 1024
LATER_MS = NOW_MS + 60_000


def put(storage: Storage, key: str, value: Value, ttl_s: float | None = None) -> Any:
    return storage.one(StorePut(key, value, NOW_MS, ttl_s))


def get(storage: Storage, key: str, now_ms: int = NOW_MS) -> Any:
    return storage.database.read(lambda connection: kv.get(connection, key, now_ms))


def members(storage: Storage, key: str) -> Any:
    return storage.database.read(lambda connection: kv.members(connection, key, NOW_MS))


def keys(storage: Storage, prefix: str = "", now_ms: int = NOW_MS) -> list[str]:
    return storage.database.read(lambda connection: kv.list_keys(connection, prefix, 1000, None, now_ms)).keys


def once(key: str = "call", body: bytes = b"body", expires_ms: int = LATER_MS) -> IdempotencyKey:
    return IdempotencyKey(key, body, expires_ms)


EXACT: list[Value] = [
    "", b"", "plain", b"plain", "0",
    "naïve ☃ 🦄 \U0010ffff", "a\x00b\x00", "line\r\n|;'\"`$(x)%_\\", "e\u0301 is not é",
    b"\x00\xff\xfe", bytes(range(256)), "é" * (MIB // 2), b"\xff" * MIB,
]  # fmt: skip


@pytest.mark.parametrize("value", EXACT, ids=lambda value: f"{type(value).__name__} {len(value)}")
def test_values_come_back_exactly(storage: Storage, value: Value) -> None:
    assert put(storage, "key", value) is None
    found = get(storage, "key")
    assert found == value
    assert type(found) is type(value)
    storage.reopen()
    assert get(storage, "key") == value


@pytest.mark.parametrize(
    "key", ["a", "🦄" * 128, "a\x00", "a\x00b", " ", "../../etc/passwd", "%", "A", "ключ|;'\"", "x" * 512]
)
def test_any_text_is_a_key_and_only_itself(storage: Storage, key: str) -> None:
    put(storage, "other", "1")
    put(storage, key, "mine")
    assert get(storage, key) == "mine"
    assert [get(storage, near) for near in (key + "x", key[:-1], key.swapcase() + "!")] == [None] * 3
    assert sorted(keys(storage)) == sorted({"other", key})


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (StorePut("", "v", NOW_MS), "invalid"),
        (StorePut("x" * 513, "v", NOW_MS), "invalid"),
        (StorePut("🦄" * 129, "v", NOW_MS), "invalid"),
        (StorePut("\ud800", "v", NOW_MS), "invalid"),
        (StorePut("k", "\ud800", NOW_MS), "invalid"),
        (StorePut("k", "x" * (MIB + 1), NOW_MS), "too_large"),
        (StorePut("k", b"x" * (MIB + 1), NOW_MS), "too_large"),
        (StorePut("k", "é" * (MIB // 2) + "x", NOW_MS), "too_large"),
        (StorePut("k", "v", NOW_MS, 0), "invalid"),
        (StorePut("k", "v", NOW_MS, float("nan")), "invalid"),
        (StorePut("k", "v", NOW_MS, float("inf")), "invalid"),
        (StoreCas("k", None, "x" * (MIB + 1), NOW_MS), "too_large"),
        (StoreAdd("k", "x" * 513, NOW_MS), "invalid"),
        (StoreAdd("k", "", NOW_MS), "invalid"),
        (StoreDelete("", NOW_MS), "invalid"),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    storage: Storage, operation: StoreOperation, code: str
) -> None:
    result = storage.one(operation)
    assert isinstance(result, StoreRefused)
    assert result.code == code
    assert storage.rows("kv") == storage.rows("kv_sets") == []


def test_a_missing_key_is_none(storage: Storage) -> None:
    assert get(storage, "nothing") is None
    assert get(storage, "\ud800") is None
    assert [storage.database.read(lambda c, key=key: kv.get(c, key, NOW_MS)) for key in ("a", "b")] == [None, None]


def test_delete_says_whether_there_was_something(storage: Storage) -> None:
    put(storage, "k", "v")
    assert storage.do(StoreDelete("k", NOW_MS), StoreDelete("k", NOW_MS)) == [True, False]
    assert get(storage, "k") is None


BIG = 10**200


@pytest.mark.parametrize(
    ("start", "by", "sum_"),
    [
        (None, 1, "1"), (None, -3, "-3"), (None, 0, "0"), ("0", 1, "1"), ("41", 1, "42"), ("-1", 1, "0"),
        ("007", 1, "8"), ("-0", 0, "0"), (str(2**63 - 1), 1, str(2**63)), (str(-(2**63)), -1, str(-(2**63) - 1)),
        (str(BIG), BIG, str(2 * BIG)), (str(BIG), -BIG, "0"),
    ],
)  # fmt: skip
def test_incr_counts_decimal_text_of_any_size(storage: Storage, start: str | None, by: int, sum_: str) -> None:
    if start is not None:
        put(storage, "n", start)
    assert storage.one(StoreIncr("n", by, NOW_MS)) == sum_
    assert get(storage, "n") == sum_


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "1 ",
        " 1",
        "+1",
        "1.0",
        "1e3",
        "0x10",
        "1_000",
        "--1",
        "-",
        "\u0661",
        "one",
        b"1",
        "9" * (DIGITS_MAX + 1),
    ],
)
def test_incr_refuses_anything_else_and_leaves_it(storage: Storage, value: Value) -> None:
    put(storage, "n", value)
    result = storage.one(StoreIncr("n", 1, NOW_MS))
    assert isinstance(result, StoreRefused)
    assert result.code == "invalid"
    assert get(storage, "n") == value


def test_a_counter_has_an_end(storage: Storage) -> None:
    put(storage, "n", "9" * DIGITS_MAX)
    assert isinstance(storage.one(StoreIncr("n", 1, NOW_MS)), StoreRefused)
    assert isinstance(storage.one(StoreIncr("m", 10**DIGITS_MAX, NOW_MS)), StoreRefused)
    assert storage.one(StoreIncr("n", -1, NOW_MS)) == "9" * (DIGITS_MAX - 1) + "8"


def test_cas_sets_what_is_missing_once(storage: Storage) -> None:
    first, second = StoreCas("k", None, "a", NOW_MS), StoreCas("k", None, "b", NOW_MS)
    assert storage.do(first, second) == [True, False]
    assert get(storage, "k") == "a"


def test_cas_never_succeeds_twice_from_one_value(storage: Storage) -> None:
    put(storage, "k", "free")
    takers = [StoreCas("k", "free", f"taker {number}", NOW_MS) for number in range(5)]
    assert storage.do(*takers[:3]) + storage.do(*takers[3:]) == [True, False, False, False, False]
    assert get(storage, "k") == "taker 0"


def test_cas_tells_text_from_bytes(storage: Storage) -> None:
    put(storage, "k", "1")
    assert storage.one(StoreCas("k", b"1", "2", NOW_MS)) is False
    assert storage.one(StoreCas("k", "1", b"2", NOW_MS)) is True
    assert get(storage, "k") == b"2"


def test_cas_removes_exactly_what_was_seen(storage: Storage) -> None:
    put(storage, "k", "v")
    wrong, right, gone = (StoreCas("k", expect, None, NOW_MS) for expect in ("w", "v", "v"))
    assert storage.do(wrong, right, gone, StoreCas("k", None, None, NOW_MS)) == [False, True, False, True]
    assert storage.rows("kv") == []


def test_sets_hold_each_member_once(storage: Storage) -> None:
    added = storage.do(*(StoreAdd("s", member, NOW_MS) for member in ("b", "a", "b", "ü", "a\x00")))
    assert added == [True, True, False, True, True]
    assert members(storage, "s") == ["a", "a\x00", "b", "ü"]
    assert keys(storage) == ["s"]


def test_an_empty_set_is_a_missing_key(storage: Storage) -> None:
    storage.do(StoreAdd("s", "a", NOW_MS), StoreAdd("s", "b", NOW_MS))
    removed = storage.do(*(StoreRemove("s", member, NOW_MS) for member in ("a", "zz", "b", "b")))
    assert removed == [True, False, True, False]
    assert members(storage, "s") == keys(storage) == []
    assert put(storage, "s", "a value now") is None


def test_deleting_a_set_takes_its_members_along(storage: Storage) -> None:
    storage.do(
        StoreAdd("s", "a", NOW_MS), StoreAdd("t", "a", NOW_MS), StoreDelete("s", NOW_MS), StoreAdd("s", "b", NOW_MS)
    )
    assert (members(storage, "s"), members(storage, "t")) == (["b"], ["a"])


def test_a_key_is_a_value_or_a_set(storage: Storage) -> None:
    storage.do(StoreAdd("s", "m", NOW_MS), StorePut("v", "1", NOW_MS))
    wrong = [
        put(storage, "s", "x"), storage.one(StoreIncr("s", 1, NOW_MS)), get(storage, "s"), members(storage, "v"),
        storage.one(StoreAdd("v", "m", NOW_MS)), storage.one(StoreRemove("v", "m", NOW_MS)),
    ]  # fmt: skip
    assert [result.code for result in wrong] == ["invalid"] * 6
    assert storage.do(StoreCas("s", None, "x", NOW_MS), StoreCas("s", "", "x", NOW_MS)) == [False, False]
    assert (members(storage, "s"), get(storage, "v")) == (["m"], "1")


def test_an_expired_key_is_missing_everywhere(storage: Storage) -> None:
    def expired(key: str) -> StorePut:
        return StorePut(key, "5", NOW_MS, 30.0)

    at = NOW_MS + 30_000
    storage.do(*(expired(key) for key in ("get", "incr", "cas", "gone", "delete", "add", "live")))
    assert get(storage, "get", at - 1) == "5"
    assert get(storage, "get", at) is None
    assert keys(storage, "", at) == []
    assert storage.do(
        StoreIncr("incr", 1, at), StoreCas("cas", "5", "6", at), StoreCas("cas", None, "7", at),
        StoreCas("gone", "5", None, at), StoreDelete("delete", at), StoreAdd("add", "m", at),
        StoreIncr("live", 1, at - 1),
    ) == ["1", False, True, False, False, True, "6"]  # fmt: skip
    assert keys(storage, "", at) == ["add", "cas", "incr"]


def test_counting_and_swapping_keep_the_expiry_and_putting_sets_it_anew(storage: Storage) -> None:
    for key in ("counted", "swapped", "put"):
        put(storage, key, "1", 30.0)
    storage.do(StoreIncr("counted", 1, NOW_MS), StoreCas("swapped", "1", "2", NOW_MS), StorePut("put", "2", NOW_MS))
    assert keys(storage, "", NOW_MS + 30_000) == ["put"]


def test_lists_go_page_by_page_in_the_order_of_bytes(storage: Storage) -> None:
    names = ["a", "a/1", "a/10", "a/2", "a0", "a/é", "a/\x00", "b", "A/1"]
    storage.do(*(StorePut(name, "v", NOW_MS) for name in names))
    wanted = sorted((name for name in names if name.startswith("a/")), key=str.encode)
    found: list[str] = []
    after = None
    while True:
        page = storage.database.read(lambda c, at=after: kv.list_keys(c, "a/", 2, at, NOW_MS))  # type: ignore[misc]
        assert len(page.keys) <= 2
        found += page.keys
        if page.next is None:
            break
        after = page.next
    assert found == wanted


@pytest.mark.parametrize("prefix", ["%", "_", "a%", "\\", "🦄", "\U0010ffff"])
def test_a_prefix_is_no_pattern(storage: Storage, prefix: str) -> None:
    storage.do(*(StorePut(name, "v", NOW_MS) for name in ("abc", prefix, prefix + "x")))
    assert keys(storage, prefix) == sorted([prefix, prefix + "x"])


def test_many_are_all_or_none(storage: Storage) -> None:
    put(storage, "text", "no number")
    good = (StorePut("a", "1", NOW_MS), StoreIncr("a", 1, NOW_MS), StoreAdd("s", "m", NOW_MS))
    refused = storage.one(StoreMany((*good, StoreIncr("text", 1, NOW_MS)), NOW_MS))
    assert isinstance(refused, StoreRefused)
    assert refused.message.startswith("operation 4: ")
    assert keys(storage) == ["text"]
    assert storage.one(StoreMany((*good, StoreCas("a", "9", "0", NOW_MS)), NOW_MS)) == [None, "2", True, False]
    assert keys(storage) == ["a", "s", "text"]


def test_refused_many_in_a_batch_undoes_only_itself(storage: Storage) -> None:
    bad = StoreMany((StorePut("b", "1", NOW_MS), StorePut("", "1", NOW_MS)), NOW_MS)
    storage.send(storage.batch([new_run()], [StorePut("a", "1", NOW_MS), bad, StorePut("c", "1", NOW_MS)]))
    assert keys(storage) == ["a", "c"]
    assert len(storage.rows("runs")) == 1


REPLAYED: list[tuple[StoreOperation | StoreMany, Any]] = [
    (StorePut("k", "v", NOW_MS, None, once()), None),
    (StoreDelete("k", NOW_MS, once()), False),
    (StoreIncr("k", 3, NOW_MS, once()), "3"),
    (StoreCas("k", None, "v", NOW_MS, once()), True),
    (StoreAdd("k", "m", NOW_MS, once()), True),
    (StoreRemove("k", "m", NOW_MS, once()), False),
    (StoreMany((StoreIncr("k", 1, NOW_MS), StoreAdd("s", "m", NOW_MS)), NOW_MS, once()), ["1", True]),
]


@pytest.mark.parametrize(("operation", "result"), REPLAYED, ids=[type(row[0]).__name__ for row in REPLAYED])
def test_a_resend_gets_the_first_answer_and_counts_once(
    storage: Storage, operation: StoreOperation, result: Any
) -> None:
    assert storage.one(operation) == result
    after_first = storage.everything()
    assert storage.one(operation) == result
    assert storage.do(operation, operation) == [result, result]
    storage.reopen()
    assert storage.one(operation) == result
    assert storage.everything() == after_first


def test_a_resend_in_the_same_batch_counts_once(storage: Storage) -> None:
    operation = StoreIncr("n", 1, NOW_MS, once())
    other_body = StoreIncr("n", 5, NOW_MS, once(body=b"other"))
    assert storage.do(operation, other_body, operation) == ["1", KeyReused("call"), "1"]
    assert get(storage, "n") == "1"


def test_a_key_used_for_another_body_is_refused(storage: Storage) -> None:
    storage.one(StoreIncr("n", 1, NOW_MS, once()))
    assert storage.one(StoreIncr("n", 2, NOW_MS, once(body=b"other"))) == KeyReused("call")
    assert get(storage, "n") == "1"


def test_a_key_counts_until_it_expires(storage: Storage) -> None:
    first = StoreIncr("n", 1, NOW_MS, once(expires_ms=NOW_MS + 10))
    assert storage.one(first) == "1"
    assert storage.one(StoreIncr("n", 1, NOW_MS + 9, once(expires_ms=LATER_MS))) == "1"
    assert storage.one(StoreIncr("n", 1, NOW_MS + 10, once(expires_ms=LATER_MS))) == "2"
    assert storage.one(StoreIncr("n", 1, NOW_MS + 11, once(expires_ms=LATER_MS))) == "2"


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, 2.0**31, 1e30])
def test_a_time_that_no_key_can_live_names_both_its_bounds(storage: Storage, ttl_s: float) -> None:
    refused = storage.one(StorePut("k", "v", NOW_MS, ttl_s))
    assert isinstance(refused, StoreRefused)
    assert "above 0 and below 2147483648" in refused.message


def test_a_refusal_is_not_remembered(storage: Storage) -> None:
    put(storage, "n", "text")
    operation = StoreIncr("n", 1, NOW_MS, once())
    assert isinstance(storage.one(operation), StoreRefused)
    put(storage, "n", "1")
    assert storage.one(operation) == "2"


def test_pruning_takes_what_expired_in_slices(storage: Storage) -> None:
    for number in range(7):
        storage.one(StorePut(f"k{number}", "v", NOW_MS, 1.0, once(f"c{number}", expires_ms=NOW_MS + 1_000)))
    storage.one(StorePut("stays", "v", NOW_MS, 100.0, once("stays")))
    assert storage.one(Prune(NOW_MS + 999, 5)) == 0
    assert [storage.one(Prune(NOW_MS + 1_000, 5)) for _ in range(3)] == [10, 4, 0]
    assert (len(storage.rows("kv")), len(storage.rows("idempotency"))) == (1, 1)
    assert get(storage, "stays") == "v"


def test_limits_are_those_given(backend: str, tmp_path: Any) -> None:
    import dataclasses

    limits = dataclasses.replace(DEFAULT_LIMITS, store_key_bytes_max=4, store_value_bytes_max=3)
    small = Storage(tmp_path / "small", limits)
    assert small.do(StorePut("1234", "123", NOW_MS))[0] is None
    assert [result.code for result in small.do(StorePut("12345", "1", NOW_MS), StorePut("k", "1234", NOW_MS))] == [
        "invalid",
        "too_large",
    ]
    small.close()
