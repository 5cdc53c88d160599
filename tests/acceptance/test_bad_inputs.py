"""Wrong words: each exit code and each text as a person sees it. Changing one is changing the product.

In the texts {home}, {url}, {port}, {pid} and {cwd} stand for those of the cluster and the test, {two} for a run.
"""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.cluster import Cluster, titan
from titan_sdk import TitanJob


class Bad(NamedTuple):
    """A command line that must fail: its exit code and its whole stderr."""

    arguments: tuple[str, ...]
    code: int
    text: str
    env: dict[str, str] = {}


def bad(line: str, code: int, text: str, **env: str) -> Bad:
    return Bad(tuple(line.split(" ")) if line else (), code, text, env)


NO_SUCH = (
    "titan: there is no run and no job 'nope'\n"
    "Next: titan ps lists the runs, titan ps --name TEXT those with TEXT in the name\n"
)
MISSING = "titan: Missing argument '{0}'.\nNext: titan {1} --help\n"
PUBLIC = (
    "Next: titan up --listen 0.0.0.0 --tls; or leave --listen out and come through a tunnel: "
    "ssh -L 9090:127.0.0.1:9090 HOST; --insecure-no-tls is for a network that nobody else is on\n"
)

TABLE = (
    # Words
    bad("frobnicate", 2, "titan: No such command 'frobnicate'.\nNext: titan --help\n"),
    bad("stauts", 2, "titan: No such command 'stauts'. Did you mean 'status'?\nNext: titan --help\n"),
    bad("kill ok", 2, "titan: No such command 'kill'. Did you mean 'cancel'?\nNext: titan --help\n"),
    bad(
        "worker --name ../x",
        2,
        "titan: worker name '../x' has the character '/': use letters, digits, '.', '_' and '-'\n"
        "Next: titan worker start --help\n",
    ),
    bad(
        "worker --token-file /",
        2,
        "titan: Invalid value for '--token-file': File '/' is a directory.\nNext: titan worker start --help\n",
    ),
    bad("worker lst", 2, "titan: No such command 'lst'. Did you mean 'ls'?\nNext: titan worker --help\n"),
    bad("ps --jsno", 2, "titan: No such option '--jsno'. Did you mean '--json'?\nNext: titan ps --help\n"),
    bad("up extra", 2, "titan: Got unexpected extra argument (extra)\nNext: titan up --help\n"),
    bad("wait", 2, MISSING.format("ID", "wait")),
    bad("cancel", 2, MISSING.format("ID...", "cancel")),
    bad("store get", 2, MISSING.format("KEY", "store get")),
    # Values
    bad(
        "ps --limit 0",
        2,
        "titan: Invalid value for '-n' / '--limit': 0 is out of range: give 1 to 1000.\nNext: titan ps --help\n",
    ),
    bad(
        "ps --state RUNNIN",
        2,
        "titan: --state 'RUNNIN' is no state of a run. Did you mean 'RUNNING'? "
        "Choose from QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED.\nNext: titan ps --help\n",
    ),
    bad(
        "ps ok --name x",
        2,
        "titan: --name and --agent-run choose runs: leave RUN out, or leave them out\nNext: titan ps --help\n",
    ),
    bad(
        "logs ok -f --attempt 1",
        2,
        "titan: --follow goes through all attempts: leave --attempt out\nNext: titan logs --help\n",
    ),
    bad(
        "store incr k many",
        2,
        "titan: Invalid value for '[BY]': 'many' is no whole number.\nNext: titan store incr --help\n",
    ),
    bad("store put k", 2, "titan: give either VALUE or --file\nNext: titan store put --help\n"),
    # Not found
    bad("status nope", 3, NO_SUCH),
    bad("wait nope", 3, NO_SUCH),
    bad("logs nope", 3, NO_SUCH),
    bad("cancel ok nope", 3, NO_SUCH),
    bad("explain nope", 3, NO_SUCH),
    bad(
        "status abcd/job",
        3,
        "titan: there is no run 'abcd'\nNext: titan ps lists the runs; 4 digits of an id are enough\n",
    ),
    bad(
        "status @yesterday",
        3,
        "titan: '@yesterday' means nothing\nNext: @last is the newest run, @last-failed the newest failed one\n",
    ),
    bad("store get nope", 3, "titan: the store has no key 'nope'\nNext: titan store ls shows the keys\n"),
    bad(
        "store put k --file nope",
        3,
        "titan: cannot read nope: No such file or directory\nNext: name a file, or --file - for stdin\n",
    ),
    # Unreachable, denied
    bad(
        "ps",
        4,
        "titan: no Titan Master answered at http://127.0.0.1:1 (from TITAN_URL): Connection refused\n"
        "Next: start one with `titan up`, or say where it is: TITAN_URL=http://HOST:9090\n",
        TITAN_URL="http://127.0.0.1:1",
    ),
    bad(
        "ps",
        5,
        "titan: this Master does not know the token, or its attempt is over\n"
        "Next: titan up keeps its token in the file 'token' of its home; TITAN_TOKEN overrides it; "
        "titan config ls --show-origin says which token was shown\n",
        TITAN_TOKEN="0" * 64,
    ),
    # Refused
    bad(
        "ps",
        6,
        "titan: the address from TITAN_URL is not the URL of a Master\n"
        "Next: give a scheme, host and port, such as http://127.0.0.1:9090\n",
        TITAN_URL="ftp://x",
    ),
    bad(
        "worker --join nonsense://x",
        6,
        "titan: the address behind --join is not the URL of a Master\n"
        "Next: give a scheme, host and port, such as http://127.0.0.1:9090\n",
    ),
    bad("store get ", 6, "titan: the key '' has 0 bytes as UTF-8: give 1 to 512\n"),
    bad(
        f"store get {'k' * 513}",
        6,
        f"titan: the key '{'k' * 57}...' has 513 bytes as UTF-8: give 1 to 512 "
        "(TITAN_LIMIT_STORE_KEY_BYTES_MAX at the Master changes the limit)\n",
    ),
    bad(
        "store incr text",
        6,
        "titan: 'text' holds something that is no whole decimal number as text: "
        "count under another key, or delete it first\n",
    ),
    bad(
        "logs {two}",
        6,
        "titan: run {two} has 2 jobs: name one\nNext: titan logs {two}/first, titan logs {two}/second\n",
    ),
    bad(
        "up --listen 0.0.0.0",
        6,
        "titan: --listen 0.0.0.0 is open to the network, and without TLS everybody on it could read the tokens\n"
        + PUBLIC,
    ),
    bad(
        "up --listen example.com",
        6,
        "titan: --listen 'example.com' is not an address\n"
        "Next: give an IP address, for example --listen 127.0.0.1; --tls-name takes names\n",
    ),
    bad(
        "up --port {port}",
        6,
        "titan: port {port} on 127.0.0.1 is taken by another program\n"
        "Next: titan up --port {next_port}, or stop what listens there (ss -ltnp 'sport = :{port}' names it)\n",
        TITAN_HOME="{cwd}/other",
    ),
    bad(
        "up --port 0",
        6,
        "titan: {cwd}/ok.py/home cannot be Titan's home: Not a directory\n"
        "Next: choose a folder that you may write to with TITAN_HOME\n",
        TITAN_HOME="{cwd}/ok.py/home",
    ),
    bad(
        "up --port 0",
        6,
        "titan: Titan is up already on {home}: pid {pid} at {url} holds its lock\n"
        "Next: use it as it is, or `titan down` first, or a second one: TITAN_HOME=/other titan up --port 9091\n",
    ),
    bad(
        "up --port 0",
        6,
        "titan: TITAN_LIMIT_WAITS_MAX='many' is no positive whole number: give one, or unset it\n",
        TITAN_LIMIT_WAITS_MAX="many",
    ),
    bad(
        "up --no-general",
        2,
        "titan: --no-general leaves the worker without any tag: name one with --capability\nNext: titan up --help\n",
    ),
    # titan run: 125 is all that is not the script's own
    bad("run", 125, MISSING.format("FILE", "run")),
    bad(
        "run nope.py",
        125,
        "titan: 'nope.py' is neither on this disk ({cwd}/nope.py) nor, as 'nope.py', in the Master's registry\n"
        "Next: mend the name, or upload_file() puts it there\n",
    ),
    bad(
        "run ok.py --nme Ada",
        125,
        "titan: No such option '--nme'. The script's own arguments go behind --: titan run ok.py -- --nme ...\n"
        "Next: titan run --help\n",
    ),
    bad("run ok.py --env X", 125, "titan: --env X: give NAME=VALUE\nNext: titan run --help\n"),
    bad(
        "run ok.py --env TITAN_TOKEN=x",
        125,
        "titan: env name 'TITAN_TOKEN' is Titan's own: use one that does not begin with TITAN_\n",
    ),
    bad(
        "run ok.py --priority 5000",
        125,
        "titan: priority is 5000: give 0 to 1000 (TITAN_LIMIT_PRIORITY_MAX at the Master changes the limit)\n",
    ),
    bad("run .", 125, "titan: . cannot be read: it is not a regular file; name a file that you may read\n"),
    bad(
        "run ok.py -- \udcff",
        125,
        "titan: args cannot be sent: it holds a lone surrogate, which is not text; leave it out\n",
    ),
    bad(
        "run --job-id a/b ok.py --retries -1",
        125,
        "titan: the submission has 2 problems; nothing was run\n"
        "  - a/b: job id 'a/b' has the character '/': use letters, digits, '.', '_' and '-'\n"
        "  - a/b: retries is -1: give 0 to 1000\n",
    ),
)


@pytest.fixture(scope="module")
def two(cluster: Cluster) -> str:
    """A run with two jobs, called two, and other things the table speaks of; its short id."""
    with cluster.client() as client:
        client.submit_job(TitanJob("ok", "ok.py", script_content="print('ok')")).wait(60)
        client.store_put("text", "not a number")
        jobs = [TitanJob(name, "x.py", script_content="pass") for name in ("first", "second")]
        client.submit_dag("two", jobs).wait(60)
    return cluster.titan("ps", "--limit", "1").stdout.decode().split()[0]


@pytest.mark.parametrize(
    "case", TABLE, ids=lambda case: " ".join(case.arguments)[:60].encode("ascii", "replace").decode()
)
def test_it_is_refused_with_this_code_and_this_text(cluster: Cluster, two: str, tmp_path: Path, case: Bad) -> None:
    (tmp_path / "ok.py").write_text("print('ok')")
    port = cluster.url.rpartition(":")[2]
    words = {
        "home": str(cluster.home),
        "url": cluster.url,
        "port": port,
        "next_port": str(int(port) + 1),
        "pid": str(cluster.pid),
        "cwd": str(tmp_path),
        "two": two,
    }

    def filled(text: str) -> str:
        for name, value in words.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    env = {name: filled(value) for name, value in case.env.items()}
    done = titan(cluster.home, *map(filled, case.arguments), cwd=tmp_path, **env)
    assert done.stderr.decode() == filled(case.text)
    assert done.returncode == case.code
    assert done.stdout == b""


def test_the_same_as_json(cluster: Cluster) -> None:
    """With --json the error is one document on stderr, and stdout stays empty."""
    for arguments, code, word in ((("status", "nope"), 3, "not_found"), (("ps", "--limit", "0"), 2, "usage")):
        done = cluster.titan(*arguments, "--json")
        assert (done.returncode, done.stdout) == (code, b"")
        error = json.loads(done.stderr)["error"]
        assert (error["code"], error["exit_code"]) == (word, code)
        assert error["message"]
        assert error["hint"]


def test_debug_adds_the_traceback(cluster: Cluster) -> None:
    done = cluster.titan("status", "nope", "--debug")
    assert b"Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith(NO_SUCH.encode())
    assert done.returncode == 3
    assert b"Traceback" not in cluster.titan("status", "nope").stderr


def test_a_strangers_text_cannot_rewrite_the_terminal(cluster: Cluster, tmp_path: Path) -> None:
    """The escape sequences of an argument come back escaped, even in an error."""
    done = cluster.titan("status", "\x1b]0;owned\x07\x1b[2J", cwd=tmp_path)
    assert b"\x1b" not in done.stderr
    assert done.returncode == 3
