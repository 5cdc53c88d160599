"""A timer of CLOCK_BOOTTIME: after a sleep of the machine a missed deadline fires at once.

`epoll`'s own timeout stands still while the machine sleeps. (Python 3.13 has this call in `os`.)
"""

import ctypes
import os

_CLOCK_BOOTTIME = 7
_ABSOLUTE = 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Setting(ctypes.Structure):
    # struct itimerspec: the interval, then the first expiry, seconds and nanoseconds each.
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class BootTimer:
    """One deadline in boot milliseconds; `descriptor` is readable once it has passed."""

    def __init__(self) -> None:
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self.descriptor: int = _libc.timerfd_create(_CLOCK_BOOTTIME, flags)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create(CLOCK_BOOTTIME)")
        self._deadline_ms = 0
        self._setting = _Setting()

    def set(self, deadline_ms: int) -> None:
        """Arm for `deadline_ms`; nothing to do when it already is."""
        if deadline_ms == self._deadline_ms:
            return
        self._deadline_ms = deadline_ms
        self._setting.value_s, rest_ms = divmod(deadline_ms, 1000)
        self._setting.value_ns = rest_ms * 1_000_000
        _libc.timerfd_settime(self.descriptor, _ABSOLUTE, ctypes.byref(self._setting), None)

    def clear(self) -> None:
        """Take note that the deadline passed."""
        try:
            os.read(self.descriptor, 8)
        except BlockingIOError:
            pass
        self._deadline_ms = 0
