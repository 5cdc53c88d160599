"""What every call is made of: a JSON body, an idempotency key, the transport."""

from __future__ import annotations

from titan_sdk.errors import Invalid
from titan_sdk.idempotency import call_key, random_key
from titan_sdk.transport import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from titan_sdk.transport import Transport


PAGE_ROWS = 1_000


class Api:
    """JSON requests on a transport; the base of the groups of calls that make up TitanClient."""

    _transport: Transport

    def _get(self, path: str, query: Mapping[str, Any] | None = None, wait_s: float = 0.0) -> Any:
        return self._transport.call("GET", path, query=query, wait_s=wait_s).json()

    def _post(self, path: str, document: Mapping[str, Any], *, call: str = "", changes: bool = True) -> Any:
        """Send `document`. `call`: take an idempotency key that is the same in each attempt of a job.

        `changes`: false for what only reads and so needs no key.
        """
        body = encode(document)
        key = call_key(call, body) if call else random_key() if changes else ""
        return self._transport.call("POST", path, body=body, key=key).json()

    def _pages(
        self, path: str, field: str, cursor: str, query: dict[str, Any], limit: int | None
    ) -> Iterator[dict[str, Any]]:
        left = limit
        after: str | None = None
        while left is None or left > 0:
            rows = PAGE_ROWS if left is None else min(left, PAGE_ROWS)
            page = self._get(path, {**query, "limit": rows, cursor: after})
            yield from page[field]
            after = page["next"]
            if after is None:
                return
            if left is not None:
                left -= len(page[field])


def encode(document: Mapping[str, Any]) -> bytes:
    """Return `document` as JSON. Raises Invalid when it holds what JSON has no word for."""
    import json

    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        for name, value in document.items():
            try:
                json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
            except (TypeError, ValueError) as wrong:
                raise Invalid(f"{name} cannot be sent: {why_not(value, wrong)}") from None
        raise Invalid(f"this cannot be sent: {error}", hint="give text, numbers, lists and dicts") from None


def why_not(value: Any, error: Exception) -> str:
    """Return why `value`, at which JSON's encoder raised `error`, cannot be sent, and what to give instead."""
    if isinstance(error, UnicodeError):
        return "it holds a lone surrogate, which is not text; leave it out"
    if isinstance(value, (bytes, bytearray)):
        return f"it is {bytes(value)!r}, of type {type(value).__name__}; give text"
    if isinstance(value, float):
        return f"it is {value}; give a finite number"
    return f"it is or holds what JSON has no word for ({str(error).rstrip('.')}); give text, numbers or lists"


def seconds(name: str, value: Any) -> None:
    """Raise Invalid unless `value` can be a number of seconds, or is None for no end."""
    if value is not None and (not isinstance(value, (int, float)) or value != value):
        raise Invalid(f"{name} is {value!r}", hint="give a number of seconds, or None for no end")


def count(name: str, value: Any) -> None:
    """Raise Invalid unless `value` can be a number of things."""
    if not isinstance(value, int) or value < 0:
        raise Invalid(f"{name} is {value!r}", hint="give a whole number, 0 or more")


def text_of_id(id: str, what: str = "id or name") -> str:  # noqa: A002
    """Return `id`. Raises Invalid unless it is text."""
    if not isinstance(id, str):
        raise Invalid(f"{id!r} is no {what}: it is of type {type(id).__name__}", hint="give it as text")
    return id


def segment(id: str) -> str:  # noqa: A002
    """Return an id or name as one segment of a path. Raises Invalid for what can be none."""
    text_of_id(id)
    if id in ("", ".", ".."):
        raise Invalid(f"{id!r} is no id or name", hint="give the text of one")
    return quoted(id)
