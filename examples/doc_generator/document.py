"""Write the page of one file: by a language model when the environment names one, else from its syntax tree."""

import ast
import json
import os
import sys
import urllib.request
from collections.abc import Iterator

from titan_sdk import TitanClient

Function = ast.FunctionDef | ast.AsyncFunctionDef


def asked(text: str, name: str) -> str:
    """Return what any endpoint that speaks OpenAI's chat protocol writes. Raises OSError or ValueError."""
    question = f"Document the Python file {name} as a Markdown page for its users, public names only:\n\n{text}"
    body = {
        "model": os.environ.get("OPENAI_MODEL", "default"),
        "messages": [{"role": "user", "content": question}],
    }
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("OPENAI_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    url = f"{os.environ['OPENAI_BASE_URL'].rstrip('/')}/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - the caller's own
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        try:
            return str(json.load(answer)["choices"][0]["message"]["content"]).strip()
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError("an answer of another shape") from error


def first_line(node: ast.Module | ast.ClassDef | Function) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]


def deduced(function: Function) -> str:
    """Say what a function without a docstring does, as far as its code tells."""
    inside = list(ast.walk(function))
    raised = sorted(
        {
            ast.unparse(n.exc.func if isinstance(n.exc, ast.Call) else n.exc)
            for n in inside
            if isinstance(n, ast.Raise) and n.exc
        }
    )
    called = [ast.unparse(n.func) for n in inside if isinstance(n, ast.Call)]
    told = "yields values" if any(isinstance(n, ast.Yield | ast.YieldFrom) for n in inside) else ""
    returned = [ast.unparse(n.value) for n in inside if isinstance(n, ast.Return) and n.value]
    if not told and returned:
        told = f"returns `{returned[-1][:60]}`"
    parts = [told] if told else []
    if raised:
        parts.append("raises " + ", ".join(f"`{name}`" for name in raised))
    if called and not parts:
        parts.append("calls " + ", ".join(f"`{name}`" for name in list(dict.fromkeys(called))[:4]))
    sentence = " and ".join(parts) or "does nothing yet"
    return f"{sentence[0].upper()}{sentence[1:]}."


def signature(function: Function) -> str:
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    return f"{function.name}({ast.unparse(function.args)}){returns}"


def public(body: list[ast.stmt]) -> Iterator[Function | ast.ClassDef]:
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def page(text: str, name: str) -> str:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        return f"# {name}\n\nIt cannot be read as Python: {error}."
    lines = [f"# {name}", "", ast.get_docstring(tree) or f"{text.count(chr(10))} lines without a docstring."]
    for node in public(tree.body):
        if isinstance(node, ast.ClassDef):
            bases = ", ".join(ast.unparse(base) for base in node.bases)
            lines += ["", f"## class {node.name}{f'({bases})' if bases else ''}", "", first_line(node) or "A class."]
            for method in public(node.body):
                if not isinstance(method, ast.ClassDef):
                    lines.append(f"- `{signature(method)}`: {first_line(method) or deduced(method)}")
        else:
            lines += ["", f"## {signature(node)}", "", ast.get_docstring(node) or deduced(node)]
    return "\n".join(lines)


def main() -> None:
    prefix, number, name = sys.argv[1:]
    with TitanClient() as client:
        text = client.store_get(f"{prefix}/text/{number}")
        assert isinstance(text, str)
        how = "its syntax tree"
        written = ""
        if os.environ.get("OPENAI_BASE_URL"):
            try:
                written, how = asked(text, name), "a model"
            except (OSError, ValueError) as error:
                print(f"the model did not answer: {error}")
        client.store_put(f"{prefix}/page/{number}", written or page(text, name))
    print(f"{name}: from {how}")


if __name__ == "__main__":
    main()
