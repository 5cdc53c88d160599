"""`titan top` on a terminal of its own: what it shows, and that the terminal is as before however it ends."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.cluster import TITAN, Cluster, bare_environment
from tests.acceptance.test_commands import document
from titan_sdk import TitanClient, TitanJob

WAIT_S = 60
ENTERED, LEFT = b"\x1b[?1049h", b"\x1b[?7h\x1b[?25h\x1b[?1049l"
DRAWN = b"q leaves"


class Terminal:
    """A command that has a terminal of its own and is the one in front of it."""

    def __init__(self, cluster: Cluster, *arguments: str, columns: int = 100, lines: int = 24, **more: str) -> None:
        self.shown = b""
        self._master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.modes_before = self.modes()
        environ = bare_environment(cluster.home, **{"TERM": "xterm", **more})
        self.pid = os.fork()
        if not self.pid:
            self._become_front()
            os.execve(TITAN, ["titan", *arguments], environ)  # noqa: S606 - the test's own fork

    def _become_front(self) -> None:
        os.setsid()
        fcntl.ioctl(self._slave, termios.TIOCSCTTY, 0)
        for descriptor in (0, 1, 2):
            os.dup2(self._slave, descriptor)

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    def wait_shown(self, text: bytes, times: int = 1) -> None:
        """Read the screen until `text` has come that often."""
        while self.shown.count(text) < times:
            ready, _, _ = select.select([self._master], [], [], WAIT_S)
            assert ready, f"{text!r} did not come {times} times: {self.shown!r}"
            self.shown += os.read(self._master, 65_536)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def last_screen(self) -> list[str]:
        """The lines of the last whole drawing, without colours."""
        drawing = self.shown.rpartition(DRAWN)[0].rpartition(b"\x1b[H")[2].decode()
        for code in ("\r", "\x1b[K", "\x1b[1m", "\x1b[2m", "\x1b[0m", "\x1b[33m"):
            drawing = drawing.replace(code, "")
        return drawing.split("\n")

    def ended(self) -> int:
        """Wait for its end and return its exit code."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        return code

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        for descriptor in (self._master, self._slave):
            os.close(descriptor)


@contextlib.contextmanager
def top(cluster: Cluster, *flags: str, **options: Any) -> Iterator[Terminal]:
    terminal = Terminal(cluster, "top", "--interval", "0.1", *flags, **options)
    try:
        yield terminal
    finally:
        terminal.close()


@pytest.fixture
def waits(client: TitanClient) -> Iterator[str]:
    """A run whose one job waits for a capability that nobody offers."""
    run = client.submit_job(TitanJob("wants", "w.py", script_content="", requirement="TOPMOST"))
    yield run.id
    run.cancel().wait(WAIT_S)


def test_it_shows_workers_queues_with_their_reason_and_rates(cluster: Cluster, waits: str) -> None:
    with top(cluster) as terminal:
        terminal.wait_shown(b"/s completed")
        terminal.wait_shown(DRAWN, times=3)
        shown = "\n".join(terminal.last_screen())
        assert len(terminal.last_screen()) == 24
        assert f"Titan 0.1.0   {cluster.url}   up " in shown
        assert re.search(r"[0-4]/4[+0-9]* +[#.]{10}  ", shown), shown
        assert "TOPMOST  1 " in shown
        assert "NO_WORKER_WITH_CAPABILITY: no connected worker offers TOPMOST" in shown
        assert "RUNNING  " in shown
        terminal.type(b"q")
        assert terminal.ended() == 0
        terminal.wait_shown(LEFT)
        assert terminal.shown.count(ENTERED) == 1
        assert b"\x1b[2J" not in terminal.shown.split(DRAWN, 1)[1], "it is drawn over, never cleared: no flicker"
        assert terminal.modes() == terminal.modes_before


def test_once_has_rates_too(cluster: Cluster) -> None:
    done = cluster.titan("top", "--once", "--interval", "0.1")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[0-9.]+/s started   [0-9.]+/s completed   .*", done.stdout.decode().splitlines()[2])


@pytest.mark.parametrize(("typed", "number", "code"), [(b"\x03", 0, 130), (b"", signal.SIGTERM, 130), (b"Q", 0, 0)])
def test_however_it_ends_the_terminal_is_as_before(cluster: Cluster, typed: bytes, number: int, code: int) -> None:
    with top(cluster) as terminal:
        terminal.wait_shown(DRAWN)
        assert terminal.modes() != terminal.modes_before
        terminal.type(typed) if typed else os.kill(terminal.pid, number)
        assert terminal.ended() == code
        terminal.wait_shown(LEFT)
        assert terminal.modes() == terminal.modes_before
        assert terminal.shown.endswith(LEFT), "nothing is said behind it"


def test_stopped_it_gives_the_terminal_back_until_it_goes_on(cluster: Cluster) -> None:
    with top(cluster) as terminal:
        terminal.wait_shown(DRAWN)
        os.kill(terminal.pid, signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(terminal.pid, os.WUNTRACED)[1])
        terminal.wait_shown(LEFT)
        assert terminal.modes() == terminal.modes_before
        os.kill(terminal.pid, signal.SIGCONT)
        terminal.wait_shown(ENTERED, times=2)
        drawn = terminal.shown.count(DRAWN)
        terminal.wait_shown(DRAWN, times=drawn + 1)
        terminal.type(b"q")
        assert terminal.ended() == 0


def test_it_fits_a_terminal_that_becomes_small(cluster: Cluster, waits: str) -> None:
    with top(cluster, NO_COLOR="1") as terminal:
        terminal.wait_shown(DRAWN)
        terminal.resize(30, 8)
        os.kill(terminal.pid, signal.SIGWINCH)
        terminal.wait_shown(DRAWN, times=terminal.shown.count(DRAWN) + 3)
        screen = terminal.last_screen()
        assert len(screen) == 8
        assert max(map(len, screen)) <= 30
        assert b"\x1b[1m" not in terminal.shown
        terminal.type(b"q")
        assert terminal.ended() == 0


def test_without_a_terminal_it_is_one_look(cluster: Cluster, waits: str) -> None:
    told = document(cluster.titan("top", "--json"))
    assert [queue["job_id"] for queue in told["waiting"] if queue["requirement"] == ["TOPMOST"]] == ["wants"]
    assert (told["url"], told["stats"]["slots"]) == (cluster.url, 4)
    assert b"TOPMOST  1 " in cluster.titan("top").stdout
    assert b"\x1b" not in cluster.titan("top", "--once").stdout
    assert cluster.titan("top", "-q").stdout.decode().split() == [worker["name"] for worker in told["workers"]]


def test_a_dumb_terminal_gets_one_look(cluster: Cluster) -> None:
    with top(cluster, TERM="dumb") as terminal:
        terminal.wait_shown(b"RUNNING")
        assert terminal.ended() == 0
        assert b"\x1b" not in terminal.shown
