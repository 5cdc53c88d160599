"""S17: secrets are compared in constant time, shown by reading the code: no clock is asked."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.unit.sources import Source, parse, read_tree, report

# Names of what must not be found out byte by byte. Hashes of contents are no secrets.
SECRET = re.compile(r"^(?!public_)(\w*_)?(token|secret|password|passphrase|key|hmac|mac|made|given|digest|hash)s?$")
MODULES = re.compile(
    r"titan\.master\.(auth|book|tokens|sessions|origins|api\.(tokens|joining))$"
    r"|titan\.cli\.(home|token|worker|up|certificates)$|titan\.(storage|model)\.tokens$|titan\.worker\.joining$"
)
KINDS = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)


def name_of(node: ast.expr) -> str:
    """Return the last name of an expression: `row.hash` is hash, `hash(x)[1:]` is hash."""
    while isinstance(node, (ast.Call, ast.Subscript, ast.Await)):
        node = node.func if isinstance(node, ast.Call) else node.value
    if isinstance(node, ast.Attribute):
        return name_of(node.value) if node.attr in ("digest", "hexdigest", "encode", "strip", "hex") else node.attr
    return node.id if isinstance(node, ast.Name) else ""


def early_exits(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Compare) and any(isinstance(operator, KINDS) for operator in node.ops):
            sides = [node.left, *node.comparators]
            constant = any(isinstance(side, (ast.Constant, ast.Tuple, ast.Set)) for side in sides)
            names = {name_of(side) for side in sides}
            if all(isinstance(operator, (ast.In, ast.NotIn)) for operator in node.ops):
                names.discard("key")  # of a dict, or of a keyboard
            if not constant and any(map(SECRET.search, names)):
                yield f"{source.at(node)}: {ast.unparse(node)}: compare secrets with hmac.compare_digest"


def test_s17_no_secret_is_compared_byte_by_byte() -> None:
    found = [line for source in read_tree("src") if MODULES.search(source.module) for line in early_exits(source)]
    assert not found, report(found)


@pytest.mark.parametrize("module", ["titan.master.auth", "titan.master.book", "titan.master.tokens"])
def test_s17_whoever_judges_a_token_does_it_in_constant_time(module: str) -> None:
    (source,) = [source for source in read_tree("src") if source.module == module]
    assert any(ast.unparse(node) == "hmac.compare_digest" for node in ast.walk(source.tree))


@pytest.mark.parametrize(
    "text",
    [
        "token == self.token",
        "if given != made: pass",
        "hashlib.sha256(token).digest() == row.hash",
        "secret in known_secrets",
        "row.hash != digest",
        "hmac.digest(key, body).hex() == given",
        "self._home_token == sent",
        "password == request.password",
    ],
)
def test_s17_a_careless_comparison_is_found(text: str) -> None:
    assert list(early_exits(parse(text)))


@pytest.mark.parametrize(
    "text", ["token is None", "role == Role.JOB", "token_id == other", "hmac.compare_digest(a, b)"]
)
def test_s17_what_is_no_secret_is_left_alone(text: str) -> None:
    assert not list(early_exits(parse(text)))
