"""The Master as a process: it says when it listens, why it does not start, and ends in order."""

import asyncio
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets

from titan import __version__
from titan.master.process import main
from titan.model.wire import (
    CLOSE_BAD_FRAME,
    CLOSE_STOPPING,
    PROTOCOL,
    Hello,
    Welcome,
    decode_master_frame,
    encode_frame,
)

TOKEN = "t" * 64
Refused = Callable[..., str]


def home_at(path: Path) -> Path:
    path.mkdir(mode=0o700, exist_ok=True)
    token = path / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN + "\n")
    return path


class Master:
    """One Master process, with the pipe whose end it takes for its parent's."""

    def __init__(self, home: Path, *more: str) -> None:
        self.home = home
        ready, told = os.pipe()
        parent, self._alive = os.pipe()
        command = [sys.executable, "-m", "titan.master", "--home", str(home), "--port", "0"]
        fds = ["--parent-fd", str(parent), "--ready-fd", str(told)]
        self.process = subprocess.Popen(
            [*command, *fds, *more], pass_fds=(told, parent), stderr=subprocess.PIPE, text=True
        )
        os.close(told)
        os.close(parent)
        with os.fdopen(ready) as pipe:
            self.said = pipe.readline()

    @property
    def url(self) -> str:
        url: str = json.loads((self.home / "endpoint.json").read_text())["url"]
        return url

    def get(self, path: str, token: str = TOKEN) -> tuple[int, Any]:
        return self.ask("GET", path, None, token)

    def ask(self, method: str, path: str, body: Any, token: str = TOKEN) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=30)
        connection.request(method, f"/api/v1/{path}", None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        read = answer.status, json.load(answer)
        connection.close()
        return read

    def parent_dies(self) -> None:
        os.close(self._alive)
        self._alive = -1

    def end(self) -> tuple[int, str]:
        """Wait for the end and return the exit code and what it said on stderr."""
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said

    def close(self) -> None:
        if self._alive >= 0:
            self.parent_dies()
        if self.process.poll() is None:
            self.process.kill()
            self.end()


@contextmanager
def master(home: Path, *more: str) -> Iterator[Master]:
    it = Master(home, *more)
    try:
        yield it
    finally:
        it.close()


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Start a Master, in this process, that must not start; return why it says it does not."""
    mask = os.umask(0o022)

    def start(home: Path, *more: str) -> str:
        assert main(["--home", str(home), "--port", "0", *more]) == 6
        said = capfd.readouterr().err
        assert "Traceback" not in said
        return said

    yield start
    os.umask(mask)


def test_it_serves_says_where_and_stops_on_sigterm(tmp_path: Path) -> None:
    home = home_at(tmp_path)
    with master(home) as it:
        assert it.said == "ready\n"
        told = json.loads((home / "endpoint.json").read_text())
        assert (told["pid"], told["version"]) == (it.process.pid, __version__)
        assert (home / "endpoint.json").stat().st_mode & 0o777 == 0o600
        assert it.get("healthz", "")[0] == 200
        assert it.get("stats")[0] == 200
        assert it.get("stats", "wrong" * 9)[0] == 401
        it.process.send_signal(signal.SIGTERM)
        assert it.end() == (0, "")
        assert {path.name for path in home.iterdir()} >= {"titan.db", "blobs", "logs", "token", "endpoint.json"}
        for path in home.rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path


def test_it_stops_when_its_parent_is_gone(tmp_path: Path) -> None:
    with master(home_at(tmp_path)) as it:
        it.parent_dies()
        assert it.end() == (0, "")


def test_what_was_stored_is_there_after_a_kill_and_a_second_start(tmp_path: Path) -> None:
    home = home_at(tmp_path)
    with master(home) as it:
        assert it.ask("POST", "store/put", {"key": "k", "value": "v"})[0] == 200
        it.process.kill()
        assert it.end()[0] == -signal.SIGKILL
    with master(home) as it:
        status, answer = it.ask("POST", "store/get", {"key": "k"})
        assert (status, answer["value"]) == (200, "v")


def test_s4_a_worker_links_up_is_told_of_the_stop_and_garbage_closes_its_link(tmp_path: Path) -> None:
    async def story(it: Master) -> None:
        url = it.url.replace("http", "ws") + "/api/v1/worker"
        headers = {"authorization": f"Bearer {TOKEN}"}
        hello = encode_frame([Hello("w", "i", "b", PROTOCOL, __version__, ("GENERAL",), 1)])
        async with websockets.connect(url, additional_headers=headers) as bad:
            await bad.send(b"garbage")
            await bad.wait_closed()
            assert bad.close_code == CLOSE_BAD_FRAME
        async with websockets.connect(url, additional_headers=headers) as text:
            await text.send("text")
            await text.wait_closed()
            assert text.close_code == CLOSE_BAD_FRAME
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(url)
        async with websockets.connect(url, additional_headers=headers) as link:
            await link.send(hello)
            frame = await link.recv()
            assert isinstance(frame, bytes)
            assert isinstance(decode_master_frame(frame)[0], Welcome)
            assert (await asyncio.to_thread(it.get, "stats"))[1]["workers"] == 1
            it.process.send_signal(signal.SIGTERM)
            await link.wait_closed()
            assert link.close_code == CLOSE_STOPPING

    with master(home_at(tmp_path)) as it:
        asyncio.run(story(it))
        assert it.end() == (0, "")


def test_an_open_wait_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    with master(home_at(tmp_path)) as it:
        host, port = it.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as feed:
            feed.sendall(
                b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
                + TOKEN.encode()
                + b"\r\n\r\n"
            )
            assert feed.recv(12) == b"HTTP/1.1 200"
            it.process.send_signal(signal.SIGTERM)
            while feed.recv(65_536):
                pass
            assert it.end() == (0, "")


def test_f19_a_deposed_master_ends_with_a_code_that_has_it_started_anew(tmp_path: Path) -> None:
    home = home_at(tmp_path)
    with master(home) as it:
        connection = sqlite3.connect(home / "titan.db")
        connection.execute("UPDATE leader SET epoch = epoch + 1")
        connection.commit()
        connection.close()
        assert it.ask("POST", "store/put", {"key": "k", "value": "v"})[0] == 503
        code, said = it.end()
        assert code == 75
        assert "leads now" in said


def test_f13_a_second_master_on_one_home_is_refused(tmp_path: Path, refused: Refused) -> None:
    home = home_at(tmp_path)
    with master(home) as it:
        assert "open in another Titan Master" in refused(home)
        assert it.get("stats")[0] == 200
        with master(home) as second:
            code, said = second.end()
            assert (second.said, code) == ("", 6)
            assert "open in another Titan Master" in said


def test_a_port_that_is_taken_is_named(tmp_path: Path, refused: Refused) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert f"cannot listen on 127.0.0.1:{port}" in refused(home_at(tmp_path), "--port", port)


def test_f10_a_damaged_database_is_refused_and_named(tmp_path: Path, refused: Refused) -> None:
    home = home_at(tmp_path)
    (home / "titan.db").write_bytes(b"not a database " * 1_000)
    assert f"{home}/titan.db" in refused(home)


def test_s1_a_public_address_is_refused(tmp_path: Path, refused: Refused) -> None:
    assert "public" in refused(home_at(tmp_path), "--listen", "0.0.0.0")
    assert "no address" in refused(home_at(tmp_path), "--listen", "example.org")


def test_s2_a_home_without_a_good_token_is_refused(tmp_path: Path, refused: Refused) -> None:
    home = home_at(tmp_path)
    (home / "token").write_text("short")
    assert "5 characters" in refused(home)
    (home / "token").write_text(TOKEN)
    (home / "token").chmod(0o644)
    assert "can be read by others" in refused(home)
    (home / "token").unlink()
    assert "holds no token" in refused(home)


def test_a_limit_that_is_no_number_is_named(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITAN_LIMIT_WAITS_MAX", "many")
    assert "TITAN_LIMIT_WAITS_MAX" in refused(home_at(tmp_path))


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path, refused: Refused) -> None:
    home = home_at(tmp_path)
    (home / "titan.db").mkdir()
    assert "titan.db" in refused(home)
