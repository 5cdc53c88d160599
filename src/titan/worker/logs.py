"""The output of jobs: from pipes into spool files, by one thread with one fixed buffer.

A job writes stdout and stderr into one pipe. This thread drains all pipes, so no job ever waits for a slow
Master, and appends what it reads to a file per attempt, which is shipped by offset and removed once the
Master has it. Nothing here looks at lines: a line may be a gigabyte.
"""

import array
import fcntl
import os
import select
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from titan.model.limits import DEFAULT_LIMITS

_BUFFER_BYTES = 128 * 1024
# Output is told of this long after it came, or once there is so much of it: a job that prints a line and
# ends then costs its worker one message instead of two.
_NEWS_WAIT_S = 0.02
_NEWS_BYTES = 64 * 1024
# The thread is woken to remove larger files only.
_UNLINKED_AT_ONCE_BYTES = 1024 * 1024
# The Master's limit on a log covers the lines that are ours.
LINES_BYTES_MAX = 4096

Run = Callable[..., object]


class _Spool:
    """One attempt's log. `total` bytes are in the file; `lost` could not be kept, and `why`."""

    __slots__ = ("ends_line", "fence", "file", "finished", "lost", "path", "pipe", "total", "why")

    def __init__(self, fence: int, pipe: int, path: Path) -> None:
        self.fence = fence
        self.pipe = pipe
        self.path = path
        self.file = -1
        self.total = 0
        self.lost = 0
        self.why = ""
        self.ends_line = True
        self.finished = False

    def append(self, data: memoryview) -> None:
        """Write all of `data`, or count what could not be written."""
        try:
            if self.file < 0:
                self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            while data:
                written = os.pwrite(self.file, data, self.total)
                self.total += written
                self.ends_line = data[written - 1] == 10
                data = data[written:]
        except OSError as error:
            self.lost += len(data)
            self.why = error.strerror or type(error).__name__

    def remove(self) -> None:
        """Close the file and remove it."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1
            self.path.unlink(missing_ok=True)


class Logs:
    """All spools of one worker, with their thread.

    `grew`, with the new totals by fence, and the callbacks of `finish` run by way of `call`, which hands a
    function to the event loop's thread. Every other method is called on that thread.
    """

    def __init__(
        self,
        folder: Path,
        call: Run,
        grew: Callable[[dict[int, int]], None],
        cap_bytes: int = DEFAULT_LIMITS.log_job_bytes_max - LINES_BYTES_MAX,
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in folder.iterdir():
            leftover.unlink()
        self._folder = folder
        self._call = call
        self._grew = grew
        self._cap_bytes = cap_bytes
        self._spools: dict[int, _Spool] = {}
        self._by_pipe: dict[int, _Spool] = {}
        self._buffer = bytearray(_BUFFER_BYTES)
        self._requests: deque[Callable[[], bool]] = deque()
        self._news: dict[int, int] = {}
        self._news_bytes = 0
        self._news_due_s = 0.0
        self._poll = select.epoll()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._wake_read, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="titan-logs", daemon=True)
        self._thread.start()

    def add(self, fence: int, pipe: int | None) -> None:
        """Drain `pipe`, whose descriptor is ours from now on, into the log of `fence`. None: nothing will run."""
        spool = self._spools[fence] = _Spool(fence, -1 if pipe is None else pipe, self._folder / str(fence))
        if pipe is not None:
            os.set_blocking(pipe, False)
            self._by_pipe[pipe] = spool
            self._poll.register(pipe, select.EPOLLIN)

    def finish(self, fence: int, line: str, done: Callable[[int], None]) -> None:
        """The job and all its processes are gone: take what its pipe still holds, add `line`, tell the length.

        What others may still write into the pipe is not waited for.
        """
        spool = self._spools[fence]

        def told(total: int) -> None:
            spool.finished = True
            done(total)

        self._ask(lambda: self._finish(spool, line, told))

    def read(self, fence: int, offset: int, length: int) -> bytes:
        """Return `length` bytes of the log that `grew` or `finish` has told of.

        Bytes that somebody took from the file since, or that cannot be read, are NUL.
        """
        try:
            data = os.pread(self._spools[fence].file, length, offset)
        except OSError:
            data = b""
        return data.ljust(length, b"\0")

    def forget(self, fence: int) -> None:
        """Close and remove the log of `fence`; nothing to do when there is none."""
        spool = self._spools.pop(fence, None)
        if spool is None:
            return
        if spool.finished and spool.total <= _UNLINKED_AT_ONCE_BYTES:
            spool.remove()
        else:
            self._ask(lambda: self._forget(spool))

    def close(self) -> None:
        """Stop the thread and close everything; the files stay for the next start to clear."""
        self._ask(lambda: True)
        self._thread.join()
        for spool in self._spools.values():
            self._unwatch(spool)
            if spool.file >= 0:
                os.close(spool.file)
        self._poll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    # Below here: the thread.

    def _ask(self, request: Callable[[], bool]) -> None:
        self._requests.append(request)
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            pass  # full of wake-ups already

    def _run(self) -> None:
        stop = False
        while not stop:
            timeout_s = max(0.0, self._news_due_s - time.monotonic()) if self._news else None
            events = self._poll.poll(timeout_s)
            if self._news and (not events or self._news_bytes >= _NEWS_BYTES or time.monotonic() >= self._news_due_s):
                self._tell()
            for descriptor, _ in events:
                spool = self._by_pipe.get(descriptor)
                if spool is not None:
                    self._drain(spool, _BUFFER_BYTES)
                elif descriptor == self._wake_read:
                    os.read(self._wake_read, 4096)
                    while self._requests:
                        stop = self._requests.popleft()() or stop

    def _unwatch(self, spool: _Spool) -> None:
        if spool.pipe >= 0:
            self._by_pipe.pop(spool.pipe, None)
            self._poll.unregister(spool.pipe)
            os.close(spool.pipe)
            spool.pipe = -1

    def _drain(self, spool: _Spool, limit: int) -> int:
        """Take at most `limit` bytes from the pipe and return how many there were; stop watching at its end."""
        view = memoryview(self._buffer)[: min(limit, _BUFFER_BYTES)]
        try:
            count = os.readv(spool.pipe, [view])
        except BlockingIOError:
            return 0
        if count == 0:
            self._unwatch(spool)
            return 0
        kept = min(count, self._cap_bytes - spool.total)
        if kept > 0:
            spool.append(view[:kept])
            if not self._news:
                self._news_due_s = time.monotonic() + _NEWS_WAIT_S
            self._news[spool.fence] = spool.total
            self._news_bytes += kept
        spool.lost += count - max(kept, 0)
        return count

    def _finish(self, spool: _Spool, line: str, done: Callable[[int], None]) -> bool:
        if spool.pipe >= 0:
            waiting = array.array("i", [0])
            fcntl.ioctl(spool.pipe, termios.FIONREAD, waiting)
            left = waiting[0]
            while left > 0 and spool.pipe >= 0:
                count = self._drain(spool, left)
                if count == 0:
                    break
                left -= count
            self._unwatch(spool)
        lines = [self._loss_line(spool)] if spool.lost else []
        for text in (*lines, *([line] if line else [])):
            start = "" if spool.ends_line else "\n"
            spool.append(memoryview(f"{start}[titan] {text}\n".encode("utf-8", "backslashreplace")))
        self._news.pop(spool.fence, None)
        self._call(done, spool.total)
        return False

    def _loss_line(self, spool: _Spool) -> str:
        if spool.why:
            return f"log incomplete: {spool.lost} bytes could not be kept ({spool.why})"
        return f"log capped: {spool.lost} bytes after the first {self._cap_bytes} were dropped"

    def _forget(self, spool: _Spool) -> bool:
        self._unwatch(spool)
        spool.remove()
        return False

    def _tell(self) -> None:
        self._call(self._grew, self._news)
        self._news, self._news_bytes = {}, 0
