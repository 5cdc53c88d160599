"""What the stateful suite believes of the store, as a dict: the model, what is drawn, and how it travels."""

import base64
import re
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.api.stateful_model import INVALID, Dict, Refusal

keys = st.sampled_from(["a", "b", "a/../ü?"])
texts = st.one_of(st.integers(-20, 20).map(str), st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
values = st.one_of(texts, st.binary(max_size=4))
members = st.sampled_from("xyü")
writes = st.one_of(
    st.tuples(st.just("put"), keys, st.fixed_dictionaries({"value": values})),
    st.tuples(st.just("delete"), keys, st.just({})),
    st.tuples(st.just("incr"), keys, st.fixed_dictionaries({"by": st.integers(-3, 3)})),
    st.tuples(st.sampled_from(["sadd", "srem"]), keys, st.fixed_dictionaries({"member": members})),
)
swaps = st.tuples(keys, st.sampled_from(["held", "held", "text", "bytes", "none"]), st.none() | values)


class Store:
    """The store: key -> text, bytes or a set. An operation is its JSON, with values as they are."""

    def __init__(self) -> None:
        self.values: dict[str, str | bytes | set[str]] = {}

    def refuse(self, word: str, key: str) -> Refusal:
        """A key holds a value or a set, and only decimal text counts."""
        held = self.values.get(key)
        wrong = {
            "get": isinstance(held, set),
            "put": isinstance(held, set),
            "incr": held is not None and not (isinstance(held, str) and re.fullmatch("-?[0-9]{1,4000}", held)),
            "sadd": held is not None and not isinstance(held, set),
            "srem": held is not None and not isinstance(held, set),
            "smembers": held is not None and not isinstance(held, set),
        }
        return INVALID if wrong.get(word) else None

    def do(self, word: str, key: str, **more: Any) -> Any:
        """Carry out one operation and return its result."""
        held = self.values.get(key)
        match word:
            case "get":
                return held
            case "put":
                self.values[key] = more["value"]
                return True
            case "delete":
                return self.values.pop(key, None) is not None
            case "incr":
                self.values[key] = str(int(held or "0") + more["by"])  # type: ignore[arg-type]
                return self.values[key]
            case "cas":
                if held != more["expect"]:
                    return False
                self._set(key, more["value"])
                return True
            case "smembers":
                return sorted(held or (), key=lambda member: str(member).encode())
            case _:
                members = set(held or ())
                changed = (more["member"] in members) == (word == "srem")
                self._set(key, members ^ {more["member"]} if changed else members)
                return changed

    def _set(self, key: str, value: Any) -> None:
        if value is None or value == set():
            self.values.pop(key, None)
        else:
            self.values[key] = value


def coded(more: Dict) -> Dict:
    """Return an operation's fields as JSON carries them."""
    if "expect" in more:
        return {field: None if value is None else typed(value) for field, value in more.items()}
    return typed(more["value"]) if "value" in more else more


def typed(value: str | bytes) -> Dict:
    if isinstance(value, bytes):
        return {"value": base64.b64encode(value).decode(), "kind": "bytes"}
    return {"value": value, "kind": "text"}


ANSWERS: dict[str, Callable[[Any], Dict]] = {
    "get": lambda value: {"value": None, "kind": "text"} if value is None else typed(value),
    "put": lambda done: {"stored": done},
    "delete": lambda done: {"deleted": done},
    "incr": lambda value: {"value": value},
    "cas": lambda done: {"swapped": done},
    "smembers": lambda found: {"members": found},
    "sadd": lambda done: {"changed": done},
    "srem": lambda done: {"changed": done},
}


def told(word: str, result: Any) -> Dict:
    return ANSWERS[word](result)
