"""What must not come out: tokens (S18), secrets in what is shipped (S24), control characters in our own logs (S40)."""

import ast
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.master import TOKEN, Master
from tests.security.walk import ask, paths, token_of
from tests.unit.sources import ROOT, SRC
from titan.master import voice
from titan.model.roles import Role
from titan.worker import __main__ as worker

WRONG = "a-canary-that-is-no-token-0123456789"
SHIPPED = ("src", "docs", "README.md", "pyproject.toml")
NAMED = re.compile(
    r"(?i)(^|_)(token|secret|passw(or)?d|passphrase|credential|salt|(api|private|secret|session|signing|token)_?key)s?$"
)
RANDOM = re.compile(
    r"(?<![0-9A-Za-z+/_.-])(?:[0-9a-f]{32,}|[A-Za-z0-9_-]{43}|tt\.[0-9a-f]{12}\.\S{20,})(?![0-9A-Za-z/_.-])"
)
# A word for a file or a message is no secret: a secret has digits in it.
SECRET_CHARS_MIN = 8
HOSTILE = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\r2026-01-01 titan master: ERROR all tokens revoked\n\u202egnp.exe\x9b31m\x00"


def answers_repeat_none(master: Master, *tokens: str) -> None:
    """Ask for everything with each of `tokens`, and look for it in the answer."""
    for path in paths(master):
        for method in ("GET", "POST", "PUT"):
            for token in tokens:
                answer = ask(master, method, path, token)
                said = repr(answer.headers) + answer.body.decode("utf-8", "replace")
                assert token.rpartition(".")[2] not in said, (method, path)


def test_s18_no_answer_and_no_line_of_the_log_repeats_a_token(master: Master, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    viewer = token_of(master, Role.VIEWER)
    answers_repeat_none(master, viewer, TOKEN, WRONG, f"{viewer}x")
    ours = [record for record in caplog.records if record.name.startswith(("titan", "uvicorn", "litestar"))]
    text = "\n".join(voice.OneLine(voice.FORMAT).format(record) for record in ours)
    for token in (viewer.rpartition(".")[2], TOKEN, WRONG):
        assert token not in text


@pytest.mark.parametrize("name", ["token", "access_token", "authorization", "titan_token", "key"])
def test_s18_a_token_in_a_url_or_a_cookie_lets_nobody_in(master: Master, name: str) -> None:
    assert ask(master, "GET", f"/api/v1/runs?{name}={TOKEN}", None).status == 401
    assert ask(master, "GET", "/api/v1/runs", None, f"Cookie: {name}={TOKEN}").status == 401
    assert ask(master, "GET", "/api/v1/runs", None, f"Sec-WebSocket-Protocol: {name}, {TOKEN}").status == 401


def fixed_secrets(text: str) -> Iterator[str]:
    """Yield what looks like a secret in a source: a name of one with a text that has digits, or random digits."""
    try:
        tree = ast.parse(text)
    except SyntaxError:  # an example may be about mending one
        yield from RANDOM.findall(text)
        return
    for node in ast.walk(tree):
        pairs: list[tuple[str, ast.expr | None]] = []
        if isinstance(node, ast.Assign):
            pairs = [(target.id, node.value) for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            pairs = [(node.target.id, node.value)]
        elif isinstance(node, ast.keyword):
            pairs = [(node.arg or "", node.value)]
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            defaults = [*node.args.defaults, *node.args.kw_defaults]
            named = [*node.args.args[len(node.args.args) - len(node.args.defaults) :], *node.args.kwonlyargs]
            pairs = [(argument.arg, default) for argument, default in zip(named, defaults, strict=True)]
        for name, value in pairs:
            if NAMED.search(name) and isinstance(value, ast.Constant) and isinstance(value.value, (str, bytes)):
                given = value.value if isinstance(value.value, str) else value.value.decode("latin-1")
                if len(given) >= SECRET_CHARS_MIN and re.search(r"[0-9]", given):
                    yield f"{name} = {given[:40]!r}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and RANDOM.search(node.value):
            yield node.value[:60]


def test_s24_no_secret_is_shipped() -> None:
    for file in sorted((*SRC.rglob("*.py"), *(ROOT / "examples").rglob("*.py"))):
        assert not list(fixed_secrets(file.read_text(encoding="utf-8"))), file
    for top in SHIPPED:
        for file in [ROOT / top] if (ROOT / top).is_file() else (ROOT / top).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts and ".egg-info" not in str(file):
                data = file.read_bytes()
                assert b"-----BEGIN" not in data, file
                assert not re.search(rb"\btt\.[0-9a-f]{12}\.[A-Za-z0-9_-]{43}\b", data), file
                assert file.suffix not in (".pem", ".key", ".p12", ".db"), file


@pytest.mark.parametrize(
    "planted",
    [
        "SECRET_KEY = 'temporary_key_1'",
        "def serve(password='admin123'): pass",
        "def serve(*, token: str = 'changeme1234'): pass",
        "connect(api_key='0123456789ab')",
        "DEFAULT = '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'",
        "token_key: bytes = b'k1k1k1k1k1k1'",
    ],
)
def test_s24_a_secret_that_was_shipped_would_be_found(planted: str) -> None:
    assert list(fixed_secrets(planted))


def spoken(message: str, *arguments: object, error: Exception | None = None) -> list[str]:
    """Return the lines that the Master's log makes of a record."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(voice.OneLine(voice.FORMAT))
    record = logging.LogRecord("titan.master", logging.ERROR, "x.py", 1, message, arguments, None)
    if error is not None:
        record.exc_info = (type(error), error, None)
    handler.handle(record)
    return stream.getvalue().split("\n")[:-1]


def harmless(line: str) -> bool:
    return line.isprintable() and not re.search("[\u200e\u200f\u202a-\u202e\u2066-\u2069]", line)


def test_s40_nothing_that_others_say_makes_a_line_of_the_master_s_log() -> None:
    lines = spoken("the link of worker %s is closed: %s", "box-1", HOSTILE)
    assert len(lines) == 1
    assert harmless(lines[0])
    told = r"[0-9-]{10} [0-9:,]{12} titan master: ERROR the link of worker box-1 is closed: \\x1b\]52"
    assert re.match(told, lines[0])
    first, *rest = spoken("request %s failed", "r\n1", error=ValueError(HOSTILE))
    assert all(map(harmless, (first, *rest)))
    assert rest
    assert all(line.startswith("  | ") for line in rest)


def test_s40_what_a_master_answers_makes_no_line_of_a_worker_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert worker._refused(HOSTILE, HOSTILE) == 6
    said = capsys.readouterr().err.split("\n")[:-1]
    assert [line[:14] for line in said] == ["titan worker: ", "Next: \\x1b]52;"]
    assert all(map(harmless, said))


def test_s40_the_master_speaks_in_that_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[logging.Handler] = []
    monkeypatch.setattr(logging, "basicConfig", lambda **more: given.extend(more["handlers"]))
    voice.speak(io.StringIO())
    (handler,) = given
    assert isinstance(handler.formatter, voice.OneLine)
