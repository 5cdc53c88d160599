"""TitanStore: the durable key-value store that all jobs of a Master share."""

from __future__ import annotations

from titan_sdk.api import Api, text_of_id
from titan_sdk.errors import Invalid
from titan_sdk.feeds import follow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PAGE_KEYS = 1_000


class StoreCalls(Api):
    """The calls of TitanClient that read and write the store.

    Keys are any text of 1 to 512 bytes. Values are text or bytes up to 1 MiB and come back as they were put. A
    missing key is None. When a call has returned, what it wrote is on the Master's disk.
    """

    def store_put(self, key: str, value: str | bytes, ttl_s: float | None = None) -> None:
        """Write `value`; after `ttl_s` seconds, if given, the key reads as missing.

        Example: ``client.store_put("attempts", "0")``. Raises Invalid for a value that is neither text nor bytes.
        """
        document = {"key": text_of_id(key, "key"), **_typed(value, "value")}
        if ttl_s is not None:
            document["ttl_s"] = ttl_s
        self._post("store/put", document)

    def store_get(self, key: str) -> str | bytes | None:
        """Return the value, as text or bytes just as it was put; None when the key is missing.

        Example: ``int(client.store_get("attempts") or 0)``.
        """
        return _value(self._post("store/get", {"key": text_of_id(key, "key")}, changes=False))

    def store_delete(self, key: str) -> bool:
        """Remove the key; return whether it was there. Example: ``client.store_delete("attempts")``."""
        return bool(self._post("store/delete", {"key": text_of_id(key, "key")})["deleted"])

    def store_incr(self, key: str, by: int = 1) -> int:
        """Add `by` to a decimal number, a missing key counting from 0; return the new number.

        The value stays text. In a job's main process it counts once, even when a later attempt runs the line again.
        Example: ``client.store_incr("pages")``. Raises Invalid when the value is not a decimal number.
        """
        return int(self._post("store/incr", {"key": text_of_id(key, "key"), "by": by}, call="incr")["value"])

    def store_cas(self, key: str, expect: str | bytes | None, value: str | bytes | None) -> bool:
        """Write `value` only if the key now has `expect`; return whether it did. None means missing, in both places.

        Example: ``client.store_cas("leader", None, "me")`` is True for one caller only.
        """
        document = {
            "key": text_of_id(key, "key"),
            "expect": None if expect is None else _typed(expect, "expect"),
            "value": None if value is None else _typed(value, "value"),
        }
        return bool(self._post("store/cas", document)["swapped"])

    def store_sadd(self, key: str, member: str) -> bool:
        """Add `member` to the set at `key`; return whether it is new. Example: ``client.store_sadd("seen", url)``."""
        return bool(
            self._post("store/sadd", {"key": text_of_id(key, "key"), "member": text_of_id(member, "member of a set")})[
                "changed"
            ]
        )

    def store_srem(self, key: str, member: str) -> bool:
        """Take `member` out of the set; return whether it was in. Example: ``client.store_srem("seen", url)``."""
        return bool(
            self._post("store/srem", {"key": text_of_id(key, "key"), "member": text_of_id(member, "member of a set")})[
                "changed"
            ]
        )

    def store_smembers(self, key: str) -> set[str]:
        """Return the set at `key`, empty when the key is missing. Example: ``len(client.store_smembers("seen"))``."""
        return set(self._post("store/smembers", {"key": text_of_id(key, "key")}, changes=False)["members"])

    def store_list(self, prefix: str = "") -> list[str]:
        """Return all keys that begin with `prefix`, sorted. Example: ``client.store_list("agent:")``."""
        keys: list[str] = []
        after: str | None = None
        while True:
            document = {"prefix": text_of_id(prefix, "prefix"), "limit": PAGE_KEYS, "after": after}
            page = self._post("store/list", document, changes=False)
            keys.extend(page["keys"])
            after = page["next"]
            if after is None:
                return keys

    def store_watch(self, prefix: str = "") -> Iterator[dict[str, Any]]:
        """Yield a dict for each key beginning with `prefix` that is written from now on, without end.

        It names the key, not the value: `store_get` reads that. Kind "resync": some may have been missed.
        Example: ``for event in client.store_watch("agent:"): print(event["key"])``.
        """
        return follow(self._transport, "store/watch", {"prefix": text_of_id(prefix, "prefix")}, None)


def _typed(value: Any, what: str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"value": value, "kind": "text"}
    if not isinstance(value, (bytes, bytearray, memoryview)):
        name = type(value).__name__
        raise Invalid(
            f"{what} is {value!r}, of type {name}: the store keeps text or bytes", hint=f"str({what}), or JSON text"
        )
    from base64 import b64encode

    return {"value": b64encode(value).decode(), "kind": "bytes"}


def _value(answer: dict[str, Any]) -> str | bytes | None:
    value: str | None = answer["value"]
    if value is None or answer["kind"] == "text":
        return value
    from base64 import b64decode

    return b64decode(value)
