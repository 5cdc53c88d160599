"""Artifacts as people meet them: every word of `titan artifacts`."""

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.cluster import TITAN, Cluster, bare_environment
from titan.cli.artifacts import spoken_bytes

MIB = 1024 * 1024


def document(done: "subprocess.CompletedProcess[bytes]") -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_the_words_and_exit_codes_of_titan_artifacts(cluster: Cluster, tmp_path: Path) -> None:
    def run(*words: str) -> "subprocess.CompletedProcess[bytes]":
        return cluster.titan("artifacts", *words, cwd=tmp_path)

    (tmp_path / "a.bin").write_bytes(b"\0\xff" * 600)
    told = document(run("put", "words/a", "a.bin", "--json"))
    assert (told["key"], told["version"], told["size"], told["name"]) == ("words/a", 1, 1200, "a.bin")
    done = run("put", "words/a", "a.bin")
    assert (done.stdout, done.stderr) == (b"", b"published words/a: version 2, 1.2 KiB\n")
    assert run("put", "words/a", "a.bin", "-q").stdout == b"words/a\n"
    assert run("get", "words/a", "-").stdout == b"\0\xff" * 600
    (tmp_path / "folder").mkdir()
    done = run("get", "words/a", "folder")
    assert done.stderr == b"saved folder/a.bin: version 3 of words/a, 1.2 KiB\n"
    assert (tmp_path / "folder" / "a.bin").read_bytes() == b"\0\xff" * 600
    for words in (["folder"], []):
        (tmp_path / "a.bin").write_bytes(b"mine")
        done = run("get", "words/a", *words)
        there = "/".join([*(words or "."), "a.bin"])
        assert (done.returncode, done.stdout) == (6, b"")
        assert done.stderr.decode() == (
            f"titan: {there} is there already\n"
            "Next: titan artifacts get words/a PATH gives it another name; --force replaces the file\n"
        )
    assert (tmp_path / "a.bin").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "folder"], "nothing is left of it"
    assert run("get", "words/a", "--force", "-q").stdout == b"./a.bin\n"
    assert (tmp_path / "a.bin").read_bytes() == b"\0\xff" * 600
    assert document(run("get", "words/a", "b.bin", "--version", "1", "--json"))["version"] == 1
    listed = run("ls", "words/").stdout.decode().split()
    assert listed[:4] == ["words/a", "3", "1.2", "KiB"]
    assert listed[-2:] == ["UTC", "admin"]
    found = document(run("ls", "words/", "--json"))["artifacts"]
    assert isinstance(found, list)
    assert [one["version"] for one in found] == [3]
    assert run("rm", "words/a", "--version", "2").stderr == b"deleted 1 version of words/a\n"
    assert document(run("rm", "words/a", "--json")) == {"key": "words/a", "deleted": 2}
    for words, code in (
        (["get", "words/a"], 3),
        (["rm", "words/a"], 3),
        (["ls", "words/a", "--versions"], 3),
        (["put", "k", "missing"], 3),
        (["put", "", "a.bin"], 6),
        (["put", "k", "folder"], 6),
        (["put", "k"], 2),
        (["get", "k", "--version", "0"], 2),
    ):
        failed = run(*words)
        assert (failed.returncode, failed.stdout) == (code, b""), (words, failed.stderr)
        assert failed.stderr.startswith(b"titan: "), words
    assert run("ls", "words/", "-q").stdout == b""


def test_a_terminal_sees_how_far_it_is_and_nothing_of_it_stays(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(8 * MIB))
    ours, theirs = pty.openpty()
    command = [TITAN, "artifacts", "put", "large", "large"]
    with subprocess.Popen(command, env=bare_environment(cluster.home), cwd=tmp_path, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        try:
            while piece := os.read(ours, 65536):
                seen += piece
        except OSError:  # the other side has closed
            pass
        assert process.wait(60) == 0
    os.close(ours)
    assert re.search(rb"publishing large +\d+ % ", seen)
    assert seen.rpartition(b"\x1b[K")[2] == b"published large: version 1, 8.0 MiB\r\n"


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (5 * 2**30, "5.0 GiB"),
        (2**41, "2.0 TiB"),
    ],
)
def test_sizes_as_people_say_them(count: int, said: str) -> None:
    assert spoken_bytes(count) == said


def peak_mib(pid: int) -> int:
    """Return the most memory that a process has held since `forget_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024  # type: ignore[index]


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def test_the_size_of_an_artifact_is_no_matter_to_anybodys_memory(cluster: Cluster, tmp_path: Path) -> None:
    master = json.loads((cluster.home / "endpoint.json").read_text())["pid"]
    with cluster.client() as client:
        (tmp_path / "small").write_bytes(b"x" * MIB)
        client.publish_artifact("small", tmp_path / "small")
        client.get_artifact("small", tmp_path / "back")
        with (tmp_path / "large").open("wb") as large:
            large.truncate(64 * MIB)
        for pid in (master, os.getpid()):
            forget_peak(pid)
        before = {pid: peak_mib(pid) for pid in (master, os.getpid())}
        told = client.publish_artifact("large", tmp_path / "large")
        assert client.get_artifact("large", tmp_path / "back")["sha256"] == told["sha256"]
        assert (tmp_path / "back").stat().st_size == 64 * MIB
        assert {pid: peak_mib(pid) - before[pid] for pid in before if peak_mib(pid) - before[pid] > 16} == {}
