"""The output of jobs: from pipes into spool files, by one thread with one fixed buffer.

A job writes stdout and stderr into one pipe. This thread drains all pipes, so no job ever waits for a slow
Master, and appends what it reads to a spool per attempt, which is shipped by offset and removed once the
Master has it. What a spool cannot keep is a hole of known place, length and reason, and shipped as such.
Nothing here looks at lines: a line may be a gigabyte.
"""

import array
import fcntl
import os
import select
import shutil
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path

from titan.model.limits import DEFAULT_LIMITS
from titan.worker.spool import Hole, Spool, recover
from titan.worker.workspace import held_folder

_BUFFER_BYTES = 128 * 1024
# Output is told of this long after it came, or once there is so much of it: a job that prints a line and
# ends then costs its worker one message instead of two.
_NEWS_WAIT_S = 0.02
_NEWS_BYTES = 64 * 1024
# The thread is woken to remove larger files only.
_UNLINKED_AT_ONCE_BYTES = 1024 * 1024
# The Master's limit on a log covers the lines that are ours.
LINES_BYTES_MAX = 4096
LINE_CHARS_MAX = 1000
CAP_BYTES_MIN = 2

Run = Callable[..., object]


class _Stream:
    """A job's pipe and its spool. `told` holes have been told of; `finished`: nothing more will come."""

    __slots__ = ("fence", "finished", "pipe", "spool", "told")

    def __init__(self, fence: int, pipe: int, spool: Spool) -> None:
        self.fence = fence
        self.pipe = pipe
        self.spool = spool
        self.told = 0
        self.finished = False


class Logs:
    """All spools of one worker, with their thread.

    `grew`, with the new lengths by fence, `skipped`, with (fence, offset, length, reason) of what was not kept,
    and the callbacks of `finish` run by way of `call`, which hands a function to the event loop's thread. What was
    skipped is told before the log is told to reach there. Every other method is called on that thread.

    Spools of `kept` fences stay for `restore`; all other files of a predecessor are removed.
    """

    def __init__(
        self,
        folder: Path,
        call: Run,
        grew: Callable[[dict[int, int]], None],
        skipped: Callable[[int, int, int, str], None],
        cap_bytes: int = DEFAULT_LIMITS.log_job_bytes_max - LINES_BYTES_MAX,
        kept: Collection[int] = (),
    ) -> None:
        self._folder = held_folder(folder)
        names = {str(fence) for fence in kept}
        for leftover in os.scandir(self._folder):
            if leftover.is_dir(follow_symlinks=False):
                shutil.rmtree(leftover.path, ignore_errors=True)
            elif leftover.name not in names:
                os.unlink(leftover.path)
        self._call = call
        self._grew = grew
        self._skipped = skipped
        self._cap_bytes = max(cap_bytes, CAP_BYTES_MIN)
        self._streams: dict[int, _Stream] = {}
        self._by_pipe: dict[int, _Stream] = {}
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
        spool = Spool(self._folder / str(fence), self._cap_bytes)
        stream = self._streams[fence] = _Stream(fence, -1 if pipe is None else pipe, spool)
        if pipe is not None:
            os.set_blocking(pipe, False)
            self._by_pipe[pipe] = stream
            self._poll.register(pipe, select.EPOLLIN)

    def restore(self, fence: int, line: str) -> int:
        """Take over what a predecessor's spool has of `fence`, add `line` unless "", and return the log's length.

        Its holes are told through `skipped` before this returns. Without a readable file it has our line only.
        """
        spool = recover(self._folder / str(fence))
        stream = self._streams[fence] = _Stream(fence, -1, spool)
        stream.finished = True
        if line:
            spool.add_line(line[:LINE_CHARS_MAX])
        for hole in spool.holes():
            self._skipped(fence, hole.offset, hole.length, hole.why)
        return spool.length

    def finish(self, fence: int, line: str, done: Callable[[int], None]) -> None:
        """The job and all its processes are gone: take what its pipe still holds, add `line`, tell the length.

        What others may still write into the pipe is not waited for.
        """
        stream = self._streams[fence]

        def told(length: int) -> None:
            stream.finished = True
            done(length)

        self._ask(lambda: self._finish(stream, line, told))

    def read(self, fence: int, offset: int, length: int) -> bytes:
        """Return `length` bytes of the log that was told of, none of them skipped.

        Bytes that somebody took from the file since, or that cannot be read, are NUL.
        """
        return self._streams[fence].spool.read(offset, length)

    def forget(self, fence: int) -> None:
        """Close and remove the log of `fence`; nothing to do when there is none."""
        stream = self._streams.pop(fence, None)
        if stream is None:
            return
        if stream.finished and stream.spool.total <= _UNLINKED_AT_ONCE_BYTES:
            stream.spool.remove()
        else:
            self._ask(lambda: self._forget(stream))

    def close(self) -> None:
        """Stop the thread and close everything; the files stay for the next start."""
        self._ask(lambda: True)
        self._thread.join()
        for stream in self._streams.values():
            self._unwatch(stream)
            stream.spool.close()
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
                stream = self._by_pipe.get(descriptor)
                if stream is not None:
                    self._drain(stream, _BUFFER_BYTES)
                elif descriptor == self._wake_read:
                    os.read(self._wake_read, 4096)
                    while self._requests:
                        stop = self._requests.popleft()() or stop

    def _unwatch(self, stream: _Stream) -> None:
        if stream.pipe >= 0:
            self._by_pipe.pop(stream.pipe, None)
            self._poll.unregister(stream.pipe)
            os.close(stream.pipe)
            stream.pipe = -1

    def _drain(self, stream: _Stream, limit: int) -> int:
        """Take at most `limit` bytes from the pipe and return how many there were; stop watching at its end."""
        view = memoryview(self._buffer)[: min(limit, _BUFFER_BYTES)]
        try:
            count = os.readv(stream.pipe, [view])
        except BlockingIOError:
            return 0
        if count == 0:
            self._unwatch(stream)
            return 0
        before, _ = stream.spool.live()
        stream.spool.append(view[:count])
        end, holes = stream.spool.live()
        if end > before:
            self._tell_holes(stream, holes)
            if not self._news:
                self._news_due_s = time.monotonic() + _NEWS_WAIT_S
            self._news[stream.fence] = end
            self._news_bytes += end - before
        return count

    def _finish(self, stream: _Stream, line: str, done: Callable[[int], None]) -> bool:
        if stream.pipe >= 0:
            waiting = array.array("i", [0])
            fcntl.ioctl(stream.pipe, termios.FIONREAD, waiting)
            left = waiting[0]
            while left > 0 and stream.pipe >= 0:
                count = self._drain(stream, left)
                if count == 0:
                    break
                left -= count
            self._unwatch(stream)
        spool = stream.spool
        spool.end()
        if line:
            spool.add_line(line[:LINE_CHARS_MAX])
        self._news.pop(stream.fence, None)
        self._tell_holes(stream, spool.holes())
        self._call(done, spool.length)
        return False

    def _forget(self, stream: _Stream) -> bool:
        self._unwatch(stream)
        stream.spool.remove()
        return False

    def _tell_holes(self, stream: _Stream, holes: list[Hole]) -> None:
        for hole in holes[stream.told :]:
            self._call(self._skipped, stream.fence, hole.offset, hole.length, hole.why)
        stream.told = max(stream.told, len(holes))

    def _tell(self) -> None:
        self._call(self._grew, self._news)
        self._news, self._news_bytes = {}, 0
