"""A start that cannot be good is refused with what, why and what to do, exit code 6 and no traceback."""

import datetime as dt
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster, bare_environment, titan
from titan.cli import home as homes
from titan.cli.certificates import own
from titan.storage.database import Database

SECRET = "0123456789" * 4 + "\n"
NOW = dt.datetime.now(dt.UTC)
# How a home or what is around it is spoiled: returns further words of the command line.
Spoil = Callable[[Path], tuple[str, ...]]


def refused(home: Path, *words: str) -> str:
    """Run a start that is refused and return what is said of it."""
    done = titan(home, *words, cwd=Path("/"))
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (6, b""), said
    assert "Traceback" not in said
    return said


def database(home: Path) -> Path:
    home.mkdir(mode=0o700)
    Database.open(f"sqlite:///{home / 'titan.db'}", home).close()
    return home / "titan.db"


def newer(home: Path) -> tuple[str, ...]:
    with sqlite3.connect(database(home)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    return ()


def corrupt(home: Path) -> tuple[str, ...]:
    home.mkdir(mode=0o700)
    (home / "titan.db").write_bytes(b"not a database, by any means" * 200)
    return ()


def damaged(home: Path) -> tuple[str, ...]:
    path = database(home)
    data = bytearray(path.read_bytes())
    data[4096:12288] = b"\xa5" * 8192
    path.write_bytes(data)
    return ()


def open_token(home: Path) -> tuple[str, ...]:
    home.mkdir(mode=0o700)
    (home / "token").write_text(SECRET)
    (home / "token").chmod(0o644)
    return ()


def no_text(home: Path) -> tuple[str, ...]:
    home.mkdir(mode=0o700)
    (home / "token").write_bytes(b"\xff\xfe" * 40)
    return ()


def open_key_of_the_home(home: Path) -> tuple[str, ...]:
    home.mkdir(mode=0o700)
    own(home, ["127.0.0.1"], NOW).key.with_name("ca.key").chmod(0o640)
    return ("--tls",)


def open_key_given(home: Path) -> tuple[str, ...]:
    files = own(home.parent, ["127.0.0.1"], NOW)
    files.key.chmod(0o604)
    return ("--tls-cert", str(files.certificate), "--tls-key", str(files.key))


def a_file(home: Path) -> tuple[str, ...]:
    home.write_text("mine")
    return ()


def open_home(home: Path) -> tuple[str, ...]:
    home.mkdir()
    home.chmod(0o777)
    return ()


def public(_: Path) -> tuple[str, ...]:
    return ("--listen", "0.0.0.0")


STARTS: list[tuple[Spoil, str, str]] = [
    (newer, "has the schema 9999, this Titan knows up to", "install that version again"),
    (corrupt, "titan.db is damaged or no SQLite database", "put a backup in its place"),
    (damaged, "titan.db is damaged", "put a backup in its place"),
    (open_token, "token is open to others (mode 644), so they may know", "the next start makes a new one"),
    (no_text, "cannot be Titan's home: token: it is no text", "with TITAN_HOME"),
    (open_key_of_the_home, "ca.key is open to others (mode 640)", "let every machine join again"),
    (open_key_given, "server.key is open to others (mode 604)", "have a new certificate made"),
    (a_file, "cannot be Titan's home: it is a file", "with TITAN_HOME"),
    (open_home, "may be written by others (mode 777), who could swap its token", "chmod go-w"),
    (public, "--listen 0.0.0.0 is open to the network, and without TLS", "--tls; or leave --listen out"),
]


@pytest.mark.parametrize(("spoil", "why", "then"), STARTS, ids=[spoil.__name__ for spoil, _, _ in STARTS])
def test_s24_a_start_that_cannot_be_good_is_refused(tmp_path: Path, spoil: Spoil, why: str, then: str) -> None:
    home = tmp_path / "home"
    words = spoil(home)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith("lock")]
    kept = {path: path.read_bytes() for path in files}
    said = refused(home, "up", "--workers", "0", *([] if "--listen" in words else ["--port", "0"]), *words)
    assert why in said
    assert then in said
    for path, data in kept.items():
        assert path.read_bytes() == data, path


def test_a_home_that_cannot_be_written_is_refused() -> None:
    for words in (("up", "--port", "0"), ("worker", "--join", "http://127.0.0.1:9", "--name", "w")):
        said = refused(Path("/proc/no-home-of-titan"), *words)
        assert said.startswith("titan: /proc/no-home-of-titan cannot be Titan's home: ")
        assert "Next: choose a folder that you may write to with TITAN_HOME" in said


def test_a_port_that_is_taken_is_named_with_who_has_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        said = refused(tmp_path / "home", "up", "--port", str(port))
    assert f"port {port} on 127.0.0.1 is taken by another program\nNext: titan up --port {port + 1}, or" in said


@contextmanager
def held(home: Path) -> Iterator[Cluster]:
    cluster = Cluster(home, "--port", "0", "--workers", "0")
    try:
        yield cluster.start()
    finally:
        cluster.stop()


def test_f13_a_second_master_on_a_home_is_refused_without_titan_up(tmp_path: Path) -> None:
    with held(tmp_path / "home") as cluster:
        command = [sys.executable, "-m", "titan.master", "--home", str(cluster.home), "--port", "0"]
        done = subprocess.run(
            command, env=bare_environment(cluster.home), capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (6, "")
        assert "titan.db is open in another Titan Master (process " in done.stderr
        assert "stop that one (titan down), or use another home" in done.stderr
        said = refused(cluster.home, "up", "--port", "0")
        assert f"Titan is up already on {cluster.home}: pid {cluster.pid} at {cluster.url}" in said
        assert "`titan down` first" in said
        assert cluster.titan("status").returncode == 0


def exposed(path: Path) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(SECRET)
    path.chmod(0o644)
    return path


@pytest.mark.parametrize(
    ("name", "then"),
    [
        ("token", "revoke that token and make another"),
        ("workers/w/credential", "titan worker remove w at the Master, then a fresh line"),
        ("given", "revoke that token and make another"),
    ],
)
def test_s24_a_worker_whose_secret_is_open_to_others_does_not_start(tmp_path: Path, name: str, then: str) -> None:
    home = tmp_path / "home"
    path = exposed(home / name)
    more = ["--token-file", str(path)] if name == "given" else []
    said = refused(home, "worker", "--join", "http://127.0.0.1:9", "--name", "w", *more)
    assert said.startswith(f"titan worker: {path} is open to others (mode 644)")
    assert then in said


def test_a_worker_whose_folder_cannot_be_made_says_so(tmp_path: Path) -> None:
    homes.prepare(tmp_path / "home")
    (tmp_path / "home" / "workers").write_text("mine")
    said = refused(tmp_path / "home", "worker", "--join", "http://127.0.0.1:9", "--name", "w")
    assert said == (
        f"titan worker: {tmp_path}/home/workers/w cannot be used: Not a directory\n"
        "Next: choose another folder with TITAN_HOME\n"
    )
