"""The whole terminal for a while: drawn in one write without flicker, and given back as it was.

The alternate screen keeps what stood there before. Lines are overwritten in place and cleared to their end, so
nothing blinks. However the command ends (a key, Ctrl+C, TERM, an error), and while it is stopped by Ctrl+Z, the
terminal is as it was.
"""

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from types import FrameType
from typing import Any, Self

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
HOME, LINE_END, REST = "\x1b[H", "\x1b[K", "\x1b[J"
KEY_BYTES_MAX = 64


class Screen:
    """The terminal on stdin and stdout, to be used with `with`. Raises OSError when there is none."""

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._modes: list[Any] = []
        self._former: dict[int, Any] = {}
        self._wake: tuple[int, int] = (-1, -1)
        self._shown: list[str] = []

    def __enter__(self) -> Self:
        self._modes = termios.tcgetattr(self._in)
        self._wake = os.pipe()
        for end in self._wake:
            os.set_blocking(end, False)
        handlers = {signal.SIGWINCH: _nothing, signal.SIGTERM: _interrupt, signal.SIGHUP: _interrupt}
        self._former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        self._former[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._stop)
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._former.items():
            signal.signal(number, handler)
        for end in self._wake:
            os.close(end)
        with contextlib.suppress(OSError):  # a terminal that is gone needs nothing back
            self._give_back()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        found = os.get_terminal_size(self._out)
        return max(found.columns, 20), max(found.lines, 4)

    def draw(self, lines: Sequence[str]) -> None:
        """Show `lines`, each without a line end and no longer than the screen is wide, instead of what is there."""
        self._shown = list(lines[: self.size[1]])
        body = "\r\n".join(f"{line}{LINE_END}" for line in self._shown)
        self._write(f"{HOME}{body}{REST}")

    def key(self, wait_s: float) -> str:
        """Return what was typed within `wait_s`; "" for nothing, or at once when the size has changed."""
        ready, _, _ = select.select([self._in, self._wake[0]], [], [], wait_s)
        if self._wake[0] in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake[0], KEY_BYTES_MAX)
        if self._in in ready:
            return os.read(self._in, KEY_BYTES_MAX).decode("utf-8", "replace") or "q"
        return ""

    def _take(self) -> None:
        tty.setcbreak(self._in, termios.TCSADRAIN)
        self._write(ENTER)

    def _give_back(self) -> None:
        self._write(LEAVE)
        termios.tcsetattr(self._in, termios.TCSADRAIN, self._modes)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl+Z: give the terminal back until somebody brings us to the front again."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()
        self.draw(self._shown)

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._out, data) :]


def _nothing(_number: int, _frame: FrameType | None) -> None:
    return


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
