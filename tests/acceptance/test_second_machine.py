"""docs/how-to/second-machine.md on two machines: titan up --tls in one namespace, its line pasted in the other."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cluster import STOP_S, TITAN, bare_environment
from tests.acceptance.networks import FAR, NEAR, Networks, why_not
from titan.cli.exits import Exit

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

PORT = 9443
SCRIPT = """\
import os
from titan_sdk import TitanClient
print(os.environ["TITAN_URL"], os.environ["TITAN_WORKDIR"], TitanClient().stats()["workers"])
"""
KNOCK = f"import socket; socket.create_connection(('{FAR}', 8000), 5)"
LISTEN = "import socket; s = socket.create_server(('', 8000)); print('ready', flush=True); s.accept()"


class Site:
    """A Master in the near namespace, and one worker, "far", that joined by the printed line in the other."""

    def __init__(self, networks: Networks, folder: Path) -> None:
        self.networks = networks
        self.folder = folder
        self.home = folder / "near"
        up = networks.inside(networks.near, TITAN, "up", "--listen", f"{NEAR}:{PORT}", "--tls", "--workers", "0")
        self._up = subprocess.Popen(up, env=bare_environment(self.home), stdout=subprocess.PIPE, text=True)
        assert self._up.stdout is not None
        self.screen = [self._up.stdout.readline() for _ in range(4)]
        self.line = next(line.strip() for line in self.screen if line.startswith("  titan worker --join"))
        self.far_home = folder / "far"
        self.worker = self.start(self.line, self.far_home, "--name", "far")
        assert self.worker.stderr is not None
        assert self.worker.stderr.readline() == f"worker far: connected to https://{NEAR}:{PORT}\n"

    def start(self, line: str, home: Path, *more: str) -> "subprocess.Popen[str]":
        """Paste `line` on the other machine."""
        program, *words = shlex.split(line)
        assert program == "titan"
        command = self.networks.inside(self.networks.far, TITAN, *words, *more)
        return subprocess.Popen(command, env=bare_environment(home), stderr=subprocess.PIPE, text=True)

    def refused(self, line: str, home: str, *more: str) -> str:
        """Paste `line` on the other machine, where it is refused; return what is said."""
        with self.start(line, self.folder / home, *more) as process:
            said = process.communicate(timeout=STOP_S)[1]
        assert process.returncode == Exit.INVALID, said
        return said

    def titan(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command at the Master; nothing says where it is but its home."""
        return self.networks.run(self.networks.near, self.home, TITAN, *words)

    def asked(self, *words: str) -> Any:
        done = self.titan(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def close(self) -> None:
        for process in (self.worker, self._up):
            with process:
                process.terminate()
                process.communicate(timeout=STOP_S)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Networks(PORT) as networks:
        made = Site(networks, tmp_path_factory.mktemp("machines"))
        try:
            yield made
        finally:
            made.close()


def test_jobs_run_on_the_machine_where_the_line_was_pasted(site: Site, tmp_path: Path) -> None:
    (tmp_path / "where.py").write_text(SCRIPT)
    done = site.titan("run", str(tmp_path / "where.py"))
    assert done.returncode == 0, done.stderr
    url, workdir, workers = done.stdout.split()
    assert url == f"https://{NEAR}:{PORT}"
    assert Path(workdir).is_relative_to(site.far_home)
    assert workers == "1"
    kept = {
        name: (site.far_home / "workers" / "far" / name).stat().st_mode & 0o777 for name in ("credential", "ca.pem")
    }
    assert kept == {"credential": 0o600, "ca.pem": 0o600}


def test_nobody_can_connect_to_that_machine(site: Site) -> None:
    networks = site.networks
    listen = networks.inside(networks.far, "python3", "-c", LISTEN)
    with subprocess.Popen(listen, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        assert listening.stdout.readline() == "ready\n"
        done = networks.run(networks.near, site.home, "python3", "-c", KNOCK)
        listening.kill()
    assert done.returncode != 0
    assert "OSError" in done.stderr or "Error" in done.stderr


def test_s16_a_line_is_good_once(site: Site) -> None:
    said = site.refused(site.line, "again", "--name", "again")
    assert "it was used, is over, or was made by another Master\nNext: print a fresh line at the Master" in said
    assert not (site.folder / "again" / "workers" / "again" / "credential").exists()


def test_s16_a_line_that_was_pasted_too_late_is_refused(site: Site) -> None:
    invited = site.asked("worker", "join-token", "--expires", "1s")
    token_id = invited["token"].split(".")[1]
    while [each["state"] for each in site.asked("token", "ls", "--all")["tokens"] if each["id"] == token_id] != [
        "expired"
    ]:
        pass
    assert "is over" in site.refused(invited["line"], "late", "--name", "late")


def test_s16_a_name_that_somebody_has_is_given_to_nobody_else(site: Site) -> None:
    invited = site.asked("worker", "join-token")
    said = site.refused(invited["line"], "thief", "--name", "far")
    assert "a worker named 'far' is here already" in said
    assert "Next: choose another --name" in said
    credential = site.far_home / "workers" / "far" / "credential"
    _, flags = invited["line"].split(" --token ")
    line = f"titan worker --join https://{NEAR}:{PORT} --token-file {credential} {flags.partition(' ')[2]}"
    said = site.refused(line, "renamed", "--name", "other")
    assert "its token is that of worker far" in said


def test_clones_of_one_image_get_names_of_their_own_and_keep_them(site: Site) -> None:
    """Both machines here have one host name, and neither says how it is called."""
    join = f"titan worker --join https://{NEAR}:{PORT}"

    def connected(line: str, home: str) -> tuple["subprocess.Popen[str]", str]:
        process = site.start(line, site.folder / home)
        assert process.stderr is not None
        said = re.fullmatch(r"worker (\S+): connected to \S+\n", process.stderr.readline())
        assert said
        return process, said[1]

    first, name = connected(site.asked("worker", "join-token")["line"], "clone-a")
    second, other = connected(site.asked("worker", "join-token")["line"], "clone-b")
    assert name.endswith("-1")
    assert re.fullmatch(re.escape(name) + "-[0-9a-f]{4}", other)
    assert {name, other} <= {each["name"] for each in site.asked("worker", "ls")["workers"] if each["connected"]}
    for process, home, before in ((second, "clone-b", other), (first, "clone-a", name)):
        with process:
            process.terminate()
            process.communicate(timeout=STOP_S)
        again, after = connected(join, home)
        assert after == before
        with again:
            again.terminate()
            again.communicate(timeout=STOP_S)
    said = site.refused(site.asked("worker", "join-token")["line"], "clone-c", "--name", other)
    assert f"a worker named '{other}' is here already" in said


def test_s10_another_certificate_than_the_printed_one_is_refused(site: Site) -> None:
    invited = site.asked("worker", "join-token")
    line = invited["line"].replace(invited["fingerprint"], "sha256:" + "ab" * 32)
    said = site.refused(line, "fooled")
    assert f"{NEAR} port {PORT} is not the Master with the fingerprint sha256:abab" in said
    assert "Next: somebody may stand between" in said
    said = site.refused(invited["line"].partition(" --fingerprint")[0], "trusting")
    assert "shows a certificate that is not trusted here" in said
    assert "Next: say whom to trust" in said


def test_s16_a_worker_that_is_removed_leaves_and_does_not_come_back(site: Site) -> None:
    assert site.titan("worker", "remove", "far").returncode == 0
    assert site.worker.wait(STOP_S) == Exit.INVALID
    assert site.worker.stderr is not None
    said = site.worker.stderr.read()
    assert "the Master lets it in no more" in said
    assert "titan worker join-token" in said
    said = site.refused(f"titan worker --join https://{NEAR}:{PORT}", "far", "--name", "far")
    assert "does not take its credential" in said
    assert site.asked("worker", "ls")["workers"][0]["connected"] is False
