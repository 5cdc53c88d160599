"""Small changes of meaning, for scripts that run and are wrong: each changes one place, the test decides."""

import ast
import itertools
import re
from collections.abc import Callable, Iterator

from source import Fault, Proposal, Script

Rule = Callable[[Script, ast.AST], Iterator[Proposal]]

COMPARED = {
    ast.Lt: ("<=", ">", ">=", "!="), ast.LtE: ("<", ">=", ">"), ast.Gt: (">=", "<", "<=", "!="),
    ast.GtE: (">", "<=", "<"), ast.Eq: ("!=", "in"), ast.NotEq: ("==", "not in"), ast.Is: ("==",),
    ast.IsNot: ("!=",), ast.In: ("not in", "=="), ast.NotIn: ("in",),
}  # fmt: skip
COMPUTED = {
    ast.Add: ("-", "*"), ast.Sub: ("+",), ast.Mult: ("+", "/", "**"), ast.Div: ("//", "*"), ast.FloorDiv: ("/",),
    ast.Mod: ("//", "/"), ast.Pow: ("*",), ast.BitXor: ("**",), ast.BitAnd: ("and",), ast.BitOr: ("or",),
}  # fmt: skip
TWINS = {
    "min": "max", "max": "min", "append": "extend", "extend": "append", "any": "all", "all": "any", "floor": "ceil",
    "ceil": "floor", "upper": "lower", "lower": "upper", "keys": "values", "values": "items", "lstrip": "rstrip",
    "rstrip": "lstrip", "add": "update", "update": "add", "find": "rfind", "index": "rindex", "match": "search",
    "search": "fullmatch", "split": "splitlines", "union": "intersection", "round": "int", "int": "round",
    "read": "readlines", "intersection": "union", "sort": "reverse", "mean": "median", "popleft": "pop",
    "write": "writelines",
}  # fmt: skip


def proposals(script: Script, fault: Fault) -> Iterator[Proposal]:
    """Yield them with those of the suspected lines first."""
    suspected = set(fault.lines)
    nodes = sorted(script.nodes, key=lambda node: getattr(node, "lineno", 0) not in suspected)
    # In turns, so that no kind of change waits until another has gone through the whole script.
    turns = [everywhere(rule, script, nodes) for rule in (expressions, numbers, statements, habits, order)]
    for turn in itertools.zip_longest(*turns):
        yield from filter(None, turn)
    for node in nodes:
        yield from unlikely(script, node)


def everywhere(rule: Rule, script: Script, nodes: list[ast.AST]) -> Iterator[Proposal]:
    for node in nodes:
        yield from rule(script, node)


def habits(script: Script, node: ast.AST) -> Iterator[Proposal]:
    """What Python does and people do not expect."""
    if isinstance(node, ast.FunctionDef):
        yield from own_defaults(script, node)
    if isinstance(node, ast.Lambda):
        own = {argument.arg for argument in node.args.args}
        free = sorted({n.id for n in ast.walk(node.body) if isinstance(n, ast.Name)} - own)
        for word in free:
            names = ", ".join([script.code(argument) for argument in node.args.args] + [f"{word}={word}"])
            yield Proposal(script.swap(node, f"lambda {names}: {script.code(node.body)}"), f"the lambda keeps {word}")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and isinstance(node.left, ast.List):
        inner = script.code(node.left)[1:-1]
        yield Proposal(script.swap(node, f"[{inner} for _ in range({script.code(node.right)})]"), "rows of their own")
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name | ast.Attribute | ast.Subscript):
        code = script.code(node.value)
        for new in (f"{code}.copy()", f"__import__('copy').deepcopy({code})", f"list({code})"):
            yield Proposal(script.swap(node.value, new), f"line {node.lineno}: a copy of {code}")
    if isinstance(node, ast.For):
        code = script.code(node.iter)
        for new in (f"list({code})", f"sorted({code})", f"reversed({code})", f"set({code})", f"dict.fromkeys({code})"):
            yield Proposal(script.swap(node.iter, new), f"line {node.lineno}: over {new}")
    for item in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(item, ast.Assign) and isinstance(item.value, ast.List | ast.Dict | ast.Set | ast.Call):
            yield from own_attribute(script, node, item)


def own_defaults(script: Script, function: ast.FunctionDef) -> Iterator[Proposal]:
    """A default that can be changed is made anew for each call."""
    for argument, default in zip(reversed(function.args.args), reversed(function.args.defaults), strict=False):
        if isinstance(default, ast.List | ast.Dict | ast.Set | ast.Call):
            first, name = function.body[0].lineno, argument.arg
            line = f"{script.indent(first)}{name} = {script.code(default)} if {name} is None else {name}"
            text = Script(script.before_line(first, line)).swap(default, "None")
            yield Proposal(text, f"{function.name}: a new {name} for each call")


def own_attribute(script: Script, owner: ast.ClassDef, item: ast.Assign) -> Iterator[Proposal]:
    """Something changeable that all objects of a class share goes to each one's __init__."""
    for method in owner.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            line = f"{script.indent(method.body[0].lineno)}self.{script.code(item)}"
            yield Proposal(
                script.before_line(method.body[0].lineno, line), f"{owner.name}: its own {script.code(item)}"
            )
            return
    indent = script.indent(item.lineno)
    made = f"{indent}def __init__(self):\n{indent}    self.{script.code(item)}"
    yield Proposal(script.with_line(item.lineno, made), f"{owner.name}: its own {script.code(item)}")


def numbers(script: Script, node: ast.AST) -> Iterator[Proposal]:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, int | float):
        return
    value = node.value
    if isinstance(value, bool):
        yield Proposal(script.swap(node, str(not value)), f"line {node.lineno}: {not value}")
        return
    for new in dict.fromkeys((value + 1, value - 1, -value, 0)):
        told = str(int(new) if float(new).is_integer() and isinstance(value, int) else new)
        yield Proposal(script.swap(node, told), f"line {node.lineno}: {value} becomes {told}")


def unlikely(script: Script, node: ast.AST) -> Iterator[Proposal]:
    """Other texts, and numbers that are wrong by more than a little."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        for new in (f"{node.value * 10}", f"{node.value / 10}", f"{node.value * 100}", f"{node.value / 100}"):
            yield Proposal(script.swap(node, new), f"line {node.lineno}: {node.value} becomes {new}")
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or len(node.value) >= 40:
        return
    code = script.code(node)
    if isinstance(script.parents.get(node), ast.JoinedStr | ast.Expr) or code[0] not in "'\"":
        return
    quote, inner = code[0], code[1:-1]
    changed = [f"r{code}", f"f{code}", code.lower(), code.upper(), quote + inner.strip() + quote]
    changed += [f"{quote}{other}{quote}" for other in (" ", ",", "\\n", "", f"{inner} ", f" {inner}")]
    changed += [quote + re.sub(r"([*+])(?!\?)", r"\1?", inner) + quote]
    for new in dict.fromkeys(changed):
        yield Proposal(script.swap(node, new), f"line {node.lineno}: {code} becomes {new}")


def expressions(script: Script, node: ast.AST) -> Iterator[Proposal]:
    if not isinstance(node, ast.expr):
        return
    for new in changed(script, node):
        yield Proposal(script.swap(node, new), f"line {node.lineno}: {script.code(node)} becomes {new}")


def changed(script: Script, node: ast.expr) -> Iterator[str]:
    """Yield what the expression may have meant to be."""
    code = script.code
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        left, right = code(node.left), code(node.comparators[0])
        yield from (f"{left} {op} {right}" for op in COMPARED[type(node.ops[0])])
        yield from (f"{left}.{way}() {word} {right}.{way}()" for way in ("lower", "strip") for word in ("==", "in"))
    elif isinstance(node, ast.BinOp):
        yield from computed(script, node)
    elif isinstance(node, ast.BoolOp):
        other = " or " if isinstance(node.op, ast.And) else " and "
        yield other.join(code(value) for value in node.values)
    elif isinstance(node, ast.UnaryOp):
        yield code(node.operand)
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        yield from subscripts(script, node)
    elif isinstance(node, ast.Call):
        yield from called(script, node)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield from named(script, node)
    elif isinstance(node, ast.Attribute) and node.attr in TWINS:
        yield f"{code(node.value)}.{TWINS[node.attr]}"


def computed(script: Script, node: ast.BinOp) -> Iterator[str]:
    code = script.code
    left, right = code(node.left), code(node.right)
    yield from (f"{left} {op} {right}" for op in COMPUTED.get(type(node.op), ()))
    yield f"{right} {'/' if isinstance(node.op, ast.Div) else '-'} {left}"
    if isinstance(node.left, ast.BinOp):
        inner = node.left
        begin = script.text[script.span(inner.right)[0] : script.span(node)[1]]
        yield f"{script.text[script.span(node)[0] : script.span(inner.right)[0]]}({begin})"
    if isinstance(node.right, ast.BinOp):
        end = script.span(node.right.left)[1]
        yield f"({script.text[script.span(node)[0] : end]}){script.text[end : script.span(node)[1]]}"


def named(script: Script, node: ast.Name) -> Iterator[str]:
    parent = script.parents.get(node)
    if isinstance(parent, ast.Call) and parent.func is node:
        yield from sorted({function.name for function in script.functions} - {node.id})
        return
    if not isinstance(parent, ast.For | ast.Attribute | ast.keyword):
        yield from (f"{node.id} + 1", f"{node.id} - 1", f"not {node.id}")
    if isinstance(parent, ast.Call | ast.BinOp | ast.Compare | ast.Subscript | ast.Return):
        yield from sorted(script.known_at(node) - {node.id})


def subscripts(script: Script, node: ast.Subscript) -> Iterator[str]:
    owner, part = script.code(node.value), node.slice
    if not isinstance(part, ast.Slice):
        inner = script.code(part)
        yield from (f"{owner}[{inner} + 1]", f"{owner}[{inner} - 1]", f"{owner}[-{inner}]", f"{owner}[:{inner}]")
        return
    low, high = (script.code(end) if end else "" for end in (part.lower, part.upper))
    yield from (f"{owner}[{low}:{high} + 1]", f"{owner}[{low}:{high} - 1]") if high else (f"{owner}[{low}:-1]",)
    yield from (f"{owner}[{low} + 1:{high}]", f"{owner}[{low} - 1:{high}]") if low else (f"{owner}[1:{high}]",)
    yield from (f"{owner}[{high}:{low}]", f"{owner}[::-1]", f"{owner}[-{low or 1}:]", f"{owner}[:-{high or 1}]")


def called(script: Script, node: ast.Call) -> Iterator[str]:
    function = script.code(node.func)
    given = [script.code(argument) for argument in [*node.args, *node.keywords]]
    name = function.rpartition(".")[2]
    if name in TWINS:
        yield f"{function.removesuffix(name)}{TWINS[name]}({', '.join(given)})"
    for place in range(len(given) - 1):
        turned = [*given[:place], given[place + 1], given[place], *given[place + 2 :]]
        yield f"{function}({', '.join(turned)})"
    if name == "range" and given:
        last = len(given) - 1 if len(given) < 3 else 1
        for more in (" + 1", " - 1"):
            yield f"{function}({', '.join(one + more if place == last else one for place, one in enumerate(given))})"
        if len(given) == 1:
            yield f"range(1, {given[0]})"
            yield f"range(1, {given[0]} + 1)"
        elif len(given) == 2:
            yield f"range({given[0]}, {given[1]}, -1)"
    if name in ("sorted", "sort", "max", "min"):
        for more in ("reverse=True", "key=str", "key=int", "key=float", "key=len", "key=str.lower", "key=abs",
                     "key=lambda item: item[1]", "key=lambda item: (-item[1], item[0])"):  # fmt: skip
            word = more.partition("=")[0]
            yield f"{function}({', '.join([one for one in given if not one.startswith(word + '=')] + [more])})"
        yield f"{function}({', '.join(one for one in given if not one.startswith('reverse'))})"
    if name not in ("print", "list", "range", "len", "str") and not isinstance(script.parents.get(node), ast.Expr):
        yield f"list({script.code(node)})"
        yield f"({script.code(node)} or 0)"


def statements(script: Script, node: ast.AST) -> Iterator[Proposal]:
    """A statement too deep, too shallow, missing its other half, or at the wrong place."""
    if not isinstance(node, ast.stmt) or isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
        return
    end = node.end_lineno or node.lineno
    block = script.lines[node.lineno - 1 : end]
    before, after = "".join(script.lines[: node.lineno - 1]), "".join(script.lines[end:])
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
        owner = script.code(node.value.func.value)
        yield Proposal(script.swap(node, f"{owner} = {script.code(node)}"), f"line {node.lineno}: keep what it returns")
    if all(line.startswith("    ") or not line.strip() for line in block):
        yield Proposal(before + "".join(line[4:] or "\n" for line in block) + after, f"line {node.lineno}: less deep")
    yield Proposal(before + "".join(f"    {line}" for line in block) + after, f"line {node.lineno}: deeper")
    yield from out_of_loop(script, node)
    yield from other_words(script, node)
    if len(block) == 1:
        yield Proposal(before + after, f"line {node.lineno}: left out")


def out_of_loop(script: Script, node: ast.stmt) -> Iterator[Proposal]:
    """A statement goes before or behind the loop that it stands in."""
    loop = next((up for up in script.above(node) if isinstance(up, ast.For | ast.While)), None)
    if loop is None or len(loop.body) < 2 or node not in loop.body:
        return
    end = node.end_lineno or node.lineno
    indent, depth = script.indent(loop.lineno), len(script.indent(node.lineno))
    moved = [indent + line[depth:] for line in script.lines[node.lineno - 1 : end]]
    head, rest = script.lines[loop.lineno - 1 : node.lineno - 1], script.lines[end : loop.end_lineno]
    for lines in ([*moved, *head, *rest], [*head, *rest, *moved]):
        text = "".join([*script.lines[: loop.lineno - 1], *lines, *script.lines[loop.end_lineno or end :]])
        yield Proposal(text, f"line {node.lineno}: out of the loop")


def other_words(script: Script, node: ast.stmt) -> Iterator[Proposal]:
    """The same statement with another sign, word or condition, or with the step that its loop lacks."""
    if isinstance(node, ast.AugAssign):
        sign = script.text[script.span(node.target)[1] : script.span(node.value)[0]].strip()
        target, value = script.code(node.target), script.code(node.value)
        for new in {"+=", "-=", "*=", "//=", "="} - {sign}:
            yield Proposal(script.swap(node, f"{target} {new} {value}"), f"line {node.lineno}: {new} for {sign}")
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        target, value = script.code(node.targets[0]), script.code(node.value)
        yield Proposal(script.swap(node, f"{target} += {value}"), f"line {node.lineno}: adds up")
    if isinstance(node, ast.Break | ast.Continue):
        other = "continue" if isinstance(node, ast.Break) else "break"
        yield Proposal(script.swap(node, other), f"line {node.lineno}: {other}")
    if isinstance(node, ast.While):
        for word in sorted({n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}):
            for step in ("+= 1", "-= 1", "//= 2"):
                line = f"{script.indent(node.body[-1].lineno)}{word} {step}"
                yield Proposal(
                    script.before_line((node.end_lineno or node.lineno) + 1, line),
                    f"the loop of line {node.lineno}: {word} {step}",
                )
    if isinstance(node, ast.If):
        yield Proposal(script.swap(node.test, f"not ({script.code(node.test)})"), f"line {node.lineno}: the other way")
        if script.lines[node.lineno - 1].lstrip().startswith("if "):
            new = script.lines[node.lineno - 1].replace("if ", "elif ", 1)
            yield Proposal(script.with_line(node.lineno, new), f"line {node.lineno}: elif")


def order(script: Script, node: ast.AST) -> Iterator[Proposal]:
    """Two neighbours in a block change places."""
    for field in ("body", "orelse"):
        block = getattr(node, field, [])
        for first, second in itertools.pairwise(block if isinstance(block, list) else ()):
            one = script.lines[first.lineno - 1 : first.end_lineno]
            gap = script.lines[first.end_lineno : second.lineno - 1]
            two = script.lines[second.lineno - 1 : second.end_lineno]
            text = "".join([*script.lines[: first.lineno - 1], *two, *gap, *one, *script.lines[second.end_lineno :]])
            yield Proposal(text, f"lines {first.lineno} and {second.lineno} change places")
