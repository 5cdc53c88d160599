"""Reading the store. Writes are operations of `titan.model.store` in a batch. Expired keys read as missing."""

from sqlalchemy import Connection

from titan.model.store import KeyPage, StoreRefused, Value


def get(connection: Connection, key: str, now_ms: int) -> Value | StoreRefused | None:
    """Return the value as the type that was put; None when missing; refused when `key` holds a set."""
    raise NotImplementedError(connection, key, now_ms)


def get_many(connection: Connection, keys: list[str], now_ms: int) -> list[Value | StoreRefused | None]:
    """Return `get` of each key, in order."""
    raise NotImplementedError(connection, keys, now_ms)


def list_keys(connection: Connection, prefix: str, limit: int, after: str | None, now_ms: int) -> KeyPage:
    """Return keys (of values and sets) that begin with `prefix`, from behind `after` on, `limit` at most."""
    raise NotImplementedError(connection, prefix, limit, after, now_ms)


def members(connection: Connection, key: str, now_ms: int) -> list[str] | StoreRefused:
    """Return the members of the set at `key`, sorted; empty when missing; refused when it holds a value."""
    raise NotImplementedError(connection, key, now_ms)
