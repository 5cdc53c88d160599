"""The store. Its routes are asked thousands of times a second by one script, so they skip the framework.

Each is a plain ASGI application made by `_route`: a body is read and decoded, one function answers. The gate has
judged the caller before, and turns errors into answers.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from titan.master.api.site import Site, idempotency_key, page_rows, site_of
from titan.master.asgi import Receive, Scope, Send, answer
from titan.master.auth import FastRoute
from titan.master.bodies import JSON, decode, read_body, require_type
from titan.master.claims import KEEP_MS
from titan.master.operations import KEEP_MS as SHORT_MS
from titan.master.operations import done, key_for
from titan.model.ids import shown
from titan.model.limits import change
from titan.model.requests import (
    Cas,
    Delete,
    Get,
    Incr,
    ListKeys,
    Many,
    Operation,
    Put,
    SetAdd,
    SetMembers,
    SetRemove,
    Typed,
)
from titan.model.roles import Role
from titan.model.store import (
    IdempotencyKey,
    StoreAdd,
    StoreCas,
    StoreDelete,
    StoreIncr,
    StoreMany,
    StoreOperation,
    StorePut,
    StoreRemove,
    Value,
)
from titan.model.views import (
    StoreCasAnswer,
    StoreDeleteAnswer,
    StoreIncrAnswer,
    StoreKeys,
    StoreManyAnswer,
    StoreMembers,
    StorePutAnswer,
    StoreSetAnswer,
    StoreValue,
)
from titan.storage import kv
from titan_sdk.errors import Invalid

B = TypeVar("B")
Act = Callable[["Call", B], Awaitable[object]]
_PUT_DONE = StorePutAnswer()
_READS = (Get, SetMembers)


class Call(msgspec.Struct, frozen=True, gc=False):
    """One request to the store."""

    site: Site
    scope: Any
    body: bytes

    def once(self, now_ms: int, keep_ms: int = SHORT_MS) -> IdempotencyKey | None:
        """Return the caller's idempotency key, if it sent one."""
        key = idempotency_key(self.scope)
        return None if key is None else key_for(key, self.scope["path"].encode() + b"\0" + self.body, now_ms, keep_ms)


def _route(name: str, kind: type[B], act: Act[B]) -> tuple[str, FastRoute]:
    """Return path and application of one route."""
    decoder = msgspec.json.Decoder(kind)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        site = site_of(scope)
        limits = site.engine.limits
        body = await read_body(scope, receive, limits, name)
        require_type(scope, JSON)
        await answer(send, await act(Call(site, scope, body), decode(decoder, body, limits)))

    word = name.removeprefix("store.")
    return f"/api/v1/store/{word}", FastRoute(f"store.{word}", application)


async def _get(call: Call, body: Get) -> StoreValue:
    """Return a value; null when the key is missing."""
    engine = call.site.engine
    found = engine.look(partial(kv.get, key=_key(call, body.key), now_ms=engine.clock().wall_ms))
    return _shown(done(found))


async def _members(call: Call, body: SetMembers) -> StoreMembers:
    """Return the members of a set, sorted; none when the key is missing."""
    return StoreMembers(done(await _read(call, partial(kv.members, key=_key(call, body.key)))))


async def _list(call: Call, body: ListKeys) -> StoreKeys:
    """Return the keys that begin with a prefix, sorted, page by page."""
    rows = page_rows(body.limit, call.site.engine.limits)
    page = await _read(call, partial(kv.list_keys, prefix=body.prefix, limit=rows, after=body.after))
    return StoreKeys(page.keys, page.next)


async def _write(call: Call, body: Put | Delete | Incr | Cas | SetAdd | SetRemove) -> object:
    """Do one write; answered when it is durable."""
    now_ms = call.site.engine.clock().wall_ms
    long = type(body) is Incr and call.scope["state"]["principal"].role is Role.JOB
    once = call.once(now_ms, KEEP_MS if long else SHORT_MS)
    result = await call.site.engine.mutate(_operation(body, now_ms, once))
    return _answer(body, done(result))


async def _many(call: Call, body: Many) -> StoreManyAnswer:
    """Do several operations: all reads, or all writes in one transaction (all of them or none)."""
    limit = call.site.engine.limits.store_many_max
    if len(body.operations) > limit:
        hint = f"send them in parts; {change('store_many_max')}"
        raise Invalid(f"{len(body.operations)} operations: at most {limit}", code="too_large", hint=hint)
    reads = [isinstance(operation, _READS) for operation in body.operations]
    if all(reads):
        for operation in body.operations:
            _key(call, operation.key)
        return StoreManyAnswer(await _read(call, partial(_read_many, operations=body.operations)))
    if any(reads):
        raise Invalid("reads and writes are mixed: send the reads in one call and the writes in another")
    now_ms = call.site.engine.clock().wall_ms
    writes = tuple(_operation(operation, now_ms, None) for operation in body.operations)
    results = done(await call.site.engine.mutate(StoreMany(writes, now_ms, call.once(now_ms))))
    return StoreManyAnswer([_answer(*pair) for pair in zip(body.operations, results, strict=True)])


def _read_many(connection: Any, operations: list[Operation], now_ms: int) -> list[object]:
    answers: list[object] = []
    for operation in operations:
        if isinstance(operation, SetMembers):
            answers.append(StoreMembers(done(kv.members(connection, operation.key, now_ms))))
        else:
            answers.append(_shown(done(kv.get(connection, operation.key, now_ms))))
    return answers


async def _read(call: Call, query: Callable[..., Any]) -> Any:
    engine = call.site.engine
    return await engine.read(partial(query, now_ms=engine.clock().wall_ms))


def _operation(body: Operation, now_ms: int, once: IdempotencyKey | None) -> StoreOperation:
    match body:
        case Put():
            return StorePut(body.key, _value(body), now_ms, body.ttl_s, once)
        case Delete():
            return StoreDelete(body.key, now_ms, once)
        case Incr():
            return StoreIncr(body.key, body.by, now_ms, once)
        case Cas():
            expect = None if body.expect is None else _value(body.expect)
            return StoreCas(body.key, expect, None if body.value is None else _value(body.value), now_ms, once)
        case SetAdd():
            return StoreAdd(body.key, body.member, now_ms, once)
        case SetRemove():
            return StoreRemove(body.key, body.member, now_ms, once)
        case _:
            raise Invalid("this operation does not write")


def _answer(body: Operation, result: Any) -> object:
    match body:
        case Put():
            return _PUT_DONE
        case Delete():
            return StoreDeleteAnswer(result)
        case Incr():
            return StoreIncrAnswer(result)
        case Cas():
            return StoreCasAnswer(result)
        case _:
            return StoreSetAnswer(result)


def _value(sent: Put | Typed) -> Value:
    if sent.kind == "text":
        return sent.value
    try:
        return base64.b64decode(sent.value, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid(f"the value {shown(sent.value)} is not base64: send the kind 'bytes' as base64") from None


def _shown(value: Value | None) -> StoreValue:
    if isinstance(value, bytes):
        return StoreValue(base64.b64encode(value).decode("ascii"), "bytes")
    return StoreValue(value)


def _key(call: Call, key: str) -> str:
    limits = call.site.engine.limits
    if not 1 <= len(key.encode()) <= limits.store_key_bytes_max:
        raise Invalid(kv.key_message(key, limits))
    return key


SHAPES: dict[str, tuple[type, type]] = {
    "store.get": (Get, StoreValue),
    "store.put": (Put, StorePutAnswer),
    "store.delete": (Delete, StoreDeleteAnswer),
    "store.incr": (Incr, StoreIncrAnswer),
    "store.cas": (Cas, StoreCasAnswer),
    "store.sadd": (SetAdd, StoreSetAnswer),
    "store.srem": (SetRemove, StoreSetAnswer),
    "store.smembers": (SetMembers, StoreMembers),
    "store.list": (ListKeys, StoreKeys),
    "store.many": (Many, StoreManyAnswer),
}
_ACTS: dict[type, Act[Any]] = {Get: _get, SetMembers: _members, ListKeys: _list, Many: _many}
FAST: dict[str, FastRoute] = dict(_route(name, kind, _ACTS.get(kind, _write)) for name, (kind, _) in SHAPES.items())
