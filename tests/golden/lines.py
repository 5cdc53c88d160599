"""Bad command lines, settings and homes: what was typed, with which variables set, and what is refused.

In a line {cwd} is an empty folder, {home} that of a Master which lives at {url}. Lines of `python -m titan.master`
show what `titan up` passes on when its Master refuses to start.
"""

import contextlib
import io
import os
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.golden.process import RealMaster
from tests.golden.table import Entry, entry
from titan.cli.main import main as titan
from titan.master.process import main as master_process

MASTER = "titan.master"


BAD_YAML = """\
name: nightly
jobs:
- id: a
  script: here.py
  piority: 5
- id: b
  script: here.py
  needs: [c]
"""


class Line(NamedTuple):
    """A command line, a part that the answer names, and variables."""

    words: str
    names: str
    env: dict[str, str] = {}


def line(words: str, names: str, **env: str) -> Line:
    return Line(words, names, env)


CLI = [
    line("frobnicate", "'frobnicate'"),
    line("stauts", "'stauts'"),
    line("kill x", "'kill'"),
    line("store rm k", "'del'"),
    line("worker stop x", "'drain'"),
    line("token del x", "'revoke'"),
    line("tail x", "'logs'"),
    line("run her.py", "here.py"),
    line("show @last-failed", "@last-failed"),
    line("ps --jsno", "'--jsno'"),
    line("ps --limit x", "'x'"),
    line("ps --limit 0", "0"),
    line("ps --state RUNNIN", "'RUNNIN'"),
    line("ps nope", "'nope'"),
    line("up extra", "extra"),
    line("up --slots 0", "0"),
    line("up --workers 65", "65"),
    line("up --port 70000", "70000"),
    line("up --capability a/b", "'a/b'"),
    line("up --no-general", "--no-general"),
    line("up --tls-cert nowhere.pem", "nowhere.pem"),
    line("up --tls-cert here.txt", "--tls-key"),
    line("run", "FILE"),
    line("run nowhere.py", "'nowhere.py'"),
    line("run .", "."),
    line("run here.py --env X", "X"),
    line("run here.py --env TITAN_X=1", "'TITAN_X'"),
    line("run here.py --priority 5000", "5000"),
    line("run here.py --retries -1", "-1"),
    line("run here.py --nme Ada", "--nme"),
    line("run here.py --job-id a/b", "'a/b'"),
    line("status nope", "'nope'"),
    line("status @yesterday", "'@yesterday'"),
    line("wait", "ID"),
    line("wait nope", "'nope'"),
    line("wait first --timeout x", "'x'"),
    line("wait first --timeout 0", "0"),
    line("logs", "ID"),
    line("logs nope", "'nope'"),
    line("logs first -f --attempt 1", "--attempt"),
    line("cancel", "ID"),
    line("cancel nope", "'nope'"),
    line("explain nope", "'nope'"),
    line("store get nope", "'nope'"),
    line("store put k", "VALUE"),
    line("store put k --file nowhere", "nowhere"),
    line("store incr text", "'text'"),
    line("store incr k many", "'many'"),
    line("token create n --role root", "'root'"),
    line("token create n --role worker", "worker"),
    line("token create n --role viewer --expires soon", "'soon'"),
    line("token revoke nope", "'nope'"),
    line("worker lst", "'lst'"),
    line("worker drain nope", "nope"),
    line("worker remove nope", "'nope'"),
    line("worker join-token --expires 0s", "0s"),
    line("worker --name ../x", "'../x'"),
    line("worker --slots many", "'many'"),
    line("worker --join nonsense://x", "--join"),
    line("worker --join http://192.0.2.1:9090", "http://192.0.2.1:9090"),
    line("worker --allow-interpreter sh", "sh"),
    line("worker --fingerprint abc", "fingerprint"),
    line("worker --token-file nowhere", "nowhere"),
    line("worker --timeout-max 0", "0"),
    line("show nope", "'nope'"),
    line("show first --limit 0", "0"),
    line("retry nope", "'nope'"),
    line("retry @last", "has not ended"),
    line("retry @last nope", "has not ended"),
    line("events --kind runs", "'runs'"),
    line("events --count 0", "0"),
    line("events --run nope", "'nope'"),
    line("top --interval 0", "0"),
    line("top --interval often", "'often'"),
    line("submit nowhere.yml", "nowhere.yml"),
    line("submit here.txt", "here.txt"),
    line("submit bad.yml", "piority"),
    line("validate nowhere.yml", "nowhere.yml"),
    line("validate .", "."),
    line("validate here.py", "here.py"),
    line("submit here.py", "titan run here.py"),
    line("run bad.yml", "titan submit bad.yml"),
    line("graph here.py", "here.py"),
    line("validate tool.sh", "titan run tool.sh"),
    line("--url ftp://x ps", "--url"),
    line("--url {url} up", "--url"),
    line("validate bad.yml", "piority"),
    line("validate alias.yml", "*jobs"),
    line("graph nope", "'nope'"),
    line("artifacts get nope", "'nope'"),
    line("artifacts put k nowhere", "nowhere"),
    line("artifacts rm nope", "'nope'"),
    line("audit ls --limit 0", "0"),
    line("completion tcsh", "'tcsh'"),
    line("config ls extra", "extra"),
    line("ps --profile nope", "nope"),
    line("ps --url ftp://x", "--url"),
    line("ps --token-file nowhere", "nowhere"),
    line("ps --ca nowhere.pem --url https://127.0.0.1:1", "nowhere.pem"),
]
CONFIG = [
    line("ps", "TITAN_URL", TITAN_URL="ftp://x"),
    line("ps", "TITAN_URL", TITAN_URL="http://x:99999"),
    line("ps", "TITAN_URL", TITAN_URL=", ,"),
    line("ps", "TITAN_HOST", TITAN_URL="", TITAN_HOST="a b"),
    line("ps", "TITAN_PORT", TITAN_URL="", TITAN_PORT="many"),
    line("ps", "http://127.0.0.1:1", TITAN_URL="http://127.0.0.1:1"),
    line("ps", "TITAN_TOKEN", TITAN_TOKEN="two words"),
    line("ps", "token", TITAN_TOKEN="0" * 64),
    line("ps", "'nowhere.pem'", TITAN_URL="https://127.0.0.1:1", TITAN_CA="nowhere.pem"),
    line("ps", "fingerprint", TITAN_URL="https://127.0.0.1:1", TITAN_CA="sha256:abc"),
    line("up --port 0", "TITAN_LIMIT_WAITS_MAX='many'", TITAN_LIMIT_WAITS_MAX="many"),
    line("up --port 0", "TITAN_LIMIT_WAITS_MAX='0'", TITAN_LIMIT_WAITS_MAX="0"),
    line("up --port 0", "TITAN_LIMIT_WAITS_MAX='-5'", TITAN_LIMIT_WAITS_MAX="-5"),
    line("up --port 0", "TITAN_LIMIT_WAITS_MAX='1e3'", TITAN_LIMIT_WAITS_MAX="1e3"),
    line("up --port 0", "TITAN_LIMIT_WAIT_S_MAX='inf'", TITAN_LIMIT_WAIT_S_MAX="inf"),
    line("up --port 0", "TITAN_LIMIT_WAIT_MAX", TITAN_LIMIT_WAIT_MAX="5"),
    line("up --port 0", "here.txt/home", TITAN_HOME="{cwd}/here.txt/home"),
    line("up --port 0", "{cwd}/shared", TITAN_HOME="{cwd}/shared"),
]
STARTS = [
    line("up --listen 0.0.0.0", "0.0.0.0"),
    line("up --listen example.com", "'example.com'"),
    line("up --listen 127.0.0.1:x", "'127.0.0.1:x'"),
    line("up --listen 127.0.0.1:9090 --port 9091", "9091"),
    line("up --listen 192.0.2.1 --tls --port 9090", "192.0.2.1", TITAN_HOME="{cwd}/tls"),
    line("up --tls --tls-name a_b", "'a_b'", TITAN_HOME="{cwd}/tls"),
    line("up --port {taken}", "port {port}", TITAN_HOME="{cwd}/taken"),
    line("up --tls-cert here.txt --tls-key here.txt --port 0", "here.txt", TITAN_HOME="{cwd}/pem"),
    line("titan.master --home {cwd}/nowhere", "nowhere/token"),
    line("titan.master --home {cwd}/readable", "readable/token"),
    line("titan.master --home {cwd}/short", "short/token"),
    line("titan.master --home {cwd}/good --listen example.com", "'example.com'"),
    line("titan.master --home {cwd}/good --listen 0.0.0.0", "0.0.0.0"),
    line("titan.master --home {cwd}/good --port {taken}", "127.0.0.1:"),
    line("titan.master --home {cwd}/good --tls-cert {cwd}/here.txt", "here.txt"),
    line("titan.master --home {cwd}/good", "TITAN_LIMIT_WAITS_MAX", TITAN_LIMIT_WAITS_MAX="x"),
    line("titan.master --home {cwd}/garbage --port 0", "titan.db"),
    line("titan.master --home {cwd}/newer --port 0", "titan.db"),
    line("titan.master --home {home} --port 0", "titan.db"),
]


def prepare(folder: Path) -> socket.socket:
    """Fill `folder` with files and homes that are no good; return what holds a port."""
    (folder / "here.txt").write_text("no script")
    (folder / "here.py").write_text("print('ok')")
    (folder / "tool.sh").write_text("#!/bin/sh\n")
    (folder / "bad.yml").write_text(BAD_YAML)
    (folder / "alias.yml").write_text("name: x\njobs: &jobs\n- *jobs\n")
    (folder / "shared").mkdir()
    (folder / "shared").chmod(0o777)
    token = "a" * 64
    for name, text, mode in (
        ("readable", token, 0o644), ("short", "abc", 0o600), ("good", token, 0o600), ("garbage", token, 0o600),
        ("newer", token, 0o600),
    ):  # fmt: skip
        (folder / name).mkdir(mode=0o700)
        (folder / name / "token").write_text(text)
        (folder / name / "token").chmod(mode)
    (folder / "garbage" / "titan.db").write_bytes(b"this is no database at all" * 400)
    with contextlib.closing(sqlite3.connect(folder / "newer" / "titan.db")) as newer:
        newer.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        newer.execute("INSERT INTO alembic_version VALUES ('from_the_future')")
        newer.commit()
    return socket.create_server(("127.0.0.1", 0))


def entries(master: RealMaster, folder: Path, lines: list[Line]) -> Iterator[Entry]:
    """Run each line in this process, in `folder`, and yield its exit code and what it said."""
    with prepare(folder) as taken, contextlib.chdir(folder):
        port = str(taken.getsockname()[1])
        words = {"taken": port, "cwd": str(folder), "home": str(master.home), "url": master.url}
        masks = {"port": port, "next port": str(int(port) + 1)} | words
        for each in lines:
            config = {"XDG_CONFIG_HOME": "{cwd}/config"}
            set_now = {"TITAN_HOME": str(master.home), "TITAN_URL": master.url} | config | each.env
            shown = " ".join([*(f"{name}={value}" for name, value in each.env.items()), f"titan {each.words}"])
            code, said = _run(each.words, words, set_now)
            text = f"exit {code}\n{said}"
            yield entry(shown.replace("titan titan.", "python -m titan."), each.names, text, masks)


def _run(typed: str, words: dict[str, str], env: dict[str, str]) -> tuple[int, str]:
    typed_words = [_filled(word, words) for word in typed.split(" ")]
    before, mask = dict(os.environ), os.umask(0o022)
    os.umask(mask)
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    os.environ.update({name: _filled(value, words) for name, value in env.items()})
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = master_process(typed_words[1:]) if typed_words[0] == MASTER else titan(typed_words)
    finally:
        os.umask(mask)
        os.environ.clear()
        os.environ.update(before)
    assert out.buffer.getvalue() == b"", (typed, out.buffer.getvalue())
    return int(code), err.buffer.getvalue().decode()


def _filled(text: str, words: dict[str, str]) -> str:
    for name, value in words.items():
        text = text.replace(f"{{{name}}}", value)
    return text
