"""YAML text as a tree of nodes that know their place, made with every bound in force.

PyYAML gives events; the tree is built here, because its own composer follows aliases without a bound, keeps the
last of two equal keys and constructs objects from tags. A pipeline file needs text, lists and mappings only:

- no tags at all, so nothing is ever constructed;
- at most ALIASES_MAX aliases, and at most VALUES_MAX values once they are followed (billion laughs, merge bombs);
- at most DEPTH_MAX levels and FILE_BYTES_MAX bytes;
- a key twice in one mapping is a problem, and so is an alias of what does not exist or of itself.

A scalar stays the text that was written. What it means is decided by the field that reads it, so the `no` of a
country is never false and `1.10` never 1.1.

libyaml reads where it is there, being twenty times as quick. What it refuses is read again by PyYAML's own parser,
unless that would take long, so that a broken file is told about in the same words everywhere. libyaml is a little more
lenient, about tabs for example; what both read they read alike.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FILE_BYTES_MAX = 1024 * 1024
ALIASES_MAX = 100
VALUES_MAX = 500_000
DEPTH_MAX = 16
READ_AGAIN_CHARS_MAX = 64 * 1024
MERGE = "<<"
NULLS = frozenset(("", "~", "null", "Null", "NULL"))

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")

Place = tuple[int, int]


class Node:
    """A value and where it stands: `kind` is "text", "list", "map" or "broken" (told about already).

    `text` is a scalar as written; `is_null` says that it stands for nothing. `items` are the nodes of a list;
    `entries` the (key, value) pairs of a mapping, merged ones included. `size` counts the values below it.
    """

    __slots__ = ("column", "entries", "is_null", "items", "kind", "line", "refused", "size", "text")

    def __init__(self, kind: str, place: Place, text: str = "", *, is_null: bool = False) -> None:
        self.kind = kind
        self.line, self.column = place
        self.text = text
        self.is_null = is_null
        self.refused = False
        self.items: list[Node] = []
        self.entries: list[tuple[Node, Node]] = []
        self.size = 1

    @property
    def place(self) -> Place:
        """Its line and column, both from 1."""
        return self.line, self.column


class Unreadable(Exception):
    """Nothing of the file can be used: `message` says why, `place` where."""

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.message = message
        self.place = place


def lines_of(text: str) -> list[str]:
    """Return the lines of `text` as YAML counts them."""
    return _LINE_END.split(text)


def decoded(data: bytes) -> str:
    """Return the text of a file. Raises Unreadable when it is too long, not UTF-8, or holds control characters."""
    if len(data) > FILE_BYTES_MAX:
        raise Unreadable(
            f"the file is longer than {FILE_BYTES_MAX} bytes: build a DAG that large in Python, with submit_dag", (1, 1)
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _place_at(data[: error.start].decode("utf-8-sig", "replace"))
        raise Unreadable(f"the byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8", place) from None
    bad = _UNPRINTABLE.search(text)
    if bad:
        place = _place_at(text[: bad.start()])
        raise Unreadable(f"the control character {bad.group()!a} cannot stand in YAML: leave it out", place)
    return text


def tree_of(text: str, tell: Callable[[str, Place], None]) -> Node:
    """Return the root of the one document in `text`; what is wrong and does not hide the rest goes to `tell`.

    Raises Unreadable for what does, and ModuleNotFoundError where PyYAML is not installed.
    """
    import yaml  # type: ignore[import-untyped]

    quick = getattr(yaml, "CSafeLoader", None)
    if quick is not None:
        told: list[tuple[str, Place]] = []
        try:
            root = _Builder(yaml, lambda message, place: told.append((message, place))).build(text, quick)
        except yaml.MarkedYAMLError as error:
            if len(text) > READ_AGAIN_CHARS_MAX:
                raise _syntax(error) from None
        except yaml.YAMLError:
            pass
        else:
            for message, place in told:
                tell(message, place)
            return root
    try:
        return _Builder(yaml, tell).build(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise _syntax(error) from None
    except yaml.YAMLError as error:
        raise Unreadable(f"it is not YAML: {' '.join(str(error).split())}", (1, 1)) from None


def _syntax(error: Any) -> Unreadable:
    from titan_sdk.pipeline_words import in_words

    message, mark = in_words(error)
    return Unreadable(message, _place_of(mark) if mark else (1, 1))


class _Builder:
    """Builds the tree from events, without recursion."""

    def __init__(self, yaml: Any, tell: Callable[[str, Place], None]) -> None:
        self._yaml = yaml
        self._tell = tell
        self._open: list[Node] = []
        self._keys: list[Node | None] = []
        self._anchors: dict[str, Node] = {}
        self._aliases = 0
        self._total = 0
        self._before: list[int] = []
        self._root: Node | None = None

    def build(self, text: str, loader: Any) -> Node:
        """Return the root; raises Unreadable, or what PyYAML raises for what is no YAML."""
        yaml = self._yaml
        for event in yaml.parse(text, Loader=loader):
            place = _place_of(event.start_mark)
            if isinstance(event, yaml.ScalarEvent):
                plain = not event.style
                self._add(event, Node("text", place, event.value, is_null=plain and event.value in NULLS))
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event.anchor, place)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._begin(event, Node("map" if isinstance(event, yaml.MappingStartEvent) else "list", place))
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()
            elif isinstance(event, yaml.DocumentStartEvent) and self._root is not None:
                raise Unreadable("a second document begins here: one file is one pipeline", place)
        return self._root or Node("text", (1, 1), is_null=True)

    def _begin(self, event: Any, node: Node) -> None:
        if len(self._open) >= DEPTH_MAX:
            raise Unreadable(f"more than {DEPTH_MAX} levels deep: a pipeline needs three", node.place)
        self._add(event, node)
        self._before.append(self._total)
        self._open.append(node)
        self._keys.append(None)

    def _add(self, event: Any, node: Node) -> None:
        if event.tag is not None:
            self._tell(f"the tag {_tag_of(event.tag)} is not allowed: a pipeline file is plain data", node.place)
            node.refused = True
            if node.kind == "text":
                node.kind = "broken"
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._put(node)

    def _alias(self, name: str, place: Place) -> None:
        self._aliases += 1
        if self._aliases > ALIASES_MAX:
            raise Unreadable(f"more than {ALIASES_MAX} aliases: write the values out, or build it in Python", place)
        target = self._anchors.get(name)
        if target is None:
            from titan_sdk.pipeline_words import nearest

            self._tell(f"*{name} names no anchor: &{name} is not above{nearest(name, self._anchors)}", place)
            target = Node("broken", place)
        elif any(target is node for node in self._open):
            raise Unreadable(f"*{name} stands inside &{name}: a value cannot hold itself", place)
        self._put(target, place)

    def _put(self, node: Node, place: Place | None = None) -> None:
        """Hang `node` into whatever is open; `place` is that of an alias."""
        self._count(node.size, place or node.place)
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if parent.kind == "list":
            parent.items.append(node)
            return
        key = self._keys[-1]
        if key is None:
            self._keys[-1] = node
        else:
            parent.entries.append((key, node))
            self._keys[-1] = None

    def _end(self) -> None:
        node = self._open.pop()
        self._keys.pop()
        if node.kind == "map":
            self._settle(node)
        node.size = 1 + self._total - self._before.pop()
        if node.refused:
            node.kind = "broken"

    def _count(self, values: int, place: Place) -> None:
        self._total += values
        if self._total > VALUES_MAX:
            raise Unreadable(f"it stands for more than {VALUES_MAX} values once its aliases are followed", place)

    def _settle(self, node: Node) -> None:
        """Look at the keys of a whole mapping: each once and text, merges followed."""
        settled: dict[str, tuple[Node, Node]] = {}
        merges: list[Node] = []
        for key, value in node.entries:
            if key.kind != "text":
                if key.kind != "broken":
                    self._tell("a key is text: a list or a mapping cannot be one", key.place)
            elif key.text == MERGE:
                merges.append(value)
            elif key.text in settled:
                line = settled[key.text][0].line
                self._tell(f"{key.text!a} is here twice: it has a value in line {line} already", key.place)
            else:
                settled[key.text] = (key, value)
        for value in merges:
            self._merge(settled, value)
        node.entries = list(settled.values())

    def _merge(self, settled: dict[str, tuple[Node, Node]], value: Node) -> None:
        for source in value.items if value.kind == "list" else [value]:
            if source.kind == "map":
                self._count(len(source.entries), value.place)
                for key, merged in source.entries:
                    settled.setdefault(key.text, (key, merged))
            elif source.kind != "broken":
                self._tell(f"{MERGE} takes a mapping, or a list of them", source.place)


def _tag_of(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!", 1)


def _place_of(mark: Any) -> Place:
    return mark.line + 1, mark.column + 1


def _place_at(before: str) -> Place:
    lines = lines_of(before)
    return len(lines), len(lines[-1]) + 1
