"""Calls that have no place here: shells, unpicklers and evaluators anywhere, sleeps in tests.

A test that sleeps is either slow or wrong: it waits for a signal instead.
"""

import ast
from collections.abc import Iterator

import pytest

from tests.unit.sources import Source, imports, parse, read_tree, report

BANNED_MODULES = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "jinja2", "code", "codeop"}
BANNED_BUILTINS = {"eval", "exec", "compile", "__import__"}
BANNED_CALLS = {
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell", "yaml.load", "yaml.unsafe_load",
}  # fmt: skip
# Where a call has a reason: the file, and what it may call.
REASONS = {
    ("tests/golden/calls.py", "eval"),  # of the calls that stand in that file
    # Whether a text is Python; nothing of what it makes is run.
    ("examples/code_healer/source.py", "compile"),
    ("examples/code_healer/syntax_rules.py", "compile"),
}
SLEEPS = {"time.sleep", "asyncio.sleep", "anyio.sleep"}


def banned(source: Source) -> Iterator[str]:
    in_tests = source.path.startswith("tests/")
    for item in imports(source):
        if item.module.split(".")[0] in BANNED_MODULES:
            yield f"{source.path}:{item.line}: {item.module} is banned: msgspec reads what is received"
        full_name = f"{item.module}.{item.name}"
        if full_name in BANNED_CALLS or (in_tests and full_name in SLEEPS):
            yield f"{source.path}:{item.line}: {full_name} hides behind a bare name; call it with its module"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and (source.path, ast.unparse(node.func)) not in REASONS:
            yield from (f"{source.at(node)}: {reason}" for reason in _call_problems(node, in_tests))


def _call_problems(node: ast.Call, in_tests: bool) -> Iterator[str]:
    name = ast.unparse(node.func)
    if name in BANNED_BUILTINS | BANNED_CALLS:
        yield f"{name} is banned"
    if in_tests and name in SLEEPS and not _yields_only(name, node):
        yield f"{name} in a test: wait for a signal"
    for keyword in node.keywords:
        off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        if keyword.arg == "shell" and not off:
            yield "shell=True is banned: pass the arguments as a list"


def _yields_only(name: str, node: ast.Call) -> bool:
    delay = node.args[0] if node.args else None
    return name != "time.sleep" and isinstance(delay, ast.Constant) and delay.value == 0


def test_s31_nothing_banned_is_called() -> None:
    found = [line for source in read_tree("src", "tests", "bench", "examples") for line in banned(source)]
    assert not found, report(found)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from marshal import loads",
        "def f():\n    import shelve",
        "eval('1')",
        "import jinja2",
        "compile(text, 'x', 'exec')",
        "subprocess.Popen(command, shell=1)",
        "yaml.unsafe_load(text)",
        "x = exec(code)",
        "__import__('os')",
        "os.system('ls')",
        "from os import popen",
        "yaml.load(text)",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=flag)",
    ],
)
def test_s31_each_banned_call_is_found_in_any_file(text: str) -> None:
    assert list(banned(parse(text, path="src/titan/x.py")))


@pytest.mark.parametrize(
    "text",
    ["time.sleep(1)", "time.sleep(0)", "asyncio.sleep(0.1)", "asyncio.sleep(delay)", "from time import sleep"],
)
def test_a_sleep_is_found_in_tests_only(text: str) -> None:
    assert list(banned(parse(text, path="tests/unit/test_x.py")))
    assert not list(banned(parse(text, path="bench/x.py")))


@pytest.mark.parametrize("text", ["re.compile('a')", "asyncio.sleep(0)", "run(['ls'], shell=False)", "model.eval()"])
def test_harmless_relatives_pass(text: str) -> None:
    assert not list(banned(parse(text, path="tests/unit/test_x.py")))
