"""A script as text and as a tree, with edits that change one place and leave the rest as it was written."""

import ast
import re
import symtable
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Proposal:
    """A whole new text for the script, and what was changed, in words."""

    text: str
    why: str


@dataclass(frozen=True)
class Fault:
    """What a test showed: the error's class (or Timeout, WrongOutput), its message, and its lines, innermost first."""

    kind: str
    message: str
    lines: tuple[int, ...] = ()

    @classmethod
    def read(cls, log: str, filename: str) -> "Fault":
        """Read it from the log of a job that ran `filename`."""
        if "[titan] killed: timeout" in log:
            return cls("Timeout", "it did not end in time")
        raised = re.findall(
            r"^([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Iteration)\w*)(?:: (.*))?$", log, re.MULTILINE
        )
        if not raised:
            return cls("WrongOutput", "it did not print what it should")
        kind, message = raised[-1]
        numbers = re.findall(rf'File "[^"]*\b{re.escape(filename)}", line (\d+)', log)
        return cls(kind.rpartition(".")[2], message, tuple(dict.fromkeys(int(n) for n in reversed(numbers))))


class Script:
    """`tree` is None when the text does not parse."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = text.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    @cached_property
    def tree(self) -> ast.Module | None:
        try:
            symtable.symtable(self.text, "script", "exec")  # it refuses more than the parser does
            return ast.parse(self.text)
        except (SyntaxError, ValueError):
            return None

    @cached_property
    def stuck_at(self) -> int:
        """The line that the parser complains of."""
        try:
            symtable.symtable(self.text, "script", "exec")
        except SyntaxError as error:
            return error.lineno or 0
        except ValueError:
            return 0
        return len(self.lines) + 1

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree)) if self.tree else []

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        return {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield what the node stands in, the innermost first."""
        while node in self.parents:
            node = self.parents[node]
            yield node

    def known_at(self, node: ast.AST) -> set[str]:
        """Return the variables and parameters of the function that `node` is in, or of the module."""
        own = next((up for up in self.above(node) if isinstance(up, ast.FunctionDef)), None)
        inside = self.nodes if own is None else list(ast.walk(own))
        stored = {n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        return stored | {argument.arg for argument in (own.args.args if own else ())}

    def offset(self, line: int, column: int) -> int:
        """Return where a line and a column, counted in bytes as ast does, are in the text."""
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode(errors="ignore"))

    def span(self, node: ast.AST) -> tuple[int, int]:
        place = node
        assert isinstance(place, ast.expr | ast.stmt | ast.keyword | ast.arg | ast.excepthandler | ast.alias)
        begin = self.offset(place.lineno, place.col_offset)
        return begin, self.offset(place.end_lineno or place.lineno, place.end_col_offset or 0)

    def code(self, node: ast.AST) -> str:
        begin, end = self.span(node)
        return self.text[begin:end]

    def swap(self, node: ast.AST, new: str) -> str:
        begin, end = self.span(node)
        return self.text[:begin] + new + self.text[end:]

    def with_line(self, number: int, new: str) -> str:
        """Return the text with line `number` (from 1) replaced; `new` may be several lines, or empty."""
        new += "\n" if new and not new.endswith("\n") else ""
        return "".join(self.lines[: number - 1]) + new + "".join(self.lines[number:])

    def before_line(self, number: int, new: str) -> str:
        """Return the text with `new` put before line `number`."""
        return "".join(self.lines[: number - 1]) + new + "\n" + "".join(self.lines[number - 1 :])

    def indent(self, line: int) -> str:
        text = self.lines[line - 1]
        return text[: len(text) - len(text.lstrip())]

    def on(self, lines: tuple[int, ...]) -> list[ast.AST]:
        """Return the nodes that begin on one of these lines, in the order of the lines."""
        wanted = {line: place for place, line in enumerate(lines)}
        found = [node for node in self.nodes if getattr(node, "lineno", None) in wanted]
        return sorted(found, key=lambda node: wanted[getattr(node, "lineno", 0)])

    def expressions(self, lines: tuple[int, ...]) -> list[ast.expr]:
        """Return the expressions on these lines that are read, not assigned to."""
        return [
            node
            for node in self.on(lines)
            if isinstance(node, ast.expr) and not isinstance(getattr(node, "ctx", None), ast.Store | ast.Del)
        ]

    @cached_property
    def functions(self) -> list[ast.FunctionDef]:
        return [node for node in self.nodes if isinstance(node, ast.FunctionDef)]

    @cached_property
    def words(self) -> set[str]:
        """Every name, attribute, parameter and short text in the script."""
        found: set[str] = set()
        for node in self.nodes:
            for field in ("id", "attr", "arg", "name"):
                word = getattr(node, field, None)
                if isinstance(word, str):
                    found.add(word)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 40:
                found.add(node.value)
        return found
