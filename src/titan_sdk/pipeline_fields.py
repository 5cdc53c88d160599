"""The fields of a pipeline file: one table, from which files are read and the documentation's table is checked.

A field has the name that users of pipeline files know; the name that TitanJob gives it is understood as well. Ranges
that an operator can change are left to the Master.
"""

from __future__ import annotations

import re

from titan_sdk.pipeline_words import nearest, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from titan_sdk.pipeline_nodes import Node, Place

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_BAD_IN_ID = re.compile(r"[^A-Za-z0-9._-]")
_WHOLE = re.compile(r"\+?[0-9]{1,15}")
_NUMBER = re.compile(r"\+?([0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15})")
_TIME = re.compile(r"([0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15}) *(ms|s|m|h|d)?")
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
TYPES = ("run",)
TYPES_LATER = {"service": "services"}
TYPES_OF_JOB = {"run": "RUN_PAYLOAD", "RUN_PAYLOAD": "RUN_PAYLOAD", "TASK": "TASK"}


class Wrong(Exception):
    """A value that its field does not take: `message` says what it is and what is expected, `place` where."""

    def __init__(self, message: str, place: Place, code: str = "invalid") -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.code = code


class Field:
    """A field: its name, how its value is read, the name TitanJob has for it, and what it is by default."""

    __slots__ = ("default", "job_field", "name", "read", "takes")

    def __init__(
        self, name: str, takes: str, default: str, read: Callable[[str, Node], Any], job_field: str = ""
    ) -> None:
        self.name = name
        self.takes = takes
        self.default = default
        self.read = read
        self.job_field = job_field or name


def text_of(field: str, node: Node) -> str:
    """Return a scalar as it was written."""
    if node.kind == "text" and not node.is_null:
        return node.text
    raise _wrong(field, node, "text")


def texts_of(field: str, node: Node) -> list[str]:
    """Return the texts of a list, or the one text that stands alone."""
    if node.kind == "text" and not node.is_null:
        return [node.text]
    if node.kind != "list":
        raise _wrong(field, node, "a list of texts")
    for item in node.items:
        if item.kind != "broken" and (item.kind != "text" or item.is_null):
            raise _wrong(f"an item of {field}", item, "text")
    return [item.text for item in node.items]


def _id(field: str, node: Node) -> str:
    text = text_of(field, node)
    if ID.fullmatch(text):
        return text
    bad = _BAD_IN_ID.search(text)
    if not text:
        why = "is empty: give letters, digits, '.', '_' or '-'"
    elif bad:
        why = f"has the character {bad.group()!a}: use letters, digits, '.', '_' and '-'"
    elif len(text) > 128:
        why = f"has {len(text)} characters: at most 128 are allowed"
    else:
        why = f"begins with {text[0]!r}: begin with a letter or a digit"
    raise Wrong(f"{field} {shown(text)} {why}", node.place)


def _file(field: str, node: Node) -> str:
    text = text_of(field, node)
    if "\0" in text or text.replace("\\", "/").rsplit("/", 1)[-1] in ("", ".", ".."):
        raise Wrong(
            f"{field} {shown(text)} names no file: give the path of a script, from this file's folder", node.place
        )
    return text


def _type(field: str, node: Node) -> str:
    text = text_of(field, node)
    if text in TYPES_OF_JOB:
        return TYPES_OF_JOB[text]
    if text in TYPES_LATER:
        message = f"{field} {text}: {TYPES_LATER[text]}, not available in this version; leave the job out"
        raise Wrong(message, node.place, "unsupported")
    raise Wrong(f"{field} is {shown(text)}: give {' or '.join(TYPES)}", node.place)


def _args(field: str, node: Node) -> str | list[str]:
    if node.kind == "list":
        return texts_of(field, node)
    if node.kind != "text" or node.is_null:
        raise _wrong(field, node, "text or a list of texts")
    text = node.text
    import shlex

    try:
        return shlex.split(text)
    except ValueError as error:
        message = f"{field} {shown(text)} cannot be split as a shell would: {str(error).lower()}; give a list instead"
        raise Wrong(message, node.place) from None


def _whole(field: str, node: Node) -> int:
    text = text_of(field, node) if node.kind == "text" else ""
    if not _WHOLE.fullmatch(text):
        raise _wrong(field, node, "a whole number, 0 or more")
    return int(text)


def _number(field: str, node: Node) -> float:
    text = text_of(field, node) if node.kind == "text" else ""
    if not _NUMBER.fullmatch(text):
        raise _wrong(field, node, "a number of seconds, 0 or more")
    return float(text)


def _delay(field: str, node: Node) -> int:
    text = text_of(field, node) if node.kind == "text" else ""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise _wrong(field, node, "seconds, or text such as 500ms, 2s, 5m, 1h")
    return round(float(found[1]) * _UNITS_MS[found[2] or "s"])


def truth_of(field: str, node: Node) -> bool:
    """Return what true or false, in YAML's words, means."""
    text = text_of(field, node).lower() if node.kind == "text" else ""
    if text not in _TRUTH:
        raise _wrong(field, node, "true or false")
    return _TRUTH[text]


def _on_lost(field: str, node: Node) -> str:
    text = text_of(field, node)
    if text not in ("retry", "fail"):
        raise Wrong(f"{field} is {shown(text)}: give retry or fail{nearest(text, ('retry', 'fail'))}", node.place)
    return text


def _env(field: str, node: Node) -> dict[str, str]:
    if node.kind != "map":
        raise _wrong(field, node, "a mapping such as NAME: value")
    found = {}
    for key, value in node.entries:
        if value.kind != "broken" and (value.kind != "text" or value.is_null):
            raise _wrong(f"{field} {shown(key.text)}", value, 'text ("" for empty text)')
        if not key.text or "=" in key.text or key.text.startswith("TITAN_"):
            why = "names are not empty, hold no '=' and do not begin with TITAN_"
            raise Wrong(f"{field} name {shown(key.text)} is not possible: {why}", key.place)
        found[key.text] = value.text
    return found


def _wrong(field: str, node: Node, expected: str) -> Wrong:
    if node.kind == "list":
        what = "a list"
    elif node.kind == "map":
        what = "a mapping"
    else:
        what = "empty" if node.is_null else shown(node.text)
    return Wrong(f"{field} is {what}: give {expected}", node.place)


JOB = {
    field.name: field
    for field in (
        Field("id", "text", "must be there", _id, "job_id"),
        Field("file", "path", "must be there", _file, "filename"),
        Field("type", "`run`", "`run`", _type, "job_type"),
        Field("depends_on", "list of ids", "none", texts_of, "parents"),
        Field("args", "text or list", "none", _args),
        Field("requirement", "tag or list", "`GENERAL`", texts_of),
        Field("priority", "whole number", "`1`", _whole),
        Field("delay", "seconds or text", "`0`", _delay),
        Field("affinity", "true or false", "`false`", truth_of),
        Field("affinity_wait_s", "seconds", "`60`", _number),
        Field("retries", "whole number", "`0`", _whole),
        Field("retry_backoff_s", "seconds", "`1`", _number),
        Field("timeout_s", "seconds", "no limit", _number),
        Field("lease_s", "whole number", "`60`", _whole),
        Field("on_lost", "`retry` or `fail`", "`retry`", _on_lost),
        Field("env", "mapping of text", "none", _env),
        Field("reap", "true or false", "`false`", truth_of),
        Field("warm", "true or false", "`true`", truth_of),
    )
}
NAME_OF = {field.job_field: field.name for field in JOB.values()}
TOP = ("name", "version", "project", "jobs")
