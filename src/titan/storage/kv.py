"""The store: reads on any connection, writes inside a batch's transaction.

One flat namespace of keys (text, kept as its UTF-8 bytes) with exact values: text comes back as text, bytes as
bytes. A key holds a value or a set, never both. What has expired reads as missing everywhere, whether or not
its row is gone already. A write that cannot be done raises `Refused` before it changes anything.
"""

import re

from sqlalchemy import bindparam, delete, select, text, update

from titan.model.ids import shown
from titan.model.limits import Limits, change
from titan.model.store import (
    KeyPage,
    StoreAdd,
    StoreCas,
    StoreDelete,
    StoreIncr,
    StorePut,
    StoreRefused,
    StoreRemove,
    Value,
)
from titan.storage.connection import Connection, Statement
from titan.storage.tables import kv, kv_sets

TEXT, BYTES, SET = "t", "b", "s"
DIGITS_MAX = 4_000  # of a counter: Python turns at most 4,300 into a number
_TOO_LARGE = 10**DIGITS_MAX
_NUMBER = re.compile(rb"-?[0-9]{1,%d}" % DIGITS_MAX)
_AFTER_ALL = b"\xff"  # no UTF-8 text begins with this byte

_by_key = kv.c.key == bindparam("k")
_GET = Statement(select(kv.c.kind, kv.c.value, kv.c.expires_ms).where(_by_key), "k")
_LIST = Statement(
    select(kv.c.key)
    .where(kv.c.key >= bindparam("low"), kv.c.key > bindparam("after"), kv.c.key < bindparam("high"))
    .where((kv.c.expires_ms == None) | (kv.c.expires_ms > bindparam("now")))  # noqa: E711
    .order_by(kv.c.key)
    .limit(bindparam("limit")),
    "low",
    "after",
    "high",
    "now",
    "limit",
)
_PUT = Statement(
    text(
        "INSERT INTO kv (key, kind, value, expires_ms) VALUES (:k, :kind, :value, :expires)"
        " ON CONFLICT (key) DO UPDATE SET kind = excluded.kind, value = excluded.value,"
        " expires_ms = excluded.expires_ms WHERE kv.kind <> 's'"
    ),
    "k",
    "kind",
    "value",
    "expires",
)
_CREATE = Statement(
    text(
        "INSERT INTO kv (key, kind, value, expires_ms) VALUES (:k, :kind, :value, NULL)"
        " ON CONFLICT (key) DO UPDATE SET kind = excluded.kind, value = excluded.value, expires_ms = NULL"
        " WHERE kv.expires_ms <= :now"
    ),
    "k",
    "kind",
    "value",
    "now",
)
_SWAP = Statement(
    update(kv)
    .where(_by_key, kv.c.kind == bindparam("old_kind"), kv.c.value == bindparam("old_value"))
    .where((kv.c.expires_ms == None) | (kv.c.expires_ms > bindparam("now")))  # noqa: E711
    .values(kind=bindparam("new_kind"), value=bindparam("new_value")),
    "new_kind",
    "new_value",
    "k",
    "old_kind",
    "old_value",
    "now",
)
_TAKE = Statement(
    delete(kv)
    .where(_by_key, kv.c.kind == bindparam("old_kind"), kv.c.value == bindparam("old_value"))
    .where((kv.c.expires_ms == None) | (kv.c.expires_ms > bindparam("now"))),  # noqa: E711
    "k",
    "old_kind",
    "old_value",
    "now",
)
_SET_VALUE = Statement(update(kv).where(_by_key).values(value=bindparam("new_value")), "new_value", "k")
_DELETE = Statement(delete(kv).where(_by_key), "k")
_MEMBERS = Statement(select(kv_sets.c.member).where(kv_sets.c.key == bindparam("k")).order_by(kv_sets.c.member), "k")
_ANY_MEMBER = Statement(select(kv_sets.c.key).where(kv_sets.c.key == bindparam("k")).limit(1), "k")
_ADD = Statement(
    text("INSERT INTO kv_sets (key, member) VALUES (:k, :m) ON CONFLICT (key, member) DO NOTHING"), "k", "m"
)
_REMOVE = Statement(
    delete(kv_sets).where(kv_sets.c.key == bindparam("k"), kv_sets.c.member == bindparam("m")), "k", "m"
)
_CLEAR = Statement(delete(kv_sets).where(kv_sets.c.key == bindparam("k")), "k")


def get(connection: Connection, key: str, now_ms: int) -> Value | StoreRefused | None:
    """Return the value as the type that was put; None when missing; refused when `key` holds a set."""
    found = _living(connection, key.encode("utf-8", "surrogatepass"), now_ms)
    if found is None:
        return None
    kind, value = found
    if kind == SET:
        return _wrong_type(key, "a set: ask for its members").result
    return str(value, "utf-8") if kind == TEXT else bytes(value)


def list_keys(connection: Connection, prefix: str, limit: int, after: str | None, now_ms: int) -> KeyPage:
    """Return keys (of values and sets) that begin with `prefix`, from behind `after` on, `limit` at most."""
    low = prefix.encode("utf-8", "surrogatepass")
    high = low[:-1] + bytes([low[-1] + 1]) if low else _AFTER_ALL
    behind = (after or "").encode("utf-8", "surrogatepass")
    found = [str(row[0], "utf-8") for row in connection.rows(_LIST, low, behind, high, now_ms, limit + 1)]
    return KeyPage(found[:limit], found[limit - 1] if len(found) > limit else None)


def members(connection: Connection, key: str, now_ms: int) -> list[str] | StoreRefused:
    """Return the members of the set at `key`, sorted by their UTF-8 bytes; empty when missing; refused for a value."""
    name = key.encode("utf-8", "surrogatepass")
    found = _living(connection, name, now_ms)
    if found is None:
        return []
    if found[0] != SET:
        return _wrong_type(key, "a value, not a set: get it, or use another key").result
    return [str(row[0], "utf-8") for row in connection.rows(_MEMBERS, name)]


def put(connection: Connection, operation: StorePut, limits: Limits) -> None:
    """Carry out `StorePut`."""
    name, kind, value = _key(operation.key, limits), *_stored(operation.value, limits)
    expires_ms = None
    if operation.ttl_s is not None:
        if not 0 < operation.ttl_s < 2**31:
            raise Refused(
                "invalid",
                f"ttl_s is {operation.ttl_s}: give seconds above 0 and below {2**31}, or leave it out to keep the key",
            )
        expires_ms = operation.now_ms + max(1, int(operation.ttl_s * 1000))
    if not connection.change(_PUT, name, kind, value, expires_ms):
        raise _wrong_type(operation.key, "a set: delete it first")


def remove(connection: Connection, operation: StoreDelete, limits: Limits) -> bool:
    """Carry out `StoreDelete`."""
    name = _key(operation.key, limits)
    found = _living(connection, name, operation.now_ms)
    connection.change(_DELETE, name)
    if found is not None and found[0] == SET:
        connection.change(_CLEAR, name)
    return found is not None


def incr(connection: Connection, operation: StoreIncr, limits: Limits) -> str:
    """Carry out `StoreIncr`."""
    name = _key(operation.key, limits)
    found = _living(connection, name, operation.now_ms)
    kind, value = found or (TEXT, b"0")
    if kind != TEXT or not _NUMBER.fullmatch(value):
        raise _wrong_type(
            operation.key,
            "something that is no whole decimal number as text: count under another key, or delete it first",
        )
    if abs(operation.by) >= _TOO_LARGE:
        raise Refused("invalid", f"by has more than {DIGITS_MAX} digits: give a smaller number")
    total = int(value) + operation.by
    if abs(total) >= _TOO_LARGE:
        raise Refused("invalid", f"the sum has more than {DIGITS_MAX} digits: give a smaller number")
    result = str(total)
    if found is None:
        connection.change(_PUT, name, TEXT, result.encode(), None)
    else:
        connection.change(_SET_VALUE, result.encode(), name)
    return result


def cas(connection: Connection, operation: StoreCas, limits: Limits) -> bool:
    """Carry out `StoreCas`: one statement, whose row count is the answer."""
    name = _key(operation.key, limits)
    new = None if operation.value is None else _stored(operation.value, limits)
    if operation.expect is None:
        if new is None:
            return _living(connection, name, operation.now_ms) is None
        return connection.change(_CREATE, name, *new, operation.now_ms) == 1
    old = _stored(operation.expect, limits)
    if new is None:
        return connection.change(_TAKE, name, *old, operation.now_ms) == 1
    return connection.change(_SWAP, *new, name, *old, operation.now_ms) == 1


def add(connection: Connection, operation: StoreAdd, limits: Limits) -> bool:
    """Carry out `StoreAdd`."""
    name, member = _key(operation.key, limits), _key(operation.member, limits, "member")
    found = _living(connection, name, operation.now_ms)
    if found is None:
        connection.change(_PUT, name, SET, b"", None)
    elif found[0] != SET:
        raise _wrong_type(operation.key, "a value, not a set: get it, or use another key")
    return connection.change(_ADD, name, member) == 1


def discard(connection: Connection, operation: StoreRemove, limits: Limits) -> bool:
    """Carry out `StoreRemove`."""
    name, member = _key(operation.key, limits), _key(operation.member, limits, "member")
    found = _living(connection, name, operation.now_ms)
    if found is not None and found[0] != SET:
        raise _wrong_type(operation.key, "a value, not a set: get it, or use another key")
    removed = connection.change(_REMOVE, name, member) == 1
    if removed and connection.row(_ANY_MEMBER, name) is None:
        connection.change(_DELETE, name)
    return removed


class Refused(Exception):
    """Carries a `StoreRefused` out of a check; nothing was changed yet."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.result = StoreRefused(code, message)


def _living(connection: Connection, name: bytes, now_ms: int) -> tuple[str, bytes] | None:
    row = connection.row(_GET, name)
    if row is None or (row[2] is not None and row[2] <= now_ms):
        return None
    return row[0], row[1]


def _key(key: str, limits: Limits, what: str = "key") -> bytes:
    name = _utf8(key, what)
    if 1 <= len(name) <= limits.store_key_bytes_max:
        return name
    raise Refused("invalid", key_message(key, limits, what))


def key_message(key: str, limits: Limits, what: str = "key") -> str:
    """Return the words for a key or member that is empty or too long."""
    size = len(key.encode())
    text = f"the {what} {shown(key)} has {size} bytes as UTF-8: give 1 to {limits.store_key_bytes_max}"
    return f"{text} ({change('store_key_bytes_max')})" if size else text


def _stored(value: Value, limits: Limits) -> tuple[str, bytes]:
    kind, data = (TEXT, _utf8(value, "value")) if isinstance(value, str) else (BYTES, value)
    if len(data) > limits.store_value_bytes_max:
        raise Refused(
            "too_large",
            f"the value has {len(data)} bytes: at most {limits.store_value_bytes_max}; keep larger content in a file"
            f" ({change('store_value_bytes_max')})",
        )
    return kind, data


def _utf8(value: str, what: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise Refused("invalid", f"the {what} is no Unicode text ({error.reason} at {error.start})") from error


def _wrong_type(key: str, holds: str) -> Refused:
    return Refused("invalid", f"{shown(key)} holds {holds}")
