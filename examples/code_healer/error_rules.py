"""Rules for scripts that raise: what the class of the error and its message say about the line."""

import ast
import builtins
import contextlib
import difflib
import importlib
import re
import sys
from collections.abc import Iterator

from source import Fault, Proposal, Script

# Where a name that was never imported may come from, the likeliest first.
LIKELY = (
    "math", "collections", "pathlib", "datetime", "functools", "itertools", "re", "json", "random", "statistics",
    "typing", "dataclasses", "string", "operator", "decimal", "fractions", "collections.abc", "contextlib", "io", "os",
    "os.path", "time", "textwrap", "heapq", "bisect", "copy", "enum", "abc", "csv", "hashlib", "urllib.parse",
    "urllib.request", "threading", "queue", "subprocess", "tempfile", "shutil", "struct", "types", "uuid", "html",
    "inspect", "importlib", "zoneinfo", "configparser", "unicodedata", "concurrent.futures", "asyncio",
)  # fmt: skip
RENAMED = {
    "xrange": "range", "raw_input": "input", "unicode": "str", "basestring": "str", "unichr": "chr", "long": "int",
    "iteritems": "items", "itervalues": "values", "iterkeys": "keys", "izip": "zip", "imap": "map", "maxint": "maxsize",
    "getcwdu": "getcwd", "has_key": "__contains__", "fromstring": "frombytes", "tostring": "tobytes",
    "clock": "perf_counter", "length": "__len__", "push": "append", "add": "append", "size": "__len__",
    "toLowerCase": "lower", "ConfigParser": "configparser", "Queue": "queue", "StringIO": "io", "cPickle": "pickle",
    "urllib2": "urllib.request", "urlparse": "urllib.parse", "httplib": "http.client", "Tkinter": "tkinter",
}  # fmt: skip
# What the message says, and how a value may be turned into what is wanted.
CONVERSIONS = (
    (r"can only concatenate str|must be str|expected str instance|must be a string|str, not|decoding to str",
     ["str({})", "map(str, {})", "{}.decode()", "str({}, 'utf-8')"]),
    (r"unsupported operand|not supported between|can't multiply|bad operand|must be real number|integer is required",
     ["int({})", "float({})", "str({})", "len({})", "list({})", "set({})"]),
    (r"unhashable type", ["tuple({})", "frozenset({})", "tuple(sorted({}.items()))", "str({})"]),
    (r"not subscriptable|has no len|not reversible|not a sequence|is not a list|indices must be|not an iterator",
     ["list({})", "iter({})", "str({})", "int({})", "{}()", "vars({})", "{}.__dict__"]),
    (r"not iterable|argument after \*", ["range({})", "[{}]", "{}.items()", "{}()", "str({})", "vars({})"]),
    (r"interpreted as an integer|slice indices|must be an integer|must be integers", ["int({})", "len({})"]),
    (r"bytes-like|bytes pattern|expected bytes|concat str to bytes|must be bytes", ["{}.encode()", "bytes({})"]),
    (r"string pattern on a bytes|startswith first arg", ["{}.decode()", "{}.encode()", "tuple({})"]),
    (r"JSON serializable", ["list({})", "sorted({})", "str({})", "dict({})", "float({})", "{}.decode()", "vars({})"]),
    (r"values to unpack|cannot unpack|is required; 2 is", ["{}.items()", "enumerate({})", "zip(*{})", "[{}]"]),
    (r"invalid literal|could not convert|malformed|Invalid \w+ string",
     ["{}.strip()", "{}.replace(',', '')", "float({})", "int({}, 16)", "{}.strip() or 0", "{}.lstrip('$€£ ')"]),
    (r"changed size during|mutated during", ["list({})", "{}.copy()"]),
    (r"math domain|negative", ["abs({})", "max(0, {})"]),
    (r"Expecting|Extra data", ["{}.replace(\"'\", '\"')", "{}.strip()", "{}.splitlines()[0]"]),
    (r"empty|at least one", ["({} or [0])"]),
    (r"object is not callable", ["{}"]),
)  # fmt: skip


def proposals(script: Script, fault: Fault) -> Iterator[Proposal]:
    for rule in (lookups, members, names, imports, division, signatures, unbound, conversions, guards, calls,
                 nothing_returned, files):  # fmt: skip
        yield from rule(script, fault)


def quoted(message: str) -> list[str]:
    return re.findall(r"['\"]([^'\"]+)['\"]", message)


def pool(script: Script, fault: Fault, word: str) -> set[str]:
    """Return what a misspelled word may have meant to be."""
    found = script.words | set(dir(builtins)) | set(sys.stdlib_module_names)
    for owner in quoted(fault.message):
        thing = getattr(builtins, owner, None)
        if thing is None and owner.partition(".")[0] in sys.stdlib_module_names:
            with contextlib.suppress(ImportError):
                thing = importlib.import_module(owner)
        found |= set(dir(thing)) if thing is not None else set()
    for kind in (str, list, dict, set, bytes, int, float) if fault.kind == "AttributeError" else ():
        found |= set(dir(kind))
    return {name for name in found if name != word and name.isprintable()}


def names(script: Script, fault: Fault) -> Iterator[Proposal]:
    """A word that nobody knows: the nearest that somebody does."""
    known_kinds = ("NameError", "AttributeError", "KeyError", "ImportError", "ModuleNotFoundError")
    if fault.kind not in known_kinds and "keyword argument" not in fault.message:
        return
    for word in quoted(fault.message):
        known = pool(script, fault, word)
        near = difflib.get_close_matches(word, sorted(known), 4, 0.6)
        told = re.findall(r"Did you mean: '([^']+)'", fault.message)
        swapped = [word.lower(), word.upper(), word.title(), word.strip()]
        others = told + near + [name for name in swapped if name in known] + [RENAMED.get(word, "")]
        for other in filter(None, dict.fromkeys(others)):
            for line in fault.lines or tuple(range(1, len(script.lines) + 1)):
                text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", lambda _, o=other: o, script.lines[line - 1])
                yield Proposal(script.with_line(line, text), f"line {line}: {word} becomes {other}")
            everywhere = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", lambda _, o=other: o, script.text)
            yield Proposal(everywhere, f"{word} becomes {other} everywhere")
        if fault.kind == "NameError":
            for line in fault.lines:
                text = re.sub(rf"(?<![\w.]){re.escape(word)}(?!\w)", f"self.{word}", script.lines[line - 1])
                yield Proposal(script.with_line(line, text), f"line {line}: {word} becomes self.{word}")
                text = re.sub(rf"(?<![\w.]){re.escape(word)}(?!\w)", f'"{word}"', script.lines[line - 1])
                yield Proposal(script.with_line(line, text), f"line {line}: {word} is a text")


def imports(script: Script, fault: Fault) -> Iterator[Proposal]:
    """A name that a module of the standard library has."""
    if fault.kind not in ("NameError", "ImportError", "ModuleNotFoundError", "AttributeError"):
        return
    for word in quoted(fault.message):
        if word.partition(".")[0] in sys.stdlib_module_names:
            yield Proposal(f"import {word}\n{script.text}", f"import {word}")
        for module in LIKELY:
            if not word.isidentifier() or not hasattr(importlib.import_module(module), word):
                continue
            yield Proposal(f"from {module} import {word}\n{script.text}", f"from {module} import {word}")
            for node in script.on(fault.lines):
                if isinstance(node, ast.ImportFrom):
                    yield Proposal(script.swap(node, f"from {module} import {word}"), f"{word} is in {module}")
                elif isinstance(node, ast.Attribute) and node.attr == word:
                    text = script.swap(node, f"{module}.{word}")
                    yield Proposal(f"import {module}\n{text}", f"{word} is in {module}")


def members(script: Script, fault: Fault) -> Iterator[Proposal]:
    """An attribute that the module lacks and something in it has: a module and a class of one name, for example."""
    for node in script.on(fault.lines) if fault.kind == "AttributeError" else ():
        if not isinstance(node, ast.Attribute) or script.code(node.value) not in sys.stdlib_module_names:
            continue
        module = importlib.import_module(script.code(node.value))
        owners = [name for name, thing in vars(module).items() if isinstance(thing, type) and hasattr(thing, node.attr)]
        for owner in sorted(owners, key=lambda name: name != module.__name__):
            new = f"{module.__name__}.{owner}.{node.attr}"
            yield Proposal(script.swap(node, new), f"line {node.lineno}: {node.attr} is in {owner}")
            everywhere = re.sub(rf"\b{module.__name__}\.{node.attr}\b", new, script.text)
            yield Proposal(everywhere, f"{node.attr} is in {owner}")


def conversions(script: Script, fault: Fault) -> Iterator[Proposal]:
    """A value of the wrong type: convert each value on the line in turn."""
    for pattern, wraps in CONVERSIONS:
        if not re.search(pattern, fault.message):
            continue
        places = script.expressions(fault.lines)
        places.sort(key=lambda node: isinstance(node, ast.Constant | ast.JoinedStr))
        for wrap in wraps:
            for node in places:
                code = script.code(node)
                inner = code if isinstance(node, ast.Name | ast.Call | ast.Subscript | ast.Attribute) else f"({code})"
                new = wrap.format(inner if wrap.startswith("{}") else code)
                yield Proposal(script.swap(node, new), f"line {node.lineno}: {code} becomes {new}")


def calls(script: Script, fault: Fault) -> Iterator[Proposal]:
    """Something called wrongly: the brackets, the number of arguments."""
    if fault.kind not in ("TypeError", "AttributeError"):
        return
    for node in script.expressions(fault.lines):
        if isinstance(node, ast.Call):
            given = [script.code(argument) for argument in [*node.args, *node.keywords]]
            called = script.code(node.func)
            yield Proposal(script.swap(node, f"{called}[{', '.join(given)}]"), f"{called}[...]")
            yield Proposal(script.swap(node, called), f"{called} is not called")
            yield Proposal(script.swap(node, f"{called}(({', '.join(given)}))"), f"one argument to {called}")
            for place in range(len(given)):
                fewer = given[:place] + given[place + 1 :]
                yield Proposal(script.swap(node, f"{called}({', '.join(fewer)})"), f"{called} without {given[place]}")
            for more in ("None", "0", '""', "[]"):
                yield Proposal(script.swap(node, f"{called}({', '.join([*given, more])})"), f"{called} gets {more}")
        if isinstance(node, ast.Subscript | ast.Attribute | ast.Name):
            yield Proposal(script.swap(node, f"{script.code(node)}()"), f"call {script.code(node)}")
        if isinstance(node, ast.Subscript):
            code = f"{script.code(node.value)}({script.code(node.slice)})"
            yield Proposal(script.swap(node, code), f"call {script.code(node.value)}")


def signatures(script: Script, fault: Fault) -> Iterator[Proposal]:
    """A function defined otherwise than it is called: self, a missing default, a name that hides a builtin."""
    if fault.kind not in ("TypeError", "AttributeError"):
        return
    for function in script.functions:
        head = script.lines[function.lineno - 1]
        if isinstance(script.parents[function], ast.ClassDef):
            new = re.sub(r"\(\s*", "(self, ", head, count=1).replace("(self, )", "(self)")
            yield Proposal(script.with_line(function.lineno, new), f"{function.name} gets self")
            above = script.indent(function.lineno) + "@staticmethod"
            yield Proposal(script.before_line(function.lineno, above), f"{function.name} is static")
        for argument in function.args.args:
            for default in ("None", "0", "1", '""'):
                new = f"{script.code(argument)}={default}"
                yield Proposal(script.swap(argument, new), f"{function.name}: {argument.arg} is {default} unless said")
    for node in script.nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and hasattr(builtins, node.id):
            own = re.sub(rf"(?<![\w.]){node.id}(?!\w|\()", f"{node.id}_", script.text)
            yield Proposal(own, f"{node.id} hid a builtin")


def unbound(script: Script, fault: Fault) -> Iterator[Proposal]:
    """A variable that has no value yet."""
    if fault.kind not in ("UnboundLocalError", "NameError"):
        return
    for word in quoted(fault.message):
        for function in script.functions:
            body = function.body[0]
            if not any(isinstance(node, ast.Name) and node.id == word for node in ast.walk(function)):
                continue
            for line in (
                f"global {word}",
                f"nonlocal {word}",
                *(f"{word} = {v}" for v in ("0", "[]", "{}", '""', "None")),
            ):
                text = script.before_line(body.lineno, script.indent(body.lineno) + line)
                yield Proposal(text, f"{function.name}: {line}")
        for value in ("0", "[]", "{}", '""', "None"):
            for node in script.tree.body if script.tree else []:
                if not isinstance(node, ast.Import | ast.ImportFrom) and fault.lines and node.lineno <= fault.lines[-1]:
                    yield Proposal(script.before_line(node.lineno, f"{word} = {value}"), f"{word} begins as {value}")


def lookups(script: Script, fault: Fault) -> Iterator[Proposal]:
    """A key or an index that is not there."""
    if fault.kind not in ("KeyError", "IndexError", "StopIteration"):
        return
    for node in script.on(fault.lines):
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Subscript):
            owner, key = script.code(node.target.value), script.code(node.target.slice)
            for empty in ("0", "[]", '""', "set()", "{}"):
                before = f"{owner}.setdefault({key}, {empty})\n{script.indent(node.lineno)}{script.code(node)}"
                yield Proposal(script.swap(node, before), f"{owner} begins with {empty}")
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            owner, key = script.code(node.value), script.code(node.slice)
            for empty in ("0", "[]", '""', "{}", "None", "set()"):
                yield Proposal(
                    script.swap(node, f"{owner}.setdefault({key}, {empty})"), f"{owner}[...] begins as {empty}"
                )
                yield Proposal(script.swap(node, f"{owner}.get({key}, {empty})"), f"{owner}[...] or {empty}")
            for other in (
                f"int({key})",
                f"str({key})",
                f"{key}.lower()",
                f"{key}.strip()",
                f"{key} - 1",
                "0",
                "-1",
                "1",
            ):
                yield Proposal(script.swap(node, f"{owner}[{other}]"), f"{owner}[{other}]")


def division(script: Script, fault: Fault) -> Iterator[Proposal]:
    if fault.kind != "ZeroDivisionError":
        return
    for node in script.expressions(fault.lines):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.FloorDiv | ast.Mod):
            code, below = script.code(node), script.code(node.right)
            for empty in ("0", "0.0", "1", "None", '"n/a"', "float('inf')"):
                yield Proposal(script.swap(node, f"({code} if {below} else {empty})"), f"{empty} when {below} is 0")
            yield Proposal(script.swap(node.right, f"({below} or 1)"), f"1 when {below} is 0")


def nothing_returned(script: Script, fault: Fault) -> Iterator[Proposal]:
    """None where something was wanted: a function without return, or a method that changes in place."""
    if "None" not in fault.message and fault.kind != "WrongOutput":
        return
    for node in script.nodes:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            called = node.value.func
            if isinstance(called, ast.Attribute):
                yield Proposal(script.swap(node, script.code(node.value)), f"{called.attr} changes in place")
                if called.attr in ("sort", "reverse"):
                    function = {"sort": "sorted", "reverse": "reversed"}[called.attr]
                    new = f"list({function}({script.code(called.value)}))"
                    yield Proposal(script.swap(node.value, new), f"{called.attr} returns nothing")
    for function in script.functions:
        if any(isinstance(node, ast.Return) and node.value for node in ast.walk(function)):
            continue
        last = function.body[-1]
        if isinstance(last, ast.Expr):
            yield Proposal(script.swap(last, f"return {script.code(last)}"), f"{function.name} returns its last value")
        stored = [n.id for n in ast.walk(function) if isinstance(n, ast.Name)] + [a.arg for a in function.args.args]
        indent = script.indent(function.body[0].lineno)
        for word in dict.fromkeys(reversed(stored)):
            text = script.before_line((last.end_lineno or last.lineno) + 1, f"{indent}return {word}")
            yield Proposal(text, f"{function.name} returns {word}")


def files(script: Script, fault: Fault) -> Iterator[Proposal]:
    """Files and folders that are missing, closed, or in another encoding."""
    if fault.kind not in (
        "FileNotFoundError",
        "UnicodeDecodeError",
        "UnicodeEncodeError",
        "UnsupportedOperation",
        "ValueError",
    ):
        return
    for node in script.expressions(fault.lines):
        if isinstance(node, ast.Call):
            code = script.code(node)
            for extra in (
                'encoding="utf-8"',
                'encoding="latin-1"',
                'errors="replace"',
                "exist_ok=True",
                "parents=True",
                '"w"',
                '"w+"',
            ):
                comma = "" if code.endswith("()") else ", "
                yield Proposal(script.swap(node, f"{code[:-1]}{comma}{extra})"), f"{extra} in {code}")
            if fault.kind == "FileNotFoundError" and node.args:
                folder = f"__import__('os').path.dirname({script.code(node.args[0])})"
                made = f"__import__('os').makedirs({folder}, exist_ok=True)"
                yield Proposal(script.before_line(node.lineno, script.indent(node.lineno) + made), "make the folder")


def guards(script: Script, fault: Fault) -> Iterator[Proposal]:
    """The last resort for one bad item of many: leave it out."""
    if fault.kind in ("WrongOutput", "Timeout", "RecursionError"):
        return
    for line in fault.lines:
        for node in script.on((line,)):
            if isinstance(node, ast.stmt) and any(isinstance(up, ast.For | ast.While) for up in script.above(node)):
                indent = script.indent(line)
                body = [f"    {text}" for text in script.lines[line - 1 : node.end_lineno]]
                tried = f"{indent}try:\n{''.join(body)}{indent}except {fault.kind}:\n{indent}    continue\n"
                text = "".join(script.lines[: line - 1]) + tried + "".join(script.lines[node.end_lineno or line :])
                yield Proposal(text, f"line {line}: go on with the next when it raises {fault.kind}")
                break
