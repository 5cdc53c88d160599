"""What goes in comes out: arguments, scripts, store values, and each submission once."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster
from titan_sdk import TitanClient, TitanJob

WAIT_S = 60
ARGUMENTS = [
    "",
    " ",
    "two words",
    "it's",
    '"quoted"',
    "a|b",
    "a;b && c || d > /dev/null #",
    "$HOME `id` $(id) ${x}",
    "back\\slash\\\\n",
    "line one\nline two\r\n",
    "\ttab",
    "bell\x07 and escape\x1b[31m",
    "émoji 🙂 👩‍👩‍👧 \u202ertl",
    "--name",
    "-x",
    "--",
    "@file",
    "*?[a-z]~",
    "%s %d {x}",
    "\u2028",
    "",
]
ECHO = "import json, sys\nsys.stdout.buffer.write(json.dumps([a.encode().hex() for a in sys.argv[1:]]).encode())\n"


def decoded(text: str | bytes) -> list[str]:
    return [bytes.fromhex(word).decode() for word in json.loads(text)]


class TestArguments:
    """Byte for byte, from a shell and from Python."""

    def test_from_the_command_line(self, cluster: Cluster, tmp_path: Path) -> None:
        (tmp_path / "echo.py").write_text(ECHO)
        done = cluster.titan("run", "echo.py", "--", *ARGUMENTS, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert decoded(done.stdout) == ARGUMENTS

    def test_from_python(self, client: TitanClient) -> None:
        big = "x" * 100_000
        client.submit_job(TitanJob("echo", "echo.py", args=[*ARGUMENTS, big], script_content=ECHO)).wait(WAIT_S)
        assert decoded(client.fetch_logs("echo")) == [*ARGUMENTS, big]

    def test_text_is_split_as_a_shell_would(self, client: TitanClient) -> None:
        text = "--name 'Ada Lovelace' --empty '' \"a|b\" c\\ d"
        client.submit_job(TitanJob("echo", "echo.py", args=text, script_content=ECHO)).wait(WAIT_S)
        assert decoded(client.fetch_logs("echo")) == ["--name", "Ada Lovelace", "--empty", "", "a|b", "c d"]


class TestOutput:
    """The log is the job's bytes."""

    def test_any_bytes_reach_a_pipe_as_they_were(self, cluster: Cluster, tmp_path: Path) -> None:
        script = "import os\nos.write(1, bytes(range(256)) * 300)\nos.write(2, b'\\xff last')\n"
        (tmp_path / "bytes.py").write_text(script)
        expected = bytes(range(256)) * 300 + b"\xff last"
        done = cluster.titan("run", "bytes.py", cwd=tmp_path)
        assert done.stdout == expected
        assert cluster.titan("logs", "bytes").stdout == expected
        told = json.loads(cluster.titan("logs", "bytes", "--json").stdout)
        assert (told["text"], told["complete"]) == (expected.decode("utf-8", "replace"), True)

    def test_a_log_of_several_megabytes_is_whole(self, cluster: Cluster, tmp_path: Path) -> None:
        (tmp_path / "long.py").write_text("for number in range(400_000):\n    print(number)\n")
        done = cluster.titan("run", "long.py", cwd=tmp_path)
        assert done.stdout == b"".join(b"%d\n" % number for number in range(400_000))


def test_sixteen_jobs_with_one_file_name_run_their_own(client: TitanClient, tmp_path: Path) -> None:
    jobs = []
    for number in range(16):
        path = tmp_path / f"folder{number}" / "job.py"
        path.parent.mkdir()
        path.write_text(f"import os, sys\nprint({number}, os.path.basename(__file__), os.listdir())\n")
        jobs.append(TitanJob(job_id=f"job{number}", filename=path))
    run = client.submit_dag("sixteen", jobs).wait(WAIT_S)
    assert run.status == "COMPLETED"
    assert [run.logs(f"job{number}") for number in range(16)] == [
        f"{number} job.py ['job.py']\n" for number in range(16)
    ]


class TestStore:
    """Values come back as they were put, by every way in and out."""

    VALUES = (
        "",
        "0",
        "ünïcödé 🙂 \u202e\u2028\x00\x1b[2J\r\n",
        "🙂" * (256 * 1024),
        b"",
        bytes(range(256)),
        os.urandom(1024 * 1024),
    )

    @pytest.mark.parametrize("number", range(len(VALUES)))
    def test_a_value_comes_back_exact_and_of_its_type(self, client: TitanClient, cluster: Cluster, number: int) -> None:
        value, key = self.VALUES[number], f"exact 🙂/{number}"
        client.store_put(key, value)
        back = client.store_get(key)
        assert type(back) is type(value)
        assert back == value
        assert cluster.titan("store", "get", key).stdout == (value.encode() if isinstance(value, str) else value)

    def test_a_file_through_the_command_line(self, cluster: Cluster, client: TitanClient, tmp_path: Path) -> None:
        data = os.urandom(1024 * 1024)
        (tmp_path / "data").write_bytes(data)
        assert cluster.titan("store", "put", "file", "--file", "data", cwd=tmp_path).returncode == 0
        assert client.store_get("file") == data
        text = "naïve 🙂\n".encode()
        assert cluster.titan("store", "put", "text", "--file", "-", stdin=text).returncode == 0
        assert client.store_get("text") == text.decode()
        assert cluster.titan("store", "put", "text", "--bytes", "--file", "-", stdin=text).returncode == 0
        assert client.store_get("text") == text

    def test_one_byte_too_many_is_refused(self, client: TitanClient, cluster: Cluster, tmp_path: Path) -> None:
        (tmp_path / "data").write_bytes(bytes(1024 * 1024 + 1))
        done = cluster.titan("store", "put", "big", "--file", "data", cwd=tmp_path)
        assert done.returncode == 6
        assert b"1048576" in done.stderr
        assert client.store_get("big") is None


class CuttingProxy:
    """Passes connections on to the Master; the first answer to `marker` is thrown away with its connection."""

    def __init__(self, port: int, marker: bytes) -> None:
        self._master = ("127.0.0.1", port)
        self._marker = marker
        self.cut = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with near, socket.create_connection(self._master) as far:
                self._pass_on(near, far)

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        """One connection, strictly a request and then its answer, as the SDK uses it."""
        while request := self._read_message(near):
            far.sendall(request)
            answer = self._read_message(far)
            if self._marker in request and not self.cut:
                self.cut += 1
                return
            near.sendall(answer)

    def _read_message(self, sock: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = sock.recv(65536)
            if not piece:
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        missing = (int(lengths[0].split(b":")[1]) if lengths else 0) - len(body)
        while missing > 0:
            piece = sock.recv(65536)
            data, missing = data + piece, missing - len(piece)
        return data


class TestOnce:
    """The answer is lost after the Master committed; the SDK sends again; it counts once."""

    @pytest.fixture
    def proxies(self, cluster: Cluster) -> Iterator[list[CuttingProxy]]:
        made: list[CuttingProxy] = []
        yield made
        for proxy in made:
            proxy.close()

    def through(self, proxies: list[CuttingProxy], cluster: Cluster, marker: bytes) -> TitanClient:
        proxies.append(CuttingProxy(int(cluster.url.rpartition(":")[2]), marker))
        token = (cluster.home / "token").read_text().strip()
        return TitanClient(port=proxies[-1].port, token=token)

    def test_a_resent_submission(self, cluster: Cluster, client: TitanClient, proxies: list[CuttingProxy]) -> None:
        with self.through(proxies, cluster, b"POST /api/v1/runs ") as cut_off:
            run = cut_off.submit_job(TitanJob("once", "once.py", script_content="print('once')"))
        assert proxies[0].cut == 1
        assert [found.id for found in client.list_runs(name="once")] == [run.id]

    def test_a_resent_incr(self, cluster: Cluster, client: TitanClient, proxies: list[CuttingProxy]) -> None:
        client.store_put("counted", "41")
        with self.through(proxies, cluster, b"POST /api/v1/store/incr ") as cut_off:
            assert cut_off.store_incr("counted") == 42
        assert proxies[0].cut == 1
        assert client.store_get("counted") == "42"
